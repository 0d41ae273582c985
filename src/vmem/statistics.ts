/** Numbers about an arena. */

import {
  ARENA_DOUBLE,
  ARENA_WORD,
  ORDER_LANES,
  TAG_DOUBLE,
  TAG_DOUBLE_SHIFT,
  TAG_SHIFT,
  TAG_WORD,
} from '../layout/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { firstListFrom } from './free-lists.ts';
import { ARENA_COUNTER } from './kinds.ts';
import type { QuantumCacheStatistics } from './quantum-caches.ts';

/** Counts of operations; each may miss the last operation of a thread that was terminated. */
export type ArenaCounts = Readonly<Record<keyof typeof ARENA_COUNTER, number>>;

/** See the file's header. */
export interface ArenaStatistics {
  readonly name: string;
  readonly quantum: number;
  /** Sum of all spans. */
  readonly size: number;
  /** Sum of all allocations. */
  readonly inUse: number;
  readonly spans: number;
  /** Live allocations. */
  readonly allocations: number;
  readonly allocationsPeak: number;
  /** Buckets of the allocation hash. */
  readonly buckets: number;
  /** Boundary tags in the reserve. */
  readonly spareTags: number;
  /** Free segments by order: lane k counts those of 2^k to 2^(k+1) - 1 quanta. Trailing zeros are left out. */
  readonly freeByOrder: readonly number[];
  /** Free segments. */
  readonly freeSegments: number;
  /** Size of the largest one. */
  readonly largestFree: number;
  /** 1 - largest free segment / all that is free; 0 when nothing is free. */
  readonly fragmentation: number;
  readonly counts: ArenaCounts;
  /** The quantum caches, smallest objects first. Their slabs count as allocations above. */
  readonly quantumCaches: readonly QuantumCacheStatistics[];
}

/** Takes the numbers under the lock. Linear in the number of free segments. */
export function readStatistics(core: ArenaCore): ArenaStatistics {
  const { words, doubles, base, baseDouble } = core;
  core.enter();
  const freeByOrder: number[] = [];
  let largestFree = 0;
  let freeSegments = 0;
  for (let order = firstListFrom(core, 0); order >= 0 && order < ORDER_LANES; order = firstListFrom(core, order + 1)) {
    while (freeByOrder.length <= order) freeByOrder.push(0);
    for (let tag = words[base + ARENA_WORD.freeHead + order] as number; tag !== 0; freeSegments++) {
      freeByOrder[order]!++;
      largestFree = Math.max(largestFree, doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_DOUBLE.size] as number);
      tag = words[(tag << TAG_SHIFT) + TAG_WORD.linkNext] as number;
    }
  }
  const counts = {} as Record<keyof typeof ARENA_COUNTER, number>;
  for (const [name, lane] of Object.entries(ARENA_COUNTER)) {
    counts[name as keyof typeof ARENA_COUNTER] = doubles[baseDouble + ARENA_DOUBLE.statistics + lane] as number;
  }
  const size = doubles[baseDouble + ARENA_DOUBLE.sizeTotal] as number;
  const inUse = doubles[baseDouble + ARENA_DOUBLE.sizeInUse] as number;
  const statistics = {
    name: core.name,
    quantum: core.quantum,
    size,
    inUse,
    spans: words[base + ARENA_WORD.spanCount] as number,
    allocations: words[base + ARENA_WORD.busyTags] as number,
    allocationsPeak: words[base + ARENA_WORD.busyTagsPeak] as number,
    buckets: words[base + ARENA_WORD.bucketCount] as number,
    spareTags: words[base + ARENA_WORD.spareCount] as number,
    freeByOrder,
    freeSegments,
    largestFree,
    fragmentation: size === inUse ? 0 : 1 - largestFree / (size - inUse),
    counts,
    quantumCaches: core.caches?.statistics() ?? [],
  };
  core.exit();
  return statistics;
}
