/**
 * Cancel tokens: ending another thread's blocking wait.
 *
 * PROBLEM     An `AbortSignal` cannot fire on a thread that is blocked, so what ends its wait must lie in shared memory.
 * STRUCTURE   One word per token, in the row of the slot that made it:   bit 0 in use | bit 1 cancelled | generation
 *
 *               waiter      1 publish word and token   2 look at the token   3 sleep, in slices
 *               canceller   1 mark the token   2 notify the word of every slot that publishes the token, until none does
 *
 *             A waiter between its steps 2 and 3 misses the notification, so the canceller comes back for it.
 * INVARIANTS  I1 a token that is cancelled stays so.  I2 a word is reused with another generation only.
 * LOCKING     Made and released by its slot; cancelled by compare-and-swap from any thread.
 * COSTS       A wait with a token: two stores and a load more, and never a sleep of more than a slice at a time.
 * FAILURE     Waits end with `ECANCELED`. A token whose slot was released or died counts as cancelled.
 * REJECTED    Changing the word that the waiter sleeps on: readers' bits leave no room for it. Waking only through the
 *             slice: a second is long.
 * REFERENCES  Linux `tgkill` and restartable waits have the same race between looking and sleeping.
 */

import { fail, failMisuse, VmError } from '../base/errors.ts';
import type { WordAddress } from '../layout/column.ts';
import type { Region } from '../layout/region.ts';
import { CANCEL_LANES } from '../layout/system-tables.ts';
import { ALL_WAITERS, compareExchange, load, notify, store, wait } from './atomics.ts';
import type { SlotIndex, Thread } from './thread.ts';

const IN_USE = 1;
const CANCELLED = 2;
const GENERATION_STEP = 4;

/** Rounds in which a canceller looks for waiters that were about to sleep; after that their slice ends the wait. */
const ROUNDS_MAX = 20;
/** Rounds without a pause. */
const ROUNDS_BUSY = 4;
const PAUSE_MS = 1;

/** What crosses threads: pass it in a message and call `CancelToken.from` there. */
export interface CancelHandle {
  readonly token: number;
  readonly state: number;
}

/** One token in one thread's view. */
export class CancelToken {
  readonly #region: Region;
  /** Which token of the region. */
  readonly number: number;
  /** The word while the token is in use and not cancelled. */
  readonly #state: number;
  readonly #address: WordAddress;
  /** Set in the thread that made it. */
  readonly #maker: Thread | undefined;

  private constructor(region: Region, number: number, state: number, maker?: Thread) {
    this.#region = region;
    this.#maker = maker;
    this.number = number;
    this.#state = state;
    const row = Math.floor(number / CANCEL_LANES);
    this.#address = region.tables.cancel.state.address(row, number % CANCEL_LANES);
  }

  /** Makes a token. It ends with `release`, and counts as cancelled when this thread ends. `ENOMEM` when 64 are in use. */
  static create(thread: Thread): CancelToken {
    const { state, inUse } = thread.region.tables.cancel;
    for (let lane = 0; lane < CANCEL_LANES; lane++) {
      const word = state.at(thread.slot, lane);
      if ((word & IN_USE) !== 0) continue;
      inUse.put(thread.slot, inUse.get(thread.slot) + 1);
      const next = ((word + GENERATION_STEP) & ~CANCELLED) | IN_USE;
      store(thread.words, state.address(thread.slot, lane), next);
      return new CancelToken(thread.region, thread.slot * CANCEL_LANES + lane, next, thread);
    }
    return fail('ENOMEM', 'locks.cancelToken', { slot: thread.slot }, `a thread has at most ${CANCEL_LANES} tokens`);
  }

  /** The token behind a handle. Throws `EINVAL` for what is no handle of this region. */
  static from(region: Region, handle: CancelHandle): CancelToken {
    if (typeof handle !== 'object' || handle === null) {
      failMisuse('locks.cancelToken', { handle }, 'expected what handle() of a token returned');
    }
    const { token, state } = handle;
    const count = region.geometry.slots * CANCEL_LANES;
    if (!Number.isInteger(token) || token < 0 || token >= count || !Number.isInteger(state)) {
      failMisuse('locks.cancelToken', { token, state }, 'expected what handle() of a token returned');
    }
    return new CancelToken(region, token, state);
  }

  /** A handle for other threads. */
  handle(): CancelHandle {
    return { token: this.number, state: this.#state };
  }

  /** True once cancelled, released, or left behind by a thread that ended. */
  get cancelled(): boolean {
    return load(this.#region.words, this.#address) !== this.#state;
  }

  /** Throws `ECANCELED` when the token is cancelled. */
  throwIfCancelled(call: string): void {
    if (this.cancelled) throw new VmError('ECANCELED', `${call}: the wait was cancelled`);
  }

  /** Ends every wait that uses this token, now and later. From any thread; once is enough. */
  cancel(): void {
    const { words } = this.#region;
    if (compareExchange(words, this.#address, this.#state, this.#state | CANCELLED) !== this.#state) return;
    wakeTokenWaiters(this.#region, this.number);
  }

  /** Ends the token: waits that still use it end as if cancelled. Throws `EINVAL` in another thread than its maker's. */
  release(thread: Thread | undefined = this.#maker): void {
    const { words, tables } = this.#region;
    if (thread === undefined || Math.floor(this.number / CANCEL_LANES) !== thread.slot) {
      failMisuse('CancelToken.release', { token: this.number, slot: thread?.slot }, 'only the thread that made it may');
    }
    // The slot may be another thread's by now; its tokens ended when it was given back.
    if (thread.ended) return;
    const word = load(words, this.#address);
    if ((word & ~CANCELLED) !== this.#state) return;
    store(words, this.#address, word & ~IN_USE);
    tables.cancel.inUse.put(thread.slot, tables.cancel.inUse.get(thread.slot) - 1);
    if (word === this.#state) wakeTokenWaiters(this.#region, this.number);
  }

  /** Same as `release`. */
  [Symbol.dispose](): void {
    this.release();
  }
}

/** Wakes the slots that publish the token, until none does or the rounds are used up. */
function wakeTokenWaiters(region: Region, number: number): void {
  const { waitToken, waitAddress } = region.tables.slot;
  // Event loops sleep on the token itself: see cancel-async.ts.
  const { state } = region.tables.cancel;
  notify(region.words, state.address(Math.floor(number / CANCEL_LANES), number % CANCEL_LANES), ALL_WAITERS);
  for (let round = 0; round < ROUNDS_MAX; round++) {
    let pending = -1;
    for (let slot = 0; slot < region.geometry.slots; slot++) {
      if (load(region.words, waitToken.address(slot)) !== number + 1) continue;
      const address = waitAddress.get(slot) - 1;
      if (address >= 0) notify(region.words, address, ALL_WAITERS);
      pending = slot;
    }
    if (pending < 0) return;
    if (round >= ROUNDS_BUSY) wait(region.words, waitToken.address(pending), number + 1, PAUSE_MS);
  }
}

/** Ends the tokens of a slot that is given back or whose thread has ended. */
export function endTokens(region: Region, slot: SlotIndex): void {
  const { state, inUse } = region.tables.cancel;
  if (inUse.get(slot) === 0) return;
  for (let lane = 0; lane < CANCEL_LANES; lane++) {
    // Only its slot sets the bit, so a plain look will do.
    if ((state.at(slot, lane) & IN_USE) === 0) continue;
    const address = state.address(slot, lane);
    const word = load(region.words, address);
    store(region.words, address, word & ~IN_USE);
    if ((word & CANCELLED) === 0) wakeTokenWaiters(region, slot * CANCEL_LANES + lane);
  }
  inUse.put(slot, 0);
}
