/** What each slot did with pages: counted by the slot itself, added up by whoever asks. */

import type { Region } from '../layout/region.ts';
import type { Thread } from '../sync/thread.ts';

/** Lanes of a slot's counters. */
export const PAGE_COUNTER = {
  /** Pages found valid without a lock. */
  hits: 0,
  /** Pages that were not there and were filled. */
  misses: 1,
  /** Pages that had to be waited for, because another thread was filling or moving them. */
  waits: 2,
  evictions: 3,
  /** Calls that filled pages, each for one or several adjacent ones. */
  reads: 4,
  /** Bytes that those calls brought. */
  readBytes: 5,
  /** Calls that brought nothing: the store failed. */
  failures: 6,
  /** Requests that had to wait until a pinned page was released. */
  shortages: 7,
  /** Pages dropped because their vnode went away or changed. */
  drops: 8,
  /** Bytes copied out of pages. */
  copiedBytes: 9,
  /** Pages handed out in mappings. */
  mappedPages: 10,
  /** Calls that gave modified pages back to their store, each for one or several adjacent ones. */
  writes: 11,
  /** Pages that those calls wrote. */
  writtenPages: 12,
  /** Calls that the store refused: their pages stay modified. */
  writeFailures: 13,
  /** Pages made without reading them. */
  created: 14,
  /** Modified pages that were given up unwritten. */
  discards: 15,
  /** Pages moved to another frame. */
  relocations: 16,
  /** Pages that got another identity. */
  renames: 17,
  /** Pages put on the cache list. */
  retired: 18,
  /** Pages looked up while they were on the cache list. */
  reclaimed: 19,
  /** Pages brought because a reader seemed to be on its way to them. */
  aheadPages: 20,
  /** Bytes that went from a store straight to a reader. */
  directBytes: 21,
  /** Pages written back by writers that had come to a limit of modified pages. */
  behindPages: 22,
} as const;

/** Name of a counter. */
export type PageCounter = keyof typeof PAGE_COUNTER;

/** The counters of one slot as a window. */
export function countersOf(thread: Thread): Float64Array {
  const { counters } = thread.region.tables.pageSlot;
  return counters.view.subarray(thread.slot * counters.stride, (thread.slot + 1) * counters.stride);
}

/** Sums over all slots, also those whose threads have ended. */
export function pageStatistics(region: Region): Record<PageCounter, number> {
  const { counters, rowCount } = region.tables.pageSlot;
  const sums = {} as Record<PageCounter, number>;
  for (const [name, lane] of Object.entries(PAGE_COUNTER)) {
    let sum = 0;
    for (let slot = 0; slot < rowCount; slot++) sum += counters.at(slot, lane);
    sums[name as PageCounter] = sum;
  }
  return sums;
}
