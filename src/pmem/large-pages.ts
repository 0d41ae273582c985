/**
 * Large pages: which of their frames wait in the pool, found in constant time.
 *
 * PROBLEM     A large page goes back to the system when all of its frames are back in the pool; until then its free frames
 *             should serve others, those of the fullest large page first, so that the rest can empty.
 * STRUCTURE   A row per large page of memory: its number is the frame's number divided by the size, so that nothing is
 *             searched. Rows with equally many frames in the pool form a list:
 *
 *               fullness   1 -> [7]     3 -> [2] <-> [9]     512 -> [4]: wholly free
 *               map        bit 1, bit 3, bit 512
 *
 *             The seed keeps one list in its own order instead.
 * INVARIANTS  I1 `free` counts the bits of `pooled`.  I2 a large page in use with free frames is on the list of its count.
 *             I3 the map has a bit for every list that is not empty.
 * LOCKING     Everything under the pmem lock, through the journal.
 * COSTS       A frame: nothing to search; runs of frames are changed a word of 32 at a time.
 * FAILURE     Assertions for frames that are in the pool already, or not.
 * REJECTED    A list to search, as in the seed: 512 frames took 160 ms with 10^4 large pages.
 * REFERENCES  pmem.c; Bonwick's slab allocator picks partial slabs likewise.
 */

import { assert } from '../base/assert.ts';
import type { BoundTables } from '../layout/region.ts';
import type { FrameIndex } from '../phys/banks.ts';
import { lowestBit, onesCount, wordMask } from '../phys/map-words.ts';
import type { Thread } from '../sync/thread.ts';
import { LARGE_STATE } from './kinds.ts';

const WORD_BITS = 32;

/** The large pages as one thread sees them. */
export class LargePages {
  /** Frames in a large page. */
  readonly size: number;
  readonly #thread: Thread;
  readonly #rows: BoundTables['largePage'];
  readonly #pool: BoundTables['pmemPool'];
  readonly #heads: BoundTables['fullness']['head'];
  readonly #map: BoundTables['fullnessMap']['lists'];
  readonly #seed: boolean;

  constructor(thread: Thread) {
    const { tables } = thread.region;
    this.#thread = thread;
    this.#rows = tables.largePage;
    this.#pool = tables.pmemPool;
    this.#heads = tables.fullness.head;
    this.#map = tables.fullnessMap.lists;
    this.size = tables.pmemPool.largeFrames.get(0);
    this.#seed = tables.pmemPool.seed.get(0) === 1;
  }

  /** Number of the large page that a frame lies in. */
  of(frame: FrameIndex): number {
    return Math.floor(frame / this.size);
  }

  /** True when a frame belongs to a large page that pmem has taken. */
  has(frame: FrameIndex): boolean {
    return this.size > 1 && this.#rows.state.get(this.of(frame)) !== LARGE_STATE.none;
  }

  /** State of a large page. */
  stateOf(large: number): number {
    return this.#rows.state.get(large);
  }

  /** Frames of a large page in the pool. */
  freeOf(large: number): number {
    return this.#rows.free.get(large);
  }

  /** Records a large page; none of its frames is in the pool. In the seed's order it is not yet listed: see `list`. */
  add(large: number): void {
    const { journal } = this.#thread;
    assert(this.#rows.state.get(large) === LARGE_STATE.none, 'pmem/large-pages: a large page is taken once');
    journal.set(this.#rows.state, large, LARGE_STATE.inUse);
    journal.set(this.#pool.recordCount, 0, this.#pool.recordCount.get(0) + 1);
  }

  /** Says that a large page is on its way out. */
  leave(large: number): void {
    this.#thread.journal.set(this.#rows.state, large, LARGE_STATE.leaving);
  }

  /** Forgets a large page and takes its frames out of the pool's counts. */
  remove(large: number): void {
    const { journal } = this.#thread;
    const free = this.#rows.free.get(large);
    this.#unfile(large, free);
    for (let lane = 0; lane < this.#rows.pooled.stride; lane++) {
      if (this.#rows.pooled.at(large, lane) !== 0) journal.setAt(this.#rows.pooled, large, lane, 0);
    }
    if (free === this.size) journal.set(this.#pool.wholeFree, 0, this.#pool.wholeFree.get(0) - 1);
    journal.set(this.#rows.free, large, 0);
    journal.set(this.#rows.state, large, LARGE_STATE.none);
    journal.set(this.#pool.poolFrames, 0, this.#pool.poolFrames.get(0) - free);
    journal.set(this.#pool.recordCount, 0, this.#pool.recordCount.get(0) - 1);
  }

  /** Puts frames `[first, first + count)` of one large page into the pool. */
  pool(first: FrameIndex, count: number): void {
    this.#change(first, count, true);
  }

  /** Takes frames of one large page out of the pool. */
  unpool(first: FrameIndex, count: number): void {
    this.#change(first, count, false);
  }

  /** The large page with the fewest frames in the pool, but any at all; -1 when the pool is empty. */
  fullest(): number {
    for (let word = 0; word < this.#map.view.length; word++) {
      const lists = this.#map.get(word);
      if (lists !== 0) return this.#heads.get(word * WORD_BITS + lowestBit(lists)) - 1;
    }
    return -1;
  }

  /** A large page whose frames are all in the pool, or -1. */
  whollyFree(): number {
    return this.#heads.get(this.size) - 1;
  }

  /** First run of frames of a large page in the pool, at most `most`; its count is 0 when there is none. */
  firstRun(large: number, most: number): { first: FrameIndex; count: number } {
    const { pooled } = this.#rows;
    const base = large * this.size;
    let at = 0;
    while (at < this.size && (pooled.at(large, at >>> 5) & (1 << (at & 31))) === 0) {
      const rest = pooled.at(large, at >>> 5) >>> (at & 31);
      at += rest === 0 ? WORD_BITS - (at & 31) : lowestBit(rest);
    }
    if (at >= this.size) return { first: -1, count: 0 };
    let end = at;
    while (end < this.size && end - at < most && (pooled.at(large, end >>> 5) & (1 << (end & 31))) !== 0) end++;
    return { first: base + at, count: end - at };
  }

  /** Seed order: puts a large page at the end of the list. */
  list(large: number): void {
    const { journal } = this.#thread;
    const { recordHead, recordTail } = this.#pool;
    const last = recordTail.get(0);
    journal.set(this.#rows.previous, large, last);
    journal.set(this.#rows.next, large, 0);
    if (last === 0) journal.set(recordHead, 0, large + 1);
    else journal.set(this.#rows.next, last - 1, large + 1);
    journal.set(recordTail, 0, large + 1);
  }

  /** Seed order: takes a large page off the list. */
  unlist(large: number): void {
    const { journal } = this.#thread;
    const { recordHead, recordTail } = this.#pool;
    const next = this.#rows.next.get(large);
    const previous = this.#rows.previous.get(large);
    if (previous === 0) journal.set(recordHead, 0, next);
    else journal.set(this.#rows.next, previous - 1, next);
    if (next === 0) journal.set(recordTail, 0, previous);
    else journal.set(this.#rows.previous, next - 1, previous);
  }

  /** Large pages with the number of their frames in the pool: in the seed's order, or by address. For quiet points. */
  snapshot(): [root: FrameIndex, free: number][] {
    const found: [number, number][] = [];
    if (this.#seed) {
      for (let large = this.#pool.recordHead.get(0) - 1; large >= 0; large = this.#rows.next.get(large) - 1) {
        found.push([large * this.size, this.#rows.free.get(large)]);
      }
      return found;
    }
    for (let large = 0; large < this.#rows.rowCount; large++) {
      if (this.#rows.state.get(large) !== LARGE_STATE.none) found.push([large * this.size, this.#rows.free.get(large)]);
    }
    return found;
  }

  /** Broken invariants, for `check()`. */
  problems(): string[] {
    const found: string[] = [];
    const filed = new Map<number, number>();
    if (!this.#seed) {
      for (let free = 0; free <= this.size; free++) {
        const marked = (this.#map.get(free >>> 5) & (1 << (free & 31))) !== 0;
        if (marked !== (this.#heads.get(free) !== 0)) found.push(`pmem/large-pages I3: list ${free}`);
        for (let large = this.#heads.get(free) - 1; large >= 0; large = this.#rows.next.get(large) - 1) {
          if (filed.has(large)) break;
          filed.set(large, free);
        }
      }
    }
    let total = 0;
    let records = 0;
    let wholeFree = 0;
    for (let large = 0; large < this.#rows.rowCount; large++) {
      const free = this.#rows.free.get(large);
      let ones = 0;
      for (let lane = 0; lane < this.#rows.pooled.stride; lane++) ones += onesCount(this.#rows.pooled.at(large, lane));
      if (ones !== free) found.push(`pmem/large-pages I1: large page ${large}: ${free} free, ${ones} bits`);
      if (!this.#seed && (filed.get(large) ?? 0) !== free) found.push(`pmem/large-pages I2: large page ${large}`);
      if (this.#rows.state.get(large) === LARGE_STATE.none) continue;
      records++;
      total += free;
      if (free === this.size) wholeFree++;
    }
    const { poolFrames, recordCount, wholeFree: whole } = this.#pool;
    if (total !== poolFrames.get(0)) found.push(`pmem/pool: ${poolFrames.get(0)} frames, found ${total}`);
    if (records !== recordCount.get(0)) found.push(`pmem/pool: ${recordCount.get(0)} large pages, found ${records}`);
    if (wholeFree !== whole.get(0)) found.push(`pmem/pool: ${whole.get(0)} wholly free, found ${wholeFree}`);
    return found;
  }

  #change(first: FrameIndex, count: number, add: boolean): void {
    const { journal } = this.#thread;
    const { pooled, free } = this.#rows;
    const large = this.of(first);
    const from = first - large * this.size;
    const end = from + count;
    for (let lane = from >>> 5; lane * WORD_BITS < end; lane++) {
      const mask = wordMask(Math.max(0, from - lane * WORD_BITS), end - lane * WORD_BITS);
      const before = pooled.at(large, lane);
      assert((before & mask) === (add ? 0 : mask), 'pmem/large-pages: a frame enters and leaves the pool in turn');
      journal.setAt(pooled, large, lane, add ? before | mask : before & ~mask);
    }
    const before = free.get(large);
    const after = add ? before + count : before - count;
    journal.set(free, large, after);
    journal.set(this.#pool.poolFrames, 0, this.#pool.poolFrames.get(0) + after - before);
    if (before === this.size) journal.set(this.#pool.wholeFree, 0, this.#pool.wholeFree.get(0) - 1);
    if (after === this.size) journal.set(this.#pool.wholeFree, 0, this.#pool.wholeFree.get(0) + 1);
    this.#unfile(large, before);
    this.#file(large, after);
  }

  #file(large: number, free: number): void {
    if (this.#seed || free === 0) return;
    const { journal } = this.#thread;
    const next = this.#heads.get(free);
    journal.set(this.#rows.next, large, next);
    journal.set(this.#rows.previous, large, 0);
    if (next !== 0) journal.set(this.#rows.previous, next - 1, large + 1);
    else journal.set(this.#map, free >>> 5, this.#map.get(free >>> 5) | (1 << (free & 31)));
    journal.set(this.#heads, free, large + 1);
  }

  #unfile(large: number, free: number): void {
    if (this.#seed || free === 0) return;
    const { journal } = this.#thread;
    const next = this.#rows.next.get(large);
    const previous = this.#rows.previous.get(large);
    if (next !== 0) journal.set(this.#rows.previous, next - 1, previous);
    if (previous !== 0) journal.set(this.#rows.next, previous - 1, next);
    else {
      journal.set(this.#heads, free, next);
      if (next === 0) journal.set(this.#map, free >>> 5, this.#map.get(free >>> 5) & ~(1 << (free & 31)));
    }
  }
}
