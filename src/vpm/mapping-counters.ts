/** What each slot did with cached mappings: counted by the slot itself, added up by whoever asks. */

import type { Region } from '../layout/region.ts';
import type { Thread } from '../sync/thread.ts';

/** Lanes of a slot's counters. */
export const MAPPING_COUNTER = {
  /** Pages that had an entry. */
  hits: 0,
  /** Pages that were given one. */
  misses: 1,
  /** Entries that a page named and that had gone to another page. */
  steals: 2,
  /** Pages to which two threads brought an entry at the same time. */
  contended: 3,
  /** Evicted pages that could not be looked at because somebody had locked them. */
  previousLocked: 4,
  /** Requests that the store refused. */
  storeFailures: 5,
  /** Copies that zeroed the beginning of a page. */
  zeroedStarts: 6,
  /** Lists that were found empty. */
  emptyLists: 7,
  /** Requests that waited because no list had an entry. */
  noEntries: 8,
  /** Pages made in a frame. */
  created: 9,
  /** Pages found on the list of clean pages. */
  reclaimed: 10,
  /** Clean pages that lost their frame to another. */
  stolen: 11,
  mapped: 12,
  unmapped: 13,
  /** Pages mapped that were left without an entry: the source's theft of its own entry. */
  lostEntries: 14,
  /** Pages zeroed past the last one mapped, which the source does through an address that is none. */
  zeroFaults: 15,
  /** Requests for pages from the store. */
  getPages: 16,
  /** Pages that were made clean because no frame could be had otherwise. */
  cleaned: 17,
} as const;

/** Name of a counter. */
export type MappingCounter = keyof typeof MAPPING_COUNTER;

/** The counters of one slot as a window. */
export function mappingCountersOf(thread: Thread): Float64Array {
  const { counters } = thread.region.tables.mappingSlot;
  return counters.view.subarray(thread.slot * counters.stride, (thread.slot + 1) * counters.stride);
}

/** Sums over all slots, also those whose threads have ended. */
export function mappingStatistics(region: Region): Record<MappingCounter, number> {
  const { counters, rowCount } = region.tables.mappingSlot;
  const sums = {} as Record<MappingCounter, number>;
  for (const [name, lane] of Object.entries(MAPPING_COUNTER)) {
    let sum = 0;
    for (let slot = 0; slot < rowCount; slot++) sum += counters.at(slot, lane);
    sums[name as MappingCounter] = sum;
  }
  return sums;
}
