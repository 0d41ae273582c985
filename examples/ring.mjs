// A producer and a consumer over one ring in shared memory: no message is posted, no byte is copied between threads.
// In the repository: npm ci && npm run build && node examples/ring.mjs
import { isMainThread, workerData } from 'node:worker_threads';
import { attach, boot } from 'pagewright';
import { load, notify, store, wait } from 'pagewright/sync';

const SIZE = 1024; // numbers in the ring
const TOTAL = 100_000;
const TAIL = 0; // words: how many were produced,
const HEAD = 32; // how many were consumed: 128 bytes apart, so that the two threads do not slow each other down,
const FIRST = 64; // and the ring
const BYTES = (FIRST + SIZE) * 4;

const vm = isMainThread ? boot({ memory: '16 MiB' }) : attach(workerData.vm);
const address = isMainThread ? vm.heap.alloc(BYTES) : workerData.ring; // all threads use the same addresses
const { buffer, byteOffset } = vm.banks.view(address, BYTES);
const ring = new Int32Array(buffer, byteOffset, FIRST + SIZE);

if (isMainThread) {
  store(ring, TAIL, 0); // memory of the heap holds what was there before
  store(ring, HEAD, 0);
  const consumer = vm.spawn(new URL(import.meta.url), { workerData: { ring: address } });
  for (let tail = 0; tail < TOTAL; tail++) {
    for (let head = load(ring, HEAD); tail - head === SIZE; head = load(ring, HEAD)) wait(ring, HEAD, head, 1000);
    ring[FIRST + (tail % SIZE)] = tail * 3;
    store(ring, TAIL, tail + 1); // what was stored before is visible to whoever sees this
    notify(ring, TAIL, 1);
  }
  consumer.once('exit', () => vm.heap.free(address, BYTES));
} else {
  let sum = 0;
  for (let head = 0; head < TOTAL; head++) {
    while (load(ring, TAIL) === head) wait(ring, TAIL, head, 1000);
    sum += ring[FIRST + (head % SIZE)];
    store(ring, HEAD, head + 1);
    notify(ring, HEAD, 1);
  }
  const right = sum === (3 * TOTAL * (TOTAL - 1)) / 2;
  console.log(`${TOTAL} numbers went through ${SIZE} places; their sum is ${right ? 'right' : `${sum}: wrong`}`);
  vm.detach();
}
