/** What a kind of vnodes must be able to do: the pages' store, and how what it took becomes durable. */

import type { VnodeIndex } from '../page/page-hash.ts';
import type { PageStore } from '../page/page-store.ts';
import type { IoQuestion } from './io-requests.ts';

/** What a store says about a vnode when it looks again. */
export interface VnodeLook {
  readonly size: number;
  /** Words that differ when the contents may have changed: times of a file, version of a resource. */
  readonly stamp: Int32Array;
}

/** The store of one kind of vnodes. */
export interface VnodeStore extends PageStore {
  /** Makes what `write` took durable; `dataOnly` leaves out times and the like. Throws `EIO` and others. */
  sync(vnode: VnodeIndex, dataOnly: boolean): void;
  /** Cuts or lengthens what lies below the pages. Throws `EIO` and others; nothing is changed then. */
  truncate(vnode: VnodeIndex, size: number): void;
  /**
   * True when `truncate` leaves bytes behind a cut inside a page: the page is then written back while its end holds zeros, and
   * the store takes it up to where nothing but zeros lies. Without it nothing is left.
   */
  keepsCut?(vnode: VnodeIndex): boolean;
  /**
   * Reads `length` bytes from `position` on, none behind the size, straight into an array from `at` on; returns how many,
   * fewer when the store has not got all of them. Throws what `fill` throws. Without it every read goes through pages.
   */
  read?(vnode: VnodeIndex, position: number, target: Uint8Array, at: number, length: number): number;
  /** Looks at what is below now. Without it, or when it says null, a vnode never changes but by us. Throws `EIO` and others. */
  look?(vnode: VnodeIndex): VnodeLook | null;
  /** What to ask the remote I/O worker so that it looks; null when `look` does not wait for it. */
  lookQuestion?(vnode: VnodeIndex): IoQuestion | null;
  /**
   * What stands for the server or provider that its calls wait for, in the remote I/O worker, perhaps for long; null when they
   * do not wait for it. Without it they never do.
   */
  farSource?(vnode: VnodeIndex): number | null;
  /**
   * Makes sure that bytes `from` to `end - 1`, behind the size, can be written later; they read as zeros. Throws `ENOSPC` when
   * there is no room, and then what lies below is as it was. Without it, that shows only when pages are written back.
   */
  allocate?(vnode: VnodeIndex, from: number, end: number): void;
}
