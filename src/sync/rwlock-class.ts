/**
 * The readers/writer lock with its held-lock records: what most code uses.
 *
 * PROBLEM     The steps of rwlock.ts become recoverable only together with a record that says what the slot is about.
 * STRUCTURE   A record is pushed before the steps and dropped after the release, or when the lock was not taken. The
 *             detail of a shared record counts the nesting, so that all objects of a thread for one lock agree.
 *
 *               downgrade   1 push a shared record   2 set the bit   3 give the word back   4 drop the exclusive record
 *               upgrade     1 push an exclusive record   2 take the word, clear the bit, look for other readers
 *                           3 drop the shared record, or on failure: set the bit, give the word back, drop the other
 *
 * INVARIANTS  I1 a slot has at most one shared record of a lock; while it has one, its bit is set or about to be.
 *             I2 during an upgrade or downgrade the slot is never without one of the two holds.
 * LOCKING     As in rwlock.ts. What a reader journals under its shared hold is its own business.
 * COSTS       Those of rwlock.ts, and about 6 ns for the record.
 * FAILURE     `EDEADLK`, `EINVAL` for leaving what is not held, `ECANCELED`, `EPOISONED`; the record goes with the failure.
 * REJECTED    A blocking upgrade: two readers that ask for it wait for each other for ever.
 * REFERENCES  docs/locking.md.
 */

import { fail } from '../base/errors.ts';
import type { WordAddress } from '../layout/column.ts';
import { FOREVER } from './atomics.ts';
import type { CancelToken } from './cancel.ts';
import type { AsyncWaitOptions } from './mutex-async.ts';
import {
  downgradeHold,
  exclusiveHold,
  exclusiveRelease,
  sharedHold,
  sharedRelease,
  tryExclusiveHold,
  trySharedHold,
  tryUpgradeHold,
} from './rwlock.ts';
import { enterExclusiveAsync, enterSharedAsync } from './rwlock-async.ts';
import { requireTimeout } from './sleep.ts';
import { HELD_KIND, type Thread } from './thread.ts';

/** A readers/writer lock of one thread's view. Shared holds nest; the nesting is private to the slot. */
export class RwLock {
  private readonly thread: Thread;
  /** Where the lock word lies; the words with readers' bits follow it. */
  readonly address: WordAddress;
  /** Its place in the lock order; see ranks.ts. */
  readonly rank: number;

  constructor(thread: Thread, address: WordAddress, rank: number) {
    this.thread = thread;
    this.address = address;
    this.rank = rank;
  }

  /**
   * Enters as a reader; false when `timeoutMs` ran out. Throws `EDEADLK` while this slot is the writer, `ECANCELED` when
   * the token is cancelled.
   */
  enterShared(timeoutMs: number = FOREVER, token?: CancelToken): boolean {
    const { thread, address } = this;
    requireTimeout('rwlock.enterShared', timeoutMs);
    if (this.nest()) return true;
    thread.pushHeld(address, HELD_KIND.shared, this.rank, true);
    let entered = false;
    try {
      entered = sharedHold(thread, address, timeoutMs, token);
    } finally {
      if (!entered) this.forget(HELD_KIND.shared);
    }
    return entered;
  }

  /** Enters as a reader if no writer is in or coming. */
  tryEnterShared(): boolean {
    if (this.nest()) return true;
    this.thread.pushHeld(this.address, HELD_KIND.shared, this.rank, false);
    if (trySharedHold(this.thread, this.address)) return true;
    this.forget(HELD_KIND.shared);
    return false;
  }

  /** Like `enterShared`, without blocking the thread. For locks of user code only; see mutex-async.ts for the rules. */
  enterSharedAsync(options?: AsyncWaitOptions): Promise<boolean> {
    return enterSharedAsync(this.thread, this, options);
  }

  /** Leaves as a reader. */
  exitShared(): void {
    const { thread, address } = this;
    const record = thread.findHeld(address, HELD_KIND.shared, 'rwlock.exitShared');
    const nesting = thread.heldDetail(record);
    if (nesting > 0) {
      thread.setHeldDetail(record, nesting - 1);
      return;
    }
    sharedRelease(thread, address);
    thread.dropHeld(record);
  }

  /** Enters as the writer; false when `timeoutMs` ran out. Throws `EDEADLK` while this slot is in already. */
  enterExclusive(timeoutMs: number = FOREVER, token?: CancelToken): boolean {
    const { thread, address } = this;
    requireTimeout('rwlock.enterExclusive', timeoutMs);
    thread.pushHeld(address, HELD_KIND.exclusive, this.rank, true);
    let entered = false;
    try {
      entered = exclusiveHold(thread, address, timeoutMs, token);
    } finally {
      if (!entered) this.forget(HELD_KIND.exclusive);
    }
    return entered;
  }

  /** Enters as the writer if nobody is in. */
  tryEnterExclusive(): boolean {
    this.thread.pushHeld(this.address, HELD_KIND.exclusive, this.rank, false);
    if (tryExclusiveHold(this.thread, this.address)) return true;
    this.forget(HELD_KIND.exclusive);
    return false;
  }

  /** Like `enterExclusive`, without blocking the thread. For locks of user code only; see mutex-async.ts for the rules. */
  enterExclusiveAsync(options?: AsyncWaitOptions): Promise<boolean> {
    return enterExclusiveAsync(this.thread, this, options);
  }

  /** Leaves as the writer and commits what was journaled. */
  exitExclusive(): void {
    const { thread, address } = this;
    const record = thread.findHeld(address, HELD_KIND.exclusive, 'rwlock.exitExclusive');
    thread.commitHeld(record);
    exclusiveRelease(thread, address);
    thread.dropHeld(record);
  }

  /** From writer to reader, with no other writer in between. Commits what was journaled. */
  downgrade(): void {
    const { thread, address } = this;
    const record = thread.findHeld(address, HELD_KIND.exclusive, 'rwlock.downgrade');
    thread.commitHeld(record);
    thread.pushHeld(address, HELD_KIND.shared, this.rank, false);
    downgradeHold(thread, address);
    thread.dropHeld(record);
  }

  /**
   * From reader to writer if there is no other reader or writer; otherwise false, and the shared hold stays. Throws
   * `EINVAL` when the shared hold is nested: an outer section relies on being one among readers.
   */
  tryUpgrade(): boolean {
    const { thread, address } = this;
    const record = thread.findHeld(address, HELD_KIND.shared, 'rwlock.tryUpgrade');
    if (thread.heldDetail(record) > 0) {
      fail('EINVAL', 'rwlock.tryUpgrade', { lock: address, slot: thread.slot }, 'the shared hold is nested');
    }
    thread.pushHeld(address, HELD_KIND.exclusive, this.rank, false);
    if (tryUpgradeHold(thread, address)) {
      thread.dropHeld(record);
      return true;
    }
    this.forget(HELD_KIND.exclusive);
    return false;
  }

  /** One level deeper in a shared hold that the slot has; false when it has none. */
  private nest(): boolean {
    const { thread } = this;
    const record = thread.heldRecord(this.address, HELD_KIND.shared);
    if (record < 0) return false;
    thread.setHeldDetail(record, thread.heldDetail(record) + 1);
    return true;
  }

  private forget(kind: number): void {
    this.thread.dropHeld(this.thread.findHeld(this.address, kind, 'rwlock.enter'));
  }
}
