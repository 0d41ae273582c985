/**
 * Cursors: words of a space at nearly the price of a typed array, for pages that are used again and again.
 *
 * PROBLEM     Half of what a word costs through a space goes into taking its page lock and giving it back.
 * STRUCTURE   A cursor keeps the page locks of the last pages that it met, one for each place of a small table:
 *
 *               address -> page -> place: is it this page?    no: let the old page go, fault, keep the new one
 *                                         to store: is its count of changes still the same?    no: as before
 *                                         the word itself
 *                                         to load: is the count still the same?    no: as before
 *
 *             A store runs in a write section, as every store does (write-sections.ts). Pages that are stored into are marked as
 *             modified when they come and when they go; pages of files after each store too, so that a sync sees them.
 * INVARIANTS  I1 every page in the table is held by this thread.   I2 a page that may have been stored into through the table
 *             is marked when it leaves.
 * LOCKING     The page locks. Frames without identity have none, and are not kept.
 * COSTS       A load: two atomic loads. A store: those of the section and of the word.
 * FAILURE     Those of `as.load` and `as.store`.
 * REJECTED    Staying inside a write section between stores: a thread that then does something else would stop forks.
 * REFERENCES  space-access.ts; software TLBs of emulators.
 */

import { failMisuse } from '../base/errors.ts';
import type { KnownPages } from '../page/index.ts';
import type { FrameIndex } from '../phys/index.ts';
import { add, compareExchange, load, store } from '../sync/index.ts';
import type { SpaceAccess } from './space-access.ts';
import { failWord, requireWord } from './space-arguments.ts';
import type { SpaceIndex } from './space-kinds.ts';
import type { WriteSections } from './write-sections.ts';

/** Most pages that a cursor keeps. */
export const CURSOR_PAGES_MAX = 1024;

/** Options of `as.cursor`. */
export interface CursorOptions {
  /** Most pages that it keeps: a power of two up to 1024. Default 64. */
  readonly pages?: number;
}

/** What a cursor needs. */
export interface CursorParts {
  readonly access: SpaceAccess;
  readonly sections: WriteSections;
  readonly known: KnownPages;
  /** Words of the region, and of each bank. */
  readonly words: Int32Array;
  readonly bankWords: readonly Int32Array[];
  readonly space: SpaceIndex;
  readonly pageSize: number;
  /** Called once, when the cursor was released. */
  readonly released: (cursor: SpaceCursor) => void;
}

/** Loads and stores of words by one thread; see the file's header. Made by `as.cursor`. */
export class SpaceCursor {
  private readonly parts: CursorParts;
  private readonly words: Int32Array;
  private readonly sections: WriteSections;
  private readonly space: SpaceIndex;
  private readonly inversePageSize: number;
  private readonly pageSize: number;
  private readonly mask: number;
  private isReleased = false;
  // The table, as columns.
  private readonly page: Float64Array;
  private readonly frame: Int32Array;
  private readonly bank: Int32Array;
  private readonly wordAt: Int32Array;
  private readonly countAt: Int32Array;
  private readonly count: Int32Array;
  /** 1: may be stored into. */
  private readonly writable: Uint8Array;
  /** 1: a page of a file. */
  private readonly ofFile: Uint8Array;

  /** For `AddressSpace`. @param pages a power of two. */
  constructor(parts: CursorParts, pages: number) {
    this.parts = parts;
    this.words = parts.words;
    this.sections = parts.sections;
    this.space = parts.space;
    this.pageSize = parts.pageSize;
    this.inversePageSize = 1 / parts.pageSize;
    this.mask = pages - 1;
    this.page = new Float64Array(pages).fill(Number.NaN);
    this.frame = new Int32Array(pages);
    this.bank = new Int32Array(pages);
    this.wordAt = new Int32Array(pages);
    this.countAt = new Int32Array(pages);
    this.count = new Int32Array(pages);
    this.writable = new Uint8Array(pages);
    this.ofFile = new Uint8Array(pages);
  }

  /** Reads the 32-bit word at an address that is a multiple of 4. Sequentially consistent, like the following. */
  load(address: number): number {
    if (typeof address !== 'number') failWord('cursor.load', address);
    const page = Math.floor(address * this.inversePageSize);
    const word = (address - page * this.pageSize) / 4;
    if (word !== (word | 0)) failWord('cursor.load', address);
    const at = page & this.mask;
    let isHere = this.page[at] === page;
    for (;;) {
      if (!isHere && !this.come('cursor.load', page, address, false))
        return this.parts.access.load(address, 'cursor.load');
      const words = this.parts.bankWords[this.bank[at] as number] as Int32Array;
      const value = load(words, (this.wordAt[at] as number) + word);
      // Behind the word: a page that was left to a fork meanwhile shows the fork's stores.
      isHere = load(this.words, this.countAt[at] as number) === this.count[at];
      if (isHere) return value;
    }
  }

  /** Stores a 32-bit word. */
  store(address: number, value: number): void {
    requireWord('cursor.store', value);
    const at = this.enter('cursor.store', address);
    if (at < 0) {
      this.parts.access.store(address, value, 'cursor.store');
      return;
    }
    store(this.wordsAt(at), this.wordOf(at, address), value);
    this.leave(at);
  }

  /** Adds to a 32-bit word; returns what was there. */
  add(address: number, value: number): number {
    requireWord('cursor.add', value);
    const at = this.enter('cursor.add', address);
    if (at < 0) return this.parts.access.add(address, value, 'cursor.add');
    const found = add(this.wordsAt(at), this.wordOf(at, address), value);
    this.leave(at);
    return found;
  }

  /** Replaces a 32-bit word that holds `expected`; returns what was there. */
  compareAndSwap(address: number, expected: number, value: number): number {
    requireWord('cursor.compareAndSwap', expected);
    requireWord('cursor.compareAndSwap', value);
    const at = this.enter('cursor.compareAndSwap', address);
    if (at < 0) return this.parts.access.compareAndSwap(address, expected, value, 'cursor.compareAndSwap');
    const found = compareExchange(this.wordsAt(at), this.wordOf(at, address), expected, value);
    this.leave(at);
    return found;
  }

  /** Lets all pages go. Throws `EINVAL` when that was done already. */
  release(): void {
    if (this.isReleased) failMisuse('cursor.release', {}, 'the cursor was released');
    for (let at = 0; at <= this.mask; at++) this.drop(at);
    this.isReleased = true;
    this.parts.released(this);
  }

  /** Releases the cursor if it was not. */
  [Symbol.dispose](): void {
    if (!this.isReleased) this.release();
  }

  /** Inside a write section at the place of an address, whose translation is current; -1, outside, without a page to keep. */
  private enter(call: string, address: number): number {
    if (typeof address !== 'number') failWord(call, address);
    const page = Math.floor(address * this.inversePageSize);
    const at = page & this.mask;
    const inPage = address - page * this.pageSize;
    if (inPage % 4 !== 0) failWord(call, address);
    for (;;) {
      if (this.page[at] === page && this.writable[at] !== 0) {
        this.sections.enter(this.space);
        if (load(this.words, this.countAt[at] as number) === this.count[at]) return at;
        this.sections.leave();
      }
      if (!this.come(call, page, address, true)) return -1;
    }
  }

  private leave(at: number): void {
    if (this.ofFile[at] !== 0) this.parts.known.finish(this.frame[at] as FrameIndex);
    this.sections.leave();
  }

  /** Puts a page into its place, held; false for a hole, or a frame without identity. */
  private come(call: string, page: number, address: number, write: boolean): boolean {
    const { access, known } = this.parts;
    if (this.isReleased) failMisuse(call, {}, 'the cursor was released');
    const at = page & this.mask;
    this.drop(at);
    if (!access.keep(page, address, write, call)) return false;
    const { kept } = access;
    this.frame[at] = kept.frame;
    this.bank[at] = kept.bank;
    this.wordAt[at] = kept.wordAt;
    this.countAt[at] = kept.countAt;
    this.count[at] = kept.count;
    this.writable[at] = write ? 1 : 0;
    this.ofFile[at] = kept.ofFile ? 1 : 0;
    this.page[at] = page;
    if (write) known.prepare(kept.frame);
    return true;
  }

  private drop(at: number): void {
    const { known } = this.parts;
    if (Number.isNaN(this.page[at])) return;
    const frame = this.frame[at] as FrameIndex;
    this.page[at] = Number.NaN;
    if (this.writable[at] !== 0) known.finish(frame);
    known.release(frame);
  }

  private wordsAt(at: number): Int32Array {
    return this.parts.bankWords[this.bank[at] as number] as Int32Array;
  }

  private wordOf(at: number, address: number): number {
    const inPage = address - Math.floor(address * this.inversePageSize) * this.pageSize;
    return (this.wordAt[at] as number) + inPage / 4;
  }
}
