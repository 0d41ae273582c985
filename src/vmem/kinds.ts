/** Small integers that arenas store in shared memory, and the names that users know them by. */

import { failMisuse } from '../base/index.ts';

/** Number of a boundary tag's record in the region; 0 is none. */
export type TagIndex = number & { readonly __unit?: 'tag' };

/** Row of an arena. */
export type ArenaIndex = number & { readonly __unit?: 'arena' };

/** In a reserve or in the pool. */
export const KIND_NONE = 0;
/** A span that `add` brought: never given back while the arena lives. */
export const KIND_SPAN_STATIC = 1;
/** A span that was imported: given back to its source when all of it is free. */
export const KIND_SPAN_IMPORTED = 2;
/** A free segment. */
export const KIND_FREE = 3;
/** An allocation. */
export const KIND_BUSY = 4;

/** Freed, and not yet to be used again: see quarantine.ts. */
export const KIND_QUARANTINED = 5;

/** What a boundary tag stands for. Spans are below `free`. */
export const TAG_KIND = {
  none: KIND_NONE,
  spanStatic: KIND_SPAN_STATIC,
  spanImported: KIND_SPAN_IMPORTED,
  free: KIND_FREE,
  busy: KIND_BUSY,
  quarantined: KIND_QUARANTINED,
} as const;

/** Names of tag kinds, by number. */
export const TAG_KIND_NAME = ['none', 'static', 'span', 'free', 'busy', 'quarantined'] as const;

/** The newest segment of the first list in which every segment is large enough; falls back to `best`. */
export const STRATEGY_INSTANT = 1;
/** The newest segment that fits, in the list of the smallest size class that has one. */
export const STRATEGY_BEST = 2;
/** The smallest segment that fits, and among equals the one with the lowest address. */
export const STRATEGY_EXACT = 3;
/** The first place behind the previous allocation of this strategy, in the order of addresses, from the lowest at the end. */
export const STRATEGY_NEXT = 4;

/** How a free segment is chosen. */
export const STRATEGY = {
  instant: STRATEGY_INSTANT,
  best: STRATEGY_BEST,
  exact: STRATEGY_EXACT,
  next: STRATEGY_NEXT,
} as const;

/** Name of a strategy. */
export type Strategy = keyof typeof STRATEGY;

/** Names of strategies, by number. */
export const STRATEGY_NAME: readonly (Strategy | undefined)[] = [undefined, 'instant', 'best', 'exact', 'next'];

/** `free` of ARENA_STATE. */
export const STATE_FREE = 0;
/** `creating` of ARENA_STATE. */
export const STATE_CREATING = 1;
/** `ready` of ARENA_STATE. */
export const STATE_READY = 2;
/** `destroying` of ARENA_STATE. */
export const STATE_DESTROYING = 3;

/** States of an arena's row. */
export const ARENA_STATE = {
  free: STATE_FREE,
  creating: STATE_CREATING,
  ready: STATE_READY,
  destroying: STATE_DESTROYING,
} as const;

/** Name of the heap's arena, which is the system's: prefixed, because programs may want `heap` for themselves. */
export const HEAP_NAME = 'vm.heap';

/** Name of the arena whose allocations are rows of the table of boundary tags: see tag-arena.ts. */
export const TAGS_NAME = 'vm.tags';

/** What the names of the system's arenas begin with: the heap's, that of tags, and those of address spaces. */
const SYSTEM_PREFIX = 'vm.';

/** True for the name of an arena that is the system's: for it some boundary tags are kept. */
export function isSystemName(name: string): boolean {
  return name.startsWith(SYSTEM_PREFIX);
}

/** Imports are 16 times as large as the request. */
export const FLAG_LARGE_IMPORT = 1;
/** Behaves like the original source wherever the two differ. */
export const FLAG_COMPAT_SEED = 2;
/** Spans cannot be given back: the import function has no release function. */
export const FLAG_KEEP_SPANS = 4;
/** Allocations are charged to the owner of the thread that makes them. */
export const FLAG_CHARGE = 8;
/** Freed ranges wait before they are used again. */
export const FLAG_QUARANTINE = 16;
/** The import function returns a promise. */
export const FLAG_ASYNC_IMPORT = 32;
/** Freed ranges are used again early when a request would fail otherwise. */
export const FLAG_EARLY = 64;

/** Bits of an arena's flags. */
export const ARENA_FLAG = {
  largeImport: FLAG_LARGE_IMPORT,
  compatSeed: FLAG_COMPAT_SEED,
  keepSpans: FLAG_KEEP_SPANS,
  charge: FLAG_CHARGE,
  quarantine: FLAG_QUARANTINE,
  asyncImport: FLAG_ASYNC_IMPORT,
  early: FLAG_EARLY,
} as const;

/** How many times the size of a request a large import asks for. */
export const LARGE_IMPORT_FACTOR = 16;

/** `allocations` of ARENA_COUNTER. */
export const COUNT_ALLOCATIONS = 0;
/** `failures` of ARENA_COUNTER. */
export const COUNT_FAILURES = 2;
/** `constrained` of ARENA_COUNTER. */
export const COUNT_CONSTRAINED = 3;
/** `imports` of ARENA_COUNTER. */
export const COUNT_IMPORTS = 4;
/** `importFailures` of ARENA_COUNTER. */
export const COUNT_IMPORT_FAILURES = 5;
/** `releases` of ARENA_COUNTER. */
export const COUNT_RELEASES = 6;
/** `fullSearches` of ARENA_COUNTER. */
export const COUNT_FULL_SEARCHES = 7;
/** `rehashes` of ARENA_COUNTER. */
export const COUNT_REHASHES = 8;
/** `waits` of ARENA_COUNTER. */
export const COUNT_WAITS = 12;
/** `retries` of ARENA_COUNTER. */
export const COUNT_RETRIES = 13;
/** `searches` of ARENA_COUNTER. */
export const COUNT_SEARCHES = 14;
/** `quarantined` of ARENA_COUNTER. */
export const COUNT_QUARANTINED = 15;
/** `resizes` of ARENA_COUNTER. */
export const COUNT_RESIZES = 16;
/** `merges` of ARENA_COUNTER. */
export const COUNT_MERGES = 17;
/** `reclaims` of ARENA_COUNTER. */
export const COUNT_RECLAIMS = 18;
/** `refusals` of ARENA_COUNTER. */
export const COUNT_REFUSALS = 19;

/** `passed` of ARENA_COUNTER. */
export const COUNT_PASSED = 20;

/** Lanes of an arena's statistics. A count may miss the last operation of a thread that was terminated. */
export const ARENA_COUNTER = {
  allocations: COUNT_ALLOCATIONS,
  failures: COUNT_FAILURES,
  constrained: COUNT_CONSTRAINED,
  imports: COUNT_IMPORTS,
  importFailures: COUNT_IMPORT_FAILURES,
  releases: COUNT_RELEASES,
  fullSearches: COUNT_FULL_SEARCHES,
  rehashes: COUNT_REHASHES,
  /** Requests that joined the queue of those that wait. */
  waits: COUNT_WAITS,
  /** Further attempts of requests: after an import, after space was taken back, after waiting. */
  retries: COUNT_RETRIES,
  /** Attempts, each of which searched the free segments. */
  searches: COUNT_SEARCHES,
  /** Frees whose range went into quarantine. */
  quarantined: COUNT_QUARANTINED,
  /** Allocations that grew or shrank in place. */
  resizes: COUNT_RESIZES,
  /** Spans that were joined with the one in front. */
  merges: COUNT_MERGES,
  /** Calls of the reclaim callback. */
  reclaims: COUNT_RECLAIMS,
  /** Requests, imports and charges that a limit refused. */
  refusals: COUNT_REFUSALS,
  /** Segments, and nodes of trees of segments, that searches looked at beside the ones that they took. */
  passed: COUNT_PASSED,
} as const;

/** The number of a strategy that a call names, or `fallback` when it names none. Throws `EINVAL` for anything else. */
export function strategyCode(call: string, strategy: Strategy | undefined, fallback: number): number {
  if (strategy === undefined) return fallback;
  if (strategy === 'instant') return STRATEGY.instant;
  if (strategy === 'best') return STRATEGY.best;
  if (strategy === 'exact') return STRATEGY.exact;
  if (strategy === 'next') return STRATEGY.next;
  return failMisuse(call, { strategy }, `strategy must be one of ${Object.keys(STRATEGY).join(', ')}`);
}

/** Limits that refuse a request. */
export const REFUSED_BY = { none: 0, owner: 1, arena: 2 } as const;
