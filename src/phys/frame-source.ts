/**
 * What the frames' lock guards, as an exchangeable part: which frames are free, and which of them comes next.
 *
 * Every method runs under the frames' lock and stores through the journal, so that a thread may die in any of them.
 */

import type { FrameIndex } from './banks.ts';
import type { RunShape } from './run-tree.ts';

/** A set of free frames with an order in which they are given out. */
export interface FrameSource {
  /** Most frames of a run that the journal has room for. */
  readonly pieceFrames: number;
  /** Removes the frame that comes next, from a class that has more than `reserve` free frames; -1 when there is none. */
  takeNext(reserve?: number): FrameIndex;
  /** Removes one certain frame, which is free. */
  take(frame: FrameIndex): void;
  /** Adds a frame that was not free. */
  give(frame: FrameIndex): void;
  /** Removes the frames of `[first, first + count)`, which are all free, at most `pieceFrames`. */
  takeRun(first: FrameIndex, count: number): void;
  /** Adds the frames of `[first, first + count)`, none of which was free, in ascending order, at most `pieceFrames`. */
  giveRun(first: FrameIndex, count: number): void;
  /** True when the frame is free. */
  has(frame: FrameIndex): boolean;
  /** The lowest free frame of `[from, limit)`, or -1. The frame stays in the set. */
  nextFree(from: FrameIndex, limit: FrameIndex): FrameIndex;
  /**
   * First frame of the lowest run of free frames of a shape inside `[low, high)`, or -1. The frames stay in the set. Call
   * it with nothing logged.
   */
  findRun(shape: RunShape, low: FrameIndex, high: FrameIndex): FrameIndex;
  /** Broken invariants, as `check()` reports them. */
  problems(): string[];
}
