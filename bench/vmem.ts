/**
 * `npm run bench -- vmem`: what a pair of one random free and one allocation costs in an arena.
 *
 * Live blocks from 10^2 to 10^6; sizes from 1 to 64 quanta, or one size, or constrained requests; one worker, or two on
 * one arena. The address space is twice what is live on average. After every case the arena's own count is compared
 * with the blocks, overlaps are looked for, everything is freed, and `check()` must find nothing.
 */

import { once } from 'node:events';
import type { Worker } from 'node:worker_threads';
import { boot, shutDown, type VirtualMemory } from 'pagewright';
import type { Arena } from 'pagewright/vmem';
import { type Bench, type Harness, measure, type PeerResult } from './harness.ts';
import { Pairs, type Sizes } from './vmem-pairs.ts';
import { ArenaSubject, ConstrainedSubject, PEERS, QUANTUM, type Subject } from './vmem-subjects.ts';
import type { PairsWorkerData, PairsWorkerResult } from './vmem-worker.ts';

const LIVE_COUNTS = [100, 1000, 10_000, 100_000, 1_000_000];

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

/** Address space for a number of live blocks: constrained blocks also waste what lies before a boundary. */
function spaceFor(live: number, sizes: Sizes): number {
  return Math.max(65536, live * (sizes.minQuanta + sizes.maxQuanta) * QUANTUM);
}

/** A system with one arena of addresses, and tags for every block and every gap between blocks. */
function bootFor(live: number, sizes: Sizes, services: 'threads' | 'manual'): { vm: VirtualMemory; arena: Arena } {
  const vm = boot({ memory: '1 MiB', tags: 2 * live + 65536, services });
  const arena = vm.createArena('bench', { base: 0, size: spaceFor(live, sizes), quantum: QUANTUM });
  return { vm, arena };
}

function requireSound(vm: VirtualMemory, arena: Arena, name: string): void {
  const problems = vm.check().flatMap((report) => report.problems);
  if (problems.length > 0) throw new Error(`${name}: check() says ${problems.join('; ')}`);
  const left = arena.size('allocated');
  if (left !== 0) throw new Error(`${name}: ${left} bytes are in use after everything was freed`);
}

async function oneWorker(name: string, kind: Kind, live: number, seed: number): Promise<number> {
  const { vm, arena } = bootFor(live, kind.sizes, 'manual');
  const subject: Subject = kind.constrained ? new ConstrainedSubject(arena) : new ArenaSubject(arena);
  const pairs = new Pairs(subject, live, kind.sizes, seed);
  pairs.fill();
  const ns = measure((count) => pairs.run(count)) as number;
  const sum = pairs.verify();
  const inUse = arena.size('allocated');
  if (inUse !== sum) throw new Error(`${name}: ${inUse} bytes in use, blocks hold ${sum}`);
  pairs.empty();
  requireSound(vm, arena, name);
  await shutDown(vm);
  return ns;
}

function peer(kind: Kind, live: number, seed: number, limitMs: number, make: (sizeBytes: number) => Subject) {
  const deadline = performance.now() + limitMs;
  // Headers of the peers' blocks lie in the same space, and one lies before all: a little more for those.
  const pairs = new Pairs(make(spaceFor(live, kind.sizes) + live * 32 + 4096), live, kind.sizes, seed);
  if (!pairs.fill(deadline)) return null;
  return measure((count) => {
    let sum = 0;
    // In pieces, so that a slow peer cannot run far beyond its time.
    for (let done = 0; done < count && performance.now() < deadline; done += 256) {
      sum ^= pairs.run(Math.min(256, count - done));
    }
    return sum;
  }, deadline);
}

async function twoWorkers(name: string, kind: Kind, live: number, seed: number): Promise<number> {
  const { vm, arena } = bootFor(live, kind.sizes, 'threads');
  const url = new URL('./vmem-worker.js', import.meta.url);
  const workers = [0, 1].map((index): Worker => {
    const data: PairsWorkerData = {
      arena: arena.name,
      live: live / 2,
      sizes: kind.sizes,
      constrained: kind.constrained,
      seed: seed + index,
    };
    return vm.spawn(url, { workerData: { ...data } });
  });
  const next = async (): Promise<unknown[]> =>
    (await Promise.all(workers.map((worker) => once(worker, 'message')))).map(([message]) => message);
  await next();
  for (const worker of workers) worker.postMessage('run');
  const results = (await next()) as PairsWorkerResult[];
  const exits = workers.map((worker) => once(worker, 'exit'));
  for (const worker of workers) worker.postMessage('end');
  await Promise.all(exits);
  requireSound(vm, arena, name);
  await shutDown(vm);
  // Pairs per nanosecond add up over the workers.
  return 1 / results.reduce((rate, { pairs, ms }) => rate + pairs / (ms * 1e6), 0);
}

async function run(harness: Harness): Promise<void> {
  const { seed, peerLimitMs } = harness.options;
  for (const kind of KINDS) {
    for (const live of LIVE_COUNTS) {
      const name = `${kind.name}, ${live} live`;
      if (!harness.wants(name)) continue;
      const ns = await oneWorker(name, kind, live, seed);
      const peers = kind.constrained
        ? []
        : PEERS.map(({ name: peerName, make }): PeerResult => {
            return { peer: peerName, ns: peer(kind, live, seed, peerLimitMs, make) };
          });
      harness.report(name, ns, peers);
    }
  }
  harness.note('two workers on one arena: time for each pair of both together; the peers serve one thread only');
  for (const kind of KINDS) {
    for (const live of LIVE_COUNTS) {
      const name = `two workers, ${kind.name}, ${live} live`;
      if (harness.wants(name)) harness.report(name, await twoWorkers(name, kind, live, seed));
    }
  }
}

/** The bench of room `vmem/`. */
export const vmemBench: Bench = {
  name: 'vmem',
  about: 'alloc and free pairs in an arena, 10^2 to 10^6 live, one and two workers',
  run,
};
