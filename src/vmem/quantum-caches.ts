/**
 * The quantum caches of one arena: which sizes are cached, and by which cache.
 *
 * PROBLEM     A cache per size would waste slabs on sizes that fit a slab equally often.
 * STRUCTURE   Sizes of 1 to n quanta, n at most 64, with `compat: 'seed'` 16. A slab is the first power of two above three times
 *             the largest size, or less when it would hold more objects than a slab has states for; two sizes of which equally
 *             many fit into such a power of two share the cache of the larger one:
 *
 *               quanta    1 2 3 4 5 6 7 8 ...      n = 16: slabs of 64 quanta
 *               cache     1 2 3 4 5 6 7 8 9 10 12 12 16 16 16 16
 *
 * INVARIANTS  I1 every size up to n quanta has a cache whose objects are at least as large.
 *             I2 at a quiet point every object of every slab is in exactly one place.
 * LOCKING     Rows are claimed by compare-and-swap at creation; see quantum-cache.ts for the rest.
 * COSTS       One row of about 700 bytes for each cache; slots x caches words for what is loaded.
 * FAILURE     `ENOMEM` when there are not enough rows; nothing is left behind.
 * REJECTED    One cache per size: more slabs are partly used.
 * REFERENCES  NetBSD subr_vmem.c, qc_init and qc_poolpage_size, for the sizing rules.
 */

import { ceilPowerOfTwo, fail } from '../base/index.ts';
import { MAGAZINE_LANES } from '../layout/quantum-tables.ts';
import type { Region } from '../layout/region.ts';
import { compareExchange, load, store } from '../sync/atomics.ts';
import { Mutex } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import { MagazineDepot } from './magazine-depot.ts';
import { type CachedObject, type ObjectGate, QuantumCache, type SlabSource } from './quantum-cache.ts';
import { cachedIn, isCached, OBJECT_STATE, SlabStore } from './slab-store.ts';

/** Sizes above this many quanta are never cached. */
export const CACHED_QUANTA_MAX = 64;

/** The same in the original source. */
export const CACHED_QUANTA_MAX_SEED = 16;

/** Objects that a magazine holds at first. */
const ROUNDS_FIRST = 16;

/** Counts of one cache. */
export interface QuantumCacheStatistics {
  readonly objectSize: number;
  readonly slabs: number;
  /** Objects in slabs, ready to be cached. */
  readonly freeObjects: number;
  /** Objects that a magazine holds when full. */
  readonly rounds: number;
  /** Slabs taken from the arena so far. */
  readonly refills: number;
  /** Magazines handed to a thread by the depot so far. */
  readonly depotHits: number;
  /** Allocations that the calling thread's own magazine served, without a lock; of all threads so far. */
  readonly hits: number;
  /** Allocations that took the lock of the cache: for a magazine, for a slab, or in vain. */
  readonly misses: number;
  /** Frees that took the lock of the cache. */
  readonly freeMisses: number;
}

/** Object sizes of the caches for sizes up to `maxUnits`: ascending, each the largest of its group. */
export function cacheSizes(quantum: number, maxUnits: number): number[] {
  const slabSize = slabSizeFor(maxUnits);
  const sizes: number[] = [];
  for (let size = quantum; size <= maxUnits; size += quantum) {
    const fits = Math.floor(slabSize / size);
    if (sizes.length > 0 && Math.floor(slabSize / (sizes[sizes.length - 1] as number)) === fits) sizes.pop();
    sizes.push(size);
  }
  return sizes;
}

/** Size of a slab whose largest object has `maxUnits`. */
export function slabSizeFor(maxUnits: number): number {
  return ceilPowerOfTwo(3 * maxUnits + 1);
}

/** True for an arena that has quantum caches. */
export function hasQuantumCaches(region: Region, arena: number): boolean {
  const { arena: owner, rowCount } = region.tables.quantumCache;
  for (let row = 0; row < rowCount; row++) if (owner.get(row) === arena + 1) return true;
  return false;
}

/** Size of the slabs of one cache: as large as slabs of the arena may be, but not larger than its objects' states allow. */
export function slabSizeOfCache(objectSize: number, slabSizeMax: number): number {
  let size = slabSizeMax;
  while (Math.floor(size / objectSize) > MAGAZINE_LANES) size /= 2;
  return size;
}

/** Claims and fills the rows of an arena's caches. Throws `ENOMEM`. Returns the largest cached size, after clamping. */
export function createQuantumCaches(
  region: Region,
  arena: number,
  quantum: number,
  maxUnits: number,
  quantaMax = CACHED_QUANTA_MAX,
): number {
  const clamped = Math.min(maxUnits, quantaMax * quantum);
  const { quantumCache: caches, magazineSlot } = region.tables;
  for (const objectSize of cacheSizes(quantum, clamped)) {
    const row = claimRow(region, arena);
    if (row < 0) {
      removeQuantumCaches(region, arena);
      const rule = `all ${caches.rowCount} rows of quantum caches are taken`;
      fail('ENOMEM', 'arenas.create', { quantumCacheMax: maxUnits }, rule);
    }
    const slabSize = slabSizeOfCache(objectSize, slabSizeFor(clamped));
    caches.objectSize.put(row, objectSize);
    caches.slabSize.put(row, slabSize);
    caches.slabObjects.put(row, Math.floor(slabSize / objectSize));
    caches.rounds.put(row, ROUNDS_FIRST);
    caches.closed.put(row, 0);
    for (const column of [magazineSlot.hits, magazineSlot.misses, magazineSlot.freeMisses]) {
      for (let slot = 0; slot < magazineSlot.rowCount; slot++) column.putAt(slot, row, 0);
    }
  }
  return clamped;
}

/** Frees the rows of an arena's caches, whose slabs and magazines are all gone. */
export function removeQuantumCaches(region: Region, arena: number): void {
  const { quantumCache: caches } = region.tables;
  for (let row = 0; row < caches.rowCount; row++) {
    if (load(region.words, caches.arena.address(row)) !== arena + 1) continue;
    store(region.words, caches.arena.address(row), 0);
  }
}

/** Gives back magazines of a slot, whose thread leaves or has ended, that were parked when their arena was destroyed. */
export function releaseParked(thread: Thread, slot: SlotIndex): void {
  const { quantumCache: caches, magazineSlot } = thread.region.tables;
  for (let row = 0; row < caches.rowCount; row++) {
    if (magazineSlot.parked.at(slot, row) === 0) continue;
    const lock = new Mutex(thread, caches.lock.address(row), RANK.quantumCache);
    lock.enter();
    new MagazineDepot(thread, row, new SlabStore(thread)).drainSlot(slot);
    lock.exit();
  }
}

/** Claims a row by writing the arena into it, so that whoever dismantles the arena finds the row. */
function claimRow(region: Region, arena: number): number {
  const { quantumCache: caches } = region.tables;
  for (let row = 0; row < caches.rowCount; row++) {
    if (compareExchange(region.words, caches.arena.address(row), 0, arena + 1) === 0) return row;
  }
  return -1;
}

/** One thread's view of an arena's caches. */
export class QuantumCaches {
  /** Largest size that is cached. */
  readonly maxUnits: number;
  readonly #region: Region;
  readonly #arena: number;
  readonly #inverseQuantum: number;
  /** The cache of a size in quanta minus one. */
  readonly #bySize: QuantumCache[] = [];
  readonly #caches: QuantumCache[] = [];

  constructor(
    thread: Thread,
    arena: number,
    quantum: number,
    source: SlabSource,
    isCurrent: () => boolean = () => true,
  ) {
    this.#region = thread.region;
    this.#arena = arena;
    // Exact: a quantum is a power of two.
    this.#inverseQuantum = 1 / quantum;
    const store = new SlabStore(thread);
    const { quantumCache: rows } = thread.region.tables;
    for (let row = 0; row < rows.rowCount; row++) {
      if (rows.arena.get(row) === arena + 1) this.#caches.push(new QuantumCache(thread, row, store, source, isCurrent));
    }
    this.#caches.sort((a, b) => a.objectSize - b.objectSize);
    for (const cache of this.#caches) {
      while (this.#bySize.length * quantum < cache.objectSize) this.#bySize.push(cache);
    }
    this.maxUnits = this.#bySize.length * quantum;
  }

  /** An address for a size up to `maxUnits`, or -1. */
  tryAlloc(size: number): number {
    return this.#cacheOf(size).tryAlloc();
  }

  /** The same without a magazine: one object straight from a slab, if the gate lets it go. */
  takeFromSlabs(size: number, gate?: ObjectGate): number {
    return this.#cacheOf(size).takeFromSlabs(gate);
  }

  /** True when slabs have an object for a size. A look. */
  hasObjects(size: number): boolean {
    return size <= this.maxUnits && this.#cacheOf(size).hasObjects();
  }

  /** True when two sizes are served by one cache. */
  isSameCache(size: number, other: number): boolean {
    return this.#cacheOf(size) === this.#cacheOf(other);
  }

  /** Frees an address of a size up to `maxUnits`; false when it did not come from a cache. */
  free(address: number, size: number): boolean {
    return this.#cacheOf(size).free(address);
  }

  /** Size of the object at an address, if a user has one there, or -1. */
  sizeOf(address: number): number {
    return this.#caches.find((cache) => cache.isAllocated(address))?.objectSize ?? -1;
  }

  /** The object that an address lies in, or null. */
  describe(address: number): CachedObject | null {
    for (const cache of this.#caches) {
      const object = cache.describe(address);
      if (object !== null) return object;
    }
    return null;
  }

  /** Whether an object of the first size may be used for the second: null when the address is no object of a cache. */
  resize(address: number, size: number, newSize: number): boolean | null {
    const cache = this.#cacheOf(size);
    if (!cache.isAllocated(address)) return null;
    return this.#cacheOf(newSize) === cache;
  }

  /** Puts back into the arena what this thread and the depots hold but do not need. True when there was something. */
  drain(): boolean {
    let emptied = false;
    for (const cache of this.#caches) emptied = cache.drain() || emptied;
    return emptied;
  }

  /** The same for what all threads have cached. */
  drainAll(): boolean {
    let emptied = false;
    for (const cache of this.#caches) emptied = cache.drainAll() || emptied;
    return emptied;
  }

  /** Puts back what a slot had cached whose thread has ended. */
  recoverSlot(dead: SlotIndex): void {
    for (const cache of this.#caches) cache.recoverSlot(dead);
  }

  /** Stops caching in all caches, or in none: null, or why not. Everything cached is back in the arena then. */
  close(): string | null {
    for (let at = 0; at < this.#caches.length; at++) {
      const why = (this.#caches[at] as QuantumCache).close();
      if (why === null) continue;
      for (let closed = 0; closed < at; closed++) (this.#caches[closed] as QuantumCache).reopen();
      return why;
    }
    return null;
  }

  /** Caches again after a `close`. */
  reopen(): void {
    for (const cache of this.#caches) cache.reopen();
  }

  /** Calls back for every object that a user has: its address, its size, and the attachment that allocated it. */
  forEachAllocated(callback: (address: number, size: number, owner: number) => void): void {
    const { slab: slabs, quantumCache: rows } = this.#region.tables;
    for (let slab = 0; slab < slabs.rowCount; slab++) {
      const row = slabs.cache.get(slab) - 1;
      if (row < 0 || rows.arena.get(row) !== this.#arena + 1) continue;
      const objectSize = rows.objectSize.get(row);
      for (let position = 0; position < rows.slabObjects.get(row); position++) {
        const state = slabs.object.at(slab, position);
        if (state > 0) callback(slabs.base.get(slab) + position * objectSize, objectSize, state);
      }
    }
  }

  /** Counts of every cache, smallest objects first. */
  statistics(): QuantumCacheStatistics[] {
    const { quantumCache: rows, slab: slabs, magazineSlot } = this.#region.tables;
    const { hits, misses, freeMisses, rowCount } = magazineSlot;
    const sum = (column: typeof hits, row: number) => {
      let total = 0;
      for (let slot = 0; slot < rowCount; slot++) total += column.at(slot, row);
      return total;
    };
    return this.#caches.map(({ row, objectSize }) => {
      let freeObjects = 0;
      for (let slab = rows.partialHead.get(row); slab !== 0; slab = slabs.next.get(slab - 1)) {
        freeObjects += slabs.free.get(slab - 1);
      }
      return {
        objectSize,
        slabs: rows.slabCount.get(row),
        freeObjects,
        rounds: rows.rounds.get(row),
        refills: rows.refills.get(row),
        depotHits: rows.depotHits.get(row),
        hits: sum(hits, row),
        misses: sum(misses, row),
        freeMisses: sum(freeMisses, row),
      };
    });
  }

  /** Broken invariants of all caches of the arena; call it at a quiet point. Adds to `problems`, returns objects seen. */
  check(problems: string[]): number {
    let seen = 0;
    for (const cache of this.#caches) seen += this.#checkCache(cache.row, problems);
    return seen;
  }

  #checkCache(row: number, problems: string[]): number {
    const { quantumCache: rows, slab: slabs } = this.#region.tables;
    const cached = this.#cachedObjects(row, problems);
    const say = (text: string) => problems.push(`vmem/quantum-cache ${row}: ${text}`);
    let slabCount = 0;
    let idle = 0;
    let seen = 0;
    const partial = new Set<number>();
    for (let at = rows.partialHead.get(row); at !== 0 && !partial.has(at - 1); at = slabs.next.get(at - 1))
      partial.add(at - 1);
    for (let slab = 0; slab < slabs.rowCount; slab++) {
      if (slabs.cache.get(slab) !== row + 1) continue;
      slabCount++;
      let free = 0;
      for (let position = 0; position < rows.slabObjects.get(row); position++) {
        const object = slab * MAGAZINE_LANES + position;
        const state = slabs.object.at(slab, position);
        seen++;
        if (state === OBJECT_STATE.inSlab) free++;
        const magazine = cached.get(object);
        if (magazine === undefined ? isCached(state) : state !== cachedIn(magazine)) {
          say(`I1 object ${object} in state ${state}`);
        } else if (state < OBJECT_STATE.inSlab && !isCached(state)) say(`I3 object ${object} is being freed by nobody`);
      }
      if (free !== slabs.free.get(slab))
        say(`slab-store I1 slab ${slab} counts ${slabs.free.get(slab)} of ${free} free`);
      if (free > 0 !== partial.has(slab)) say(`slab-store I2 slab ${slab} with ${free} free objects on the wrong list`);
      if (free === rows.slabObjects.get(row)) idle++;
    }
    if (slabCount !== rows.slabCount.get(row)) say(`slab count ${rows.slabCount.get(row)}, found ${slabCount}`);
    if (idle !== rows.idleSlabs.get(row)) say(`idle slabs ${rows.idleSlabs.get(row)}, found ${idle}`);
    return seen;
  }

  #cacheOf(size: number): QuantumCache {
    return this.#bySize[(Math.ceil(size * this.#inverseQuantum) | 0) - 1] as QuantumCache;
  }

  /** Objects in magazines of the depot and of all slots, and the magazine that each is in. */
  #cachedObjects(row: number, problems: string[]): Map<number, number> {
    const { quantumCache: rows, magazine, magazineSlot, slot } = this.#region.tables;
    const magazines: number[] = [];
    for (let at = rows.fullHead.get(row); at !== 0; at = magazine.next.get(at - 1)) magazines.push(at - 1);
    for (let owner = 0; owner < slot.rowCount; owner++) {
      for (const column of [magazineSlot.loaded, magazineSlot.previous]) {
        if (column.at(owner, row) !== 0) magazines.push(column.at(owner, row) - 1);
      }
    }
    const objects = new Map<number, number>();
    for (const at of magazines) {
      for (let i = 0; i < magazine.count.get(at); i++) {
        const object = magazine.objects.at(at, i);
        if (objects.has(object)) problems.push(`vmem/quantum-cache ${row}: I1 object ${object} is cached twice`);
        objects.set(object, at);
      }
    }
    for (let owner = 0; owner < slot.rowCount; owner++) {
      if (magazineSlot.parkedLeft.at(owner, row) === 0) continue;
      problems.push(`vmem/quantum-cache ${row}: I4 a parked magazine of slot ${owner} is not empty`);
    }
    if (new Set(magazines).size !== magazines.length) {
      problems.push(`vmem/quantum-cache ${row}: magazine-depot I1 a magazine is in two places`);
    }
    return objects;
  }
}
