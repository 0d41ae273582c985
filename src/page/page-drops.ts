/**
 * Dropping pages: those of a range of a vnode, clean ones only or with what they hold.
 *
 * PROBLEM     Pages of a vnode must go, all of them, while other threads use some and move others from frame to frame.
 * STRUCTURE   range   few indices: look each up, again until it is not there or stays; many: look at all frames
 *             one     1 take the page exclusively   2 compare the identity   3 forget that it was modified, out of the chain, free
 *
 * INVARIANTS  I1 a page that is in memory from the beginning of a call to its end is dropped or counted.
 *             I2 a page whose bytes are given up is in state filling before it is clean: a death drops it.
 * LOCKING     One page at a time, exclusively. Waits a little for who fills, evicts or moves a page, never for who holds it
 *             shared. The caller holds no page exclusively.
 * COSTS       A look-up under the stripe for each index, or a look at every frame of the memory.
 * FAILURE     Pages in use are counted.
 * REJECTED    A list of the pages of each vnode: two more links a page, changed by every miss.
 * REFERENCES  illumos pvn_vplist_dirty with B_INVAL.
 */

import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import type { FrameIndex } from '../phys/banks.ts';
import { faultPoint } from '../sync/fault.ts';
import type { Thread } from '../sync/thread.ts';
import type { CacheList } from './cache-list.ts';
import type { DirtyPages } from './dirty-pages.ts';
import type { FrameSupply } from './frame-supply.ts';
import type { LargePages } from './large-pages.ts';
import { countersOf, PAGE_COUNTER } from './page-counters.ts';
import { PAGE_STATE, type PageHash, type VnodeIndex } from './page-hash.ts';
import type { PageHolds } from './page-holds.ts';
import type { PageParts } from './page-parts.ts';
import type { PageShapes } from './page-shapes.ts';

/** How long a page is waited for that somebody fills, evicts or moves. */
const TAKE_MS = 20;

/** Times that all frames of a large page are tried. */
const TAKES_MAX = 4;

/** What became of a page. */
const OUTCOME = { dropped: 0, stays: 1, elsewhere: 2 } as const;

/** Drops pages for one thread. */
export class PageDrops {
  readonly #page: BoundTables['page'];
  readonly #thread: Thread;
  readonly #hash: PageHash;
  readonly #holds: PageHolds;
  readonly #dirty: DirtyPages;
  readonly #supply: FrameSupply;
  readonly #cache: CacheList;
  readonly #large: LargePages;
  readonly #shapes: PageShapes;
  readonly #counters: Float64Array;

  constructor(parts: PageParts, supply: FrameSupply) {
    this.#thread = parts.thread;
    this.#holds = parts.holds;
    this.#dirty = parts.dirty;
    this.#hash = parts.hash;
    this.#cache = parts.cache;
    this.#large = parts.large;
    this.#shapes = parts.shapes;
    this.#page = parts.thread.region.tables.page;
    this.#supply = supply;
    this.#counters = countersOf(parts.thread);
  }

  /**
   * Drops pages of a vnode from index `first` up to `end`, large ones whose heads lie there; returns how many stay, in use or
   * modified.
   */
  range(vnode: VnodeIndex, first: number, end: number, evenModified: boolean): number {
    const { frames } = this.#thread.region.geometry;
    if (end - first > frames) return this.#scan(vnode, first, end, evenModified);
    let stayed = 0;
    const size = this.#shapes.framesOf(vnode);
    for (let index = Math.ceil(first / size) * size; index < end; index += size) {
      // A page that moved to another frame meanwhile is looked for again.
      let outcome: number = OUTCOME.elsewhere;
      while (outcome === OUTCOME.elsewhere) {
        const frame = this.#hash.findCertain(vnode, index);
        outcome = frame < 0 ? OUTCOME.dropped : this.#one(frame, vnode, index, index + 1, evenModified);
      }
      if (outcome === OUTCOME.stays) stayed++;
    }
    return stayed;
  }

  /**
   * Looks at all frames; again if a page has begun to move meanwhile, since it may have moved to where this had looked. One
   * that was moving before is found: the frame that it moves to is held exclusively, and is waited for.
   */
  #scan(vnode: VnodeIndex, first: number, end: number, evenModified: boolean): number {
    const { frames } = this.#thread.region.geometry;
    for (;;) {
      const moves = this.#hash.moves;
      let stayed = 0;
      for (let frame = 0; frame < frames; frame++) {
        if (!this.#isIn(frame, vnode, first, end) && !this.#isComing(frame)) continue;
        if (this.#one(frame, vnode, first, end, evenModified) === OUTCOME.stays) stayed++;
      }
      if (this.#hash.moves === moves) return stayed;
    }
  }

  /**
   * Puts the clean pages of a range that nobody uses on the cache list, lower indices first; returns how many. Large pages
   * do not go there, nor does any where there are cached mappings.
   */
  retire(vnode: VnodeIndex, first: number, count: number): number {
    let retired = 0;
    // Cached mappings keep a list of clean pages of their own.
    const { state } = this.#thread.region.tables.mappingCache;
    if (this.#shapes.framesOf(vnode) > 1 || state.get(0) !== 0) return 0;
    for (let index = first; index < first + count; index++) {
      const frame = this.#hash.find(vnode, index);
      if (frame < 0 || this.#cache.has(frame) || !this.#holds.tryExclusive(frame)) continue;
      if (this.#holds.hasPage(frame, vnode, index) && !this.#cache.has(frame) && this.#dirty.isClean(frame)) {
        this.#cache.add(frame);
        retired++;
      }
      this.#holds.releaseExclusive(frame);
    }
    this.#tally(PAGE_COUNTER.retired, retired);
    return retired;
  }

  /** Frees the frame, or all frames from the head on, of a page that is held exclusively, whatever the page holds. */
  held(frame: FrameIndex): void {
    const size = this.#shapes.framesAt(frame);
    if (size > 1) {
      if (!this.#dirty.isClean(frame)) this.#tally(PAGE_COUNTER.discards, 1);
      this.#large.empty(frame);
      if (VERIFY) faultPoint(this.#thread, 'page.drop.unhashed');
      this.#large.give(frame, size);
      return;
    }
    this.#cache.remove(frame);
    // From here on it has no bytes: a death leaves nothing of it.
    this.#page.state.put(frame, PAGE_STATE.filling);
    if (!this.#dirty.isClean(frame)) {
      this.#dirty.discard(frame);
      this.#tally(PAGE_COUNTER.discards, 1);
    }
    this.#hash.remove(frame);
    if (VERIFY) faultPoint(this.#thread, 'page.drop.unhashed');
    this.#supply.giveEmpty(frame);
  }

  /** Drops one page: a value of `OUTCOME`. */
  #one(frame: FrameIndex, vnode: VnodeIndex, first: number, end: number, evenModified: boolean): number {
    if (!this.#take(frame)) return this.#isIn(frame, vnode, first, end) ? OUTCOME.stays : OUTCOME.elsewhere;
    const isIn = this.#isIn(frame, vnode, first, end);
    if (!isIn || (!evenModified && !this.#dirty.isClean(frame))) {
      this.#large.letGo(frame);
      return isIn ? OUTCOME.stays : OUTCOME.elsewhere;
    }
    this.#tally(PAGE_COUNTER.drops, 1);
    this.held(frame);
    return OUTCOME.dropped;
  }

  /**
   * Takes all frames of a page exclusively unless somebody reads or maps one; waits a little for who fills, evicts or moves
   * it, with none held meanwhile.
   */
  #take(frame: FrameIndex): boolean {
    if (!this.#takeOne(frame)) return false;
    for (let tries = TAKES_MAX; tries > 0; tries--) {
      const busy = this.#large.takeOthers(frame);
      if (busy < 0) return true;
      if (!this.#takeOne(busy)) return false;
      this.#holds.releaseExclusive(busy);
      if (!this.#takeOne(frame)) return false;
    }
    this.#holds.releaseExclusive(frame);
    return false;
  }

  #takeOne(frame: FrameIndex): boolean {
    if (this.#holds.tryExclusive(frame)) return true;
    return !this.#holds.isHeldShared(frame) && this.#holds.exclusive(frame, TAKE_MS);
  }

  /** True when a page may be about to move into the frame, which has none. */
  #isComing(frame: FrameIndex): boolean {
    return this.#page.vnode.get(frame) === 0 && this.#holds.isHeld(frame);
  }

  #isIn(frame: FrameIndex, vnode: VnodeIndex, first: number, end: number): boolean {
    const index = this.#page.index.get(frame);
    if (this.#page.vnode.get(frame) !== vnode + 1 || index < first || index >= end) return false;
    return (index & (this.#shapes.framesOf(vnode) - 1)) === 0;
  }

  #tally(lane: number, amount: number): void {
    this.#counters[lane] = (this.#counters[lane] as number) + amount;
  }
}
