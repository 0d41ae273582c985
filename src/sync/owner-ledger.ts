/**
 * The ledger: how much owners are charged for what arenas gave them.
 *
 * PROBLEM     An owner's charge and the allocation that it is for lie under different locks, and the thread that makes both
 *             may die between the two.
 * STRUCTURE   One row per owner under a mutex, and one pledge per slot: an amount that must come off the owner's charge.
 *
 *               allocate   ledger: used + n, pledge n     arena: the allocation, pledge none
 *               free       arena: no allocation, pledge n     ledger: used - n, pledge none
 *
 *             A pledge that a dead slot left, or that its thread could not use, is redeemed: used - n, pledge none.
 * INVARIANTS  I1 used is what all charged allocations and all pledges of the owner come to together.
 *             I2 used never exceeds the limit.
 * LOCKING     The ledger's lock (RANK.ownerLedger), taken inside arenas' locks while nothing is logged there. Pledges belong
 *             to their slot; stores go through the journal.
 * COSTS       A lock pair and six logged words each way, for arenas that charge.
 * FAILURE     `tryPledge` is false at the limit, and nothing is changed.
 * REJECTED    Charges that threads pay ahead (vpm/locked-charge.ts): bytes that differ by orders of magnitude have no
 *             sensible batch, and a limit must hold to the byte.
 * REFERENCES  sync/owners.ts.
 */

import { assert } from '../base/assert.ts';
import type { Region } from '../layout/region.ts';
import { mutexEnter, mutexExit } from './mutex.ts';
import { OWNER_RESOURCE, type OwnerIndex } from './owners.ts';
import { RANK } from './ranks.ts';
import type { SlotIndex, Thread } from './thread.ts';

/** Charges an owner for what this thread is about to allocate; false when the limit would be exceeded. */
export function tryPledge(thread: Thread, owner: OwnerIndex, amount: number): boolean {
  const { ownerLedger: ledger, ownerPledge: pledge } = thread.region.tables;
  const { journal, slot } = thread;
  assert(pledge.owner.get(slot) === 0, 'sync/owner-ledger: one pledge at a time');
  mutexEnter(thread, ledger.lock.address(owner), RANK.ownerLedger);
  const used = ledger.used.get(owner) + amount;
  const allowed = used <= ledgerLimit(thread.region, owner);
  if (allowed) {
    journal.setDouble(ledger.used, owner, used);
    if (used > ledger.peak.get(owner)) journal.setDouble(ledger.peak, owner, used);
    journal.setDouble(pledge.amount, slot, amount);
    journal.set(pledge.owner, slot, owner + 1);
  }
  mutexExit(thread, ledger.lock.address(owner));
  return allowed;
}

/** Says, in the critical section that makes the allocation, that the charge has found what it is for. */
export function settlePledge(thread: Thread): void {
  thread.journal.set(thread.region.tables.ownerPledge.owner, thread.slot, 0);
}

/** Says, in the critical section that frees an allocation, that its charge must be taken back: by `redeemPledge`. */
export function pledgeBack(thread: Thread, owner: OwnerIndex, amount: number): void {
  const { ownerPledge: pledge } = thread.region.tables;
  assert(pledge.owner.get(thread.slot) === 0, 'sync/owner-ledger: one pledge at a time');
  thread.journal.setDouble(pledge.amount, thread.slot, amount);
  thread.journal.set(pledge.owner, thread.slot, owner + 1);
}

/** Takes off an owner what a slot has pledged, if anything: this thread's slot, or a dead one. */
export function redeemPledge(thread: Thread, slot: SlotIndex = thread.slot): void {
  const { ownerLedger: ledger, ownerPledge: pledge } = thread.region.tables;
  const owner = pledge.owner.get(slot) - 1;
  if (owner < 0) return;
  mutexEnter(thread, ledger.lock.address(owner), RANK.ownerLedger);
  const used = ledger.used.get(owner) - pledge.amount.get(slot);
  assert(used >= 0, 'sync/owner-ledger I1: a charge never goes below zero');
  thread.journal.setDouble(ledger.used, owner, used);
  thread.journal.set(pledge.owner, slot, 0);
  mutexExit(thread, ledger.lock.address(owner));
}

/** What an owner is charged at the moment; exact at quiet points. */
export function ledgerUse(region: Region, owner: OwnerIndex): { readonly used: number; readonly peak: number } {
  const { used, peak } = region.tables.ownerLedger;
  return { used: used.get(owner), peak: peak.get(owner) };
}

/** The most that an owner may be charged; infinite without a limit. */
export function ledgerLimit(region: Region, owner: OwnerIndex): number {
  return region.tables.owner.limit.at(owner, OWNER_RESOURCE.arenaBytes);
}
