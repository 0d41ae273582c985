/**
 * Adaptive mutex.
 *
 * PROBLEM     Exclusion between threads, any of which may be terminated while it holds the lock, waits for it, or has
 *             just been woken.
 * STRUCTURE   One word:   bits 0-7 owner's slot + 1, 0 free   |   bit 8 somebody sleeps
 *
 *               enter   1 record   2 free -> owner by compare-and-swap   3 else spin, then set bit 8 and sleep
 *               exit    1 commit   2 word -> 0   3 wake one sleeper if bit 8 was set   4 drop the record
 *
 *             Whoever slept takes the lock with bit 8 set, because it cannot know whether others still sleep.
 * INVARIANTS  I1 the owner bits name the slot that may change what the lock guards.
 *             I2 while a thread sleeps on the word, bit 8 is set, or some thread is awake that will set it or wake a
 *                sleeper: the owner that cleared it, the thread that was woken, or the takeover of either.
 * LOCKING     The word is changed only by the functions here and by the takeover.
 * COSTS       An uncontended pair is two read-modify-writes: about 25 ns with its record. No notify unless somebody sleeps.
 * FAILURE     `EDEADLK` for a lock that this slot holds already, `EINVAL` for exit without enter, `EPOISONED`.
 *             A timed entry that gives up passes a wake-up on, since it may have swallowed one.
 * REJECTED    A count of waiters (a dead waiter could not be subtracted); handing the lock over to a sleeper (every
 *             contended exit would cost a context switch).
 * REFERENCES  Drepper, Futexes are tricky, mutex 3; illumos mutex.c for adaptive spinning.
 */

import { fail } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { WordAddress } from '../layout/column.ts';
import { compareExchange, exchange, FOREVER, load, notify } from './atomics.ts';
import { sleepOn } from './sleep.ts';
import { HELD_KIND, type Thread } from './thread.ts';

/** Bits of a lock word that name the owner. */
export const LOCK_OWNER = 0xff;

/** Bit of a lock word: somebody sleeps on it. */
export const LOCK_WAITERS = 0x100;

/** Takes the lock, sleeping as long as it takes. Throws `EDEADLK` when this slot holds it. */
export function mutexEnter(thread: Thread, address: WordAddress, rank: number): void {
  thread.pushHeld(address, HELD_KIND.exclusive, rank, true);
  if (compareExchange(thread.words, address, 0, thread.tag) !== 0) mutexEnterSlow(thread, address, FOREVER);
}

/** Takes the lock within `timeoutMs`; false when the time ran out. */
export function mutexEnterWithin(thread: Thread, address: WordAddress, rank: number, timeoutMs: number): boolean {
  thread.pushHeld(address, HELD_KIND.exclusive, rank, true);
  if (compareExchange(thread.words, address, 0, thread.tag) === 0) return true;
  return mutexEnterSlow(thread, address, timeoutMs);
}

/** Takes the lock if it is free. */
export function mutexTryEnter(thread: Thread, address: WordAddress, rank: number): boolean {
  thread.pushHeld(address, HELD_KIND.exclusive, rank, false);
  if (compareExchange(thread.words, address, 0, thread.tag) === 0) return true;
  thread.countContended();
  thread.dropHeld(thread.heldCount - 1);
  return false;
}

/** Gives the lock back and commits what was journaled under it. */
export function mutexExit(thread: Thread, address: WordAddress): void {
  const record = thread.heldRecord(address, HELD_KIND.exclusive);
  if (record < 0) failNotHeld(thread, address);
  thread.commitHeld(record);
  if (exchange(thread.words, address, 0) !== thread.tag) notify(thread.words, address, 1);
  thread.dropHeld(record);
}

/** True when this slot owns the lock. */
export function mutexHeld(thread: Thread, address: WordAddress): boolean {
  return (load(thread.words, address) & LOCK_OWNER) === thread.tag;
}

/** Steps 3 of entering; the record is written. */
function mutexEnterSlow(thread: Thread, address: WordAddress, timeoutMs: number): boolean {
  const { words, tag } = thread;
  thread.countContended();
  if ((load(words, address) & LOCK_OWNER) === tag) {
    thread.dropHeld(thread.heldCount - 1);
    fail('EDEADLK', 'mutex.enter', { lock: address, slot: thread.slot }, 'this slot holds the lock already');
  }
  // 3a. Spin: the owner is probably running on another core and about to leave.
  for (let spins = thread.spinLimit; spins > 0; spins--) {
    if (load(words, address) === 0 && compareExchange(words, address, 0, tag) === 0) return true;
  }
  // 3b. Sleep. From the first sleep on, a death or a time-out here wakes whoever this thread should have woken.
  const deadline = timeoutMs === FOREVER ? FOREVER : thread.clock.now() + timeoutMs;
  for (;;) {
    const word = load(words, address);
    if ((word & LOCK_OWNER) === 0) {
      if (compareExchange(words, address, word, tag | LOCK_WAITERS) === word) break;
      continue;
    }
    const remaining = deadline === FOREVER ? FOREVER : deadline - thread.clock.now();
    if (remaining <= 0) return giveUp(thread, address);
    const marked = word | LOCK_WAITERS;
    if (word !== marked && compareExchange(words, address, word, marked) !== word) continue;
    if (sleepOn(thread, address, marked, remaining) === 'timed-out') return giveUp(thread, address);
  }
  thread.clearWait();
  return true;
}

/** Leaves without the lock. A wake-up meant for another sleeper may have come here, so one is passed on. */
function giveUp(thread: Thread, address: WordAddress): boolean {
  notify(thread.words, address, 1);
  thread.clearWait();
  thread.dropHeld(thread.heldCount - 1);
  return false;
}

function failNotHeld(thread: Thread, address: WordAddress): never {
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

  /** Takes the lock within `timeoutMs`; false when the time ran out. */
  enterWithin(timeoutMs: number): boolean {
    return mutexEnterWithin(this.thread, this.address, this.rank, timeoutMs);
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
