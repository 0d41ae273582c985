/**
 * The depot of a quantum cache: where threads exchange magazines.
 *
 * PROBLEM     Objects freed by one thread must reach others, in batches large enough that the lock does not matter.
 * STRUCTURE   full: magazine -> magazine ...      empty: magazine -> magazine ...      beside them the slabs
 *             A slot's pair (loaded, previous) means that a thread that allocates and frees around a boundary swaps its two
 *             magazines instead of coming here each time.
 * INVARIANTS  I1 a magazine is in one place: a slot's loaded, previous or parked, one of the depot's lists, or the pool.
 *             I2 magazines on the full list are not empty, those on the empty list are.
 * LOCKING     All methods but `enter` are called under the cache's lock, with nothing logged before.
 * COSTS       A handful of journaled stores per magazine. Filling from slabs logs a few words an object.
 * FAILURE     False when there is no magazine to be had; the caller then works on slabs directly.
 * REJECTED    Sizing magazines by a timer: contention is counted where it happens.
 * REFERENCES  Bonwick and Adams 2001, section 3.3 (dynamic magazine sizing) and 3.4 (working set).
 */

import { VERIFY } from '../base/verify.ts';
import { MAGAZINE_LANES, OBJECT_POSITION_MASK, OBJECT_SLAB_SHIFT } from '../layout/quantum-tables.ts';
import type { BoundTables } from '../layout/region.ts';
import { compareExchange, load, store } from '../sync/atomics.ts';
import { faultPoint } from '../sync/fault.ts';
import { Mutex } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import { beingFreedBy, cachedIn, OBJECT_STATE, type SlabStore } from './slab-store.ts';

/** Full magazines that the depot keeps before it sends objects back to their slabs. */
const FULL_KEPT = 8;

/** Magazines grow when more than one in eight of this many entries met another owner. */
const VISITS_PER_DECISION = 64;

/** One thread's view of the depot of one cache. */
export class MagazineDepot {
  readonly #thread: Thread;
  readonly #row: number;
  readonly #store: SlabStore;
  readonly #caches: BoundTables['quantumCache'];
  readonly #magazines: BoundTables['magazine'];
  readonly #slots: BoundTables['magazineSlot'];
  readonly #pool: BoundTables['slabPool'];
  readonly #slabs: BoundTables['slab'];
  readonly #poolLock: Mutex;

  constructor(thread: Thread, row: number, store: SlabStore) {
    const { tables } = thread.region;
    this.#thread = thread;
    this.#row = row;
    this.#store = store;
    this.#caches = tables.quantumCache;
    this.#magazines = tables.magazine;
    this.#slots = tables.magazineSlot;
    this.#pool = tables.slabPool;
    this.#slabs = tables.slab;
    this.#poolLock = new Mutex(thread, tables.slabPool.lock.address(0), RANK.tagPool);
  }

  /** Enters the cache's lock and counts whether it was free: contention makes magazines larger. */
  enter(lock: Mutex): void {
    const free = lock.tryEnter();
    if (!free) lock.enter();
    const caches = this.#caches;
    const { journal } = this.#thread;
    const row = this.#row;
    const visits = caches.visits.get(row) + 1;
    const collisions = caches.collisions.get(row) + (free ? 0 : 1);
    if (visits < VISITS_PER_DECISION) {
      journal.set(caches.visits, row, visits);
      journal.set(caches.collisions, row, collisions);
    } else {
      const rounds = caches.rounds.get(row);
      if (collisions * 8 > visits) journal.set(caches.rounds, row, Math.min(MAGAZINE_LANES, rounds * 2));
      journal.set(caches.visits, row, 0);
      journal.set(caches.collisions, row, 0);
    }
    this.#thread.commit();
  }

  /** Makes the slot's loaded magazine one with objects: its previous one, or a full one of the depot. */
  loadFull(): boolean {
    const { journal, slot } = this.#thread;
    const slots = this.#slots;
    const row = this.#row;
    const loaded = slots.loaded.at(slot, row);
    const previous = slots.previous.at(slot, row);
    if (previous !== 0 && this.#magazines.count.get(previous - 1) > 0) {
      journal.setAt(slots.loaded, slot, row, previous);
      journal.setAt(slots.previous, slot, row, loaded);
      return true;
    }
    const full = this.#caches.fullHead.get(row);
    if (full === 0) return false;
    journal.set(this.#caches.fullHead, row, this.#magazines.next.get(full - 1));
    journal.set(this.#caches.fullCount, row, this.#caches.fullCount.get(row) - 1);
    journal.setDouble(this.#caches.depotHits, row, this.#caches.depotHits.get(row) + 1);
    if (previous !== 0) this.#pushEmpty(previous - 1);
    journal.setAt(slots.previous, slot, row, loaded);
    journal.setAt(slots.loaded, slot, row, full);
    if (VERIFY) faultPoint(this.#thread, 'vmem.depot.full');
    return true;
  }

  /** Makes the slot's loaded magazine one with room: its previous one, or an empty one of the depot or the pool. */
  loadEmpty(): boolean {
    const { journal, slot } = this.#thread;
    const slots = this.#slots;
    const row = this.#row;
    const loaded = slots.loaded.at(slot, row);
    const previous = slots.previous.at(slot, row);
    if (previous !== 0 && this.#magazines.count.get(previous - 1) < this.#caches.rounds.get(row)) {
      journal.setAt(slots.loaded, slot, row, previous);
      journal.setAt(slots.previous, slot, row, loaded);
      return true;
    }
    if (!this.#ensureEmpty()) return false;
    if (previous !== 0) this.#giveFull(previous - 1);
    const empty = this.#popEmpty();
    journal.setAt(slots.previous, slot, row, loaded);
    journal.setAt(slots.loaded, slot, row, empty + 1);
    if (VERIFY) faultPoint(this.#thread, 'vmem.depot.empty');
    return true;
  }

  /** Fills the slot's loaded magazine from slabs; false when there is no magazine or no object. */
  fillFromSlabs(): boolean {
    const { journal, slot } = this.#thread;
    const row = this.#row;
    if (this.#caches.partialHead.get(row) === 0) return false;
    let magazine = this.#slots.loaded.at(slot, row) - 1;
    if (magazine < 0) {
      if (!this.#ensureEmpty()) return false;
      magazine = this.#popEmpty();
      journal.setAt(this.#slots.loaded, slot, row, magazine + 1);
    }
    const rounds = this.#caches.rounds.get(row);
    let count = this.#magazines.count.get(magazine);
    while (count < rounds) {
      const object = this.#store.takeObject(row, cachedIn(magazine));
      if (object < 0) break;
      this.#magazines.objects.putAt(magazine, count, object); // above the count: nobody reads it
      count++;
    }
    journal.set(this.#magazines.count, magazine, count);
    if (VERIFY) faultPoint(this.#thread, 'vmem.depot.filled');
    return true;
  }

  /** True when a slot or the depot has a magazine. A look. */
  mayHaveMagazines(): boolean {
    if (this.#caches.fullHead.get(this.#row) !== 0) return true;
    const { loaded, previous, rowCount } = this.#slots;
    for (let slot = 0; slot < rowCount; slot++) {
      if (loaded.at(slot, this.#row) !== 0 || previous.at(slot, this.#row) !== 0) return true;
    }
    return false;
  }

  /**
   * Empties both magazines of another slot, whose thread goes on meanwhile; quantum-cache.ts I4. False when it has none, or
   * is freeing something. Empty magazines stay in the depot: the caller drains it next.
   */
  takeFrom(slot: SlotIndex): boolean {
    const { words, journal } = this.#thread;
    const row = this.#row;
    this.emptyParked(slot);
    const previous = this.#slots.previous.at(slot, row) - 1;
    if (previous >= 0) {
      this.#empty(previous);
      journal.setAt(this.#slots.previous, slot, row, 0);
      this.#pushEmpty(previous);
      if (VERIFY) faultPoint(this.#thread, 'vmem.magazine.previous');
      this.#thread.commit();
    }
    const loadedAddress = this.#slots.loaded.address(slot, row);
    const loaded = load(words, loadedAddress);
    if (loaded === 0) return previous >= 0;
    journal.log1(loadedAddress);
    store(words, loadedAddress, 0);
    if (load(words, this.#slots.pending.address(slot, row)) !== 0) {
      store(words, loadedAddress, loaded);
      this.#thread.commit();
      return previous >= 0;
    }
    journal.setAt(this.#slots.parked, slot, row, loaded);
    journal.setAt(this.#slots.parkedLeft, slot, row, this.#magazines.count.get(loaded - 1));
    this.#thread.commit();
    if (VERIFY) faultPoint(this.#thread, 'vmem.magazine.parked');
    this.emptyParked(slot);
    return true;
  }

  /** Puts what is left in the parked magazine of a slot into slabs; its thread may be allocating one of the objects. */
  emptyParked(slot: SlotIndex): void {
    const { words, journal } = this.#thread;
    const { parked, parkedLeft } = this.#slots;
    const row = this.#row;
    const magazine = parked.at(slot, row) - 1;
    for (let left = parkedLeft.at(slot, row); left > 0; left--) {
      const object = this.#magazines.objects.at(magazine, left - 1);
      const address = this.#slabs.object.address(object >> OBJECT_SLAB_SHIFT, object & OBJECT_POSITION_MASK);
      const expected = cachedIn(magazine);
      const state = compareExchange(words, address, expected, OBJECT_STATE.taken);
      if (VERIFY) faultPoint(this.#thread, 'vmem.magazine.emptying');
      // A thread that ended here before may have taken it. What a user got stays with the user.
      if (state === expected || state === OBJECT_STATE.taken) this.#store.putObject(row, object);
      journal.setAt(parkedLeft, slot, row, left - 1);
      this.#thread.commit();
    }
  }

  /** Makes the parked magazine of a slot an empty one of the depot: of this slot, or of one whose thread has ended. */
  settleParked(slot: SlotIndex): void {
    const magazine = this.#slots.parked.at(slot, this.#row) - 1;
    if (magazine < 0) return;
    this.emptyParked(slot);
    this.#thread.journal.set(this.#magazines.count, magazine, 0);
    this.#thread.journal.setAt(this.#slots.parked, slot, this.#row, 0);
    this.#pushEmpty(magazine);
    this.#thread.commit();
  }

  /** Empties both magazines of a slot into slabs, this slot's or a dead one's, and takes the magazines away. */
  drainSlot(slot: SlotIndex): void {
    this.settleParked(slot);
    for (const column of [this.#slots.loaded, this.#slots.previous]) {
      const magazine = column.at(slot, this.#row) - 1;
      if (magazine < 0) continue;
      this.#empty(magazine);
      this.#thread.journal.setAt(column, slot, this.#row, 0);
      this.#pushEmpty(magazine);
      if (VERIFY) faultPoint(this.#thread, 'vmem.magazine.drained');
      this.#thread.commit();
    }
    this.#trimEmpty(0);
  }

  /** Empties all magazines of the depot into slabs and gives them to the pool. */
  drainDepot(): void {
    for (let full = this.#caches.fullHead.get(this.#row); full !== 0; full = this.#caches.fullHead.get(this.#row)) {
      this.#thread.journal.set(this.#caches.fullHead, this.#row, this.#magazines.next.get(full - 1));
      this.#thread.journal.set(this.#caches.fullCount, this.#row, this.#caches.fullCount.get(this.#row) - 1);
      this.#empty(full - 1);
      this.#pushEmpty(full - 1);
      if (VERIFY) faultPoint(this.#thread, 'vmem.depot.drained');
      this.#thread.commit();
    }
    this.#trimEmpty(0);
  }

  /** Puts the object that a slot was taking back into its slab, if it has taken it and no magazine has it yet. */
  settlePending(slot: SlotIndex): void {
    const pending = this.#slots.pending.at(slot, this.#row) - 1;
    if (pending < 0) return;
    const state = this.#slabs.object.at(pending >> OBJECT_SLAB_SHIFT, pending & OBJECT_POSITION_MASK);
    if (state === beingFreedBy(slot)) this.#store.putObject(this.#row, pending);
    this.#thread.journal.setAt(this.#slots.pending, slot, this.#row, 0);
  }

  /** A magazine that a slot gives away: to the list of full ones, or to the empty ones after its objects went to slabs. */
  #giveFull(magazine: number): void {
    const { journal } = this.#thread;
    const row = this.#row;
    if (this.#caches.fullCount.get(row) >= FULL_KEPT) {
      this.#empty(magazine);
      this.#pushEmpty(magazine);
      return;
    }
    journal.set(this.#magazines.next, magazine, this.#caches.fullHead.get(row));
    journal.set(this.#caches.fullHead, row, magazine + 1);
    journal.set(this.#caches.fullCount, row, this.#caches.fullCount.get(row) + 1);
  }

  #empty(magazine: number): void {
    const count = this.#magazines.count.get(magazine);
    for (let i = 0; i < count; i++) this.#store.putObject(this.#row, this.#magazines.objects.at(magazine, i));
    this.#thread.journal.set(this.#magazines.count, magazine, 0);
  }

  #pushEmpty(magazine: number): void {
    this.#thread.journal.set(this.#magazines.next, magazine, this.#caches.emptyHead.get(this.#row));
    this.#thread.journal.set(this.#caches.emptyHead, this.#row, magazine + 1);
  }

  #popEmpty(): number {
    const magazine = this.#caches.emptyHead.get(this.#row) - 1;
    this.#thread.journal.set(this.#caches.emptyHead, this.#row, this.#magazines.next.get(magazine));
    return magazine;
  }

  /** Sees to it that the depot has an empty magazine, from the pool if need be. Nothing is logged yet. */
  #ensureEmpty(): boolean {
    if (this.#caches.emptyHead.get(this.#row) !== 0) return true;
    const { journal } = this.#thread;
    const pool = this.#pool;
    this.#poolLock.enter();
    let magazine = pool.magazineHead.get(0) - 1;
    if (magazine >= 0) journal.set(pool.magazineHead, 0, this.#magazines.next.get(magazine));
    else if (pool.magazineFresh.get(0) < this.#magazines.rowCount) {
      magazine = pool.magazineFresh.get(0);
      journal.set(pool.magazineFresh, 0, magazine + 1);
    }
    // One transaction moves it from the pool to the depot: the pool's lock commits it.
    if (magazine >= 0) this.#pushEmpty(magazine);
    if (VERIFY) faultPoint(this.#thread, 'vmem.magazine.fresh');
    this.#poolLock.exit();
    return magazine >= 0;
  }

  /** Gives empty magazines above a number back to the pool. Nothing is logged yet. */
  #trimEmpty(kept: number): void {
    const { journal } = this.#thread;
    let seen = 0;
    for (let at = this.#caches.emptyHead.get(this.#row); at !== 0; at = this.#magazines.next.get(at - 1)) seen++;
    this.#poolLock.enter();
    for (; seen > kept; seen--) {
      const magazine = this.#popEmpty();
      journal.set(this.#magazines.next, magazine, this.#pool.magazineHead.get(0));
      journal.set(this.#pool.magazineHead, 0, magazine + 1);
      if (VERIFY) faultPoint(this.#thread, 'vmem.magazine.given');
      this.#thread.commit();
    }
    this.#poolLock.exit();
  }
}
