/**
 * Device maps: which part of which cookie a mapping of a device shows.
 *
 * PROBLEM     A driver says once what a mapping shows, with rights and caching that the mapping allows, and may later put
 *             other frames in their place, as a fork must.
 * STRUCTURE   A row per map. `setup` fills it once, `remap` changes it, both after every check:
 *
 *               setup   flags: bit 0 the mapping starts invalid, bit 1 it may be remapped, bit 2 access, and the caching
 *               remap   unload what is mapped, then the new cookie, offset, length and rights
 *
 * INVARIANTS  I1 a map that is set up and not invalid names a cookie that had the offset when it was named.
 *             I2 a map that was made for segments is named by one, or by the slot that makes it, or by nobody: then whoever
 *                recovers destroys it.
 * LOCKING     The map's own mutex.
 * COSTS       A dozen stores.
 * FAILURE     False, with nothing changed. By default also for offsets below 0, lengths that reach behind the cookie, and cookies
 *             whose frames may move; the seed accepts the former, and never remaps.
 * REJECTED    Maps as objects of one thread: a fault may come from any.
 * REFERENCES  pmem.c: devmap_pmem_setup, devmap_pmem_remap; ddidevmap.h for the bits.
 */

import {
  fail,
  failMisuse,
  rejectUnknownOptions,
  requireFunction,
  requireInteger,
  requireObject,
} from '../base/errors.ts';
import type { BoundTables } from '../layout/region.ts';
import { compareExchange, store } from '../sync/atomics.ts';
import { Mutex } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import { COOKIE_STATE, type Cookie } from './kinds.ts';
import { requireCookie } from './pmem-request.ts';

/** Bits of a map's flags; others are left alone. */
export const DEVICE_MAP_FLAG = {
  /** The mapping starts without a cookie. Needs `allowRemap`. */
  mappingInvalid: 0x1,
  allowRemap: 0x2,
  useAccess: 0x4,
  /** Uses large translations. */
  large: 0x40,
  setupDone: 0x100,
  lockReady: 0x200,
} as const;

/** Bits of the flags of `setup` and `remap` that say how accesses are cached. */
export const CACHING = { cached: 0x10000, writeCombining: 0x20000, uncached: 0x40000, mask: 0xf0000 } as const;

const SETUP_FLAGS = 0x7;
const ORDER_BITS = 0x700;
const PLATFORM_ATTRIBUTES = 0x100000;
const WRITE_COMBINING_ORDER = 0x200;

/** A map's fields. */
export interface DeviceMapState {
  readonly flags: number;
  readonly protection: number;
  readonly originalMaxProtection: number;
  readonly maxProtection: number;
  readonly attributes: number;
  readonly isPmem: boolean;
  readonly cookie: Cookie | null;
  readonly callbackRevision: number;
  /** Byte offset in the cookie. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
}

/** What a map shows. */
export interface DeviceMapRequest {
  readonly cookie: Cookie | null;
  readonly offset: number;
  readonly length: number;
  readonly maxProtection: number;
  /** Setup flags and caching. */
  readonly flags: number;
  /** Setup: revision of the callbacks, 0 or left out for none. */
  readonly callbackRevision?: number;
}

/** `claim` of a map that segments share: it goes with the last of them. */
const OF_SEGMENTS = 0x7fffffff;

/** Number of a map's row. */
export type DeviceMapIndex = number & { readonly __unit?: 'device map' };

/** All device maps as one thread sees them. */
export class DeviceMaps {
  readonly #thread: Thread;
  readonly #maps: BoundTables['deviceMap'];
  readonly #cookies: BoundTables['pmemCookie'];
  readonly #pageSize: number;
  readonly #seed: boolean;

  constructor(thread: Thread) {
    const { tables, geometry } = thread.region;
    this.#thread = thread;
    this.#maps = tables.deviceMap;
    this.#cookies = tables.pmemCookie;
    this.#pageSize = geometry.pageSize;
    this.#seed = tables.pmemPool.seed.get(0) === 1;
  }

  /** Makes a map for a mapping with these rights. Throws `ENOMEM` when all rows are taken. */
  create(state: Partial<DeviceMapState> = {}): DeviceMapIndex {
    return this.#create(state, this.#thread.tag);
  }

  /** Like `create`, for a segment: the map goes with this thread until `handOver`. */
  createForSegment(state: Partial<DeviceMapState>): DeviceMapIndex {
    return this.#create(state, -this.#thread.tag);
  }

  /** Journaled: from now on a map of `createForSegment` belongs to the segments that name it. */
  handOver(map: DeviceMapIndex): void {
    this.#thread.journal.set(this.#maps.claim, map, OF_SEGMENTS);
  }

  /** Destroys what a dead thread was making for a segment. Returns the maps that belong to segments. */
  recover(dead: SlotIndex): DeviceMapIndex[] {
    const { rowCount, claim } = this.#maps;
    const found: DeviceMapIndex[] = [];
    for (let row = 0; row < rowCount; row++) {
      const holder = claim.get(row);
      if (holder === -(dead + 1)) store(this.#thread.words, claim.address(row), 0);
      else if (holder === OF_SEGMENTS) found.push(row);
    }
    return found;
  }

  /** Ends a map. Throws `EINVAL` for one that segments share. */
  destroy(map: DeviceMapIndex): void {
    this.#require(map, 'deviceMaps.destroy');
    if (this.#maps.claim.get(map) === OF_SEGMENTS) {
      failMisuse('deviceMaps.destroy', { map }, 'the device map is made with a mapping, and ends with it');
    }
    store(this.#thread.words, this.#maps.claim.address(map), 0);
  }

  /**
   * Ends a map that no segment names any more, once: the last thread that let go of it and a recoverer may both come, and the
   * row may be another map's by then. The caller keeps segments from beginning to name it.
   */
  destroyUnnamed(map: DeviceMapIndex): void {
    compareExchange(this.#thread.words, this.#maps.claim.address(map), OF_SEGMENTS, 0);
  }

  /** A map's fields as they are now. */
  state(map: DeviceMapIndex): DeviceMapState {
    this.#require(map, 'deviceMaps.state');
    const maps = this.#maps;
    const row = maps.cookie.get(map) - 1;
    const generation = maps.cookieGeneration.get(map);
    return {
      flags: maps.flags.get(map),
      protection: maps.protection.get(map),
      originalMaxProtection: maps.originalMaxProtection.get(map),
      maxProtection: maps.maxProtection.get(map),
      attributes: maps.attributes.get(map),
      isPmem: maps.isPmem.get(map) === 1,
      cookie: row < 0 ? null : { cookie: row, generation, frames: this.#cookies.frames.get(row) },
      callbackRevision: maps.callbackRevision.get(map),
      offset: maps.offset.get(map),
      length: maps.length.get(map),
    };
  }

  /** A map's fields, not in the middle of a change. */
  settledState(map: DeviceMapIndex): DeviceMapState {
    const mutex = this.#enter(map, 'deviceMaps.settledState');
    try {
      return this.state(map);
    } finally {
      mutex.exit();
    }
  }

  /** Says what a map shows. False when a check fails. */
  setup(map: DeviceMapIndex, request: DeviceMapRequest): boolean {
    requireRequest('deviceMaps.setup', request);
    const mutex = this.#enter(map, 'deviceMaps.setup');
    try {
      const before = this.state(map);
      if (!this.#inCookie(request) || (before.flags & DEVICE_MAP_FLAG.setupDone) !== 0) return false;
      if (!allows(before, request.maxProtection) || !isCachingOk(request.flags)) return false;
      const { flags } = request;
      const invalid = (flags & DEVICE_MAP_FLAG.mappingInvalid) !== 0;
      if (invalid && (flags & DEVICE_MAP_FLAG.allowRemap) === 0) return false;
      const setUp = before.flags | (flags & SETUP_FLAGS) | DEVICE_MAP_FLAG.setupDone;
      const lock = (setUp & DEVICE_MAP_FLAG.allowRemap) !== 0 ? DEVICE_MAP_FLAG.lockReady : 0;
      this.#log(
        {
          ...before,
          ...(invalid ? {} : this.#target(before, request)),
          flags: setUp | lock,
          isPmem: true,
          length: this.#lengthOf(request),
          maxProtection: request.maxProtection & before.originalMaxProtection,
          callbackRevision: request.callbackRevision ?? before.callbackRevision,
        },
        map,
      );
      return true;
    } finally {
      mutex.exit();
    }
  }

  /**
   * Shows something else. `unload` is called once all checks have passed, before anything changes: it takes the old
   * translations away. False when a check fails; the seed's checks cannot all pass.
   */
  remap(map: DeviceMapIndex, request: DeviceMapRequest, unload: () => void): boolean {
    requireRequest('deviceMaps.remap', request);
    requireFunction('deviceMaps.remap', 'unload', unload);
    const mutex = this.#enter(map, 'deviceMaps.remap');
    try {
      const before = this.state(map);
      const needed = DEVICE_MAP_FLAG.setupDone | DEVICE_MAP_FLAG.allowRemap;
      if ((before.flags & needed) !== needed) return false;
      // The seed wants no flags at all, and then finds that no flags mean cached, which it does not support.
      if ((request.flags & ~(this.#seed ? 0 : CACHING.mask)) !== 0) return false;
      if (!allows(before, request.maxProtection) || !this.#inCookie(request)) return false;
      const kept = this.#seed || (request.flags & CACHING.mask) !== 0 ? request.flags : CACHING.uncached;
      if (!isCachingOk(kept)) return false;
      unload();
      const caching = (request.flags & CACHING.mask) === 0 ? {} : { attributes: attributesOf(before.attributes, kept) };
      this.#log(
        {
          ...before,
          ...this.#target(before, request),
          attributes: before.attributes,
          ...caching,
          flags: before.flags & ~DEVICE_MAP_FLAG.large,
          length: this.#lengthOf(request),
          maxProtection: request.maxProtection & before.originalMaxProtection,
        },
        map,
      );
      return true;
    } finally {
      mutex.exit();
    }
  }

  #create(state: Partial<DeviceMapState>, holder: number): DeviceMapIndex {
    requireState('deviceMaps.create', state);
    const { rowCount, claim } = this.#maps;
    for (let row = 0; row < rowCount; row++) {
      if (compareExchange(this.#thread.words, claim.address(row), 0, holder) !== 0) continue;
      this.#put(row, { ...EMPTY, ...state });
      return row;
    }
    return fail('ENOMEM', 'deviceMaps.create', { rowCount }, 'all rows are taken');
  }

  #target(before: DeviceMapState, { cookie, offset, flags }: DeviceMapRequest): Partial<DeviceMapState> {
    const start = Math.floor(offset / this.#pageSize) * this.#pageSize;
    return { cookie, offset: start, attributes: attributesOf(before.attributes, flags) };
  }

  /** Bytes shown: whole pages. The seed counts from the offset as given, which may lose the last page. */
  #lengthOf({ offset, length }: DeviceMapRequest): number {
    const pageSize = this.#pageSize;
    const within = this.#seed ? 0 : offset % pageSize;
    return Math.ceil((within + length) / pageSize) * pageSize;
  }

  #inCookie({ cookie, offset, length }: DeviceMapRequest): boolean {
    if (cookie === null) return false;
    const row = cookie.cookie;
    const live = this.#cookies.state.get(row) === COOKIE_STATE.live;
    if (!live || this.#cookies.generation.get(row) !== cookie.generation) return false;
    if (this.#cookies.mover.get(row) !== 0) return false;
    const end = offset + length;
    // The seed adds without a sign: only a sum below 0 is out of reach.
    const starts = this.#seed ? end >= 0 : offset >= 0 && length > 0;
    return starts && end <= cookie.frames * this.#pageSize;
  }

  #enter(map: DeviceMapIndex, call: string): Mutex {
    this.#require(map, call);
    const mutex = new Mutex(this.#thread, this.#maps.lock.address(map), RANK.deviceMap);
    mutex.enter();
    return mutex;
  }

  /** True for the number of a map that was not destroyed. */
  isLive(map: DeviceMapIndex): boolean {
    return Number.isInteger(map) && map >= 0 && map < this.#maps.rowCount && this.#maps.claim.get(map) !== 0;
  }

  #require(map: DeviceMapIndex, call: string): void {
    if (!this.isLive(map)) failMisuse(call, { map }, 'there is no such device map');
  }

  /** Journaled stores of all fields. */
  #log(state: DeviceMapState, map: DeviceMapIndex): void {
    const { journal } = this.#thread;
    const maps = this.#maps;
    journal.set(maps.flags, map, state.flags);
    journal.set(maps.maxProtection, map, state.maxProtection);
    journal.set(maps.attributes, map, state.attributes);
    journal.set(maps.isPmem, map, state.isPmem ? 1 : 0);
    journal.set(maps.cookie, map, state.cookie === null ? 0 : state.cookie.cookie + 1);
    journal.set(maps.cookieGeneration, map, state.cookie?.generation ?? 0);
    journal.set(maps.callbackRevision, map, state.callbackRevision);
    journal.setDouble(maps.offset, map, state.offset);
    journal.setDouble(maps.length, map, state.length);
  }

  /** Plain stores of all fields of a row that is being made. */
  #put(row: number, state: DeviceMapState): void {
    this.#log(state, row);
    this.#thread.journal.commit(0);
    this.#maps.protection.put(row, state.protection);
    this.#maps.originalMaxProtection.put(row, state.originalMaxProtection);
  }
}

const EMPTY: DeviceMapState = {
  flags: 0,
  protection: 0,
  originalMaxProtection: 0,
  maxProtection: 0,
  attributes: 0,
  isPmem: false,
  cookie: null,
  callbackRevision: 0,
  offset: 0,
  length: 0,
};

/** Throws `EINVAL` for what is not a request; whether it may be is for `setup` and `remap` to say. */
function requireRequest(call: string, request: DeviceMapRequest): void {
  requireObject(call, 'request', request);
  const { cookie, offset, length, maxProtection, flags, callbackRevision = 0, ...others } = request;
  rejectUnknownOptions(call, others, []);
  if (cookie !== null) requireCookie(cookie, call);
  requireInteger(call, 'offset', offset, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
  requireInteger(call, 'length', length, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
  for (const [name, word] of Object.entries({ maxProtection, flags, callbackRevision })) requireWord(call, name, word);
}

/** Throws `EINVAL` for what is not a part of a map's fields. */
function requireState(call: string, state: Partial<DeviceMapState>): void {
  requireObject(call, 'state', state);
  rejectUnknownOptions(call, state, Object.keys(EMPTY));
  const { cookie, isPmem, offset, length, ...words } = { ...EMPTY, ...state };
  if (cookie !== null) requireCookie(cookie, call);
  if (typeof isPmem !== 'boolean') failMisuse(call, { isPmem }, 'isPmem is true or false');
  requireInteger(call, 'offset', offset, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
  requireInteger(call, 'length', length, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
  for (const [name, word] of Object.entries(words)) requireWord(call, name, word);
}

function requireWord(call: string, name: string, value: unknown): void {
  requireInteger(call, name, value, -(2 ** 31), 2 ** 32 - 1);
}

function allows({ protection, originalMaxProtection }: DeviceMapState, maxProtection: number): boolean {
  return (protection & originalMaxProtection & maxProtection) === protection;
}

function isCachingOk(flags: number): boolean {
  const caching = flags & CACHING.mask;
  return caching === CACHING.writeCombining || caching === CACHING.uncached;
}

function attributesOf(before: number, flags: number): number {
  const order = (flags & CACHING.mask) === CACHING.writeCombining ? WRITE_COMBINING_ORDER : 0;
  return (before & ~ORDER_BITS) | PLATFORM_ATTRIBUTES | order;
}
