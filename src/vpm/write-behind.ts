/**
 * Write-behind: who modifies pages faster than they are written back does some of the writing.
 *
 * PROBLEM     Without a limit, writers fill memory with modified pages: a sync then takes as long as all of them, everybody who
 *             needs a frame must write first, and a crash loses more.
 * STRUCTURE   Two limits, in frames: one for each vnode that was opened with one, one for the system. Behind each piece that a
 *             thread has written:
 *
 *               modified, up to here nobody is held up                 limit
 *               |---------------------------------------------------------|--- the writer: 1 pages of this vnode that were
 *                                                                                 modified first, adjacent ones in one call
 *                                                                               2 none: those of other vnodes
 *                                                                               3 none: waits a moment, `ROUNDS_MAX` times
 *
 * INVARIANTS  I1 a writer is held up for a bounded time: the pages that stay, such as those ahead of their log, are no reason
 *             to fail or to hang.
 * LOCKING     The vnode's lock, as the writer has it; no page is held while pages are written back.
 * COSTS       Below the limit: a load for the vnode's, and every 16 frames a sum of 64 counters for the system's.
 * FAILURE     None: what the store refuses stays modified, is noted for all openers, and the next sync says it.
 * REJECTED    A thread that writes behind all others: a writer that is held up by its own writing stops at the speed of the
 *             store, one that is not fills memory in the meantime. What leaves room for all is written by the pagedaemon.
 *             Counting anonymous memory: it has no file, and goes to swap when frames are short, not before.
 * REFERENCES  illumos ufs write throttle; Linux balance_dirty_pages.
 */

import type { BoundTables } from '../layout/region.ts';
import { countersOf, PAGE_COUNTER } from '../page/page-counters.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import type { Pages } from '../page/pages.ts';
import { load } from '../sync/atomics.ts';
import { sleepOn } from '../sync/sleep.ts';
import type { Thread } from '../sync/thread.ts';
import type { Vnodes } from '../vnode/vnodes.ts';

/** Pages written back at a time. */
const BATCH_PAGES = 64;

/** Frames that a thread writes between two looks at the system's limit. */
const LOOK_FRAMES = 16;

/** Times that a writer writes back, or waits, for one piece. */
const ROUNDS_MAX = 8;

const PAUSE_MS = 1;

/** Pieces that are not held up after the limit could not be kept. */
const REST_PIECES = 64;

/** The limits as one thread keeps them. */
export class WriteBehind {
  readonly #thread: Thread;
  readonly #pages: Pages;
  readonly #vnodes: Vnodes;
  readonly #vnode: BoundTables['vnode'];
  readonly #counters: Float64Array;
  readonly #systemMax: number;
  #unseen = 0;
  #rest = 0;

  constructor(thread: Thread, pages: Pages, vnodes: Vnodes) {
    this.#thread = thread;
    this.#pages = pages;
    this.#vnodes = vnodes;
    this.#vnode = thread.region.tables.vnode;
    this.#counters = countersOf(thread);
    this.#systemMax = thread.region.tables.pageClock.modifiedMax.get(0);
  }

  /** Called after `frames` frames of a vnode were modified; holds the caller up while there are too many. */
  after(vnode: VnodeIndex, frames: number): void {
    this.#unseen += frames;
    if (this.#vnode.modifiedMax.get(vnode) === 0 && this.#unseen < LOOK_FRAMES) return;
    const isOver = this.isOver(vnode);
    this.#unseen = 0;
    if (!isOver) return;
    if (this.#rest > 0) this.#rest--;
    else this.#holdUp(vnode);
  }

  /** True while more is modified than the limits of a vnode and of the system allow. */
  isOver(vnode: VnodeIndex): boolean {
    const max = this.#vnode.modifiedMax.get(vnode);
    if (max > 0 && this.#framesOf(vnode) > max) return true;
    return this.#systemMax > 0 && this.#pages.modified - this.#anonymous > this.#systemMax;
  }

  /** Writes back what is too much, for somebody who cannot be held up. */
  keep(vnode: VnodeIndex): void {
    if (this.isOver(vnode)) this.#holdUp(vnode);
  }

  #holdUp(vnode: VnodeIndex): void {
    const before = this.#pages.writtenHere;
    let isOver = true;
    for (let round = 0; isOver && round < ROUNDS_MAX; round++) {
      // 1-2.
      const written =
        this.#pages.writeOldestOf(vnode, BATCH_PAGES, this.#vnodes) ||
        (this.#framesOf(vnode) <= this.#vnode.modifiedMax.get(vnode) || this.#vnode.modifiedMax.get(vnode) === 0
          ? this.#pages.writeOldest(BATCH_PAGES, this.#vnodes)
          : 0);
      // 3.
      if (written === 0) this.#pause();
      isOver = this.isOver(vnode);
    }
    if (isOver) this.#rest = REST_PIECES;
    const lane = PAGE_COUNTER.behindPages;
    this.#counters[lane] = (this.#counters[lane] as number) + this.#pages.writtenHere - before;
  }

  /** Modified frames of a vnode. */
  #framesOf(vnode: VnodeIndex): number {
    return this.#pages.modifiedOf(vnode) << this.#vnode.pageShift.get(vnode);
  }

  /** Modified pages of anonymous memory: its vnodes are the last ones. */
  get #anonymous(): number {
    const { vnodePool } = this.#thread.region.tables;
    let sum = 0;
    for (let row = this.#vnode.rowCount - vnodePool.reserved.get(0); row < this.#vnode.rowCount; row++) {
      sum += this.#pages.modifiedOf(row);
    }
    return sum;
  }

  /** Others are writing the pages back, or nobody can: lets them run for a moment. */
  #pause(): void {
    const { hand } = this.#thread.region.tables.pageClock;
    const address = hand.address(0);
    sleepOn(this.#thread, address, load(this.#thread.words, address), PAUSE_MS);
    this.#thread.clearWait();
  }
}
