/**
 * `npm run bench -- vmem`: what a pair of one random free and one allocation costs in an arena.
 *
 * Live blocks from 10^2 to 10^6; sizes from 1 to 64 quanta, to 65536, or one size, or constrained requests; every strategy;
 * through quantum caches; beside fragments too small to serve; one worker, or two on one arena; the allocations of real
 * programs. The address space is twice what is live on average. Every subject of every case runs in a thread of its own.
 * After every case the arena's own count is compared with the blocks, overlaps are looked for, everything is freed, and
 * `check()` must find nothing.
 */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { shutDown } from 'pagewright';
import { type Bench, type Harness, median, type PeerResult } from './harness.ts';
import type { CaseData, CaseResult } from './vmem-case.ts';
import { goalOf } from './vmem-goals.ts';
import { HEAP_TRACES, type HeapData } from './vmem-heap.ts';
import { bootFor, requireSound, type Shape } from './vmem-shape.ts';
import type { StoryData } from './vmem-stories.ts';
import { PEERS } from './vmem-subjects.ts';
import type { PairsWorkerData, PairsWorkerResult } from './vmem-worker.ts';

const LIVE_COUNTS = [100, 1000, 10_000, 100_000, 1_000_000];
const FRAGMENT_COUNTS = [0, 1000, 10_000, 100_000, 1_000_000];
const TWO_WORKER_ROUNDS = 5;
const RANDOM = { minQuanta: 1, maxQuanta: 64 };
/** Sizes of which a bin holds thousands. */
const WIDE = { minQuanta: 1, maxQuanta: 65536 };

interface Kind {
  readonly name: string;
  readonly shape: Shape;
  /** The peers can do this too. */
  readonly peers: boolean;
}

function fixed(quanta: number): Shape['sizes'] {
  return { minQuanta: quanta, maxQuanta: quanta };
}

const KINDS: readonly Kind[] = [
  { name: 'instant, 1 to 64 quanta', shape: { sizes: RANDOM }, peers: true },
  { name: 'fixed, 16 quanta', shape: { sizes: fixed(16) }, peers: true },
  { name: 'align 64 nocross 4096, 1 to 64 quanta', shape: { sizes: RANDOM, constrained: true }, peers: false },
  { name: 'best, 1 to 64 quanta', shape: { sizes: RANDOM, strategy: 'best' }, peers: true },
  { name: 'exact, 1 to 64 quanta', shape: { sizes: RANDOM, strategy: 'exact' }, peers: true },
  { name: 'next, 1 to 64 quanta', shape: { sizes: RANDOM, strategy: 'next' }, peers: true },
  { name: 'instant, 1 to 65536 quanta', shape: { sizes: WIDE }, peers: false },
  { name: 'best, 1 to 65536 quanta', shape: { sizes: WIDE, strategy: 'best' }, peers: false },
];

const CACHED: readonly Kind[] = [1, 8, 64].map((quanta) => ({
  name: `quantum cache, ${quanta} quanta`,
  shape: { sizes: fixed(quanta), cachedQuanta: 64 },
  peers: true,
}));

const BURSTS = {
  burst: '50000 deletes and 50000 inserts among 100000, each',
  edited: '50000 deletes and 50000 inserts among 100000 in a heap that was edited before, each',
} as const;
const REFUSED = 'a request that none of 100000 fragments can serve, and a pair, each';
const SNUG = 'a request of 664908 in a heap of 699050';

/** A program in a thread of its own, which says one thing. */
async function alone<Data extends object, Result>(program: string, data: Data): Promise<Result> {
  const worker = new Worker(new URL(program, import.meta.url), { workerData: data });
  const [result] = (await once(worker, 'message')) as [Result];
  await worker.terminate();
  return result;
}

async function oneWorker(
  harness: Harness,
  name: string,
  { shape, peers }: Kind,
  live: number,
): Promise<CaseResult | null> {
  if (!harness.wants(name)) return null;
  const { seed, peerLimitMs: limitMs } = harness.options;
  const measured = (peer: string | null) =>
    alone<CaseData, CaseResult>('./vmem-case.js', { peer, live, shape, seed, limitMs });
  const own = await measured(null);
  const { ns, checksum } = own;
  const results: PeerResult[] = [];
  for (const { name: peer } of peers ? PEERS : []) {
    const result = await measured(peer);
    if (result.checksum !== null && result.checksum !== checksum) throw new Error(`${name}: ${peer} did other work`);
    results.push({ peer, ns: result.ns });
  }
  harness.report(name, ns as number, results, goalOf(name));
  harness.note(`  checksum of the requests ${checksum}`);
  return own;
}

/** Reports a case as so many times another one, if both were measured. */
function compare(
  harness: Harness,
  name: string,
  result: CaseResult | null | undefined,
  other: number | undefined,
): void {
  if (result?.ns == null || other === undefined) return;
  harness.reportValue(name, result.ns / other, 'times', goalOf(name));
}

/** All numbers of live blocks for each kind, and how the other strategies compare with instant fit. */
async function liveCounts(harness: Harness): Promise<void> {
  const instant = new Map<string, number>();
  for (const kind of KINDS) {
    for (const live of LIVE_COUNTS) {
      const result = await oneWorker(harness, `${kind.name}, ${live} live`, kind, live);
      const same = `instant${kind.name.slice(kind.name.indexOf(','))}, ${live} live`;
      if (kind.shape.strategy !== undefined) {
        compare(harness, `${kind.name}, ${live} live, against instant`, result, instant.get(same));
      } else if (result?.ns != null) {
        instant.set(`${kind.name}, ${live} live`, result.ns);
      }
    }
  }
}

async function throughCaches(harness: Harness): Promise<void> {
  for (const kind of CACHED) {
    const result = await oneWorker(harness, `${kind.name}, 1000 live`, kind, 1000);
    if (result?.tagOperations == null) continue;
    const name = `${kind.name}, boundary tags`;
    harness.reportValue(name, result.tagOperations, 'operations per 1000 pairs', goalOf(name));
  }
}

async function besideFragments(harness: Harness): Promise<void> {
  let without: number | undefined;
  for (const fragments of FRAGMENT_COUNTS) {
    const kind: Kind = { name: '', shape: { sizes: { minQuanta: 2, maxQuanta: 64 }, fragments }, peers: false };
    const name = `instant, 1000 live beside ${fragments} fragments`;
    const result = await oneWorker(harness, name, kind, 1000);
    if (fragments === 0) without = result?.ns ?? undefined;
    else compare(harness, `${name}, against none`, result, without);
  }
}

/** Nanoseconds for each pair of all workers together; without a shape they compute and touch nothing shared. */
async function together(count: number, shape: Shape | null, live: number, seed: number): Promise<number> {
  const { vm, arena } = bootFor(count * live, shape ?? { sizes: RANDOM }, 'threads');
  const workers = Array.from({ length: count }, (_, index): Worker => {
    const data: PairsWorkerData = { arena: arena.name, live, shape, seed: seed + index };
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
  arena.drain();
  requireSound(vm, arena);
  await shutDown(vm);
  return median(times);
}

/** What is scaled: what one worker, and then two, do. */
const SCALED: readonly (readonly [string, Shape | null])[] = [
  ['arithmetic loop', null],
  ['quantum cache, 8 quanta, 1000 live each', { sizes: fixed(8), cachedQuanta: 64 }],
  ['instant, 1 to 64 quanta, 1000 live each', { sizes: RANDOM }],
];

/** How much more two workers get done than one, beside a loop that touches nothing shared. */
async function scaling(harness: Harness): Promise<void> {
  let plain: number | undefined;
  for (const [what, shape] of SCALED) {
    const name = `scaling, ${what}`;
    if (!harness.wants(name)) continue;
    const one = await together(1, shape, 1000, harness.options.seed);
    const two = await together(2, shape, 1000, harness.options.seed);
    harness.report(`${name}, one worker`, one);
    harness.report(`${name}, two workers`, two);
    harness.reportValue(`${name}, two workers against one`, one / two, 'times as much done');
    if (shape === null) plain = one / two;
    else if (plain !== undefined) {
      const against = `${name}, against the arithmetic loop`;
      harness.reportValue(against, one / two / plain, 'of its scaling', goalOf(against));
    }
  }
}

async function heapTraces(harness: Harness): Promise<void> {
  for (const trace of HEAP_TRACES) {
    const name = `heap trace ${trace}`;
    if (!harness.wants(name)) continue;
    const limitMs = harness.options.peerLimitMs;
    const measured = (peer: string | null) =>
      alone<HeapData, number | null>('./vmem-heap.js', { trace, peer, limitMs });
    const ns = (await measured(null)) as number;
    const peers: PeerResult[] = [];
    for (const { name: peer } of PEERS) peers.push({ peer, ns: await measured(peer) });
    harness.report(name, ns, peers);
  }
}

async function stories(harness: Harness): Promise<void> {
  const { seed, peerLimitMs: limitMs } = harness.options;
  const told = (story: StoryData['story'], peer: string | null) =>
    alone<StoryData, number | null>('./vmem-stories.js', { story, peer, seed, limitMs });
  for (const story of ['burst', 'edited'] as const) {
    const name = BURSTS[story];
    if (!harness.wants(name)) continue;
    const ns = (await told(story, null)) as number;
    const peers: PeerResult[] = [];
    for (const { name: peer } of PEERS) peers.push({ peer, ns: await told(story, peer) });
    harness.report(name, ns, peers);
    const all = `${name}: all of them`;
    harness.reportValue(all, ns / 10, 'ms', goalOf(all));
  }
  if (harness.wants(REFUSED)) harness.report(REFUSED, (await told('refused', null)) as number);
  if (harness.wants(SNUG)) harness.report(SNUG, (await told('snug', null)) as number);
}

async function run(harness: Harness): Promise<void> {
  harness.note('peers: @thi.ng/malloc and malloc, each for one thread only, without locks');
  await liveCounts(harness);
  await throughCaches(harness);
  await besideFragments(harness);
  await heapTraces(harness);
  await stories(harness);
  harness.note('two workers on one arena: time for each pair of both together; the peers serve one thread only');
  for (const { name: kind, shape } of KINDS) {
    for (const live of LIVE_COUNTS) {
      const name = `two workers, ${kind}, ${live} live`;
      if (harness.wants(name)) harness.report(name, await together(2, shape, live / 2, harness.options.seed));
    }
  }
  await scaling(harness);
}

const CASES: readonly string[] = [
  ...KINDS.map(({ name }) => `${name}, N live`),
  ...CACHED.map(({ name }) => `${name}, 1000 live`),
  'instant, 1000 live beside N fragments',
  ...HEAP_TRACES.map((trace) => `heap trace ${trace}`),
  ...Object.values(BURSTS),
  REFUSED,
  SNUG,
  ...KINDS.map(({ name }) => `two workers, ${name}, N live`),
  ...SCALED.map(([what]) => `scaling, ${what}`),
];

/** The bench of room `vmem/`. */
export const vmemBench: Bench = {
  name: 'vmem',
  about:
    'alloc and free pairs in an arena, 10^2 to 10^6 live, by every strategy, cached, beside fragments; heap traces; two workers',
  details: `Cases of vmem (N stands for a number)\n${CASES.map((name) => `  ${name}\n`).join('')}`,
  run,
};
