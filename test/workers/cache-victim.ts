/**
 * Allocates and frees until told to stop, and comes to rest where it is asked to: `cached` from an arena with quantum caches,
 * in swings that make magazines change hands; `scarce` from an arena that all others want as well, waiting for space.
 *
 * Each unit has a cookie that names the slot that has it; a unit that is given out twice, or changes under its owner, is an
 * error.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng, VmError } from 'pagewright/base';
import { add, exchange, load, wait } from 'pagewright/sync';

const { seed, role, cookies, control } = workerData as {
  seed: number;
  role: 'cached' | 'scarce';
  cookies: Int32Array;
  /** Stop, rest, how many rest, operations; then number and state of a token that is cancelled now and then. */
  control: Int32Array;
};

const vm = attach(workerData.vm);
const arena = vm.arena(role);
const random = new Prng(seed, vm.attachment);
const live: { address: number; size: number }[] = [];
let served = 0;

function take(address: number, size: number): void {
  for (let unit = address; unit < address + size; unit++) {
    const before = exchange(cookies, unit, vm.slot + 1);
    if (before !== 0) throw new Error(`unit ${unit} was given out twice: slot ${before - 1} has it, seed ${seed}`);
  }
  live.push({ address, size });
}

function give(at: number): { address: number; size: number } {
  const piece = live[at] as { address: number; size: number };
  live[at] = live[live.length - 1] as { address: number; size: number };
  live.pop();
  for (let unit = piece.address; unit < piece.address + piece.size; unit++) {
    if (exchange(cookies, unit, 0) !== vm.slot + 1)
      throw new Error(`unit ${unit} is no more its owner's, seed ${seed}`);
  }
  return piece;
}

/** Up to as many as magazines do not hold, and down again. */
function swing(): void {
  const most = random.between(20, 200);
  while (live.length < most) {
    const size = random.between(1, 16);
    const address = arena.tryAlloc(size);
    if (address < 0) break;
    take(address, size);
  }
  const least = random.chance(0.5) ? 0 : random.below(20);
  while (live.length > least) {
    const { address, size } = give(random.below(live.length));
    arena.free(address, size);
  }
  if (random.chance(0.1)) arena.trim();
}

/** One piece, waited for and held for a moment. */
function queue(): void {
  const size = random.between(4, 32);
  const cancel = vm.locks.cancelToken({ token: load(control, 4), state: load(control, 5) });
  try {
    take(arena.allocWait(size, { timeoutMs: random.chance(0.3) ? 2 : 10_000, cancel }), size);
    served++;
  } catch (error) {
    if (!(error instanceof VmError) || !['ETIMEDOUT', 'ECANCELED'].includes(error.code)) throw error;
  }
  for (let i = random.below(200); i > 0; i--) load(control, 0);
  while (live.length > 0) {
    const { address, size: held } = give(0);
    arena.xfree(address, held);
  }
}

parentPort?.postMessage({ slot: vm.slot, attachment: vm.attachment });
while (load(control, 0) === 0) {
  if (load(control, 1) !== 0) {
    parentPort?.postMessage({ resting: live });
    add(control, 2, 1);
    wait(control, 1, 1, 60_000);
    add(control, 2, -1);
  }
  if (role === 'cached') swing();
  else queue();
  add(control, 3, 1);
}
while (live.length > 0) {
  const { address, size } = give(0);
  if (role === 'cached') arena.free(address, size);
  else arena.xfree(address, size);
}
const { contended, slept } = vm.region.tables.slot;
const result = { contended: contended.get(vm.slot), slept: slept.get(vm.slot), served };
vm.detach();
parentPort?.postMessage(result);
