/**
 * Condition variable.
 *
 * PROBLEM     Sleep until another thread changed something under a mutex, without missing the change, and without
 *             trusting a sleeper to stay alive.
 * STRUCTURE   `lockLanes` words:   sequence | waiters of slots 0-31 | waiters of slots 32-63
 *             Bit 0 of the sequence: an event loop has waited here, so signals wake everybody from then on.
 *
 *               wait     1 name the condition in the mutex's record   2 set own waiter bit   3 read the sequence
 *                        4 exit the mutex, keep its record   5 sleep while the sequence stands   6 clear the bit
 *                        7 enter the mutex
 *               signal   nobody's bit set: nothing. Else 1 sequence + 2   2 wake one (broadcast: all)
 *
 * INVARIANTS  I1 a signal given after step 4 of a waiter either changes the sequence before step 5 or wakes a sleeper.
 *             I2 a waiter's bit is set from before it exits the mutex until it is awake again.
 *             I3 the mutex's record names the condition until that mutex is exited: if a thread that a signal has woken
 *                dies before the end of its critical section, the takeover signals everybody in its place.
 * LOCKING     Waiting needs the mutex. A signal given under the mutex survives the death of the thread that gives it:
 *             either its changes are undone or the signal was given. Given later, it may be lost with the thread.
 * COSTS       Signal without waiters: one load per 32 slots.
 * FAILURE     Spurious wake-ups happen (a takeover wakes everybody): callers loop on their condition. `EINVAL` without the
 *             mutex, `ECANCELED` with it held, `EPOISONED` without it.
 * REJECTED    A count of waiters, which a dead waiter would leave too high for ever. A record of the waiter's own, which
 *             ends before the mutex is entered again: a signal could die in between.
 * REFERENCES  Birrell, Implementing condition variables with semaphores; glibc's older sequence-based design.
 */

import { VERIFY } from '../base/verify.ts';
import type { WordAddress } from '../layout/column.ts';
import { ALL_WAITERS, add, and, FOREVER, load, notify, or } from './atomics.ts';
import type { CancelToken } from './cancel.ts';
import { faultPoint } from './fault.ts';
import { type Mutex, mutexReenter, mutexRelease } from './mutex.ts';
import { type AsyncWaitOptions, openAsyncWait, sleepAsync, throwIfAborted } from './mutex-async.ts';
import { deadlineOf, remainingMs, requireTimeout, type SleepResult, sleepOn } from './sleep.ts';
import { HELD_KIND, type Thread } from './thread.ts';

/** Bit of the sequence: event loops wait here. It stays once set. */
const ASYNC_WAITERS = 1;

/** What a signal adds to the sequence. */
export const SEQUENCE_STEP = 2;

/** A condition variable of one thread's view. */
export class Condition {
  readonly #thread: Thread;
  /** Where the sequence word lies; the words with waiter bits follow it. */
  readonly address: WordAddress;
  readonly #bitWords: number;

  constructor(thread: Thread, address: WordAddress) {
    this.#thread = thread;
    this.address = address;
    this.#bitWords = thread.region.geometry.slotLanes;
  }

  /**
   * Exits the mutex, sleeps until a signal or for `timeoutMs`, and enters the mutex again. False when the time ran out.
   * May return early without a signal; call it in a loop that checks the condition. What was journaled is committed.
   * Throws `ECANCELED`, with the mutex still held, when the token is cancelled.
   */
  wait(mutex: Mutex, timeoutMs: number = FOREVER, token?: CancelToken): boolean {
    const thread = this.#thread;
    const { words } = thread;
    requireTimeout('condition.wait', timeoutMs);
    const record = thread.findHeld(mutex.address, HELD_KIND.exclusive, 'condition.wait');
    token?.throwIfCancelled('condition.wait');
    thread.commitHeld(record);
    const bits = this.address + 1 + thread.bitLane;
    // 1-3. Announce, then read: a signal from here on changes the sequence.
    thread.setHeldDetail(record, this.address + 1);
    or(words, bits, thread.bit);
    const sequence = load(words, this.address);
    if (VERIFY) faultPoint(thread, 'sync.condition.announced');
    // 4-5.
    mutexRelease(thread, mutex.address);
    if (VERIFY) faultPoint(thread, 'sync.condition.released');
    let result: SleepResult;
    try {
      result = sleepOn(thread, this.address, sequence, timeoutMs, token);
    } catch (error) {
      and(words, bits, ~thread.bit);
      thread.clearWait();
      thread.dropHeld(record);
      throw error;
    }
    if (VERIFY) faultPoint(thread, 'sync.condition.woken');
    // 6. A cancellation may have come together with a signal: it is reported by the next wait, which has none to lose.
    and(words, bits, ~thread.bit);
    thread.clearWait();
    // 7.
    mutexReenter(thread, mutex.address);
    return result !== 'timed-out';
  }

  /**
   * Runs `attempt` under the mutex, now and after every signal, until it returns something else than `undefined`, which
   * is the result; `undefined` when the time ran out, perhaps before the mutex could be had. The mutex, one of rank `user`, is
   * entered without blocking the thread and never held across an `await`; while another task of this thread holds it, this
   * one waits its turn. Rejects with what `attempt` throws, with `ECANCELED` after an abort, and with `EPOISONED`.
   */
  async untilAsync<Value>(
    mutex: Pick<Mutex, 'tryEnter' | 'enterAsync' | 'exit'>,
    attempt: () => Value | undefined,
    options: AsyncWaitOptions = {},
  ): Promise<Value | undefined> {
    const thread = this.#thread;
    const deadline = deadlineOf(thread, openAsyncWait('condition.untilAsync', options));
    for (;;) {
      if (!mutex.tryEnter()) {
        const timeoutMs = Math.max(0, remainingMs(thread, deadline));
        if (!(await mutex.enterAsync({ ...options, timeoutMs }))) return undefined;
      }
      let sequence: number;
      try {
        const value = attempt();
        if (value !== undefined) return value;
        sequence = or(thread.words, this.address, ASYNC_WAITERS) | ASYNC_WAITERS;
      } finally {
        mutex.exit();
      }
      const remaining = remainingMs(thread, deadline);
      if (remaining <= 0) return undefined;
      await sleepAsync(thread, this.address, sequence, remaining, options.signal);
      throwIfAborted('condition.untilAsync', options.signal);
    }
  }

  /** Wakes one waiter, if there is one. */
  signal(): void {
    if (this.#anyWaiter()) this.#wake(1);
  }

  /** Wakes all waiters. */
  broadcast(): void {
    if (this.#anyWaiter()) this.#wake(ALL_WAITERS);
  }

  #anyWaiter(): boolean {
    for (let word = 1; word <= this.#bitWords; word++) {
      if (load(this.#thread.words, this.address + word) !== 0) return true;
    }
    return (load(this.#thread.words, this.address) & ASYNC_WAITERS) !== 0;
  }

  #wake(count: number): void {
    const sequence = add(this.#thread.words, this.address, SEQUENCE_STEP);
    notify(this.#thread.words, this.address, (sequence & ASYNC_WAITERS) !== 0 ? ALL_WAITERS : count);
  }
}
