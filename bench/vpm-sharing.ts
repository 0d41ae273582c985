/** One and two workers that read the same skewed load through one page cache, or through a cache each; and what that takes. */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { boot, shutDown } from 'pagewright';
import { type Harness, median } from './harness.ts';
import { LARGE_BYTES, MEMORY_BYTES, MIB } from './vpm-case.ts';
import type { ShareResult, ShareWorkerData } from './vpm-sharing-worker.ts';

const ROUNDS = 7;
const SUBJECTS = ['ours', 'lru-cache', 'fs.readSync', 'mmap-io'] as const;

/** Reports nanoseconds of a read, on the wall, of one and of two workers, and the memory that caches for k workers take. */
export async function sharing(
  harness: Harness,
  path: string,
  seed: number,
  metadata: number,
  withMmap: boolean,
): Promise<void> {
  const subjects = SUBJECTS.filter((subject) => withMmap || subject !== 'mmap-io');
  const cached = new Map<string, number>();
  const times = new Map<string, readonly number[]>();
  if (!harness.wants('workers, 4 KiB, zipf') && !harness.wants('memory for')) return;
  for (const subject of subjects) {
    const vm = boot({ memory: MEMORY_BYTES + 2 * MIB });
    const workers = [0, 1].map((worker) => {
      const data: ShareWorkerData = { path, bytes: LARGE_BYTES, memoryBytes: MEMORY_BYTES, seed, subject, worker };
      const url = new URL('./vpm-sharing-worker.js', import.meta.url);
      return subject === 'ours' ? vm.spawn(url, { workerData: { ...data } }) : new Worker(url, { workerData: data });
    });
    await Promise.all(workers.map((worker) => once(worker, 'message')));
    let bytes = 0;
    const run = async (count: number): Promise<number> => {
      const taking = workers.slice(0, count);
      const answers = taking.map((worker) => once(worker, 'message') as Promise<[ShareResult]>);
      for (const worker of taking) worker.postMessage('run');
      const results = (await Promise.all(answers)).map(([result]) => result);
      bytes = results.reduce((sum, result) => sum + result.cachedBytes, 0);
      return 1e6 / results.reduce((sum, { reads, ms }) => sum + reads / ms, 0);
    };
    const [ones, twos]: [number[], number[]] = [[], []];
    for (let round = 0; round < ROUNDS; round++) {
      ones.push(await run(1));
      twos.push(await run(2));
    }
    times.set(subject, [median(ones), median(twos)]);
    cached.set(subject, bytes / workers.length);
    for (const worker of workers) worker.postMessage('end');
    await Promise.all(workers.map((worker) => once(worker, 'exit')));
    await shutDown(vm);
  }
  for (const [at, title] of ['one worker', 'two workers'].entries()) {
    const [ours, ...peers] = subjects.map((subject) => (times.get(subject) as readonly number[])[at] as number);
    const results = peers.map((ns, peer) => ({ peer: subjects[peer + 1] as string, ns }));
    harness.report(`${title}, 4 KiB, zipf over a file 4x the memory`, ours as number, results);
  }
  const own = cached.get('lru-cache') as number;
  for (const workers of [1, 2, 8]) {
    const ours = MEMORY_BYTES + 2 * MIB + metadata;
    harness.reportValue(`memory for ${workers} workers, ours, metadata included`, ours, 'bytes');
    harness.reportValue(`memory for ${workers} workers, a full lru-cache of Buffers each`, workers * own, 'bytes');
    if (withMmap) harness.reportValue(`memory for ${workers} workers, mmap-io, beyond the system's cache`, 0, 'bytes');
  }
}
