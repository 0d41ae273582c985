/**
 * What named locks of every kind have in common: their row, whether a handle still means it, who waits, who died inside.
 *
 * PROBLEM     A lock that goes on after its holder has died must say so: what it guards may be half changed. And a row that is
 *             given back must not be confused with the lock that comes next there, nor while somebody is about to wait for it.
 * STRUCTURE   entry   1 take the lock   2 the row's generation is the handle's, or give the lock back: `ESTALE`
 *                     3 a holder is named: it died inside; its name moves to `abandonedBy`   4 own name into `holder`
 *                     5 `abandonedBy` is set: `repair` is called, or the lock given back: `EOWNERDEAD`
 *             exit    1 no holder   2 give the lock back
 *             wait    1 own bit among those who wait, unless a task of this slot has set it   2 the generation, as above
 * INVARIANTS  I1 a holder that is named while the lock is free, or somebody else's, died between steps 4 and 1.
 *             I2 `abandonedBy` is cleared only by a holder whose `repair` has returned.
 *             I3 whoever waits has set its bit before it looks at the generation; whoever removes changes the generation before
 *                it looks at the bits. So of the two at least one sees the other.
 * LOCKING     holder and abandonedBy under the named lock itself, by plain stores; the bits are atomic.
 * COSTS       Two plain stores and a few loads beside those of the lock: a sixth of an uncontended pair.
 * FAILURE     `ESTALE`, `EOWNERDEAD`, what `repair` throws: the lock is not held then. `EINVAL` for too many locks at a time.
 * REJECTED    A mark set by the takeover: it would be set for those too that had not begun, or were through.
 *             Handing the lock over in silence: programs would go on with what is half changed. Refusing it for ever, as
 *             `ENOTRECOVERABLE` does: somebody who knows how may come later.
 * REFERENCES  pthread_mutex_consistent(3); the poisoning of locks in Rust; .NET's AbandonedMutexException.
 */

import { fail, failMisuse, rejectUnknownOptions } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { WordAddress } from '../layout/column.ts';
import { LOCK_LANE } from '../layout/lock-tables.ts';
import type { BoundTables } from '../layout/region.ts';
import { and, load, or } from './atomics.ts';
import { faultPoint } from './fault.ts';
import { mutexEnter, mutexExit } from './mutex.ts';
import { RANK } from './ranks.ts';
import { HELD_LANE, type SlotIndex, slotOfAttachment, type Thread } from './thread.ts';

/** What a row of the registry holds. */
export const LOCK_KIND = { mutex: 1, rwlock: 2, condition: 3 } as const;

/** Kind of a named lock. */
export type LockKind = keyof typeof LOCK_KIND;

/** Of the locks that a slot can hold at a time, the part that is left to the system. */
const SYSTEM_PART = 2;

/** How a thread opens a named lock. */
export interface LockOptions {
  /**
   * Called under the lock, before an entry returns, when a thread has died inside the lock and nobody has repaired what it
   * left: `slot` is the one that it had. When it returns, the data counts as sound; when it throws, the entry throws that,
   * and holds nothing. Must not return a promise. Without it such entries throw `EOWNERDEAD`.
   */
  readonly repair?: (slot: SlotIndex) => void;
}

/** Waits of one thread, by row: event loops wait for many locks at a time, and for one several times. */
export class LockWaits {
  readonly #thread: Thread;
  readonly #counts = new Map<number, number>();

  constructor(thread: Thread) {
    this.#thread = thread;
  }

  /** Says that this slot waits. */
  begin(row: number): void {
    const count = this.#counts.get(row) ?? 0;
    this.#counts.set(row, count + 1);
    if (count === 0) or(this.#thread.words, this.#bits(row), this.#thread.bit);
    if (VERIFY) faultPoint(this.#thread, 'sync.locks.waiting');
  }

  /** Says that a wait is over. */
  end(row: number): void {
    const count = this.#counts.get(row) ?? 0;
    if (count > 1) {
      this.#counts.set(row, count - 1);
      return;
    }
    this.#counts.delete(row);
    // After a detach the bit may be another thread's.
    if (count === 1 && !this.#thread.ended) and(this.#thread.words, this.#bits(row), ~this.#thread.bit);
  }

  /** For a thread that detaches: what it waits for counts no more. */
  endAll(): void {
    for (const row of this.#counts.keys()) and(this.#thread.words, this.#bits(row), ~this.#thread.bit);
    this.#counts.clear();
  }

  #bits(row: number): WordAddress {
    return this.#thread.region.tables.namedLock.words.address(row, LOCK_LANE.waiting + this.#thread.bitLane);
  }
}

/** One thread's view of the row of a named lock. */
export class LockPlace {
  readonly thread: Thread;
  readonly name: string;
  readonly row: number;
  readonly #generation: number;
  readonly #waits: LockWaits;
  readonly #repair: ((slot: SlotIndex) => void) | undefined;
  readonly #columns: BoundTables['namedLock'];
  readonly #heldMax: number;

  constructor(thread: Thread, waits: LockWaits, name: string, row: number, options: LockOptions) {
    const { namedLock } = thread.region.tables;
    this.thread = thread;
    this.name = name;
    this.row = row;
    // Plain: the registry is locked, and a constructor that stops cannot be explored.
    this.#generation = namedLock.generation.get(row);
    this.#waits = waits;
    this.#repair = options.repair;
    this.#columns = namedLock;
    const records = (thread.region.geometry.heldLanes - HELD_LANE.first) / HELD_LANE.size;
    this.#heldMax = Math.floor(records / SYSTEM_PART);
  }

  /** Where the words of a kind lie. */
  addressOf(kind: LockKind): WordAddress {
    return this.#columns.words.address(this.row, LOCK_LANE[kind]);
  }

  /** Throws `EINVAL` when this thread holds so many locks that the system might run out of records for its own. */
  requireRoom(call: string): void {
    if (this.thread.heldCount < this.#heldMax) return;
    const values = { lock: this.name, held: this.thread.heldCount };
    failMisuse(call, values, `a thread holds at most ${this.#heldMax} locks of its own at a time`);
  }

  /** Throws `EINVAL` for a lock that this thread does not hold. */
  failNotHeld(call: string): never {
    this.thread.checkPoison();
    this.requireCurrent(call);
    fail('EINVAL', call, { lock: this.name, slot: this.thread.slot }, 'this thread does not hold the lock');
  }

  /** Throws `EDEADLK` for a lock that this thread holds: nobody else would end the wait for it. */
  failOwn(call: string, held: string): never {
    this.thread.checkPoison();
    this.requireCurrent(call);
    const rule = `a thread that holds the lock ${held} cannot wait for it`;
    fail('EDEADLK', call, { lock: this.name, slot: this.thread.slot }, rule);
  }

  /** Steps 1 and 2 of waiting. Throws `ESTALE`. What was begun is ended by `endWait`, also after that error. */
  beginWait(call: string): void {
    this.#waits.begin(this.row);
    this.requireCurrent(call);
  }

  /** The wait is over. */
  endWait(): void {
    this.#waits.end(this.row);
  }

  /** Throws `ESTALE` when the lock was removed. */
  requireCurrent(call: string): void {
    const { thread } = this;
    const address = this.#columns.generation.address(this.row);
    if (load(thread.words, address) === this.#generation) return;
    // A removal may be under way, which is refused in the end: once it is over, it is over.
    const registry = thread.region.tables.lockRegistry.lock.address(0);
    mutexEnter(thread, registry, RANK.lockRegistry);
    const generation = load(thread.words, address);
    mutexExit(thread, registry);
    if (generation !== this.#generation) this.#failStale(call);
  }

  /** Steps 2 to 5 of an entry, with the lock held exclusively. `giveBack` gives the lock itself back. */
  admit(call: string, giveBack: () => void): void {
    const { thread, row } = this;
    // Whoever removes a lock holds it meanwhile: so nobody does now.
    if (!this.isCurrent) {
      giveBack();
      this.#failStale(call);
    }
    if (VERIFY) faultPoint(thread, 'sync.locks.taken');
    this.resume();
    if (this.#columns.abandonedBy.get(row) !== 0) this.#settle(call, giveBack);
  }

  /** Steps 3 and 4, for a thread whose wait for a condition has ended. */
  resume(): void {
    const { holder, abandonedBy } = this.#columns;
    const before = holder.get(this.row);
    if (before !== 0 && before !== this.thread.attachment) abandonedBy.put(this.row, before);
    holder.put(this.row, this.thread.attachment);
    if (VERIFY) faultPoint(this.thread, 'sync.locks.inside');
  }

  /** Step 5 with the lock held, which stays held whatever happens: see `NamedCondition.wait`. */
  settleHeld(call: string): void {
    if (this.#columns.abandonedBy.get(this.row) !== 0) this.#settle(call, null);
  }

  /** Step 1 of an exit. */
  depart(): void {
    this.#columns.holder.put(this.row, 0);
  }

  /** True while the row is the lock that this handle was opened for; for a thread that is in. */
  get isCurrent(): boolean {
    return load(this.thread.words, this.#columns.generation.address(this.row)) === this.#generation;
  }

  /** For a reader that is in: true when a writer has died inside and nobody has repaired what it left. */
  get isAbandoned(): boolean {
    return this.#columns.holder.get(this.row) !== 0 || this.#columns.abandonedBy.get(this.row) !== 0;
  }

  #settle(call: string, giveBack: (() => void) | null): void {
    const { abandonedBy } = this.#columns;
    const slot = slotOfAttachment(abandonedBy.get(this.row));
    if (this.#repair === undefined) {
      this.#refuse(giveBack);
      const rule =
        'a thread died inside; open the lock with a `repair` function, which entries call before they return';
      fail('EOWNERDEAD', call, { lock: this.name, slot }, rule);
    }
    let returned: unknown;
    try {
      returned = this.#repair(slot);
    } catch (error) {
      this.#refuse(giveBack);
      throw error;
    }
    if (returned instanceof Promise) {
      this.#refuse(giveBack);
      failMisuse(call, { lock: this.name }, 'repair must not return a promise: nobody would await it');
    }
    abandonedBy.put(this.row, 0);
  }

  #refuse(giveBack: (() => void) | null): void {
    if (giveBack === null) return;
    this.depart();
    giveBack();
  }

  #failStale(call: string): never {
    fail('ESTALE', call, { lock: this.name }, 'the lock was removed; open it again');
  }
}

/** Throws `EINVAL` for options that are none. */
export function requireLockOptions(call: string, options: unknown): asserts options is LockOptions {
  if (typeof options !== 'object' || options === null) failMisuse(call, { options }, 'options must be an object');
  rejectUnknownOptions(call, options, ['repair']);
  const { repair } = options as LockOptions;
  if (repair !== undefined && typeof repair !== 'function') failMisuse(call, { repair }, 'repair must be a function');
}
