/** Increments two guarded words under one mutex, journaled, until told to stop or for a number of rounds. */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { add, load, Mutex } from 'pagewright/sync';

const { rounds, dieHolding, parties } = workerData as { rounds: number; dieHolding: boolean; parties: number };
const vm = attach(workerData.vm);
const { arena, arenaState } = vm.region.tables;
const mutex = new Mutex(vm.thread, arena.lock.address(0), 900);
// Start together: short runs would otherwise follow one another.
const arrived = arena.generation.address(0);
add(vm.region.words, arrived, 1);
while (load(vm.region.words, arrived) < parties) {}
for (let round = 0; round < rounds; round++) {
  mutex.enter();
  vm.thread.journal.set(arenaState.busyTags, 0, arenaState.busyTags.get(0) + 1);
  if (dieHolding && round === rounds - 1) {
    parentPort?.postMessage('holding');
    for (;;) arenaState.spanCount.get(0);
  }
  vm.thread.journal.set(arenaState.busyTagsPeak, 0, arenaState.busyTagsPeak.get(0) + 1);
  mutex.exit();
}
const contended = vm.region.tables.slot.contended.get(vm.slot);
vm.detach();
parentPort?.postMessage({ contended });
