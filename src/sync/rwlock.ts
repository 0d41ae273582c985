/**
 * Readers/writer lock with one bit per reading slot.
 *
 * PROBLEM     Many readers or one writer, recoverable when any of them dies: a count of readers could not say whose
 *             share to take back.
 * STRUCTURE   `lockLanes` words:   lock word (as in mutex.ts) | readers of slots 0-31 | readers of slots 32-63
 *
 *               reader   1 set own bit   2 no owner in the word: in. Else clear the bit, wake the writer if that was the
 *                        last bit, sleep on the word, start again
 *               writer   1 take the word like a mutex   2 wait until no bit is set, sleeping on the words of bits
 *
 *             Each side publishes its own mark before it reads the other's, so one of two racing sides sees the other.
 *             A writer that owns the word keeps new readers out while it waits for old ones: writers are preferred.
 * INVARIANTS  I1 a reader is in iff its bit was set while the word named no owner.
 *             I2 the writer is in iff it owns the word and saw every word of bits empty after taking it.
 *             I3 a writer that sleeps for readers is woken by the reader that clears the last bit of a word.
 * LOCKING     Words are changed only here, in rwlock-async.ts, and by the takeover. The functions here write no
 *             held-lock record; the class in rwlock-class.ts does.
 * COSTS       A shared pair: two read-modify-writes and two loads, about 32 ns; readers of 32 slots share a line.
 *             Every notification goes to all sleepers, so nobody depends on what another thread does with its wake-up.
 * FAILURE     `EDEADLK` for a writer that is also a reader, or the other way round; `ECANCELED`, `EPOISONED`.
 * REJECTED    One word with owner and bits: 32 slots would not fit beside an owner. A count: see the problem.
 * REFERENCES  DESIGN of Linux' percpu-rwsem and of hazard bits; Dekker's flags for the two-sided check.
 */

import { fail } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { WordAddress } from '../layout/column.ts';
import { ALL_WAITERS, and, compareExchange, exchange, FOREVER, load, notify, or } from './atomics.ts';
import type { CancelToken } from './cancel.ts';
import { faultPoint } from './fault.ts';
import { LOCK_OWNER, LOCK_WAITERS } from './mutex.ts';
import { deadlineOf, remainingMs, sleepOn } from './sleep.ts';
import type { Thread } from './thread.ts';

/** Sets this slot's bit if no writer is in or coming. Writes no record. */
export function trySharedHold(thread: Thread, address: WordAddress): boolean {
  const { words, bit } = thread;
  const bits = address + 1 + thread.bitLane;
  or(words, bits, bit);
  if (VERIFY) faultPoint(thread, 'sync.rwlock.shared');
  if ((load(words, address) & LOCK_OWNER) === 0) return true;
  sharedRelease(thread, address);
  return false;
}

/** Clears this slot's bit and wakes a writer that waited for it. */
export function sharedRelease(thread: Thread, address: WordAddress): void {
  const { words, bit } = thread;
  const bits = address + 1 + thread.bitLane;
  const before = and(words, bits, ~bit);
  if (VERIFY) faultPoint(thread, 'sync.rwlock.sharedReleased');
  if ((before & ~bit) === 0 && (load(words, address) & LOCK_OWNER) !== 0) notify(words, bits, ALL_WAITERS);
}

/** Sets this slot's bit, sleeping while writers are in; false when `timeoutMs` ran out. Writes no record. */
export function sharedHold(
  thread: Thread,
  address: WordAddress,
  timeoutMs: number = FOREVER,
  token?: CancelToken,
): boolean {
  if (trySharedHold(thread, address)) return true;
  const { words } = thread;
  thread.countContended();
  const deadline = deadlineOf(thread, timeoutMs);
  try {
    for (;;) {
      const word = load(words, address);
      if ((word & LOCK_OWNER) === thread.tag) failOwn(thread, address, 'rwlock.enterShared', 'exclusively');
      if ((word & LOCK_OWNER) !== 0) {
        const remaining = remainingMs(thread, deadline);
        if (remaining <= 0) return false;
        const marked = word | LOCK_WAITERS;
        if (word !== marked && compareExchange(words, address, word, marked) !== word) continue;
        const result = sleepOn(thread, address, marked, remaining, token);
        if (result === 'timed-out') return false;
        if (result === 'cancelled') token?.throwIfCancelled('rwlock.enterShared');
      }
      if (trySharedHold(thread, address)) return true;
    }
  } finally {
    thread.clearWait();
  }
}

/** Takes the word and waits for readers to leave; false when `timeoutMs` ran out. Writes no record. */
export function exclusiveHold(
  thread: Thread,
  address: WordAddress,
  timeoutMs: number = FOREVER,
  token?: CancelToken,
): boolean {
  const { words, tag } = thread;
  if ((load(words, address + 1 + thread.bitLane) & thread.bit) !== 0)
    failOwn(thread, address, 'rwlock.enterExclusive', 'shared');
  const deadline = deadlineOf(thread, timeoutMs);
  if (compareExchange(words, address, 0, tag) !== 0 && !takeWord(thread, address, deadline, token)) return false;
  if (VERIFY) faultPoint(thread, 'sync.rwlock.owner');
  let drained = false;
  try {
    drained = drainReaders(thread, address, deadline, token);
  } finally {
    thread.clearWait();
    if (!drained) exclusiveRelease(thread, address);
  }
  if (VERIFY) faultPoint(thread, 'sync.rwlock.exclusive');
  return drained;
}

/** Takes the word if no writer and no reader is in. Writes no record. */
export function tryExclusiveHold(thread: Thread, address: WordAddress): boolean {
  const { words } = thread;
  if (compareExchange(words, address, 0, thread.tag) !== 0) return false;
  if (!anyReader(thread, address)) return true;
  exclusiveRelease(thread, address);
  return false;
}

/** Gives the word back and wakes everybody who waits for it. */
export function exclusiveRelease(thread: Thread, address: WordAddress): void {
  if (exchange(thread.words, address, 0) !== thread.tag) notify(thread.words, address, ALL_WAITERS);
}

/** From exclusive to shared without a gap in which another writer could come in. */
export function downgradeHold(thread: Thread, address: WordAddress): void {
  or(thread.words, address + 1 + thread.bitLane, thread.bit);
  if (VERIFY) faultPoint(thread, 'sync.rwlock.downgraded');
  exclusiveRelease(thread, address);
}

/** From shared to exclusive if no other writer is in and no other reader; the shared hold stays otherwise. */
export function tryUpgradeHold(thread: Thread, address: WordAddress): boolean {
  const { words, bit } = thread;
  if (compareExchange(words, address, 0, thread.tag) !== 0) return false;
  and(words, address + 1 + thread.bitLane, ~bit);
  if (!anyReader(thread, address)) return true;
  downgradeHold(thread, address);
  return false;
}

/** True when any slot's bit is set. */
export function anyReader(thread: Thread, address: WordAddress): boolean {
  for (let word = 1; word < thread.region.geometry.lockLanes; word++) {
    if (load(thread.words, address + word) !== 0) return true;
  }
  return false;
}

/** Writer's step 1 when the word was not free. */
function takeWord(thread: Thread, address: WordAddress, deadline: number, token: CancelToken | undefined): boolean {
  const { words, tag } = thread;
  thread.countContended();
  if ((load(words, address) & LOCK_OWNER) === tag) failOwn(thread, address, 'rwlock.enterExclusive', 'exclusively');
  for (let spins = thread.spinLimit; spins > 0; spins--) {
    if (load(words, address) === 0 && compareExchange(words, address, 0, tag) === 0) return true;
  }
  try {
    for (;;) {
      const word = load(words, address);
      if ((word & LOCK_OWNER) === 0) {
        if (compareExchange(words, address, word, tag) === word) return true;
        continue;
      }
      const remaining = remainingMs(thread, deadline);
      if (remaining <= 0) return false;
      const marked = word | LOCK_WAITERS;
      if (word !== marked && compareExchange(words, address, word, marked) !== word) continue;
      const result = sleepOn(thread, address, marked, remaining, token);
      if (result === 'timed-out') return false;
      if (result === 'cancelled') token?.throwIfCancelled('rwlock.enterExclusive');
    }
  } finally {
    thread.clearWait();
  }
}

/** Writer's step 2: waits until every word of bits was seen empty. */
function drainReaders(thread: Thread, address: WordAddress, deadline: number, token: CancelToken | undefined): boolean {
  const { words } = thread;
  const last = address + thread.region.geometry.lockLanes;
  for (let bits = address + 1; bits < last; bits++) {
    for (;;) {
      const readers = load(words, bits);
      if (readers === 0) break;
      const remaining = remainingMs(thread, deadline);
      if (remaining <= 0) return false;
      const result = sleepOn(thread, bits, readers, remaining, token);
      if (result === 'timed-out') return false;
      if (result === 'cancelled') token?.throwIfCancelled('rwlock.enterExclusive');
    }
  }
  return true;
}

function failOwn(thread: Thread, address: WordAddress, call: string, held: string): never {
  fail('EDEADLK', call, { lock: address, slot: thread.slot }, `a slot that holds the lock ${held} cannot wait for it`);
}
