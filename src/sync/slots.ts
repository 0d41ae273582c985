/**
 * Slots: which thread is which.
 *
 * PROBLEM     Per-thread data in shared memory needs a small number for each thread, which must not be given to a new
 *             thread before everything the old one left behind was cleaned up.
 * STRUCTURE   claim: 0 free -> watch id of the thread -> 0 after release, or -> RECOVERING -> 0 after its thread ended.
 *             A watch id above 0 stands for a message port that the monitor holds; below 0 it is minus the Linux thread
 *             id; `UNWATCHED` is a thread whose end nobody can see.
 * INVARIANTS  I1 a slot with claim 0 holds no lock, has an empty journal and waits on nothing.
 *             I2 a claim goes from 0 to an id by compare-and-swap only, so two threads never share a slot.
 * LOCKING     The claim is atomic; the rest of the row belongs to the claimer, and then to the takeover.
 * COSTS       Claiming looks at each slot once.
 * FAILURE     `ENOMEM` when all slots are taken; `EBUSY` when a slot is released that still holds locks.
 * REJECTED    A lock around the table: its owner could die before it has a slot to be known by. A state beside the
 *             claim: a thread could die between changing the one and the other.
 * REFERENCES  docs/glossary.md: slot, watch.
 */

import { fail, VmError } from '../base/errors.ts';
import type { Region } from '../layout/region.ts';
import { add, compareExchange, load, store } from './atomics.ts';
import { endTokens } from './cancel.ts';
import { clearJournal } from './journal.ts';
import { HELD_LANE, type SlotIndex, type Thread } from './thread.ts';

/** Claim of a slot whose thread has ended and is being cleaned up after. */
export const RECOVERING = -0x80000000;

/** Watch id of a thread whose end cannot be noticed. */
export const UNWATCHED = -0x7fffffff;

/** A new watch id for a port, unique in the region. */
export function newWatchId(region: Region): number {
  return add(region.words, region.tables.header.nextWatch.address(0), 1) + 1;
}

/** Claims a free slot. Throws `ENOMEM` when there is none. */
export function claimSlot(region: Region, watchId: number): SlotIndex {
  const { slot: slots } = region.tables;
  for (let slot = 0; slot < slots.rowCount; slot++) {
    if (load(region.words, slots.claim.address(slot)) !== 0) continue;
    if (compareExchange(region.words, slots.claim.address(slot), 0, watchId) !== 0) continue;
    return slot;
  }
  throw new VmError('ENOMEM', `attach: all ${slots.rowCount} slots are taken; boot with a larger \`slots\``);
}

/** Gives this thread's slot back. Throws `EBUSY` while it holds locks. */
export function releaseSlot(thread: Thread): void {
  const { slot } = thread;
  if (thread.heldCount !== 0) {
    fail('EBUSY', 'detach', { slot, locksHeld: thread.heldCount }, 'a thread that holds locks cannot detach');
  }
  resetSlot(thread.region, slot);
}

/** Clears a slot's row and frees it: after a release, or at the end of a recovery. */
export function resetSlot(region: Region, slot: SlotIndex): void {
  const { slot: slots } = region.tables;
  endTokens(region, slot);
  clearJournal(region, slot);
  slots.held.putAt(slot, HELD_LANE.count, 0);
  slots.waitAddress.put(slot, 0);
  slots.waitToken.put(slot, 0);
  slots.threadId.put(slot, 0);
  slots.threadStart.put(slot, 0);
  slots.owner.put(slot, 0);
  slots.ownerAfter.put(slot, 0);
  add(region.words, slots.generation.address(slot), 1);
  store(region.words, slots.claim.address(slot), 0);
}

/** The slots that a watch id claims: one for each time that its thread attached. */
export function findSlotsByWatch(region: Region, watchId: number): SlotIndex[] {
  const { claim } = region.tables.slot;
  const found: SlotIndex[] = [];
  for (let slot = 0; slot < region.geometry.slots; slot++) {
    if (load(region.words, claim.address(slot)) === watchId) found.push(slot);
  }
  return found;
}
