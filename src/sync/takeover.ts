/**
 * Takeover: cleaning up after a slot whose thread has ended.
 *
 * PROBLEM     A dead thread may own locks, have half-done stores under them, occupy places among waiters, and have
 *             swallowed a wake-up that was meant for somebody else.
 * STRUCTURE   1 the slot's claim goes from the dead thread's watch id to RECOVERING: only one takeover proceeds
 *             2 the journal is undone, newest store first: what its locks guard is as it was when they were taken
 *             3 its held-lock records are gone through, newest first: a lock word that names the slot is freed, a shared
 *               bit or waiter bit is cleared; sleepers on it are woken, all of them, and look again; a condition whose
 *               signal brought the slot under a mutex is signalled again, to all
 *             4 the word that it slept on is woken too: it may have been given a wake-up and died before acting on it
 *             5 the recoverers of the rooms give back what the slot owned
 *             6 the row is cleared, the claim ends
 * INVARIANTS  I1 step 2 is complete before any lock is freed.   I2 steps 2 to 4 may be repeated from the start.
 * LOCKING     Steps 1 to 4 take no lock, so that the monitor can do them for any number of threads that die while step 5 of
 *             another waits for what they hold. Steps 5 and 6 run in the daemon worker, which has a slot of its own.
 * COSTS       The journal's length, the held records, and what the rooms own.
 * FAILURE     An error in step 5 poisons the region: sharing a half-recovered structure is worse than stopping.
 * REJECTED    All steps in one thread: recovering one slot would wait for ever for a lock of another dead slot.
 *             Letting the next locker recover: it would have to run code of rooms that it does not know.
 * REFERENCES  PTHREAD_MUTEX_ROBUST (EOWNERDEAD), without its burden on every caller.
 */

import { fail } from '../base/errors.ts';
import type { WordAddress } from '../layout/column.ts';
import type { Region } from '../layout/region.ts';
import { ALL_WAITERS, add, and, compareExchange, exchange, load, notify } from './atomics.ts';
import { SEQUENCE_STEP } from './condvar.ts';
import { undoJournal } from './journal.ts';
import { LOCK_OWNER } from './mutex.ts';
import { poisonRegion } from './poison.ts';
import { RECOVERING, resetSlot } from './slots.ts';
import { HELD_KIND, HELD_KIND_MASK, HELD_LANE, type SlotIndex, type Thread } from './thread.ts';

/**
 * Gives back what a room let a slot own. Runs with no lock held, in the thread of `self`. It may take locks, but waits for
 * nothing that only the recovery of another slot gives back, such as page locks.
 */
export type SlotRecoverer = (self: Thread, dead: SlotIndex) => void;

/** What a takeover did, for logs and tests. */
export interface TakeoverReport {
  readonly slot: SlotIndex;
  /** Stores that were undone. */
  readonly undone: number;
  /** Locks and shared holds that were freed. */
  readonly released: number;
}

/** Steps 1 to 6 in one thread. Null when `releaseDead` says so. */
export function takeOver(
  self: Thread,
  dead: SlotIndex,
  recoverers: readonly SlotRecoverer[],
  watchId?: number,
): TakeoverReport | null {
  const report = releaseDead(self, dead, watchId);
  if (report !== null) finishTakeover(self, dead, recoverers);
  return report;
}

/**
 * Steps 1 to 4: undoes what the slot had half done and frees its locks. Takes no lock. Null when the slot is free, another
 * takeover has it, or it is no longer claimed by `watchId`, the watch id of the thread that has ended (by default whoever
 * claims the slot now).
 */
export function releaseDead(self: Thread, dead: SlotIndex, watchId?: number): TakeoverReport | null {
  const { region } = self;
  if (dead === self.slot) fail('EINVAL', 'takeOver', { dead }, 'a thread cannot take itself over');
  const claim = region.tables.slot.claim.address(dead);
  // 1.
  const ended = watchId ?? load(region.words, claim);
  if (ended === 0 || ended === RECOVERING) return null;
  if (compareExchange(region.words, claim, ended, RECOVERING) !== ended) return null;
  // 2.
  const undone = undoJournal(region, dead);
  // 3-4.
  const released = releaseHeld(region, dead);
  wakeBesides(region, dead);
  return { slot: dead, undone, released };
}

/** Steps 5 and 6, for a slot that `releaseDead` has answered for: may wait for locks, also of threads that die meanwhile. */
export function finishTakeover(self: Thread, dead: SlotIndex, recoverers: readonly SlotRecoverer[]): void {
  const { region } = self;
  // 5.
  try {
    for (const recover of recoverers) recover(self, dead);
  } catch (error) {
    poisonRegion(region, `recovery of slot ${dead} failed: ${error instanceof Error ? error.message : String(error)}`);
    throw error;
  }
  // 6.
  const recovered = region.tables.slot.recovered;
  recovered.put(dead, recovered.get(dead) + 1);
  resetSlot(region, dead);
}

/** Frees every lock that a held-lock record and the lock word both ascribe to the slot. */
function releaseHeld(region: Region, dead: SlotIndex): number {
  const { words } = region;
  const { held } = region.tables.slot;
  let released = 0;
  for (let record = held.at(dead, HELD_LANE.count) - 1; record >= 0; record--) {
    const lane = HELD_LANE.first + record * HELD_LANE.size;
    const address = held.at(dead, lane + HELD_LANE.address);
    const kind = held.at(dead, lane + HELD_LANE.kind) & HELD_KIND_MASK;
    if (kind === HELD_KIND.exclusive) {
      if ((load(words, address) & LOCK_OWNER) === dead + 1) {
        exchange(words, address, 0);
        released++;
      }
      const condition = held.at(dead, lane + HELD_LANE.detail) - 1;
      if (condition >= 0) signalAgain(region, dead, condition);
    } else if (clearBit(region, dead, address)) {
      released++;
    }
    notify(words, address, ALL_WAITERS);
    held.putAt(dead, HELD_LANE.count, record);
  }
  return released;
}

/** Clears the slot's bit behind a lock word or a condition, and wakes who waits for that. True when it was set. */
function clearBit(region: Region, dead: SlotIndex, address: WordAddress): boolean {
  const bits = address + 1 + (dead >>> 5);
  const bit = 1 << (dead & 31);
  const before = and(region.words, bits, ~bit);
  notify(region.words, bits, ALL_WAITERS);
  return (before & bit) !== 0;
}

/** A waiter that died after its signal may have taken that signal with it: everybody looks again. */
function signalAgain(region: Region, dead: SlotIndex, condition: WordAddress): void {
  clearBit(region, dead, condition);
  add(region.words, condition, SEQUENCE_STEP);
  notify(region.words, condition, ALL_WAITERS);
}

/** Wakes everybody on the word that the slot was waiting for. */
function wakeBesides(region: Region, dead: SlotIndex): void {
  const waited = region.tables.slot.waitAddress;
  const address = waited.get(dead) - 1;
  if (address >= 0) notify(region.words, address, ALL_WAITERS);
  waited.put(dead, 0);
}
