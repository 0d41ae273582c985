/**
 * The undo journal of one slot.
 *
 * PROBLEM     A thread may be terminated between any two stores of a critical section, leaving a structure half changed.
 * STRUCTURE   Under a lock, every store to a shared column goes through `set`, which first writes down where and what
 *             was there. Releasing the lock commits: the length goes back to what it was when the lock was taken.
 *
 *               entry 0 | entry 1 | ... | entry length-1     undone from right to left by the takeover
 *               ^ mark of the outer lock
 *                         ^ mark of the inner lock
 *
 * INVARIANTS  I1 an entry is complete before the length covers it, and the length covers it before the store happens.
 *             I2 an inner lock commits only while no outer section has entries: otherwise an undo of the outer section
 *             could bring back words that the inner one has changed for good.
 *             I3 a critical section logs no more stores than the journal holds.
 * LOCKING     Written by its slot; read by the takeover after the slot's thread has ended.
 * COSTS       Two stores and a length: 20 journaled stores under a lock cost about 50 ns more than plain ones.
 * FAILURE     `InvariantError` for a section that is too long: a bound on the code, which tests must keep.
 * REJECTED    Rebuilding structures from primary facts after a death: every structure would need its own proof.
 * REFERENCES  Undo logging as in database recovery; docs/glossary.md: journal, takeover.
 */

import { InvariantError } from '../base/errors.ts';
import type { Float64Column, Int32Column } from '../layout/column.ts';
import type { Region } from '../layout/region.ts';

/** Lane of the count of entries; entry `i` is in lane `i + 1`. */
const COUNT = 0;

/** Writes this slot's journal. */
export class Journal {
  private readonly entries: Int32Array;
  private readonly olds: Float64Array;
  private readonly entriesMax: number;

  constructor(region: Region, slot: number) {
    const { entries, olds } = region.tables.journal;
    // Windows of this slot alone: the hot path then adds no row offset.
    this.entries = entries.view.subarray(slot * entries.stride, (slot + 1) * entries.stride);
    this.olds = olds.view.subarray(slot * olds.stride, (slot + 1) * olds.stride);
    this.entriesMax = region.geometry.journalLanes - 1;
  }

  /** Entries that a takeover would undo. */
  get length(): number {
    return this.entries[COUNT] as number;
  }

  /** Stores a 32-bit value that a takeover can undo. */
  set(column: Int32Column, row: number, value: number): void {
    const index = row * column.stride;
    const { view } = column;
    const { entries } = this;
    const count = entries[COUNT] as number;
    if (count === this.entriesMax) this.overflow();
    this.olds[count] = view[index] as number;
    entries[count + 1] = column.base + index;
    entries[COUNT] = count + 1;
    view[index] = value;
  }

  /** Stores into one lane of a row, like `set`. */
  setAt(column: Int32Column, row: number, lane: number, value: number): void {
    const index = row * column.stride + lane;
    const { view } = column;
    const { entries } = this;
    const count = entries[COUNT] as number;
    if (count === this.entriesMax) this.overflow();
    this.olds[count] = view[index] as number;
    entries[count + 1] = column.base + index;
    entries[COUNT] = count + 1;
    view[index] = value;
  }

  /** Stores a double that a takeover can undo. */
  setDouble(column: Float64Column, row: number, value: number): void {
    const index = row * column.stride;
    const { view } = column;
    const { entries } = this;
    const count = entries[COUNT] as number;
    if (count === this.entriesMax) this.overflow();
    this.olds[count] = view[index] as number;
    entries[count + 1] = -1 - (column.base + index);
    entries[COUNT] = count + 1;
    view[index] = value;
  }

  /** Makes everything since `mark` final: 0 for all of it. The structure must be consistent here. */
  commit(mark = 0): void {
    this.entries[COUNT] = mark;
  }

  private overflow(): never {
    throw new InvariantError('sync/journal I3', `a critical section logged more than ${this.entriesMax} stores`);
  }
}

/** Undoes the journal of a slot whose thread has ended, newest entry first. Returns how many stores were undone. */
export function undoJournal(region: Region, slot: number): number {
  const { entries, olds } = region.tables.journal;
  const count = entries.at(slot, COUNT);
  for (let entry = count - 1; entry >= 0; entry--) {
    const address = entries.at(slot, entry + 1);
    const old = olds.at(slot, entry);
    if (address >= 0) region.words[address] = old;
    else region.doubles[-1 - address] = old;
    entries.putAt(slot, COUNT, entry);
  }
  return count;
}

/** Empties the journal of a slot whose takeover is complete. */
export function clearJournal(region: Region, slot: number): void {
  region.tables.journal.entries.putAt(slot, COUNT, 0);
}
