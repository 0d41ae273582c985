/**
 * The undo journal of one slot.
 *
 * PROBLEM     A thread may be terminated between any two stores of a critical section, leaving a structure half changed.
 * STRUCTURE   Under a lock, every shared word is written down before it is first changed: where it is and what it held.
 *             Releasing the lock commits: the length goes back to what it was when the lock was taken.
 *
 *               word    | old | address |                 read from the right: an address is not negative,
 *               range   | old 0 | ... | old n-1 | address | -n |                    a count of words is.
 *
 *               length | entry | entry | ... | entry      undone from right to left by the takeover
 *                        ^ mark of the outer lock
 *                                ^ mark of the inner lock
 *
 *             `set` writes down and stores one value. `log1`, `log2`, `log3`, `log7Marking`, `log8`, `log7MarkingAnd8` and
 *             `logRange` only write down: hot code that knows what it is about to change logs it in one go and then uses plain stores.
 * INVARIANTS  I1 an entry is complete before the length covers it, and the length covers it before the store happens.
 *             I2 an inner lock commits only while no outer section has entries: otherwise an undo of the outer section
 *             could bring back words that the inner one has changed for good.
 *             I3 a critical section logs no more words than the journal holds.
 * LOCKING     Written by its slot; read by the takeover after the slot's thread has ended.
 * COSTS       Two stores a word and one for the length of each call. Doubles are logged as two words: copying them as
 *             doubles could change the bits of what is not a number.
 * FAILURE     `InvariantError` for a section that is too long: a bound on the code, which tests must keep.
 * REJECTED    Rebuilding structures from primary facts after a death: every structure would need its own proof. Old
 *             values as doubles in an array beside the addresses: a second array costs more than the wider words.
 * REFERENCES  Undo logging as in database recovery; docs/glossary.md: journal, takeover.
 */

import { InvariantError } from '../base/errors.ts';
import type { Float64Column, Int32Column } from '../layout/column.ts';
import type { Region } from '../layout/region.ts';

/** Lane of the length in words; the entries follow it. */
const LENGTH = 0;

/** Writes this slot's journal. */
export class Journal {
  private readonly words: Int32Array;
  private readonly log: Int32Array;
  private readonly lengthMax: number;

  constructor(region: Region, slot: number) {
    const { entries } = region.tables.journal;
    this.words = region.words;
    // A window of this slot alone: the hot path then adds no row offset.
    this.log = entries.view.subarray(slot * entries.stride, slot * entries.stride + region.geometry.journalLanes);
    this.lengthMax = region.geometry.journalLanes - 1;
  }

  /** Words of the entries that a takeover would undo. */
  get length(): number {
    return this.log[LENGTH] as number;
  }

  /** Stores a 32-bit value that a takeover can undo. */
  set(column: Int32Column, row: number, value: number): void {
    const index = row * column.stride;
    this.log1(column.base + index);
    column.view[index] = value;
  }

  /** Stores into one lane of a row, like `set`. */
  setAt(column: Int32Column, row: number, lane: number, value: number): void {
    const index = row * column.stride + lane;
    this.log1(column.base + index);
    column.view[index] = value;
  }

  /** Stores a double that a takeover can undo. */
  setDouble(column: Float64Column, row: number, value: number): void {
    const index = row * column.stride;
    this.logRange((column.base + index) * 2, 2);
    column.view[index] = value;
  }

  /** The same for one lane. */
  setDoubleAt(column: Float64Column, row: number, lane: number, value: number): void {
    const index = row * column.stride + lane;
    this.logRange((column.base + index) * 2, 2);
    column.view[index] = value;
  }

  /** Writes down the word at an address of the region, which may then be changed by a plain store. */
  log1(address: number): void {
    const { log, words } = this;
    const length = log[LENGTH] as number;
    if (length + 2 > this.lengthMax) this.overflow();
    log[length + 1] = words[address] as number;
    log[length + 2] = address;
    log[LENGTH] = length + 2;
  }

  /** Writes down two words, like `log1`. */
  log2(first: number, second: number): void {
    const { log, words } = this;
    const length = log[LENGTH] as number;
    if (length + 4 > this.lengthMax) this.overflow();
    log[length + 1] = words[first] as number;
    log[length + 2] = first;
    log[length + 3] = words[second] as number;
    log[length + 4] = second;
    log[LENGTH] = length + 4;
  }

  /** Writes down three words, like `log1`. */
  log3(first: number, second: number, third: number): void {
    const { log, words } = this;
    const length = log[LENGTH] as number;
    if (length + 6 > this.lengthMax) this.overflow();
    log[length + 1] = words[first] as number;
    log[length + 2] = first;
    log[length + 3] = words[second] as number;
    log[length + 4] = second;
    log[length + 5] = words[third] as number;
    log[length + 6] = third;
    log[LENGTH] = length + 6;
  }

  /** Writes down the eight words from an address on, like `log1`. */
  log8(address: number): void {
    const { log, words } = this;
    const length = log[LENGTH] as number;
    const end = length + 10;
    if (end > this.lengthMax) this.overflow();
    let at = address;
    log[length + 1] = words[at++] as number;
    log[length + 2] = words[at++] as number;
    log[length + 3] = words[at++] as number;
    log[length + 4] = words[at++] as number;
    log[length + 5] = words[at++] as number;
    log[length + 6] = words[at++] as number;
    log[length + 7] = words[at++] as number;
    log[length + 8] = words[at++] as number;
    log[length + 9] = address;
    log[end] = -8;
    log[LENGTH] = end;
  }

  /**
   * Writes down the seven words from an address on, like `log1`, but of the sixth that it held 1, whatever it does: an undo
   * leaves a 1 there, which tells whoever comes next to make anew what was changed in this section without being logged.
   */
  log7Marking(address: number): void {
    const { log, words } = this;
    const length = log[LENGTH] as number;
    const end = length + 9;
    if (end > this.lengthMax) this.overflow();
    let at = address;
    log[length + 1] = words[at++] as number;
    log[length + 2] = words[at++] as number;
    log[length + 3] = words[at++] as number;
    log[length + 4] = words[at++] as number;
    log[length + 5] = words[at++] as number;
    log[length + 6] = 1;
    log[length + 7] = words[++at] as number;
    log[length + 8] = address;
    log[end] = -7;
    log[LENGTH] = end;
  }

  /**
   * `log7Marking(marked)` and `log8(record)`. At the start of a section the
   * entries have fixed places, which needs fewer instructions: 392 instead of 417 ns for a pair of alloc and free.
   */
  log7MarkingAnd8(marked: number, record: number): void {
    const { log, words } = this;
    if (log[LENGTH] !== 0) {
      this.log7Marking(marked);
      this.log8(record);
      return;
    }
    let at = marked;
    log[1] = words[at++] as number;
    log[2] = words[at++] as number;
    log[3] = words[at++] as number;
    log[4] = words[at++] as number;
    log[5] = words[at++] as number;
    log[6] = 1;
    log[7] = words[++at] as number;
    log[8] = marked;
    log[9] = -7;
    at = record;
    log[10] = words[at++] as number;
    log[11] = words[at++] as number;
    log[12] = words[at++] as number;
    log[13] = words[at++] as number;
    log[14] = words[at++] as number;
    log[15] = words[at++] as number;
    log[16] = words[at++] as number;
    log[17] = words[at] as number;
    log[18] = record;
    log[19] = -8;
    log[LENGTH] = 19;
  }

  /** Writes down `count` words from an address on, like `log1`. */
  logRange(address: number, count: number): void {
    const { log, words } = this;
    const length = log[LENGTH] as number;
    const end = length + count + 2;
    if (end > this.lengthMax) this.overflow();
    for (let word = 0; word < count; word++) log[length + 1 + word] = words[address + word] as number;
    log[end - 1] = address;
    log[end] = -count;
    log[LENGTH] = end;
  }

  /** Makes everything since `mark` final: 0 for all of it. The structure must be consistent here. */
  commit(mark = 0): void {
    this.log[LENGTH] = mark;
  }

  private overflow(): never {
    throw new InvariantError('sync/journal I3', `a critical section logged more than ${this.lengthMax} words`);
  }
}

/** Undoes the journal of a slot whose thread has ended, newest entry first. Returns how many entries were undone. */
export function undoJournal(region: Region, slot: number): number {
  const { entries } = region.tables.journal;
  const { words } = region;
  const top = entries.address(slot, LENGTH);
  let undone = 0;
  for (let length = words[top] as number; length > 0; undone++) {
    const last = words[top + length] as number;
    const count = last < 0 ? -last : 1;
    const first = last < 0 ? length - 1 - count : length - 1;
    const address = last < 0 ? (words[top + length - 1] as number) : last;
    for (let word = 0; word < count; word++) words[address + word] = words[top + first + word] as number;
    length = first - 1;
    words[top] = length;
  }
  return undone;
}

/** Empties the journal of a slot whose takeover is complete. */
export function clearJournal(region: Region, slot: number): void {
  region.tables.journal.entries.putAt(slot, LENGTH, 0);
}
