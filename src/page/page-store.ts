/** Where pages come from and go to: declared here, implemented by the vnodes. */

import type { VnodeIndex } from './page-hash.ts';

/** Brings the bytes of pages. */
export interface PageSource {
  /**
   * Writes pages `index` to `index + count - 1` of a vnode into the frames in lanes `at` to `at + count - 1`, all of
   * their bytes, zeros behind the end of the vnode. Returns the bytes that came from the store; throws when any is
   * missing, and then nothing that it wrote will be seen. The frames are held exclusively: it must not wait for pages.
   */
  fill(vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): number;
}

/** Brings the bytes of pages, and takes those that were modified. */
export interface PageStore extends PageSource {
  /**
   * Gives pages `index` to `index + count - 1` of a vnode, at most 32, in the frames in lanes `at` to `at + count - 1`, back
   * to the store: accepted, not yet durable. Throws when the store does not take all of them; they stay modified then.
   * The frames are held shared; their bytes may change while they are read, and are then written again later.
   */
  write(vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): void;
  /**
   * True while the store has not answered an earlier write of the vnode within its time: who is short of frames does not ask
   * it then. Without it, false.
   */
  isLate?(vnode: VnodeIndex): boolean;
  /** Waits for the end of a cut of the vnode if `write` threw `error` because of one; false, without waiting, if not. */
  outlastCut?(vnode: VnodeIndex, error: unknown): boolean;
}
