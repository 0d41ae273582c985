/** Takes and gives back space of a source that answers later and that this thread can run, counting in a shared cell. */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { exchange, load } from 'pagewright/sync';
import type { AsyncSpanSource } from 'pagewright/vmem';

const { cells, stop } = workerData as { cells: Int32Array; stop: Int32Array };
const vm = attach(workerData.vm);
const SIZE = 16;

/** Leases: the shared cells say which blocks are out. One that a dead thread had asked for is never given again. */
const leases: AsyncSpanSource = {
  async importAsync(size) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    for (let block = 0; block < cells.length; block++) if (exchange(cells, block, 1) === 0) return block * size;
    return -1;
  },
  release: (start, size) => exchange(cells, start / size, 0),
};
vm.callbacks.register('leases here', leases);
const arena = vm.arena('leases');
parentPort?.postMessage({ slot: vm.slot });

let served = 0;
while (load(stop, 0) === 0) {
  const address = await arena.allocAsync(SIZE, { timeoutMs: 100_000 });
  arena.free(address, SIZE);
  // So that the next one is imported again.
  arena.trim();
  served++;
}
vm.detach();
parentPort?.postMessage({ served });
