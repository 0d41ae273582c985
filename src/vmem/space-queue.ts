/**
 * Requests that wait for space in an arena.
 *
 * PROBLEM     A request that finds no space must be woken when some comes back, to its arena or to one that it imports
 *             from; small requests must not starve large ones, nor wait behind them; what serves nobody who waits must be had
 *             by others; any waiter may be busy with something else, die or give up.
 * STRUCTURE   One row per waiting request: what it asks for, a ticket that says who came first, and a class, the power of two
 *             of its size.
 *
 *               wait      1 a row, a ticket   2 state := waiting   3 try   4 sleep while state is waiting
 *               take      a later request of the class may have what leaves a place for those ahead that have one now
 *               free      rows of this arena, and of arenas that import from it, are told
 *               leave     the row is free; the others are told
 *
 *             Of requests of one thread that ask for the same only the first is told: the others cannot be served before it.
 * INVARIANTS  I1 a row is in use iff its slot is not 0, and `count` is the number of such rows.
 *             I2 space that comes back after step 2 changes the state of whoever may use it: it is not missed, also when the
 *                thread that freed it dies before it has told anybody.
 *             I3 a waiter is deprived of the last place that it has in the arena by no later waiter of its class, and by as
 *                many later requests of its class that do not wait as there are slots.
 *             I4 who is refused a place that is kept is told when it is kept no longer.
 *             I5 a row that limits or missing tags keep from a place that it has is barred: no place is kept for it.
 * LOCKING     One mutex for all rows (RANK.spaceQueue), taken inside arena locks, where nothing is logged; the state is
 *             atomic. `misfit` columns are written under the arena's lock too.
 * COSTS       Without waiters: one load for each free and each allocation. With waiters: a look at each row, and for those of
 *             the class what space-turn.ts says.
 * FAILURE     `ENOMEM` when all rows are in use.
 * REJECTED    A condition variable for each arena: every free would wake everybody. Carving for the waiter in the thread that
 *             frees: imports could not be tried there. Letting only the first of a class try: one that nothing fits, or
 *             whose event loop is busy, would stop all behind it.
 * REFERENCES  Bonwick and Adams 2001, section 4.4.2 (VM_SLEEP); ticket locks. test/explore/space.test.ts runs this file and
 *             waiting.ts under every schedule, with a death at every step.
 */

import { ADDRESS_MAX, log2Floor } from '../base/exact.ts';
import { VERIFY } from '../base/verify.ts';
import { ALL_WAITERS, load, notify, store } from '../sync/atomics.ts';
import { faultPoint } from '../sync/fault.ts';
import { mutexEnter, mutexExit } from '../sync/mutex.ts';
import { ledgerLimit, ledgerUse } from '../sync/owner-ledger.ts';
import { RANK } from '../sync/ranks.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import type { ArenaCore } from './arena-core.ts';
import { type Constraints, fitSegment } from './fit.ts';
import type { ArenaIndex } from './kinds.ts';

/** What a waiter sleeps on. */
export const WAITER_STATE = { idle: 0, waiting: 1, told: 2 } as const;

/** Row of a waiting request. */
export type WaiterIndex = number & { readonly __unit?: 'space waiter' };

/** Row of a request that does not wait. */
export const NO_WAITER = -1;

/** What a waiting request asks for. */
export interface WaitingRequest {
  readonly size: number;
  readonly constraints: Constraints | null;
  /** An object of a quantum cache will do. */
  readonly cached: boolean;
}

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
export function joinQueue(core: ArenaCore, request: WaitingRequest): WaiterIndex {
  const { thread, journal } = core;
  const { spaceWaiter: rows, spaceQueue: queue } = core.tables;
  enter(thread);
  let row = 0;
  while (row < rows.rowCount && rows.slot.get(row) !== 0) row++;
  if (row === rows.rowCount) {
    exit(thread);
    return -1;
  }
  fillRow(core, row, request);
  rows.ticket.put(row, queue.ticketNext.get(0));
  store(thread.words, rows.state.address(row), WAITER_STATE.waiting);
  journal.set(rows.slot, row, thread.tag);
  journal.setDouble(queue.ticketNext, 0, queue.ticketNext.get(0) + 1);
  journal.set(queue.count, 0, queue.count.get(0) + 1);
  if (VERIFY) faultPoint(thread, 'vmem.queue.joining');
  exit(thread);
  if (VERIFY) faultPoint(thread, 'vmem.queue.joined');
  return row;
}

/** Plain stores: nobody looks at a row that is not in use. */
function fillRow(core: ArenaCore, row: WaiterIndex, { size, constraints, cached }: WaitingRequest): void {
  const { spaceWaiter: rows } = core.tables;
  rows.arena.put(row, core.row + 1);
  rows.generation.put(row, core.generation);
  rows.order.put(row, classOf(core, size));
  for (const column of [rows.overtaken, rows.misfit, rows.barred, rows.held]) column.put(row, 0);
  rows.cached.put(row, cached ? 1 : 0);
  rows.size.put(row, size);
  rows.align.put(row, constraints === null ? 0 : constraints.align);
  rows.phase.put(row, constraints === null ? 0 : constraints.phase);
  rows.nocross.put(row, constraints === null ? 0 : constraints.nocross);
  rows.min.put(row, constraints === null ? 0 : constraints.min);
  rows.max.put(row, constraints === null ? ADDRESS_MAX : constraints.max);
}

/** The constraints of a waiting request; null when there are none. */
export function constraintsOf(core: ArenaCore, row: WaiterIndex): Constraints | null {
  const { align, phase, nocross, min, max } = core.tables.spaceWaiter;
  if (align.get(row) === 0) return null;
  return {
    align: align.get(row),
    phase: phase.get(row),
    nocross: nocross.get(row),
    min: min.get(row),
    max: max.get(row),
  };
}

/** Takes a request out of the queue and tells the others. Called without a lock. */
export function leaveQueue(core: ArenaCore, row: WaiterIndex, served: boolean): void {
  const { thread } = core;
  const { spaceQueue: queue } = core.tables;
  enter(thread);
  removeRow(thread, row);
  if (served) thread.journal.setDouble(queue.served, 0, queue.served.get(0) + 1);
  if (VERIFY) faultPoint(thread, 'vmem.queue.leaving');
  thread.commit();
  if (VERIFY) faultPoint(thread, 'vmem.queue.left');
  tellAll(thread, core.row);
  exit(thread);
}

/** Step 2: marks the request as waiting again, before it tries. */
export function markWaiting(core: ArenaCore, row: WaiterIndex): void {
  const { held, state } = core.tables.spaceWaiter;
  held.put(row, 1);
  store(core.thread.words, state.address(row), WAITER_STATE.waiting);
}

/** Step 3 was in vain, and not for a place that is kept for another request. */
export function noteUnheld(core: ArenaCore, row: WaiterIndex): void {
  core.tables.spaceWaiter.held.put(row, 0);
}

/** Says whether something else than space keeps the request from being served. True when it does as of now. */
export function noteBarred(core: ArenaCore, row: WaiterIndex, barred: boolean): boolean {
  const { barred: column } = core.tables.spaceWaiter;
  const before = column.get(row) !== 0;
  column.put(row, barred ? 1 : 0);
  return barred && !before;
}

/**
 * Space was taken, or a request that has a place cannot have it: what was kept may be so no longer, and those who were
 * refused it are told. Called without a lock; one load when nobody waits, else a look at each row. `row` is not told.
 */
export function announceTaken(core: ArenaCore, row: WaiterIndex): void {
  if (core.words[core.waitersAt] === 0) return;
  const { thread } = core;
  const { spaceWaiter: rows } = core.tables;
  let entered = false;
  for (let other = 0; other < rows.rowCount; other++) {
    if (rows.held.get(other) === 0 || rows.slot.get(other) === 0 || other === row) continue;
    if (!entered) enter(thread);
    entered = true;
    if (rows.slot.get(other) !== 0 && drawsOn(thread, rows.arena.get(other) - 1, core.row)) tell(thread, other);
  }
  if (entered) exit(thread);
}

/** True when no earlier request asks the arena for the same. A look without the lock. */
export function isFirstOfItsKind(core: ArenaCore, row: WaiterIndex): boolean {
  const { spaceWaiter: rows } = core.tables;
  for (let other = 0; other < rows.rowCount; other++) {
    if (rows.slot.get(other) === 0 || rows.ticket.get(other) >= rows.ticket.get(row)) continue;
    if (asksForTheSame(core.thread, other, row)) return false;
  }
  return true;
}

/** Space came back to the arena: tells whoever may use it. Called without a lock; cheap when nobody waits. */
export function announceSpace(core: ArenaCore): void {
  if (core.words[core.waitersAt] === 0) return;
  enter(core.thread);
  if (VERIFY) faultPoint(core.thread, 'vmem.queue.announcing');
  tellAll(core.thread, core.row);
  exit(core.thread);
}

/**
 * Step `take`: true when a request may take what it found; each waiter whom that deprives is counted. `row` is that of the
 * request itself, `NO_WAITER` for one that does not wait; `deprives` says which of those ahead have a place now and will have
 * none. `take` is done in the same section. Under a lock under which nothing is logged.
 */
export function passWaiters(
  core: ArenaCore,
  size: number,
  row: WaiterIndex,
  deprives: (ahead: readonly WaiterIndex[]) => readonly WaiterIndex[],
  take?: () => void,
): boolean {
  const { thread } = core;
  const { overtaken } = core.tables.spaceWaiter;
  const { slots } = thread.region.geometry;
  enter(thread);
  const ahead = listAhead(core, size, row);
  const deprived = ahead.length === 0 ? ahead : deprives(ahead);
  let allowed = true;
  for (const other of deprived) allowed &&= row === NO_WAITER && overtaken.get(other) < slots;
  if (allowed) {
    for (const other of deprived) overtaken.put(other, overtaken.get(other) + 1);
    take?.();
  }
  if (VERIFY) faultPoint(thread, 'vmem.queue.passing');
  exit(thread);
  return allowed;
}

/** Requests of the class that came earlier, first those that came first. Under the queue's lock. */
function listAhead(core: ArenaCore, size: number, row: WaiterIndex): WaiterIndex[] {
  const { spaceWaiter: rows, spaceQueue: queue } = core.tables;
  const order = classOf(core, size);
  const ahead: WaiterIndex[] = [];
  for (let other = 0, left = queue.count.get(0); left > 0 && other < rows.rowCount; other++) {
    if (rows.slot.get(other) === 0) continue;
    left--;
    if (rows.arena.get(other) !== core.row + 1 || rows.order.get(other) !== order) continue;
    if (rows.generation.get(other) !== core.generation || isBarred(core, other)) continue;
    if (row === NO_WAITER || rows.ticket.get(other) < rows.ticket.get(row)) ahead.push(other);
  }
  return ahead.sort((a, b) => rows.ticket.get(a) - rows.ticket.get(b));
}

/** True when a limit, or missing tags, keep a request of the arena from the place that it has. */
function isBarred(core: ArenaCore, row: WaiterIndex): boolean {
  const { slot, size, barred } = core.tables.spaceWaiter;
  if (!core.charges) return barred.get(row) !== 0;
  const { region } = core.thread;
  // What it found when it tried may be long ago.
  const owner = region.tables.slot.owner.get(slot.get(row) - 1);
  return ledgerUse(region, owner).used + size.get(row) > ledgerLimit(region, owner);
}

/**
 * Removes the requests of a dead slot, and tells all others: also where the slot had freed something and died before
 * it said so. Called without a lock.
 */
export function recoverQueue(thread: Thread, dead: SlotIndex): void {
  const { spaceWaiter: rows, spaceQueue: queue } = thread.region.tables;
  if (queue.count.get(0) === 0) return;
  enter(thread);
  for (let row = 0; row < rows.rowCount; row++) if (rows.slot.get(row) === dead + 1) removeRow(thread, row);
  thread.commit();
  for (let row = 0; row < rows.rowCount; row++) if (rows.slot.get(row) !== 0) wake(thread, row);
  exit(thread);
}

/** Tells everybody who waits, in whichever arena: a limit has changed. Called without a lock. */
export function announceLimits(thread: Thread): void {
  if (thread.region.tables.spaceQueue.count.get(0) === 0) return;
  enter(thread);
  for (let row = 0; row < thread.region.tables.spaceWaiter.rowCount; row++) {
    if (thread.region.tables.spaceWaiter.slot.get(row) !== 0) tell(thread, row);
  }
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

/** True when two requests of one class ask one arena for the same, so that the earlier one is served first. */
function asksForTheSame(thread: Thread, row: WaiterIndex, other: WaiterIndex): boolean {
  const { arena, generation, cached, size, align, phase, nocross, min, max } = thread.region.tables.spaceWaiter;
  if (arena.get(row) !== arena.get(other) || size.get(row) !== size.get(other)) return false;
  if (generation.get(row) !== generation.get(other) || cached.get(row) !== cached.get(other)) return false;
  for (const column of [align, phase, nocross, min, max]) if (column.get(row) !== column.get(other)) return false;
  return true;
}

/** Tells those who wait in the arena, and in arenas that import from it. Under the queue's lock. */
function tellAll(thread: Thread, arena: ArenaIndex): void {
  const { spaceWaiter: rows, spaceQueue: queue } = thread.region.tables;
  const first: WaiterIndex[] = [];
  for (let row = 0, left = queue.count.get(0); left > 0 && row < rows.rowCount; row++) {
    if (rows.slot.get(row) === 0) continue;
    left--;
    if (!drawsOn(thread, rows.arena.get(row) - 1, arena)) continue;
    let at = 0;
    while (at < first.length && !isOfKind(thread, first[at] as number, row)) at++;
    if (at === first.length) first.push(row);
    else if (rows.ticket.get(row) < rows.ticket.get(first[at] as number)) first[at] = row;
  }
  for (const row of first) tell(thread, row);
}

/** True when two requests ask for the same and are of one thread. */
function isOfKind(thread: Thread, row: WaiterIndex, other: WaiterIndex): boolean {
  const { slot } = thread.region.tables.spaceWaiter;
  return slot.get(row) === slot.get(other) && asksForTheSame(thread, row, other);
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
  if (VERIFY) faultPoint(thread, 'vmem.queue.telling');
  notify(thread.words, address, ALL_WAITERS);
}

/**
 * True when somebody waits whom a span that the arena gives back may serve: in one that it imports from, or that imports from
 * the same. Called without a lock.
 */
export function sourceIsWaitedFor(core: ArenaCore): boolean {
  const { thread } = core;
  const { spaceWaiter: rows, spaceQueue: queue } = core.tables;
  if (core.words[core.waitersAt] === 0 || core.importArena < 0) return false;
  let found = false;
  enter(thread);
  for (let row = 0, left = queue.count.get(0); left > 0 && !found && row < rows.rowCount; row++) {
    if (rows.slot.get(row) === 0) continue;
    left--;
    const arena = rows.arena.get(row) - 1;
    found = !drawsOn(thread, arena, core.row) && rootOf(thread, arena) === rootOf(thread, core.row);
  }
  exit(thread);
  return found;
}

/** True when a range of an arena serves a request that waits, there or in an importer. Under the arena's lock, nothing logged. */
export function isAwaited(core: ArenaCore, start: number, size: number): boolean {
  const { thread } = core;
  const { spaceWaiter: rows, spaceQueue: queue } = core.tables;
  let found = false;
  enter(thread);
  for (let row = 0, left = queue.count.get(0); left > 0 && !found && row < rows.rowCount; row++) {
    if (rows.slot.get(row) === 0) continue;
    left--;
    if (rows.barred.get(row) !== 0 || rows.size.get(row) > size) continue;
    if (!drawsOn(thread, rows.arena.get(row) - 1, core.row)) continue;
    const constraints = constraintsOf(core, row);
    found = constraints === null || fitSegment(start, size, rows.size.get(row), constraints) >= 0;
  }
  exit(thread);
  return found;
}

/** The arena that is at the end of imports. */
function rootOf(thread: Thread, arena: ArenaIndex): ArenaIndex {
  const { importArena, rowCount } = thread.region.tables.arena;
  let at = arena;
  for (let steps = rowCount; importArena.get(at) !== 0 && steps > 0; steps--) at = importArena.get(at) - 1;
  return at;
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
