/** Small integers that arenas store in shared memory, and the names that users know them by. */

import { failMisuse } from '../base/index.ts';

/** Number of a boundary tag's record in the region; 0 is none. */
export type TagIndex = number & { readonly __unit?: 'tag' };

/** Row of an arena. */
export type ArenaIndex = number & { readonly __unit?: 'arena' };

/** What a boundary tag stands for. Spans are below `free`. */
export const TAG_KIND = {
  /** In a reserve or in the pool. */
  none: 0,
  /** A span that `add` brought: never given back while the arena lives. */
  spanStatic: 1,
  /** A span that was imported: given back to its source when all of it is free. */
  spanImported: 2,
  /** A free segment. */
  free: 3,
  /** An allocation. */
  busy: 4,
} as const;

/** Names of tag kinds, by number. */
export const TAG_KIND_NAME = ['none', 'static', 'span', 'free', 'busy'] as const;

/** How a free segment is chosen. */
export const STRATEGY = {
  /** The newest segment of the first list in which every segment is large enough; falls back to `best`. */
  instant: 1,
  /** The newest segment that fits, in the list of the smallest size class that has one. */
  best: 2,
} as const;

/** Name of a strategy. */
export type Strategy = keyof typeof STRATEGY;

/** Names of strategies, by number. */
export const STRATEGY_NAME: readonly (Strategy | undefined)[] = [undefined, 'instant', 'best'];

/** States of an arena's row. */
export const ARENA_STATE = { free: 0, creating: 1, ready: 2, destroying: 3 } as const;

/** Bits of an arena's flags. */
export const ARENA_FLAG = {
  /** Imports are 16 times as large as the request. */
  largeImport: 1,
  /** Behaves like the original source wherever the two differ. */
  compatSeed: 2,
  /** Spans cannot be given back: the import function has no release function. */
  keepSpans: 4,
} as const;

/** How many times the size of a request a large import asks for. */
export const LARGE_IMPORT_FACTOR = 16;

/** Lanes of an arena's statistics. A count may miss the last operation of a thread that was terminated. */
export const ARENA_COUNTER = {
  allocations: 0,
  frees: 1,
  failures: 2,
  constrained: 3,
  imports: 4,
  importFailures: 5,
  releases: 6,
  fullSearches: 7,
  rehashes: 8,
  splits: 9,
  merges: 10,
} as const;

/** The number of a strategy that a call names, or `fallback` when it names none. Throws `EINVAL` for anything else. */
export function strategyCode(call: string, strategy: Strategy | undefined, fallback: number): number {
  if (strategy === undefined) return fallback;
  if (strategy === 'instant') return STRATEGY.instant;
  if (strategy === 'best') return STRATEGY.best;
  return failMisuse(call, { strategy }, `strategy must be one of ${Object.keys(STRATEGY).join(', ')}`);
}
