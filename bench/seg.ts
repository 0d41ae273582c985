/**
 * `npm run bench -- seg`: the pagelock cache, and address spaces (seg-space.ts).
 *
 * Ranges of 16 pages of 64 owners in 2^21 buckets, in random order: a hit, a look at its shadow list and its release beside 10
 * to 10^6 cached ranges; an insertion, its release and its reaping, per range; a purge of 10^3 ranges among 10^5. Every case
 * runs in a thread of its own, ends empty, and `check()` must find nothing. The peer of hits is a private Map without locks. The original source,
 * compiled with an atomic lock, took 16, 16, 52 and 274 ns for hits, 80 to 132 ns for a cycle, and 84 us for the purge on a
 * machine of two cores.
 */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { Bench, Harness } from './harness.ts';
import type { SegCaseData } from './seg-case.ts';
import { runSpaces } from './seg-space.ts';

async function alone(data: SegCaseData): Promise<number | null> {
  const worker = new Worker(new URL('./seg-case.js', import.meta.url), { workerData: data });
  const [ns] = (await once(worker, 'message')) as [number | null];
  await worker.terminate();
  return ns;
}

async function run(harness: Harness): Promise<void> {
  const { seed } = harness.options;
  for (const entries of [10, 1000, 100_000, 1_000_000]) {
    const name = `pin and release, hit among ${entries} ranges`;
    if (!harness.wants(name)) continue;
    const ns = await alone({ kind: 'hit', subject: 'cache', entries, seed });
    const peerNs = await alone({ kind: 'hit', subject: 'map', entries, seed });
    const goal = entries > 100_000 ? 600 : 200;
    if (ns !== null) harness.report(name, ns, [{ peer: 'private Map', ns: peerNs }], { atMost: goal });
  }
  for (const entries of [1000, 10_000, 100_000]) {
    const name = `insert, release, reap: per range, ${entries} at a time`;
    if (!harness.wants(name)) continue;
    const ns = await alone({ kind: 'cycle', subject: 'cache', entries, seed });
    if (ns !== null) harness.report(name, ns, [], { atMost: 600 });
  }
  const name = 'purge of 1000 among 100000';
  if (harness.wants(name)) {
    const ns = await alone({ kind: 'purge', subject: 'cache', entries: 100_000, seed });
    if (ns !== null) harness.report(name, ns);
  }
  await runSpaces(harness);
}

/** See the file's header. */
export const segBench: Bench = { name: 'seg', about: 'the pagelock cache and address spaces', run };
