/**
 * Charging mappings to an owner.
 *
 * PROBLEM     Every mapping locks frames, which its owner may have only so many of; but a mapped hit takes less time than
 *             two changes of a word that all threads of the owner share.
 * STRUCTURE   Each slot pays ahead: it charges the owner for a batch, and then counts against that by itself.
 *
 *               owner.used = 64 + 32            slot A: prepaid 64, pinned 41      slot B: prepaid 32, pinned 3
 *
 *             Close to the limit a slot pays for exactly what it needs. A slot has an account with each owner: when its
 *             thread turns to another one, what is pinned stays charged to the old owner, and what was paid ahead goes back.
 * INVARIANTS  I1 pinned <= prepaid.   I2 an owner is charged what its slots have prepaid: charge and note change in one
 *             critical section.
 * LOCKING     The slot's own columns; batches are paid under the owner's lock.
 * COSTS       Two private additions in most cases.
 * FAILURE     `EDQUOT` when the owner's limit does not allow one more batch, however small.
 * REJECTED    Charging every mapping by itself: two contended atomics on each. One account for each slot, that moves with the
 *             thread: it was tested against no limit until the next batch, and pins could not stay with who had made them.
 * REFERENCES  Linux percpu_counter and memory cgroup stock.
 */

import { assert } from '../base/assert.ts';
import { showCall, VmError } from '../base/errors.ts';
import type { BoundTables } from '../layout/region.ts';
import { OWNER_RESOURCE, type OwnerIndex, ownerOf, tryChargeNoted, unchargeNoted } from '../sync/owners.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';

/** Frames paid for at a time. */
const BATCH_FRAMES = 64;

/** This slot's account. */
export class LockedCharge {
  readonly #thread: Thread;
  readonly #account: BoundTables['mapSlot'];
  readonly #owners: number;

  constructor(thread: Thread) {
    this.#thread = thread;
    this.#account = thread.region.tables.mapSlot;
    this.#owners = thread.region.geometry.owners;
  }

  /** Frames that this slot's mappings hold. */
  get pinned(): number {
    let sum = 0;
    for (let owner = 0; owner < this.#owners; owner++) sum += this.#account.pinned.at(this.#thread.slot, owner);
    return sum;
  }

  /**
   * Counts frames of a mapping; returns the owner that is charged. Throws `EDQUOT` in the name of `call` when the owner's
   * limit is reached, and then nothing is counted.
   */
  take(frames: number, call: string): OwnerIndex {
    const { slot } = this.#thread;
    const owner = ownerOf(this.#thread);
    const last = this.#account.owner.get(slot);
    if (owner !== last) {
      this.#refund(last, 0);
      this.#account.owner.put(slot, owner);
    }
    const pinned = this.#account.pinned.at(slot, owner) + frames;
    if (pinned > this.#account.prepaid.at(slot, owner)) this.#pay(owner, pinned, call);
    this.#account.pinned.putAt(slot, owner, pinned);
    return owner;
  }

  /** Counts frames of a mapping back, for the owner that was charged. */
  give(frames: number, owner: OwnerIndex): void {
    const { slot } = this.#thread;
    const pinned = this.#account.pinned.at(slot, owner) - frames;
    assert(pinned >= 0, 'vpm/locked-charge I1: frames are given back once');
    this.#account.pinned.putAt(slot, owner, pinned);
    if (owner !== ownerOf(this.#thread)) this.#refund(owner, 0);
    else if (this.#account.prepaid.at(slot, owner) - pinned > 2 * BATCH_FRAMES) this.#refund(owner, BATCH_FRAMES);
  }

  /** Counts frames of mappings back that do not know who was charged: the owner charged last first, then all others. */
  giveAny(frames: number): void {
    const { slot } = this.#thread;
    const last = this.#account.owner.get(slot);
    let left = frames - this.#giveUpTo(frames, last);
    for (let owner = 0; left > 0 && owner < this.#owners; owner++) left -= this.#giveUpTo(left, owner);
    assert(left === 0, 'vpm/locked-charge I1: frames are given back once');
  }

  /** Gives everything back that is paid ahead and not pinned: at detach, and for another owner. */
  settle(): void {
    for (let owner = 0; owner < this.#owners; owner++) this.#refund(owner, 0);
  }

  #giveUpTo(frames: number, owner: OwnerIndex): number {
    const given = Math.min(frames, this.#account.pinned.at(this.#thread.slot, owner));
    if (given > 0) this.give(given, owner);
    return given;
  }

  #pay(owner: OwnerIndex, pinned: number, call: string): void {
    const { owner: owners } = this.#thread.region.tables;
    const missing = pinned - this.#account.prepaid.at(this.#thread.slot, owner);
    if (this.#tryPay(owner, Math.max(missing, BATCH_FRAMES)) || this.#tryPay(owner, missing)) return;
    const values = { owner: owners.name.text(owner), frames: missing, pinnedHere: this.pinned };
    const limit = owners.limit.at(owner, OWNER_RESOURCE.lockedFrames);
    throw new VmError('EDQUOT', `${showCall(call, values)}: the owner's limit of locked frames is ${limit}`);
  }

  #tryPay(owner: OwnerIndex, frames: number): boolean {
    const { journal, slot } = this.#thread;
    const { prepaid } = this.#account;
    return tryChargeNoted(this.#thread, owner, OWNER_RESOURCE.lockedFrames, frames, () => {
      journal.setAt(prepaid, slot, owner, prepaid.at(slot, owner) + frames);
    });
  }

  /** Gives back what an owner was charged beyond what is pinned and `spare`. */
  #refund(owner: OwnerIndex, spare: number): void {
    const { journal, slot } = this.#thread;
    const { prepaid, pinned } = this.#account;
    const keep = pinned.at(slot, owner) + spare;
    const surplus = prepaid.at(slot, owner) - keep;
    if (surplus <= 0) return;
    unchargeNoted(this.#thread, owner, OWNER_RESOURCE.lockedFrames, surplus, () => {
      journal.setAt(prepaid, slot, owner, keep);
    });
  }
}

/** Gives back what a dead slot's mappings were charged for. */
export function recoverMappings(self: Thread, dead: SlotIndex): void {
  const { pinned, prepaid } = self.region.tables.mapSlot;
  for (let owner = 0; owner < self.region.geometry.owners; owner++) {
    pinned.putAt(dead, owner, 0);
    const paid = prepaid.at(dead, owner);
    if (paid === 0) continue;
    unchargeNoted(self, owner, OWNER_RESOURCE.lockedFrames, paid, () => self.journal.setAt(prepaid, dead, owner, 0));
  }
}
