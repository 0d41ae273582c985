/**
 * Reading past the pages: what a scan does with bytes that are not in memory.
 *
 * PROBLEM     A file that is read from end to end, once, costs more through pages than plain reads do: every byte is written
 *             into a frame that has left the processor's cache, and others have to leave memory for it. But readers must see
 *             what writers in other threads have stored into pages.
 * STRUCTURE   long reads    whole pages straight into the target; the page in which they end through the buffer
 *             short reads   out of a buffer of 64 KiB of the open file, whole pages, which one call fills:
 *
 *               file  |----------------|----------------|          call, call
 *               reads |..|..|..|..|..|..|..|                       copies out of the buffer; over its end: in two pieces
 *
 *             Where a page is not in memory, the file holds what the vnode does. A vnode counts its changes, which are pages
 *             that stop being clean, and cuts: bytes that were read where no page was are those of the vnode until that count
 *             goes on.
 * INVARIANTS  I1 the count goes on before the call of a writer returns that has modified a clean page, and before that of who
 *                cuts the vnode returns: readers that begin after such a call meet the new count.
 *             I2 bytes are used only if the count is what it was before the look at the pages, which was before they were read.
 *             I3 a page is read by one call, whole, and the buffer keeps it until the reader is past it: who reads on never gets
 *                one that is half old when others rewrite the file meanwhile.
 * LOCKING     None. The count is read as others left it under the lock of their list.
 * COSTS       Short reads: the copy, and a 16th of a call for each page. Long ones: a look into the hash for each page more
 *             than plain ones, 16 of them in one cache line.
 * FAILURE     Fewer bytes: the rest through the pages then. Kinds of vnodes that cannot be read in this way; a range that has a page in
 *             memory; a file that ends early.
 * REJECTED    Recycling the frames behind the reader: the pages still cost their locks, and a second copy.
 * REFERENCES  read-pattern.ts for who calls this; sequence locks for comparing a count.
 */

import type { BoundTables } from '../layout/region.ts';
import { countersOf, PAGE_COUNTER } from '../page/page-counters.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import type { Pages } from '../page/pages.ts';
import type { Thread } from '../sync/thread.ts';
import type { Vnodes } from '../vnode/vnodes.ts';
import type { ReadPattern } from './read-pattern.ts';
import { SCAN_BUFFER_BYTES, type ScanBuffer } from './scan-buffer.ts';

/** From here on a call for each read costs less than copying out of a buffer. */
const LONG_READ_BYTES = 16384;

/** Bytes of a range that lie in whole pages from its beginning on; 0 when it begins inside one. The last one ends with the file. */
function wholePages(start: number, end: number, unit: number, size: number): number {
  if (start % unit !== 0) return 0;
  return (end === size ? end : end - (end % unit)) - start;
}

/** Copies what the buffer has of a range from its beginning on; returns how many bytes. */
function fromBuffer(buffer: ScanBuffer, start: number, end: number, to: Uint8Array, at: number): number {
  const bytes = Math.min(end - start, buffer.bytesFrom(start));
  if (bytes > 0) to.set(buffer.slice(start, bytes), at);
  return bytes;
}

/** Reads past the pages for one thread. */
export class DirectReads {
  readonly #pages: Pages;
  readonly #vnodes: Vnodes;
  readonly #vnode: BoundTables['vnode'];
  readonly #counters: Float64Array;
  readonly #pageSize: number;
  /** Pages are powers of two. */
  readonly #perPage: number;

  constructor(thread: Thread, pages: Pages, vnodes: Vnodes) {
    this.#pages = pages;
    this.#vnodes = vnodes;
    this.#vnode = thread.region.tables.vnode;
    this.#counters = countersOf(thread);
    this.#pageSize = thread.region.geometry.pageSize;
    this.#perPage = 1 / this.#pageSize;
  }

  /**
   * Reads a range inside the vnode, noted in the pattern before, to `to` from `at` on. Returns how many of its bytes, up to the
   * end of the range or of a page.
   */
  read(pattern: ReadPattern, vnode: VnodeIndex, offset: number, length: number, to: Uint8Array, at: number): number {
    const { buffer } = pattern;
    if (buffer.covers(offset, length) && buffer.isFresh(this.#pages.changesOf(vnode))) {
      to.set(buffer.slice(offset, length), at);
      this.#count(length);
      return length;
    }
    const size = this.#vnode.size.get(vnode);
    if (!pattern.scans(vnode, size, this.#vnode.scans)) return 0;
    const unit = this.#vnodes.pageSizeOf(vnode);
    const end = offset + length;
    // The page in which a long read ends is all that it puts into the buffer.
    const most = length < SCAN_BUFFER_BYTES ? SCAN_BUFFER_BYTES : unit;
    let from = offset;
    while (from < end) {
      const place = at + from - offset;
      let got = buffer.isFresh(this.#pages.changesOf(vnode)) ? fromBuffer(buffer, from, end, to, place) : 0;
      const whole = got > 0 ? 0 : wholePages(from, end, unit, size);
      if (whole >= LONG_READ_BYTES) got = this.#straight(vnode, from, whole, to, place);
      else if (got === 0 && this.#fillBuffer(buffer, vnode, from, unit, most, size)) {
        got = fromBuffer(buffer, from, end, to, place);
      }
      if (got === 0) break;
      from += got;
    }
    this.#count(from - offset);
    return from - offset;
  }

  /** Reads whole pages, all or none. */
  #straight(vnode: VnodeIndex, offset: number, length: number, to: Uint8Array, at: number): number {
    if (this.#absent(vnode, offset, length) < length) return 0;
    return this.#vnodes.readDirect(vnode, offset, to, at, length) < length ? 0 : length;
  }

  /** Fills the buffer with whole pages, at least the one of `offset`; false: that one is in memory, or cannot be read so. */
  #fillBuffer(
    buffer: ScanBuffer,
    vnode: VnodeIndex,
    offset: number,
    unit: number,
    most: number,
    size: number,
  ): boolean {
    const start = offset - (offset % unit);
    const bytes = buffer.begin(Math.max(SCAN_BUFFER_BYTES, unit));
    const changes = this.#pages.changesOf(vnode);
    const wanted = this.#absent(vnode, start, Math.min(Math.max(most, unit), size - start));
    if (wanted <= 0) return false;
    const got = this.#vnodes.readDirect(vnode, start, bytes, 0, wanted);
    // A file that ends early may have more by the time that the rest of the page is read.
    const length = start + got === size ? got : got - (got % unit);
    if (length <= offset - start) return false;
    buffer.set(start, length, changes);
    return true;
  }

  /** Bytes from the beginning of a page on whose pages are not in memory: what the file holds there is what the vnode does. */
  #absent(vnode: VnodeIndex, offset: number, length: number): number {
    const first = Math.floor(offset * this.#perPage);
    const end = Math.floor((offset + length - 1) * this.#perPage) + 1;
    let index = this.#pages.firstSeeming(vnode, first, end);
    // A look without a lock may miss a page while others come and go: nobody may miss one that was modified.
    if (this.#pages.modifiedOf(vnode) > 0) index = this.#firstThere(vnode, first, index);
    return index === end ? length : index * this.#pageSize - offset;
  }

  #firstThere(vnode: VnodeIndex, first: number, end: number): number {
    for (let index = first; index < end; index++) if (this.#pages.isThere(vnode, index)) return index;
    return end;
  }

  #count(length: number): void {
    const lane = PAGE_COUNTER.directBytes;
    this.#counters[lane] = (this.#counters[lane] as number) + length;
  }
}
