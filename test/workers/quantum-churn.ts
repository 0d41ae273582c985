/**
 * Allocates and frees ids from a cached arena as fast as it can, marks each id in a table of cookies that all workers share,
 * and passes ids to the other workers through mailbox cells, so that they free what this one allocated.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng } from 'pagewright/base';
import { exchange, load } from 'pagewright/sync';

const { seed, cookies, cells, stop } = workerData as {
  seed: number;
  cookies: Int32Array;
  cells: Int32Array;
  stop: Int32Array;
};
const vm = attach(workerData.vm);
const arena = vm.arena('ids');
const random = new Prng(seed, vm.attachment);
const live: number[] = [];
parentPort?.postMessage({ slot: vm.slot, attachment: vm.attachment });

/** Sizes are a function of the id, so that whoever frees an id knows its size. */
function sizeOf(id: number): number {
  return cookies[id] as number;
}

function take(): void {
  const size = random.between(1, 16);
  const id = arena.tryAlloc(size);
  if (id < 0) return;
  for (let unit = id; unit < id + size; unit++) {
    const before = exchange(cookies, unit, unit === id ? size : 99);
    if (before !== 0) throw new Error(`unit ${unit} was given out twice: cookie ${before}, seed ${seed}`);
  }
  live.push(id);
}

function give(id: number): void {
  const size = sizeOf(id);
  for (let unit = id + size - 1; unit >= id; unit--) exchange(cookies, unit, 0);
  arena.free(id, size);
}

let operations = 0;
while (load(stop, 0) === 0) {
  if (live.length < 300 && random.chance(0.55)) take();
  else if (live.length > 0) {
    const at = random.below(live.length);
    const id = live[at] as number;
    live[at] = live[live.length - 1] as number;
    live.pop();
    if (random.chance(0.5)) give(id);
    else {
      const other = exchange(cells, random.below(cells.length), id + 1);
      if (other !== 0) give(other - 1);
    }
  }
  // Takes what the other workers have cached from under their hands.
  if (random.chance(0.002)) arena.trim();
  operations++;
}
for (const id of live) give(id);
const contended = vm.region.tables.slot.contended.get(vm.slot);
vm.detach();
parentPort?.postMessage({ operations, contended });
