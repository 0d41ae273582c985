/** A pagelock cache in a small region, with a driver that keeps account of every shadow list. */

import type { Geometry } from '../../src/layout/index.ts';
import {
  type CacheDriver,
  type CacheOwner,
  createPagelock,
  PagelockCache,
  type PagelockOptions,
} from '../../src/seg/index.ts';
import { Callbacks, type Thread } from '../../src/sync/index.ts';
import { testRegion, testThread } from './region.ts';

export const PAGE = 4096;

/** One reclaim as the driver saw it. */
export interface Reclaim {
  readonly owner: CacheOwner;
  readonly address: number;
  readonly length: number;
  readonly shadow: number;
  readonly write: boolean;
  readonly asynchronous: boolean;
}

/** One thread of a test. */
export interface CacheParty {
  readonly thread: Thread;
  readonly cache: PagelockCache;
}

/** Makes a region with a cache; `join` lets the driver join shadow lists: the result stands for both. */
export function testPagelock(options: PagelockOptions = {}, join = false, geometry: Partial<Geometry> = {}) {
  const { region, thread } = testRegion(geometry, true);
  createPagelock(region, {
    memoryPages: 4096,
    windowBuckets: 1024,
    wiredBuckets: 64,
    maxWindow: Number.POSITIVE_INFINITY,
    ...options,
  });
  const gauges = { freePages: 1e6, lotsFree: 1000, desiredFree: 500, neededFree: 0 };
  const reclaims: Reclaim[] = [];
  /** Shadow lists that a joined one stands for. */
  const parts = new Map<number, readonly number[]>();
  /** How often each shadow list went back, joined ones by their parts. */
  const counts = new Map<number, number>();
  // The same in the region, so that a copy of the region has it: the tables of quantum caches are not used here.
  const { object: tally } = region.tables.slab;
  let nextShadow = 100;
  const newShadow = () => nextShadow++;
  const count = (shadow: number) => {
    counts.set(shadow, (counts.get(shadow) ?? 0) + 1);
    if (shadow < region.geometry.slabs) tally.put(shadow, tally.get(shadow) + 1);
  };
  const driver: CacheDriver = {
    reclaim(owner, address, length, shadow, write, asynchronous) {
      reclaims.push({ owner, address, length, shadow, write, asynchronous });
      for (const part of parts.get(shadow) ?? [shadow]) count(part);
      return false;
    },
  };
  if (join) {
    driver.join = (first, second) => {
      const shadow = newShadow();
      parts.set(shadow, [...(parts.get(first) ?? [first]), ...(parts.get(second) ?? [second])]);
      return shadow;
    };
  }
  const party = (as: Thread): CacheParty => {
    const callbacks = new Callbacks(region);
    callbacks.register('test driver', driver);
    return { thread: as, cache: new PagelockCache(as, callbacks, gauges) };
  };
  const first = party(thread);
  return {
    region,
    gauges,
    reclaims,
    counts,
    newShadow,
    first,
    cache: first.cache,
    attach: () => party(testThread(region)),
    /** A thread without the driver. */
    attachBare: () => {
      const bare = testThread(region);
      return { thread: bare, cache: new PagelockCache(bare, new Callbacks(region), gauges) };
    },
    owner: () => first.cache.createOwner({ driver: { export: 'test driver' } }),
    /** How often a shadow list went back, as the region has it. */
    tallyOf: (shadow: number) => tally.get(shadow),
    /** What was reclaimed since the last call, by shadow list. */
    taken: () => reclaims.splice(0).map(({ shadow }) => shadow),
  };
}
