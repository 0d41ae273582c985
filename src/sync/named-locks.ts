/**
 * Named locks: where programs find mutexes, readers/writer locks and condition variables.
 *
 * PROBLEM     Locks are words of shared memory, and somebody has to hand them out: to threads that know of each other nothing
 *             but a name, that come in any order, and that may end while they make or remove one.
 * STRUCTURE   a table of rows under one mutex:   generation | kind, 0 free | hash | name | words | holder | abandonedBy
 *
 *               open     1 the row of the name, or a free one   2 the name   3 hash and kind, journaled
 *               remove   1 take the lock, unless it is a condition   2 the generation + 1, journaled
 *                        3 nobody waits, or the generation as it was: `EBUSY`   4 the row is free, journaled
 *                        5 give the lock back
 *
 *             A handle is a row and its generation. Whoever comes to a row that is another lock by now finds another
 *             generation, once it is in, and leaves.
 * INVARIANTS  I1 at most one row in use bears a name.   I2 a free row is not held, nobody waits for it, and it names no holder.
 *             I3 a row in use keeps its kind, and words of the other kinds are never touched.
 *             I4 whoever holds a lock, or waits for it, does so until the row is free.
 * LOCKING     The registry's mutex, of a rank above all locks of programs: names may be looked up with any of them held.
 * COSTS       To open: a look at every row and the text of the name, microseconds; programs keep handles. To use: see
 *             lock-place.ts. 212 bytes a row.
 * FAILURE     `ENOMEM` when the table is full, `EEXIST` for a name of another kind, `ENOENT`, `EBUSY`, `EINVAL`.
 * REJECTED    A hash table: programs have few locks and keep their handles. Locks made from words that programs bring: nobody
 *             could list them, nor say who died inside.
 * REFERENCES  sem_open(3); CreateMutex of Windows, whose names and abandoned state these follow.
 */

import { assert } from '../base/assert.ts';
import type { CheckReport } from '../base/check.ts';
import { fail, failMisuse } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import { ByteColumn } from '../layout/column.ts';
import { LOCK_LANE, LOCK_NAME_BYTES } from '../layout/lock-tables.ts';
import type { BoundTables } from '../layout/region.ts';
import { load, store } from './atomics.ts';
import { type CancelHandle, CancelToken } from './cancel.ts';
import { faultPoint } from './fault.ts';
import { LOCK_KIND, type LockKind, type LockOptions, LockPlace, LockWaits, requireLockOptions } from './lock-place.ts';
import { checkNamedLocks, clearWaits, describeLock, type NamedLockReport, waitersOf } from './lock-report.ts';
import { Mutex, mutexExit, mutexTryEnter } from './mutex.ts';
import { NamedCondition } from './named-condition.ts';
import { NamedMutex } from './named-mutex.ts';
import { NamedRwLock } from './named-rwlock.ts';
import { RANK } from './ranks.ts';
import { RwLock } from './rwlock-class.ts';
import type { SlotIndex, Thread } from './thread.ts';

/** One thread's view of the named locks: `vm.locks`. */
export class Locks {
  readonly #thread: Thread;
  readonly #rows: BoundTables['namedLock'];
  readonly #registry: Mutex;
  readonly #waits: LockWaits;

  constructor(thread: Thread) {
    const { namedLock, lockRegistry } = thread.region.tables;
    assert(
      1 + thread.region.geometry.lockLanes <= LOCK_LANE.condition,
      'sync/named-locks I3: words of kinds are apart',
    );
    this.#thread = thread;
    this.#rows = namedLock;
    this.#registry = new Mutex(thread, lockRegistry.lock.address(0), RANK.lockRegistry);
    this.#waits = new LockWaits(thread);
  }

  /**
   * The mutex of a name, made when there is none. Any thread may do so, at any time, and keeps what it gets; `repair` is this
   * handle's own. Throws `EEXIST` when the name is that of another kind of lock, `ENOMEM` when there are as many as boot
   * made room for, `EINVAL`.
   */
  mutex(name: string, options: LockOptions = {}): NamedMutex {
    return new NamedMutex(this.#open('locks.mutex', name, 'mutex', options));
  }

  /** The readers/writer lock of a name, made when there is none; see `mutex`. */
  rwlock(name: string, options: LockOptions = {}): NamedRwLock {
    return new NamedRwLock(this.#open('locks.rwlock', name, 'rwlock', options));
  }

  /** The condition variable of a name, made when there is none; see `mutex`. */
  condition(name: string): NamedCondition {
    return new NamedCondition(this.#open('locks.condition', name, 'condition', {}));
  }

  /**
   * A token that ends blocking waits of any thread: make it here, pass `handle()` on, and open that there with the same
   * function. It ends with `release` or with this thread. Throws `ENOMEM` when this thread has 64 already.
   */
  cancelToken(handle?: CancelHandle): CancelToken {
    return handle === undefined ? CancelToken.create(this.#thread) : CancelToken.from(this.#thread.region, handle);
  }

  /** True when there is a lock of this name. */
  has(name: string): boolean {
    requireName('locks.has', name);
    return this.#locked(() => this.#find(name) >= 0);
  }

  /**
   * Gives a lock's place back. Handles of it throw `ESTALE` from now on. Throws `ENOENT`, and `EBUSY` while some thread holds
   * it or waits for it.
   */
  remove(name: string): void {
    requireName('locks.remove', name);
    this.#locked(() => {
      const row = this.#find(name);
      if (row < 0) fail('ENOENT', 'locks.remove', { name }, 'there is no lock of this name');
      // 1.
      const giveBack = this.#takeForGood(row);
      if (giveBack === null) this.#failBusy(row, name);
      try {
        this.#free(row, name);
      } finally {
        giveBack();
      }
    });
  }

  /** Every named lock as it is now: who holds it, who waits, who died inside. */
  list(): NamedLockReport[] {
    return this.#locked(() => {
      const reports: NamedLockReport[] = [];
      for (let row = 0; row < this.#rows.rowCount; row++) {
        if (this.#rows.kind.get(row) !== 0) reports.push(describeLock(this.#thread.region, row));
      }
      return reports;
    });
  }

  /** `list` as text, a line for each lock. */
  dump(): string {
    const slots = (label: string, list: readonly SlotIndex[]) =>
      list.length > 0 ? `, ${label} ${list.join(' ')}` : '';
    return this.list()
      .map(({ name, kind, holder, readers, waiting, abandonedBy }) => {
        const held = slots('held by', holder === null ? [] : [holder]) + slots('read by', readers);
        return `${kind} ${JSON.stringify(name)}${held}${slots('waited for by', waiting)}${slots('abandoned by', abandonedBy === null ? [] : [abandonedBy])}`;
      })
      .join('\n');
  }

  /** Checks every row; call it at quiet points. */
  check(): CheckReport {
    return this.#locked(() => checkNamedLocks(this.#thread.region));
  }

  /** For a thread that detaches: what it waits for counts no more. */
  leave(): void {
    this.#waits.endAll();
  }

  /** A dead slot waits for nothing. */
  recover(dead: SlotIndex): void {
    clearWaits(this.#thread.region, dead);
  }

  #open(call: string, name: string, kind: LockKind, options: LockOptions): LockPlace {
    requireName(call, name);
    requireLockOptions(call, options);
    return this.#locked(() => {
      const found = this.#find(name);
      const row = found >= 0 ? found : this.#make(call, name, kind);
      if (this.#rows.kind.get(row) !== LOCK_KIND[kind]) {
        const other = describeLock(this.#thread.region, row).kind;
        fail('EEXIST', call, { name }, `a ${other} of this name exists`);
      }
      return new LockPlace(this.#thread, this.#waits, name, row, options);
    });
  }

  /** Steps 1 to 3 of making a lock. */
  #make(call: string, name: string, kind: LockKind): number {
    const { kind: kinds, hash, name: names, rowCount } = this.#rows;
    const { journal } = this.#thread;
    let row = 0;
    while (row < rowCount && kinds.get(row) !== 0) row++;
    if (row === rowCount) {
      fail(
        'ENOMEM',
        call,
        { name },
        `all ${rowCount} named locks are in use; remove some, or boot with more \`locks\``,
      );
    }
    names.putText(row, name);
    journal.set(hash, row, hashOf(name));
    journal.set(kinds, row, LOCK_KIND[kind]);
    if (VERIFY) faultPoint(this.#thread, 'sync.locks.created');
    return row;
  }

  /** The row of a name, or -1. */
  #find(name: string): number {
    const { kind, hash, name: names, rowCount } = this.#rows;
    const wanted = hashOf(name);
    for (let row = 0; row < rowCount; row++) {
      if (kind.get(row) !== 0 && hash.get(row) === wanted && names.text(row) === name) return row;
    }
    return -1;
  }

  /** Step 1 of a removal: takes the lock if nobody is in; returns how to give it back. A condition has no holder. */
  #takeForGood(row: number): (() => void) | null {
    const thread = this.#thread;
    const { kind, words } = this.#rows;
    if (kind.get(row) === LOCK_KIND.condition) return () => {};
    if (kind.get(row) === LOCK_KIND.mutex) {
      const address = words.address(row, LOCK_LANE.mutex);
      return mutexTryEnter(thread, address, RANK.user) ? () => mutexExit(thread, address) : null;
    }
    const lock = new RwLock(thread, words.address(row, LOCK_LANE.rwlock), RANK.user);
    return lock.tryEnterExclusive() ? () => lock.exitExclusive() : null;
  }

  /** Steps 2 to 4 of a removal. */
  #free(row: number, name: string): void {
    const { journal, words } = this.#thread;
    const { kind, hash, holder, abandonedBy, generation } = this.#rows;
    const address = generation.address(row);
    const before = load(words, address);
    journal.log1(address);
    // 2-3. In this order: see lock-place.ts, I3.
    store(words, address, (before + 1) | 0);
    if (waitersOf(this.#thread.region, row).length > 0) {
      store(words, address, before);
      this.#failBusy(row, name);
    }
    if (VERIFY) faultPoint(this.#thread, 'sync.locks.removing');
    // 4.
    journal.set(holder, row, 0);
    journal.set(abandonedBy, row, 0);
    journal.set(hash, row, 0);
    journal.set(kind, row, 0);
  }

  #failBusy(row: number, name: string): never {
    const { holder, readers, waiting } = describeLock(this.#thread.region, row);
    const values = { name, holder, readers: readers.join(' '), waiting: waiting.join(' ') };
    fail('EBUSY', 'locks.remove', values, 'a lock is removed when nobody holds it and nobody waits for it');
  }

  #locked<Value>(action: () => Value): Value {
    this.#registry.enter();
    try {
      return action();
    } finally {
      this.#registry.exit();
    }
  }
}

/** FNV-1a over the units of a text. */
function hashOf(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash;
}

function requireName(call: string, name: unknown): void {
  if (typeof name !== 'string' || name === '' || ByteColumn.sizeOf(name) >= LOCK_NAME_BYTES) {
    failMisuse(call, { name }, `a name is text of 1 to ${LOCK_NAME_BYTES - 1} bytes`);
  }
  // What is stored must be what is compared: no zero byte, no half of a pair.
  if (!ByteColumn.keeps(name)) {
    failMisuse(call, { name }, 'a name is well-formed text without zero bytes');
  }
}
