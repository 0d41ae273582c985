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

/** What it says after each round. */
export interface PairsWorkerResult {
  readonly pairs: number;
  readonly ms: number;
}

const RUN_MS = 80;
const BATCH = 512;

/** Pairs for a moment, and how long the moment was. */
function runFor(pairs: Pairs): PairsWorkerResult {
  const start = performance.now();
  let count = 0;
  let ms = 0;
  while (ms < RUN_MS) {
    pairs.run(BATCH);
    count += BATCH;
    ms = performance.now() - start;
  }
  return { pairs: count, ms };
}

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
  for (;;) {
    const [order] = (await once(port, 'message')) as [string];
    if (order === 'end') break;
    port.postMessage(runFor(pairs));
  }
  pairs.empty();
  vm.detach();
  port.close();
}
