/** The pagelock cache as a value: for dumps, comparisons and numbers. */

import type { PagelockCore } from './pagelock-core.ts';
import { type BucketIndex, type CacheOwner, ENTRY_FLAG, type EntryIndex, PAGELOCK_COUNTER } from './pagelock-kinds.ts';

/** One cached range. */
export interface CachedRange {
  readonly owner: CacheOwner;
  readonly tag: number;
  readonly address: number;
  readonly lengthBytes: number;
  readonly writableBytes: number;
  readonly shadow: number;
  /** Pins. */
  readonly active: number;
  readonly referenced: boolean;
  /** Tick or epoch of the last release. */
  readonly lastUse: number;
  readonly write: boolean;
  readonly wired: boolean;
}

/** Everything cached. Chains and lists show ranges by their place in `ranges`. */
export interface CacheSnapshot {
  readonly disabled: number;
  readonly lockedPages: number;
  readonly windowPages: number;
  readonly ranges: readonly CachedRange[];
  /** Which list buckets join. */
  readonly current: number;
  /** The lists of active window buckets, each bucket by its newest range. */
  readonly lists: readonly (readonly CachedRange[])[];
  /** Window buckets that hold ranges, in order, newest first. */
  readonly windowChains: readonly (readonly CachedRange[])[];
  /** All wired buckets, in order, newest first. */
  readonly wiredChains: readonly (readonly CachedRange[])[];
}

/** Copies the cache. Call it at quiet points. */
export function snapshotCache(core: PagelockCore): CacheSnapshot {
  const { control, buckets, windowBuckets, wiredMask, lists, enabled } = core;
  const chain = (bucket: BucketIndex) => chainOf(core, bucket);
  const windowChains: CachedRange[][] = [];
  for (let bucket = 0; bucket < windowBuckets; bucket++) {
    if (buckets.head.get(bucket) !== 0) windowChains.push(chain(bucket));
  }
  const wiredCount = enabled ? wiredMask + 1 : 0;
  const wiredChains = Array.from({ length: wiredCount }, (_, index) => chain(windowBuckets + index));
  const listed = [0, 1].map((list) => {
    const heads = lists.buckets(list).filter((bucket) => buckets.head.get(bucket) !== 0);
    return heads.map((bucket) => chain(bucket)[0] as CachedRange);
  });
  return {
    disabled: control.disabled.get(0),
    lockedPages: control.lockedPages.get(0),
    windowPages: control.windowPages.get(0),
    ranges: [...windowChains, ...wiredChains].flat(),
    current: control.current.get(0),
    lists: listed,
    windowChains,
    wiredChains,
  };
}

function chainOf(core: PagelockCore, bucket: BucketIndex): CachedRange[] {
  const chain: CachedRange[] = [];
  for (let link = core.buckets.head.get(bucket); link !== 0; link = core.entries.chainNext.get(link - 1)) {
    chain.push(rangeOf(core, link - 1));
  }
  return chain;
}

function rangeOf(core: PagelockCore, entry: EntryIndex): CachedRange {
  const { entries, owners, pageSize } = core;
  const owner = entries.owner.get(entry) - 1;
  const flags = entries.flags.get(entry);
  return {
    owner,
    tag: owners.tag.get(owner),
    address: entries.address.get(entry),
    lengthBytes: entries.pages.get(entry) * pageSize,
    writableBytes: entries.writablePages.get(entry) * pageSize,
    shadow: entries.shadow.get(entry),
    active: entries.active.get(entry) >>> 0,
    referenced: (flags & ENTRY_FLAG.referenced) !== 0,
    lastUse: entries.lastUse.get(entry),
    write: (flags & ENTRY_FLAG.write) !== 0,
    wired: (flags & ENTRY_FLAG.wired) !== 0,
  };
}

/** Numbers about the cache. */
export interface CacheStatistics {
  /** Sums over all slots, by the names of `PAGELOCK_COUNTER`. */
  readonly counters: Readonly<Record<keyof typeof PAGELOCK_COUNTER, number>>;
  readonly entries: number;
  /** Owners of ranges: segments and anon maps that were ever pinned. */
  readonly owners: number;
  readonly lockedPages: number;
  readonly windowPages: number;
  /** Null without a limit. */
  readonly maxWindow: number | null;
  readonly disabled: number;
  /** Empty buckets that walks of the reaper met. */
  readonly emptyBuckets: number;
  /** Buckets with ranges that walks of the reaper met. */
  readonly fullBuckets: number;
}

/** Sums the counters of all slots. */
export function cacheStatistics(core: PagelockCore): CacheStatistics {
  const { control, slots } = core;
  const counters = {} as Record<keyof typeof PAGELOCK_COUNTER, number>;
  for (const [name, lane] of Object.entries(PAGELOCK_COUNTER)) {
    let sum = 0;
    for (let slot = 0; slot < slots.rowCount; slot++) sum += slots.counters.at(slot, lane);
    counters[name as keyof typeof PAGELOCK_COUNTER] = sum;
  }
  let owners = 0;
  for (let owner = 0; owner < control.ownerFresh.get(0); owner++) if (core.owners.state.get(owner) !== 0) owners++;
  return {
    counters,
    owners,
    entries: control.entryCount.get(0),
    lockedPages: control.lockedPages.get(0),
    windowPages: control.windowPages.get(0),
    maxWindow: Number.isFinite(core.maxWindow) ? core.maxWindow : null,
    disabled: control.disabled.get(0),
    emptyBuckets: control.emptyBuckets.get(0),
    fullBuckets: control.fullBuckets.get(0),
  };
}
