/**
 * Slabs of quantum caches: ranges of an arena cut into objects of one size, found again by address.
 *
 * PROBLEM     An address that is freed must lead to its object in a few touches of memory, without a lock, while slabs of
 *             other caches come and go.
 * STRUCTURE   A slab is aligned to its own size, so an address names its slab by rounding down:
 *
 *               address -> (cache, base) -> hash bucket -> chain of slab rows -> object states
 *               slab    |object 0|object 1| ... |object n-1|rest|
 *
 *             An object's number is slab * MAGAZINE_LANES + position. Its state says who has it: -1 the slab, above 0 the
 *             attachment that allocated it, -2 - slot the slot that is freeing it, -1024 - magazine the magazine.
 * INVARIANTS  I1 `free` of a slab counts its objects in state -1.   I2 a slab is on its cache's list of partial slabs iff
 *             free > 0.   I3 a slab in use is in the chain of its bucket; one that is not in use is in the pool.
 * LOCKING     Slab columns are guarded by the lock of their cache; the hash and the pool by the pool's lock, inside it.
 *             Chains are read without a lock as a hint: a walk that finds nothing is repeated under the lock. What it
 *             finds is stable for whoever owns an object of the slab, because a slab leaves only with all objects in it.
 * COSTS       A look-up touches a bucket and a row; 342 bytes a slab.
 * FAILURE     -1 when the address lies in no slab of the cache, or when no row is left.
 * REJECTED    A header inside the slab: arenas manage numbers, not only memory. A tree: more touches.
 * REFERENCES  Bonwick 1994 (slabs); Bonwick and Adams 2001, section 3.
 */

import { assert } from '../base/assert.ts';
import { VERIFY } from '../base/verify.ts';
import { OBJECT_POSITION_MASK, OBJECT_SLAB_SHIFT } from '../layout/quantum-tables.ts';
import type { BoundTables } from '../layout/region.ts';
import { faultPoint } from '../sync/fault.ts';
import { Mutex } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import type { Thread } from '../sync/thread.ts';

/** States of an object that name nobody. `taken`: out of the magazine that another thread empties, not yet in its slab. */
export const OBJECT_STATE = { inSlab: -1, taken: -0x80000000 } as const;

/** Minus the state of an object in magazine 0; what slots that take objects back say is above it. */
const CACHED_FIRST = 1024;

/** State of an object in a magazine: another one for each, so that a look at the state is a look at the place. */
export function cachedIn(magazine: number): number {
  return -CACHED_FIRST - magazine;
}

/** True for the state of an object in some magazine. */
export function isCached(state: number): boolean {
  return state <= -CACHED_FIRST && state !== OBJECT_STATE.taken;
}

/** State of an object that a slot is taking back from a user. */
export function beingFreedBy(slot: number): number {
  return -2 - slot;
}

/** Chain links that a walk without the lock follows before it doubts. */
const WALK_MAX = 64;

const TWO_32 = 4294967296;
const INVERSE_32 = 1 / TWO_32;

/** One thread's view of all slabs. */
export class SlabStore {
  readonly #thread: Thread;
  readonly #slabs: BoundTables['slab'];
  readonly #buckets: BoundTables['slabBucket'];
  readonly #pool: BoundTables['slabPool'];
  readonly #caches: BoundTables['quantumCache'];
  readonly #poolLock: Mutex;
  readonly #bucketShift: number;
  readonly #heads: Int32Array;
  readonly #chains: Int32Array;
  readonly #owners: Int32Array;
  readonly #bases: Float64Array;

  constructor(thread: Thread) {
    const { tables } = thread.region;
    this.#thread = thread;
    this.#slabs = tables.slab;
    this.#buckets = tables.slabBucket;
    this.#pool = tables.slabPool;
    this.#caches = tables.quantumCache;
    this.#poolLock = new Mutex(thread, tables.slabPool.lock.address(0), RANK.tagPool);
    // A count of at least two, a power of two.
    this.#bucketShift = Math.clz32(thread.region.geometry.slabBuckets) + 1;
    this.#heads = tables.slabBucket.head.view;
    this.#chains = tables.slab.chain.view;
    this.#owners = tables.slab.cache.view;
    this.#bases = tables.slab.base.view;
  }

  /** The slab of a cache that starts at `unit * slabSize`, or -1. */
  find(cache: number, unit: number, slabSize: number): number {
    const base = unit * slabSize;
    const bucket = this.#bucketOf(cache, unit);
    let slab = (this.#heads[bucket] as number) - 1;
    for (let steps = 0; slab >= 0 && steps < WALK_MAX; steps++) {
      if (this.#bases[slab] === base && this.#owners[slab] === cache + 1) return slab;
      slab = (this.#chains[slab] as number) - 1;
    }
    return this.#findLocked(cache, base, bucket);
  }

  /** True while a user has an object of the cache, or a slot is taking one back. Under the cache's lock. */
  inUse(cache: number): boolean {
    const slabs = this.#slabs;
    const objects = this.#caches.slabObjects.get(cache);
    for (let slab = 0; slab < slabs.rowCount; slab++) {
      if (slabs.cache.get(slab) !== cache + 1) continue;
      for (let position = 0; position < objects; position++) {
        const state = slabs.object.at(slab, position);
        if (state !== OBJECT_STATE.inSlab && !isCached(state)) return true;
      }
    }
    return false;
  }

  /** False when every row is in use: a look without the lock, to spare a try that would fail. */
  get hasRow(): boolean {
    return this.#pool.slabHead.get(0) !== 0 || this.#pool.slabFresh.get(0) < this.#slabs.rowCount;
  }

  /**
   * Takes a row for a new slab and puts it, full of free objects, on the cache's list. The caller holds the cache's lock
   * with nothing logged; `settle` adds stores of its own to the same transaction. -1 when no row is left.
   */
  addSlab(cache: number, base: number, settle: () => void): number {
    const { journal } = this.#thread;
    const slabs = this.#slabs;
    const pool = this.#pool;
    this.#poolLock.enter();
    // 1. A row: one that was given back, or a fresh one.
    let slab = pool.slabHead.get(0) - 1;
    if (slab >= 0) journal.set(pool.slabHead, 0, slabs.next.get(slab));
    else {
      slab = pool.slabFresh.get(0);
      if (slab === slabs.rowCount) {
        this.#poolLock.exit();
        return -1;
      }
      journal.set(pool.slabFresh, 0, slab + 1);
    }
    // 2. Its contents: nobody can reach the row yet.
    const objects = this.#caches.slabObjects.get(cache);
    slabs.base.put(slab, base);
    for (let position = 0; position < objects; position++) slabs.object.putAt(slab, position, OBJECT_STATE.inSlab);
    journal.set(slabs.cache, slab, cache + 1);
    journal.set(slabs.free, slab, 0);
    // 3. Into the hash and the list; the pool's lock commits it all at once.
    const bucket = this.#bucketOf(cache, base / this.#caches.slabSize.get(cache));
    journal.set(slabs.chain, slab, this.#buckets.head.get(bucket));
    journal.set(this.#buckets.head, bucket, slab + 1);
    journal.set(this.#caches.slabCount, cache, this.#caches.slabCount.get(cache) + 1);
    this.#setFree(cache, slab, objects);
    settle();
    if (VERIFY) faultPoint(this.#thread, 'vmem.slab.added');
    this.#poolLock.exit();
    return slab;
  }

  /** Gives the row of a slab back whose objects are all free. The caller holds the cache's lock with nothing logged. */
  removeSlab(cache: number, slab: number, settle: () => void): void {
    const { journal } = this.#thread;
    const slabs = this.#slabs;
    assert(slabs.free.get(slab) === this.#caches.slabObjects.get(cache), 'vmem/slab-store I1: a slab leaves whole');
    this.#poolLock.enter();
    this.#setFree(cache, slab, 0);
    journal.set(this.#caches.idleSlabs, cache, this.#caches.idleSlabs.get(cache) - 1);
    const bucket = this.#bucketOf(cache, slabs.base.get(slab) / this.#caches.slabSize.get(cache));
    let previous = -1;
    let at = this.#buckets.head.get(bucket) - 1;
    while (at !== slab) {
      assert(at >= 0, 'vmem/slab-store I3: a slab in use is in its chain');
      previous = at;
      at = slabs.chain.get(at) - 1;
    }
    if (previous < 0) journal.set(this.#buckets.head, bucket, slabs.chain.get(slab));
    else journal.set(slabs.chain, previous, slabs.chain.get(slab));
    journal.set(slabs.cache, slab, 0);
    journal.set(slabs.next, slab, this.#pool.slabHead.get(0));
    journal.set(this.#pool.slabHead, 0, slab + 1);
    journal.set(this.#caches.slabCount, cache, this.#caches.slabCount.get(cache) - 1);
    settle();
    if (VERIFY) faultPoint(this.#thread, 'vmem.slab.removed');
    this.#poolLock.exit();
  }

  /** Takes one object out of a partial slab: its state becomes `state`. The number, or -1 when no slab has one. */
  takeObject(cache: number, state: number): number {
    const slab = this.#caches.partialHead.get(cache) - 1;
    if (slab < 0) return -1;
    const slabs = this.#slabs;
    let position = 0;
    while (slabs.object.at(slab, position) !== OBJECT_STATE.inSlab) position++;
    this.#thread.journal.setAt(slabs.object, slab, position, state);
    this.#setFree(cache, slab, slabs.free.get(slab) - 1);
    return (slab << OBJECT_SLAB_SHIFT) + position;
  }

  /** Puts an object back into its slab, whatever its state was. */
  putObject(cache: number, object: number): void {
    const slabs = this.#slabs;
    const position = object & OBJECT_POSITION_MASK;
    const slab = object >> OBJECT_SLAB_SHIFT;
    assert(slabs.object.at(slab, position) !== OBJECT_STATE.inSlab, 'vmem/slab-store I1: an object comes back once');
    this.#thread.journal.setAt(slabs.object, slab, position, OBJECT_STATE.inSlab);
    this.#setFree(cache, slab, slabs.free.get(slab) + 1);
  }

  /** Changes a slab's count, its place on the list of partial slabs, and the count of idle slabs. */
  #setFree(cache: number, slab: number, free: number): void {
    const { journal } = this.#thread;
    const slabs = this.#slabs;
    const caches = this.#caches;
    const before = slabs.free.get(slab);
    const whole = caches.slabObjects.get(cache);
    journal.set(slabs.free, slab, free);
    if (before === 0 && free > 0) {
      const head = caches.partialHead.get(cache);
      journal.set(slabs.next, slab, head);
      journal.set(slabs.previous, slab, 0);
      if (head !== 0) journal.set(slabs.previous, head - 1, slab + 1);
      journal.set(caches.partialHead, cache, slab + 1);
    } else if (before > 0 && free === 0) {
      const next = slabs.next.get(slab);
      const previous = slabs.previous.get(slab);
      if (previous === 0) journal.set(caches.partialHead, cache, next);
      else journal.set(slabs.next, previous - 1, next);
      if (next !== 0) journal.set(slabs.previous, next - 1, previous);
    }
    if (free === whole) journal.set(caches.idleSlabs, cache, caches.idleSlabs.get(cache) + 1);
    else if (before === whole && free !== 0) journal.set(caches.idleSlabs, cache, caches.idleSlabs.get(cache) - 1);
  }

  #findLocked(cache: number, base: number, bucket: number): number {
    const { base: bases, cache: owners, chain } = this.#slabs;
    this.#poolLock.enter();
    let slab = this.#buckets.head.get(bucket) - 1;
    while (slab >= 0 && (bases.get(slab) !== base || owners.get(slab) !== cache + 1)) slab = chain.get(slab) - 1;
    this.#poolLock.exit();
    return slab;
  }

  #bucketOf(cache: number, unit: number): number {
    // Two coordinates of 32 bits and the cache are added, then spread by the golden ratio, whose top bits keep neighbours
    // apart: the slabs of a cache mostly lie side by side. Four buckets a slab and this, instead of one and mixed bits, take
    // four fifths of the second links off the walks.
    const high = unit < TWO_32 ? 0 : (unit * INVERSE_32) | 0;
    const sum = (unit | 0) + Math.imul(high, 0x85ebca6b) + Math.imul(cache, 0xc2b2ae35);
    return Math.imul(sum, 0x9e3779b1) >>> this.#bucketShift;
  }
}
