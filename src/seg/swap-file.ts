/**
 * The swap file: where anonymous pages go when memory is short.
 *
 * PROBLEM     Anonymous pages have no file of their own, and must come back byte for byte, in any thread.
 * STRUCTURE   One file of pages, a map of those in use, and in each anon the page that it has:
 *
 *               anon 7: swap 3 --> page 3 of the file        map  1011...
 *
 *             Each thread opens the file for itself when it first needs it.
 * INVARIANTS  I1 a bit is set iff one anon names the page.
 * LOCKING     One mutex (RANK.swap) for the map and the anons' pages, entered while pages are held. The bytes are those of pages
 *             that the caller holds.
 * COSTS       A system call for a run of anons whose pages lie side by side.
 * FAILURE     `ENOSPC` without a file or when it is full; `EIO` with the cause. The page stays modified then. While it is full,
 *             pages in memory that were swapped before, and modified since, can still leave: they are asked for first.
 * REJECTED    A page of swap for each anon from the start: the file would be as large as all that could ever be mapped. An arena
 *             of pages: a thread that dies between taking one and noting it in the anon would lose it.
 * REFERENCES  illumos vm_swap.c, swap maps of the BSDs.
 */

import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { resolve } from 'node:path';
import { fail, failMisuse, parseSize } from '../base/index.ts';
import { ByteColumn } from '../layout/index.ts';
import type { BoundTables } from '../layout/region.ts';
import type { Banks } from '../phys/index.ts';
import { compareExchange, load, Mutex, RANK, store } from '../sync/index.ts';
import { framePieces, piecesBehind, readPieces, systemError, writePieces } from '../vnode/index.ts';
import type { SpaceCore } from './space-core.ts';
import type { AnonIndex } from './space-kinds.ts';

/** States of `swap.ready`. */
const READY = { none: 0, ready: 1, adding: 2 } as const;

/** The swap file as one thread uses it. */
export class SwapFile {
  private readonly core: SpaceCore;
  private readonly banks: Banks;
  private readonly row: BoundTables['swap'];
  private readonly map: BoundTables['swapMap'];
  private readonly mutex: Mutex;
  private descriptor = -1;

  constructor(core: SpaceCore, banks: Banks) {
    const { tables } = core.thread.region;
    this.core = core;
    this.banks = banks;
    this.row = tables.swap;
    this.map = tables.swapMap;
    this.mutex = new Mutex(core.thread, this.row.lock.address(0), RANK.swap);
  }

  /** Pages of the file, and how many of them are in use. */
  get use(): { readonly pages: number; readonly used: number } {
    return { pages: this.row.pages.get(0), used: this.row.used.get(0) };
  }

  /**
   * Makes the file, which must not exist, and lets spaces reserve as much more. Once in the life of a system. Throws `EEXIST`
   * when there is one, `EINVAL` for a size above what boot has laid out, `EIO` with the cause.
   */
  add(path: string, size: number | string): void {
    const { core, row } = this;
    const { words } = core.thread;
    if (typeof path !== 'string' || path === '') failMisuse('swap.add', { path }, 'a path is text');
    const pages = Math.floor(parseSize(size, 'swap.add') / core.pageSize);
    const absolute = resolve(path);
    const room = 32 * this.map.rowCount;
    if (!(pages >= 1 && pages <= room) || ByteColumn.sizeOf(absolute) >= row.path.lanes) {
      fail(
        'EINVAL',
        'swap.add',
        { path, size, room: room * core.pageSize },
        'a short path, and from 1 page to `room` bytes: boot with more `anonymousPages` for more',
      );
    }
    if (compareExchange(words, row.ready.address(0), READY.none, READY.adding) !== READY.none) {
      fail('EEXIST', 'swap.add', { path }, 'there is a swap file');
    }
    try {
      this.descriptor = openSync(absolute, 'wx+', 0o600);
      ftruncateSync(this.descriptor, pages * core.pageSize);
    } catch (cause) {
      store(words, row.ready.address(0), READY.none);
      throw systemError(cause, 'swap.add', { path });
    }
    row.path.putText(0, absolute);
    row.pages.put(0, pages);
    core.lock.enter();
    core.thread.journal.setDouble(core.control.swapPages, 0, pages);
    core.lock.exit();
    store(words, row.ready.address(0), READY.ready);
  }

  /** Fills frames in lanes from `at` on with pages of the file that lie side by side. */
  read(page: number, frames: Int32Array, at: number, count: number): void {
    this.transfer('swap.read', page, frames, at, count, readPieces);
  }

  /** Puts frames into the pages that anons from `anon` on have in the file, or get now: those side by side in one call. */
  write(anon: AnonIndex, frames: Int32Array, at: number, count: number): void {
    const { swap } = this.core.anons;
    let first = 0;
    let start = -1;
    for (let done = 0; done < count; done++) {
      const known = swap.get(anon + done) - 1;
      const page = known >= 0 ? known : this.take(anon + done);
      if (start >= 0 && page === start + done - first) continue;
      if (start >= 0) this.transfer('swap.write', start, frames, at + first, done - first, writePieces);
      first = done;
      start = page;
    }
    if (start >= 0) this.transfer('swap.write', start, frames, at + first, count - first, writePieces);
  }

  /** True when an anon has a page of the file, or may get one. A look without the lock. */
  hasRoom(anon: AnonIndex): boolean {
    const { row, core } = this;
    return core.anons.swap.get(anon) !== 0 || row.used.get(0) < row.pages.get(0);
  }

  /** Frees the page of an anon. */
  free(anon: AnonIndex): void {
    const { core, row, map, mutex } = this;
    const { anons, thread } = core;
    const { journal } = thread;
    mutex.enter();
    const page = anons.swap.get(anon) - 1;
    if (page >= 0) {
      const word = page >>> 5;
      journal.set(map.used, word, map.used.get(word) & ~(1 << (page & 31)));
      journal.set(row.used, 0, row.used.get(0) - 1);
      if (word < row.hint.get(0)) journal.set(row.hint, 0, word);
      journal.set(anons.swap, anon, 0);
    }
    mutex.exit();
  }

  /** Closes this thread's descriptor. */
  close(): void {
    if (this.descriptor >= 0) closeSync(this.descriptor);
    this.descriptor = -1;
  }

  /** Appends broken invariants. For quiet points. */
  check(problems: string[]): void {
    const { core, row, map } = this;
    const seen = new Set<number>();
    for (let anon = 0; anon < core.anonPool.walkEnd; anon++) {
      const page = core.anons.swap.get(anon) - 1;
      if (page < 0 || core.anons.refs.get(anon) <= 0) continue;
      if (seen.has(page)) problems.push(`seg/swap-file I1: page ${page} belongs to anon ${anon} and another`);
      seen.add(page);
      if ((map.used.get(page >>> 5) & (1 << (page & 31))) === 0)
        problems.push(`seg/swap-file I1: page ${page} is free`);
    }
    if (seen.size !== row.used.get(0))
      problems.push(`seg/swap-file I1: ${row.used.get(0)} pages in use, ${seen.size} found`);
  }

  /** A free page, noted in the anon. */
  private take(anon: AnonIndex): number {
    const { core, row, map, mutex } = this;
    const { anons, thread } = core;
    const { journal } = thread;
    const words = Math.ceil(row.pages.get(0) / 32);
    mutex.enter();
    let word = row.hint.get(0);
    while (word < words && map.used.get(word) === -1) word++;
    const bits = word < words ? map.used.get(word) : -1;
    const page = word * 32 + (31 - Math.clz32(~bits & -~bits));
    if (bits === -1 || page >= row.pages.get(0)) {
      mutex.exit();
      return fail(
        'ENOSPC',
        'swap.write',
        { anon, ...this.use },
        'the swap file is full, or there is none: vm.spaces.swap.add',
      );
    }
    journal.set(map.used, word, bits | (1 << (page & 31)));
    journal.set(row.used, 0, row.used.get(0) + 1);
    journal.set(row.hint, 0, word);
    journal.set(anons.swap, anon, page + 1);
    mutex.exit();
    return page;
  }

  private transfer(
    call: string,
    page: number,
    frames: Int32Array,
    at: number,
    count: number,
    move: (descriptor: number, pieces: Uint8Array[], position: number) => number,
  ): void {
    const { banks } = this;
    const pieces = framePieces(banks, frames, at, count * banks.pageSize);
    try {
      let done = 0;
      for (let rest = pieces; rest.length > 0; rest = piecesBehind(pieces, done)) {
        const moved = move(this.opened(), rest, page * banks.pageSize + done);
        if (moved === 0) throw new Error('the swap file ended before its size');
        done += moved;
      }
    } catch (cause) {
      throw systemError(cause, call, { page, count });
    }
  }

  private opened(): number {
    if (this.descriptor >= 0) return this.descriptor;
    if (load(this.core.thread.words, this.row.ready.address(0)) !== READY.ready)
      throw new Error('there is no swap file');
    this.descriptor = openSync(this.row.path.text(0), 'r+');
    return this.descriptor;
  }
}
