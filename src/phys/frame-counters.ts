/** What slots did with frames: each counts for itself, and counts outlive the threads. */

import type { Region } from '../layout/region.ts';

/** Lanes of `pageListSlot.counters`. */
export const FRAME_COUNTER = {
  /** Frames whose contents were moved elsewhere to make room. */
  moved: 0,
  /** Frames whose users were asked to move them and did not. */
  moveFailed: 1,
  /** Pages given up to make room. */
  reclaimed: 2,
  /** Frames that were in the way: neither moved nor given up. */
  pinned: 3,
  /** Windows in which a run was to be made. */
  windows: 4,
  /** Runs made in them. */
  assembled: 5,
  /** Calls of `compact`. */
  compactions: 6,
  /** Single frames taken from the slot's own cache. */
  cacheTakes: 7,
  /** Times that a slot's cache was filled. */
  cacheFills: 8,
  /** Times that a slot's cache was emptied, by whomever. */
  cacheDrains: 9,
  /** Ranges that went offline. */
  removals: 10,
  /** Ranges that were to go offline and did not. */
  removalsFailed: 11,
} as const;

/** Name of one counter. */
export type FrameCounter = keyof typeof FRAME_COUNTER;

/** Sums of all slots. */
export function frameStatistics(region: Region): Record<FrameCounter, number> {
  const { pageListSlot } = region.tables;
  const sums = {} as Record<FrameCounter, number>;
  for (const [name, lane] of Object.entries(FRAME_COUNTER)) {
    let sum = 0;
    for (let slot = 0; slot < pageListSlot.rowCount; slot++) sum += pageListSlot.counters.at(slot, lane);
    sums[name as FrameCounter] = sum;
  }
  return sums;
}
