/**
 * Writing into vnodes through their pages.
 *
 * PROBLEM     Bytes go into pages that all threads share, inside the vnode or behind its end, also from several threads at
 *             once; pages that are wholly overwritten should not be read first; and wherever the thread dies, readers see
 *             old bytes or new ones, never bytes of neither.
 * STRUCTURE   1 the vnode's lock: shared inside the size, exclusive where the size grows
 *             2 piece by piece, up to 32 pages: pages that keep some of their bytes are fetched; the others are created, and if
 *               they are not in memory the new bytes are what they are filled with
 *             3 mark what was there already, copy into it
 *             4 the size grows   5 mark again: from here on a write-back sees the new size   6 release
 *             7 too many pages are modified: write some back (write-behind.ts)
 *
 * INVARIANTS  I1 a page that is created is valid only with its new bytes in it, and modified from the start.
 *             I2 bytes behind the size are marked as modified after the size covers them.
 * LOCKING     vnode-sizes.ts; pages are held shared while bytes are copied, so writers of one page may mix.
 * COSTS       A page that is there: two marks and a copy. One that is not: no read if it is covered wholly.
 * FAILURE     An error after some bytes were written ends the write: the count says how many; the next call throws it.
 * REJECTED    Writing through private buffers that are merged later: two copies, and readers would see nothing until then.
 * REFERENCES  illumos vpm_data_copy and writei; Linux generic_perform_write.
 */

import { failMisuse } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import type { PageSource } from '../page/page-store.ts';
import { FETCH_PAGES_MAX, type Pages } from '../page/pages.ts';
import type { Banks } from '../phys/banks.ts';
import { faultPoint } from '../sync/fault.ts';
import type { RwLock } from '../sync/rwlock-class.ts';
import type { Thread } from '../sync/thread.ts';
import { PAGES_MAX, type Vnodes } from '../vnode/vnodes.ts';
import { WriteBehind } from './write-behind.ts';

/** Where bytes come from: an array, or the bytes of a bank that a physical address lies in. */
export interface WriteSource {
  readonly bytes: Uint8Array;
  readonly at: number;
}

/** Fills pages that are created with the bytes that are being written. */
class NewBytes implements PageSource {
  readonly #banks: Banks;
  #bytes: Uint8Array = new Uint8Array(0);
  #at = 0;
  #length = 0;
  #index = 0;
  #inPage = 0;
  /** Bit per page that was made here. */
  #made = 0;

  constructor(banks: Banks) {
    this.#banks = banks;
  }

  /** Sets what the pages from `index` on are filled with: `length` bytes from `at`, from byte `inPage` of the first page on. */
  begin(bytes: Uint8Array, at: number, length: number, index: number, inPage: number): void {
    this.#bytes = bytes;
    this.#at = at;
    this.#length = length;
    this.#index = index;
    this.#inPage = inPage;
    this.#made = 0;
  }

  /** True when the page was made with its new bytes. */
  made(page: number): boolean {
    return (this.#made & (1 << page)) !== 0;
  }

  /** Copies the bytes of one page into its frame. */
  copy(page: number, frame: number): void {
    const { pageSize } = this.#banks;
    const bank = this.#banks.bankOf(frame);
    const to = this.#banks.views[bank] as Uint8Array;
    const inPage = page === 0 ? this.#inPage : 0;
    const skip = page === 0 ? 0 : page * pageSize - this.#inPage;
    const length = Math.min(pageSize - inPage, this.#length - skip);
    const offset = this.#banks.offsetOf(frame) + inPage;
    const from = this.#at + skip;
    if (to === this.#bytes) this.#banks.copyInBank(bank, offset, from, length);
    else to.set(this.#bytes.subarray(from, from + length), offset);
  }

  fill(_vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): number {
    const { pageSize } = this.#banks;
    for (let lane = 0; lane < count; lane++) {
      const page = index + lane - this.#index;
      const frame = frames[at + lane] as number;
      const from = this.#banks.offsetOf(frame);
      // Frames of a large page around the bytes that are written hold zeros.
      const isOutside = page < 0 || page * pageSize - this.#inPage >= this.#length;
      const isWhole =
        !isOutside && (page > 0 || this.#inPage === 0) && (page + 1) * pageSize - this.#inPage <= this.#length;
      if (!isWhole) (this.#banks.views[this.#banks.bankOf(frame)] as Uint8Array).fill(0, from, from + pageSize);
      if (isOutside) continue;
      this.copy(page, frame);
      this.#made |= 1 << page;
    }
    return 0;
  }
}

/** Writes as one thread does them. */
export class PageWrites {
  readonly #thread: Thread;
  readonly #pages: Pages;
  readonly #vnodes: Vnodes;
  readonly #pageSize: number;
  readonly #lanes = new Int32Array(FETCH_PAGES_MAX);
  readonly #new: NewBytes;
  /** Keeps the limits of modified pages. */
  readonly behind: WriteBehind;

  constructor(thread: Thread, banks: Banks, pages: Pages, vnodes: Vnodes) {
    this.#thread = thread;
    this.#pages = pages;
    this.#vnodes = vnodes;
    this.#pageSize = thread.region.geometry.pageSize;
    this.#new = new NewBytes(banks);
    this.behind = new WriteBehind(thread, pages, vnodes);
  }

  /** Writes at an offset; returns the bytes written, fewer than `length` when an error came after some were. */
  write(vnode: VnodeIndex, offset: number, length: number, source: WriteSource): number {
    if (length === 0) return 0;
    this.#requireEnd(offset, length);
    const lock = this.#vnodes.sizes.lock(vnode);
    lock.enterShared();
    const inside = this.#writeInside(vnode, offset, length, source, lock);
    if (inside >= 0) return inside;
    lock.enterExclusive();
    return this.#writeBehind(vnode, offset, length, source, lock);
  }

  /** Like `write`; -1 with nothing written when it would have to wait for somebody who changes the size. */
  tryWrite(vnode: VnodeIndex, offset: number, length: number, source: WriteSource): number {
    if (length === 0) return 0;
    this.#requireEnd(offset, length);
    const lock = this.#vnodes.sizes.lock(vnode);
    if (!lock.tryEnterShared()) return -1;
    const inside = this.#writeInside(vnode, offset, length, source, lock);
    if (inside >= 0 || !lock.tryEnterExclusive()) return inside;
    return this.#writeBehind(vnode, offset, length, source, lock);
  }

  /** Writes behind the end, wherever it is by then; returns the offset. `written` gets the bytes written in its first lane. */
  append(vnode: VnodeIndex, length: number, source: WriteSource, written: Float64Array): number {
    const lock = this.#vnodes.sizes.lock(vnode);
    lock.enterExclusive();
    return this.#append(vnode, length, source, written, lock);
  }

  /** Like `append`; -1 with nothing written when it would have to wait for others who use the file. */
  tryAppend(vnode: VnodeIndex, length: number, source: WriteSource, written: Float64Array): number {
    const lock = this.#vnodes.sizes.lock(vnode);
    return lock.tryEnterExclusive() ? this.#append(vnode, length, source, written, lock) : -1;
  }

  /** Under the shared lock, which it gives back: a write inside the size; -1 when it reaches behind. */
  #writeInside(vnode: VnodeIndex, offset: number, length: number, source: WriteSource, lock: RwLock): number {
    try {
      if (offset + length > this.#vnodes.size(vnode)) return -1;
      return this.#writeLocked(vnode, offset, length, source, false);
    } finally {
      lock.exitShared();
    }
  }

  /** Under the exclusive lock, which it gives back: a write that may reach behind the size. */
  #writeBehind(vnode: VnodeIndex, offset: number, length: number, source: WriteSource, lock: RwLock): number {
    try {
      this.#vnodes.sizes.bound(vnode, offset + length);
      return this.#writeLocked(vnode, offset, length, source, true);
    } finally {
      lock.exitExclusive();
    }
  }

  #append(vnode: VnodeIndex, length: number, source: WriteSource, written: Float64Array, lock: RwLock): number {
    try {
      const offset = this.#vnodes.size(vnode);
      written[0] = 0;
      if (length === 0) return offset;
      this.#requireEnd(offset, length);
      this.#vnodes.sizes.bound(vnode, offset + length);
      written[0] = this.#writeLocked(vnode, offset, length, source, true);
      return offset;
    } finally {
      lock.exitExclusive();
    }
  }

  #writeLocked(vnode: VnodeIndex, offset: number, length: number, source: WriteSource, grows: boolean): number {
    let done = 0;
    try {
      while (done < length) {
        done += this.#piece(vnode, offset + done, length - done, source.bytes, source.at + done, grows);
      }
    } catch (error) {
      if (done === 0) throw error;
    }
    return done;
  }

  /** Steps 2 to 6 for as many bytes as fit into one piece; returns how many. */
  #piece(vnode: VnodeIndex, offset: number, left: number, from: Uint8Array, at: number, grows: boolean): number {
    const pageSize = this.#pageSize;
    const pages = this.#pages;
    const lanes = this.#lanes;
    const index = Math.floor(offset / pageSize);
    const inPage = offset - index * pageSize;
    const size = this.#vnodes.size(vnode);
    // 2. A page of the vnode may have several frames, which come together.
    const bytesOfPage = this.#vnodes.pageSizeOf(vnode);
    const start = offset - (offset % bytesOfPage);
    const atStart = offset === start;
    const whole = atStart ? Math.min(FETCH_PAGES_MAX * pageSize, left - (left % bytesOfPage)) : 0;
    const length = whole > 0 ? whole : Math.min(left, start + bytesOfPage - offset);
    const count = Math.ceil((inPage + length) / pageSize);
    const coversAll = atStart && offset + length >= Math.min(start + bytesOfPage, size);
    this.#new.begin(from, at, length, index, inPage);
    if (whole > 0 || coversAll || start >= size) pages.create(vnode, index, count, lanes, 0, this.#vnodes, this.#new);
    else pages.fetch(vnode, index, count, lanes, 0, this.#vnodes, true);
    if (VERIFY) faultPoint(this.#thread, 'vpm.write.filled');
    // 3.
    for (let page = 0; page < count; page++) {
      if (this.#new.made(page)) continue;
      pages.setModified(lanes[page] as number);
      try {
        this.#new.copy(page, lanes[page] as number);
      } catch (error) {
        for (let lane = 0; lane < count; lane++) pages.release(lanes[lane] as number);
        throw error;
      }
    }
    if (VERIFY) faultPoint(this.#thread, 'vpm.write.copied');
    // 4-6.
    if (grows) this.#vnodes.sizes.publish(vnode, offset + length);
    for (let page = 0; page < count; page++) {
      pages.setModified(lanes[page] as number);
      pages.release(lanes[page] as number);
    }
    this.behind.after(vnode, count);
    return length;
  }

  #requireEnd(offset: number, length: number): void {
    if (offset + length <= PAGES_MAX * this.#pageSize) return;
    failMisuse('file.write', { offset, length }, `a file has at most ${PAGES_MAX} pages`);
  }
}
