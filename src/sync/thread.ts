/**
 * A thread's attachment to a region: its slot, its journal, and the records that let others clean up after it.
 *
 * PROBLEM     A thread that is terminated says nothing. Whoever cleans up must find in shared memory which locks it
 *             held, what it had half changed, and what it was waiting for.
 * STRUCTURE   One row of the slot table:
 *
 *               claim | waitAddress | waitToken | count of held locks, (address, kind, journal mark, detail)[] | journal
 *
 *             A held-lock record is written before the lock is taken and removed after it was given back. It says
 *             "maybe": the lock word itself names its owner, so a record for a lock that was never taken is harmless.
 *             The detail is the condition whose signal brought the slot under this mutex, or the nesting of a shared hold.
 * INVARIANTS  I1 every lock that the slot owns has a record.  I2 while the slot sleeps, waitAddress names the word.
 *             I3 ranks of records that waited ascend (verify builds).
 *             I4 whoever was woken has a record of what woke it until it acted on it, so that a takeover can pass it on.
 * LOCKING     W: only this thread writes its row while it lives; the takeover reads it afterwards.
 * COSTS       Four plain stores for a record.
 * FAILURE     `EINVAL` when more locks are held than there is room for; `EPOISONED` when a wait finds the region poisoned.
 * REJECTED    A list threaded through the locks: its links would need recovery themselves.
 * REFERENCES  Robust futexes of Linux (list of held locks, owner in the word).
 */

import { fail, InvariantError, VmError } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { WordAddress } from '../layout/column.ts';
import type { BoundTables, Region } from '../layout/region.ts';
import { load, store } from './atomics.ts';
import { Clock } from './clock.ts';
import { Journal } from './journal.ts';
import { RANK } from './ranks.ts';

/**
 * One thread's stay in a slot: slot + 1 in the low 7 bits, the slot's generation above. Never 0, and not used again before
 * the slot was given out 2^24 times more. What a thread allocates bears it.
 */
export type Attachment = number & { readonly __unit?: 'attachment' };

/** The slot of an attachment. */
export function slotOfAttachment(attachment: Attachment): SlotIndex {
  return (attachment & ATTACHMENT_SLOT) - 1;
}

/** Which of its slot's generations an attachment is. */
export function generationOfAttachment(attachment: Attachment): number {
  return Math.floor(attachment / (ATTACHMENT_SLOT + 1));
}

/** True while the thread is attached, or is being cleaned up after. */
export function isAttached(region: Region, attachment: Attachment): boolean {
  const { slot: slots } = region.tables;
  const slot = slotOfAttachment(attachment);
  if (slot < 0 || slot >= slots.rowCount || load(region.words, slots.claim.address(slot)) === 0) return false;
  return attachmentOf(load(region.words, slots.generation.address(slot)), slot) === attachment;
}

function attachmentOf(generation: number, slot: SlotIndex): Attachment {
  return (generation & ATTACHMENT_GENERATIONS) * (ATTACHMENT_SLOT + 1) + slot + 1;
}

const ATTACHMENT_SLOT = 0x7f;
const ATTACHMENT_GENERATIONS = 0xffffff;

/** Number of a slot, from 0. */
export type SlotIndex = number & { readonly __unit?: 'slot' };

/** `HELD_KIND.exclusive` by itself, for code that runs at every lock: bundlers fold numbers, not fields. */
export const HELD_EXCLUSIVE = 1;

/** What a held-lock record stands for. */
export const HELD_KIND = {
  /** A mutex, or the exclusive side of a readers/writer lock. */
  exclusive: HELD_EXCLUSIVE,
  /** A shared hold: the slot's bit in the words behind the lock word. */
  shared: 2,
} as const;

const LANE_COUNT = 0;
const LANE_FIRST = 1;
const LANE_ADDRESS = 0;
const LANE_KIND = 1;
const LANE_MARK = 2;
const LANE_DETAIL = 3;
const LANE_SIZE = 4;

/** Lanes of a slot's held-lock records: a count, then records of four lanes. The kind's lane holds the rank as well. */
export const HELD_LANE = {
  count: LANE_COUNT,
  first: LANE_FIRST,
  address: LANE_ADDRESS,
  kind: LANE_KIND,
  mark: LANE_MARK,
  detail: LANE_DETAIL,
  size: LANE_SIZE,
} as const;

/** Bits of a record's kind; the rank lies above them. */
export const HELD_KIND_MASK = 3;
const RANK_SHIFT = 2;

/** What is private to one attached thread. */
export class Thread {
  readonly region: Region;
  readonly words: Int32Array;
  readonly slot: SlotIndex;
  /** The slot as lock words store it: slot + 1. */
  readonly tag: number;
  /** What this thread's allocations bear. */
  readonly attachment: Attachment;
  /** Which word of a row of slot bits holds this slot's. */
  readonly bitLane: number;
  /** This slot's bit in that word. */
  readonly bit: number;
  readonly spinLimit: number;
  /** Longest single sleep, in milliseconds: see sleep.ts. */
  readonly sliceMs: number;
  readonly journal: Journal;
  readonly clock: Clock;
  private isEnded = false;
  private readonly held: Int32Array;
  private readonly slots: BoundTables['slot'];
  private readonly poisonAddress: WordAddress;

  constructor(region: Region, slot: SlotIndex, sliceMs = 1000) {
    this.region = region;
    this.words = region.words;
    this.slot = slot;
    this.tag = slot + 1;
    // While the slot is ours nobody changes its generation.
    this.attachment = attachmentOf(region.tables.slot.generation.get(slot), slot);
    this.bitLane = slot >>> 5;
    this.bit = 1 << (slot & 31);
    this.spinLimit = region.tables.header.spinLimit.get(0);
    this.sliceMs = sliceMs;
    this.journal = new Journal(region, slot);
    this.clock = new Clock(region);
    const { held } = region.tables.slot;
    const heldLanes = region.geometry.heldLanes;
    this.held = held.view.subarray(slot * held.stride, slot * held.stride + heldLanes);
    this.slots = region.tables.slot;
    this.poisonAddress = region.tables.header.poison.address(0);
  }

  /** True after `end`: the slot belongs to somebody else, or will. */
  get ended(): boolean {
    return this.isEnded;
  }

  /** Says that the slot was given back: from here on every entry of a lock throws `ESTALE`. */
  end(): void {
    this.isEnded = true;
  }

  /** Throws `ESTALE`: the thread has detached. */
  failEnded(): never {
    throw new VmError('ESTALE', `this thread has detached from the system; its slot ${this.slot} is no longer its own`);
  }

  /** Locks that this slot holds or is about to take. */
  get heldCount(): number {
    return this.held[LANE_COUNT] as number;
  }

  /** Writes the record of a lock that is about to be taken; `waits` says whether the caller may sleep for it. */
  pushHeld(address: WordAddress, kind: number, rank: number, waits: boolean): void {
    if (this.isEnded) this.failEnded();
    const { held } = this;
    const depth = held[LANE_COUNT] as number;
    const lane = LANE_FIRST + depth * LANE_SIZE;
    if (lane === held.length) this.failTooDeep(address);
    if (VERIFY && waits) this.checkRank(address, rank, depth);
    held[lane + LANE_ADDRESS] = address;
    held[lane + LANE_KIND] = kind | (rank << RANK_SHIFT);
    held[lane + LANE_MARK] = this.journal.length;
    held[lane + LANE_DETAIL] = 0;
    held[LANE_COUNT] = depth + 1;
  }

  /** Index of the record of a lock, newest first, or -1 when the slot does not hold it in this way. */
  heldRecord(address: WordAddress, kind: number): number {
    const { held } = this;
    for (let record = (held[LANE_COUNT] as number) - 1; record >= 0; record--) {
      const lane = LANE_FIRST + record * LANE_SIZE;
      if (held[lane] === address && ((held[lane + LANE_KIND] as number) & HELD_KIND_MASK) === kind) return record;
    }
    return -1;
  }

  /** Like `heldRecord`, but throws `EINVAL` when the slot does not hold the lock. */
  findHeld(address: WordAddress, kind: number, call: string): number {
    const record = this.heldRecord(address, kind);
    if (record < 0) fail('EINVAL', call, { lock: address, slot: this.slot }, 'this slot does not hold the lock');
    return record;
  }

  /** The detail of a record: a condition's address + 1 for a mutex, the nesting of a shared hold. */
  heldDetail(record: number): number {
    return this.held[LANE_FIRST + record * LANE_SIZE + LANE_DETAIL] as number;
  }

  /** Changes the detail of a record. */
  setHeldDetail(record: number, detail: number): void {
    this.held[LANE_FIRST + record * LANE_SIZE + LANE_DETAIL] = detail;
  }

  /** Commits what was journaled since the record's lock was taken. */
  commitHeld(record: number): void {
    const mark = this.held[LANE_FIRST + record * LANE_SIZE + LANE_MARK] as number;
    const { journal } = this;
    if (journal.length === mark) return;
    if (VERIFY && mark !== 0) this.failCommitOver(record, mark);
    journal.commit(mark);
    // Locks taken later and given back later must not keep a mark beyond the journal's end.
    if (record < this.heldCount - 1) this.lowerMarks(record + 1, mark);
  }

  /**
   * Commits what was journaled since the newest record's lock was taken; false, with nothing done, when that is another lock.
   * Nearly every exit is that of the lock taken last, and needs neither a search nor a look at other marks.
   */
  commitNewest(address: WordAddress, kind: number): boolean {
    const { held, journal } = this;
    const count = held[LANE_COUNT] as number;
    if (count === 0) return false;
    const lane = count * LANE_SIZE + (LANE_FIRST - LANE_SIZE);
    if (held[lane] !== address || ((held[lane + LANE_KIND] as number) & HELD_KIND_MASK) !== kind) return false;
    const mark = held[lane + LANE_MARK] as number;
    if (VERIFY && mark !== 0 && journal.length !== mark) this.failCommitOver(count - 1, mark);
    journal.commit(mark);
    return true;
  }

  /** Removes the newest record after its lock was given back. */
  dropNewest(): void {
    this.held[LANE_COUNT] = (this.held[LANE_COUNT] as number) - 1;
  }

  /** Makes everything journaled so far final, in the middle of a critical section. The structure must be consistent. */
  commit(): void {
    this.journal.commit(0);
    this.lowerMarks(0, 0);
  }

  /** Removes a record after its lock was given back. */
  dropHeld(record: number): void {
    const { held } = this;
    const last = (held[LANE_COUNT] as number) - 1;
    if (record !== last) {
      // Copying down leaves a record twice for a moment, never missing: the count still covers the last one.
      // Threads are terminated at calls and loops, not inside the copy.
      const lane = LANE_FIRST + record * LANE_SIZE;
      held.copyWithin(lane, lane + LANE_SIZE, LANE_FIRST + (last + 1) * LANE_SIZE);
    }
    held[LANE_COUNT] = last;
  }

  /** Publishes the word that this slot is about to sleep on. */
  publishWait(address: WordAddress): void {
    this.slots.waitAddress.put(this.slot, address + 1);
  }

  /** Publishes the cancel token that can end the sleep (its number + 1). An atomic store: cancellers look for it. */
  publishToken(token: number): void {
    store(this.words, this.slots.waitToken.address(this.slot), token);
  }

  /** Takes both publications back. */
  clearWait(): void {
    this.slots.waitAddress.put(this.slot, 0);
    if (this.slots.waitToken.get(this.slot) !== 0) this.publishToken(0);
  }

  /** Counts an entry that met another owner. */
  countContended(): void {
    const column = this.slots.contended;
    column.put(this.slot, column.get(this.slot) + 1);
  }

  /** Counts a sleep. */
  countSlept(): void {
    const column = this.slots.slept;
    column.put(this.slot, column.get(this.slot) + 1);
  }

  /** Throws `EPOISONED` when some thread found the region broken. */
  checkPoison(): void {
    if (load(this.words, this.poisonAddress) !== 0) this.failPoisoned();
  }

  private failCommitOver(record: number, mark: number): never {
    throw new InvariantError('sync/journal I2', `lock record ${record} commits over ${mark} entries of an outer lock`);
  }

  private lowerMarks(fromRecord: number, mark: number): void {
    for (let record = fromRecord; record < this.heldCount; record++) {
      this.held[LANE_FIRST + record * LANE_SIZE + LANE_MARK] = mark;
    }
  }

  private failPoisoned(): never {
    throw new VmError('EPOISONED', `the region is poisoned: ${this.region.tables.header.poisonText.text(0)}`);
  }

  private failTooDeep(address: WordAddress): never {
    const room = (this.held.length - LANE_FIRST) / LANE_SIZE;
    fail('EINVAL', 'enter', { lock: address, slot: this.slot }, `a slot holds at most ${room} locks at a time`);
  }

  private checkRank(address: WordAddress, rank: number, depth: number): void {
    for (let record = 0; record < depth; record++) {
      const lane = LANE_FIRST + record * LANE_SIZE;
      const heldRank = (this.held[lane + LANE_KIND] as number) >> RANK_SHIFT;
      const heldAddress = this.held[lane + LANE_ADDRESS] as number;
      const nextPage = rank === RANK.page && heldRank === rank && heldAddress < address;
      const user = rank === RANK.user && heldRank === rank;
      if (heldRank >= rank && !nextPage && !user && heldAddress !== address) {
        throw new InvariantError('sync/thread I3', `rank ${rank} is entered while rank ${heldRank} is held`);
      }
    }
  }
}
