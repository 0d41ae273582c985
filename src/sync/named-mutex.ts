/** A mutex that programs find by its name: see lock-place.ts for what entries and exits do beside those of mutex.ts. */

import type { CancelToken } from './cancel.ts';
import { requireNoPromise } from './lock-bodies.ts';
import type { LockPlace } from './lock-place.ts';
import { Mutex } from './mutex.ts';
import type { AsyncWaitOptions } from './mutex-async.ts';
import { RANK } from './ranks.ts';
import { requireTimeout } from './sleep.ts';

/** A named mutex of one thread's view. Made by `Locks.mutex`. */
export class NamedMutex {
  /** For conditions, which know how to wait with it. */
  readonly place: LockPlace;
  /** The lock itself, without what makes it a named one. */
  readonly inner: Mutex;
  readonly #giveBack: () => void;

  constructor(place: LockPlace) {
    const inner = new Mutex(place.thread, place.addressOf('mutex'), RANK.user);
    this.place = place;
    this.inner = inner;
    this.#giveBack = () => inner.exit();
  }

  /** The name. */
  get name(): string {
    return this.place.name;
  }

  /** True when this thread holds the lock. */
  get held(): boolean {
    return this.inner.held;
  }

  /**
   * Takes the lock, blocking the thread as long as it takes. Throws `EDEADLK` when this thread holds it, `EOWNERDEAD` when
   * another has died inside and this handle has no `repair`, `ESTALE` when the lock was removed.
   */
  enter(): void {
    this.#enterAs('mutex.enter');
  }

  /** Takes the lock if it is free. Throws `EOWNERDEAD`, `ESTALE`. */
  tryEnter(): boolean {
    this.place.requireRoom('mutex.tryEnter');
    if (!this.inner.tryEnter()) return false;
    this.place.admit('mutex.tryEnter', this.#giveBack);
    return true;
  }

  /** Like `enter`, for `timeoutMs` at most: false when the time ran out. Throws `ECANCELED` when the token is cancelled. */
  enterWithin(timeoutMs: number, token?: CancelToken): boolean {
    const { place, inner } = this;
    requireTimeout('mutex.enterWithin', timeoutMs);
    place.requireRoom('mutex.enterWithin');
    let entered = inner.tryEnter();
    if (!entered) {
      if (inner.held) place.failOwn('mutex.enterWithin', 'already');
      try {
        place.beginWait('mutex.enterWithin');
        entered = inner.enterWithin(timeoutMs, token);
      } finally {
        place.endWait();
      }
    }
    if (entered) place.admit('mutex.enterWithin', this.#giveBack);
    return entered;
  }

  /**
   * Like `enter`, leaving the event loop free: false when `timeoutMs` ran out. The lock belongs to the thread, not to the
   * task that awaited it: see mutex-async.ts. Rejects with `ECANCELED` when the signal is aborted.
   */
  enterAsync(options?: AsyncWaitOptions): Promise<boolean> {
    return this.#enterAsyncAs('mutex.enterAsync', options);
  }

  /** Gives the lock back. Throws `EINVAL` when this thread does not hold it. */
  exit(): void {
    if (!this.inner.held || !this.place.isCurrent) this.place.failNotHeld('mutex.exit');
    this.place.depart();
    this.inner.exit();
  }

  /** Runs `body` under the lock and gives what it returns. It must not return a promise: see `runAsync`. */
  run<Value>(body: () => Value): Value {
    this.#enterAs('mutex.run');
    try {
      return requireNoPromise('mutex.run', body());
    } finally {
      this.exit();
    }
  }

  /** Runs `body` under the lock, which is taken without blocking the thread and held until its promise is settled. */
  async runAsync<Value>(body: () => Value | Promise<Value>, signal?: AbortSignal): Promise<Value> {
    await this.#enterAsyncAs('mutex.runAsync', signal === undefined ? {} : { signal });
    try {
      return await body();
    } finally {
      this.exit();
    }
  }

  #enterAs(call: string): void {
    const { place, inner } = this;
    place.requireRoom(call);
    if (!inner.tryEnter()) {
      if (inner.held) place.failOwn(call, 'already');
      try {
        place.beginWait(call);
        inner.enter();
      } finally {
        place.endWait();
      }
    }
    place.admit(call, this.#giveBack);
  }

  async #enterAsyncAs(call: string, options?: AsyncWaitOptions): Promise<boolean> {
    const { place, inner } = this;
    place.requireRoom(call);
    let entered = false;
    try {
      place.beginWait(call);
      entered = await inner.enterAsync(options);
    } finally {
      place.endWait();
    }
    if (entered) place.admit(call, this.#giveBack);
    return entered;
  }
}
