/**
 * Sizes of vnodes: who may change them, and what lies behind the end.
 *
 * PROBLEM     Several threads write behind the end at once, others cut the vnode, and others again read, map and write pages
 *             back; a thread may die in the middle of each. Bytes that were cut must never come back, neither from a page
 *             nor from the file system, and what a write put behind the end must not be lost by a write-back that came
 *             before the size.
 * STRUCTURE   Three sizes in the row:   size <= sizePeak,   diskSize
 *
 *               |<------- size: what readers see ------->|
 *               |<------- sizePeak: nothing but zeros behind it, in pages and in the file system -->|
 *               |<- diskSize: at least so much is in the file system ->|
 *
 *             extend     1 what a death has left between size and sizePeak is cleaned, and what was stored through a mapping
 *                        behind the end of the last page zeroed   2 sizePeak = end; with `allocate` the
 *                        file gets zeros up to there, or says that it is full
 *                        3 pages made, marked, filled   4 size = end   5 pages marked again
 *             cut        1 size = end   2 pages behind it dropped, those that others hold waited for while they are written back
 *                        3 the file is cut   4 what is still in memory behind the end: dropped or zeroed   5 sizePeak = end
 *
 * INVARIANTS  I1 outside an exclusive section, sizePeak = size unless a thread died in one.
 *             I2 behind sizePeak pages and file hold zeros, or nothing; but for the page in which the vnode ends, where who has
 *                mapped it may store, which never comes into the file.
 *             I3 no write-back that saw the old size is under way when the file is cut.
 * LOCKING     Each vnode's readers/writer lock: writers inside the size share it, who changes the size has it alone.
 *             Readers take nothing: they look at the size first. Pages are held under it, never the other way round.
 * COSTS       A write inside the size: a shared hold. One that extends: an exclusive hold and two journaled stores.
 * FAILURE     When the store cannot be cut, the size is what it was, and the bytes that would have gone are the file's.
 * REJECTED    One lock for all vnodes; locking ranges of bytes, which pages held shared make needless.
 * REFERENCES  illumos ufs_rwlock and ufs_itrunc; Linux truncate_pagecache: size first, pages second, blocks last.
 */

import { fail } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import { LARGE_PAGE_FRAMES_MAX } from '../page/page-shapes.ts';
import type { Pages } from '../page/pages.ts';
import type { Banks } from '../phys/banks.ts';
import { faultPoint } from '../sync/fault.ts';
import { RANK } from '../sync/ranks.ts';
import { RwLock } from '../sync/rwlock-class.ts';
import { sleepOn } from '../sync/sleep.ts';
import type { Thread } from '../sync/thread.ts';
import type { VnodeStore } from './vnode-store.ts';

/** How long a cut waits before it looks again at pages that others are filling. */
const PAUSE_MS = 1;

/** The sizes as one thread changes them. */
export class VnodeSizes {
  readonly #thread: Thread;
  readonly #banks: Banks;
  readonly #pages: Pages;
  readonly #store: VnodeStore;
  readonly #vnode: BoundTables['vnode'];
  readonly #pageSize: number;
  readonly #lanes = new Int32Array(LARGE_PAGE_FRAMES_MAX);

  /** @param store dispatches to the store of each vnode's kind. */
  constructor(thread: Thread, banks: Banks, pages: Pages, store: VnodeStore) {
    this.#thread = thread;
    this.#banks = banks;
    this.#pages = pages;
    this.#store = store;
    this.#vnode = thread.region.tables.vnode;
    this.#pageSize = thread.region.geometry.pageSize;
  }

  /** The lock of a vnode's size and contents. */
  lock(vnode: VnodeIndex): RwLock {
    return new RwLock(this.#thread, this.#vnode.lock.address(vnode), RANK.vnode);
  }

  /** Waits until nobody changes the size of a vnode. */
  settle(vnode: VnodeIndex): void {
    const lock = this.lock(vnode);
    lock.enterExclusive();
    lock.exitExclusive();
  }

  /** Steps 1 and 2 of extending: from here on pages up to `end` may be made. Under the exclusive lock. */
  bound(vnode: VnodeIndex, end: number): void {
    const size = this.#vnode.size.get(vnode);
    if (this.#vnode.sizePeak.get(vnode) > size) this.#clean(vnode);
    if (end > size) this.#zeroLast(vnode, size);
    if (this.#vnode.pagePeak.get(vnode) < end) this.#put(this.#vnode.pagePeak, vnode, end);
    if (this.#vnode.sizePeak.get(vnode) < end) this.#put(this.#vnode.sizePeak, vnode, end);
    if (VERIFY) faultPoint(this.#thread, 'vnode.extend.bounded');
    if (size < end && this.#vnode.allocates.get(vnode) !== 0) this.#store.allocate?.(vnode, size, end);
  }

  /** Step 4 of extending. The pages must be marked as modified again afterwards. Under the exclusive lock. */
  publish(vnode: VnodeIndex, end: number): void {
    if (this.#vnode.size.get(vnode) < end) this.#put(this.#vnode.size, vnode, end);
  }

  /**
   * Cuts or lengthens a vnode; what is added reads as zeros. Throws what the store throws, and `ETIMEDOUT` while it has not
   * answered an earlier write.
   */
  truncate(vnode: VnodeIndex, size: number): void {
    if (this.#store.isLate?.(vnode)) {
      // Before any page is given up. The write might bring back what is cut.
      fail('ETIMEDOUT', 'vnodes.truncate', { vnode, size }, 'an earlier write has not been answered yet');
    }
    const lock = this.lock(vnode);
    lock.enterExclusive();
    try {
      const before = this.#vnode.size.get(vnode);
      if (size > before) {
        this.bound(vnode, size);
        this.#store.truncate(vnode, size);
        this.publish(vnode, size);
      } else if (size < before) {
        this.#cut(vnode, before, size);
      } else if (this.#vnode.sizePeak.get(vnode) > size) {
        this.#clean(vnode);
      }
    } finally {
      lock.exitExclusive();
    }
  }

  /** Gives up modified pages while nobody writes; see `Pages.discard`. */
  discard(vnode: VnodeIndex, first: number, end: number): number[] {
    const lock = this.lock(vnode);
    lock.enterExclusive();
    try {
      return this.#pages.discard(vnode, first, end);
    } finally {
      lock.exitExclusive();
    }
  }

  /** Takes the size that the file has by now, when somebody else has changed it, and forgets pages behind it. */
  follow(vnode: VnodeIndex, size: number): void {
    const lock = this.lock(vnode);
    lock.enterExclusive();
    try {
      if (size < this.#vnode.size.get(vnode)) {
        this.#put(this.#vnode.size, vnode, size);
        this.#awaitWrites(vnode, Math.floor(size / this.#pageSize));
        this.#zeroBehind(vnode, size);
      }
      if (this.#vnode.pagePeak.get(vnode) < size) this.#put(this.#vnode.pagePeak, vnode, size);
      this.#put(this.#vnode.size, vnode, size);
      this.#put(this.#vnode.sizePeak, vnode, size);
      this.#vnode.diskSize.put(vnode, size);
    } finally {
      lock.exitExclusive();
    }
  }

  #cut(vnode: VnodeIndex, before: number, size: number): void {
    // 1.
    this.#put(this.#vnode.size, vnode, size);
    if (VERIFY) faultPoint(this.#thread, 'vnode.truncate.sized');
    try {
      this.#clean(vnode);
    } catch (error) {
      this.#put(this.#vnode.size, vnode, before);
      throw error;
    }
  }

  /** Steps 2 to 5 of a cut; also makes I1 true again after a death. */
  #clean(vnode: VnodeIndex): void {
    const size = this.#vnode.size.get(vnode);
    // 2.
    this.#pages.invalidate(vnode, Math.ceil(size / this.#pageSize));
    this.#awaitWrites(vnode, Math.floor(size / this.#pageSize));
    if (VERIFY) faultPoint(this.#thread, 'vnode.truncate.dropped');
    // 3. A file that was not written up to its size yet gets its length now.
    this.#store.truncate(vnode, size);
    // 4-5.
    this.#zeroBehind(vnode, size);
    this.#put(this.#vnode.sizePeak, vnode, size);
  }

  /** Drops pages behind the size, zeroes those that others hold, and the rest of the page in which the vnode ends. */
  #zeroBehind(vnode: VnodeIndex, size: number): void {
    const first = Math.ceil(size / this.#pageSize);
    while (this.#pages.invalidate(vnode, first) > 0 && !this.#zeroHeld(vnode, first)) {
      const { hand } = this.#thread.region.tables.pageClock;
      sleepOn(this.#thread, hand.address(0), hand.get(0), PAUSE_MS);
      this.#thread.clearWait();
    }
    const pageBytes = this.#pageSize << this.#vnode.pageShift.get(vnode);
    if (size % pageBytes === 0) return;
    const index = Math.floor(size / this.#pageSize);
    const end = Math.ceil(size / pageBytes) * (pageBytes / this.#pageSize);
    this.#zeroTail(vnode, index, end - index, size % this.#pageSize);
  }

  /** Zeroes what is in memory of the page in which the vnode ends, behind the end. */
  #zeroLast(vnode: VnodeIndex, size: number): void {
    const frames = 1 << this.#vnode.pageShift.get(vnode);
    let from = size % this.#pageSize;
    let index = (size - from) / this.#pageSize;
    if (from === 0 && index % frames === 0) return;
    do {
      const frame = this.#pages.hold(vnode, index);
      if (frame >= 0) {
        this.#zero(frame, from);
        this.#pages.release(frame);
      }
      from = 0;
      index++;
    } while (index % frames !== 0);
  }

  /** Zeroes pages that are held by others; false when some are being filled. */
  #zeroHeld(vnode: VnodeIndex, first: number): boolean {
    const { page } = this.#thread.region.tables;
    let all = true;
    for (let frame = 0; frame < page.rowCount; frame++) {
      const index = page.index.get(frame);
      if (page.vnode.get(frame) !== vnode + 1 || index < first) continue;
      const held = this.#pages.hold(vnode, index);
      if (held < 0) {
        all = false;
        continue;
      }
      this.#zero(held, 0);
      this.#pages.release(held);
    }
    return all;
  }

  /** Zeroes the frames of the page in which the vnode ends, from byte `inPage` of the first of them on. */
  #zeroTail(vnode: VnodeIndex, index: number, count: number, inPage: number): void {
    const keepsCut = this.#store.keepsCut?.(vnode) ?? false;
    try {
      this.#pages.fetch(vnode, index, count, this.#lanes, 0, this.#store, true);
    } catch (error) {
      if (keepsCut) throw error;
      return; // It is not in memory, and cannot be: a later fill zeroes behind the size.
    }
    for (let lane = 0; lane < count; lane++) {
      const frame = this.#lanes[lane] as number;
      this.#zero(frame, lane === 0 ? inPage : 0);
      if (keepsCut) this.#pages.setModified(frame);
      this.#pages.release(frame);
    }
    if (keepsCut) this.#pages.writeMarked(vnode, index, count, this.#store);
  }

  /** Waits until nobody writes pages back who has seen the old size. Errors stay with the pages, which stay modified. */
  #awaitWrites(vnode: VnodeIndex, first: number): void {
    try {
      this.#pages.writeMarked(vnode, first, Number.POSITIVE_INFINITY, this.#store);
    } catch {
      // Noted for all openers by the store.
    }
  }

  #zero(frame: number, from: number): void {
    const offset = this.#banks.offsetOf(frame);
    const bytes = this.#banks.views[this.#banks.bankOf(frame)] as Uint8Array;
    bytes.fill(0, offset + from, offset + this.#pageSize);
  }

  #put(column: BoundTables['vnode']['size'], vnode: VnodeIndex, value: number): void {
    this.#thread.journal.setDouble(column, vnode, value);
    this.#thread.commit();
  }
}
