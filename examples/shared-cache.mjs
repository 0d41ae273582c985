// A cache that a pool of workers shares: each reads the same file in blocks of its choice, and the first to want a page
// brings it for all. In the repository: npm ci && npm run build && node examples/shared-cache.mjs
import { once } from 'node:events';
import { statSync } from 'node:fs';
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { attach, boot } from 'pagewright';

const PATH = 'package-lock.json';
const READS = 2000;

const vm = isMainThread ? boot({ memory: '16 MiB' }) : attach(workerData.vm);
if (isMainThread) {
  const workers = [1, 2, 3, 4].map((seed) => vm.spawn(new URL(import.meta.url), { workerData: { seed } }));
  const sums = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0]));
  const pages = Math.ceil(statSync(PATH).size / 4096);
  const { misses } = vm.statistics().pages;
  console.log(`${workers.length} workers read ${workers.length * READS} blocks; sums ${sums.join(', ')}`);
  console.log(`the file has ${pages} pages; ${misses} were not there when a worker wanted them, and read for all`);
} else {
  const file = vm.open(PATH);
  const block = vm.heap.alloc(256); // shared memory; where it lies is only this worker's business
  const bytes = vm.banks.view(block, 256);
  let sum = 0;
  for (let read = 0; read < READS; read++) {
    const at = (read * 2654435761 * workerData.seed) % file.size;
    const length = file.readTo(at, block, 256); // a hit takes no lock; a miss reads one page
    for (let index = 0; index < length; index++) sum = (sum + bytes[index]) % 1e9;
  }
  vm.heap.free(block, 256);
  file.close();
  vm.detach();
  parentPort.postMessage(sum);
}
