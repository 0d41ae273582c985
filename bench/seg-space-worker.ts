/** One of several workers that make pages of anonymous memory at the same time. */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import type { AddressSpaceId } from 'pagewright/seg';

/** What the worker is told. */
export interface PagesWorkerData {
  /** Null: compute, and touch nothing shared. */
  readonly space: AddressSpaceId | null;
  readonly at: number;
  readonly pages: number;
}

/** What it says after each round. */
export interface PagesWorkerResult {
  readonly rounds: number;
  readonly ms: number;
}

const RUN_MS = 60;
const PAGE = 4096;

const { space, at, pages, vm: handle } = workerData as PagesWorkerData & { readonly vm: Parameters<typeof attach>[0] };
const vm = attach(handle);
const as = space === null ? null : vm.addressSpace(space);
let sum = 0;

/** Makes every page by a store, and gives all of them up again. */
function round(): void {
  if (as === null) {
    for (let step = 0; step < pages * 1000; step++) sum = (Math.imul(sum, 31) + step) | 0;
    return;
  }
  for (let page = 0; page < pages; page++) as.store(at + page * PAGE, page);
  as.advise(at, pages * PAGE, 'free');
}

function run(): PagesWorkerResult {
  const start = performance.now();
  let rounds = 0;
  let ms = 0;
  while (ms < RUN_MS) {
    round();
    rounds++;
    ms = performance.now() - start;
  }
  return { rounds, ms };
}

for (let warm = 0; warm < 5; warm++) run();
parentPort?.on('message', (message: 'run' | 'end') => {
  if (message === 'run') parentPort?.postMessage(run());
  else {
    if (Number.isNaN(sum)) throw new Error('no sum');
    vm.detach();
    parentPort?.close();
  }
});
parentPort?.postMessage('ready');
