/**
 * Requests that wait for space in an arena.
 *
 * PROBLEM     A request that finds no space must be woken when some comes back, to its arena or to one that it imports
 *             from; small requests must not starve large ones, nor wait behind them; any waiter may die or give up.
 * STRUCTURE   One row per waiting request, with a ticket that says who came first and a class, the power of two of its
 *             size. The first of each class of an arena may try; the others sleep until it is their turn.
 *
 *               wait      1 a row, a ticket   2 state := waiting   3 first of its class: try   4 sleep while state is waiting
 *               free      rows of this arena, and of arenas that import from it: the first of each class is told
 *               leave     the row is free; whoever is first now is told
 *
 * INVARIANTS  I1 a row is in use iff its slot is not 0, and `count` is the number of such rows.
 *             I2 space that comes back after step 2 changes the state of whoever may use it: it is not missed, also when the
 *                thread that freed it dies before it has told anybody.
 *             I3 requests that do not wait, and come later, are refused once as many of a waiter's class have been served as
 *                there are slots, until the waiter has found that nothing fits it.
 * LOCKING     One mutex for all rows (RANK.spaceQueue), taken inside arena locks; the state is atomic.
 * COSTS       Without waiters: one load for each free. With waiters: a look at each row.
 * FAILURE     `ENOMEM` when all rows are in use.
 * REJECTED    A condition variable for each arena: every free would wake everybody. Carving for the waiter in the thread that
 *             frees: imports could not be tried there.
 * REFERENCES  Bonwick and Adams 2001, section 4.4.2 (VM_SLEEP); ticket locks. test/explore/space.test.ts runs this file and
 *             waiting.ts under every schedule, with a death at every step.
 */

import { log2Floor } from '../base/exact.ts';
import { ALL_WAITERS, load, notify, store } from '../sync/atomics.ts';
import { mutexEnter, mutexExit } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import type { ArenaCore } from './arena-core.ts';
import type { ArenaIndex } from './kinds.ts';

/** What a waiter sleeps on. */
export const WAITER_STATE = { idle: 0, waiting: 1, told: 2 } as const;

/** Row of a waiting request. */
export type WaiterIndex = number & { readonly __unit?: 'space waiter' };

function enter(thread: Thread): void {
  mutexEnter(thread, thread.region.tables.spaceQueue.lock.address(0), RANK.spaceQueue);
}

function exit(thread: Thread): void {
  mutexExit(thread, thread.region.tables.spaceQueue.lock.address(0));
}

/** Class of a request. */
export function classOf(core: ArenaCore, size: number): number {
  return log2Floor(size * core.inverseQuantum);
}

/** Puts a request into the queue; -1 when all rows are in use. Called without a lock. */
export function joinQueue(core: ArenaCore, size: number): WaiterIndex {
  const { thread, journal } = core;
  const { spaceWaiter: rows, spaceQueue: queue } = core.tables;
  enter(thread);
  let row = 0;
  while (row < rows.rowCount && rows.slot.get(row) !== 0) row++;
  if (row === rows.rowCount) {
    exit(thread);
    return -1;
  }
  rows.arena.put(row, core.row + 1);
  rows.order.put(row, classOf(core, size));
  rows.overtaken.put(row, 0);
  rows.ticket.put(row, queue.ticketNext.get(0));
  store(thread.words, rows.state.address(row), WAITER_STATE.waiting);
  journal.set(rows.slot, row, thread.tag);
  journal.setDouble(queue.ticketNext, 0, queue.ticketNext.get(0) + 1);
  journal.set(queue.count, 0, queue.count.get(0) + 1);
  exit(thread);
  return row;
}

/** Takes a request out of the queue and tells whoever is first now. Called without a lock. */
export function leaveQueue(core: ArenaCore, row: WaiterIndex, served: boolean): void {
  const { thread } = core;
  const { spaceQueue: queue } = core.tables;
  enter(thread);
  removeRow(thread, row);
  if (served) thread.journal.setDouble(queue.served, 0, queue.served.get(0) + 1);
  thread.commit();
  tellFirst(thread, core.row);
  exit(thread);
}

/** Steps 2 and 3: marks the request as waiting again; true when it is the first of its class and may try. */
export function mayTry(core: ArenaCore, row: WaiterIndex): boolean {
  const { thread } = core;
  const { state } = core.tables.spaceWaiter;
  store(thread.words, state.address(row), WAITER_STATE.waiting);
  enter(thread);
  const first = isFirst(thread, row);
  exit(thread);
  return first;
}

/** Notes that nothing fits the request at present: those that overtake it are counted anew. */
export function noteNothingFits(core: ArenaCore, row: WaiterIndex): void {
  core.tables.spaceWaiter.overtaken.put(row, 0);
}

/** Space came back to the arena: tells whoever may use it. Called without a lock; cheap when nobody waits. */
export function announceSpace(core: ArenaCore): void {
  if (core.words[core.waitersAt] === 0) return;
  enter(core.thread);
  tellFirst(core.thread, core.row);
  exit(core.thread);
}

/**
 * True when a request that does not wait must not be served now, because it would overtake a waiting one of its class once
 * too often; else it is counted. Under the arena's lock.
 */
export function mustYield(core: ArenaCore, size: number): boolean {
  const { thread } = core;
  const { spaceWaiter: rows } = core.tables;
  const order = classOf(core, size);
  let first = -1;
  enter(thread);
  for (let row = 0; row < rows.rowCount; row++) {
    if (rows.slot.get(row) === 0 || rows.arena.get(row) !== core.row + 1 || rows.order.get(row) !== order) continue;
    if (first < 0 || rows.ticket.get(row) < rows.ticket.get(first)) first = row;
  }
  const refused = first >= 0 && rows.overtaken.get(first) >= thread.region.geometry.slots;
  if (first >= 0 && !refused) rows.overtaken.put(first, rows.overtaken.get(first) + 1);
  exit(thread);
  return refused;
}

/**
 * Removes the requests of a dead slot, and tells whoever is first now: also where the slot had freed something and died before
 * it said so. Called without a lock.
 */
export function recoverQueue(thread: Thread, dead: SlotIndex): void {
  const { spaceWaiter: rows, spaceQueue: queue } = thread.region.tables;
  if (queue.count.get(0) === 0) return;
  enter(thread);
  for (let row = 0; row < rows.rowCount; row++) if (rows.slot.get(row) === dead + 1) removeRow(thread, row);
  thread.commit();
  for (let row = 0; row < rows.rowCount; row++) if (rows.slot.get(row) !== 0 && isFirst(thread, row)) wake(thread, row);
  exit(thread);
}

/** Requests of an arena that wait. A look without the lock. */
export function waitersOf(core: ArenaCore): number {
  const { spaceWaiter: rows } = core.tables;
  if (core.words[core.waitersAt] === 0) return 0;
  let count = 0;
  for (let row = 0; row < rows.rowCount; row++) {
    if (rows.slot.get(row) !== 0 && rows.arena.get(row) === core.row + 1) count++;
  }
  return count;
}

/** Broken invariants of the queue. */
export function checkQueue(thread: Thread): string[] {
  const { spaceWaiter: rows, spaceQueue: queue } = thread.region.tables;
  let used = 0;
  for (let row = 0; row < rows.rowCount; row++) if (rows.slot.get(row) !== 0) used++;
  const count = queue.count.get(0);
  return used === count ? [] : [`vmem/space-queue I1: ${used} rows in use, count ${count}`];
}

function removeRow(thread: Thread, row: WaiterIndex): void {
  const { spaceWaiter: rows, spaceQueue: queue } = thread.region.tables;
  thread.journal.set(rows.slot, row, 0);
  thread.journal.set(queue.count, 0, queue.count.get(0) - 1);
  store(thread.words, rows.state.address(row), WAITER_STATE.idle);
}

/** True when no earlier request of its arena and class waits. Under the queue's lock. */
function isFirst(thread: Thread, row: WaiterIndex): boolean {
  const { spaceWaiter: rows } = thread.region.tables;
  for (let other = 0; other < rows.rowCount; other++) {
    if (rows.slot.get(other) === 0 || rows.arena.get(other) !== rows.arena.get(row)) continue;
    if (rows.order.get(other) === rows.order.get(row) && rows.ticket.get(other) < rows.ticket.get(row)) return false;
  }
  return true;
}

/** Tells the first of each class of the arena, and of the arenas that import from it. Under the queue's lock. */
function tellFirst(thread: Thread, arena: ArenaIndex): void {
  const { spaceWaiter: rows } = thread.region.tables;
  for (let row = 0; row < rows.rowCount; row++) {
    if (rows.slot.get(row) === 0 || !drawsOn(thread, rows.arena.get(row) - 1, arena) || !isFirst(thread, row)) continue;
    tell(thread, row);
  }
}

/** Tells a request that sleeps, or is about to; one that was told already is awake. Under the queue's lock. */
function tell(thread: Thread, row: WaiterIndex): void {
  const address = thread.region.tables.spaceWaiter.state.address(row);
  if (load(thread.words, address) === WAITER_STATE.waiting) wake(thread, row);
}

/** The same whatever its state: whoever told it may have died before it woke it. */
function wake(thread: Thread, row: WaiterIndex): void {
  const address = thread.region.tables.spaceWaiter.state.address(row);
  store(thread.words, address, WAITER_STATE.told);
  notify(thread.words, address, ALL_WAITERS);
}

/** True when an arena is another one or imports from it, directly or not. */
function drawsOn(thread: Thread, arena: ArenaIndex, source: ArenaIndex): boolean {
  const { importArena, rowCount } = thread.region.tables.arena;
  let at = arena;
  for (let steps = rowCount; at >= 0 && steps > 0; steps--) {
    if (at === source) return true;
    at = importArena.get(at) - 1;
  }
  return false;
}
