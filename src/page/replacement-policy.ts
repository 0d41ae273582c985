/** What a replacement policy does: see replacement.ts for who calls it. */

import type { FrameIndex } from '../phys/banks.ts';
import type { VnodeIndex } from './page-hash.ts';

/** A policy as one thread sees it. All of its state lies in the region, under one mutex (RANK.replacement). */
export interface ReplacementPolicy {
  /** Up to how many hits the mark of a page counts. Hits do nothing else. */
  readonly markMax: number;
  /** Pages `index` to `index + count - 1` are coming into the frames in lanes `at` to `at + count - 1`. */
  inserted(vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): void;
  /**
   * Up to `max` frames whose pages should leave, different ones, into `out` from lane 0 on; returns how many. The policy has
   * moved on as if they left, and does not depend on whether they can.
   */
  candidates(out: Int32Array, max: number): number;
  /** Pages were made to leave: their frames in the lanes from `at` on, what they were in the lanes of the other two from 0. */
  evicted(frames: Int32Array, at: number, count: number, vnodes: Int32Array, indices: Int32Array): void;
  /** The page in one frame is in another one now. */
  relocated(from: FrameIndex, to: FrameIndex): void;
  /** Broken invariants. For quiet points. */
  problems(): string[];
}
