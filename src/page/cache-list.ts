/**
 * The cache list: pages that are not needed any more, kept until their frames are.
 *
 * PROBLEM     Who has read a page and will not come back knows more than any replacement policy. Its frame should be taken
 *             first; but whoever looks for the page before that must still find it.
 * STRUCTURE   A list of clean pages that nobody holds, with their identities; state `cached` says that a page is on it.
 *
 *               valid --retire--> cached --take, oldest first--> in hand
 *                 ^                  |
 *                 '--- look-up ------'    the holder takes it off: reclaimed
 *
 *             Frames are taken from here before the replacement policy is asked.
 * INVARIANTS  I1 a page is on the list iff its state is cached.   I2 a page on the list is clean.
 *             I3 who has looked a page up holds it in state valid.
 * LOCKING     Page lock before the list's mutex. A page comes onto the list under its exclusive lock and leaves it under any
 *             hold; state and links change together, under the mutex, journaled.
 * COSTS       A hit of a page that is not on the list pays nothing: it has looked at the state anyway. Reclaiming: a lock
 *             pair and eight stores. Taking: a lock pair more than an eviction.
 * FAILURE     -1 when the list is empty, or all of its first pages are held by somebody at this moment.
 * REJECTED    Freeing the frames: a look-up could not bring them back. A mark that makes the policy take a page earlier: it
 *             would have to look at all frames to find it.
 * REFERENCES  illumos page_list_add (PG_CACHE_LIST), page_reclaim, page_get_cachelist.
 */

import { VERIFY } from '../base/verify.ts';
import type { WordAddress } from '../layout/column.ts';
import type { BoundTables } from '../layout/region.ts';
import type { FrameIndex } from '../phys/banks.ts';
import { faultPoint } from '../sync/fault.ts';
import { mutexEnter, mutexExit } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import type { Thread } from '../sync/thread.ts';
import { PAGE_STATE } from './page-hash.ts';
import type { PageHolds } from './page-holds.ts';
import { PAGE_UNLINKED, PageList } from './page-list.ts';

/** The one row of the anchors. */
const ROW = 0;

/** Pages from the head that `take` looks at before it leaves the rest to the replacement policy. */
const LOOKS_MAX = 8;

/** The cache list as one thread sees it. */
export class CacheList {
  readonly #thread: Thread;
  readonly #page: BoundTables['page'];
  readonly #holds: PageHolds;
  readonly #lock: WordAddress;
  readonly #list: PageList;

  constructor(thread: Thread, holds: PageHolds) {
    const { tables } = thread.region;
    this.#thread = thread;
    this.#page = tables.page;
    this.#holds = holds;
    this.#lock = tables.pageCacheList.lock.address(ROW);
    this.#list = new PageList(thread, tables.pageCacheList);
  }

  /** Pages on the list. */
  get count(): number {
    return this.#list.count(ROW);
  }

  /** True for a page that is on the list. */
  has(frame: FrameIndex): boolean {
    return this.#page.state.get(frame) === PAGE_STATE.cached;
  }

  /** Puts a clean page at the end. The caller holds it exclusively. */
  add(frame: FrameIndex): void {
    mutexEnter(this.#thread, this.#lock, RANK.pageCacheList);
    this.#list.insert(ROW, frame);
    if (VERIFY) faultPoint(this.#thread, 'page.cache.listed');
    this.#thread.journal.set(this.#page.state, frame, PAGE_STATE.cached);
    mutexExit(this.#thread, this.#lock);
  }

  /** Takes a page off, if it is there: it is valid again. The caller holds it in any way. True when it was there. */
  remove(frame: FrameIndex): boolean {
    if (!this.has(frame)) return false;
    mutexEnter(this.#thread, this.#lock, RANK.pageCacheList);
    const had = this.has(frame);
    if (had) {
      this.#list.remove(ROW, frame, PAGE_UNLINKED.plain);
      if (VERIFY) faultPoint(this.#thread, 'page.cache.unlisted');
      this.#thread.journal.set(this.#page.state, frame, PAGE_STATE.valid);
    }
    mutexExit(this.#thread, this.#lock);
    return had;
  }

  /** Enters the list's mutex, for `move`; returns what `mutexExit` needs. */
  enter(): WordAddress {
    mutexEnter(this.#thread, this.#lock, RANK.pageCacheList);
    return this.#lock;
  }

  /** A page on the list goes to another frame and keeps its place; logs only. The caller holds both frames exclusively. */
  move(from: FrameIndex, to: FrameIndex): void {
    this.#list.replace(ROW, from, to);
  }

  /** A page that was on the list longest, now valid and held exclusively; -1 when none can be had at once. */
  take(): FrameIndex {
    if (this.count === 0) return -1;
    for (const frame of this.#firstFew()) {
      if (!this.#holds.tryExclusive(frame)) continue;
      if (this.remove(frame)) return frame;
      this.#holds.releaseExclusive(frame);
    }
    return -1;
  }

  /** Broken invariants, at quiet points. */
  problems(): string[] {
    const { frames, problems } = this.#list.walk(ROW);
    const listed = new Set(frames);
    for (let frame = 0; frame < this.#page.rowCount; frame++) {
      if (this.has(frame) !== listed.has(frame)) {
        problems.push(`page/cache-list I1: frame ${frame} has state ${this.#page.state.get(frame)}`);
      }
      if (listed.has(frame) && this.#page.modified.get(frame) !== 0) {
        problems.push(`page/cache-list I2: frame ${frame} is modified`);
      }
    }
    return problems;
  }

  #firstFew(): FrameIndex[] {
    const found: FrameIndex[] = [];
    mutexEnter(this.#thread, this.#lock, RANK.pageCacheList);
    for (let frame = this.#list.first(ROW); frame >= 0 && found.length < LOOKS_MAX; frame = this.#list.after(frame)) {
      found.push(frame);
    }
    mutexExit(this.#thread, this.#lock);
    return found;
  }
}
