/**
 * Pins: which slot keeps which cached range active.
 *
 * PROBLEM     A count of pins in the entry says that somebody uses it, not who: after a thread died, its share must be taken
 *             back. And whoever releases must be known to have pinned.
 * STRUCTURE   A row per pin names its entry and its slot. Rows that are not in use are listed per slot, so that a hit takes
 *             one without a lock; slots refill from a pool.
 *
 *               handle = generation | row        generation + 1 at each pin: an old handle is not mistaken for a new one
 *
 * INVARIANTS  I1 `active` of an entry counts the rows that name it.   I2 a row in use names a live entry.
 *             I3 a row that is not in use is on the list of its slot or in the pool.
 * LOCKING     A row in use is guarded by the bucket of its entry; the list of a slot is its own (W), but changed under the
 *             bucket's lock and journaled, so that a hit happens as a whole; the pool is under the cache's lock.
 * COSTS       Two words logged to pin, two to release; 16 bytes a pin.
 * FAILURE     `ensure` is false when no row is left. `EINVAL` for a handle that is not in use.
 * REJECTED    Counts per slot and entry: a matrix. A list per entry: hits on one entry would chase it.
 * REFERENCES  docs/glossary.md: pin.
 */

import { assert } from '../base/assert.ts';
import { ceilPowerOfTwo, failMisuse, log2Floor } from '../base/index.ts';
import type { BoundTables } from '../layout/region.ts';
import { Mutex, RANK, type SlotIndex, type Thread } from '../sync/index.ts';
import type { EntryIndex, Pin } from './pagelock-kinds.ts';

/** Rows that a slot takes from the pool at a time. */
const REFILL_ROWS = 32;

/** Bits of a handle: small integers are what hot code is fast with. */
const HANDLE_BITS = 30;

/** One thread's view of all pins. */
export class CachePins {
  readonly #thread: Thread;
  readonly #rows: BoundTables['pagelockPin'];
  readonly #slots: BoundTables['pagelockSlot'];
  readonly #control: BoundTables['pagelock'];
  readonly #lock: Mutex;
  readonly #rowCount: number;
  readonly #rowBits: number;
  readonly #rowMask: number;
  readonly #generationMask: number;
  /** Where the fields lie that hits touch, in the region's words. */
  readonly #words: Int32Array;
  readonly #stride: number;
  readonly #entryAt: number;
  readonly #nextAt: number;
  readonly #slotAt: number;
  readonly #generationAt: number;
  readonly #headAt: number;

  constructor(thread: Thread) {
    const { tables } = thread.region;
    this.#thread = thread;
    this.#rows = tables.pagelockPin;
    this.#slots = tables.pagelockSlot;
    this.#control = tables.pagelock;
    this.#lock = new Mutex(thread, this.#control.lock.address(0), RANK.pagelock);
    this.#words = thread.words;
    this.#rowCount = this.#rows.rowCount;
    this.#stride = this.#rows.entry.stride;
    this.#entryAt = this.#rows.entry.base;
    this.#nextAt = this.#rows.next.base;
    this.#slotAt = this.#rows.slot.base;
    this.#generationAt = this.#rows.generation.base;
    this.#headAt = this.#slots.pinHead.address(thread.slot);
    this.#rowBits = log2Floor(ceilPowerOfTwo(Math.max(2, this.#rows.rowCount)));
    this.#rowMask = 2 ** this.#rowBits - 1;
    this.#generationMask = 2 ** (HANDLE_BITS - this.#rowBits) - 1;
  }

  /** Makes sure that `take` finds a row; false when there is none. No lock of the cache may be held. */
  ensure(): boolean {
    return this.#words[this.#headAt] !== 0 || this.#refill();
  }

  /**
   * Journaled: the handle of a pin on an entry. Needs the lock of the entry's bucket, and `ensure` before it. Logs the word at
   * `also`, which the caller is about to change too.
   */
  take(entry: EntryIndex, also: number): Pin {
    const words = this.#words;
    const row = (words[this.#headAt] as number) - 1;
    const at = row * this.#stride;
    this.#thread.journal.log3(also, this.#headAt, this.#entryAt + at);
    // Not logged: a generation that no handle has seen is left out, and that is all.
    const generation = ((words[this.#generationAt + at] as number) + 1) & this.#generationMask;
    words[this.#generationAt + at] = generation;
    words[this.#entryAt + at] = entry + 1;
    words[this.#headAt] = words[this.#nextAt + at] as number;
    return (generation << this.#rowBits) | row;
  }

  /**
   * Journaled: takes a pin back. Needs the lock of the entry's bucket. Logs the word at `also`, which the caller is about to
   * change too. The link of a row in use means nothing, so it is not logged.
   */
  give(row: number, also: number): void {
    const words = this.#words;
    const at = row * this.#stride;
    const { journal, tag } = this.#thread;
    journal.log3(also, this.#headAt, this.#entryAt + at);
    words[this.#entryAt + at] = 0;
    if (words[this.#slotAt + at] !== tag) {
      journal.log1(this.#slotAt + at);
      words[this.#slotAt + at] = tag;
    }
    words[this.#nextAt + at] = words[this.#headAt] as number;
    words[this.#headAt] = row + 1;
  }

  /** Row of what may be a handle: under the lock of its entry's bucket, `isCurrent` says whether it is one. Else like `rowOf`. */
  likelyRowOf(pin: Pin, call: string): number {
    const row = typeof pin === 'number' ? pin & this.#rowMask : this.#rowCount;
    if (row >= this.#rowCount || this.#words[this.#entryAt + row * this.#stride] === 0) this.rowOf(pin, call);
    return row;
  }

  /** Row of a handle that is in use. Throws `EINVAL` naming the call. */
  rowOf(pin: Pin, call: string): number {
    const row = typeof pin === 'number' ? pin & this.#rowMask : this.#rowCount;
    if (row >= this.#rowCount || !this.#isLive(row, pin)) {
      failMisuse(call, { pin }, 'no such pin: never given out, or released already');
    }
    return row;
  }

  /** The entry that a row names, or -1. */
  entryOf(row: number): EntryIndex {
    return (this.#words[this.#entryAt + row * this.#stride] as number) - 1;
  }

  /** True while the handle of a row has not been released. Under the bucket's lock the answer lasts. */
  isCurrent(row: number, pin: Pin): boolean {
    return this.#isLive(row, pin);
  }

  /** Slot that a row belongs to. */
  slotOf(row: number): SlotIndex {
    return this.#rows.slot.get(row) - 1;
  }

  /** Handles of all pins of a slot. Looks at every row that was ever used. */
  pinsOf(slot: SlotIndex): Pin[] {
    const found: Pin[] = [];
    const end = this.#control.pinFresh.get(0);
    for (let row = 0; row < end; row++) {
      if (this.#rows.slot.get(row) === slot + 1 && this.#rows.entry.get(row) !== 0) found.push(this.#handle(row));
    }
    return found;
  }

  /** Slots that have pinned entries of a kind. Looks at every row that was ever used. */
  slotsOf(isMeant: (entry: EntryIndex) => boolean): SlotIndex[] {
    const found = new Set<SlotIndex>();
    const end = this.#control.pinFresh.get(0);
    for (let row = 0; row < end; row++) {
      const entry = this.entryOf(row);
      if (entry >= 0 && isMeant(entry)) found.add(this.slotOf(row));
    }
    return [...found];
  }

  /** True when a slot other than this one has a pin. */
  othersPin(): boolean {
    const end = this.#control.pinFresh.get(0);
    for (let row = 0; row < end; row++) {
      if (this.#rows.entry.get(row) !== 0 && this.#rows.slot.get(row) !== this.#thread.tag) return true;
    }
    return false;
  }

  /** Counts the pins of each entry, for `check`. */
  countByEntry(): Map<EntryIndex, number> {
    const counts = new Map<EntryIndex, number>();
    const end = this.#control.pinFresh.get(0);
    for (let row = 0; row < end; row++) {
      const entry = this.entryOf(row);
      if (entry >= 0) counts.set(entry, (counts.get(entry) ?? 0) + 1);
    }
    return counts;
  }

  /** Rows that were ever used and are neither in use nor on one list, for `check`: I3. */
  lostRows(): string[] {
    const problems: string[] = [];
    const places = new Map<number, string>();
    const follow = (first: number, place: string) => {
      for (let link = first; link !== 0; link = this.#rows.next.get(link - 1)) {
        const before = places.get(link - 1) ?? (this.entryOf(link - 1) >= 0 ? 'in use' : undefined);
        if (before !== undefined) return problems.push(`pin ${link - 1} is ${place} and ${before}`);
        places.set(link - 1, place);
      }
      return 0;
    };
    follow(this.#control.pinHead.get(0), 'in the pool');
    for (let slot = 0; slot < this.#slots.rowCount; slot++)
      follow(this.#slots.pinHead.get(slot), `kept by slot ${slot}`);
    for (let row = 0; row < this.#control.pinFresh.get(0); row++) {
      if (this.entryOf(row) < 0 && !places.has(row)) problems.push(`pin ${row} is nowhere`);
    }
    return problems;
  }

  #handle(row: number): Pin {
    return (this.#rows.generation.get(row) << this.#rowBits) | row;
  }

  #isLive(row: number, pin: Pin): boolean {
    // A handle that is no such integer equals none.
    const at = row * this.#stride;
    const handle = ((this.#words[this.#generationAt + at] as number) << this.#rowBits) | row;
    return this.#words[this.#entryAt + at] !== 0 && handle === pin;
  }

  /** Rare: a slot without rows takes some from the pool, or rows that were never used. */
  #refill(): boolean {
    const { slot, tag, journal } = this.#thread;
    const { pinHead } = this.#slots;
    const { next, slot: slots, entry } = this.#rows;
    const control = this.#control;
    this.#lock.enter();
    let head = pinHead.get(slot);
    let pooled = control.pinHead.get(0);
    let fresh = control.pinFresh.get(0);
    for (let count = 0; count < REFILL_ROWS; count++) {
      let row = pooled - 1;
      if (row >= 0) pooled = next.get(row);
      else if (fresh < this.#rows.rowCount) row = fresh++;
      else break;
      assert(entry.get(row) === 0, 'seg/cache-pins I3: a pooled row is not in use');
      journal.set(next, row, head);
      journal.set(slots, row, tag);
      head = row + 1;
    }
    journal.set(control.pinHead, 0, pooled);
    journal.set(control.pinFresh, 0, fresh);
    journal.set(pinHead, slot, head);
    this.#lock.exit();
    return head !== 0;
  }
}
