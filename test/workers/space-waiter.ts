/** Takes all of a small arena's space in pieces of changing sizes, waiting for each, and gives it back. */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng } from 'pagewright/base';
import { exchange, load } from 'pagewright/sync';

const { seed, cookies, stop } = workerData as { seed: number; cookies: Int32Array; stop: Int32Array };
const vm = attach(workerData.vm);
const arena = vm.arena('scarce');
const random = new Prng(seed, vm.attachment);
parentPort?.postMessage({ slot: vm.slot, attachment: vm.attachment });

let served = 0;
let longestMs = 0;
while (load(stop, 0) === 0) {
  const size = random.between(1, 48);
  const began = performance.now();
  const address = arena.allocWait(size, { timeoutMs: 100_000, ...(random.chance(0.2) ? { align: 16 } : {}) });
  longestMs = Math.max(longestMs, performance.now() - began);
  for (let unit = address; unit < address + size; unit++) {
    if (exchange(cookies, unit, vm.slot + 1) !== 0) throw new Error(`unit ${unit} was given out twice, seed ${seed}`);
  }
  for (let unit = address; unit < address + size; unit++) exchange(cookies, unit, 0);
  arena.xfree(address, size);
  served++;
}
const slept = vm.region.tables.slot.slept.get(vm.slot);
vm.detach();
parentPort?.postMessage({ served, longestMs, slept });
