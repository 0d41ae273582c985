/** Constants and small types of the pagelock cache. */

/** Number of an owner row: a segment or an anon map, as far as the cache is concerned. */
export type CacheOwner = number & { readonly __unit?: 'cache owner' };

/** Number of a cached range. */
export type EntryIndex = number & { readonly __unit?: 'cache entry' };

/** Number of a hash bucket, window buckets first. */
export type BucketIndex = number & { readonly __unit?: 'cache bucket' };

/** Handle of a pin: what `lookup` and `insert` return and `release` takes. Never negative. */
export type Pin = number & { readonly __unit?: 'pin' };

/** `pagelock.state`. */
export const PAGELOCK_STATE = { none: 0, off: 1, on: 2 } as const;

/** Flags of a call: add `write` to write, `wired` for the wired table. `pinShift` adds a page shift. */
export const PIN = { read: 0, write: 1, wired: 2 } as const;

/** Position of the page shift in the flags of a call. */
export const PIN_SHIFT_POSITION = 8;

/** The page shift as a flag: part of the hash under the rules of the original source, without meaning under ours. */
export function pinShift(shift: number): number {
  return shift << PIN_SHIFT_POSITION;
}

/** Flags of an entry; its driver lies above them. */
export const ENTRY_FLAG = {
  /** Somebody pinned it to write. */
  write: 1,
  /** Released since the reaper last came by. */
  referenced: 2,
  wired: 4,
  /** Goes at its last release, and is not hit any more. */
  doomed: 8,
  /** Its reclaim has run. */
  called: 16,
  /** Its driver can join shadow lists. */
  joinable: 32,
  /** Its next release looks for neighbours to merge with. */
  mergeDue: 64,
  /** Another range of the owner has, or had, some of its pages too. */
  shares: 128,
} as const;

/** Position of the driver in the flags of an entry. */
export const DRIVER_POSITION = 8;

/** `insert` did not cache because a cached range covers this one already. */
export const INSERT_COVERED = -1;

/** `insert` did not cache: disabled, the window is full, or no room is left. */
export const INSERT_REFUSED = -2;

/** Lanes of a slot's counters. */
export const PAGELOCK_COUNTER = {
  hits: 0,
  misses: 1,
  inserts: 2,
  covered: 3,
  refused: 4,
  reclaims: 6,
  reapedPages: 7,
  merges: 8,
} as const;

/** Lists of active buckets. */
export const LIST_WIRED = 2;

/** When an emptied bucket leaves its list of active buckets. */
export const UNLIST = { normal: 0, walker: 1, never: 2 } as const;

/** What a segment driver does for the cache. Runs with no lock held. */
export interface CacheDriver {
  /**
   * Takes a shadow list back: unlocks its pages. True says that this was the last range of a list shared by several
   * segments. After a thread died in the middle of it, it runs again, in another thread, for the same shadow list.
   */
  reclaim(
    owner: CacheOwner,
    address: number,
    lengthBytes: number,
    shadow: number,
    write: boolean,
    asynchronous: boolean,
  ): boolean;
  /**
   * A shadow list that stands for two neighbouring ones, or -1. Without this function neighbours are not merged. Until
   * the cache has stored the result, each of the two may be reclaimed in its place, if this thread dies.
   */
  join?(first: number, second: number): number;
}

/** Memory as the reaper sees it, in pages. */
export interface MemoryGauges {
  readonly freePages: number;
  readonly lotsFree: number;
  readonly desiredFree: number;
  readonly neededFree: number;
}
