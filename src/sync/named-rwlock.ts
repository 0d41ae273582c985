/**
 * A readers/writer lock that programs find by its name.
 *
 * PROBLEM     A writer that died inside may have left things half changed, and the next to come may be a reader, which must
 *             not repair them beside others.
 * STRUCTURE   A writer enters and leaves as lock-place.ts says. A reader that finds something left behind:
 *
 *               1 leaves   2 enters as a writer, within what is left of its time   3 is admitted, which repairs or throws
 *               4 downgrades, so that no other writer comes between
 *
 * INVARIANTS  I1 no reader is let in while a dead writer's work is neither undone nor repaired.
 * LOCKING     As in rwlock.ts. A holder is named by writers only: a reader that dies leaves nothing.
 * COSTS       Two loads beside those of a shared entry.
 * FAILURE     As in lock-place.ts, for readers too.
 * REJECTED    Telling readers, who cannot do anything about it, that there is something to repair.
 * REFERENCES  rwlock-class.ts.
 */

import { failMisuse } from '../base/errors.ts';
import { FOREVER, load } from './atomics.ts';
import type { CancelToken } from './cancel.ts';
import { requireNoPromise } from './lock-bodies.ts';
import type { LockPlace } from './lock-place.ts';
import { LOCK_OWNER } from './mutex.ts';
import { type AsyncWaitOptions, openAsyncWait } from './mutex-async.ts';
import { RANK } from './ranks.ts';
import { RwLock } from './rwlock-class.ts';
import { deadlineOf, remainingMs, requireTimeout } from './sleep.ts';
import { HELD_KIND, type Thread } from './thread.ts';

/** A named readers/writer lock of one thread's view. Shared holds nest. Made by `Locks.rwlock`. */
export class NamedRwLock {
  readonly #place: LockPlace;
  readonly #inner: RwLock;
  readonly #thread: Thread;
  readonly #giveBack: () => void;

  constructor(place: LockPlace) {
    const inner = new RwLock(place.thread, place.addressOf('rwlock'), RANK.user);
    this.#place = place;
    this.#inner = inner;
    this.#thread = place.thread;
    this.#giveBack = () => inner.exitExclusive();
  }

  /** The name. */
  get name(): string {
    return this.#place.name;
  }

  /** True when this thread is in as a reader. */
  get reading(): boolean {
    return this.#thread.heldRecord(this.#inner.address, HELD_KIND.shared) >= 0;
  }

  /** True when this thread is in as the writer. */
  get writing(): boolean {
    return (load(this.#thread.words, this.#inner.address) & LOCK_OWNER) === this.#thread.tag;
  }

  /**
   * Enters as a reader, blocking the thread; false when `timeoutMs` ran out. Throws `EDEADLK` while this thread is the
   * writer, `ECANCELED` when the token is cancelled, `EOWNERDEAD`, `ESTALE`.
   */
  enterShared(timeoutMs: number = FOREVER, token?: CancelToken): boolean {
    return this.#enterSharedAs('rwlock.enterShared', timeoutMs, token);
  }

  #enterSharedAs(call: string, timeoutMs: number = FOREVER, token?: CancelToken): boolean {
    requireTimeout(call, timeoutMs);
    const deadline = deadlineOf(this.#thread, timeoutMs);
    if (this.#tryEnterSharedAs(call)) return true;
    if (this.writing) this.#place.failOwn(call, 'exclusively');
    if (!this.#wait(call, () => this.#inner.enterShared(timeoutMs, token))) return false;
    if (!this.#mustRepair(call)) return true;
    const remaining = Math.max(0, remainingMs(this.#thread, deadline));
    if (!this.#wait(call, () => this.#inner.enterExclusive(remaining, token))) return false;
    this.#admitReader(call);
    return true;
  }

  /** Enters as a reader if no writer is in or coming. */
  tryEnterShared(): boolean {
    return this.#tryEnterSharedAs('rwlock.tryEnterShared');
  }

  #tryEnterSharedAs(call: string): boolean {
    this.#place.requireRoom(call);
    if (!this.#inner.tryEnterShared()) return false;
    if (!this.#mustRepair(call)) return true;
    if (!this.#inner.tryEnterExclusive()) return false;
    this.#admitReader(call);
    return true;
  }

  /** Like `enterShared`, leaving the event loop free. The hold belongs to the thread: see mutex-async.ts. */
  enterSharedAsync(options: AsyncWaitOptions = {}): Promise<boolean> {
    return this.#enterSharedAsyncAs('rwlock.enterSharedAsync', options);
  }

  async #enterSharedAsyncAs(call: string, options: AsyncWaitOptions): Promise<boolean> {
    const deadline = deadlineOf(this.#thread, openAsyncWait(call, options));
    if (this.#tryEnterSharedAs(call)) return true;
    if (!(await this.#waitAsync(call, () => this.#inner.enterSharedAsync(options)))) return false;
    if (!this.#mustRepair(call)) return true;
    const timeoutMs = Math.max(0, remainingMs(this.#thread, deadline));
    if (!(await this.#waitAsync(call, () => this.#inner.enterExclusiveAsync({ ...options, timeoutMs })))) return false;
    this.#admitReader(call);
    return true;
  }

  /** Leaves as a reader. */
  exitShared(): void {
    if (!this.reading || !this.#place.isCurrent) this.#place.failNotHeld('rwlock.exitShared');
    this.#inner.exitShared();
  }

  /** Enters as the writer, blocking the thread; false when `timeoutMs` ran out. Throws as `enterShared` does. */
  enterExclusive(timeoutMs: number = FOREVER, token?: CancelToken): boolean {
    return this.#enterExclusiveAs('rwlock.enterExclusive', timeoutMs, token);
  }

  #enterExclusiveAs(call: string, timeoutMs: number = FOREVER, token?: CancelToken): boolean {
    requireTimeout(call, timeoutMs);
    if (this.#tryEnterExclusiveAs(call)) return true;
    if (this.writing || this.reading) this.#place.failOwn(call, this.writing ? 'exclusively' : 'shared');
    if (!this.#wait(call, () => this.#inner.enterExclusive(timeoutMs, token))) return false;
    this.#place.admit(call, this.#giveBack);
    return true;
  }

  /** Enters as the writer if nobody is in. */
  tryEnterExclusive(): boolean {
    return this.#tryEnterExclusiveAs('rwlock.tryEnterExclusive');
  }

  #tryEnterExclusiveAs(call: string): boolean {
    this.#place.requireRoom(call);
    if (!this.#inner.tryEnterExclusive()) return false;
    this.#place.admit(call, this.#giveBack);
    return true;
  }

  /** Like `enterExclusive`, leaving the event loop free. The hold belongs to the thread: see mutex-async.ts. */
  enterExclusiveAsync(options?: AsyncWaitOptions): Promise<boolean> {
    return this.#enterExclusiveAsyncAs('rwlock.enterExclusiveAsync', options);
  }

  async #enterExclusiveAsyncAs(call: string, options?: AsyncWaitOptions): Promise<boolean> {
    this.#place.requireRoom(call);
    if (!(await this.#waitAsync(call, () => this.#inner.enterExclusiveAsync(options)))) return false;
    this.#place.admit(call, this.#giveBack);
    return true;
  }

  /** Leaves as the writer. */
  exitExclusive(): void {
    this.#depart('rwlock.exitExclusive');
    this.#inner.exitExclusive();
  }

  /** From writer to reader, with no other writer in between. */
  downgrade(): void {
    this.#depart('rwlock.downgrade');
    this.#inner.downgrade();
  }

  /** From reader to writer if there is no other reader or writer; otherwise false, and the shared hold stays. */
  tryUpgrade(): boolean {
    const record = this.#thread.heldRecord(this.#inner.address, HELD_KIND.shared);
    if (record < 0 || !this.#place.isCurrent) this.#place.failNotHeld('rwlock.tryUpgrade');
    if (this.#thread.heldDetail(record) > 0) {
      failMisuse('rwlock.tryUpgrade', { lock: this.name }, 'the shared hold is nested');
    }
    if (!this.#inner.tryUpgrade()) return false;
    this.#place.admit('rwlock.tryUpgrade', this.#giveBack);
    return true;
  }

  /** Runs `body` as a reader and gives what it returns. It must not return a promise: see `readAsync`. */
  read<Value>(body: () => Value): Value {
    this.#enterSharedAs('rwlock.read');
    try {
      return requireNoPromise('rwlock.read', body());
    } finally {
      this.exitShared();
    }
  }

  /** Runs `body` as the writer and gives what it returns. It must not return a promise: see `writeAsync`. */
  write<Value>(body: () => Value): Value {
    this.#enterExclusiveAs('rwlock.write');
    try {
      return requireNoPromise('rwlock.write', body());
    } finally {
      this.exitExclusive();
    }
  }

  /** Runs `body` as a reader, which stays in until its promise is settled; never blocks the thread. */
  async readAsync<Value>(body: () => Value | Promise<Value>, signal?: AbortSignal): Promise<Value> {
    await this.#enterSharedAsyncAs('rwlock.readAsync', signal === undefined ? {} : { signal });
    try {
      return await body();
    } finally {
      this.exitShared();
    }
  }

  /** Runs `body` as the writer, which stays in until its promise is settled; never blocks the thread. */
  async writeAsync<Value>(body: () => Value | Promise<Value>, signal?: AbortSignal): Promise<Value> {
    await this.#enterExclusiveAsyncAs('rwlock.writeAsync', signal === undefined ? {} : { signal });
    try {
      return await body();
    } finally {
      this.exitExclusive();
    }
  }

  /** A reader's look at what it came into. True when it must come in as a writer first; it is out again then. */
  #mustRepair(call: string): boolean {
    if (!this.#place.isAbandoned && this.#place.isCurrent) return false;
    this.#inner.exitShared();
    this.#place.requireCurrent(call);
    return true;
  }

  /** Steps 3 and 4 of a reader that has something to repair. */
  #admitReader(call: string): void {
    this.#place.admit(call, this.#giveBack);
    this.downgrade();
  }

  #depart(call: string): void {
    const isIn = this.writing && this.#thread.heldRecord(this.#inner.address, HELD_KIND.exclusive) >= 0;
    if (!isIn || !this.#place.isCurrent) this.#place.failNotHeld(call);
    this.#place.depart();
  }

  #wait(call: string, enter: () => boolean): boolean {
    try {
      this.#place.beginWait(call);
      return enter();
    } finally {
      this.#place.endWait();
    }
  }

  async #waitAsync(call: string, enter: () => Promise<boolean>): Promise<boolean> {
    try {
      this.#place.beginWait(call);
      return await enter();
    } finally {
      this.#place.endWait();
    }
  }
}
