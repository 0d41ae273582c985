/**
 * Cookie work: how a cookie comes to have frames, and how they go back.
 *
 * PROBLEM     A cookie's frames come from three places, each of which may fail or end with the thread; whatever happens, no
 *             frame and no charge may be lost.
 * STRUCTURE   A cookie's chain is what it has. Building appends, freeing takes from the end:
 *
 *               1 row claimed   2 owner charged   3 pool   4 large pages, the rest of the last one to the pool
 *               5 small pages   6 live
 *
 *               building, freeing: the slot's row names the cookie, and `returning` a run that has left the chain and is not
 *               yet free. A recovery goes on from there: what is being built is given back, what is being freed as well.
 *
 * INVARIANTS  I1 a frame that pmem has is in one chain, or in the pool, or `returning`, or held by the page lists' record.
 *             I2 by default, the frames reserved are the frames that pmem has.
 *             I3 a cookie that is building or freeing is named by one slot.
 *             I4 what owners are charged by pmem is what the rows of cookies say.
 * LOCKING     The pmem lock for every step; between steps other threads work. Frames are waited for without it.
 * COSTS       Pool and large pages: a few stores for every run. Nothing is searched, but for the seed's queue.
 * FAILURE     Why it failed; everything is as before then, but for the order of the seed's queue.
 * REJECTED    One transaction for all: a cookie has more frames than a journal has room for.
 * REFERENCES  pmem.c: devmap_pmem_alloc, devmap_pmem_free.
 */

import { assert } from '../base/assert.ts';
import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import { FRAME_USE, type FrameRun, LIST_STAGE, type PageList, type PageLists, SLOT_SHIFT } from '../phys/index.ts';
import { faultPoint } from '../sync/fault.ts';
import { Mutex } from '../sync/mutex.ts';
import { ownerOf } from '../sync/owners.ts';
import { RANK } from '../sync/ranks.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import { chargeCookie, unchargeCookie } from './cookie-charges.ts';
import { COOKIE_STATE, type CookieIndex, LARGE_STATE, type PmemFailure } from './kinds.ts';
import { LargePages } from './large-pages.ts';
import type { TakeSmall } from './pmem-request.ts';
import { newReport, type PmemFaults, type PmemReport } from './report.ts';
import { FullestPool, type Piece, piecesOf, type ResidualPool, SeedPool } from './residual-pool.ts';
import { type ChainPlace, RunChains } from './run-chains.ts';

/** Builds and frees cookies. */
export class CookieWork {
  readonly large: LargePages;
  readonly chains: RunChains;
  readonly pool: ResidualPool;
  readonly mutex: Mutex;
  readonly seed: boolean;
  readonly #thread: Thread;
  readonly #lists: PageLists;
  readonly #row: BoundTables['pmemPool'];
  readonly #cookies: BoundTables['pmemCookie'];
  readonly #slot: BoundTables['pmemSlot'];
  readonly #pageSize: number;
  #faults: PmemFaults | null = null;

  constructor(thread: Thread, lists: PageLists) {
    const { tables, geometry } = thread.region;
    this.#thread = thread;
    this.#lists = lists;
    this.#row = tables.pmemPool;
    this.#cookies = tables.pmemCookie;
    this.#slot = tables.pmemSlot;
    this.#pageSize = geometry.pageSize;
    this.mutex = new Mutex(thread, tables.pmemPool.lock.address(0), RANK.pmem);
    this.large = new LargePages(thread);
    this.chains = new RunChains(thread);
    this.seed = tables.pmemPool.seed.get(0) === 1;
    this.pool = this.seed
      ? new SeedPool(thread, this.large, this.chains)
      : new FullestPool(thread, this.large, this.chains);
  }

  /** Sets what fails. */
  setFaults(faults: PmemFaults | null): void {
    this.#faults = faults;
  }

  /** Where a cookie's chain is. */
  chainOf(row: CookieIndex): ChainPlace {
    return { head: this.#cookies.head, tail: this.#cookies.tail, row };
  }

  /** 1. Claims a row, which this slot's row names; -1 when there is none. */
  claim(frames: number, mover = 0, contiguous = false): CookieIndex {
    for (let number = 0; number < 3; number++) if (this.#faults?.tableRow(number) === false) return -1;
    const { journal, slot } = this.#thread;
    const { cookieFree, cookieFresh, cookieCount } = this.#row;
    this.mutex.enter();
    let row = cookieFree.get(0) - 1;
    if (row >= 0) {
      journal.set(cookieFree, 0, this.#cookies.head.get(row));
    } else if (cookieFresh.get(0) < this.#cookies.rowCount) {
      row = cookieFresh.get(0);
      journal.set(cookieFresh, 0, row + 1);
    }
    if (row >= 0) {
      journal.set(this.#cookies.state, row, COOKIE_STATE.building);
      journal.set(this.#cookies.frames, row, frames);
      journal.set(this.#cookies.owner, row, ownerOf(this.#thread));
      journal.set(this.#cookies.maker, row, this.#thread.attachment);
      journal.set(this.#cookies.mover, row, mover);
      journal.set(this.#cookies.contiguous, row, contiguous ? 1 : 0);
      journal.set(this.#cookies.head, row, 0);
      journal.set(this.#cookies.tail, row, 0);
      journal.set(cookieCount, 0, cookieCount.get(0) + 1);
      journal.set(this.#slot.cookie, slot, row + 1);
    }
    this.mutex.exit();
    return row;
  }

  /** 2. Charges the thread's owner; what stopped it, or null. */
  charge(row: CookieIndex): PmemFailure | null {
    const { mutex } = this.#lists.frames.core;
    this.mutex.enter();
    mutex.enter();
    const failure = chargeCookie(this.#thread, row, this.seed);
    mutex.exit();
    this.mutex.exit();
    return failure;
  }

  /** 3-5. Gathers the frames. */
  gather(row: CookieIndex, takeSmall: TakeSmall, report: PmemReport): PmemFailure | null {
    const chain = this.chainOf(row);
    let missing = this.#cookies.frames.get(row);
    // 3.
    this.mutex.enter();
    report.fromPool = this.pool.take(missing, chain);
    missing -= report.fromPool;
    const reserved = missing === 0 || !this.seed || this.#reserve(missing, row);
    this.mutex.exit();
    if (VERIFY) faultPoint(this.#thread, 'pmem.alloc.pooled');
    if (missing === 0) return null;
    if (!reserved) return 'reservation';
    // 4.
    for (let number = 0; this.large.size > 1 && missing > 0; number++) {
      const got = this.#takeLarge(chain, missing, number, report);
      if (typeof got === 'string') return got;
      if (got === 0) break;
      missing -= got;
    }
    // 5.
    return missing === 0 ? null : this.#takeSmall(chain, missing, takeSmall, report);
  }

  /** Gathers frames in at most so many runs, from no large page. */
  gatherRuns(row: CookieIndex, takeSmall: TakeSmall, report: PmemReport, segments: number): PmemFailure | null {
    const frames = this.#cookies.frames.get(row);
    return this.#takeSmall(this.chainOf(row), frames, takeSmall, report, segments);
  }

  /** 6. */
  finish(row: CookieIndex): void {
    this.mutex.enter();
    this.#thread.journal.set(this.#cookies.state, row, COOKIE_STATE.live);
    this.#thread.journal.set(this.#cookies.reserved, row, 0);
    this.#thread.journal.set(this.#slot.cookie, this.#thread.slot, 0);
    this.mutex.exit();
  }

  /** Undoes 1 to 5. The seed puts frames of its pool at the end of the queue, in the order in which they were taken. */
  abandon(row: CookieIndex, report: PmemReport): void {
    this.mutex.enter();
    const chain = this.chainOf(row);
    if (this.seed) {
      for (let undone = 0; undone < report.recordedLarge; undone++) this.#undoLarge(chain, report);
      for (let run = this.chains.headOf(chain); run >= 0; run = this.chains.headOf(chain)) {
        const [piece] = piecesOf(this.chains.run(run), this.large.size) as [Piece];
        this.chains.cutFront(chain, run, piece.count);
        this.pool.give(piece);
        this.#thread.commit();
      }
      this.#unreserve(this.#cookies.reserved.get(row));
      this.#thread.journal.set(this.#cookies.reserved, row, 0);
    }
    this.#thread.commit();
    this.mutex.exit();
    this.release(row, report, true);
  }

  /** Gives back all that a cookie has, in state building or freeing, and its row. */
  release(row: CookieIndex, report: PmemReport, uncharges: boolean, namedBy: SlotIndex = this.#thread.slot): void {
    const chain = this.chainOf(row);
    const touched: number[] = [];
    const seen = new Set<number>();
    this.mutex.enter();
    for (let run = this.chains.tailOf(chain); run >= 0; run = this.chains.tailOf(chain)) {
      const piece = this.#lastPiece(run);
      this.chains.cutBack(chain, run, piece.count);
      if (this.large.has(piece.low)) {
        this.pool.give(piece);
        this.#thread.commit();
        const large = this.large.of(piece.low);
        if (!seen.has(large)) touched.push(large);
        seen.add(large);
      } else {
        this.#unreserve(piece.count);
        this.#return(piece.low, piece.count);
        report.freedSmall += piece.count;
      }
      if (VERIFY) faultPoint(this.#thread, 'pmem.free.partial');
    }
    if (this.seed) this.#settleTouched(touched, report);
    else this.trimTo(this.#row.keepLarge.get(0), report);
    const charged = this.#cookies.framesCharged.get(row) > 0;
    this.#closeRow(row, uncharges, namedBy);
    this.mutex.exit();
    if (charged) this.#tellWaiters();
  }

  /** Some wait for frames at the limit of the owner that was charged until now. */
  #tellWaiters(): void {
    const { core } = this.#lists.frames;
    if (core.queue.count === 0) return;
    core.mutex.enter();
    core.queue.tell(core.free);
    core.mutex.exit();
  }

  /** Under the lock: gives wholly free large pages back until the pool keeps at most `kept`. */
  trimTo(kept: number, report: PmemReport): void {
    while (!this.seed && this.#row.wholeFree.get(0) > kept) this.#dropLarge(this.large.whollyFree(), report);
  }

  /** Goes on where a dead slot ended. Calls `recover` of the page lists at the right moment. */
  recover(dead: SlotIndex): void {
    const held = this.#lists.heldBy(dead);
    const row = this.#slot.cookie.get(dead) - 1;
    if (held.stage === LIST_STAGE.takingRun && this.large.size === held.count && this.large.has(held.first)) {
      this.#lists.settleFor(dead);
    }
    if (row >= 0 && (held.stage === LIST_STAGE.taking || held.stage === LIST_STAGE.takingRun))
      this.#dropHeld(row, dead);
    // The page lists go on giving back what they were certain about; the rest is still ours.
    if (held.stage === LIST_STAGE.giving && this.#slot.returning.get(dead) === held.first + 1) {
      this.#slot.returning.put(dead, 0);
    }
    this.#lists.recover(dead);
    const returning = this.#slot.returning.get(dead) - 1;
    if (returning >= 0) {
      const count = this.#slot.returningCount.get(dead);
      this.#lists.setMovable(returning, count, false);
      this.#lists.free({ runs: [{ first: returning, count }], frameCount: count }, () => {
        this.#slot.returning.put(dead, 0);
      });
    }
    this.#dropLeaving();
    if (row < 0 || this.reopen(dead)) return;
    this.mutex.enter();
    this.#unreserve(this.#cookies.reserved.get(row));
    this.#thread.journal.set(this.#cookies.reserved, row, 0);
    this.mutex.exit();
    this.release(row, newReport(), true, dead);
  }

  /** A cookie that a slot was about to free is live again; false when there is none. */
  reopen(slot: SlotIndex): boolean {
    const row = this.#slot.cookie.get(slot) - 1;
    if (row < 0 || this.#cookies.state.get(row) !== COOKIE_STATE.closing) return false;
    this.mutex.enter();
    this.#thread.journal.set(this.#cookies.state, row, COOKIE_STATE.live);
    this.#thread.journal.set(this.#slot.cookie, slot, 0);
    this.mutex.exit();
    return true;
  }

  /** Frames that pmem has from the page lists in a dead slot's hands are not yet its own: they leave the chain. */
  #dropHeld(row: CookieIndex, dead: SlotIndex): void {
    const { core } = this.#lists.frames;
    const chain = this.chainOf(row);
    const held = this.#lists.heldBy(dead);
    const use = held.stage === LIST_STAGE.taking ? FRAME_USE.listTaking : FRAME_USE.list;
    const word = ((dead + 1) << SLOT_SHIFT) | use;
    this.mutex.enter();
    for (let run = this.chains.tailOf(chain); run >= 0; run = this.chains.tailOf(chain)) {
      const { low, count } = this.#lastPiece(run);
      const inHand = low >= held.first && low < held.first + held.count && core.wordOf(low) === word;
      if (!inHand || this.large.has(low)) break;
      this.chains.cutBack(chain, run, count);
      if (!this.seed) this.#unreserve(count);
      this.#thread.commit();
    }
    this.mutex.exit();
  }

  /** Takes one large page; returns how many of its frames were missing, 0 when there is none, or why it failed. */
  #takeLarge(chain: ChainPlace, missing: number, number: number, report: PmemReport): number | PmemFailure {
    const { size } = this.large;
    if (this.#faults?.largePage(number) === false) return 0;
    const sizeBytes = size * this.#pageSize;
    if (!this.seed && !this.#hasReserve(size)) return 0;
    const list = this.#lists.tryTakeHeld({ size: sizeBytes, alignment: sizeBytes });
    if (list === null) return 0;
    report.newLarge++;
    const { first } = list.runs[0] as FrameRun;
    const used = Math.min(missing, size);
    this.mutex.enter();
    const rows = this.#faults?.tableRow(3 + 2 * number) !== false && this.#faults?.tableRow(4 + 2 * number) !== false;
    // Two runs at most: the cookie's, and what the seed's queue gets.
    const recorded = rows && this.chains.hasSpare(2) && (this.seed || this.#reserve(size, -1));
    if (recorded) {
      this.large.add(this.large.of(first));
      if (this.seed) this.large.list(this.large.of(first));
      this.chains.append(chain, first, used);
      if (used < size) this.pool.give({ low: first + used, count: size - used, descends: false });
    }
    this.mutex.exit();
    if (VERIFY) faultPoint(this.#thread, 'pmem.alloc.large');
    if (recorded) {
      this.#lists.settle(list);
      report.recordedLarge++;
      return used;
    }
    this.#lists.giveUp(list);
    report.freedLarge.push(first);
    return 'tables';
  }

  #takeSmall(
    chain: ChainPlace,
    missing: number,
    takeSmall: TakeSmall,
    report: PmemReport,
    segments = missing,
  ): PmemFailure | null {
    if (!this.seed && !this.#hasReserve(missing)) return 'reservation';
    const list = takeSmall({ size: missing * this.#pageSize, segments });
    if (list === null) return 'frames';
    this.mutex.enter();
    const fits = this.chains.hasSpare(list.runs.length) && (this.seed || this.#hasReserve(missing));
    for (const { first, count } of fits ? list.runs : []) {
      this.chains.append(chain, first, count);
      if (!this.seed) this.#reserve(count, -1);
      this.#thread.commit();
    }
    this.mutex.exit();
    if (VERIFY) faultPoint(this.#thread, 'pmem.alloc.small');
    if (!fits) {
      this.#lists.giveUp(list);
      return 'tables';
    }
    this.#lists.settle(list);
    report.newSmall = missing;
    return null;
  }

  /** The frames at the end of a run that lie in one large page, or in none. */
  #lastPiece(run: number): Piece {
    const { first, count } = this.chains.run(run);
    const { size } = this.large;
    if (size === 1) return { low: count > 0 ? first : first + count + 1, count: Math.abs(count), descends: count > 0 };
    const last = first + count - Math.sign(count);
    const within = last % size;
    const room = count > 0 ? within + 1 : size - within;
    const frames = Math.min(Math.abs(count), room);
    // Walked from the end: an ascending run gives its frames back in descending order.
    return { low: count > 0 ? last - frames + 1 : last, count: frames, descends: count > 0 };
  }

  /** Seed order: large pages that are touched move to the end of the list, or go back when they are wholly free. */
  #settleTouched(touched: readonly number[], report: PmemReport): void {
    for (const large of touched) {
      this.large.unlist(large);
      this.large.list(large);
      this.#thread.commit();
    }
    for (const large of touched) {
      if (this.large.freeOf(large) === this.large.size) this.#dropLarge(large, report);
    }
  }

  /** Seed: undoes the large page at the end of the chain. */
  #undoLarge(chain: ChainPlace, report: PmemReport): void {
    const { size } = this.large;
    const run = this.chains.tailOf(chain);
    const { first, count } = this.chains.run(run);
    const root = first + count - size;
    assert(count >= size && root % size === 0, 'pmem/cookie-work I1: the last frames are those of the last large page');
    this.chains.cutBack(chain, run, size);
    const large = this.large.of(root);
    this.large.unlist(large);
    this.large.remove(large);
    this.#return(root, size);
    report.freedLarge.push(root);
  }

  /** A large page whose frames are all in the pool goes back to the system. */
  #dropLarge(large: number, report: PmemReport): void {
    const { size } = this.large;
    this.pool.leave(large);
    if (this.seed) this.large.unlist(large);
    this.large.remove(large);
    this.#unreserve(size);
    this.#return(large * size, size);
    report.freedLarge.push(large * size);
  }

  #dropLeaving(): void {
    if (!this.seed) return;
    this.mutex.enter();
    for (const [root] of this.large.snapshot()) {
      const large = this.large.of(root);
      if (this.large.stateOf(large) === LARGE_STATE.leaving) this.#dropLarge(large, newReport());
    }
    this.mutex.exit();
  }

  /** Under the lock: commits, and gives frames to the page lists. They are named until that is certain. */
  #return(first: number, count: number): void {
    const { journal, slot } = this.#thread;
    journal.set(this.#slot.returning, slot, first + 1);
    journal.set(this.#slot.returningCount, slot, count);
    this.#thread.commit();
    if (VERIFY) faultPoint(this.#thread, 'pmem.free.returning');
    const list: PageList = { runs: [{ first, count }], frameCount: count };
    if (this.#lists.frames.useOf(first) === FRAME_USE.movable) this.#lists.setMovable(first, count, false);
    this.#lists.free(list, () => this.#slot.returning.put(slot, 0));
  }

  #closeRow(row: CookieIndex, uncharges: boolean, namedBy: SlotIndex): void {
    const { journal } = this.#thread;
    const cookies = this.#cookies;
    journal.set(cookies.mover, row, 0);
    journal.set(cookies.state, row, COOKIE_STATE.free);
    journal.set(cookies.generation, row, cookies.generation.get(row) + 1);
    journal.set(cookies.head, row, this.#row.cookieFree.get(0));
    journal.set(this.#row.cookieFree, 0, row + 1);
    journal.set(this.#row.cookieCount, 0, this.#row.cookieCount.get(0) - 1);
    journal.set(this.#slot.cookie, namedBy, 0);
    unchargeCookie(this.#thread, row, uncharges);
    this.#thread.commit();
  }

  #hasReserve(frames: number): boolean {
    return this.#row.reserved.get(0) + frames <= this.#row.reserveLimit.get(0);
  }

  #reserve(frames: number, row: CookieIndex): boolean {
    if (!this.#hasReserve(frames)) return false;
    this.#thread.journal.setDouble(this.#row.reserved, 0, this.#row.reserved.get(0) + frames);
    if (row >= 0) this.#thread.journal.set(this.#cookies.reserved, row, frames);
    return true;
  }

  #unreserve(frames: number): void {
    if (frames !== 0) this.#thread.journal.setDouble(this.#row.reserved, 0, this.#row.reserved.get(0) - frames);
  }
}
