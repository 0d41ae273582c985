/**
 * Address spaces: forks of up to 1 GiB and the first writes after them, against `structuredClone` and a plain copy; words and
 * pages through a space and through a cursor, beside a typed array over shared memory; two workers that make pages.
 */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { boot, shutDown } from 'pagewright';
import type { AddressSpace } from 'pagewright/seg';
import { type Harness, median } from './harness.ts';
import type { SpaceCaseData, SpaceCaseResult } from './seg-space-case.ts';
import type { PagesWorkerData, PagesWorkerResult } from './seg-space-worker.ts';

const GIB = 2 ** 30;

async function alone(data: SpaceCaseData): Promise<SpaceCaseResult> {
  const worker = new Worker(new URL('./seg-space-case.js', import.meta.url), { workerData: data });
  const [result] = (await once(worker, 'message')) as [SpaceCaseResult];
  await worker.terminate();
  return result;
}

/** Runs the cases that the filter wants. */
export async function runSpaces(harness: Harness): Promise<void> {
  await runForks(harness);
  await runAccesses(harness);
  await runTwo(harness);
}

/** Forks and first writes; a fork must not cost more the larger the space is. */
async function runForks(harness: Harness): Promise<void> {
  const { seed } = harness.options;
  const first = 'store into a page, first after a fork';
  const forks: number[] = [];
  for (const [bytes, label] of [
    [64 * 2 ** 20, '64 MiB'],
    [256 * 2 ** 20, '256 MiB'],
    [GIB, '1 GiB'],
  ] as const) {
    const name = `fork of ${label}`;
    if (!harness.wants(name) && !harness.wants(first)) continue;
    const result = await alone({ kind: 'fork', bytes, seed });
    const { clone } = await alone({ kind: 'clone', bytes, seed });
    const { copy } = await alone({ kind: 'copy', bytes, seed });
    forks.push(result.fork as number);
    const peers = [
      { peer: 'structuredClone', ns: clone as number },
      { peer: 'slice', ns: copy as number },
    ];
    harness.report(name, result.fork as number, peers, { atMost: 10e6 });
    const again = [{ peer: 'the next one', ns: result.again as number }];
    harness.report(`${first}, of ${label}`, result.write as number, again, { atMost: 5000 });
    harness.report(`${first}, into frames never used, of ${label}`, result.fresh as number, again);
  }
  if (forks.length === 3) {
    harness.reportValue('fork of 1 GiB against one of 64 MiB', (forks[2] as number) / (forks[0] as number), 'times', {
      atMost: 1.5,
    });
  }
}

/** Words and pages, against a typed array over shared memory. */
async function runAccesses(harness: Harness): Promise<void> {
  const cases = [
    ['load a word through a space', 'loadSpace', 'loadArray', 60],
    ['store a word through a space', 'storeSpace', 'storeArray', 60],
    ['load a word of 64 pages through a space', 'loadNear', 'loadArray', 60],
    ['store a word of 64 pages through a space', 'storeNear', 'storeArray', 60],
    ['load a word of 64 pages through a cursor', 'loadCursor', 'loadArray', 60],
    ['store a word of 64 pages through a cursor', 'storeCursor', 'storeArray', 60],
    ['read a page through a space', 'readSpace', 'readArray', undefined],
    ['write a page through a space', 'writeSpace', 'writeArray', undefined],
  ] as const;
  if (!cases.some(([name]) => harness.wants(name))) return;
  const result = await alone({ kind: 'access', bytes: 0, seed: harness.options.seed });
  for (const [name, subject, peer, goal] of cases) {
    if (!harness.wants(name)) continue;
    harness.report(
      name,
      result[subject] as number,
      [{ peer: 'typed array', ns: result[peer] as number }],
      goal === undefined ? undefined : { atMost: goal },
    );
  }
}

/** Two workers that store into pages of their own, against one, beside a loop of arithmetic. */
async function runTwo(harness: Harness): Promise<void> {
  const kinds = ['arithmetic', 'a space each', 'one space'] as const;
  const pages = 512;
  let pure = 2;
  for (const kind of kinds) {
    const name = `two workers, new pages, ${kind}`;
    if (!harness.wants('two workers, new pages')) continue;
    const vm = boot({ memory: 4 * 2 * pages * 4096 });
    const bytes = pages * 4096;
    const spaces = [vm.addressSpace(), vm.addressSpace()];
    const common = (spaces[0] as AddressSpace).map({ size: 2 * bytes });
    const own = (spaces[1] as AddressSpace).map({ size: bytes });
    const workers = [0, 1].map((worker) => {
      const isOwn = kind === 'a space each' && worker === 1;
      const space = kind === 'arithmetic' ? null : (spaces[isOwn ? 1 : 0] as AddressSpace).id;
      const data: PagesWorkerData = { space, at: isOwn ? own : common + worker * bytes, pages };
      return vm.spawn(new URL('./seg-space-worker.js', import.meta.url), { workerData: { ...data } });
    });
    await Promise.all(workers.map((worker) => once(worker, 'message')));
    const rate = async (count: number): Promise<number> => {
      const taking = workers.slice(0, count);
      const answers = taking.map((worker) => once(worker, 'message') as Promise<[PagesWorkerResult]>);
      for (const worker of taking) worker.postMessage('run');
      return (await Promise.all(answers)).reduce((sum, [{ rounds, ms }]) => sum + rounds / ms, 0);
    };
    const factors: number[] = [];
    for (let round = 0; round < 9; round++) {
      const one = await rate(1);
      factors.push((await rate(2)) / one);
    }
    for (const worker of workers) worker.postMessage('end');
    await Promise.all(workers.map((worker) => once(worker, 'exit')));
    await shutDown(vm);
    const factor = median(factors);
    harness.reportValue(name, factor, 'times one worker');
    if (kind === 'arithmetic') pure = factor;
    else harness.reportValue(`${name}, of what arithmetic scales to`, factor / pure, '', { atLeast: 0.9 });
  }
}
