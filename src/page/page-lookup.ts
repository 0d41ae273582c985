/**
 * Looking pages up: the hit.
 *
 * PROBLEM     Most reads find their page in memory, in all threads at once: that must cost no lock.
 * STRUCTURE   See pages.ts for the steps of a hit and for why they are right.
 * INVARIANTS  Those of pages.ts.
 * LOCKING     A hit of a page on the cache list takes that list's mutex, once for each time that the page was put there.
 * COSTS       A hit: the bucket, half a cache line per frame in the chain, two atomic operations, about 60 ns.
 * FAILURE     -1.
 * REJECTED    Leaving pages that were looked up on the cache list until a frame is needed: the list would say nothing.
 * REFERENCES  illumos page_lookup, page_reclaim.
 */

import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import type { FrameIndex } from '../phys/banks.ts';
import { FOREVER } from '../sync/atomics.ts';
import { faultPoint } from '../sync/fault.ts';
import type { Thread } from '../sync/thread.ts';
import type { CacheList } from './cache-list.ts';
import { countersOf, PAGE_COUNTER } from './page-counters.ts';
import { PAGE_STATE, type PageHash, type VnodeIndex } from './page-hash.ts';
import type { PageHolds } from './page-holds.ts';
import type { PageParts } from './page-parts.ts';
import type { Replacement } from './replacement.ts';

/** Looks pages up for one thread. */
export class PageLookup {
  readonly #thread: Thread;
  readonly #page: BoundTables['page'];
  readonly #hash: PageHash;
  readonly #holds: PageHolds;
  readonly #cache: CacheList;
  readonly #markMax: number;
  readonly #counters: Float64Array;

  constructor(parts: PageParts, replacement: Replacement) {
    this.#thread = parts.thread;
    this.#holds = parts.holds;
    this.#hash = parts.hash;
    this.#cache = parts.cache;
    this.#markMax = replacement.markMax;
    this.#page = parts.thread.region.tables.page;
    this.#counters = countersOf(parts.thread);
  }

  /**
   * The frame of a valid page, now held shared by this thread, or -1. Takes no lock and never waits, but for the lock of the
   * cache list when the page is on it: once for each time that it was put there.
   */
  hold(vnode: VnodeIndex, index: number): FrameIndex {
    // 1.
    const frame = this.#hash.find(vnode, index);
    if (frame < 0) return -1;
    // 2.
    if (!this.#holds.tryShared(frame)) return -1;
    if (VERIFY) faultPoint(this.#thread, 'page.hit.held');
    // 3.
    if (!this.#holds.hasPage(frame, vnode, index)) {
      this.#holds.release(frame);
      return -1;
    }
    const page = this.#page;
    if (page.state.get(frame) === PAGE_STATE.cached) this.#uncache(frame);
    const mark = page.referenced.get(frame);
    if (mark < this.#markMax) page.referenced.put(frame, mark + 1);
    this.#tally(PAGE_COUNTER.hits, 1);
    return frame;
  }

  /** Holds pages from `index` on, like `hold`, up to the first that is not there; their frames go to `out`. Returns how many. */
  holdSeveral(vnode: VnodeIndex, index: number, count: number, out: Int32Array): number {
    const hash = this.#hash;
    const holds = this.#holds;
    const { state, referenced } = this.#page;
    let held = 0;
    for (; held < count; held++) {
      const frame = hash.find(vnode, index + held);
      if (frame < 0 || !holds.tryShared(frame)) break;
      if (VERIFY) faultPoint(this.#thread, 'page.hit.held');
      if (!holds.hasPage(frame, vnode, index + held)) {
        holds.release(frame);
        break;
      }
      if (state.get(frame) === PAGE_STATE.cached) this.#uncache(frame);
      const mark = referenced.get(frame);
      if (mark < this.#markMax) referenced.put(frame, mark + 1);
      out[held] = frame;
    }
    if (held > 0) this.#tally(PAGE_COUNTER.hits, held);
    return held;
  }

  /** True when a page seems to be in memory, or on its way: a look without a lock. */
  seems(vnode: VnodeIndex, index: number): boolean {
    return this.#hash.find(vnode, index) >= 0;
  }

  /** The first of the pages from `index` up to `end` that seems to be in memory, or on its way; `end` if none does. */
  firstSeeming(vnode: VnodeIndex, index: number, end: number): number {
    return this.#hash.findFirst(vnode, index, end);
  }

  /** Like `seems`, under the lock of the page's stripe: no page that is there is missed. */
  isThere(vnode: VnodeIndex, index: number): boolean {
    return this.#hash.findCertain(vnode, index) >= 0;
  }

  /**
   * The frame of a page that is in memory, now held exclusively by this thread, which must not hold it shared; -1 when it is
   * not in memory, or `timeoutMs` ran out. Give it back with `holds.releaseExclusive`, or turn it into a shared hold with
   * `holds.downgrade`. Hold one page exclusively at a time, and wait for no other meanwhile.
   */
  holdExclusive(vnode: VnodeIndex, index: number, timeoutMs: number = FOREVER): FrameIndex {
    for (;;) {
      const frame = this.#hash.findCertain(vnode, index);
      if (frame < 0 || !this.#holds.exclusive(frame, timeoutMs)) return -1;
      if (this.#holds.hasPage(frame, vnode, index)) {
        this.#uncache(frame);
        return frame;
      }
      this.#holds.releaseExclusive(frame);
    }
  }

  /** Holds a page shared whose frame somebody else has, sleeping until that one lets go; false when it has left. */
  holdMet(frame: FrameIndex, vnode: VnodeIndex, index: number): boolean {
    this.#tally(PAGE_COUNTER.waits, 1);
    if (!this.#holds.page(frame, vnode, index)) return false;
    this.#uncache(frame);
    return true;
  }

  /** Takes a page that was looked up off the cache list. */
  #uncache(frame: FrameIndex): void {
    if (this.#cache.remove(frame)) this.#tally(PAGE_COUNTER.reclaimed, 1);
  }

  #tally(lane: number, amount: number): void {
    this.#counters[lane] = (this.#counters[lane] as number) + amount;
  }
}
