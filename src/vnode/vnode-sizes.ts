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
 *             cut        1 size = end; pages behind it stay in memory, and are not written back from here on (cuts.ts)
 *                        2 those that are being written back waited for
 *                        3 the file is cut; if it cannot be, the size is what it was, and so are the pages
 *                        4 what is in memory behind the end: dropped, or zeroed where others hold it   5 sizePeak = end
 *             clean      after a death: as a cut, but the pages are dropped first
 *
 * INVARIANTS  I1 outside an exclusive section, sizePeak = size unless a thread died in one.
 *             I2 behind sizePeak pages and file hold zeros, or nothing; but for the page in which the vnode ends, where who has
 *                mapped it may store, which never comes into the file.
 *             I3 no write-back that saw the old size is under way when the file is cut.
 * LOCKING     Each vnode's readers/writer lock: writers inside the size share it, who changes the size has it alone.
 *             Readers take nothing: they look at the size first. Pages are held under it, never the other way round.
 * COSTS       A write inside the size: a shared hold. One that extends: an exclusive hold and two journaled stores.
 * FAILURE     When the store cannot be cut, everything is what it was. A store that keeps what is cut inside a page and does not
 *             take the zeros there has been cut: they stay modified, and `sizePeak` says how far they are owed.
 * REJECTED    One lock for all vnodes; locking ranges of bytes, which pages held shared make needless.
 * REFERENCES  illumos ufs_rwlock and ufs_itrunc; Linux truncate_pagecache, which drops pages before blocks; cuts.ts says why not here.
 */

import { fail } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import { LARGE_PAGE_FRAMES_MAX } from '../page/page-shapes.ts';
import type { Pages } from '../page/pages.ts';
import type { Banks } from '../phys/banks.ts';
import { faultPoint } from '../sync/fault.ts';
import { pause } from '../sync/pause.ts';
import { RANK } from '../sync/ranks.ts';
import { RwLock } from '../sync/rwlock-class.ts';
import { sleepOn } from '../sync/sleep.ts';
import type { Thread } from '../sync/thread.ts';
import { Cuts, CutUnderWay } from './cuts.ts';
import type { VnodeStore } from './vnode-store.ts';

/** How long a cut waits before it looks again at pages that others are filling. */
const PAUSE_MS = 1;

/** How often pages that somebody holds are tried again before they stay. */
const FORGET_TRIES = 10;

/** The sizes as one thread changes them. */
export class VnodeSizes {
  /** Cuts that are under way. */
  readonly cuts: Cuts;
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
    this.cuts = new Cuts(thread.region);
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

  /** See `PageStore.outlastCut`. */
  outlastCut(vnode: VnodeIndex, error: unknown): boolean {
    if (!(error instanceof CutUnderWay)) return false;
    const lock = this.lock(vnode);
    lock.enterShared();
    lock.exitShared();
    return true;
  }

  /** Steps 1 and 2 of extending: from here on pages up to `end` may be made. Under the exclusive lock. */
  bound(vnode: VnodeIndex, end: number): void {
    this.cuts.end(vnode);
    const size = this.#vnode.size.get(vnode);
    if (this.#vnode.sizePeak.get(vnode) > size) this.#clean(vnode);
    if (end > size) {
      // What was stored there through pages that were held is not the vnode's.
      if (this.#vnode.keptBehind.get(vnode) !== 0) this.#zeroBehind(vnode, size);
      this.#zeroLast(vnode, size);
    }
    if (this.#vnode.pagePeak.get(vnode) < end) this.#put(this.#vnode.pagePeak, vnode, end);
    if (this.#vnode.sizePeak.get(vnode) < end) this.#put(this.#vnode.sizePeak, vnode, end);
    if (VERIFY) faultPoint(this.#thread, 'vnode.extend.bounded');
    if (size < end && this.#vnode.allocates.get(vnode) !== 0) {
      this.#refusable(vnode, size, () => this.#store.allocate?.(vnode, size, end));
    }
  }

  /** Asks the store for more; when it refuses, no page was made yet, and the vnode ends where it did. */
  #refusable(vnode: VnodeIndex, size: number, ask: () => void): void {
    try {
      ask();
    } catch (error) {
      this.#put(this.#vnode.sizePeak, vnode, size);
      throw error;
    }
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
      this.cuts.end(vnode);
      const before = this.#vnode.size.get(vnode);
      if (size > before) {
        this.bound(vnode, size);
        this.#refusable(vnode, before, () => this.#store.truncate(vnode, size));
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

  /**
   * Drops the clean pages of a vnode, also those that others hold for a moment: to bring them, to write them back, to look whether
   * they may go. What is mapped or pinned stays.
   */
  forget(vnode: VnodeIndex): void {
    const end = Math.ceil(this.#vnode.pagePeak.get(vnode) / this.#pageSize);
    for (let tries = 0; this.#pages.drop(vnode, end) > 0 && tries < FORGET_TRIES; tries++) {
      pause(this.#thread, PAUSE_MS);
    }
  }

  /** Takes the size that the file has by now, when somebody else has changed it, and forgets pages behind it. */
  follow(vnode: VnodeIndex, size: number): void {
    const lock = this.lock(vnode);
    lock.enterExclusive();
    try {
      this.cuts.end(vnode);
      if (size < this.#vnode.size.get(vnode)) {
        this.#put(this.#vnode.size, vnode, size);
        this.#writeOut(vnode, Math.floor(size / this.#pageSize));
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
    const held = new Int32Array(LARGE_PAGE_FRAMES_MAX);
    const count = this.#store.keepsCut?.(vnode) ? this.#holdLast(vnode, size, held) : 0;
    try {
      // 1.
      this.cuts.begin(this.#thread, vnode, before, size);
      this.#put(this.#vnode.size, vnode, size);
      if (VERIFY) faultPoint(this.#thread, 'vnode.truncate.sized');
      try {
        // 2.
        this.#pages.awaitWriters(vnode, Math.floor(size / this.#pageSize));
        // 3.
        this.#store.truncate(vnode, size);
      } catch (error) {
        this.#put(this.#vnode.size, vnode, before);
        this.cuts.end(vnode);
        throw error;
      }
      if (VERIFY) faultPoint(this.#thread, 'vnode.truncate.stored');
      // 4.
      this.#zeroBehind(vnode, size);
      this.cuts.end(vnode);
    } finally {
      for (let lane = 0; lane < count; lane++) this.#pages.release(held[lane] as number);
    }
    if (VERIFY) faultPoint(this.#thread, 'vnode.truncate.dropped');
    // 5.
    try {
      this.#giveTail(vnode, size);
    } catch {
      return; // Noted for all openers by the store.
    }
    this.#put(this.#vnode.sizePeak, vnode, size);
  }

  /** The steps of a cut that a death has stopped: makes I1 true again. */
  #clean(vnode: VnodeIndex): void {
    const size = this.#vnode.size.get(vnode);
    this.#pages.invalidate(vnode, Math.ceil(size / this.#pageSize));
    this.#writeOut(vnode, Math.floor(size / this.#pageSize));
    if (VERIFY) faultPoint(this.#thread, 'vnode.truncate.dropped');
    // A file that was not written up to its size yet gets its length now.
    this.#store.truncate(vnode, size);
    this.#zeroBehind(vnode, size);
    this.#giveTail(vnode, size);
    this.#put(this.#vnode.sizePeak, vnode, size);
  }

  /** Drops pages behind the size, zeroes those that others hold, and the rest of the page in which the vnode ends. */
  #zeroBehind(vnode: VnodeIndex, size: number): void {
    const first = Math.ceil(size / this.#pageSize);
    let held = this.#pages.invalidate(vnode, first);
    this.#vnode.keptBehind.put(vnode, held > 0 ? 1 : 0);
    while (held > 0 && !this.#eachBehind(vnode, first, (frame) => this.#zero(frame, 0))) {
      const { hand } = this.#thread.region.tables.pageClock;
      sleepOn(this.#thread, hand.address(0), hand.get(0), PAUSE_MS);
      this.#thread.clearWait();
      held = this.#pages.invalidate(vnode, first);
    }
    this.#zeroTail(vnode, size);
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

  /** Holds each page in memory from index `first` on for a moment; false when some are being filled. */
  #eachBehind(vnode: VnodeIndex, first: number, act: (frame: number) => void): boolean {
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
      act(held);
      this.#pages.release(held);
    }
    return all;
  }

  /** Zeroes the page in which the vnode ends, behind the end. */
  #zeroTail(vnode: VnodeIndex, size: number): void {
    const keepsCut = this.#store.keepsCut?.(vnode) ?? false;
    let count = 0;
    try {
      count = this.#holdLast(vnode, size, this.#lanes);
    } catch (error) {
      if (keepsCut) throw error;
      return; // It is not in memory, and cannot be: a later fill zeroes behind the size.
    }
    for (let lane = 0; lane < count; lane++) {
      const frame = this.#lanes[lane] as number;
      this.#zero(frame, lane === 0 ? size % this.#pageSize : 0);
      if (keepsCut) this.#pages.setModified(frame);
      this.#pages.release(frame);
    }
  }

  /** Gives the zeros behind the end of the last page to a store that keeps what is cut there. */
  #giveTail(vnode: VnodeIndex, size: number): void {
    if (!this.#store.keepsCut?.(vnode)) return;
    const { index, count } = this.#tailOf(vnode, size);
    if (count > 0) this.#pages.writeMarked(vnode, index, count, this.#store);
  }

  /** Brings and holds the frames of the page in which the vnode ends, from the one with the end on; returns how many. */
  #holdLast(vnode: VnodeIndex, size: number, out: Int32Array): number {
    const { index, count } = this.#tailOf(vnode, size);
    return count === 0 ? 0 : this.#pages.fetch(vnode, index, count, out, 0, this.#store, true);
  }

  /** The frames of the page in which a vnode of a size ends, from the one with the end on; none when it ends with a page. */
  #tailOf(vnode: VnodeIndex, size: number): { readonly index: number; readonly count: number } {
    const pageBytes = this.#pageSize << this.#vnode.pageShift.get(vnode);
    const index = Math.floor(size / this.#pageSize);
    if (size % pageBytes === 0) return { index, count: 0 };
    return { index, count: Math.ceil(size / pageBytes) * (pageBytes / this.#pageSize) - index };
  }

  /** Waits until nobody writes pages back who has seen the old size. Errors stay with the pages, which stay modified. */
  #writeOut(vnode: VnodeIndex, first: number): void {
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
