/** One case of the seg bench, in a thread of its own: what the compiler learned elsewhere is not here. */

import { parentPort, workerData } from 'node:worker_threads';
import { boot } from 'pagewright';
import { Prng } from 'pagewright/base';
import { type CacheDriver, PagelockCache, PIN } from 'pagewright/seg';
import { measure, median } from './harness.ts';

/** What the thread is told. */
export interface SegCaseData {
  readonly kind: 'hit' | 'cycle' | 'purge';
  /** `cache`, or `map` for a private Map without locks. */
  readonly subject: 'cache' | 'map';
  readonly entries: number;
  readonly seed: number;
}

const PAGE = 4096;
const ENTRY_PAGES = 16;
const OWNERS = 64;
const PURGED = 1000;
const PURGE_ROUNDS = 301;
const PICKS = 1 << 20;

const LENGTH = ENTRY_PAGES * PAGE;

function setUp(entries: number) {
  const vm = boot({
    memory: '1 MiB',
    services: 'manual',
    pagelock: {
      memoryPages: 32 * Math.max(entries, 1 << 16),
      windowBuckets: 1 << 21,
      wiredBuckets: 1024,
      maxWindow: Number.POSITIVE_INFINITY,
      maxAgeTicks: 0,
      shrinkShift: 0,
      purgePages: 2 ** 40,
    },
  });
  let reclaims = 0;
  const driver: CacheDriver = {
    reclaim() {
      reclaims++;
      return false;
    },
  };
  vm.callbacks.register('bench', driver);
  const gauges = { freePages: 1e9, lotsFree: 1000, desiredFree: 500, neededFree: 0 };
  const cache = new PagelockCache(vm.thread, vm.callbacks, gauges);
  const owners = Array.from({ length: OWNERS }, () => cache.createOwner({ driver: { export: 'bench' } }));
  return { vm, cache, gauges, owners, reclaims: () => reclaims };
}

type SetUp = ReturnType<typeof setUp>;

function insert({ cache, owners }: SetUp, entry: number): number {
  const owner = owners[entry % OWNERS] as number;
  return cache.insert(owner, Math.floor(entry / OWNERS) * LENGTH, LENGTH, entry, PIN.read);
}

function finish({ vm, cache, owners }: SetUp): void {
  for (const owner of owners) cache.purge(owner);
  const { problems } = cache.check();
  if (problems.length > 0 || cache.lockedPages !== 0) throw new Error(`${cache.lockedPages} pages; ${problems}`);
  vm.detach();
}

/** Entries in random order. */
function picksOf(entries: number, seed: number): Int32Array {
  const random = new Prng(seed);
  return Int32Array.from({ length: PICKS }, () => random.below(entries));
}

function hits(entries: number, seed: number): number | null {
  const set = setUp(entries);
  const { cache, owners } = set;
  for (let entry = 0; entry < entries; entry++) cache.release(insert(set, entry));
  const picks = picksOf(entries, seed);
  let at = 0;
  const ns = measure((count) => {
    let sum = 0;
    for (let round = 0; round < count; round++) {
      const entry = picks[at++ & (PICKS - 1)] as number;
      const pin = cache.lookup(owners[entry % OWNERS] as number, Math.floor(entry / OWNERS) * LENGTH, LENGTH, PIN.read);
      sum += cache.shadowOf(pin);
      cache.release(pin);
    }
    return sum;
  });
  finish(set);
  return ns;
}

function cycles(entries: number): number | null {
  const set = setUp(entries);
  const { cache, gauges } = set;
  const pins = new Int32Array(entries);
  const ns = measure((count) => {
    for (let round = 0; round < count; round++) {
      for (let entry = 0; entry < entries; entry++) pins[entry] = insert(set, entry);
      for (let entry = 0; entry < entries; entry++) cache.release(pins[entry] as number);
      // Two visits with memory to spare make everything old; the third takes it.
      cache.reap();
      cache.reap();
      gauges.freePages = 0;
      cache.reap();
      gauges.freePages = 1e9;
    }
    if (cache.lockedPages !== 0) throw new Error(`${cache.lockedPages} pages were not reaped`);
    return set.reclaims();
  });
  finish(set);
  return ns === null ? null : ns / entries;
}

function purges(entries: number): number {
  const set = setUp(entries + PURGED);
  const { cache } = set;
  for (let entry = 0; entry < entries; entry++) cache.release(insert(set, entry));
  const victim = cache.createOwner({ driver: { export: 'bench' } });
  const times: number[] = [];
  for (let round = 0; round < PURGE_ROUNDS; round++) {
    for (let entry = 0; entry < PURGED; entry++) {
      cache.release(cache.insert(victim, entry * LENGTH, LENGTH, entry, PIN.read));
    }
    const start = process.cpuUsage();
    cache.purge(victim);
    const { user, system } = process.cpuUsage(start);
    times.push((user + system) / 1000);
  }
  cache.destroyOwner(victim);
  finish(set);
  return median(times) * 1e6;
}

/** What a program without the cache would keep: a Map of its own, without locks, for one thread. */
function mapHits(entries: number, seed: number): number | null {
  const ranges = new Map<number, { pins: number }>();
  for (let entry = 0; entry < entries; entry++) ranges.set(entry * LENGTH, { pins: 0 });
  const picks = picksOf(entries, seed);
  let at = 0;
  return measure((count) => {
    let sum = 0;
    for (let round = 0; round < count; round++) {
      const range = ranges.get((picks[at++ & (PICKS - 1)] as number) * LENGTH) as { pins: number };
      sum += ++range.pins;
      range.pins--;
    }
    return sum;
  });
}

function run({ kind, subject, entries, seed }: SegCaseData): number | null {
  if (kind === 'cycle') return cycles(entries);
  if (kind === 'purge') return purges(entries);
  return subject === 'map' ? mapHits(entries, seed) : hits(entries, seed);
}

parentPort?.postMessage(run(workerData as SegCaseData));
