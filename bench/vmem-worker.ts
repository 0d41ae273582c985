/** One of several workers that allocate from one arena at the same time. */

import { once } from 'node:events';
import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Pairs } from './vmem-pairs.ts';
import type { Shape } from './vmem-shape.ts';
import { ArenaSubject, ConstrainedSubject } from './vmem-subjects.ts';

/** What the worker is told. */
export interface PairsWorkerData {
  readonly arena: string;
  readonly live: number;
  /** Null: compute, and touch nothing shared. */
  readonly shape: Shape | null;
  readonly seed: number;
}

/** What it says after each round. */
export interface PairsWorkerResult {
  readonly pairs: number;
  readonly ms: number;
}

const RUN_MS = 80;
const BATCH = 512;

/** Runs batches for a moment, and says how long the moment was. */
function runFor(batch: () => void): PairsWorkerResult {
  const start = performance.now();
  let pairs = 0;
  let ms = 0;
  while (ms < RUN_MS) {
    batch();
    pairs += BATCH;
    ms = performance.now() - start;
  }
  return { pairs, ms };
}

let sum = 0;

/** What a loop that touches nothing shared does instead of pairs: a hundred steps each. */
function compute(): void {
  for (let step = 0; step < 100 * BATCH; step++) sum = (Math.imul(sum, 31) + step) | 0;
}

if (parentPort !== null) {
  const port = parentPort;
  const { arena: name, live, shape, seed, vm: handle } = workerData as PairsWorkerData & { vm: unknown };
  const vm = attach(handle);
  const arena = vm.arena(name);
  const subject = shape?.constrained ? new ConstrainedSubject(arena) : new ArenaSubject(arena);
  const pairs = shape === null ? null : new Pairs(subject, live, shape.sizes, seed);
  pairs?.fill();
  port.postMessage('ready');
  for (;;) {
    const [order] = (await once(port, 'message')) as [string];
    if (order === 'end') break;
    port.postMessage(runFor(pairs === null ? compute : () => pairs.run(BATCH)));
  }
  pairs?.empty();
  arena.drain();
  vm.detach();
  port.close();
}
