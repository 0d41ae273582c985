/**
 * `npm run bench -- vmem`: what a pair of one random free and one allocation costs in an arena.
 *
 * Live blocks from 10^2 to 10^6; sizes from 1 to 64 quanta, or one size, or constrained requests; one worker, or two on
 * one arena. The address space is twice what is live on average. Every subject of every case runs in a thread of its own.
 * After every case the arena's own count is compared with the blocks, overlaps are looked for, everything is freed, and
 * `check()` must find nothing.
 */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { shutDown } from 'pagewright';
import { type Bench, type Harness, median, type PeerResult } from './harness.ts';
import { bootFor, type CaseData, type CaseResult, requireSound } from './vmem-case.ts';
import type { Sizes } from './vmem-pairs.ts';
import { PEERS } from './vmem-subjects.ts';
import type { PairsWorkerData, PairsWorkerResult } from './vmem-worker.ts';

const LIVE_COUNTS = [100, 1000, 10_000, 100_000, 1_000_000];
const TWO_WORKER_ROUNDS = 5;

interface Kind {
  readonly name: string;
  readonly sizes: Sizes;
  readonly constrained: boolean;
}

const KINDS: readonly Kind[] = [
  { name: 'instant, 1 to 64 quanta', sizes: { minQuanta: 1, maxQuanta: 64 }, constrained: false },
  { name: 'fixed, 16 quanta', sizes: { minQuanta: 16, maxQuanta: 16 }, constrained: false },
  { name: 'align 64 nocross 4096, 1 to 64 quanta', sizes: { minQuanta: 1, maxQuanta: 64 }, constrained: true },
];

/** One subject in a thread of its own. */
async function alone(data: CaseData): Promise<CaseResult> {
  const worker = new Worker(new URL('./vmem-case.js', import.meta.url), { workerData: data });
  const [result] = (await once(worker, 'message')) as [CaseResult];
  await worker.terminate();
  return result;
}

async function twoWorkers(kind: Kind, live: number, seed: number): Promise<number> {
  const { vm, arena } = bootFor(live, kind.sizes, 'threads');
  const workers = [0, 1].map((index): Worker => {
    const { sizes, constrained } = kind;
    const data: PairsWorkerData = { arena: arena.name, live: live / 2, sizes, constrained, seed: seed + index };
    return vm.spawn(new URL('./vmem-worker.js', import.meta.url), { workerData: { ...data } });
  });
  const next = async (): Promise<unknown[]> =>
    (await Promise.all(workers.map((worker) => once(worker, 'message')))).map(([message]) => message);
  await next();
  const times: number[] = [];
  for (let round = 0; round <= TWO_WORKER_ROUNDS; round++) {
    for (const worker of workers) worker.postMessage('run');
    const results = (await next()) as PairsWorkerResult[];
    // Pairs per nanosecond add up over the workers. The first round warms up.
    if (round > 0) times.push(1 / results.reduce((rate, { pairs, ms }) => rate + pairs / (ms * 1e6), 0));
  }
  const exits = workers.map((worker) => once(worker, 'exit'));
  for (const worker of workers) worker.postMessage('end');
  await Promise.all(exits);
  requireSound(vm, arena);
  await shutDown(vm);
  return median(times);
}

async function run(harness: Harness): Promise<void> {
  const { seed, peerLimitMs: limitMs } = harness.options;
  for (const kind of KINDS) {
    const { sizes, constrained } = kind;
    for (const live of LIVE_COUNTS) {
      const name = `${kind.name}, ${live} live`;
      if (!harness.wants(name)) continue;
      const { ns, checksum } = await alone({ peer: null, live, sizes, constrained, seed, limitMs });
      const peers: PeerResult[] = [];
      for (const { name: peer } of constrained ? [] : PEERS) {
        const result = await alone({ peer, live, sizes, constrained, seed, limitMs });
        if (result.checksum !== null && result.checksum !== checksum)
          throw new Error(`${name}: ${peer} did other work`);
        peers.push({ peer, ns: result.ns });
      }
      harness.report(name, ns as number, peers);
    }
  }
  harness.note('two workers on one arena: time for each pair of both together; the peers serve one thread only');
  for (const kind of KINDS) {
    for (const live of LIVE_COUNTS) {
      const name = `two workers, ${kind.name}, ${live} live`;
      if (harness.wants(name)) harness.report(name, await twoWorkers(kind, live, seed));
    }
  }
}

/** The bench of room `vmem/`. */
export const vmemBench: Bench = {
  name: 'vmem',
  about: 'alloc and free pairs in an arena, 10^2 to 10^6 live, one and two workers',
  run,
};
