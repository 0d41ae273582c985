/** Options of a new arena, and what they become in its row. */

import { ADDRESS_MAX, failMisuse, isPowerOfTwo, rejectUnknownOptions, requireInteger, VmError } from '../base/index.ts';
import { ByteColumn } from '../layout/index.ts';
import type { CallbackReference, Callbacks } from '../sync/index.ts';
import { Arena } from './arena.ts';
import {
  type ArenaIndex,
  FLAG_ASYNC_IMPORT,
  FLAG_CHARGE,
  FLAG_COMPAT_SEED,
  FLAG_EARLY,
  FLAG_KEEP_SPANS,
  FLAG_LARGE_IMPORT,
  FLAG_QUARANTINE,
  STRATEGY_INSTANT,
  type Strategy,
  strategyCode,
} from './kinds.ts';
import type { SpanSource } from './transfer.ts';

/** Where an arena gets spans from when it has no free segment for a request. */
export interface ImportOptions {
  /** Another arena, or a module's export that is a `SpanSource`. */
  readonly from: Arena | CallbackReference;
  /** Ask for 16 times what is needed, so that the source is asked less often. */
  readonly large?: boolean;
  /**
   * The source is an `AsyncSpanSource`, which answers later. Only `allocAsync` and `allocWait` import then; for `allocWait`
   * some thread must run the function: see `Arenas.serveImports`. Default false.
   */
  readonly async?: boolean;
  /**
   * Milliseconds that an asynchronous import may take: the waits of all who share it end with `EIO` then, and the next request
   * asks anew. What comes later becomes a span all the same. Default: no limit.
   */
  readonly timeoutMs?: number;
  /**
   * Round what is asked for up to a multiple of this: a multiple of the quantum. An arena that has no such range is then asked
   * for one that just holds the request; functions are asked for multiples only.
   */
  readonly roundTo?: number;
}

/** How long a freed range is kept from being used again; with both, until both have passed. */
export interface QuarantineOptions {
  /** Later frees that it waits for. */
  readonly frees?: number;
  /** Milliseconds that it waits. */
  readonly ms?: number;
  /**
   * A request that would fail otherwise is given ranges that still wait: the oldest first, no more than it needs. Default
   * false: it fails, or goes on waiting.
   */
  readonly early?: boolean;
}

/** Who is told when space runs low. */
export interface ReclaimOptions {
  /** A module's export, or a registered name: a `SpaceReclaimer`. Threads that cannot have it go without. */
  readonly callback: CallbackReference;
  /** Room at or below which it is told, once until there is more again. Without it only before a request would fail. */
  readonly at?: number;
}

/** Options of a new arena. Sizes and addresses are integers below 2^53. */
export interface ArenaOptions {
  /** First address of the first span. Default 0. */
  readonly base?: number;
  /** Size of the first span; 0 for none. Default 0. */
  readonly size?: number;
  /** Smallest unit of allocation, a power of two: every size is rounded up to it. Default 1. */
  readonly quantum?: number;
  /** How free segments are chosen when a call does not say. Default `instant`. */
  readonly strategy?: Strategy;
  /**
   * Sizes up to this are cached per thread: a multiple of the quantum, clamped to 64 quanta (with
   * `compat: 'seed'` to 16). A pair of `alloc` and `free`
   * then takes no lock. Default 0: nothing is cached.
   */
  readonly quantumCacheMax?: number;
  /** Most that all spans together may be: `add` throws `EDQUOT` beyond it, imports are refused. Default: no limit. */
  readonly limit?: number;
  /** Keeps freed ranges from being used again for a while; see `Arena.releaseQuarantine`. Default: they are free at once. */
  readonly quarantine?: QuarantineOptions;
  /** Charges each allocation to the owner of the thread that makes it (`arenaBytes`). Default false. */
  readonly charge?: boolean;
  /** Who is told when space runs low. Default: nobody. */
  readonly reclaim?: ReclaimOptions;
  /** Where further spans come from. Default: nowhere. */
  readonly import?: ImportOptions;
  /** `'seed'`: behave like the original source wherever the two differ; see docs/differences.md. */
  readonly compat?: 'seed';
}

/** Checked options, as the arena's row stores them. */
export interface ArenaPlan {
  readonly name: string;
  readonly base: number;
  readonly size: number;
  readonly quantum: number;
  readonly strategy: number;
  readonly flags: number;
  readonly quantumCacheMax: number;
  /** -1: none. */
  readonly importArena: ArenaIndex;
  /** -1: none. */
  readonly importCallback: number;
  readonly importUnit: number;
  /** 0: no limit. */
  readonly importMs: number;
  /** 0: none. */
  readonly limit: number;
  readonly quarantineFrees: number;
  readonly quarantineMs: number;
  /** -1: none. */
  readonly lowCallback: number;
  readonly lowAt: number;
}

const CALL = 'arenas.create';
const KNOWN_OPTIONS = [
  'base',
  'size',
  'quantum',
  'strategy',
  'quantumCacheMax',
  'limit',
  'quarantine',
  'charge',
  'reclaim',
  'import',
  'compat',
] as const;
const KNOWN_IMPORT_OPTIONS = ['from', 'large', 'roundTo', 'async', 'timeoutMs'] as const;
const NAME_BYTES_MAX = 63;

/** Frees or milliseconds that a quarantine may last: times are compared modulo 2^32. */
const QUARANTINE_MAX = 2 ** 30;

/** Checks name and options. Throws `EINVAL` that names the option, its value and the rule. */
export function planArena(name: string, options: ArenaOptions, callbacks: Callbacks): ArenaPlan {
  if (typeof name !== 'string' || name === '' || ByteColumn.sizeOf(name) > NAME_BYTES_MAX) {
    failMisuse(CALL, { name }, `a name has 1 to ${NAME_BYTES_MAX} bytes`);
  }
  if (!ByteColumn.keeps(name)) {
    failMisuse(CALL, { name }, 'a name is well-formed text without zero characters');
  }
  if (typeof options !== 'object' || options === null) failMisuse(CALL, { name, options }, 'options must be an object');
  rejectUnknownOptions(CALL, options, KNOWN_OPTIONS);
  const {
    quantum: quantumGiven = 1,
    base: baseGiven = 0,
    size: sizeGiven = 0,
    quantumCacheMax: cacheGiven = 0,
  } = options;
  const quantum = requireInteger(CALL, 'quantum', quantumGiven, 1, ADDRESS_MAX);
  if (!isPowerOfTwo(quantum)) failMisuse(CALL, { name, quantum }, 'quantum must be a power of two');
  const base = requireInteger(CALL, 'base', baseGiven, 0, ADDRESS_MAX);
  const size = requireInteger(CALL, 'size', sizeGiven, 0, ADDRESS_MAX);
  if (base % quantum !== 0) failMisuse(CALL, { name, base, quantum }, 'base must be a multiple of the quantum');
  if (size % quantum !== 0) failMisuse(CALL, { name, size, quantum }, 'size must be a multiple of the quantum');
  if (base > ADDRESS_MAX - size) failMisuse(CALL, { name, base, size }, 'the range must end below 2^53');
  const quantumCacheMax = requireInteger(CALL, 'quantumCacheMax', cacheGiven, 0, ADDRESS_MAX);
  if (quantumCacheMax % quantum !== 0) {
    failMisuse(CALL, { name, quantumCacheMax, quantum }, 'quantumCacheMax must be a multiple of the quantum');
  }
  const { compat } = options;
  if (compat !== undefined && compat !== 'seed') failMisuse(CALL, { name, compat }, "compat must be 'seed'");
  const strategy = strategyCode(CALL, options.strategy, STRATEGY_INSTANT);
  const seedFlag = compat === 'seed' ? FLAG_COMPAT_SEED : 0;
  const source = planImport(name, quantum, options.import, callbacks);
  const life = planLife(name, size, quantumCacheMax, options, callbacks);
  const flags = source.flags | seedFlag | life.flags;
  return { name, base, size, quantum, strategy, quantumCacheMax, ...source, ...life, flags };
}

/** Limits, quarantine, charges, and who is told when space runs low. */
function planLife(name: string, size: number, quantumCacheMax: number, options: ArenaOptions, callbacks: Callbacks) {
  const { limit: limitGiven, quarantine, charge = false, reclaim, compat } = options;
  const limit = limitGiven === undefined ? 0 : requireInteger(CALL, 'limit', limitGiven, 1, ADDRESS_MAX);
  if (limit !== 0 && size > limit) failMisuse(CALL, { name, size, limit }, 'the first span must not exceed the limit');
  if (typeof charge !== 'boolean') failMisuse(CALL, { name, charge }, 'charge must be true or false');
  const { frees = 0, ms = 0, early = false } = planQuarantine(name, quarantine);
  for (const [option, given] of Object.entries({ quarantine: quarantine !== undefined, charge })) {
    if (given && quantumCacheMax !== 0) {
      failMisuse(CALL, { name, [option]: options[option as 'charge'], quantumCacheMax }, 'not with quantum caches');
    }
    if (given && compat === 'seed') failMisuse(CALL, { name, compat }, `the original has no ${option}`);
  }
  const waits = quarantine === undefined ? 0 : FLAG_QUARANTINE | (early ? FLAG_EARLY : 0);
  const flags = (charge ? FLAG_CHARGE : 0) | waits;
  return { flags, limit, quarantineFrees: frees, quarantineMs: ms, ...planReclaim(name, reclaim, callbacks) };
}

function planQuarantine(name: string, options: QuarantineOptions | undefined): QuarantineOptions {
  if (options === undefined) return {};
  if (typeof options !== 'object' || options === null) {
    failMisuse(CALL, { name, quarantine: options }, 'quarantine must be an object with `frees`, `ms` or both');
  }
  rejectUnknownOptions(`${CALL}: quarantine`, options, ['frees', 'ms', 'early']);
  const { frees = 0, ms = 0, early = false } = options;
  requireInteger(CALL, 'quarantine.frees', frees, 0, QUARANTINE_MAX);
  requireInteger(CALL, 'quarantine.ms', ms, 0, QUARANTINE_MAX);
  if (frees === 0 && ms === 0) failMisuse(CALL, { name, quarantine: options }, 'say how many `frees`, `ms` or both');
  if (typeof early !== 'boolean') failMisuse(CALL, { name, early }, 'quarantine.early must be true or false');
  return { frees, ms, early };
}

function planReclaim(name: string, options: ReclaimOptions | undefined, callbacks: Callbacks) {
  if (options === undefined) return { lowCallback: -1, lowAt: -1 };
  if (typeof options !== 'object' || options === null) {
    failMisuse(CALL, { name, reclaim: options }, 'reclaim must be an object with `callback`');
  }
  rejectUnknownOptions(`${CALL}: reclaim`, options, ['callback', 'at']);
  const { callback, at } = options;
  if (typeof callback !== 'object' || callback === null || typeof callback.export !== 'string') {
    failMisuse(CALL, { name, callback }, 'reclaim.callback must be { module, export }');
  }
  const lowAt = at === undefined ? -1 : requireInteger(CALL, 'reclaim.at', at, 0, ADDRESS_MAX);
  return { lowCallback: callbacks.intern(callback), lowAt };
}

function planImport(name: string, quantum: number, options: ImportOptions | undefined, callbacks: Callbacks) {
  if (options === undefined) return { flags: 0, importArena: -1, importCallback: -1, importUnit: 0, importMs: 0 };
  if (typeof options !== 'object' || options === null) {
    failMisuse(CALL, { name, import: options }, 'import must be an object with `from`');
  }
  rejectUnknownOptions(`${CALL}: import`, options, KNOWN_IMPORT_OPTIONS);
  const { from, large = false, async: later = false, roundTo = 0, timeoutMs } = options;
  if (typeof later !== 'boolean') failMisuse(CALL, { name, async: later }, 'import.async must be true or false');
  if (typeof large !== 'boolean') failMisuse(CALL, { name, large }, 'import.large must be true or false');
  const importMs = timeoutMs === undefined ? 0 : requireInteger(CALL, 'import.timeoutMs', timeoutMs, 1, 2 ** 31 - 1);
  if (importMs !== 0 && !later) failMisuse(CALL, { name, timeoutMs }, 'import.timeoutMs is for asynchronous imports');
  const importUnit = requireInteger(CALL, 'import.roundTo', roundTo, 0, ADDRESS_MAX);
  if (importUnit % quantum !== 0) {
    failMisuse(CALL, { name, roundTo: importUnit, quantum }, 'import.roundTo must be a multiple of the quantum');
  }
  const flags = (large ? FLAG_LARGE_IMPORT : 0) | (later ? FLAG_ASYNC_IMPORT : 0);
  if (from instanceof Arena) {
    if (later) failMisuse(CALL, { name, async: later }, 'import.async is for functions: an arena answers at once');
    if (from.quantum < quantum) {
      const values = { name, quantum, source: from.name, sourceQuantum: from.quantum };
      failMisuse(CALL, values, 'the quantum must not be larger than that of the source');
    }
    return { flags, importArena: from.index, importCallback: -1, importUnit, importMs };
  }
  if (typeof from !== 'object' || from === null || typeof from.export !== 'string') {
    failMisuse(CALL, { name, from }, 'import.from must be an Arena or { module, export }');
  }
  const importCallback = callbacks.intern(from);
  const keep = hasNoRelease(callbacks, importCallback) ? FLAG_KEEP_SPANS : 0;
  return { flags: flags | keep, importArena: -1, importCallback, importUnit, importMs };
}

/** True when the import functions are known in this thread and there is none that takes spans back. */
function hasNoRelease(callbacks: Callbacks, callback: number): boolean {
  try {
    return callbacks.resolve<SpanSource>(callback).release === undefined;
  } catch (error) {
    if (error instanceof VmError && error.code === 'ENOENT') return false;
    throw error;
  }
}
