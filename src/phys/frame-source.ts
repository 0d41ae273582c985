/**
 * What the frames' lock guards, as an exchangeable part: which frames are free, and which of them comes next.
 *
 * Every method runs under the frames' lock and stores through the journal, so that a thread may die in any of them.
 */

import type { FrameIndex } from './banks.ts';

/** A set of free frames with an order in which they are given out. */
export interface FrameSource {
  /** Removes the frame that comes next; -1 when none is free. */
  takeNext(): FrameIndex;
  /** Removes one certain frame, which is free. */
  take(frame: FrameIndex): void;
  /** Adds a frame that was not free. */
  give(frame: FrameIndex): void;
  /** True when the frame is free. */
  has(frame: FrameIndex): boolean;
  /** First frame of a run of `count` free ones inside `[low, high)`, or -1. The frames stay in the set. */
  findRun(count: number, low: FrameIndex, high: FrameIndex): FrameIndex;
  /** Broken invariants, as `check()` reports them. */
  problems(): string[];
}
