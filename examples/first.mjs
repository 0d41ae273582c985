// Two workers allocate from one arena and read one file through one page cache.
// In the repository: npm ci && npm run build && node examples/first.mjs
import { once } from 'node:events';
import { isMainThread, workerData } from 'node:worker_threads';
import { attach, boot, shutDown } from 'pagewright';

if (isMainThread) {
  const vm = boot({ memory: '16 MiB' });
  vm.createArena('ids', { base: 1, size: 1000 });
  await Promise.all([1, 2].map(() => once(vm.spawn(new URL(import.meta.url)), 'exit')));
  await shutDown(vm);
} else {
  const vm = attach(workerData.vm);
  const id = vm.arena('ids').alloc(1); // a number that the other worker cannot get
  const address = vm.heap.alloc(64); // bytes of the memory that both share
  const length = vm.open('package.json').readTo(0, address, 64); // read from disk once, for both
  console.log(`worker ${id}: ${length} bytes at ${address}: ${Buffer.from(vm.banks.view(address, 20)).toString()}`);
  vm.detach();
}
