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
 * LOCKING     Words are changed only here and by the takeover.
 * COSTS       A shared pair: two read-modify-writes and two loads, about 32 ns; readers of 32 slots share a line.
 * FAILURE     `EDEADLK` for a writer that is also a reader, or the other way round; `EPOISONED`. Time-outs wake others.
 * REJECTED    One word with owner and bits: 32 slots would not fit beside an owner. A count: see the problem.
 * REFERENCES  DESIGN of Linux' percpu-rwsem and of hazard bits; Dekker's flags for the two-sided check.
 */

import { fail } from '../base/errors.ts';
import type { WordAddress } from '../layout/column.ts';
import { ALL_WAITERS, and, compareExchange, exchange, FOREVER, load, notify, or } from './atomics.ts';
import { LOCK_OWNER, LOCK_WAITERS } from './mutex.ts';
import { sleepOn } from './sleep.ts';
import { HELD_KIND, type Thread } from './thread.ts';

/** Sets this slot's bit if no writer is in or coming. Writes no record. */
export function trySharedHold(thread: Thread, address: WordAddress): boolean {
  const { words, bit } = thread;
  const bits = address + 1 + thread.bitLane;
  or(words, bits, bit);
  if ((load(words, address) & LOCK_OWNER) === 0) return true;
  sharedRelease(thread, address);
  return false;
}

/** Clears this slot's bit and wakes a writer that waited for it. */
export function sharedRelease(thread: Thread, address: WordAddress): void {
  const { words, bit } = thread;
  const bits = address + 1 + thread.bitLane;
  const before = and(words, bits, ~bit);
  if ((before & ~bit) === 0 && (load(words, address) & LOCK_OWNER) !== 0) notify(words, bits, ALL_WAITERS);
}

/** Sets this slot's bit, sleeping while writers are in; false when `timeoutMs` ran out. Writes no record. */
export function sharedHold(thread: Thread, address: WordAddress, timeoutMs: number = FOREVER): boolean {
  if (trySharedHold(thread, address)) return true;
  const { words } = thread;
  thread.countContended();
  const deadline = timeoutMs === FOREVER ? FOREVER : thread.clock.now() + timeoutMs;
  for (;;) {
    const word = load(words, address);
    if ((word & LOCK_OWNER) === thread.tag) failOwn(thread, address, 'shared', 'exclusively');
    if ((word & LOCK_OWNER) !== 0) {
      const remaining = deadline === FOREVER ? FOREVER : deadline - thread.clock.now();
      const marked = word | LOCK_WAITERS;
      if (remaining <= 0) return leave(thread, address);
      if (word !== marked && compareExchange(words, address, word, marked) !== word) continue;
      if (sleepOn(thread, address, marked, remaining) === 'timed-out') return leave(thread, address);
    }
    if (trySharedHold(thread, address)) break;
  }
  thread.clearWait();
  return true;
}

/** Takes the word and waits for readers to leave; false when `timeoutMs` ran out. Writes no record. */
export function exclusiveHold(thread: Thread, address: WordAddress, timeoutMs: number = FOREVER): boolean {
  const { words, tag } = thread;
  if ((load(words, address + 1 + thread.bitLane) & thread.bit) !== 0) failOwn(thread, address, 'exclusive', 'shared');
  const deadline = timeoutMs === FOREVER ? FOREVER : thread.clock.now() + timeoutMs;
  if (compareExchange(words, address, 0, tag) !== 0 && !takeWord(thread, address, deadline)) return false;
  if (drainReaders(thread, address, deadline)) return true;
  exclusiveRelease(thread, address);
  return false;
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
function takeWord(thread: Thread, address: WordAddress, deadline: number): boolean {
  const { words, tag } = thread;
  thread.countContended();
  if ((load(words, address) & LOCK_OWNER) === tag) failOwn(thread, address, 'exclusive', 'exclusively');
  for (let spins = thread.spinLimit; spins > 0; spins--) {
    if (load(words, address) === 0 && compareExchange(words, address, 0, tag) === 0) return true;
  }
  for (;;) {
    const word = load(words, address);
    if ((word & LOCK_OWNER) === 0) {
      if (compareExchange(words, address, word, tag | LOCK_WAITERS) === word) break;
      continue;
    }
    const remaining = deadline === FOREVER ? FOREVER : deadline - thread.clock.now();
    if (remaining <= 0) return leave(thread, address);
    const marked = word | LOCK_WAITERS;
    if (word !== marked && compareExchange(words, address, word, marked) !== word) continue;
    if (sleepOn(thread, address, marked, remaining) === 'timed-out') return leave(thread, address);
  }
  thread.clearWait();
  return true;
}

/** Writer's step 2. */
function drainReaders(thread: Thread, address: WordAddress, deadline: number): boolean {
  const { words } = thread;
  const last = address + thread.region.geometry.lockLanes;
  for (let bits = address + 1; bits < last; bits++) {
    for (;;) {
      const readers = load(words, bits);
      if (readers === 0) break;
      const remaining = deadline === FOREVER ? FOREVER : deadline - thread.clock.now();
      if (remaining <= 0 || sleepOn(thread, bits, readers, remaining) === 'timed-out') {
        thread.clearWait();
        return false;
      }
      thread.clearWait();
    }
  }
  return true;
}

/** Gives up waiting for the word; a wake-up that came here is passed on. */
function leave(thread: Thread, address: WordAddress): boolean {
  notify(thread.words, address, ALL_WAITERS);
  thread.clearWait();
  return false;
}

function failOwn(thread: Thread, address: WordAddress, wanted: string, held: string): never {
  const rule = `a slot that holds the lock ${held} cannot wait for it (${wanted})`;
  fail('EDEADLK', 'rwlock.enter', { lock: address, slot: thread.slot }, rule);
}

/** A readers/writer lock of one thread's view. Shared holds nest; the nesting is private to the thread. */
export class RwLock {
  readonly #thread: Thread;
  /** Where the lock word lies; the words with readers' bits follow it. */
  readonly address: WordAddress;
  /** Its place in the lock order; see ranks.ts. */
  readonly rank: number;
  #sharedDepth = 0;

  constructor(thread: Thread, address: WordAddress, rank: number) {
    this.#thread = thread;
    this.address = address;
    this.rank = rank;
  }

  /** Enters as a reader; false when `timeoutMs` ran out. Throws `EDEADLK` while this slot is the writer. */
  enterShared(timeoutMs: number = FOREVER): boolean {
    if (this.#sharedDepth === 0) {
      this.#thread.pushHeld(this.address, HELD_KIND.shared, this.rank, true);
      if (!sharedHold(this.#thread, this.address, timeoutMs)) return this.#forget(HELD_KIND.shared);
    }
    this.#sharedDepth++;
    return true;
  }

  /** Enters as a reader if no writer is in or coming. */
  tryEnterShared(): boolean {
    if (this.#sharedDepth === 0) {
      this.#thread.pushHeld(this.address, HELD_KIND.shared, this.rank, false);
      if (!trySharedHold(this.#thread, this.address)) return this.#forget(HELD_KIND.shared);
    }
    this.#sharedDepth++;
    return true;
  }

  /** Leaves as a reader. */
  exitShared(): void {
    const record = this.#thread.findHeld(this.address, HELD_KIND.shared, 'rwlock.exitShared');
    this.#sharedDepth--;
    if (this.#sharedDepth > 0) return;
    sharedRelease(this.#thread, this.address);
    this.#thread.dropHeld(record);
  }

  /** Enters as the writer; false when `timeoutMs` ran out. Throws `EDEADLK` while this slot is in already. */
  enterExclusive(timeoutMs: number = FOREVER): boolean {
    this.#thread.pushHeld(this.address, HELD_KIND.exclusive, this.rank, true);
    try {
      return exclusiveHold(this.#thread, this.address, timeoutMs) || this.#forget(HELD_KIND.exclusive);
    } catch (error) {
      this.#forget(HELD_KIND.exclusive);
      throw error;
    }
  }

  /** Enters as the writer if nobody is in. */
  tryEnterExclusive(): boolean {
    this.#thread.pushHeld(this.address, HELD_KIND.exclusive, this.rank, false);
    return tryExclusiveHold(this.#thread, this.address) || this.#forget(HELD_KIND.exclusive);
  }

  /** Leaves as the writer and commits what was journaled. */
  exitExclusive(): void {
    const record = this.#thread.findHeld(this.address, HELD_KIND.exclusive, 'rwlock.exitExclusive');
    this.#thread.commitHeld(record);
    exclusiveRelease(this.#thread, this.address);
    this.#thread.dropHeld(record);
  }

  #forget(kind: number): boolean {
    this.#thread.dropHeld(this.#thread.findHeld(this.address, kind, 'rwlock.enter'));
    return false;
  }
}
