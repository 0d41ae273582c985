/**
 * Charging mappings to an owner.
 *
 * PROBLEM     Every mapping locks frames, which its owner may have only so many of; but a mapped hit takes less time than
 *             two changes of a word that all threads of the owner share.
 * STRUCTURE   Each slot pays ahead: it charges the owner for a batch, and then counts against that by itself.
 *
 *               owner.used = 64 + 32            slot A: prepaid 64, pinned 41      slot B: prepaid 32, pinned 3
 *
 *             Close to the limit a slot pays for exactly what it needs.
 * INVARIANTS  I1 pinned <= prepaid.   I2 the owner is charged what its slots have prepaid, and what is moving to it from
 *             another owner: charge and note change in one critical section.
 * LOCKING     The slot's own columns; batches are paid under the owner's lock.
 * COSTS       Two private additions in most cases.
 * FAILURE     `EDQUOT` when the owner's limit does not allow one more batch, however small.
 * REJECTED    Charging every mapping by itself: two contended atomics on each.
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

  constructor(thread: Thread) {
    this.#thread = thread;
    this.#account = thread.region.tables.mapSlot;
  }

  /** Frames that this slot's mappings hold. */
  get pinned(): number {
    return this.#account.pinned.get(this.#thread.slot);
  }

  /** Counts frames of a mapping. Throws `EDQUOT` when the owner's limit is reached, and then nothing is counted. */
  take(frames: number): void {
    const { slot } = this.#thread;
    const pinned = this.#account.pinned.get(slot) + frames;
    if (pinned > this.#account.prepaid.get(slot)) this.#pay(pinned);
    this.#account.pinned.put(slot, pinned);
  }

  /** Counts frames of a mapping back. */
  give(frames: number): void {
    const { slot } = this.#thread;
    const pinned = this.#account.pinned.get(slot) - frames;
    assert(pinned >= 0, 'vpm/locked-charge I1: frames are given back once');
    this.#account.pinned.put(slot, pinned);
    if (this.#account.prepaid.get(slot) - pinned > 2 * BATCH_FRAMES) this.#refund(pinned + BATCH_FRAMES);
  }

  /** Gives everything back that is paid ahead and not pinned: at detach. */
  settle(): void {
    this.#refund(this.pinned);
  }

  #pay(pinned: number): void {
    const { slot } = this.#thread;
    const owner = ownerOf(this.#thread);
    if (owner !== this.#account.owner.get(slot)) this.#follow(owner);
    const missing = pinned - this.#account.prepaid.get(slot);
    const batch = Math.max(missing, BATCH_FRAMES);
    if (!this.#tryPay(batch)) this.#payExactly(missing, () => this.#notePaid(missing));
  }

  /** The thread has another owner now: what is paid ahead moves there. */
  #follow(owner: OwnerIndex): void {
    const { journal, slot } = this.#thread;
    const account = this.#account;
    const prepaid = account.prepaid.get(slot);
    if (prepaid === 0) {
      account.owner.put(slot, owner);
      return;
    }
    this.#payExactly(prepaid, () => {
      journal.set(account.nextOwner, slot, owner);
      journal.set(account.moving, slot, prepaid);
    });
    unchargeNoted(this.#thread, account.owner.get(slot), OWNER_RESOURCE.lockedFrames, prepaid, () => {
      journal.set(account.owner, slot, owner);
      journal.set(account.moving, slot, 0);
    });
  }

  #tryPay(frames: number): boolean {
    const owner = ownerOf(this.#thread);
    return tryChargeNoted(this.#thread, owner, OWNER_RESOURCE.lockedFrames, frames, () => this.#notePaid(frames));
  }

  #notePaid(frames: number): void {
    const { journal, slot } = this.#thread;
    journal.set(this.#account.prepaid, slot, this.#account.prepaid.get(slot) + frames);
  }

  #payExactly(missing: number, note: () => void): void {
    const { owner: owners } = this.#thread.region.tables;
    const owner = ownerOf(this.#thread);
    if (tryChargeNoted(this.#thread, owner, OWNER_RESOURCE.lockedFrames, missing, note)) return;
    const values = { owner: owners.name.text(owner), frames: missing, pinnedHere: this.pinned };
    const limit = owners.limit.at(owner, OWNER_RESOURCE.lockedFrames);
    throw new VmError('EDQUOT', `${showCall('map', values)}: the owner's limit of locked frames is ${limit}`);
  }

  #refund(keep: number): void {
    const { slot } = this.#thread;
    const surplus = this.#account.prepaid.get(slot) - keep;
    if (surplus <= 0) return;
    unchargeNoted(this.#thread, this.#account.owner.get(slot), OWNER_RESOURCE.lockedFrames, surplus, () => {
      this.#thread.journal.set(this.#account.prepaid, slot, keep);
    });
  }
}

/** Gives back what a dead slot's mappings were charged for. */
export function recoverMappings(self: Thread, dead: SlotIndex): void {
  const account = self.region.tables.mapSlot;
  account.pinned.put(dead, 0);
  const moving = account.moving.get(dead);
  if (moving > 0) {
    unchargeNoted(self, account.nextOwner.get(dead), OWNER_RESOURCE.lockedFrames, moving, () => {
      self.journal.set(account.moving, dead, 0);
    });
  }
  const prepaid = account.prepaid.get(dead);
  if (prepaid === 0) return;
  unchargeNoted(self, account.owner.get(dead), OWNER_RESOURCE.lockedFrames, prepaid, () => {
    self.journal.set(account.prepaid, dead, 0);
  });
}
