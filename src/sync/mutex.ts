/**
 * Adaptive mutex.
 *
 * PROBLEM     Exclusion between threads, any of which may be terminated while it holds the lock, waits for it, or has
 *             just been woken.
 * STRUCTURE   One word:   bits 0-7 owner's slot + 1, 0 free   |   bit 8 somebody sleeps   |   bit 9 in an event loop
 *
 *               enter   1 record   2 free -> owner by compare-and-swap   3 else spin, then set bit 8 and sleep
 *               exit    1 commit   2 word -> 0   3 wake one sleeper if bit 8 was set, all if bit 9 was   4 drop the record
 *
 *             Whoever slept takes the lock with bit 8 set, because it cannot know whether others still sleep.
 * INVARIANTS  I1 the owner bits name the slot that may change what the lock guards.
 *             I2 while a thread sleeps on the word, bit 8 is set, or some thread is awake that will set it or wake a
 *                sleeper: the owner that cleared it, the thread that was woken, or the takeover of either.
 *             I3 a wake-up of one never goes to an event loop, whose thread may be blocked: see mutex-async.ts.
 * LOCKING     The word is changed only by the functions here, in mutex-async.ts, and by the takeover.
 * COSTS       An uncontended pair is two read-modify-writes: about 25 ns with its record. No notify unless somebody sleeps.
 * FAILURE     `EDEADLK` for a lock that this slot holds already, `EINVAL` for exit without enter, `ECANCELED`, `EPOISONED`.
 *             An entry that gives up, for whatever reason, passes a wake-up on, since it may have swallowed one.
 * REJECTED    A count of waiters (a dead waiter could not be subtracted); handing the lock over to a sleeper (every
 *             contended exit would cost a context switch).
 * REFERENCES  Drepper, Futexes are tricky, mutex 3; illumos mutex.c for adaptive spinning.
 */

import { fail } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { WordAddress } from '../layout/column.ts';
import { ALL_WAITERS, compareExchange, exchange, FOREVER, load, notify } from './atomics.ts';
import type { CancelToken } from './cancel.ts';
import { faultPoint } from './fault.ts';
import { type AsyncWaitOptions, mutexEnterAsync } from './mutex-async.ts';
import { deadlineOf, remainingMs, requireTimeout, type SleepResult, sleepOn } from './sleep.ts';
import { HELD_EXCLUSIVE, type Thread } from './thread.ts';

/** Bits of a lock word that name the owner. */
export const LOCK_OWNER = 0xff;

/** Bit of a lock word: somebody sleeps on it. */
export const LOCK_WAITERS = 0x100;

/** Bit of a lock word: an event loop waits for it, so waking one sleeper is not enough. */
export const LOCK_ASYNC = 0x200;

/** Takes the lock, sleeping as long as it takes. Throws `EDEADLK` when this slot holds it. */
export function mutexEnter(thread: Thread, address: WordAddress, rank: number): void {
  thread.pushHeld(address, HELD_EXCLUSIVE, rank, true);
  if (VERIFY) faultPoint(thread, 'sync.mutex.recorded');
  if (compareExchange(thread.words, address, 0, thread.tag) !== 0) mutexEnterSlow(thread, address, FOREVER);
  if (VERIFY) faultPoint(thread, 'sync.mutex.taken');
}

/** Takes the lock within `timeoutMs`; false when the time ran out. Throws `ECANCELED` when the token is cancelled. */
export function mutexEnterWithin(
  thread: Thread,
  address: WordAddress,
  rank: number,
  timeoutMs: number,
  token?: CancelToken,
): boolean {
  requireTimeout('mutex.enterWithin', timeoutMs);
  thread.pushHeld(address, HELD_EXCLUSIVE, rank, true);
  if (compareExchange(thread.words, address, 0, thread.tag) === 0) return true;
  return mutexEnterSlow(thread, address, timeoutMs, token);
}

/** Takes the lock if it is free. */
export function mutexTryEnter(thread: Thread, address: WordAddress, rank: number): boolean {
  thread.pushHeld(address, HELD_EXCLUSIVE, rank, false);
  if (compareExchange(thread.words, address, 0, thread.tag) === 0) return true;
  thread.countContended();
  thread.dropHeld(thread.heldCount - 1);
  return false;
}

/** Gives the lock back and commits what was journaled under it. */
export function mutexExit(thread: Thread, address: WordAddress): void {
  if (!thread.commitNewest(address, HELD_EXCLUSIVE)) {
    mutexExitSlow(thread, address);
    return;
  }
  mutexRelease(thread, address);
  thread.dropNewest();
}

/** The same for a lock that is not the last one taken. */
function mutexExitSlow(thread: Thread, address: WordAddress): void {
  const record = thread.heldRecord(address, HELD_EXCLUSIVE);
  if (record < 0) failNotHeld(thread, address);
  thread.commitHeld(record);
  mutexRelease(thread, address);
  thread.dropHeld(record);
}

/** Gives the lock back but keeps its record: for a condition variable, which takes the lock again. */
export function mutexRelease(thread: Thread, address: WordAddress): void {
  const word = exchange(thread.words, address, 0);
  if (VERIFY) faultPoint(thread, 'sync.mutex.released');
  if (word !== thread.tag) notify(thread.words, address, (word & LOCK_ASYNC) !== 0 ? ALL_WAITERS : 1);
}

/** Takes a lock whose record was kept. When the region is poisoned, the record is dropped and `EPOISONED` thrown. */
export function mutexReenter(thread: Thread, address: WordAddress): void {
  if (compareExchange(thread.words, address, 0, thread.tag) !== 0) mutexEnterSlow(thread, address, FOREVER);
}

/** True when this slot owns the lock. */
export function mutexHeld(thread: Thread, address: WordAddress): boolean {
  return (load(thread.words, address) & LOCK_OWNER) === thread.tag;
}

/** Step 3 of entering; the record is written, and dropped again when the lock is not taken. */
function mutexEnterSlow(thread: Thread, address: WordAddress, timeoutMs: number, token?: CancelToken): boolean {
  const { words, tag } = thread;
  thread.countContended();
  const record = thread.heldRecord(address, HELD_EXCLUSIVE);
  if ((load(words, address) & LOCK_OWNER) === tag) {
    thread.dropHeld(record);
    thread.checkPoison();
    fail('EDEADLK', 'mutex.enter', { lock: address, slot: thread.slot }, 'this slot holds the lock already');
  }
  // 3a. Spin: the owner is probably running on another core and about to leave.
  for (let spins = thread.spinLimit; spins > 0; spins--) {
    if (load(words, address) === 0 && compareExchange(words, address, 0, tag) === 0) return true;
  }
  let result: SleepResult;
  try {
    result = sleepUntilOwner(thread, address, timeoutMs, token);
  } catch (error) {
    giveUp(thread, address, record);
    throw error;
  }
  if (result === 'ok') return true;
  giveUp(thread, address, record);
  if (result === 'cancelled') token?.throwIfCancelled('mutex.enterWithin');
  return false;
}

/** Step 3b: sleeps and tries until this slot owns the lock (`ok`), or may not wait any longer. */
function sleepUntilOwner(thread: Thread, address: WordAddress, timeoutMs: number, token?: CancelToken): SleepResult {
  const { words, tag } = thread;
  const deadline = deadlineOf(thread, timeoutMs);
  for (;;) {
    const word = load(words, address);
    if ((word & LOCK_OWNER) === 0) {
      if (compareExchange(words, address, word, tag | LOCK_WAITERS) === word) break;
      continue;
    }
    const remaining = remainingMs(thread, deadline);
    if (remaining <= 0) return 'timed-out';
    const marked = word | LOCK_WAITERS;
    if (word !== marked && compareExchange(words, address, word, marked) !== word) continue;
    const result = sleepOn(thread, address, marked, remaining, token);
    if (VERIFY) faultPoint(thread, 'sync.mutex.woken');
    if (result === 'timed-out' || result === 'cancelled') return result;
  }
  thread.clearWait();
  return 'ok';
}

/**
 * Leaves without the lock. A wake-up meant for another sleeper may have come here, so one is passed on: to all, because
 * the first in line may be an event loop.
 */
function giveUp(thread: Thread, address: WordAddress, record: number): void {
  notify(thread.words, address, ALL_WAITERS);
  thread.clearWait();
  thread.dropHeld(record);
}

function failNotHeld(thread: Thread, address: WordAddress): never {
  thread.checkPoison();
  fail('EINVAL', 'mutex.exit', { lock: address, slot: thread.slot }, 'this slot does not hold the lock');
}

/** A mutex of one thread's view: the address, and the rank that verify builds check. */
export class Mutex {
  private readonly thread: Thread;
  /** Where the lock word lies. */
  readonly address: WordAddress;
  /** Its place in the lock order; see ranks.ts. */
  readonly rank: number;

  constructor(thread: Thread, address: WordAddress, rank: number) {
    this.thread = thread;
    this.address = address;
    this.rank = rank;
  }

  /** Takes the lock, sleeping as long as it takes. Throws `EDEADLK` when this slot holds it. About 12 ns when free. */
  enter(): void {
    mutexEnter(this.thread, this.address, this.rank);
  }

  /** Takes the lock if it is free. */
  tryEnter(): boolean {
    return mutexTryEnter(this.thread, this.address, this.rank);
  }

  /** Takes the lock within `timeoutMs`; false when the time ran out. Throws `ECANCELED` when the token is cancelled. */
  enterWithin(timeoutMs: number, token?: CancelToken): boolean {
    return mutexEnterWithin(this.thread, this.address, this.rank, timeoutMs, token);
  }

  /**
   * Takes the lock without blocking the thread; false when the time ran out. For locks of user code only. The lock
   * belongs to the slot, not to the task: see mutex-async.ts. Rejects with `ECANCELED` when the signal is aborted.
   */
  enterAsync(options?: AsyncWaitOptions): Promise<boolean> {
    return mutexEnterAsync(this.thread, this.address, this.rank, options);
  }

  /** Gives the lock back. Throws `EINVAL` when this slot does not hold it. */
  exit(): void {
    mutexExit(this.thread, this.address);
  }

  /** True when this slot owns the lock. */
  get held(): boolean {
    return mutexHeld(this.thread, this.address);
  }

  /** Throws unless this slot owns the lock; verify builds only. */
  assertHeld(): void {
    if (VERIFY && !this.held) {
      fail('EINVAL', 'mutex.assertHeld', { lock: this.address }, 'the caller must hold the lock');
    }
  }
}
