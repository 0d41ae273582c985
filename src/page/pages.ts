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

import { failMisuse } from '../base/errors.ts';
import type { BoundTables } from '../layout/region.ts';
import type { FrameBytes, FrameIndex } from '../phys/banks.ts';
import { FRAME_USE, type FrameReclaimer, type Frames } from '../phys/frames.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import { CacheList } from './cache-list.ts';
import { DirtyPages } from './dirty-pages.ts';
import { FrameSupply } from './frame-supply.ts';

import { KnownPages } from './known-pages.ts';
import { LargeFetches } from './large-fetches.ts';
import { LargePages } from './large-pages.ts';

import { countersOf, PAGE_COUNTER } from './page-counters.ts';
import { PageDrops } from './page-drops.ts';
import { PageFetches } from './page-fetches.ts';
import { PAGE_STATE, PageHash, type VnodeIndex } from './page-hash.ts';
import { PageHolds } from './page-holds.ts';
import { PageLookup } from './page-lookup.ts';
import { PageMoves, type RelocationListener } from './page-moves.ts';
import { PageShapes } from './page-shapes.ts';
import type { PageSource, PageStore } from './page-store.ts';
import { PageWriter, type WriteFailure } from './page-writer.ts';
import { Replacement } from './replacement.ts';

/** Most pages of one fetch. */
export const FETCH_PAGES_MAX = 32;

/** The pages as one thread sees them. */
export class Pages implements FrameReclaimer {
  /** This thread's page locks, by frame. */
  readonly holds: PageHolds;
  /** Pages whose frames the caller remembers. */
  readonly known: KnownPages;
  readonly #frames: Frames;
  readonly #page: BoundTables['page'];
  #pinners: (frame: FrameIndex) => readonly SlotIndex[] = () => [];
  #beforeWriteBack: (vnode: VnodeIndex, first: number, count: number) => void = () => undefined;
  readonly #replacement: Replacement;
  readonly #dirty: DirtyPages;
  readonly #cache: CacheList;
  readonly #writer: PageWriter;
  readonly #supply: FrameSupply;
  readonly #drops: PageDrops;
  readonly #lookup: PageLookup;
  readonly #fetches: PageFetches;
  readonly #moves: PageMoves;
  readonly #counters: Float64Array;

  constructor(thread: Thread, frames: Frames, bytes: FrameBytes) {
    const hash = new PageHash(thread);
    const holds = new PageHolds(thread);
    const dirty = new DirtyPages(thread);
    const cache = new CacheList(thread, holds);
    const shapes = new PageShapes(thread);
    const small = { thread, frames, bytes, hash, holds, dirty, cache, shapes };
    const large = new LargePages(small);
    const parts = { ...small, large };
    this.holds = holds;
    this.#frames = frames;
    this.#page = thread.region.tables.page;
    this.#replacement = new Replacement(thread, hash, holds, large, shapes);
    this.known = new KnownPages(thread, holds, dirty, this.#replacement.markMax);
    this.#dirty = dirty;
    this.#cache = cache;
    this.#writer = new PageWriter(thread, hash, holds, dirty, shapes);
    this.#supply = new FrameSupply(parts, this.#replacement, this.#writer);
    this.#drops = new PageDrops(parts, this.#supply);
    this.#lookup = new PageLookup(parts, this.#replacement);
    const largeFetches = new LargeFetches(parts, this.#supply, this.#drops, this.#replacement);
    this.#fetches = new PageFetches(parts, this.#lookup, this.#supply, this.#drops, this.#replacement, largeFetches);
    this.#moves = new PageMoves(parts, this.#supply);
    this.#moves.onRelocated((_vnode, _index, from, to) => this.#replacement.relocated(from, to));
    this.#counters = countersOf(thread);
    frames.setReclaimer(this);
  }

  /** Pages that this thread holds. */
  get held(): number {
    return this.holds.pages;
  }

  /**
   * Pages that could be in memory at once if nothing else were, at present: the frames that are online, without what this thread
   * leaves to the system. A look without a lock when it says at least `wanted`; what is less is certain.
   */
  mostInMemory(wanted: number): number {
    const frames = this.#frames;
    const { core } = frames;
    const look = core.online - frames.systemReserve;
    if (look >= wanted) return look;
    core.mutex.enter();
    const most = core.online - frames.systemReserve;
    core.mutex.exit();
    return Math.max(0, most);
  }

  /** Modified pages of all vnodes, those being written back included. */
  get modified(): number {
    return this.#dirty.total;
  }

  /** Modified pages of a vnode, those being written back included. */
  modifiedOf(vnode: VnodeIndex): number {
    return this.#dirty.countOf(vnode);
  }

  /**
   * How often pages of a vnode have stopped being clean, or were given up, modulo 2^32. What was read from the store while no
   * page was modified is what the pages hold, or would hold, as long as this stays the same.
   */
  changesOf(vnode: VnodeIndex): number {
    return this.#dirty.changesOf(vnode);
  }

  /** True when a page that this thread holds is neither modified nor being written back. */
  isClean(frame: FrameIndex): boolean {
    return this.#dirty.isClean(frame);
  }

  /**
   * The frame of a valid page, now held shared by this thread, or -1. Takes no lock and never waits, but for the lock of the
   * cache list when the page is on it: once for each time that it was put there.
   */
  hold(vnode: VnodeIndex, index: number): FrameIndex {
    return this.#lookup.hold(vnode, index);
  }

  /** The frame of a page that is in memory, now held exclusively; see `PageLookup.holdExclusive`. */
  holdExclusive(vnode: VnodeIndex, index: number, timeoutMs?: number): FrameIndex {
    return this.#lookup.holdExclusive(vnode, index, timeoutMs);
  }

  /** Holds pages from `index` on, like `hold`, up to the first that is not there; their frames go to `out`. Returns how many. */
  holdSeveral(vnode: VnodeIndex, index: number, count: number, out: Int32Array): number {
    return this.#lookup.holdSeveral(vnode, index, count, out);
  }

  /** Gives one hold of each of several pages back. */
  releaseSeveral(frames: Int32Array, count: number): void {
    const { holds } = this;
    for (let lane = 0; lane < count; lane++) holds.release(frames[lane] as number);
  }

  /** True when a page seems to be in memory, or on its way: a look without a lock. */
  seems(vnode: VnodeIndex, index: number): boolean {
    return this.#lookup.seems(vnode, index);
  }

  /** The first of the pages from `index` up to `end` that seems to be in memory, or on its way; `end` if none does. */
  firstSeeming(vnode: VnodeIndex, index: number, end: number): number {
    return this.#lookup.firstSeeming(vnode, index, end);
  }

  /** Like `seems`, under the lock of the page's stripe: no page that is there is missed. */
  isThere(vnode: VnodeIndex, index: number): boolean {
    return this.#lookup.isThere(vnode, index);
  }

  /** Throws the `ENOMEM` of who could not get pages for as long as a fetch waits, in the name of `call`. */
  failShort(call: string, values: Readonly<Record<string, number>>): never {
    return this.#fetches.failShort(call, values);
  }

  /** Gives one hold of a page back. */
  release(frame: FrameIndex): void {
    this.holds.release(frame);
  }

  /**
   * Holds `count` pages (at most 32) from `index` on, bringing those that are missing; their frames go into `out` from
   * lane `at`. With `whole` it waits until all can be held at once; else it may return fewer, at least one. Up to `ahead`
   * pages behind them are brought with the last ones that are missing, and not held: `count + ahead` is 32 at most, and `out`
   * has room for them. Throws what the store throws, `ENOMEM` when pinned pages leave no frame for 10 seconds; then it holds
   * none of them.
   */
  fetch(
    vnode: VnodeIndex,
    index: number,
    count: number,
    out: Int32Array,
    at: number,
    store: PageStore,
    whole: boolean,
    ahead = 0,
  ): number {
    return this.#fetches.run({ vnode, index, count, ahead, out, at, store, source: store, modified: false }, whole);
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
    return this.#fetches.run(
      { vnode, index, count, ahead: 0, out, at, store, source, modified: source !== null },
      true,
    );
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
    this.#beforeWriteBack(vnode, first, count);
    return this.#writer.range(vnode, first, count, store, true);
  }

  /** Like `writeBack`, of what is marked as modified already, and without waiting for cuts: for callers that hold the vnode, above which pins are found. */
  writeMarked(vnode: VnodeIndex, first: number, count: number, store: PageStore): number {
    return this.#writer.range(vnode, first, count, store, false);
  }

  /** Waits for those who are writing pages of a vnode from index `first` on back now; not for who begins later. */
  awaitWriters(vnode: VnodeIndex, first: number): void {
    this.#writer.awaitWriters(vnode, first);
  }

  /**
   * Like `writeMarked`, of the page in a frame and the next ones of its vnode, `count` in all. True when something was written: as
   * it was a moment ago, the frame may have another page by now.
   */
  writeBackFrame(frame: FrameIndex, count: number, store: PageStore): boolean {
    const vnode = this.#page.vnode.get(frame) - 1;
    const index = this.#page.index.get(frame);
    return vnode >= 0 && this.writeMarked(vnode, index, count, store) > 0;
  }

  /** Writes back up to `max` pages that were modified first, without waiting for pages; returns how many were written. */
  writeOldest(max: number, store: PageStore): number {
    return this.#writer.someOldest(max, store);
  }

  /** Like `writeOldest`, of one vnode only. */
  writeOldestOf(vnode: VnodeIndex, max: number, store: PageStore): number {
    return this.#writer.oldestOf(vnode, max, store);
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
    const stayed = this.#drops.range(vnode, 0, pageCount, false);
    this.#dirty.noteChange(vnode);
    return stayed;
  }

  /**
   * Drops the pages of a vnode from index `first` up to `end`, modified ones too: what they hold is given up. Returns how
   * many were in use and stayed as they are.
   */
  invalidate(vnode: VnodeIndex, first: number, end: number = Number.POSITIVE_INFINITY): number {
    const stayed = this.#drops.range(vnode, first, end, true);
    this.#dirty.noteChange(vnode);
    return stayed;
  }

  /**
   * Gives up what the modified pages of a vnode hold that have frames from index `first` up to `end`. Returns the indices of
   * those that were dropped; what somebody holds, or writes back, stays as it is.
   */
  discard(vnode: VnodeIndex, first: number, end: number): number[] {
    const discards = () => this.#counters[PAGE_COUNTER.discards] as number;
    const dropped = this.#dirty.indices(vnode, first, end).filter((index) => {
      const before = discards();
      this.#drops.range(vnode, index, index + 1, true);
      return discards() > before;
    });
    this.#dirty.noteChange(vnode);
    return dropped;
  }

  /**
   * Says that clean pages will not be needed soon: those that nobody holds go to the cache list, whose frames are taken
   * first. Until then a look-up finds them. Returns how many pages went there.
   */
  retire(vnode: VnodeIndex, first: number, count: number): number {
    return this.#drops.retire(vnode, first, count);
  }

  /** Pages on the cache list. */
  get cached(): number {
    return this.#cache.count;
  }

  reclaim(frame: FrameIndex, use: number): boolean {
    if (this.#cache.has(frame)) {
      if (!this.holds.tryExclusive(frame)) return false;
      // From here on it is like any other.
      this.#cache.remove(frame);
      this.holds.releaseExclusive(frame);
    }
    if (!this.#replacement.evict(frame)) return false;
    this.#tally(PAGE_COUNTER.evictions, 1);
    this.#frames.convert(frame, FRAME_USE.page, use, this.#page.state, PAGE_STATE.empty);
    this.holds.releaseExclusive(frame);
    return true;
  }

  /** Slots that hold a page, or have it pinned: what keeps it in its frame. */
  holders(frame: FrameIndex): SlotIndex[] {
    return [...new Set([...this.holds.holders(frame), ...this.#pinners(frame)])];
  }

  /** Who says, for messages, which slots have pinned a page whose lock belongs to no thread. */
  setPinners(pinners: (frame: FrameIndex) => readonly SlotIndex[]): void {
    this.#pinners = pinners;
  }

  /**
   * Who marks the pages of a vnode as modified, before a range is written back, into which bytes may be stored at any time
   * without anybody saying so: those that are pinned for writing.
   */
  setBeforeWriteBack(marks: (vnode: VnodeIndex, first: number, count: number) => void): void {
    this.#beforeWriteBack = marks;
  }

  /** Who knows which modified pages of a vnode its store has room for: when frames are short, no others are tried. */
  setTakes(vnode: VnodeIndex, takes: (index: number) => boolean): void {
    this.#writer.setTakes(vnode, takes);
  }

  relocate(frame: FrameIndex, use: number): boolean {
    return this.#moves.relocate(frame, use);
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

  #tally(lane: number, amount: number): void {
    this.#counters[lane] = (this.#counters[lane] as number) + amount;
  }
}
