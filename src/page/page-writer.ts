/**
 * Writing modified pages back to their store.
 *
 * PROBLEM     Adjacent pages must go back in one call; a sync must not return before bytes that another thread is writing have
 *             arrived; and a store that fails, or a thread that dies, must leave the pages modified.
 * STRUCTURE   A range          1 the indices of its modified pages, ascending   2 as many adjacent ones as there are, up to 32:
 *                              hold each shared, claim it   3 one call of the store   4 finish each: clean, or dirty as before
 *                              5 a page that another thread is writing: wait until it has, then look again
 *                              6 refused together: each alone, so that one bad block, or the last page of a full disk, keeps
 *                              no neighbour from being written
 *                              7 a store that has not answered in time: the others are not tried
 *                              8 pages that are about to be cut: wait until they were, or will not be, if asked to, and look again
 *             When frames are short: the pages of a vnode that were modified first, if they can be had at once, and if its
 *             store is not late with an earlier answer
 * INVARIANTS  I1 a page is clean only after the store took the bytes that it had when it was claimed.
 *             I2 no page is claimed by a thread that waits for another page.
 * LOCKING     Pages are held shared while they are written; none is held exclusively. No mutex is held.
 * COSTS       A claim is a look-up, a hold and a compare-and-swap; a list of the modified pages of the vnode is sorted.
 * FAILURE     The first error of the store is thrown after everything else was tried, but at once when it is `ETIMEDOUT`.
 * REJECTED    One call of the store for each page; stopping at the first error, which would keep whole files from being
 *             written because of one bad block.
 * REFERENCES  illumos pvn_vplist_dirty, pvn_write_kluster.
 */

import { fail, VmError } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { FrameIndex } from '../phys/banks.ts';
import { FOREVER } from '../sync/atomics.ts';
import { faultPoint } from '../sync/fault.ts';
import type { Thread } from '../sync/thread.ts';
import { CLAIM, type DirtyPages } from './dirty-pages.ts';
import { countersOf, PAGE_COUNTER } from './page-counters.ts';
import type { PageHash, VnodeIndex } from './page-hash.ts';
import type { PageHolds } from './page-holds.ts';
import type { PageShapes } from './page-shapes.ts';
import type { PageStore } from './page-store.ts';

/** Most pages of one call of the store. */
export const WRITE_PAGES_MAX = 32;

/** Pages that a store has refused. */
export interface WriteFailure {
  readonly vnode: VnodeIndex;
  /** The first of them. */
  readonly index: number;
  /** What the store threw. */
  readonly error: unknown;
}

/** Writes pages back for one thread. */
export class PageWriter {
  readonly #thread: Thread;
  readonly #hash: PageHash;
  readonly #holds: PageHolds;
  readonly #dirty: DirtyPages;
  readonly #shapes: PageShapes;
  readonly #counters: Float64Array;
  /** The vnode whose pages were written when frames were last short. */
  #rotor = 0;
  #lastFailure: WriteFailure | null = null;
  /** Which pages of a vnode its store has room for. */
  readonly #takes = new Map<VnodeIndex, (index: number) => boolean>();

  constructor(thread: Thread, hash: PageHash, holds: PageHolds, dirty: DirtyPages, shapes: PageShapes) {
    this.#thread = thread;
    this.#hash = hash;
    this.#holds = holds;
    this.#dirty = dirty;
    this.#shapes = shapes;
    this.#counters = countersOf(thread);
  }

  /** What the store said when it last refused pages of this thread. */
  get lastFailure(): WriteFailure | null {
    return this.#lastFailure;
  }

  /** See `Pages.setTakes`. */
  setTakes(vnode: VnodeIndex, takes: (index: number) => boolean): void {
    this.#takes.set(vnode, takes);
  }

  /**
   * Writes back every page of a range that is modified when it is called, and waits for those that other threads are
   * writing, with `outlasts` also for cuts. Returns the pages written; throws the store's first error when all have been tried.
   */
  range(vnode: VnodeIndex, first: number, count: number, store: PageStore, outlasts: boolean): number {
    // 1.
    const indices = this.#modifiedIn(vnode, first, count);
    // Not kept between calls: the store may itself come here.
    const lanes = new Int32Array(WRITE_PAGES_MAX);
    const size = this.#shapes.framesOf(vnode);
    let written = 0;
    let failure: unknown;
    // Up to here, pages were refused together.
    let alone = 0;
    for (let at = 0; at < indices.length; ) {
      // 2.
      const run = this.#claimRun(vnode, indices, at, lanes, true, at < alone ? size : WRITE_PAGES_MAX);
      if (run > 0) {
        // 3-4.
        const error = this.#write(vnode, indices[at] as number, lanes, run, store);
        if (error === undefined) written += run;
        // 7.
        if (isTimeout(error)) throw error;
        // 8.
        if (error !== undefined && outlasts && store.outlastCut?.(vnode, error)) continue;
        if (error !== undefined && run > size) {
          alone = at + run / size;
          continue;
        }
        failure ??= error;
        at += run / size;
      } else if (run < 0) {
        // 5.
        this.#awaitOther(vnode, indices[at] as number);
      } else {
        at++;
      }
    }
    if (failure !== undefined) throw failure;
    return written;
  }

  /**
   * Writes back up to `max` pages that were modified first, of one vnode after another until some could be written. Never
   * waits for pages. Returns the pages written; a store that refuses is counted, and the next vnode tried.
   */
  someOldest(max: number, store: PageStore): number {
    let first = -1;
    let wrapped = false;
    for (;;) {
      const vnode = this.#dirty.nextVnode(this.#rotor);
      wrapped ||= first >= 0 && vnode <= this.#rotor;
      // Once round, also when the one that this began with has no modified page any more.
      if (vnode < 0 || (wrapped && vnode >= first)) return 0;
      if (first < 0) first = vnode;
      this.#rotor = vnode;
      const written = this.oldestOf(vnode, max, store);
      if (written > 0) return written;
    }
  }

  /** Like `someOldest`, of one vnode. Returns the frames written. */
  oldestOf(vnode: VnodeIndex, max: number, store: PageStore): number {
    if (store.isLate?.(vnode)) return 0;
    const indices = this.#dirty.oldest(vnode, max, this.#takes.get(vnode)).sort((a, b) => a - b);
    const lanes = new Int32Array(WRITE_PAGES_MAX);
    const size = this.#shapes.framesOf(vnode);
    let written = 0;
    let alone = 0;
    for (let at = 0; at < indices.length; ) {
      const run = this.#claimRun(vnode, indices, at, lanes, false, at < alone ? size : WRITE_PAGES_MAX);
      const error = run > 0 ? this.#write(vnode, indices[at] as number, lanes, run, store) : undefined;
      if (isTimeout(error)) return written;
      if (run > 0 && error === undefined) written += run;
      else if (run > size) {
        alone = at + run / size;
        continue;
      }
      at += Math.max(run / size, 1);
    }
    return written;
  }

  /**
   * Claims pages from `indices[at]` on while they are adjacent and modified, of at most `most` frames. Returns how many frames
   * they have; -1 when the first is busy.
   */
  #claimRun(
    vnode: VnodeIndex,
    indices: readonly number[],
    at: number,
    lanes: Int32Array,
    mayWait: boolean,
    most: number,
  ): number {
    const start = indices[at] as number;
    const size = this.#shapes.framesOf(vnode);
    let claimed = 0;
    while (claimed + size <= most && indices[at + claimed / size] === start + claimed) {
      const frame = this.#hold(vnode, start + claimed, mayWait && claimed === 0);
      if (frame < 0) break;
      const claim = this.#dirty.claim(frame);
      if (claim === CLAIM.claimed) {
        for (let position = 0; position < size; position++) lanes[claimed++] = frame + position;
        continue;
      }
      this.#holds.release(frame);
      return claimed === 0 && claim === CLAIM.busy ? -1 : claimed;
    }
    return claimed;
  }

  /** Writes the first `count` lanes, which are claimed. Returns what the store threw. */
  #write(vnode: VnodeIndex, index: number, lanes: Int32Array, count: number, store: PageStore): unknown {
    let failure: unknown;
    if (VERIFY) faultPoint(this.#thread, 'page.write.claimed');
    try {
      if (VERIFY && faultPoint(this.#thread, 'page.write.refuse')) {
        fail('EIO', 'pages.writeBack', { vnode, index, count }, 'injected');
      }
      store.write(vnode, index, lanes, 0, count);
      this.#tally(PAGE_COUNTER.writes, 1);
      this.#tally(PAGE_COUNTER.writtenPages, count);
    } catch (error) {
      this.#tally(PAGE_COUNTER.writeFailures, 1);
      failure = error ?? new Error('the store failed');
      this.#lastFailure = { vnode, index, error: failure };
    }
    if (VERIFY) faultPoint(this.#thread, 'page.write.stored');
    for (let lane = 0; lane < count; lane += this.#shapes.framesOf(vnode)) {
      const frame = lanes[lane] as number;
      this.#dirty.finish(frame, failure === undefined);
      if (VERIFY) faultPoint(this.#thread, 'page.write.finished');
      this.#holds.release(frame);
    }
    return failure;
  }

  /** Waits for those who are writing pages of a vnode from `first` on back now; not for who begins later. */
  awaitWriters(vnode: VnodeIndex, first: number): void {
    for (const index of this.#modifiedIn(vnode, first, Number.POSITIVE_INFINITY)) this.#awaitOther(vnode, index);
  }

  #awaitOther(vnode: VnodeIndex, index: number): void {
    const frame = this.#hold(vnode, index, true);
    if (frame < 0) return;
    try {
      this.#dirty.awaitWriter(frame, FOREVER);
    } finally {
      this.#holds.release(frame);
    }
  }

  /** Holds a page that is in memory, shared; -1 when it is not, or when it would have to wait and may not. */
  #hold(vnode: VnodeIndex, index: number, mayWait: boolean): FrameIndex {
    for (;;) {
      let frame = this.#hash.find(vnode, index);
      if (frame < 0) frame = this.#hash.findCertain(vnode, index);
      if (frame < 0) return -1;
      if (mayWait ? this.#holds.page(frame, vnode, index) : this.#holds.tryPage(frame, vnode, index)) return frame;
      if (!mayWait) return -1;
    }
  }

  /** Heads of the modified pages that have frames in a range. */
  #modifiedIn(vnode: VnodeIndex, from: number, count: number): number[] {
    const listed = this.#dirty.countOf(vnode);
    const size = this.#shapes.framesOf(vnode);
    const first = from - (from & (size - 1));
    const end = from + count;
    if (count > listed) return this.#dirty.indices(vnode, first, end);
    const found: number[] = [];
    for (let index = first; index < end; index += size) {
      const frame = this.#hash.findCertain(vnode, index);
      if (frame >= 0 && !this.#dirty.isClean(frame)) found.push(index);
    }
    return found;
  }

  #tally(lane: number, amount: number): void {
    this.#counters[lane] = (this.#counters[lane] as number) + amount;
  }
}

/** True for a store that has not answered in time. */
function isTimeout(error: unknown): boolean {
  return error instanceof VmError && error.code === 'ETIMEDOUT';
}
