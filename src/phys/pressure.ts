/** What page lists and runs need from whoever frees frames: declared here, implemented in rooms above and by tests. */

import type { FrameIndex } from './banks.ts';

/** Frees frames for those who wait. Runs with no lock of `phys/` held but the marking lock. */
export interface PageListPressure {
  /** True while there is something that could be freed. */
  reclaimable(): boolean;
  /** Frees some frames, or waits until somebody has. */
  reclaim(): void;
  /** Says that frames are getting scarce; does not wait. */
  kick(): void;
}

/** What makes room in memory at once, for whoever asks without waiting. Called with no lock held. */
export interface FrameRoom {
  /** Frees about so many frames whose contents are elsewhere too; returns how many. */
  evict(frames: number): number;
  /** Writes what about so many frames hold to where it belongs, so that they can be evicted; returns how many. */
  clean(frames: number): number;
  /** Writes what this frame holds to where it belongs; true when it may be evicted now. */
  cleanFrame(frame: FrameIndex): boolean;
}
