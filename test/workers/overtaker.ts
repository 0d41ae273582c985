/**
 * Takes and gives back the one piece that an arena has room for, and counts whom it overtakes: each request that waited when
 * this one began, and still waits while this one has the piece. As long as it has it, nobody can have been served meanwhile.
 *
 * `churn` never waits, `wait` blocks its thread, `busy` waits in an event loop that it keeps busy.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng } from 'pagewright/base';
import { add, exchange, load, wait } from 'pagewright/sync';

const { seed, role, sizeMin, sizeMax, cached, control, overtaken } = workerData as {
  seed: number;
  role: 'churn' | 'wait' | 'busy';
  sizeMin: number;
  sizeMax: number;
  cached: boolean;
  /** Stop, who has the piece, then how many turns each role had. */
  control: Int32Array;
  /** By ticket. */
  overtaken: Int32Array;
};

const ROLES = ['churn', 'wait', 'busy'];
const vm = attach(workerData.vm);
const arena = vm.arena('one');
const random = new Prng(seed, vm.attachment);
const { spaceWaiter: rows, spaceQueue: queue } = vm.region.tables;

/**
 * Tickets of requests that wait: none of one that is just joining the queue, which it has done when the count says so. Until
 * then it holds the queue's lock, and whoever finds others counted waits for that.
 */
function waiting(): number[] {
  const tickets: number[] = [];
  for (let row = 0; row < rows.rowCount; row++) {
    // The ticket is written before the row is in use: one that is the same on both sides is that of who uses it in between.
    const ticket = rows.ticket.get(row);
    if (rows.slot.get(row) !== 0 && rows.ticket.get(row) === ticket) tickets.push(ticket);
  }
  return queue.count.get(0) === 0 ? [] : tickets;
}

/** Has the piece for a moment. `before`: tickets of those who waited when the request began. */
function hold(address: number, size: number, before: readonly number[]): void {
  if (exchange(control, 1, vm.slot + 1) !== 0) throw new Error(`two have the piece, seed ${seed}`);
  const now = new Set(waiting());
  for (const ticket of before) if (now.has(ticket)) add(overtaken, ticket % overtaken.length, 1);
  add(control, 2 + ROLES.indexOf(role), 1);
  for (let i = random.below(100); i > 0; i--) load(control, 0);
  exchange(control, 1, 0);
  if (cached) arena.free(address, size);
  else arena.xfree(address, size);
}

function spin(ms: number): void {
  for (const end = performance.now() + ms; performance.now() < end; ) load(control, 0);
}

parentPort?.postMessage({ slot: vm.slot });
while (load(control, 0) === 0) {
  const size = random.between(sizeMin, sizeMax);
  const before = waiting();
  if (role === 'churn') {
    const address = cached ? arena.tryAlloc(size) : arena.tryXalloc(size);
    if (address >= 0) hold(address, size, before);
  } else if (role === 'wait') {
    hold(arena.allocWait(size, { timeoutMs: 100_000 }), size, before);
    // Those who never wait get nothing while it waits, but for what they may overtake.
    wait(control, 0, 0, 1);
  } else {
    const promise = arena.allocAsync(size, { timeoutMs: 100_000 });
    spin(random.between(1, 8));
    hold(await promise, size, before);
  }
}
const { contended, slept } = vm.region.tables.slot;
const result = { contended: contended.get(vm.slot), slept: slept.get(vm.slot) };
vm.detach();
parentPort?.postMessage(result);
