/** One of several workers that allocate from one arena at the same time. */

import { once } from 'node:events';
import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Pairs, type Sizes } from './vmem-pairs.ts';
import { ArenaSubject, ConstrainedSubject } from './vmem-subjects.ts';

/** What the worker is told. */
export interface PairsWorkerData {
  readonly arena: string;
  readonly live: number;
  readonly sizes: Sizes;
  readonly constrained: boolean;
  readonly seed: number;
}

/** What it says at the end. */
export interface PairsWorkerResult {
  readonly pairs: number;
  readonly ms: number;
}

const RUN_MS = 400;
const WARM_UP_MS = 150;
const BATCH = 512;

if (parentPort !== null) {
  const port = parentPort;
  const data = workerData as PairsWorkerData & { vm: unknown };
  const vm = attach(data.vm);
  const arena = vm.arena(data.arena);
  const pairs = new Pairs(
    data.constrained ? new ConstrainedSubject(arena) : new ArenaSubject(arena),
    data.live,
    data.sizes,
    data.seed,
  );
  pairs.fill();
  port.postMessage('ready');
  await once(port, 'message');
  const warmUntil = performance.now() + WARM_UP_MS;
  while (performance.now() < warmUntil) pairs.run(BATCH);
  const start = performance.now();
  let count = 0;
  let ms = 0;
  while (ms < RUN_MS) {
    pairs.run(BATCH);
    count += BATCH;
    ms = performance.now() - start;
  }
  port.postMessage({ pairs: count, ms } satisfies PairsWorkerResult);
  await once(port, 'message');
  pairs.empty();
  vm.detach();
  port.close();
}
