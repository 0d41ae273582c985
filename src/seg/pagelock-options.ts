/**
 * Tunables of the pagelock cache and the rules that size it.
 *
 * A value of 0 means: choose by the amount of memory, as the original source does. The two hash tables are rounded to
 * powers of two in different ways, which recorded runs show.
 */

import { ceilPowerOfTwo, fail, failMisuse, log2Floor, rejectUnknownOptions, requireInteger } from '../base/index.ts';
import type { Region } from '../layout/index.ts';
import { PAGELOCK_STATE } from './pagelock-kinds.ts';

/** Options of the cache, chosen once for all threads. */
export interface PagelockOptions {
  /** `'seed'`: the rules of the original source, for replays. Default: ours. */
  readonly compat?: 'seed';
  /** False: nothing is ever cached. Default true. */
  readonly enabled?: boolean;
  /** Pages of memory. Default: the region's frames. */
  readonly memoryPages?: number;
  /** Pages that can be locked. Default: `memoryPages`. */
  readonly availablePages?: number;
  /** Pages that could be locked when the system started. Default: `availablePages`. */
  readonly availableAtBoot?: number;
  /** Buckets of ranges that are not wired; 0 chooses. */
  readonly windowBuckets?: number;
  /** Buckets of wired ranges; 0 chooses. */
  readonly wiredBuckets?: number;
  /** Most pages of ranges that are not wired; 0 chooses, infinite is no limit. */
  readonly maxWindow?: number;
  /** Most pages that one reap takes. Default: 1 GiB worth. */
  readonly purgePages?: number;
  /** Logarithm of the fraction of the window that one reap may take. Default 5. */
  readonly shrinkShift?: number;
  /** Ticks that a released range is safe from the reaper. Default: one second's worth. */
  readonly maxAgeTicks?: number;
  /** Ticks in a second. Default 100. */
  readonly hertz?: number;
  /** Milliseconds between two visits of the reaper. Default 1000. */
  readonly reapMs?: number;
  /** Fruitless attempts that a disable under the rules of the original source repeats. Default 100. */
  readonly stallThreshold?: number;
  /** Neighbouring ranges are merged up to this many pages; 0 never. Default 1024. */
  readonly mergePages?: number;
}

const KNOWN: readonly (keyof PagelockOptions)[] = [
  'compat',
  'enabled',
  'memoryPages',
  'availablePages',
  'availableAtBoot',
  'windowBuckets',
  'wiredBuckets',
  'maxWindow',
  'purgePages',
  'shrinkShift',
  'maxAgeTicks',
  'hertz',
  'reapMs',
  'stallThreshold',
  'mergePages',
];

/** Sizes that follow from the amount of memory and the tunables. */
export interface PagelockSizes {
  readonly windowBuckets: number;
  readonly wiredBuckets: number;
  /** Pages; infinite without a limit. */
  readonly maxWindow: number;
}

const MEBIBYTE_SHIFT = 20;
const BUCKETS_MIN = 1024;
const WIRED_BUCKETS_MAX = 256 * 1024;
const PURGE_BYTES = 2 ** 30;

/** The sizing rules; tunables of 0 are chosen. */
export function sizePagelock(
  memoryPages: number,
  availablePages: number,
  tunables: { windowBuckets: number; wiredBuckets: number; maxWindow: number },
  pageSize = 4096,
): PagelockSizes {
  const mebibytes = Math.floor(memoryPages / 2 ** (MEBIBYTE_SHIFT - log2Floor(pageSize)));
  // 1. The window: one bucket per 32 KiB, at least per 8 pages; to the nearest power of two, the middle up.
  let windowBuckets = tunables.windowBuckets;
  if (windowBuckets === 0 || windowBuckets > memoryPages) {
    const pagesPerBucket = Math.max(Math.floor((32 * 1024) / pageSize), 8);
    windowBuckets = Math.max(BUCKETS_MIN, Math.floor(memoryPages / pagesPerBucket));
  }
  const below = 2 ** log2Floor(windowBuckets);
  windowBuckets = 2 * (windowBuckets - below) >= below ? 2 * below : below;
  // 2. Wired ranges: one bucket per 128 KiB, up to 256 Ki of them; to the next power of two.
  let wiredBuckets = tunables.wiredBuckets;
  if (wiredBuckets === 0 || wiredBuckets > Math.floor(memoryPages / 4)) {
    wiredBuckets = mebibytes < 20 * 1024 ? Math.max(BUCKETS_MIN, mebibytes * 8) : WIRED_BUCKETS_MAX;
  }
  wiredBuckets = ceilPowerOfTwo(wiredBuckets);
  // 3. The window's limit: a fraction that grows with memory, none from 2 GiB up.
  let { maxWindow } = tunables;
  if (maxWindow === 0) {
    if (mebibytes < 64) maxWindow = Math.floor(availablePages / 32);
    else if (mebibytes < 512) maxWindow = Math.floor(availablePages / 8);
    else if (mebibytes < 1024) maxWindow = Math.floor(availablePages / 4);
    else if (mebibytes < 2048) maxWindow = Math.floor(availablePages / 2);
    else maxWindow = Number.POSITIVE_INFINITY;
  }
  return { windowBuckets, wiredBuckets, maxWindow };
}

/**
 * Writes the cache's control row: once, before other threads attach. Throws `EINVAL` for a bad option, `EEXIST` when the
 * region has a cache, and `ENOMEM` when the hash tables are larger than the region's `pagelockBuckets`.
 */
export function createPagelock(region: Region, options: PagelockOptions = {}): PagelockSizes {
  rejectUnknownOptions('createPagelock', options, KNOWN);
  const { pagelock } = region.tables;
  if (pagelock.state.get(0) !== PAGELOCK_STATE.none) {
    fail('EEXIST', 'createPagelock', {}, 'the region has a pagelock cache');
  }
  const { pageSize, frames, pagelockBuckets } = region.geometry;
  const integer = (name: keyof PagelockOptions, fallback: number, max = 2 ** 40): number =>
    requireInteger('createPagelock', name, options[name] ?? fallback, 0, max);
  const memoryPages = integer('memoryPages', frames);
  const availablePages = integer('availablePages', memoryPages);
  const maxWindow = options.maxWindow ?? 0;
  if (!(maxWindow >= 0)) failMisuse('createPagelock', { maxWindow }, 'maxWindow is a number of pages, or infinite');
  const sizes = sizePagelock(
    memoryPages,
    availablePages,
    { windowBuckets: integer('windowBuckets', 0), wiredBuckets: integer('wiredBuckets', 0), maxWindow },
    pageSize,
  );
  const enabled = options.enabled ?? true;
  if (enabled && sizes.windowBuckets + sizes.wiredBuckets > pagelockBuckets) {
    fail(
      'ENOMEM',
      'createPagelock',
      { ...sizes, pagelockBuckets },
      'boot with more `pagelockBuckets`, or choose fewer',
    );
  }
  const hertz = requireInteger('createPagelock', 'hertz', options.hertz ?? 100, 1, 1000);
  pagelock.seedRules.put(0, options.compat === 'seed' ? 1 : 0);
  pagelock.windowBuckets.put(0, enabled ? sizes.windowBuckets : 0);
  pagelock.wiredBuckets.put(0, enabled ? sizes.wiredBuckets : 0);
  pagelock.shrinkShift.put(0, integer('shrinkShift', 5, 30));
  pagelock.stallThreshold.put(0, integer('stallThreshold', 100, 2 ** 30));
  pagelock.mergePages.put(0, integer('mergePages', 1024, 2 ** 30));
  pagelock.maxWindow.put(0, sizes.maxWindow);
  pagelock.purgePages.put(0, integer('purgePages', Math.floor(PURGE_BYTES / pageSize)));
  pagelock.maxAgeTicks.put(0, integer('maxAgeTicks', hertz));
  pagelock.tickMs.put(0, 1000 / hertz);
  pagelock.reapMs.put(0, integer('reapMs', 1000));
  pagelock.availableAtBoot.put(0, integer('availableAtBoot', availablePages));
  pagelock.disabled.put(0, enabled ? 0 : 1);
  pagelock.state.put(0, enabled ? PAGELOCK_STATE.on : PAGELOCK_STATE.off);
  return sizes;
}
