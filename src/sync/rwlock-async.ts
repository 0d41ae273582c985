/**
 * Entering a readers/writer lock without blocking the thread. The rules for holders are those of mutex-async.ts.
 *
 * A waiting reader holds nothing. A waiting writer first takes the word, which keeps new readers out, and then waits for
 * the readers that are in, among them other tasks of its own slot; until then other tasks find the lock held.
 */

import type { WordAddress } from '../layout/column.ts';
import { compareExchange, load } from './atomics.ts';
import { LOCK_OWNER, LOCK_WAITERS } from './mutex.ts';
import { type AsyncWaitOptions, openAsyncWait, requireUserRank, sleepAsync, throwIfAborted } from './mutex-async.ts';
import { exclusiveRelease } from './rwlock.ts';
import { deadlineOf, remainingMs } from './sleep.ts';
import { HELD_KIND, type Thread } from './thread.ts';

/** What the functions here need of a `RwLock`. */
interface Lock {
  readonly address: WordAddress;
  readonly rank: number;
  tryEnterShared(): boolean;
}

/** Enters as a reader; false when the time ran out. Rejects with `ECANCELED` after an abort. */
export async function enterSharedAsync(thread: Thread, lock: Lock, options: AsyncWaitOptions = {}): Promise<boolean> {
  const { address, rank } = lock;
  requireUserRank('rwlock.enterSharedAsync', address, rank);
  const deadline = deadlineOf(thread, openAsyncWait('rwlock.enterSharedAsync', options));
  for (;;) {
    if (lock.tryEnterShared()) return true;
    if (!(await awaitWord(thread, address, deadline, options.signal, 'rwlock.enterSharedAsync'))) return false;
  }
}

/** Enters as the writer; false when the time ran out. Rejects with `ECANCELED` after an abort. */
export async function enterExclusiveAsync(
  thread: Thread,
  lock: Lock,
  options: AsyncWaitOptions = {},
): Promise<boolean> {
  const { address, rank } = lock;
  requireUserRank('rwlock.enterExclusiveAsync', address, rank);
  const deadline = deadlineOf(thread, openAsyncWait('rwlock.enterExclusiveAsync', options));
  for (;;) {
    thread.pushHeld(address, HELD_KIND.exclusive, rank, false);
    if (compareExchange(thread.words, address, 0, thread.tag) === 0) break;
    dropNewest(thread, address);
    if (!(await awaitWord(thread, address, deadline, options.signal, 'rwlock.enterExclusiveAsync'))) return false;
  }
  let drained = false;
  try {
    drained = await awaitReaders(thread, address, deadline, options.signal);
  } finally {
    if (!drained) {
      exclusiveRelease(thread, address);
      dropNewest(thread, address);
    }
  }
  return drained;
}

/** Awaits a change of the word while it has an owner; false when the time ran out. */
async function awaitWord(
  thread: Thread,
  address: WordAddress,
  deadline: number,
  signal: AbortSignal | undefined,
  call: string,
): Promise<boolean> {
  const word = load(thread.words, address);
  if ((word & LOCK_OWNER) === 0) return true;
  const remaining = remainingMs(thread, deadline);
  if (remaining <= 0) return false;
  const marked = word | LOCK_WAITERS;
  if (word !== marked && compareExchange(thread.words, address, word, marked) !== word) return true;
  await sleepAsync(thread, address, marked, remaining, signal);
  throwIfAborted(call, signal);
  return true;
}

/** Awaits that every word of readers' bits was seen empty. */
async function awaitReaders(
  thread: Thread,
  address: WordAddress,
  deadline: number,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const last = address + thread.region.geometry.lockLanes;
  for (let bits = address + 1; bits < last; bits++) {
    for (;;) {
      const readers = load(thread.words, bits);
      if (readers === 0) break;
      const remaining = remainingMs(thread, deadline);
      if (remaining <= 0) return false;
      await sleepAsync(thread, bits, readers, remaining, signal);
      throwIfAborted('rwlock.enterExclusiveAsync', signal);
    }
  }
  return true;
}

function dropNewest(thread: Thread, address: WordAddress): void {
  thread.dropHeld(thread.findHeld(address, HELD_KIND.exclusive, 'rwlock.enterExclusiveAsync'));
}
