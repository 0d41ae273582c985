/** Hits of one and two workers at the same time, beside a loop of arithmetic in as many. */

import { once } from 'node:events';
import type { Worker } from 'node:worker_threads';
import { boot, shutDown } from 'pagewright';
import type { Harness } from './harness.ts';
import { median } from './harness.ts';
import type { HitWorkerData, HitWorkerResult } from './vpm-worker.ts';

const ROUNDS = 9;

/** Reports what two workers do together as a multiple of what one does, and against the loop. */
export async function scaling(harness: Harness, path: string, bytes: number, seed: number): Promise<void> {
  const rates = new Map<string, readonly [number, number]>();
  for (const kind of ['arithmetic', 'disjoint pages', 'same pages'] as const) {
    const name = `two workers, mapped hits, ${kind}`;
    if (!harness.wants(name) && !(kind === 'arithmetic' && harness.wants('two workers'))) continue;
    const vm = boot({ memory: 2 * bytes });
    const workers: Worker[] = [];
    for (const worker of [0, 1]) {
      const data: HitWorkerData = { path, bytes, seed, kind, worker };
      workers.push(vm.spawn(new URL('./vpm-worker.js', import.meta.url), { workerData: { ...data } }));
    }
    await Promise.all(workers.map((worker) => once(worker, 'message')));
    const rate = async (count: number): Promise<number> => {
      const taking = workers.slice(0, count);
      const answers = taking.map((worker) => once(worker, 'message') as Promise<[HitWorkerResult]>);
      for (const worker of taking) worker.postMessage('run');
      return (await Promise.all(answers)).reduce((sum, [{ hits, ms }]) => sum + hits / ms, 0);
    };
    const [ones, twos]: [number[], number[]] = [[], []];
    for (let round = 0; round < ROUNDS; round++) {
      ones.push(await rate(1));
      twos.push(await rate(2));
    }
    rates.set(kind, [median(ones), median(twos)]);
    for (const worker of workers) worker.postMessage('end');
    await Promise.all(workers.map((worker) => once(worker, 'exit')));
    await shutDown(vm);
    const factor = median(twos) / median(ones);
    harness.reportValue(name, factor, 'times one worker');
    const [one, two] = rates.get('arithmetic') ?? [1, 2];
    const goal = kind === 'disjoint pages' ? { atLeast: 0.9 } : undefined;
    if (kind === 'arithmetic') continue;
    harness.reportValue(`${name}, of what arithmetic scales to`, factor / (two / one), '', goal);
  }
}
