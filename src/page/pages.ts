/**
 * Pages: pieces of vnodes in frames, found, brought and dropped by any thread.
 *
 * PROBLEM     All threads read the same files through the same frames. A hit must not take a lock; a page must be brought
 *             once although many ask for it; a thread may die while it brings one; nobody may ever see bytes of another
 *             page, or none.
 * STRUCTURE   A frame goes through these states; `excl` and `bits` are its page lock:
 *
 *               free --take--> page, no identity, excl --insert--> filling, excl --bytes--> valid, excl
 *                 ^                    ^        |                       | failed             | downgrade
 *                 |                    |        '------- give ----------'                    v
 *                 '--- drop -----------+----------- evict, excl <----------------- valid, bits or nobody
 *
 *               hold (a hit)   1 walk the chain without a lock: a frame that may hold the page, or none
 *                              2 set this slot's bit, then read the lock word: an owner in it means no hit
 *                              3 compare identity and state again; if they differ, clear the bit: no hit
 *               fetch (a miss) 1 hold   2 somebody has the frame: wait for it with a shared hold, compare, start again
 *                              3 take frames, exclusively held   4 insert each under the stripe's mutex; who comes second
 *                              gives its frame back and waits as in 2   5 the store fills them   6 valid, downgrade
 *
 *             Why a hit is right. Identity and state change only under the exclusive lock (page-hash I3), and a writer
 *             owns the word before it looks at the bits. The hit sets its bit before it looks at the word. All four are
 *             sequentially consistent, so either the hit sees the owner and withdraws, or the owner sees the bit and
 *             waits or withdraws. In the second case every earlier owner has released the word, and that release is what
 *             the hit read, so it sees all of the earlier owner's stores; a later one can change nothing until the bit
 *             is gone. So what step 3 compares stays true while the hold lasts. Step 1 may return anything: a wrong
 *             frame fails step 3, a missed one is found under the mutex by fetch.
 * INVARIANTS  I1 a page is valid only after all of its bytes are those of the vnode, zeros behind its end.
 *             I2 a frame of use page without an identity is in the hands of one slot: the one in its state, which has
 *                taken an identity away, or, if the state is empty, the one in its use, which has taken the frame.
 *             I3 a page that is filling is held exclusively by its filler.
 *             I4 a thread that holds pages exclusively waits for no page lock, so no circle of waits can form.
 * LOCKING     Page locks before stripes before frames. A fetch waits for page locks in ascending order of one vnode.
 * COSTS       A hit: the bucket, half a cache line per frame in the chain, two atomic operations, about 60 ns.
 * FAILURE     What the store throws, with the page empty again and its waiters awake; `ENOMEM` when no page may leave.
 * REJECTED    A list of waiters per page: the page lock is one. A second pin count: see page-holds I2.
 * REFERENCES  illumos vm_page.c and vpm.c; Dekker's flags; docs/locking.md.
 */

import { fail, failMisuse } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import type { FrameBytes, FrameIndex } from '../phys/banks.ts';
import { FRAME_USE, type FrameReclaimer, type Frames } from '../phys/frames.ts';
import { FOREVER } from '../sync/atomics.ts';
import { faultPoint } from '../sync/fault.ts';
import { mutexEnterWithin, mutexExit } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import { DirtyPages } from './dirty-pages.ts';
import { FrameSupply } from './frame-supply.ts';
import { countersOf, PAGE_COUNTER } from './page-counters.ts';
import { PageDrops } from './page-drops.ts';
import { PAGE_STATE, PageHash, type VnodeIndex } from './page-hash.ts';
import { PageHolds } from './page-holds.ts';
import { PageMoves, type RelocationListener } from './page-moves.ts';
import type { PageSource, PageStore } from './page-store.ts';
import { PageWriter, type WriteFailure } from './page-writer.ts';
import { Replacement } from './replacement.ts';

/** Most pages of one fetch. */
export const FETCH_PAGES_MAX = 32;

/** How long a fetch waits for pinned pages before it throws `ENOMEM`. */
const SHORTAGE_MS = 10_000;

/** How often a fetch writes modified pages back to gain frames before it waits with others. */
const CLEANINGS_MAX = 8;

/** What a fetch is about. */
interface Request {
  readonly vnode: VnodeIndex;
  readonly index: number;
  readonly count: number;
  /** Frames go here, */
  readonly out: Int32Array;
  /** from this lane on. */
  readonly at: number;
  /** Takes modified pages that have to leave. */
  readonly store: PageStore;
  /** Brings what is missing; null for zeros. */
  readonly source: PageSource | null;
  /** What is brought differs from the store. */
  readonly modified: boolean;
}

/** The pages as one thread sees them. */
export class Pages implements FrameReclaimer {
  /** This thread's page locks, by frame. */
  readonly holds: PageHolds;
  readonly #thread: Thread;
  readonly #frames: Frames;
  readonly #bytes: FrameBytes;
  readonly #page: BoundTables['page'];
  readonly #hash: PageHash;
  readonly #replacement: Replacement;
  readonly #dirty: DirtyPages;
  readonly #writer: PageWriter;
  readonly #supply: FrameSupply;
  readonly #drops: PageDrops;
  readonly #moves: PageMoves;
  readonly #counters: Float64Array;

  constructor(thread: Thread, frames: Frames, bytes: FrameBytes) {
    this.#thread = thread;
    this.#bytes = bytes;
    this.#frames = frames;
    this.#page = thread.region.tables.page;
    this.#hash = new PageHash(thread);
    this.holds = new PageHolds(thread);
    this.#replacement = new Replacement(thread, this.#hash, this.holds);
    this.#dirty = new DirtyPages(thread);
    this.#writer = new PageWriter(thread, this.#hash, this.holds, this.#dirty);
    this.#supply = new FrameSupply(thread, frames, this.holds, this.#replacement, this.#dirty, this.#writer);
    this.#drops = new PageDrops(thread, this.#hash, this.holds, this.#dirty, this.#supply);
    this.#moves = new PageMoves(thread, frames, bytes, this.#hash, this.holds, this.#dirty, this.#supply);
    this.#moves.onRelocated((_vnode, _index, from, to) => this.#replacement.relocated(from, to));
    this.#counters = countersOf(thread);
    frames.setReclaimer(this);
  }

  /** Pages that this thread holds. */
  get held(): number {
    return this.holds.pages;
  }

  /** Modified pages of all vnodes, those being written back included. */
  get modified(): number {
    return this.#dirty.total;
  }

  /** Modified pages of a vnode, those being written back included. */
  modifiedOf(vnode: VnodeIndex): number {
    return this.#dirty.countOf(vnode);
  }

  /** True when a page that this thread holds is neither modified nor being written back. */
  isClean(frame: FrameIndex): boolean {
    return this.#dirty.isClean(frame);
  }

  /** The frame of a valid page, now held shared by this thread, or -1. Takes no lock and never waits. */
  hold(vnode: VnodeIndex, index: number): FrameIndex {
    // 1.
    const frame = this.#hash.find(vnode, index);
    if (frame < 0) return -1;
    // 2.
    if (!this.holds.tryShared(frame)) return -1;
    if (VERIFY) faultPoint(this.#thread, 'page.hit.held');
    // 3.
    if (!this.holds.hasPage(frame, vnode, index)) {
      this.holds.release(frame);
      return -1;
    }
    const { referenced } = this.#page;
    const mark = referenced.get(frame);
    if (mark < this.#replacement.markMax) referenced.put(frame, mark + 1);
    this.#tally(PAGE_COUNTER.hits, 1);
    return frame;
  }

  /** Gives one hold of a page back. */
  release(frame: FrameIndex): void {
    this.holds.release(frame);
  }

  /**
   * The frame of a page that is in memory, now held exclusively by this thread, which must not hold it shared; -1 when it is
   * not in memory, or `timeoutMs` ran out. Give it back with `holds.releaseExclusive`, or turn it into a shared hold with
   * `holds.downgrade`. Hold one page exclusively at a time, and wait for no other meanwhile.
   */
  holdExclusive(vnode: VnodeIndex, index: number, timeoutMs: number = FOREVER): FrameIndex {
    for (;;) {
      const frame = this.#hash.findCertain(vnode, index);
      if (frame < 0 || !this.holds.exclusive(frame, timeoutMs)) return -1;
      if (this.holds.hasPage(frame, vnode, index)) return frame;
      this.holds.releaseExclusive(frame);
    }
  }

  /**
   * Holds `count` pages (at most 32) from `index` on, bringing those that are missing; their frames go into `out` from
   * lane `at`. With `whole` it waits until all can be held at once; else it may return fewer, at least one. Throws what
   * the store throws, `ENOMEM` when pinned pages leave no frame for 10 seconds; then it holds none of them.
   */
  fetch(
    vnode: VnodeIndex,
    index: number,
    count: number,
    out: Int32Array,
    at: number,
    store: PageStore,
    whole: boolean,
  ): number {
    return this.#fetch({ vnode, index, count, out, at, store, source: store, modified: false }, whole);
  }

  /**
   * Like `fetch` with `whole`, but pages that are missing are not read. `source` brings their bytes instead, and they are
   * modified from the start: how a page that is wholly overwritten comes without anybody seeing what it held before, and
   * without a trace if the thread dies half-way. Pages that are there already are only held. Without a source the pages
   * are filled with zeros and not modified: right where the store would bring zeros, behind the end of a file for example.
   */
  create(
    vnode: VnodeIndex,
    index: number,
    count: number,
    out: Int32Array,
    at: number,
    store: PageStore,
    source: PageSource | null,
  ): number {
    return this.#fetch({ vnode, index, count, out, at, store, source, modified: source !== null }, true);
  }

  /**
   * Says that a page which this thread holds differs from its store. Whoever stores bytes into a page calls it before and
   * after: see dirty-pages.ts. Modified pages stay in memory until they are written back.
   */
  setModified(frame: FrameIndex): void {
    if (!this.holds.holds(frame)) {
      failMisuse('pages.setModified', { frame }, 'a page is modified by a thread that holds it');
    }
    this.#dirty.mark(frame);
  }

  /**
   * Writes back the pages from `first` to `first + count - 1` that are modified now, adjacent ones in one call of the store,
   * and waits for those that other threads are writing back. Returns the pages written. Throws the first error of the store
   * when all have been tried; what the store did not take stays modified.
   */
  writeBack(vnode: VnodeIndex, first: number, count: number, store: PageStore): number {
    return this.#writer.range(vnode, first, count, store);
  }

  /** Writes back up to `max` pages that were modified first, without waiting for pages; returns how many were written. */
  writeOldest(max: number, store: PageStore): number {
    return this.#writer.someOldest(max, store);
  }

  /** Modified pages that this thread has written back so far. */
  get writtenHere(): number {
    return this.#counters[PAGE_COUNTER.writtenPages] as number;
  }

  /** What the store said when it last refused modified pages of this thread. */
  get lastWriteFailure(): WriteFailure | null {
    return this.#writer.lastFailure;
  }

  /** Frees up to `max` frames of pages that the replacement policy lets go: clean, held by nobody. Returns how many. */
  freeSome(max: number): number {
    return this.#supply.freeSome(max);
  }

  /** Drops the clean pages of a vnode below index `pageCount`; returns how many were in use or modified and stayed. */
  drop(vnode: VnodeIndex, pageCount: number): number {
    return this.#drops.range(vnode, 0, pageCount, false);
  }

  /**
   * Drops the pages of a vnode from index `first` up to `end`, modified ones too: what they hold is given up. Returns how
   * many were in use and stayed as they are.
   */
  invalidate(vnode: VnodeIndex, first: number, end: number = Number.POSITIVE_INFINITY): number {
    return this.#drops.range(vnode, first, end, true);
  }

  reclaim(frame: FrameIndex, use: number): boolean {
    if (!this.#replacement.evict(frame)) return false;
    this.#tally(PAGE_COUNTER.evictions, 1);
    this.#frames.convert(frame, FRAME_USE.page, use, this.#page.state, PAGE_STATE.empty);
    this.holds.releaseExclusive(frame);
    return true;
  }

  relocate(frame: FrameIndex, use: number): boolean {
    return this.#moves.relocate(frame, use);
  }

  holders(frame: FrameIndex): SlotIndex[] {
    return this.holds.holders(frame);
  }

  /** Who is told, with no lock held, that a page has moved from one frame to another. */
  onRelocated(listener: RelocationListener): void {
    this.#moves.onRelocated(listener);
  }

  /**
   * Gives the page in a frame that this thread holds exclusively another identity, its bytes and modifications with it. False,
   * with nothing changed, when another frame has that identity.
   */
  rename(frame: FrameIndex, vnode: VnodeIndex, index: number): boolean {
    return this.#moves.rename(frame, vnode, index);
  }

  #fetch(request: Request, whole: boolean): number {
    for (let cleanings = 0; ; cleanings++) {
      const done = this.#fetchSome(request, 0);
      if (done === request.count || (done > 0 && !whole)) return done;
      this.#releaseSeveral(request.out, request.at, done);
      if (cleanings === CLEANINGS_MAX || !this.#supply.clean(request.store)) break;
    }
    this.#frames.press();
    return this.#fetchShort(request, whole);
  }

  /** Fetches from lane `at + done` on until all are held or no frame can be had; on an error all are released. */
  #fetchSome(request: Request, done: number): number {
    const { vnode, index, count, out, at } = request;
    let held = done;
    try {
      while (held < count) {
        // 1.
        const frame = this.hold(vnode, index + held);
        if (frame >= 0) {
          out[at + held++] = frame;
          continue;
        }
        // 2.
        let met = this.#hash.find(vnode, index + held);
        if (met < 0) {
          // 3-4.
          const claimed = this.#claim(vnode, index + held, count - held, out, at + held);
          if (claimed === 0) return held;
          if (claimed > 0) {
            // 5-6.
            this.#fill(request, held, claimed);
            held += claimed;
            continue;
          }
          met = -1 - claimed;
        }
        this.#tally(PAGE_COUNTER.waits, 1);
        if (this.holds.page(met, vnode, index + held)) out[at + held++] = met;
      }
    } catch (error) {
      this.#releaseSeveral(out, at, held);
      throw error;
    }
    return held;
  }

  /**
   * Claims the page at `index` and those behind it that are missing too: frames with their identities, filling and
   * exclusively held. Returns how many; 0 when no frame could be had; -1 - frame when another frame has the first.
   */
  #claim(vnode: VnodeIndex, index: number, max: number, out: Int32Array, at: number): number {
    let wanted = 1;
    while (wanted < max && this.#hash.find(vnode, index + wanted) < 0) wanted++;
    const taken = this.#supply.take(wanted, out, at);
    for (let claimed = 0; claimed < taken; claimed++) {
      const other = this.#hash.insert(out[at + claimed] as number, vnode, index + claimed);
      if (other < 0) continue;
      for (let unused = claimed; unused < taken; unused++) this.#supply.giveEmpty(out[at + unused] as number);
      return claimed > 0 ? claimed : -1 - other;
    }
    if (VERIFY) faultPoint(this.#thread, 'page.fill.claimed');
    return taken;
  }

  /** Steps 5 and 6 for `count` pages from lane `at + done` on. */
  #fill({ vnode, index, out, at, source, modified }: Request, done: number, count: number): void {
    const lane = at + done;
    this.#replacement.inserted(vnode, index + done, out, lane, count);
    try {
      if (VERIFY && faultPoint(this.#thread, 'page.fill.reading')) {
        fail('EIO', 'pages.fetch', { vnode, index: index + done, count }, 'injected');
      }
      const readBytes =
        source === null ? this.#zero(out, lane, count) : source.fill(vnode, index + done, out, lane, count);
      if (VERIFY) faultPoint(this.#thread, 'page.fill.read');
      if (readBytes < 0 || modified) this.#tally(PAGE_COUNTER.created, count);
      else this.#countRead(count, readBytes);
    } catch (error) {
      this.#tally(PAGE_COUNTER.failures, 1);
      for (let page = 0; page < count; page++) this.#drops.held(out[lane + page] as number);
      throw error;
    }
    for (let page = 0; page < count; page++) {
      const frame = out[lane + page] as number;
      if (modified) {
        this.#dirty.mark(frame);
        if (VERIFY) faultPoint(this.#thread, 'page.create.filled');
      }
      this.#page.state.put(frame, PAGE_STATE.valid);
      this.#page.referenced.put(frame, this.#replacement.firstMark);
      this.holds.downgrade(frame);
    }
  }

  #zero(out: Int32Array, lane: number, count: number): number {
    for (let page = 0; page < count; page++) this.#bytes.zeroFrame(out[lane + page] as number);
    return -1;
  }

  #countRead(pages: number, bytes: number): void {
    this.#tally(PAGE_COUNTER.misses, pages);
    this.#tally(PAGE_COUNTER.reads, 1);
    this.#tally(PAGE_COUNTER.readBytes, bytes);
  }

  /**
   * Fetches although pinned pages leave no frame. Only one thread at a time keeps what it has while it waits, so that two
   * that need most of the memory cannot block each other.
   */
  #fetchShort(request: Request, whole: boolean): number {
    const thread = this.#thread;
    const { vnode, count, out, at, store } = request;
    const shortage = thread.region.tables.pageClock.shortage.address(0);
    this.#tally(PAGE_COUNTER.shortages, 1);
    const deadline = thread.clock.now() + SHORTAGE_MS;
    if (!mutexEnterWithin(thread, shortage, RANK.pageShortage, SHORTAGE_MS)) return this.#failShort(vnode, count);
    try {
      for (let done = 0; ; ) {
        done = this.#fetchSome(request, done);
        if (done === count || (done > 0 && !whole)) return done;
        if (this.#supply.gainOne(deadline, store)) continue;
        this.#releaseSeveral(out, at, done);
        return this.#failShort(vnode, count);
      }
    } finally {
      this.#supply.settle();
      mutexExit(thread, shortage);
    }
  }

  #failShort(vnode: VnodeIndex, count: number): never {
    const { total, free, page } = this.#frames.counts();
    const rule = 'pinned or modified pages leave no frame; release mappings or boot with more memory';
    const values = { vnode, count, total, free, page, pinnedHere: this.held, modified: this.modified };
    fail('ENOMEM', 'pages.fetch', values, rule);
  }

  #releaseSeveral(out: Int32Array, at: number, count: number): void {
    for (let lane = at; lane < at + count; lane++) this.holds.release(out[lane] as number);
  }

  #tally(lane: number, amount: number): void {
    this.#counters[lane] = (this.#counters[lane] as number) + amount;
  }
}
