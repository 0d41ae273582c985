/** Options of the mapping cache, and the sizes that follow from memory and slots. */

import { failMisuse, rejectUnknownOptions, requireInteger } from '../base/errors.ts';
import { ceilPowerOfTwo } from '../base/exact.ts';
import type { Region } from '../layout/region.ts';

/** How files are mapped. */
export interface MappingOptions {
  /** `'seed'`: beside `vm.mappings` there is `vm.cachedMappings`, which maps pages exactly as `vpm.c` does. */
  readonly compat?: 'seed';
  /** With `compat`: false turns the cached mappings off as a whole; their calls then throw `ENOTSUP`. Default true. */
  readonly enabled?: boolean;
  /** With `compat`: false maps pages without remembering them. Default true. */
  readonly cache?: boolean;
  /** With `compat`: pages that are remembered. Default: by `percent`, but at least 64 MiB of pages. */
  readonly entries?: number;
  /** With `compat`: share of the memory whose pages are remembered. Default 12. */
  readonly percent?: number;
  /** With `compat`: free lists; 0 for one per slot. Below 0 or above two per slot: two per slot. Default 0. */
  readonly freeLists?: number;
}

/** What the cache is, as the region has it. */
export const MAPPING_STATE = {
  /** Was not asked for. */
  absent: 0,
  /** Everything off. */
  disabled: 1,
  /** Pages are mapped, none is remembered. */
  uncached: 2,
  cached: 3,
} as const;

/** The cache's share of the geometry, and its state. */
export interface MappingPlan {
  readonly geometry: {
    readonly mappingLists: number;
    readonly mappingEntries: number;
    readonly mappingFrames: number;
  };
  /** A value of `MAPPING_STATE`. */
  readonly state: number;
}

const KNOWN: readonly (keyof MappingOptions)[] = ['compat', 'enabled', 'cache', 'entries', 'percent', 'freeLists'];

/** The cache of the source is never smaller and never larger than these. */
const CACHE_BYTES_MIN = 64 * 1024 ** 2;
const CACHE_BYTES_MAX = 256 * 1024 ** 3;

const ENTRIES_MAX = 2 ** 26;

/** Checks the options and computes the sizes. Throws `EINVAL`. */
export function planMappings(options: MappingOptions, frames: number, pageSize: number, slots: number): MappingPlan {
  rejectUnknownOptions('boot: mappings', options, KNOWN);
  const { compat, enabled = true, cache = true, percent = 12, freeLists = 0 } = options;
  const none = { mappingLists: 0, mappingEntries: 0, mappingFrames: 0 };
  if (compat === undefined) {
    if (Object.keys(options).length > 0) {
      failMisuse('boot: mappings', { ...options }, "without compat: 'seed' there is nothing to choose");
    }
    return { geometry: none, state: MAPPING_STATE.absent };
  }
  if (compat !== 'seed') failMisuse('boot: mappings', { compat }, "compat must be 'seed'");
  requireInteger('boot: mappings', 'percent', percent, 0, 100);
  requireInteger('boot: mappings', 'freeLists', freeLists, -ENTRIES_MAX, ENTRIES_MAX);
  if (!enabled) return { geometry: none, state: MAPPING_STATE.disabled };
  if (!cache) return { geometry: { ...none, mappingFrames: frames }, state: MAPPING_STATE.uncached };
  const bytes = Math.floor((frames * percent) / 100) * pageSize;
  const sized = Math.min(Math.max(bytes, CACHE_BYTES_MIN), CACHE_BYTES_MAX) / pageSize;
  const entries = requireInteger('boot: mappings', 'entries', options.entries ?? sized, 1, ENTRIES_MAX);
  return {
    geometry: { mappingLists: countLists(freeLists, slots), mappingEntries: entries, mappingFrames: frames },
    state: MAPPING_STATE.cached,
  };
}

/** Free lists: one per slot, or what was asked for within limits; a power of two. */
function countLists(asked: number, slots: number): number {
  const lists = asked === 0 ? slots : asked < 0 || asked > 2 * slots ? 2 * slots : asked;
  return ceilPowerOfTwo(lists);
}

/** Writes the state into a fresh region and puts all entries on their lists, the last ones first. */
export function createMappingCache(region: Region, state: number): void {
  const { mappingCache, mappingList, mappingEntry, mappingSlot } = region.tables;
  mappingCache.state.put(0, state);
  const mask = mappingList.rowCount - 1;
  for (let entry = mappingEntry.rowCount - 1; entry >= 0; entry--) {
    const list = entry & mask;
    // Queue 0 gives out first, so everything begins on queue 1.
    const last = mappingList.tail.at(list, 1);
    mappingEntry.queue.put(entry, 2);
    mappingEntry.previous.put(entry, last);
    if (last === 0) mappingList.head.putAt(list, 1, entry + 1);
    else mappingEntry.next.put(last - 1, entry + 1);
    mappingList.tail.putAt(list, 1, entry + 1);
  }
  if (mappingList.rowCount === 0) return;
  for (let slot = 0; slot < mappingSlot.rowCount; slot++) mappingSlot.rotor.put(slot, slot & mask);
}
