/**
 * Reading past the pages: what a scan does with bytes that are not in memory.
 *
 * PROBLEM     A file that is read from end to end, once, costs more through pages than plain reads do: every byte is written
 *             into a frame that has left the processor's cache, and others have to leave memory for it. But readers must see
 *             what writers in other threads have stored into pages.
 * STRUCTURE   long reads    straight into the target
 *             short reads   out of a buffer of 64 KiB of the open file, which one call fills:
 *
 *               file  |----------------|----------------|          call, call
 *               reads |..|..|..|..|..|..|..|                       copies out of the buffer
 *
 *             Where a page is not in memory, the file holds what the vnode does. A vnode counts its changes, which are pages
 *             that stop being clean, and cuts: bytes that were read where no page was are those of the vnode until that count
 *             goes on.
 * INVARIANTS  I1 the count goes on before the call of a writer returns that has modified a clean page, and before that of who
 *                cuts the vnode returns: readers that begin after such a call meet the new count.
 *             I2 bytes are used only if the count is what it was before the look at the pages, which was before they were read.
 * LOCKING     None. The count is read as others left it under the lock of their list.
 * COSTS       Short reads: the copy, and a 16th of a call for each page. Long ones: a look into the hash for each page more
 *             than plain ones, 16 of them in one cache line.
 * FAILURE     False: through the pages then. Kinds of vnodes that cannot be read in this way; a range that has a page in
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

/** From here on a call for each read costs less than copying out of a buffer. */
const LONG_READ_BYTES = 16384;

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

  /** Reads a range inside the vnode, noted in the pattern before, to `to` from `at` on. False: nothing was read. */
  read(pattern: ReadPattern, vnode: VnodeIndex, offset: number, length: number, to: Uint8Array, at: number): boolean {
    const { buffer } = pattern;
    if (!buffer.covers(offset, length) || !buffer.isFresh(this.#pages.changesOf(vnode))) {
      if (!pattern.scans(vnode, this.#vnode.size.get(vnode), this.#vnode.scans)) return false;
      if (length >= LONG_READ_BYTES) return this.#straight(vnode, offset, length, to, at);
      if (!this.#fillBuffer(pattern, vnode, offset, length)) return false;
    }
    to.set(buffer.slice(offset, length), at);
    this.#count(length);
    return true;
  }

  #straight(vnode: VnodeIndex, offset: number, length: number, to: Uint8Array, at: number): boolean {
    if (this.#absent(vnode, offset, length) < length) return false;
    if (this.#vnodes.readDirect(vnode, offset, to, at, length) < length) return false;
    this.#count(length);
    return true;
  }

  #fillBuffer(pattern: ReadPattern, vnode: VnodeIndex, offset: number, length: number): boolean {
    const { buffer } = pattern;
    const bytes = buffer.begin();
    const changes = this.#pages.changesOf(vnode);
    const most = this.#absent(vnode, offset, Math.min(bytes.length, this.#vnode.size.get(vnode) - offset));
    if (most < length) return false;
    const got = this.#vnodes.readDirect(vnode, offset, bytes, 0, most);
    if (got < length) return false;
    buffer.set(offset, got, changes);
    return true;
  }

  /** Bytes from `offset` on whose pages are not in memory: what the file holds there is what the vnode does. */
  #absent(vnode: VnodeIndex, offset: number, length: number): number {
    const first = Math.floor(offset * this.#perPage);
    const end = Math.floor((offset + length - 1) * this.#perPage) + 1;
    let index = this.#pages.firstSeeming(vnode, first, end);
    // A look without a lock may miss a page while others come and go: nobody may miss one that was modified.
    if (this.#pages.modifiedOf(vnode) > 0) index = this.#firstThere(vnode, first, index);
    return index === end ? length : Math.max(0, index * this.#pageSize - offset);
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
