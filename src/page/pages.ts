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

import { fail } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import type { FrameIndex } from '../phys/banks.ts';
import { FRAME_USE, type FrameReclaimer, type Frames } from '../phys/frames.ts';
import { faultPoint } from '../sync/fault.ts';
import { mutexEnterWithin, mutexExit } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import type { Thread } from '../sync/thread.ts';
import { countersOf, PAGE_COUNTER } from './page-counters.ts';
import { PAGE_STATE, PageHash, type VnodeIndex } from './page-hash.ts';
import { PageHolds } from './page-holds.ts';
import { ReplacementClock } from './replacement.ts';

/** Most pages of one fetch. */
export const FETCH_PAGES_MAX = 32;

/** How long a fetch waits for pinned pages before it throws `ENOMEM`. */
const SHORTAGE_MS = 10_000;

/** How long a fetch waits for one pinned page before it tries the next. */
const VICTIM_MS = 20;

/** Brings the bytes of pages: declared here, implemented by the vnodes. */
export interface PageStore {
  /**
   * Writes pages `index` to `index + count - 1` of a vnode into the frames in lanes `at` to `at + count - 1`, all of
   * their bytes, zeros behind the end of the vnode. Returns the bytes that came from the store; throws when any is
   * missing, and then nothing that it wrote will be seen.
   */
  fill(vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): number;
}

/** The pages as one thread sees them. */
export class Pages implements FrameReclaimer {
  readonly #thread: Thread;
  readonly #frames: Frames;
  readonly #page: BoundTables['page'];
  readonly #hash: PageHash;
  readonly #holds: PageHolds;
  readonly #clock: ReplacementClock;
  readonly #counters: Float64Array;
  /** An empty frame, exclusively held, that a wait for pinned pages has gained. */
  #spare: FrameIndex = -1;

  constructor(thread: Thread, frames: Frames) {
    this.#thread = thread;
    this.#frames = frames;
    this.#page = thread.region.tables.page;
    this.#hash = new PageHash(thread);
    this.#holds = new PageHolds(thread);
    this.#clock = new ReplacementClock(thread, this.#hash, this.#holds);
    this.#counters = countersOf(thread);
    frames.setReclaimer(this);
  }

  /** Pages that this thread holds. */
  get held(): number {
    return this.#holds.pages;
  }

  /** The frame of a valid page, now held shared by this thread, or -1. Takes no lock and never waits. */
  hold(vnode: VnodeIndex, index: number): FrameIndex {
    // 1.
    const frame = this.#hash.find(vnode, index);
    if (frame < 0) return -1;
    // 2.
    if (!this.#holds.tryShared(frame)) return -1;
    if (VERIFY) faultPoint(this.#thread, 'page.hit.held');
    // 3.
    if (!this.#isValid(frame, vnode, index)) {
      this.#holds.release(frame);
      return -1;
    }
    const page = this.#page;
    if (page.referenced.get(frame) === 0) page.referenced.put(frame, 1);
    this.#tally(PAGE_COUNTER.hits, 1);
    return frame;
  }

  /** Gives one hold of a page back. */
  release(frame: FrameIndex): void {
    this.#holds.release(frame);
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
    const done = this.#fetchSome(vnode, index, count, out, at, store, 0);
    if (done === count || (done > 0 && !whole)) return done;
    this.#releaseSeveral(out, at, done);
    this.#frames.press();
    return this.#fetchShort(vnode, index, count, out, at, store, whole);
  }

  /** Drops the pages of a vnode below index `pageCount`; returns how many were in use and stayed. */
  drop(vnode: VnodeIndex, pageCount: number): number {
    const { frames } = this.#thread.region.geometry;
    let busy = 0;
    if (pageCount <= frames) {
      for (let index = 0; index < pageCount; index++) {
        const frame = this.#hash.findCertain(vnode, index);
        if (frame >= 0 && !this.#dropFrame(frame, vnode)) busy++;
      }
    } else {
      for (let frame = 0; frame < frames; frame++) {
        if (this.#page.vnode.get(frame) === vnode + 1 && !this.#dropFrame(frame, vnode)) busy++;
      }
    }
    return busy;
  }

  reclaim(frame: FrameIndex, use: number): boolean {
    if (!this.#clock.evict(frame)) return false;
    this.#tally(PAGE_COUNTER.evictions, 1);
    this.#frames.convert(frame, FRAME_USE.page, use, this.#page.state, PAGE_STATE.empty);
    this.#holds.releaseExclusive(frame);
    return true;
  }

  /** Fetches from lane `at + done` on until all are held or no frame can be had; on an error all are released. */
  #fetchSome(
    vnode: VnodeIndex,
    index: number,
    count: number,
    out: Int32Array,
    at: number,
    store: PageStore,
    done: number,
  ): number {
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
            this.#fill(vnode, index + held, out, at + held, claimed, store);
            held += claimed;
            continue;
          }
          met = -1 - claimed;
        }
        if (this.#holdMet(met, vnode, index + held)) out[at + held++] = met;
      }
    } catch (error) {
      this.#releaseSeveral(out, at, held);
      throw error;
    }
    return held;
  }

  /** Waits until nobody holds the frame exclusively; true when it then holds the page, and this thread holds it. */
  #holdMet(frame: FrameIndex, vnode: VnodeIndex, index: number): boolean {
    this.#tally(PAGE_COUNTER.waits, 1);
    this.#holds.shared(frame);
    if (this.#isValid(frame, vnode, index)) return true;
    this.#holds.release(frame);
    return false;
  }

  /**
   * Claims the page at `index` and those behind it that are missing too: frames with their identities, filling and
   * exclusively held. Returns how many; 0 when no frame could be had; -1 - frame when another frame has the first.
   */
  #claim(vnode: VnodeIndex, index: number, max: number, out: Int32Array, at: number): number {
    let wanted = 1;
    while (wanted < max && this.#hash.find(vnode, index + wanted) < 0) wanted++;
    const taken = this.#takeFrames(wanted, out, at);
    for (let claimed = 0; claimed < taken; claimed++) {
      const other = this.#hash.insert(out[at + claimed] as number, vnode, index + claimed);
      if (other < 0) continue;
      for (let unused = claimed; unused < taken; unused++) this.#giveEmpty(out[at + unused] as number);
      return claimed > 0 ? claimed : -1 - other;
    }
    if (VERIFY) faultPoint(this.#thread, 'page.fill.claimed');
    return taken;
  }

  /** Takes up to `count` empty frames, exclusively held: free ones first, then those of pages that leave. */
  #takeFrames(count: number, out: Int32Array, at: number): number {
    let taken = 0;
    if (this.#spare >= 0) {
      out[at + taken++] = this.#spare;
      this.#spare = -1;
    }
    const free = this.#frames.tryTakeSeveral(FRAME_USE.page, count - taken, out, at + taken);
    // A passer-by that walked an old chain may have its bit in a free frame for a moment: wait for it.
    for (const end = taken + free; taken < end; taken++) this.#holds.exclusive(out[at + taken] as number);
    for (; taken < count; taken++) {
      const frame = this.#clock.evictNext();
      if (frame < 0) break;
      this.#tally(PAGE_COUNTER.evictions, 1);
      out[at + taken] = frame;
    }
    return taken;
  }

  #fill(vnode: VnodeIndex, index: number, out: Int32Array, at: number, count: number, store: PageStore): void {
    try {
      if (VERIFY && faultPoint(this.#thread, 'page.fill.reading')) {
        fail('EIO', 'pages.fetch', { vnode, index, count }, 'injected');
      }
      const readBytes = store.fill(vnode, index, out, at, count);
      if (VERIFY) faultPoint(this.#thread, 'page.fill.read');
      this.#tally(PAGE_COUNTER.misses, count);
      this.#tally(PAGE_COUNTER.reads, 1);
      this.#tally(PAGE_COUNTER.readBytes, readBytes);
    } catch (error) {
      this.#tally(PAGE_COUNTER.failures, 1);
      for (let lane = at; lane < at + count; lane++) {
        this.#hash.remove(out[lane] as number);
        this.#giveEmpty(out[lane] as number);
      }
      throw error;
    }
    const page = this.#page;
    for (let lane = at; lane < at + count; lane++) {
      const frame = out[lane] as number;
      page.state.put(frame, PAGE_STATE.valid);
      page.referenced.put(frame, 1);
      this.#holds.downgrade(frame);
    }
  }

  /** Frees an empty frame that this thread holds exclusively. Another may take it at once, and then waits for the lock. */
  #giveEmpty(frame: FrameIndex): void {
    this.#frames.give(frame, FRAME_USE.page, this.#page.state, PAGE_STATE.empty);
    this.#holds.releaseExclusive(frame);
  }

  #dropFrame(frame: FrameIndex, vnode: VnodeIndex): boolean {
    if (!this.#holds.tryExclusive(frame)) return false;
    if (this.#page.vnode.get(frame) !== vnode + 1) {
      this.#holds.releaseExclusive(frame);
      return true;
    }
    this.#hash.remove(frame);
    if (VERIFY) faultPoint(this.#thread, 'page.drop.unhashed');
    this.#giveEmpty(frame);
    this.#tally(PAGE_COUNTER.drops, 1);
    return true;
  }

  /**
   * Fetches although pinned pages leave no frame. Only one thread at a time keeps what it has while it waits, so that two
   * that need most of the memory cannot block each other.
   */
  #fetchShort(
    vnode: VnodeIndex,
    index: number,
    count: number,
    out: Int32Array,
    at: number,
    store: PageStore,
    whole: boolean,
  ): number {
    const thread = this.#thread;
    const shortage = thread.region.tables.pageClock.shortage.address(0);
    this.#tally(PAGE_COUNTER.shortages, 1);
    const deadline = thread.clock.now() + SHORTAGE_MS;
    if (!mutexEnterWithin(thread, shortage, RANK.pageShortage, SHORTAGE_MS)) return this.#failShort(vnode, count);
    try {
      for (let done = 0; ; ) {
        done = this.#fetchSome(vnode, index, count, out, at, store, done);
        if (done === count || (done > 0 && !whole)) return done;
        if (this.#waitForFrame(deadline)) continue;
        this.#releaseSeveral(out, at, done);
        return this.#failShort(vnode, count);
      }
    } finally {
      if (this.#spare >= 0) this.#giveEmpty(this.#spare);
      this.#spare = -1;
      mutexExit(thread, shortage);
    }
  }

  /** Waits for some pinned page to be released and evicts it; false when none can be, or time ran out. */
  #waitForFrame(deadline: number): boolean {
    const { frames } = this.#thread.region.geometry;
    for (;;) {
      let candidates = 0;
      let waited = false;
      for (let steps = frames; steps > 0; steps--) {
        const frame = this.#clock.advance();
        const use = this.#frames.useOf(frame);
        if (use === FRAME_USE.free) return true;
        // A frame without an identity is in the hands of somebody who is about to fill it or to give it back.
        if (use !== FRAME_USE.page || this.#holds.holds(frame)) continue;
        candidates++;
        if (!this.#holds.exclusive(frame, VICTIM_MS)) waited = true;
        else if (this.#clock.evictHeld(frame)) {
          this.#tally(PAGE_COUNTER.evictions, 1);
          this.#spare = frame;
          return true;
        }
        if (this.#thread.clock.now() >= deadline) return false;
      }
      if (candidates === 0) return false;
      if (!waited) this.#clock.pause();
    }
  }

  #failShort(vnode: VnodeIndex, count: number): never {
    const { total, free, page } = this.#frames.counts();
    const rule = 'pinned pages leave no frame; release mappings or boot with more memory';
    fail('ENOMEM', 'pages.fetch', { vnode, count, total, free, page, pinnedHere: this.held }, rule);
  }

  #releaseSeveral(out: Int32Array, at: number, count: number): void {
    for (let lane = at; lane < at + count; lane++) this.#holds.release(out[lane] as number);
  }

  #isValid(frame: FrameIndex, vnode: VnodeIndex, index: number): boolean {
    const page = this.#page;
    return (
      page.vnode.get(frame) === vnode + 1 &&
      page.index.get(frame) === index &&
      page.state.get(frame) === PAGE_STATE.valid
    );
  }

  #tally(lane: number, amount: number): void {
    this.#counters[lane] = (this.#counters[lane] as number) + amount;
  }
}
