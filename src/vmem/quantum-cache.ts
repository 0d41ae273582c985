/**
 * A quantum cache: the objects of one small size of one arena, cached per thread.
 *
 * PROBLEM     Most allocations are small and short-lived; each would take the arena's lock and touch its tags. A cache must
 *             be faster, must not lose an object when a thread dies at any point, and must notice a double free.
 * STRUCTURE   Three layers, each touched more rarely than the one above it:
 *
 *               slot      loaded magazine, previous magazine      no lock: only this slot's thread touches them
 *               depot     full magazines, empty magazines         the cache's lock, once per magazine
 *               slabs     ranges of the arena, cut up             the cache's lock; the arena once per slab
 *
 *             Allocating pops from the loaded magazine, freeing pushes onto it. When that fails the previous magazine takes
 *             its place, then one of the depot's, then the slabs fill or take.
 *             A thread that needs what others have cached empties their magazines too: the previous one like one of the
 *             depot; the loaded one is parked first, which means that its slot has none, and that nobody uses it again
 *             before its slot has come by the lock or its thread has ended.
 * INVARIANTS  I1 an object is in exactly one place: its slab (state -1), one magazine (whose number its state has), or with
 *                a user (state its attachment), except during I2 to I4.
 *             I2 allocating stores the owner, then lowers the count: an object of a dead slot's magazine is cached,
 *                whatever its state; one above the count is the user's.
 *             I3 freeing names the object in `pending`, then its state becomes -2 - slot, then the magazine has it, then its
 *                state names the magazine and the name is taken back: after a dead slot's magazines went to slabs, a
 *                pending object in that state is in no other place and goes to its slab too.
 *             I4 parking: under the lock, the slot's loaded magazine becomes none; if the slot then has no pending object,
 *                what it frees from here on finds none, and what it is allocating right now is decided by the
 *                compare-and-swap of the object's state: from this magazine to the user, or to `taken` by who empties it.
 * LOCKING     Magazines that a slot has loaded are its own (W), but for I4. A magazine changes hands only through the depot,
 *             under the cache's lock. An object's state is changed by compare-and-swap when it is freed, because two threads
 *             may free the same object by mistake: one of them is told.
 * COSTS       A pair is two compare-and-swaps and about 25 plain loads and stores. Slow paths: one lock per magazine.
 * FAILURE     -1 when neither magazines, slabs nor the arena have an object. Double frees throw `EINVAL`.
 * REJECTED    A stack shared by all threads (Treiber): one contended word for everybody, and ABA. A mutex per slot: its
 *             pair of read-modify-writes costs more than the pair of operations it would guard. Asking the owner of a magazine
 *             to empty it: it may be idle for ever.
 * REFERENCES  Bonwick and Adams 2001, sections 3.1 to 3.4. test/explore/quantum.test.ts: every schedule, every death.
 */

import { assert } from '../base/assert.ts';
import { fail } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import { MAGAZINE_LANES, OBJECT_POSITION_MASK, OBJECT_SLAB_SHIFT } from '../layout/quantum-tables.ts';
import type { BoundTables } from '../layout/region.ts';
import { compareExchange, load, store } from '../sync/atomics.ts';
import { faultPoint } from '../sync/fault.ts';
import { Mutex } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import { STORES_IN_ORDER } from '../sync/stores.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import { MagazineDepot } from './magazine-depot.ts';
import { beingFreedBy, cachedIn, type SlabStore } from './slab-store.ts';

/** Where slabs come from and go to: an arena. What is in flight is recorded so that a death loses nothing. */
export interface SlabSource {
  /** An aligned range, recorded as in flight; -1 when there is none. */
  takeSlab(sizeUnits: number): number;
  /** Journaled: the range in flight has found its place. Called inside the transaction that gives it one. */
  settleSlab(): void;
  /** Journaled: the range is in flight back to the arena. Called inside the transaction that removes it. */
  recordReturn(base: number, sizeUnits: number): void;
  /** Gives the recorded range back. */
  returnSlab(base: number, sizeUnits: number): void;
}

/** An object of a quantum cache. */
export interface CachedObject {
  readonly address: number;
  readonly size: number;
  /** The attachment that allocated it; 0 when nobody has it. */
  readonly attachment: number;
}

/**
 * Decides whether an object leaves its slab, which is not the `last` one or is, and calls `take` if it does. Called under the
 * lock of the cache, with nothing logged.
 */
export type ObjectGate = (last: boolean, take: () => void) => void;

/** Whole free slabs that a cache keeps, so that a flapping load does not take and return one each time. */
const IDLE_SLABS_KEPT = 1;

/** One thread's view of one cache. */
export class QuantumCache {
  /** Size of the objects. */
  readonly objectSize: number;
  /** Row of the cache. */
  readonly row: number;
  readonly #thread: Thread;
  readonly #words: Int32Array;
  readonly #tag: number;
  readonly #freeing: number;
  readonly #slabSize: number;
  readonly #slabInverse: number;
  readonly #objectInverse: number;
  readonly #slabObjects: number;
  readonly #store: SlabStore;
  readonly #source: SlabSource;
  readonly #lock: Mutex;
  readonly #depot: MagazineDepot;
  readonly #tables: BoundTables;
  /** This slot's lanes: element `row` is this cache's. */
  readonly #loaded: Int32Array;
  readonly #pending: Int32Array;
  readonly #loadedAddress: number;
  readonly #pendingAddress: number;
  readonly #hits: Float64Array;
  readonly #misses: Float64Array;
  readonly #freeMisses: Float64Array;
  /** Columns of magazines and slabs as views: the fast paths touch ten of these and would chase pointers otherwise. */
  readonly #counts: Int32Array;
  readonly #objects: Int32Array;
  readonly #magazineStride: number;
  readonly #rounds: Int32Array;
  readonly #bases: Float64Array;
  readonly #states: Int32Array;
  readonly #statesAddress: number;
  readonly #arenaLink: number;
  readonly #isCurrent: () => boolean;

  /** @param isCurrent whether the arena that the cache was made for still exists. */
  constructor(thread: Thread, row: number, store: SlabStore, source: SlabSource, isCurrent: () => boolean) {
    const { tables } = thread.region;
    const { magazine, magazineSlot, quantumCache, slab } = tables;
    this.row = row;
    this.objectSize = quantumCache.objectSize.get(row);
    this.#thread = thread;
    this.#words = thread.words;
    this.#tag = thread.attachment;
    this.#freeing = beingFreedBy(thread.slot);
    this.#slabSize = quantumCache.slabSize.get(row);
    this.#slabInverse = 1 / this.#slabSize;
    this.#objectInverse = 1 / this.objectSize;
    this.#slabObjects = quantumCache.slabObjects.get(row);
    this.#store = store;
    this.#source = source;
    this.#lock = new Mutex(thread, quantumCache.lock.address(row), RANK.quantumCache);
    this.#depot = new MagazineDepot(thread, row, store);
    this.#tables = tables;
    this.#loaded = magazineSlot.loaded.view.subarray(thread.slot * magazineSlot.loaded.stride);
    this.#pending = magazineSlot.pending.view.subarray(thread.slot * magazineSlot.pending.stride);
    this.#loadedAddress = magazineSlot.loaded.address(thread.slot, row);
    this.#pendingAddress = magazineSlot.pending.address(thread.slot, row);
    this.#hits = magazineSlot.hits.view.subarray(thread.slot * magazineSlot.hits.stride);
    this.#misses = magazineSlot.misses.view.subarray(thread.slot * magazineSlot.misses.stride);
    this.#freeMisses = magazineSlot.freeMisses.view.subarray(thread.slot * magazineSlot.freeMisses.stride);
    this.#counts = magazine.count.view;
    this.#objects = magazine.objects.view;
    this.#magazineStride = magazine.count.stride;
    this.#rounds = quantumCache.rounds.view;
    this.#bases = slab.base.view;
    this.#states = slab.object.view;
    this.#statesAddress = slab.object.base;
    this.#arenaLink = quantumCache.arena.get(row);
    this.#isCurrent = isCurrent;
    assert(slab.object.stride === MAGAZINE_LANES, 'vmem/quantum-cache: an object number is an index of its state');
  }

  /** An object's address, or -1 when there is none. */
  tryAlloc(): number {
    const loaded = (this.#loaded[this.row] as number) - 1;
    if (loaded < 0) return this.#allocSlow();
    const magazine = loaded * this.#magazineStride;
    const count = this.#counts[magazine] as number;
    if (count === 0) return this.#allocSlow();
    const object = this.#objects[magazine + count - 1] as number;
    // I2: the owner first, then the count. I4: unless another thread has taken the object meanwhile.
    const expected = cachedIn(loaded);
    if (compareExchange(this.#words, this.#statesAddress + object, expected, this.#tag) !== expected) {
      return this.#allocSlow();
    }
    if (VERIFY) faultPoint(this.#thread, 'vmem.magazine.popping');
    this.#counts[magazine] = count - 1;
    this.#tally(this.#hits, 1);
    return (this.#bases[object >> OBJECT_SLAB_SHIFT] as number) + (object & OBJECT_POSITION_MASK) * this.objectSize;
  }

  /** Frees an object; false when the address is in no slab of this cache. Throws `EINVAL` for a double free. */
  free(address: number): boolean {
    const slab = this.#store.find(this.row, Math.floor(address * this.#slabInverse), this.#slabSize);
    if (slab < 0) return false;
    const offset = address - (this.#bases[slab] as number);
    // The product is rounded to the nearest whole number and then proved: exact for every size.
    const position = (offset * this.#objectInverse + 0.5) | 0;
    if (position * this.objectSize !== offset || position >= this.#slabObjects) this.#failUnaligned(address);
    const object = (slab << OBJECT_SLAB_SHIFT) + position;
    const state = this.#states[object] as number;
    if (state <= 0) this.#failDoubleFree(address);
    // I3: name the object, change its state, store it, take the name back.
    this.#name(object + 1);
    if (compareExchange(this.#words, this.#statesAddress + object, state, this.#freeing) !== state) {
      this.#name(0);
      this.#failDoubleFree(address);
    }
    if (VERIFY) faultPoint(this.#thread, 'vmem.magazine.pushing');
    // I4: behind the compare-and-swap, so that either the name is seen or this is.
    const named = STORES_IN_ORDER ? (this.#loaded[this.row] as number) : load(this.#words, this.#loadedAddress);
    const loaded = named - 1;
    const magazine = loaded * this.#magazineStride;
    const count = loaded < 0 ? MAGAZINE_LANES : (this.#counts[magazine] as number);
    if (count >= (this.#rounds[this.row] as number)) this.#freeSlow(object);
    else this.#push(loaded, count, object);
    return true;
  }

  /** True when a slab has a free object. A look. */
  hasObjects(): boolean {
    return this.#tables.quantumCache.partialHead.get(this.row) !== 0;
  }

  /** True when an address points to an object that a user has. */
  isAllocated(address: number): boolean {
    const slab = this.#store.find(this.row, Math.floor(address * this.#slabInverse), this.#slabSize);
    if (slab < 0) return false;
    const position = (address - (this.#bases[slab] as number)) / this.objectSize;
    if (!Number.isInteger(position) || position >= this.#slabObjects) return false;
    return (this.#states[(slab << OBJECT_SLAB_SHIFT) + position] as number) > 0;
  }

  /** The object that an address lies in, or null when it lies in none. A look. */
  describe(address: number): CachedObject | null {
    const slab = this.#store.find(this.row, Math.floor(address * this.#slabInverse), this.#slabSize);
    if (slab < 0) return null;
    const position = Math.floor((address - (this.#bases[slab] as number)) / this.objectSize);
    if (position >= this.#slabObjects) return null;
    const object = (slab << OBJECT_SLAB_SHIFT) + position;
    const state = this.#states[object] as number;
    return { address: this.#addressOf(object), size: this.objectSize, attachment: Math.max(0, state) };
  }

  /** An object straight from a slab, or -1: no magazine is filled on the way. */
  takeFromSlabs(gate?: ObjectGate): number {
    for (;;) {
      this.#lock.enter();
      const object = this.#serves() ? this.#takeObject(gate) : -1;
      this.#lock.exit();
      if (object >= 0) return this.#addressOf(object);
      if (!this.#addSlab()) return -1;
    }
  }

  /**
   * Puts everything that this slot and the depot have cached back into slabs, and idle slabs back into the arena. True when
   * there was a magazine to empty.
   */
  drain(): boolean {
    this.#lock.enter();
    const { fullHead } = this.#tables.quantumCache;
    const emptied = this.#loaded[this.row] !== 0 || fullHead.get(this.row) !== 0;
    this.#depot.drainSlot(this.#thread.slot);
    this.#depot.drainDepot();
    this.#lock.exit();
    this.#returnIdleSlabs(0);
    return emptied;
  }

  /**
   * Puts back what all slots have cached, but for those that are freeing something at the moment. True when there was
   * something.
   */
  drainAll(): boolean {
    const { slot: slots } = this.#tables;
    if (!this.#depot.mayHaveMagazines() && this.#tables.quantumCache.idleSlabs.get(this.row) === 0) return false;
    this.#lock.enter();
    let emptied = this.#depot.mayHaveMagazines();
    this.#depot.drainSlot(this.#thread.slot);
    for (let slot = 0; slot < slots.rowCount; slot++) {
      if (slot !== this.#thread.slot) emptied = this.#depot.takeFrom(slot) || emptied;
    }
    this.#depot.drainDepot();
    this.#lock.exit();
    this.#returnIdleSlabs(0);
    return emptied;
  }

  /**
   * Stops caching, if no user has an object and no slot is freeing one. Null when it did, else why not.
   * From here on no slot can load a magazine, so that nobody is on the paths without a lock.
   */
  close(): string | null {
    const { quantumCache, magazineSlot, slot: slots } = this.#tables;
    this.drainAll();
    this.#lock.enter();
    let why = this.#store.inUse(this.row) ? 'it has live allocations of cached sizes' : null;
    // After the states: a slot that is freeing has named the object before it changed its state.
    for (let slot = 0; slot < slots.rowCount && why === null; slot++) {
      const { loaded, previous, pending } = magazineSlot;
      const idle =
        loaded.at(slot, this.row) === 0 && previous.at(slot, this.row) === 0 && pending.at(slot, this.row) === 0;
      if (!idle) why = `the thread in slot ${slot} is using it`;
    }
    if (why === null) this.#thread.journal.set(quantumCache.closed, this.row, 1);
    this.#lock.exit();
    if (why !== null) return why;
    // What a slot put into the depot between the two.
    this.drain();
    return null;
  }

  /** Caches again after a `close`. */
  reopen(): void {
    this.#lock.enter();
    this.#thread.journal.set(this.#tables.quantumCache.closed, this.row, 0);
    this.#lock.exit();
  }

  /** Puts what a dead slot had cached back into slabs. */
  recoverSlot(dead: SlotIndex): void {
    this.#lock.enter();
    this.#depot.drainSlot(dead);
    this.#depot.settlePending(dead);
    // What it was emptying of others.
    for (let slot = 0; slot < this.#tables.slot.rowCount; slot++) this.#depot.emptyParked(slot);
    this.#lock.exit();
    this.#returnIdleSlabs(IDLE_SLABS_KEPT);
  }

  /** Names the object that this slot takes back, plus one; 0 none. What was stored before is seen before. */
  #name(named: number): void {
    if (STORES_IN_ORDER) this.#pending[this.row] = named;
    else store(this.#words, this.#pendingAddress, named);
  }

  /** False once the arena is being destroyed, or its row serves another one. Under the lock. */
  #serves(): boolean {
    const { quantumCache } = this.#tables;
    return (
      quantumCache.closed.get(this.row) === 0 &&
      quantumCache.arena.get(this.row) === this.#arenaLink &&
      this.#isCurrent()
    );
  }

  #takeObject(gate: ObjectGate | undefined): number {
    if (gate === undefined) return this.#store.takeObject(this.row, this.#tag);
    const { quantumCache, slab: slabs } = this.#tables;
    const slab = quantumCache.partialHead.get(this.row) - 1;
    if (slab < 0) return -1;
    let object = -1;
    gate(slabs.free.get(slab) === 1 && slabs.next.get(slab) === 0, () => {
      object = this.#store.takeObject(this.row, this.#tag);
    });
    return object;
  }

  /** Counts for the statistics: this slot's alone, and not logged. Explored schedules leave it out. */
  #tally(counts: Float64Array, amount: number): void {
    counts[this.row] = (counts[this.row] as number) + amount;
  }

  /** I3, from the magazine on. */
  #push(magazine: number, count: number, object: number): void {
    const at = magazine * this.#magazineStride;
    this.#objects[at + count] = object;
    this.#counts[at] = count + 1;
    if (VERIFY) faultPoint(this.#thread, 'vmem.magazine.pushed');
    this.#states[object] = cachedIn(magazine);
    this.#name(0);
  }

  /** Rare: the loaded magazine is empty, missing or parked. */
  #allocSlow(): number {
    this.#tally(this.#misses, 1);
    for (;;) {
      this.#depot.enter(this.#lock);
      if (!this.#serves()) {
        this.#lock.exit();
        return -1;
      }
      this.#depot.settleParked(this.#thread.slot);
      const filled = this.#depot.loadFull() || this.#depot.fillFromSlabs();
      // Without a magazine to fill, an object is taken straight from its slab.
      const object = filled ? -1 : this.#store.takeObject(this.row, this.#tag);
      this.#lock.exit();
      if (filled) {
        // It is a miss, though it comes from the magazine in the end.
        this.#tally(this.#hits, -1);
        return this.tryAlloc();
      }
      if (object >= 0) return this.#addressOf(object);
      if (!this.#addSlab()) return -1;
    }
  }

  /** Rare: the loaded magazine is full or missing. */
  #freeSlow(object: number): void {
    this.#tally(this.#freeMisses, 1);
    this.#depot.enter(this.#lock);
    this.#depot.settleParked(this.#thread.slot);
    if (this.#depot.loadEmpty()) {
      // Read under the lock: I4 takes it away for a moment, but not for good while the object is pending.
      const magazine = (this.#loaded[this.row] as number) - 1;
      this.#lock.exit();
      this.#push(magazine, this.#counts[magazine * this.#magazineStride] as number, object);
    } else {
      this.#depot.settlePending(this.#thread.slot);
      this.#lock.exit();
    }
    this.#returnIdleSlabs(IDLE_SLABS_KEPT);
  }

  #addSlab(): boolean {
    const base = this.#store.hasRow ? this.#source.takeSlab(this.#slabSize) : -1;
    if (base < 0) return false;
    if (VERIFY) faultPoint(this.#thread, 'vmem.slab.taken');
    this.#lock.enter();
    if (!this.#serves()) {
      this.#lock.exit();
      this.#source.returnSlab(base, this.#slabSize);
      return false;
    }
    const { quantumCache } = this.#tables;
    const slab = this.#store.addSlab(this.row, base, () => {
      this.#thread.journal.setDouble(quantumCache.refills, this.row, quantumCache.refills.get(this.row) + 1);
      this.#source.settleSlab();
    });
    this.#lock.exit();
    if (slab >= 0) return true;
    this.#source.returnSlab(base, this.#slabSize);
    return false;
  }

  #returnIdleSlabs(kept: number): void {
    const { quantumCache, slab: slabs } = this.#tables;
    while (quantumCache.idleSlabs.get(this.row) > kept) {
      this.#lock.enter();
      let slab = quantumCache.partialHead.get(this.row) - 1;
      while (slab >= 0 && slabs.free.get(slab) !== this.#slabObjects) slab = slabs.next.get(slab) - 1;
      if (slab < 0 || quantumCache.idleSlabs.get(this.row) <= kept) {
        this.#lock.exit();
        return;
      }
      const base = slabs.base.get(slab);
      this.#store.removeSlab(this.row, slab, () => this.#source.recordReturn(base, this.#slabSize));
      this.#lock.exit();
      if (VERIFY) faultPoint(this.#thread, 'vmem.slab.returning');
      this.#source.returnSlab(base, this.#slabSize);
    }
  }

  #addressOf(object: number): number {
    return (this.#bases[object >> OBJECT_SLAB_SHIFT] as number) + (object & OBJECT_POSITION_MASK) * this.objectSize;
  }

  #failDoubleFree(address: number): never {
    fail('EINVAL', 'arena.free', { address, size: this.objectSize }, 'the object is free already');
  }

  #failUnaligned(address: number): never {
    fail('EINVAL', 'arena.free', { address, size: this.objectSize }, 'no allocation of this size starts here');
  }
}
