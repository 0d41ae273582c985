/**
 * Page mappings: the front of the page cache.
 *
 * PROBLEM     Hand out bytes of files, in place or as copies, with nothing between a hit and the bytes but the page hash.
 * STRUCTURE   A mapping is a list of pieces, one per page, three numbers each: bank, byte offset, bytes.
 *
 *               map    1 check the range   2 charge the owner   3 hold every page; the first miss sends the whole range
 *                      to fetch, which takes pages in order and several at a time   4 write the pieces
 *               unmap  release every page; the frame follows from bank and offset
 *               copy   a range in one page that is there: hold, copy, release, unless the reader follows a pattern; else run
 *                      by run: hold or fetch, copy, release; at most 32 pages are held at a time
 *
 *             A mapping for writing marks its pages as modified when it is made and when it is released, and whenever its
 *             holder says so: what is stored into them in between is written back after the next mark at the latest.
 *             There is no table of mappings: a page that is in memory is mapped by holding it, since every frame has an
 *             address in every thread all the time.
 * INVARIANTS  I1 the pages of a mapping are held by this slot from map to unmap.
 *             I2 the frames of mappings are charged to the owner of the slot that made them.
 * LOCKING     Shared page locks; a hit takes nothing else.
 * COSTS       mapInto of one page that is there, with its unmapFrom: see `bench vpm`. `map` adds an object. A copy of 4 KiB
 *             that are there, into the bank: 275-295 ns, of which the copy takes 195, hold and release 50, of which the atomic
 *             operations take 45. It took 370-380 with a view for the check of the address (30 ns), `%` of the offset
 *             for scans that were none, and doubles as page numbers, which are boxed with each call that is not inlined.
 * FAILURE     `EFAULT` outside the file, `EINVAL` above 32 pages, `EDQUOT`, `ENOMEM`, `EIO`; nothing is held then.
 * REJECTED    The cached translations of the source: they save a kernel from setting up mappings, and there are none here.
 * REFERENCES  illumos vm/vpm.c.
 */

import { fail, failMisuse } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import { countersOf, PAGE_COUNTER } from '../page/page-counters.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import { FETCH_PAGES_MAX, type Pages } from '../page/pages.ts';
import { copyFromBank } from '../phys/bank-copy.ts';
import type { Banks } from '../phys/banks.ts';
import { faultPoint } from '../sync/fault.ts';
import { type OwnerIndex, ownerOf } from '../sync/owners.ts';
import type { Thread } from '../sync/thread.ts';
import type { Vnodes } from '../vnode/vnodes.ts';
import { bytesOf } from './byte-arguments.ts';
import { DirectReads } from './direct-reads.ts';
import { LockedCharge } from './locked-charge.ts';
import { Mapping } from './mapping.ts';
import { MissPattern } from './miss-pattern.ts';
import { PageWrites } from './page-writes.ts';
import type { ReadPattern } from './read-pattern.ts';
import { StreamFetches } from './stream-fetches.ts';

/** Most pages of one mapping. */
export const MAP_PAGES_MAX = FETCH_PAGES_MAX;

/** For a copy that brings no pages. */
const MEMORY_ONLY = -1;

/** Numbers that `mapInto` writes for each page: bank, byte offset in the bank, bytes. */
export const PIECE_LANES = 3;

/** What a mapping is for. */
export type MapAccess = 'read' | 'write';

/** Where copies go: bytes, or a physical address in the banks. */
export type CopyTarget = Uint8Array | number;

/** The mappings as one thread sees them. */
export class PageMappings {
  readonly #thread: Thread;
  readonly #banks: Banks;
  readonly #pages: Pages;
  readonly #vnodes: Vnodes;
  readonly #charge: LockedCharge;
  readonly #vnode: BoundTables['vnode'];
  readonly #counters: Float64Array;
  readonly #pageSize: number;
  readonly #perPage: number;
  readonly #bankBytes: number;
  /** Frames of the request under way. */
  readonly #lanes = new Int32Array(FETCH_PAGES_MAX);
  readonly #direct: DirectReads;
  readonly #streams: StreamFetches;
  /** A page was missing since this was last set back. */
  #missed = false;
  readonly #misses = new MissPattern();
  /** Writes through the pages of this thread. */
  readonly writes: PageWrites;

  constructor(thread: Thread, banks: Banks, pages: Pages, vnodes: Vnodes) {
    this.#thread = thread;
    this.#banks = banks;
    this.#pages = pages;
    this.#vnodes = vnodes;
    this.#charge = new LockedCharge(thread);
    this.#vnode = thread.region.tables.vnode;
    this.#counters = countersOf(thread);
    this.#pageSize = thread.region.geometry.pageSize;
    this.#perPage = 1 / this.#pageSize;
    this.#bankBytes = banks.bankFrames * this.#pageSize;
    this.#direct = new DirectReads(thread, pages, vnodes);
    this.#streams = new StreamFetches(thread, pages, vnodes);
    this.writes = new PageWrites(thread, banks, pages, vnodes);
  }

  /** Frames that this thread's mappings hold; a page that is mapped twice counts twice. */
  get mappedFrames(): number {
    return this.#charge.pinned;
  }

  /**
   * Maps up to 32 frames of pages of an open vnode, as many pages if they have one frame. Throws `EFAULT` when the range is not
   * inside the file, `EDQUOT`, `ENOMEM` when pinned pages leave no frame, `EIO`, and `EACCES` for `'write'` when this thread has
   * the vnode open for reading only.
   */
  map(vnode: VnodeIndex, offset: number, length: number, access: MapAccess = 'read'): Mapping {
    if (access !== 'read' && access !== 'write') failMisuse('map', { access }, "access is 'read' or 'write'");
    if (access === 'write') this.requireWriter('map', vnode);
    const pieces = new Float64Array(PIECE_LANES * this.#pageCount('map', vnode, offset, length));
    const count = this.mapInto(vnode, offset, length, pieces);
    if (access === 'write') this.markPieces(pieces, count);
    const pageFrames = this.#vnodes.pageSizeOf(vnode) / this.#pageSize;
    const firstFrame = Math.floor(offset / this.#pageSize);
    const owner = ownerOf(this.#thread);
    return new Mapping(this, pieces, count, { vnode, firstFrame, pageFrames, writable: access === 'write', owner });
  }

  /** Like `map`, but only pages in memory: null when one is missing. Never waits. */
  tryMap(vnode: VnodeIndex, offset: number, length: number, access: MapAccess = 'read'): Mapping | null {
    const count = this.#pageCount('tryMap', vnode, offset, length);
    const lanes = new Int32Array(count);
    const held = this.#pages.holdSeveral(vnode, Math.floor(offset / this.#pageSize), count, lanes);
    try {
      return held < count ? null : this.map(vnode, offset, length, access);
    } finally {
      this.#pages.releaseSeveral(lanes, held);
    }
  }

  /**
   * Maps like `map`, without allocating: writes bank, byte offset and bytes in each frame into `pieces` and returns their
   * number, which `unmapFrom` needs.
   */
  mapInto(vnode: VnodeIndex, offset: number, length: number, pieces: Float64Array): number {
    // 1-2.
    const count = this.#pageCount('mapInto', vnode, offset, length);
    if (pieces.length < PIECE_LANES * count) this.#failRoom(pieces.length, count);
    const owner = this.#charge.take(count, 'map');
    // 3.
    const index = Math.floor(offset / this.#pageSize);
    const lanes = this.#lanes;
    const held = this.#pages.holdSeveral(vnode, index, count, lanes);
    if (held < count) this.#fetchAll(vnode, index, count, held, owner);
    if (VERIFY) faultPoint(this.#thread, 'vpm.map.mapped');
    // 4.
    const banks = this.#banks;
    let inPage = offset - index * this.#pageSize;
    let left = length;
    for (let page = 0; page < count; page++) {
      const frame = lanes[page] as number;
      const bytes = Math.min(this.#pageSize - inPage, left);
      pieces[PIECE_LANES * page] = banks.bankOf(frame);
      pieces[PIECE_LANES * page + 1] = banks.offsetOf(frame) + inPage;
      pieces[PIECE_LANES * page + 2] = bytes;
      left -= bytes;
      inPage = 0;
    }
    this.#count(PAGE_COUNTER.mappedPages, count);
    return count;
  }

  /** Says that bytes of mapped pages are about to be stored, or have been. */
  markPieces(pieces: Float64Array, count: number): void {
    for (let page = 0; page < count; page++) this.#pages.setModified(this.#frameOf(pieces, page));
  }

  /**
   * Releases what `mapInto` wrote: the same array, unchanged, and the number that it returned. `owner` is whom the thread
   * charged then; left out, the frames go back to the owner that it charges now, as far as they can.
   */
  unmapFrom(pieces: Float64Array, count: number, owner: OwnerIndex = -1): void {
    for (let page = 0; page < count; page++) this.#pages.release(this.#frameOf(pieces, page));
    if (owner >= 0) this.#charge.give(count, owner);
    else this.#charge.giveAny(count);
  }

  /**
   * Copies bytes of an open vnode. `target` is an array, filled from `targetOffset`, or a physical address, to which
   * `targetOffset` is added. Throws `EFAULT` when the range is not inside the file or the target is too small, `EIO`,
   * `ENOMEM`.
   */
  copyOut(vnode: VnodeIndex, offset: number, length: number, target: CopyTarget, targetOffset = 0): void {
    this.#requireRange('copyOut', vnode, offset, length);
    this.copyUpTo(vnode, offset, length, target, targetOffset);
  }

  /**
   * Like `copyOut`, for as many of the bytes as lie inside the vnode at the time of the call; returns how many. The pattern
   * of the reader says how many pages a miss brings, and whether any are made at all: see direct-reads.ts.
   */
  copyUpTo(
    vnode: VnodeIndex,
    offset: number,
    max: number,
    target: CopyTarget,
    targetOffset = 0,
    pattern: ReadPattern | null = null,
  ): number {
    this.#requireOpen('copyUpTo', vnode);
    const size = this.#vnode.size.get(vnode);
    const length = Math.max(0, Math.min(max, size - offset));
    if (length === 0) return 0;
    let to: Uint8Array;
    let at = targetOffset;
    if (typeof target === 'number') {
      const bank = this.#banks.bankOfRange(target + targetOffset, length);
      to = this.#banks.views[bank] as Uint8Array;
      at = target + targetOffset - bank * this.#bankBytes;
    } else {
      to = bytesOf('copyOut', 'target', target);
      if (at + length > to.length) this.#failTarget(length, at, to);
    }
    const follows = pattern?.note(offset, length) === true;
    if (!follows && this.#copyHit(vnode, offset, length, to, at)) return length;
    this.#copyAny(pattern, follows, vnode, offset, length, to, at);
    return length;
  }

  /** Like `copyUpTo`, but only from memory: up to the first page that is missing. Never waits. */
  tryCopyUpTo(vnode: VnodeIndex, offset: number, max: number, target: Uint8Array, targetOffset = 0): number {
    this.#requireOpen('tryCopyUpTo', vnode);
    const to = bytesOf('tryCopyUpTo', 'target', target);
    const length = Math.max(0, Math.min(max, this.#vnode.size.get(vnode) - offset));
    if (targetOffset + length > to.length) this.#failTarget(length, targetOffset, to);
    return length === 0 ? 0 : this.#copy(vnode, offset, length, to, targetOffset, MEMORY_ONLY);
  }

  /** A view of a piece. Must not be written to, nor used after the release. */
  view(bank: number, offset: number, length: number): Uint8Array {
    return (this.#banks.views[bank] as Uint8Array).subarray(offset, offset + length);
  }

  /** Gives back what was charged ahead. Throws `EBUSY` while mappings of this thread live. */
  close(): void {
    if (this.#charge.pinned > 0) {
      fail(
        'EBUSY',
        'detach',
        { mappedFrames: this.#charge.pinned },
        'a thread releases its mappings before it detaches',
      );
    }
    this.#charge.settle();
  }

  /** Gives back what owners were charged ahead: when the thread turns to another owner. */
  settleCharge(): void {
    this.#charge.settle();
  }

  /** Copies what may have to be brought, or to be read past the pages if the reader `follows` a pattern. */
  #copyAny(
    pattern: ReadPattern | null,
    follows: boolean,
    vnode: VnodeIndex,
    offset: number,
    length: number,
    to: Uint8Array,
    at: number,
  ): void {
    if (pattern === null || !follows) {
      this.#missed = false;
      this.#copy(vnode, offset, length, to, at, 0);
      const window = this.#missed ? pattern?.streams.note(offset, length) : null;
      if (window) this.#streams.bring(vnode, window, length, this.#vnode.size.get(vnode));
      return;
    }
    let done = this.#direct.read(pattern, vnode, offset, length, to, at);
    if (done === 0 && pattern.isScanning) done = this.#copyHead(pattern, vnode, offset, length, to, at);
    if (done < length) this.#copy(vnode, offset + done, length - done, to, at + done, pattern.ahead);
  }

  /** A scan begins in the middle of a page that is in memory: the rest of that page, and what lies behind if it is not. */
  #copyHead(
    pattern: ReadPattern,
    vnode: VnodeIndex,
    offset: number,
    length: number,
    to: Uint8Array,
    at: number,
  ): number {
    const pageSize = this.#vnodes.pageSizeOf(vnode);
    const head = pageSize - (offset % pageSize);
    if (head === pageSize || head >= length) return 0;
    this.#copy(vnode, offset, head, to, at, 0);
    return head + this.#direct.read(pattern, vnode, offset + head, length - head, to, at + head);
  }

  /** `ahead`: pages that a miss brings beyond the range, or `MEMORY_ONLY`. Returns the bytes that were copied. */
  #copy(vnode: VnodeIndex, offset: number, length: number, to: Uint8Array, toAt: number, ahead: number): number {
    let index = Math.floor(offset * this.#perPage);
    let inPage = offset - index * this.#pageSize;
    let at = toAt;
    const last = Math.floor((offset + length - 1) * this.#perPage);
    let left = length;
    while (left > 0) {
      const wanted = Math.min(last - index + 1, FETCH_PAGES_MAX);
      let count = this.#pages.holdSeveral(vnode, index, wanted, this.#lanes);
      if (count === 0) {
        if (ahead === MEMORY_ONLY) break;
        count = this.#fetchAhead(vnode, index, wanted, ahead);
      }
      const bytes = Math.min(count * this.#pageSize - inPage, left);
      try {
        this.#copyHeld(count, inPage, bytes, to, at);
      } finally {
        this.#pages.releaseSeveral(this.#lanes, count);
      }
      at += bytes;
      left -= bytes;
      inPage = 0;
      index += count;
    }
    this.#count(PAGE_COUNTER.copiedBytes, length - left);
    return length - left;
  }

  /** Copies a range that lies in one page and is in memory; else false. */
  #copyHit(vnode: VnodeIndex, offset: number, length: number, to: Uint8Array, at: number): boolean {
    // Vnodes have fewer than 2^31 pages; small integers are passed on without boxes.
    const index = Math.floor(offset * this.#perPage) | 0;
    const inPage = (offset - index * this.#pageSize) | 0;
    if (inPage + length > this.#pageSize) return false;
    const frame = this.#pages.hold(vnode, index);
    if (frame < 0) return false;
    const banks = this.#banks;
    const bank = banks.bankOf(frame);
    const from = banks.views[bank] as Uint8Array;
    const start = banks.offsetOf(frame) + inPage;
    if (from === to) banks.copyInBank(bank, at, start, length);
    else copyFromBank(from, start, length, to, at);
    this.#pages.release(frame);
    this.#count(PAGE_COUNTER.copiedBytes, length);
    return true;
  }

  /** Fetches up to `wanted` pages, and those that the reader is on its way to; the latter are not held. */
  #fetchAhead(vnode: VnodeIndex, index: number, wanted: number, most: number): number {
    this.#missed = true;
    const end = Math.ceil(this.#vnode.size.get(vnode) / this.#pageSize);
    const ahead = Math.max(0, Math.min(most, FETCH_PAGES_MAX - wanted, end - index - wanted));
    return this.#pages.fetch(vnode, index, wanted, this.#lanes, 0, this.#vnodes, false, ahead);
  }

  /** Copies from the first `count` lanes, beginning `inPage` bytes into the first page; adjacent frames at once. */
  #copyHeld(count: number, inPage: number, length: number, to: Uint8Array, at: number): void {
    const banks = this.#banks;
    const lanes = this.#lanes;
    let skip = inPage;
    let done = 0;
    for (let page = 0; page < count; ) {
      const first = lanes[page] as number;
      const bank = banks.bankOf(first);
      let pages = 1;
      while (page + pages < count && lanes[page + pages] === first + pages && banks.bankOf(first + pages) === bank)
        pages++;
      const bytes = Math.min(pages * this.#pageSize - skip, length - done);
      const from = banks.views[bank] as Uint8Array;
      const start = banks.offsetOf(first) + skip;
      if (from === to) banks.copyInBank(bank, at + done, start, bytes);
      else copyFromBank(from, start, bytes, to, at + done);
      done += bytes;
      page += pages;
      skip = 0;
    }
  }

  /** Step 3 of mapping when a page was not there: gives back what is held, so that no wait happens with pages in hand. */
  #fetchAll(vnode: VnodeIndex, index: number, count: number, held: number, owner: OwnerIndex): void {
    for (let page = 0; page < held; page++) this.#pages.release(this.#lanes[page] as number);
    if (VERIFY) faultPoint(this.#thread, 'vpm.map.partial');
    const left = Math.ceil(this.#vnode.size.get(vnode) / this.#pageSize) - index - count;
    const ahead = this.#misses.note(vnode, index + held, index + count, Math.min(FETCH_PAGES_MAX - count, left));
    try {
      this.#pages.fetch(vnode, index, count, this.#lanes, 0, this.#vnodes, true, ahead);
    } catch (error) {
      this.#charge.give(count, owner);
      throw error;
    }
  }

  /** Pages of a range, after checking it. */
  #pageCount(call: string, vnode: VnodeIndex, offset: number, length: number): number {
    this.#requireRange(call, vnode, offset, length);
    const first = Math.floor(offset / this.#pageSize);
    const count = Math.floor((offset + length - 1) / this.#pageSize) - first + 1;
    if (length > 0 && count <= MAP_PAGES_MAX) return count;
    return failMisuse(
      call,
      { offset, length, frames: count },
      `a mapping covers 1 to ${MAP_PAGES_MAX} frames of ${this.#pageSize} bytes`,
    );
  }

  /** Throws `EACCES` unless this thread has the vnode open for writing. */
  requireWriter(call: string, vnode: VnodeIndex): void {
    const { bitLane, bit } = this.#thread;
    this.#requireOpen(call, vnode);
    if ((this.#vnode.writers.at(vnode, bitLane) & bit) !== 0) return;
    fail('EACCES', call, { vnode }, "it is open for reading only; open it with mode 'rw'");
  }

  #requireOpen(call: string, vnode: VnodeIndex): void {
    const { bitLane, bit } = this.#thread;
    if ((this.#vnode.openers.at(vnode, bitLane) & bit) !== 0) return;
    fail('ESTALE', call, { vnode }, 'this thread does not have the vnode open');
  }

  /** The frame of a piece that `mapInto` wrote. */
  #frameOf(pieces: Float64Array, page: number): number {
    const bank = pieces[PIECE_LANES * page] as number;
    const offset = pieces[PIECE_LANES * page + 1] as number;
    // Pages are powers of two.
    return bank * this.#banks.bankFrames + Math.floor(offset * this.#perPage);
  }

  #requireRange(call: string, vnode: VnodeIndex, offset: number, length: number): void {
    this.#requireOpen(call, vnode);
    const size = this.#vnode.size.get(vnode);
    const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
    if (whole && offset >= 0 && length >= 0 && offset + length <= size) return;
    fail('EFAULT', call, { offset, length, size }, 'the range must lie inside the file');
  }

  #failTarget(length: number, targetOffset: number, to: Uint8Array): never {
    failMisuse('copyOut', { length, targetOffset, room: to.length }, 'no room');
  }

  #failRoom(room: number, count: number): never {
    failMisuse('mapInto', { room, pages: count }, `the array needs ${PIECE_LANES} numbers for each page`);
  }

  #count(lane: number, amount: number): void {
    this.#counters[lane] = (this.#counters[lane] as number) + amount;
  }
}
