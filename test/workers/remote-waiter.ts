/** Blocks in `allocWait` for space of a source that answers later and that this thread cannot run, again and again, once told to. */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';

const { rounds } = workerData as { rounds: number };
const vm = attach(workerData.vm);
const arena = vm.arena('leases');
parentPort?.postMessage({ slot: vm.slot });

parentPort?.once('message', () => {
  const got: number[] = [];
  for (let round = 0; round < rounds; round++) got.push(arena.allocWait(10, { timeoutMs: 100_000 }));
  vm.detach();
  parentPort?.postMessage({ got });
});
