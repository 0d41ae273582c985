/** Numbers about an arena. */

import {
  ARENA_BUCKET_COUNT,
  ARENA_BUSY_TAGS,
  ARENA_BUSY_TAGS_PEAK,
  ARENA_SIZE_IN_USE,
  ARENA_SIZE_TOTAL,
  ARENA_SPAN_COUNT,
  ARENA_SPARE_COUNT,
  ARENA_STATISTICS,
  ORDER_LANES,
  TAG_DOUBLE_SHIFT,
  TAG_SIZE,
} from '../layout/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { firstListFrom, listClass } from './free-lists.ts';
import { ARENA_COUNTER } from './kinds.ts';
import type { QuantumCacheStatistics } from './quantum-caches.ts';
import { quarantineUse } from './quarantine.ts';
import { waitersOf } from './space-queue.ts';

/** Counts of operations; each may miss the last operation of a thread that was terminated. */
export type ArenaCounts = Readonly<Record<keyof typeof ARENA_COUNTER | 'frees', number>>;

/** See the file's header. */
export interface ArenaStatistics {
  readonly name: string;
  readonly quantum: number;
  /** Sum of all spans. */
  readonly size: number;
  /** Sum of all allocations. */
  readonly inUse: number;
  readonly spans: number;
  /** Most that all spans may be together; null without a limit. */
  readonly limit: number | null;
  /** Ranges that were freed and wait before they are used again, and their sizes together: part of what is free. */
  readonly quarantined: number;
  readonly quarantinedSize: number;
  /** Requests that wait at present. */
  readonly waiting: number;
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
    for (const tag of listClass(core, order)) {
      freeSegments++;
      freeByOrder[order]!++;
      largestFree = Math.max(largestFree, doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number);
    }
  }
  const counts = {} as Record<keyof typeof ARENA_COUNTER | 'frees', number>;
  for (const [name, lane] of Object.entries(ARENA_COUNTER)) {
    counts[name as keyof typeof ARENA_COUNTER] = doubles[baseDouble + ARENA_STATISTICS + lane] as number;
  }
  counts.frees = counts.allocations - (words[base + ARENA_BUSY_TAGS] as number);
  const quarantine = quarantineUse(core);
  const size = doubles[baseDouble + ARENA_SIZE_TOTAL] as number;
  const inUse = doubles[baseDouble + ARENA_SIZE_IN_USE] as number;
  const statistics = {
    name: core.name,
    quantum: core.quantum,
    size,
    inUse,
    spans: words[base + ARENA_SPAN_COUNT] as number,
    limit: core.limit === Number.POSITIVE_INFINITY ? null : core.limit,
    quarantined: quarantine.count,
    quarantinedSize: quarantine.size,
    waiting: waitersOf(core),
    allocations: words[base + ARENA_BUSY_TAGS] as number,
    allocationsPeak: words[base + ARENA_BUSY_TAGS_PEAK] as number,
    buckets: words[base + ARENA_BUCKET_COUNT] as number,
    spareTags: words[base + ARENA_SPARE_COUNT] as number,
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
