/** Increments two guarded words under one mutex, journaled, until told to stop or for a number of rounds. */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { add, load, Mutex } from 'pagewright/sync';

const { rounds, dieHolding, parties } = workerData as { rounds: number; dieHolding: boolean; parties: number };
const vm = attach(workerData.vm);
const { arena, arenaState } = vm.region.tables;
// A row that no arena uses: its lock and two of its words.
const row = arena.rowCount - 2;
const mutex = new Mutex(vm.thread, arena.lock.address(row), 900);
// Start together: short runs would otherwise follow one another.
const arrived = arena.generation.address(row);
add(vm.region.words, arrived, 1);
while (load(vm.region.words, arrived) < parties) {}
for (let round = 0; round < rounds; round++) {
  mutex.enter();
  vm.thread.journal.set(arenaState.busyTags, row, arenaState.busyTags.get(row) + 1);
  if (dieHolding && round === rounds - 1) {
    parentPort?.postMessage('holding');
    for (;;) arenaState.spanCount.get(row);
  }
  vm.thread.journal.set(arenaState.busyTagsPeak, row, arenaState.busyTagsPeak.get(row) + 1);
  mutex.exit();
}
const contended = vm.region.tables.slot.contended.get(vm.slot);
vm.detach();
parentPort?.postMessage({ contended });
