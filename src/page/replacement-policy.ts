/** What a replacement policy does: see replacement.ts for who calls it. */

import type { FrameIndex } from '../phys/banks.ts';
import type { VnodeIndex } from './page-hash.ts';

/** A policy as one thread sees it. All of its state lies in the region, under one mutex (RANK.replacement). */
export interface ReplacementPolicy {
  /** Up to how many hits the mark of a page counts. Hits do nothing else. */
  readonly markMax: number;
  /** Pages `index` to `index + count - 1` are coming into the frames in lanes `at` to `at + count - 1`. */
  inserted(vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): void;
  /** A frame whose page should leave; the policy has moved on and does not depend on whether it can. -1 without any. */
  candidate(): FrameIndex;
  /** The page in a frame was made to leave. */
  evicted(frame: FrameIndex, vnode: VnodeIndex, index: number): void;
  /** The page in one frame is in another one now. */
  relocated(from: FrameIndex, to: FrameIndex): void;
  /** Broken invariants. For quiet points. */
  problems(): string[];
}
