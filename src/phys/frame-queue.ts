/**
 * Requests that wait for frames.
 *
 * PROBLEM     A request that cannot be served must be woken when frames come back; small requests must not starve large ones
 *             of their kind, and any waiter may die or give up.
 * STRUCTURE   One row per waiting request, with a ticket that says who came first and a class, the power of two of its
 *             frames. The first of each class may try; the others sleep until it is their turn.
 *
 *               wait      1 a row, a ticket   2 state := waiting   3 first of its class: try   4 sleep while state is waiting
 *               give      the first of each class that so many free frames could serve is told
 *               go        when memory goes offline, or limits of owners change, all are told, and look whether they can be
 *                         served at all
 *               leave     the row is free; whoever is first now is told
 *
 *             Who would be charged above its owner's limit is *held up*: it is first among requests of that owner, but those of
 *             other owners go before it, until frames of its owner come back.
 *
 * INVARIANTS  I1 a row is in use iff its slot is not 0, and `count` is the number of such rows.
 *             I2 frames that come back after step 2 change the state of whoever may use them: they are not missed,
 *                but for those that were taken in vain.
 *             I3 requests that do not wait, and come later, are refused once as many of a waiter's class have been served as
 *                there are slots, until the waiter has found that nothing fits it. Of who is held up that holds for requests
 *                of its own owner.
 * LOCKING     The frames' lock, under which frames come back; the state is atomic.
 * COSTS       Without waiters: one load for each give. With waiters: a look at each row, and for charged ones at their owner's.
 * FAILURE     -1 when all rows are in use.
 * REJECTED    A condition variable: every frame that comes back would wake everybody, and the last to come might be first.
 * REFERENCES  vmem/space-queue.ts, which does the same for arenas; ticket locks.
 */

import { log2Floor } from '../base/exact.ts';
import type { BoundTables } from '../layout/region.ts';
import { ALL_WAITERS, load, notify, store } from '../sync/atomics.ts';
import type { CancelToken } from '../sync/cancel.ts';
import { sleepAsync } from '../sync/mutex-async.ts';
import type { OwnerIndex } from '../sync/owners.ts';
import { sleepOn } from '../sync/sleep.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import type { FrameCharges } from './frame-charges.ts';

/** What a waiter sleeps on. */
const WAITER_STATE = { idle: 0, waiting: 1, told: 2 } as const;

/** Row of a waiting request. */
export type FrameWaiterIndex = number & { readonly __unit?: 'frame waiter' };

/** The queue as one thread sees it. Everything but the sleeps runs under the frames' lock. */
export class FrameQueue {
  readonly #thread: Thread;
  readonly #charges: FrameCharges;
  readonly #rows: BoundTables['frameWaiter'];
  readonly #queue: BoundTables['frameQueue'];
  #quiet = false;

  constructor(thread: Thread, charges: FrameCharges) {
    this.#thread = thread;
    this.#charges = charges;
    this.#rows = thread.region.tables.frameWaiter;
    this.#queue = thread.region.tables.frameQueue;
  }

  /** Requests that wait. A look without the lock is a hint. */
  get count(): number {
    return this.#queue.count.get(0);
  }

  /** Requests that waited and were served. */
  get served(): number {
    return this.#queue.served.get(0);
  }

  /** Puts a request into the queue, for which `owner` will be charged, -1 nobody; -1 when all rows are in use. */
  join(frames: number, owner: OwnerIndex = -1): FrameWaiterIndex {
    const rows = this.#rows;
    const queue = this.#queue;
    const { journal } = this.#thread;
    let row = 0;
    while (row < rows.rowCount && rows.slot.get(row) !== 0) row++;
    if (row === rows.rowCount) return -1;
    rows.order.put(row, log2Floor(frames));
    rows.owner.put(row, owner + 1);
    rows.frames.put(row, frames);
    rows.overtaken.put(row, 0);
    rows.ticket.put(row, queue.ticketNext.get(0));
    store(this.#thread.words, rows.state.address(row), WAITER_STATE.waiting);
    journal.set(rows.slot, row, this.#thread.tag);
    journal.setDouble(queue.ticketNext, 0, queue.ticketNext.get(0) + 1);
    journal.set(queue.count, 0, queue.count.get(0) + 1);
    return row;
  }

  /** Takes a request out of the queue and tells whoever is first now. */
  leave(row: FrameWaiterIndex, served: boolean, free: number): void {
    this.#remove(row);
    if (served) this.#thread.journal.setDouble(this.#queue.served, 0, this.#queue.served.get(0) + 1);
    this.tell(free);
  }

  /** Steps 2 and 3: marks the request as waiting again; true when it is the first of its class and may try. */
  mayTry(row: FrameWaiterIndex): boolean {
    store(this.#thread.words, this.#rows.state.address(row), WAITER_STATE.waiting);
    return this.#isFirst(row);
  }

  /** Notes that nothing fits the request at present: those that overtake it are counted anew, and go first if it is held up. */
  noteNothingFits(row: FrameWaiterIndex, free: number): void {
    this.#rows.overtaken.put(row, 0);
    if (this.#isHeldUp(row)) this.tell(free);
  }

  /** Frames came back: tells the first of each class that `free` frames could serve. */
  tell(free: number): void {
    if (this.#queue.count.get(0) !== 0 && !this.#quiet) this.#tellWaiters(free);
  }

  /**
   * Runs something that gives back what was taken a moment ago, in vain: nobody is told. Whoever looked in between, and found
   * nothing, looks again by itself soon.
   */
  withoutTelling(action: () => void): void {
    const before = this.#quiet;
    this.#quiet = true;
    try {
      action();
    } finally {
      this.#quiet = before;
    }
  }

  /** Memory has gone, or limits have changed: tells everybody, because some may wait for what cannot come. */
  tellAll(): void {
    const rows = this.#rows;
    for (let row = 0; row < rows.rowCount; row++) if (rows.slot.get(row) !== 0) this.#tellOne(row);
  }

  /**
   * True when a request that does not wait, and for which `owner` would be charged, must not be served now, because it would
   * overtake a waiting one of its class once too often; else it is counted.
   */
  mustYield(frames: number, owner: OwnerIndex = -1): boolean {
    if (this.#queue.count.get(0) === 0) return false;
    const rows = this.#rows;
    const order = log2Floor(frames);
    let first = -1;
    for (let row = 0; row < rows.rowCount; row++) {
      if (rows.slot.get(row) === 0 || rows.order.get(row) !== order) continue;
      if (first >= 0 && rows.ticket.get(row) >= rows.ticket.get(first)) continue;
      if (rows.owner.get(row) === owner + 1 || !this.#isHeldUp(row)) first = row;
    }
    if (first < 0) return false;
    if (rows.overtaken.get(first) >= this.#thread.region.geometry.slots) return true;
    rows.overtaken.put(first, rows.overtaken.get(first) + 1);
    return false;
  }

  /** Step 4, without the lock: sleeps until the request is told, or for `timeoutMs`. True when it was cancelled. */
  sleep(row: FrameWaiterIndex, timeoutMs: number, cancel: CancelToken | undefined): boolean {
    const state = this.#rows.state.address(row);
    const result = sleepOn(this.#thread, state, WAITER_STATE.waiting, timeoutMs, cancel);
    this.#thread.clearWait();
    return result === 'cancelled';
  }

  /** Step 4 without blocking the thread. */
  async sleepAsync(row: FrameWaiterIndex, timeoutMs: number, signal: AbortSignal | undefined): Promise<void> {
    await sleepAsync(this.#thread, this.#rows.state.address(row), WAITER_STATE.waiting, timeoutMs, signal);
  }

  /** Has who sleeps look again, without having been told anything. */
  wake(row: FrameWaiterIndex): void {
    notify(this.#thread.words, this.#rows.state.address(row), ALL_WAITERS);
  }

  /** Removes the requests of a dead slot. */
  recover(dead: SlotIndex, free: number): void {
    for (let row = 0; row < this.#rows.rowCount; row++) {
      if (this.#rows.slot.get(row) !== dead + 1) continue;
      this.#remove(row);
      this.#thread.commit();
    }
    this.tell(free);
  }

  /** Broken invariants, for `check()`. */
  problems(): string[] {
    let used = 0;
    for (let row = 0; row < this.#rows.rowCount; row++) if (this.#rows.slot.get(row) !== 0) used++;
    return used === this.count ? [] : [`phys/frame-queue I1: ${used} rows in use, count ${this.count}`];
  }

  #remove(row: FrameWaiterIndex): void {
    const { journal, words } = this.#thread;
    journal.set(this.#rows.slot, row, 0);
    journal.set(this.#queue.count, 0, this.#queue.count.get(0) - 1);
    store(words, this.#rows.state.address(row), WAITER_STATE.idle);
  }

  #isFirst(row: FrameWaiterIndex): boolean {
    const rows = this.#rows;
    for (let other = 0; other < rows.rowCount; other++) {
      if (rows.slot.get(other) === 0 || rows.order.get(other) !== rows.order.get(row)) continue;
      if (rows.ticket.get(other) >= rows.ticket.get(row)) continue;
      if (rows.owner.get(other) === rows.owner.get(row) || !this.#isHeldUp(other)) return false;
    }
    return true;
  }

  /** True while a request would take its owner above the limit. */
  #isHeldUp(row: number): boolean {
    const owner = this.#rows.owner.get(row) - 1;
    return owner >= 0 && !this.#charges.allows(owner, this.#rows.frames.get(row));
  }

  #tellWaiters(free: number): void {
    const rows = this.#rows;
    for (let row = 0; row < rows.rowCount; row++) {
      if (rows.slot.get(row) === 0 || 2 ** rows.order.get(row) > free) continue;
      if (!this.#isHeldUp(row) && this.#isFirst(row)) this.#tellOne(row);
    }
  }

  #tellOne(row: number): void {
    const { words } = this.#thread;
    const address = this.#rows.state.address(row);
    if (load(words, address) !== WAITER_STATE.waiting) return;
    store(words, address, WAITER_STATE.told);
    notify(words, address, ALL_WAITERS);
  }
}
