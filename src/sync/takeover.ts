/**
 * Takeover: cleaning up after a slot whose thread has ended.
 *
 * PROBLEM     A dead thread may own locks, have half-done stores under them, occupy places among waiters, and have
 *             swallowed a wake-up that was meant for somebody else.
 * STRUCTURE   1 the slot's state becomes `recovering`: only one takeover proceeds
 *             2 the journal is undone, newest store first: what its locks guard is as it was when they were taken
 *             3 its held-lock records are gone through, newest first: a lock word that names the slot is freed, a shared
 *               bit or waiter bit is cleared; sleepers on it are woken, all of them, and look again
 *             4 the word that it slept on is woken too: it may have been given a wake-up and died before acting on it
 *             5 the recoverers of the rooms give back what the slot owned
 *             6 the row is cleared, the claim ends
 * INVARIANTS  I1 step 2 is complete before any lock is freed.   I2 steps 2 to 4 may be repeated from the start.
 * LOCKING     Runs in the monitor's thread, which has a slot of its own for step 5.
 * COSTS       The journal's length, the held records, and what the rooms own.
 * FAILURE     An error in step 5 poisons the region: sharing a half-recovered structure is worse than stopping.
 * REJECTED    Letting the next locker recover: it would have to run code of rooms that it does not know.
 * REFERENCES  PTHREAD_MUTEX_ROBUST (EOWNERDEAD), without its burden on every caller.
 */

import { fail } from '../base/errors.ts';
import type { Region } from '../layout/region.ts';
import { ALL_WAITERS, add, and, compareExchange, exchange, load, notify, store } from './atomics.ts';
import { undoJournal } from './journal.ts';
import { LOCK_OWNER } from './mutex.ts';
import { poisonRegion } from './poison.ts';
import { resetSlot, SLOT_STATE } from './slots.ts';
import { HELD_KIND, HELD_LANE, type SlotIndex, type Thread } from './thread.ts';

/** Gives back what a room let a slot own. Runs with no lock held, in the thread of `self`. */
export type SlotRecoverer = (self: Thread, dead: SlotIndex) => void;

/** What a takeover did, for logs and tests. */
export interface TakeoverReport {
  readonly slot: SlotIndex;
  /** Stores that were undone. */
  readonly undone: number;
  /** Locks, shared holds and waiter places that were freed. */
  readonly released: number;
}

/** Cleans up after `dead`; see the file's header. Null when the slot is free or another takeover has it. */
export function takeOver(self: Thread, dead: SlotIndex, recoverers: readonly SlotRecoverer[]): TakeoverReport | null {
  const { region } = self;
  if (dead === self.slot) fail('EINVAL', 'takeOver', { dead }, 'a thread cannot take itself over');
  const state = region.tables.slot.state.address(dead);
  // 1.
  if (compareExchange(region.words, state, SLOT_STATE.active, SLOT_STATE.recovering) !== SLOT_STATE.active) return null;
  // 2.
  const undone = undoJournal(region, dead);
  // 3-4.
  const released = releaseHeld(region, dead);
  wakeBesides(region, dead);
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
  return { slot: dead, undone, released };
}

/** Frees every lock that a held-lock record and the lock word both ascribe to the slot. */
function releaseHeld(region: Region, dead: SlotIndex): number {
  const { words } = region;
  const { held } = region.tables.slot;
  const lane = dead >>> 5;
  const bit = 1 << (dead & 31);
  let released = 0;
  for (let record = held.at(dead, HELD_LANE.count) - 1; record >= 0; record--) {
    const recordLane = HELD_LANE.first + record * HELD_LANE.size;
    const address = held.at(dead, recordLane + HELD_LANE.address);
    const kind = held.at(dead, recordLane + HELD_LANE.kind);
    if (kind === HELD_KIND.exclusive) {
      if ((load(words, address) & LOCK_OWNER) === dead + 1) {
        exchange(words, address, 0);
        released++;
      }
    } else {
      const bits = address + 1 + lane;
      if ((and(words, bits, ~bit) & bit) !== 0) released++;
      notify(words, bits, ALL_WAITERS);
    }
    // A waiter of a condition that died after its signal took that signal with it: everybody looks again.
    if (kind === HELD_KIND.condition) add(words, address, 1);
    notify(words, address, ALL_WAITERS);
    held.putAt(dead, HELD_LANE.count, record);
  }
  return released;
}

/** Wakes everybody on the word that the slot was waiting for. */
function wakeBesides(region: Region, dead: SlotIndex): void {
  const waited = region.tables.slot.waitAddress;
  const address = waited.get(dead) - 1;
  if (address >= 0) notify(region.words, address, ALL_WAITERS);
  waited.put(dead, 0);
}

/** Marks a slot as dead without cleaning up: for regions that are poisoned anyway. */
export function abandonSlot(region: Region, dead: SlotIndex): void {
  store(region.words, region.tables.slot.state.address(dead), SLOT_STATE.recovering);
}
