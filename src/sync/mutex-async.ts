/**
 * Taking a mutex without blocking the thread.
 *
 * PROBLEM     A main thread must stay responsive while it waits for a lock that a worker holds.
 * STRUCTURE   A loop:   1 take the lock if it is free   2 set bits 8 and 9 of the word   3 await a wake-up
 *
 *             The exit that finds bit 9 wakes everybody. So nobody depends on a wake-up that an event loop was given and
 *             cannot act on (its thread may be blocked, or end), and waiting needs no record that a takeover would read.
 * INVARIANTS  I1 no wait of ours stays queued after its promise is settled: an abort wakes all sleepers on the word.
 * LOCKING     The lock belongs to the slot, not to the task that awaited it. While one task holds it, a blocking enter of
 *             another task of the same thread throws `EDEADLK`, and an asynchronous one waits its turn. Whoever awaited
 *             the entry calls `exit`. Before an `await` under the lock, what was journaled must be committed
 *             (`thread.commit()`), or another task's exit would find the entries and refuse (sync/journal I2).
 *             Only locks of rank `user` can be entered like this: an internal lock is never held across an `await`.
 * COSTS       Free: as `tryEnter`, and a promise. Contended: 20 to 300 us for the event loop to be woken.
 * FAILURE     False after the timeout, `ECANCELED` after an abort, `EPOISONED`. Barging threads may overtake an event loop
 *             for as long as they contend.
 * REJECTED    Handing the lock over to the waiting loop: everybody would wait for it while its thread does other things.
 * REFERENCES  ECMA-262, Atomics.waitAsync.
 */

import { failMisuse, rejectUnknownOptions, VmError } from '../base/errors.ts';
import type { WordAddress } from '../layout/column.ts';
import { ALL_WAITERS, compareExchange, FOREVER, load, notify, type WaitResult, waitAsync } from './atomics.ts';
import { LOCK_ASYNC, LOCK_OWNER, LOCK_WAITERS, mutexTryEnter } from './mutex.ts';
import { RANK } from './ranks.ts';
import { deadlineOf, remainingMs, requireTimeout } from './sleep.ts';
import type { Thread } from './thread.ts';

/** How long an asynchronous wait may last. */
export interface AsyncWaitOptions {
  /** Milliseconds, 0 or more; without it there is no limit. */
  readonly timeoutMs?: number;
  /** Ends the wait with `ECANCELED` when aborted. */
  readonly signal?: AbortSignal;
}

/** Checks options and gives the timeout; `others` may be there, too. Throws `EINVAL`, and `ECANCELED` when the signal is aborted already. */
export function openAsyncWait(call: string, options: AsyncWaitOptions, others: readonly string[] = []): number {
  rejectUnknownOptions(call, options, ['timeoutMs', 'signal', ...others]);
  const { timeoutMs = FOREVER, signal } = options;
  requireTimeout(call, timeoutMs);
  requireSignal(call, signal);
  throwIfAborted(call, signal);
  return timeoutMs;
}

/** Throws `EINVAL` for what is given as a signal and is none. */
export function requireSignal(call: string, signal: AbortSignal | undefined): void {
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    failMisuse(call, { signal }, 'signal must be an AbortSignal');
  }
}

/** Throws `ECANCELED` with the signal's reason as its cause when the signal is aborted. */
export function throwIfAborted(call: string, signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new VmError('ECANCELED', `${call}: the wait was aborted`, { cause: signal.reason });
}

/** Refuses locks that must not be held across an `await`. */
export function requireUserRank(call: string, address: WordAddress, rank: number): void {
  if (rank !== RANK.user) failMisuse(call, { lock: address, rank }, 'only locks of rank user can be held across await');
}

/** Takes the lock; false when the time ran out. See the file's header. */
export async function mutexEnterAsync(
  thread: Thread,
  address: WordAddress,
  rank: number,
  options: AsyncWaitOptions = {},
): Promise<boolean> {
  requireUserRank('mutex.enterAsync', address, rank);
  const deadline = deadlineOf(thread, openAsyncWait('mutex.enterAsync', options));
  for (;;) {
    // 1.
    if (mutexTryEnter(thread, address, rank)) return true;
    // 2-3.
    const word = load(thread.words, address);
    if ((word & LOCK_OWNER) === 0) continue;
    const remaining = remainingMs(thread, deadline);
    if (remaining <= 0) return false;
    const marked = word | LOCK_WAITERS | LOCK_ASYNC;
    if (word !== marked && compareExchange(thread.words, address, word, marked) !== word) continue;
    await sleepAsync(thread, address, marked, remaining, options.signal);
    throwIfAborted('mutex.enterAsync', options.signal);
  }
}

/**
 * Awaits a wake-up on a word that holds `expected`, for a slice or `timeoutMs` at most; the caller looks again and
 * comes back. Keeps the event loop alive meanwhile. Throws `EPOISONED`.
 */
export async function sleepAsync(
  thread: Thread,
  address: WordAddress,
  expected: number,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<WaitResult> {
  const { words } = thread;
  const started = waitAsync(words, address, expected, Math.min(timeoutMs, thread.sliceMs));
  if (typeof started === 'string') return started;
  thread.countSlept();
  const onAbort = () => notify(words, address, ALL_WAITERS);
  signal?.addEventListener('abort', onAbort, { once: true });
  const reference = setInterval(() => {}, 0x7fffffff);
  try {
    return await started;
  } finally {
    clearInterval(reference);
    signal?.removeEventListener('abort', onAbort);
    thread.checkPoison();
  }
}
