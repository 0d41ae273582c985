/**
 * Uses up boundary tags of an arena of its own and gives them back, over and over: what it shares with others of its kind is
 * the pool of tags, and the arena that they come from. Each address that it has is its own: one that comes twice is seen.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng } from 'pagewright/base';
import { load } from 'pagewright/sync';

const { seed, stop } = workerData as { seed: number; stop: Int32Array };
const vm = attach(workerData.vm);
const random = new Prng(seed, vm.attachment);
const arena = vm.createArena(`tags of slot ${vm.slot}`, { size: 2 ** 20 });
const live = new Set<number>();
parentPort?.postMessage({ slot: vm.slot });

let rounds = 0;
for (; load(stop, 0) === 0; rounds++) {
  for (let more = random.between(100, 500); more > 0; more--) {
    const address = arena.tryAlloc(1);
    if (address < 0) break;
    if (live.has(address)) throw new Error(`address ${address} was given twice, seed ${seed}`);
    live.add(address);
  }
  const kept = random.chance(0.5) ? 0 : random.between(0, live.size);
  for (const address of live) {
    if (live.size <= kept) break;
    live.delete(address);
    arena.free(address, 1);
  }
  arena.trim();
}
for (const address of live) arena.free(address, 1);
arena.destroy();
const contended = vm.region.tables.slot.contended.get(vm.slot);
vm.detach();
parentPort?.postMessage({ rounds, contended });
