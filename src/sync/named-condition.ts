/** A condition variable that programs find by its name: see condvar.ts for the protocol. */

import { failMisuse } from '../base/errors.ts';
import { FOREVER } from './atomics.ts';
import type { CancelToken } from './cancel.ts';
import { Condition } from './condvar.ts';
import type { LockPlace } from './lock-place.ts';
import type { AsyncWaitOptions } from './mutex-async.ts';
import { NamedMutex } from './named-mutex.ts';

/** A named condition variable of one thread's view. Made by `Locks.condition`. */
export class NamedCondition {
  readonly #place: LockPlace;
  readonly #inner: Condition;

  constructor(place: LockPlace) {
    this.#place = place;
    this.#inner = new Condition(place.thread, place.addressOf('condition'));
  }

  /** The name. */
  get name(): string {
    return this.#place.name;
  }

  /**
   * Gives the mutex back, sleeps until a signal or for `timeoutMs`, and takes the mutex again. False when the time ran out.
   * May return early without a signal: call it in a loop that looks at what is waited for. Throws with the mutex held:
   * `ECANCELED` when the token is cancelled, `ESTALE` when the condition was removed, and `EOWNERDEAD` when a thread has died
   * inside the mutex meanwhile and its handle has no `repair`.
   */
  wait(mutex: NamedMutex, timeoutMs: number = FOREVER, token?: CancelToken): boolean {
    const call = 'condition.wait';
    requireMutex(call, mutex);
    const place = this.#place;
    const { inner } = mutex;
    if (!inner.held) failMisuse(call, { mutex: mutex.name }, 'the mutex must be held');
    let isSignalled: boolean;
    try {
      place.beginWait(call);
      mutex.place.depart();
      isSignalled = this.#inner.wait(inner, timeoutMs, token);
    } catch (error) {
      if (inner.held) mutex.place.resume();
      throw error;
    } finally {
      place.endWait();
    }
    mutex.place.resume();
    mutex.place.settleHeld(call);
    return isSignalled;
  }

  /**
   * Runs `attempt` under the mutex, now and after every signal, until it returns something else than `undefined`, which is
   * the result; `undefined` when `timeoutMs` ran out. The mutex is entered as by `enterAsync` and not held across an `await`.
   * Rejects with what `attempt` throws, and with what entering the mutex throws.
   */
  async untilAsync<Value>(
    mutex: NamedMutex,
    attempt: () => Value | undefined,
    options?: AsyncWaitOptions,
  ): Promise<Value | undefined> {
    requireMutex('condition.untilAsync', mutex);
    try {
      this.#place.beginWait('condition.untilAsync');
      return await this.#inner.untilAsync(mutex, attempt, options);
    } finally {
      this.#place.endWait();
    }
  }

  /** Wakes one waiter, if there is one. Call it with the mutex held: so it is not lost when this thread dies. */
  signal(): void {
    this.#place.requireCurrent('condition.signal');
    this.#inner.signal();
  }

  /** Wakes all waiters. */
  broadcast(): void {
    this.#place.requireCurrent('condition.broadcast');
    this.#inner.broadcast();
  }
}

function requireMutex(call: string, mutex: unknown): void {
  if (!(mutex instanceof NamedMutex)) failMisuse(call, { mutex }, 'mutex must be what `locks.mutex` returned');
}
