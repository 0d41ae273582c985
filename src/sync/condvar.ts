/**
 * Condition variable.
 *
 * PROBLEM     Sleep until another thread changed something under a mutex, without missing the change, and without
 *             trusting a sleeper to stay alive.
 * STRUCTURE   `lockLanes` words:   sequence | waiters of slots 0-31 | waiters of slots 32-63
 *
 *               wait     1 set own waiter bit   2 read the sequence   3 exit the mutex   4 sleep while the sequence stands
 *                        5 clear the bit   6 enter the mutex
 *               signal   nobody's bit set: nothing. Else 1 sequence + 1   2 wake one (broadcast: all)
 *
 * INVARIANTS  I1 a signal given after step 3 of a waiter either changes the sequence before step 4 or wakes a sleeper.
 *             I2 a waiter's bit is set from before it exits the mutex until it is awake again.
 * LOCKING     Waiting needs the mutex. Signalling may be done with or without it; with it no wake-up is wasted.
 * COSTS       Signal without waiters: one load per 32 slots.
 * FAILURE     Spurious wake-ups happen (a takeover wakes everybody): callers loop on their condition. `EPOISONED`.
 * REJECTED    A count of waiters, which a dead waiter would leave too high for ever.
 * REFERENCES  Birrell, Implementing condition variables with semaphores; glibc's older sequence-based design.
 */

import type { WordAddress } from '../layout/column.ts';
import { ALL_WAITERS, add, and, FOREVER, load, notify, or } from './atomics.ts';
import { type Mutex, mutexExit } from './mutex.ts';
import { RANK } from './ranks.ts';
import { sleepOn } from './sleep.ts';
import { HELD_KIND, type Thread } from './thread.ts';

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
   */
  wait(mutex: Mutex, timeoutMs: number = FOREVER): boolean {
    const thread = this.#thread;
    const { words } = thread;
    const bits = this.address + 1 + thread.bitLane;
    // 1-2. Announce, then read: a signal from here on changes the sequence.
    thread.pushHeld(this.address, HELD_KIND.condition, RANK.leaf, false);
    or(words, bits, thread.bit);
    const sequence = load(words, this.address);
    // 3-4.
    mutexExit(thread, mutex.address);
    const result = sleepOn(thread, this.address, sequence, timeoutMs);
    // 5.
    thread.clearWait();
    and(words, bits, ~thread.bit);
    thread.dropHeld(thread.findHeld(this.address, HELD_KIND.condition, 'condition.wait'));
    // 6.
    mutex.enter();
    return result !== 'timed-out';
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
    return false;
  }

  #wake(count: number): void {
    add(this.#thread.words, this.address, 1);
    notify(this.#thread.words, this.address, count);
  }
}
