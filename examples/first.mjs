// Two workers allocate from one arena and read one file through one page cache.
// In the repository: npm ci && npm run build && node examples/first.mjs
import { isMainThread, workerData } from 'node:worker_threads';
import { attach, boot } from 'pagewright';

const vm = isMainThread ? boot({ memory: '16 MiB' }) : attach(workerData.vm);
if (isMainThread) {
  for (const worker of [1, 2]) vm.spawn(new URL(import.meta.url), { name: `worker ${worker}` });
} else {
  const address = vm.heap.alloc(64); // bytes that every thread can reach
  const length = vm.open('package.json').readTo(0, address, 64); // read from disk once, for both
  console.log(`slot ${vm.slot}, address ${address}: ${Buffer.from(vm.banks.view(address, length))}`);
}
