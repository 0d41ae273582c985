/**
 * Cached mappings: the source's interface to the pages of vnodes, with its cache of mappings.
 *
 * PROBLEM     Map pages for reading or writing, make pages that will be overwritten without reading them, copy through such
 *             mappings, and write ranges back, with every observable step as `vpm.c` has it.
 * STRUCTURE   map      1 the range in whole pages, at most 32, at most segments - 1   2 the common vnode of a block vnode
 *                      3 fetch: hold the pages in order; the first that is missing, has no entry, or would be written to
 *                        and is not modified yet sends the whole range through get-pages
 *                        create: look up or make page by page; those made stay exclusively held
 *                      4 an entry for each page, in order: the one it has, or one from the lists, whose page before is let go
 *             unmap    page by page: note use and change, unlock, release the entry
 *             copy     two pages at most: map, zero in front, move, zero behind, unmap
 *             sync     flags -> put-pages
 * INVARIANTS  I1 the pages of a mapping are held by this slot, and their entries used by it, from map to release.
 * LOCKING     As cached-pages.ts and mapping-entries.ts. One request at a time keeps entries while it waits for more.
 * COSTS       A hit on one page, mapped and released: two lock pairs, a dozen atomics.
 * FAILURE     `ENOTSUP` when the system was booted without cached mappings, `EINVAL`, `EFAULT`, `EIO`, `EDQUOT`, `ENOMEM`
 *             when entries or frames cannot be had within 10 seconds; nothing is held then.
 * REJECTED    Making this the default: a page in memory needs no cached mapping here, see page-mappings.ts.
 * REFERENCES  illumos vm/vpm.c; docs/differences.md.
 */

import type { CheckReport } from '../base/check.ts';
import { fail, failMisuse, requireInteger } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import type { PageHolds } from '../page/page-holds.ts';
import type { Banks, FrameIndex } from '../phys/banks.ts';
import type { Frames } from '../phys/frames.ts';
import { faultPoint } from '../sync/fault.ts';
import { mutexEnterWithin, mutexExit } from '../sync/mutex.ts';
import type { OwnerIndex } from '../sync/owners.ts';
import { RANK } from '../sync/ranks.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import { CachedMapping } from './cached-mapping.ts';
import { CachedPages, type MappedStore, type PutFlags, type PutReport } from './cached-pages.ts';
import { LockedCharge } from './locked-charge.ts';
import { MAPPING_COUNTER, mappingCountersOf } from './mapping-counters.ts';
import { ENTRY_RACED } from './mapping-entries.ts';
import { MAPPING_STATE } from './mapping-options.ts';
import type { MapAccess } from './page-mappings.ts';

/** Most pages of one mapping. */
const PAGES_MAX = 32;

/** Fewest and most entries of a scatter list, of which the last one ends it. */
const SEGMENTS_MIN = 3;
const SEGMENTS_MAX = PAGES_MAX + 1;

/** How long a request waits for entries. */
const SHORTAGE_MS = 10_000;

/** How to map. */
export interface CachedMapOptions {
  /** Default `'read'`. */
  readonly access?: MapAccess;
  /** False: pages that are missing are made and not read. Default true. */
  readonly fetch?: boolean;
  /** Length of the scatter list, 3 to 33; one entry ends it. Default 33. */
  readonly segments?: number;
}

/** What to do with the pages of a range: nothing at all unless some flag beside `dontNeed` is set. */
export interface SyncFlags {
  readonly write?: boolean;
  readonly async?: boolean;
  readonly invalidate?: boolean;
  /** Give them up unwritten. */
  readonly destroy?: boolean;
  readonly free?: boolean;
  readonly dontNeed?: boolean;
}

/** What a sync asked for, and what became of it. */
export interface SyncReport extends PutReport {
  /** Bytes, in whole pages; 0 for all pages from the offset on. */
  readonly length: number;
  readonly flags: PutFlags;
}

/** The cached mappings as one thread sees them. */
export class CachedMappings {
  readonly pages: CachedPages;
  readonly #thread: Thread;
  readonly #banks: Banks;
  readonly #store: MappedStore;
  readonly #charge: LockedCharge;
  readonly #counters: Float64Array;
  readonly #cached: boolean;
  readonly #enabled: boolean;
  /** Bytes of a page. */
  readonly pageSize: number;

  constructor(thread: Thread, banks: Banks, frames: Frames, holds: PageHolds, store: MappedStore) {
    const state = thread.region.tables.mappingCache.state.get(0);
    this.#thread = thread;
    this.#banks = banks;
    this.#store = store;
    this.pages = new CachedPages(thread, frames, holds, store);
    this.#charge = new LockedCharge(thread);
    this.#counters = mappingCountersOf(thread);
    this.#cached = state === MAPPING_STATE.cached;
    this.#enabled = state >= MAPPING_STATE.uncached;
    this.pageSize = thread.region.geometry.pageSize;
  }

  /** Maps pages of a vnode; see the file's header. */
  map(vnode: VnodeIndex, offset: number, length: number, options: CachedMapOptions = {}): CachedMapping {
    const { access = 'read', fetch = true, segments = SEGMENTS_MAX } = options;
    this.requireEnabled('cachedMappings.map');
    requireInteger('cachedMappings.map', 'segments', segments, SEGMENTS_MIN, SEGMENTS_MAX);
    const first = this.#range('cachedMappings.map', offset, length);
    this.#store.requireAccess?.(vnode, access === 'write');
    // 1-2.
    const whole = Math.ceil((offset + length) / this.pageSize) - first;
    const count = Math.min(whole, PAGES_MAX, segments - 1);
    if (count === 0 && fetch) failMisuse('cachedMappings.map', { offset, length }, 'there is no page to fetch');
    const source = this.#source('cachedMappings.map', vnode);
    const mapping = new CachedMapping(this, this.#banks, count);
    if (!this.#tryMap(mapping, source, first, access, fetch, 0)) this.#mapShort(mapping, source, first, access, fetch);
    return mapping;
  }

  /** Does what `flags` say with the pages of a range; null when they say nothing. Throws what the store throws. */
  sync(vnode: VnodeIndex, offset: number, length: number, flags: SyncFlags): SyncReport | null {
    this.requireEnabled('cachedMappings.sync');
    const first = this.#range('cachedMappings.sync', offset, length);
    const { write, async, invalidate, destroy, free, dontNeed } = flags;
    if (!(write || async || invalidate || destroy || free)) return null;
    const put: PutFlags = {
      ...(async ? { async } : {}),
      ...(invalidate || destroy ? { invalidate: true } : {}),
      ...(destroy ? { truncate: true } : {}),
      ...(free ? { free } : {}),
      ...(dontNeed ? { dontNeed } : {}),
    };
    const pages = Math.ceil(length / this.pageSize);
    // The length is rounded up by itself, so that a range may end one page too early.
    const end = pages === 0 ? -1 : Math.ceil(offset / this.pageSize) + pages;
    const source = this.#source('cachedMappings.sync', vnode);
    return { length: pages * this.pageSize, flags: put, ...this.pages.putPages(source, first, end, put) };
  }

  /** Compares entries, queues and the list of clean pages. For quiet points. */
  check(): CheckReport {
    const { mappingEntries, mappingFrames } = this.#thread.region.geometry;
    const problems = [...this.pages.entries.problems(), ...this.pages.clean.problems()];
    return { structure: 'vpm/cached-mappings', checked: mappingEntries + mappingFrames, problems };
  }

  /** Takes back what a dead slot mapped. */
  recover(dead: SlotIndex): void {
    if (this.#enabled) this.pages.recover(dead);
  }

  /** For mappings: ends the use of their pages. */
  unmap(frames: Int32Array, entries: Int32Array, count: number, access: MapAccess, owner: OwnerIndex): void {
    for (let page = 0; page < count; page++) {
      const frame = frames[page] as number;
      this.pages.mark(frame, access);
      if (this.#cached) {
        this.pages.unlock(frame);
        this.pages.entries.release(entries[page] as number);
      } else {
        this.pages.release(frame);
      }
      this.#count(MAPPING_COUNTER.unmapped);
    }
    this.#charge.give(count, owner);
  }

  /** Throws `ENOTSUP` when everything is off. */
  requireEnabled(call: string): void {
    if (this.#enabled) return;
    fail('ENOTSUP', call, {}, "the system was booted without them: boot({ mappings: { compat: 'seed' } })");
  }

  /** The store of the pages, for copies. */
  get store(): MappedStore {
    return this.#store;
  }

  /** This thread's counters, for copies. */
  get counters(): Float64Array {
    return this.#counters;
  }

  /** Steps 3 and 4; false when no list had an entry until the deadline, and then nothing is held. */
  #tryMap(
    mapping: CachedMapping,
    vnode: VnodeIndex,
    first: number,
    access: MapAccess,
    fetch: boolean,
    deadline: number,
  ): boolean {
    const wanted = mapping.frames.length;
    mapping.owner = this.#charge.take(wanted, 'cachedMappings.map');
    let done = false;
    let held = 0;
    try {
      if (fetch) held = this.#fetch(vnode, first, wanted, access, mapping.frames);
      done = true;
      for (let page = 0; done && page < (fetch ? held : wanted); page++) {
        if (!fetch) {
          if (this.#lookupOrCreate(mapping, page, vnode, first + page)) mapping.created++;
          held++;
        }
        done = this.#assign(mapping, page, vnode, first + page, deadline);
      }
    } catch (error) {
      done = false;
      throw error;
    } finally {
      if (!done) this.#undo(mapping, held);
      // Fewer pages may have been mapped than were charged, and none at all after an error.
      this.#charge.give(wanted - mapping.count, mapping.owner);
    }
    if (VERIFY && done) faultPoint(this.#thread, 'vpm.cache.mapped');
    return done;
  }

  /** Waits for entries as the only request that keeps some while it waits. */
  #mapShort(mapping: CachedMapping, vnode: VnodeIndex, first: number, access: MapAccess, fetch: boolean): void {
    const thread = this.#thread;
    const shortage = thread.region.tables.mappingCache.shortage.address(0);
    const deadline = thread.clock.now() + SHORTAGE_MS;
    const count = mapping.frames.length;
    this.#count(MAPPING_COUNTER.noEntries);
    if (!mutexEnterWithin(thread, shortage, RANK.pageShortage, SHORTAGE_MS)) this.#failShort(count);
    try {
      if (!this.#tryMap(mapping, vnode, first, access, fetch, deadline)) this.#failShort(count);
    } finally {
      mutexExit(thread, shortage);
    }
  }

  #failShort(count: number): never {
    const { mappingEntries } = this.#thread.region.geometry;
    const values = { pages: count, entries: mappingEntries, mappedHere: this.#charge.pinned };
    fail('ENOMEM', 'cachedMappings.map', values, 'live mappings leave no entry of the cache');
  }

  /** Holds the pages of a range; all through get-pages unless each of them is there as it is needed. */
  #fetch(vnode: VnodeIndex, first: number, count: number, access: MapAccess, out: Int32Array): number {
    const { pages } = this;
    let held = 0;
    let ready = true;
    try {
      for (; ready && held < count; held++) {
        const frame = pages.lookup(vnode, first + held);
        ready = frame >= 0 && (!this.#cached || pages.entries.namedBy(frame) >= 0);
        ready &&= access === 'read' || pages.isDirty(frame);
        out[held] = frame;
      }
    } catch (error) {
      this.#unlockAll(out, held);
      throw error;
    }
    if (ready) return count;
    this.#unlockAll(out, held);
    return pages.getPages(vnode, first, count, access, out);
  }

  /** Unlocks pages without more ado; the last one may be missing. */
  #unlockAll(frames: Int32Array, count: number): void {
    for (let page = 0; page < count; page++) {
      if ((frames[page] as number) >= 0) this.pages.unlock(frames[page] as number);
    }
  }

  /** Holds one page, made if it is missing: then true. */
  #lookupOrCreate(mapping: CachedMapping, lane: number, vnode: VnodeIndex, index: number): boolean {
    for (;;) {
      const there = this.pages.lookup(vnode, index);
      const frame = there >= 0 ? there : this.pages.create(vnode, index);
      if (frame < 0) continue;
      mapping.frames[lane] = frame;
      return there < 0;
    }
  }

  /** Step 4 for one page; false when no list had an entry until the deadline. */
  #assign(mapping: CachedMapping, page: number, vnode: VnodeIndex, index: number, deadline: number): boolean {
    const { entries } = this.pages;
    const frame = mapping.frames[page] as FrameIndex;
    if (!this.#cached) {
      entries.forget(frame);
      mapping.entries[page] = -1;
    } else {
      let entry = entries.find(frame, vnode, index);
      const hit = entry >= 0;
      while (entry < 0) {
        entry = entries.take(frame, vnode, index);
        if (entry >= 0) {
          const before = entries.previous;
          if (before.frame >= 0) this.pages.disown(before.frame, before.vnode, before.index, entry);
        } else if (entry === ENTRY_RACED) {
          entry = entries.find(frame, vnode, index);
        } else {
          const left = deadline - this.#thread.clock.now();
          if (left <= 0 || !entries.wait(left)) return false;
        }
      }
      this.#count(hit ? MAPPING_COUNTER.hits : MAPPING_COUNTER.misses);
      mapping.entries[page] = entry;
      if (entries.namedBy(frame) < 0) this.#count(MAPPING_COUNTER.lostEntries);
    }
    mapping.count = page + 1;
    this.#count(MAPPING_COUNTER.mapped);
    return true;
  }

  /** Gives back what a request has got so far; pages that it made go away. */
  #undo(mapping: CachedMapping, held: number): void {
    for (let page = 0; page < held; page++) {
      if (page < mapping.count && this.#cached) this.pages.entries.release(mapping.entries[page] as number);
      this.pages.abandon(mapping.frames[page] as number);
    }
    mapping.count = 0;
    mapping.created = 0;
  }

  /** The vnode whose pages stand for one. Throws `ENOTSUP` for pages of several frames, which the source does not know. */
  #source(call: string, vnode: VnodeIndex): VnodeIndex {
    const source = this.#store.commonOf?.(vnode) ?? vnode;
    if (this.#thread.region.tables.vnode.pageShift.get(source) === 0) return source;
    return fail('ENOTSUP', call, { vnode }, 'cached mappings have pages of one frame; map it with vm.mappings');
  }

  #range(call: string, offset: number, length: number): number {
    requireInteger(call, 'offset', offset, 0, Number.MAX_SAFE_INTEGER);
    requireInteger(call, 'length', length, 0, Number.MAX_SAFE_INTEGER - offset);
    return Math.floor(offset / this.pageSize);
  }

  #count(lane: number): void {
    this.#counters[lane] = (this.#counters[lane] as number) + 1;
  }
}
