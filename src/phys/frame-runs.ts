/** Lists of frames as runs: what a page list is in the hands of its owner. */

import type { FrameIndex } from './banks.ts';

/** Adjacent frames, ascending. */
export interface FrameRun {
  readonly first: FrameIndex;
  readonly count: number;
}

/** Frames given out together, in the order in which they were taken. */
export interface PageList {
  readonly runs: readonly FrameRun[];
  /** Frames in all runs. */
  readonly frameCount: number;
}

/** Puts a page list together. */
export class RunBuilder {
  readonly #runs: { first: FrameIndex; count: number }[] = [];
  #frames = 0;

  /** Frames so far. */
  get frameCount(): number {
    return this.#frames;
  }

  /** Appends frames; what continues the last run lengthens it. */
  push(first: FrameIndex, count: number): void {
    const last = this.#runs[this.#runs.length - 1];
    if (last !== undefined && last.first + last.count === first) last.count += count;
    else this.#runs.push({ first, count });
    this.#frames += count;
  }

  /** The list. */
  build(): PageList {
    return { runs: this.#runs, frameCount: this.#frames };
  }
}

/**
 * A list of one run, which knows its first frame itself: whoever gives it back need not follow `runs`, three steps through
 * memory that is often cold. A copy of it is a list like any other.
 */
class OneRun implements PageList {
  readonly runs: readonly FrameRun[];
  readonly frameCount: number;
  readonly #first: FrameIndex;

  constructor(first: FrameIndex, count: number) {
    this.runs = [{ first, count }];
    this.frameCount = count;
    this.#first = first;
  }

  /** First frame of a list that was made here and has one run, or -1. */
  static firstOf(list: PageList): FrameIndex {
    return #first in list ? list.#first : -1;
  }
}

/** A list of one run. */
export function singleRun(first: FrameIndex, count: number): PageList {
  return new OneRun(first, count);
}

/** First frame of a list that `singleRun` made, or -1: such a list has `frameCount` frames from there on. */
export function onlyRunOf(list: PageList): FrameIndex {
  return OneRun.firstOf(list);
}
