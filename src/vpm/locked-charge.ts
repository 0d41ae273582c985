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
 * INVARIANTS  I1 pinned <= prepaid.   I2 the owner is charged at least what its slots have prepaid, never more but for a
 *             batch whose slot died between charging and writing it down.
 * LOCKING     The slot's own columns; the owner's word is atomic.
 * COSTS       Two private additions in most cases.
 * FAILURE     `EDQUOT` when the owner's limit does not allow one more batch, however small.
 * REJECTED    Charging every mapping by itself: two contended atomics on each.
 * REFERENCES  Linux percpu_counter and memory cgroup stock.
 */

import { assert } from '../base/assert.ts';
import { showCall, VmError } from '../base/errors.ts';
import type { BoundTables } from '../layout/region.ts';
import { OWNER_RESOURCE, type OwnerIndex, ownerOf, tryCharge, uncharge } from '../sync/owners.ts';
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
    const paid = tryCharge(this.#thread, OWNER_RESOURCE.lockedFrames, batch) ? batch : this.#payExactly(missing);
    this.#account.prepaid.put(slot, this.#account.prepaid.get(slot) + paid);
  }

  /** The thread has another owner now: what is paid ahead moves there. */
  #follow(owner: OwnerIndex): void {
    const { slot } = this.#thread;
    const prepaid = this.#account.prepaid.get(slot);
    if (prepaid > 0) {
      this.#payExactly(prepaid);
      uncharge(this.#thread.region, this.#account.owner.get(slot), OWNER_RESOURCE.lockedFrames, prepaid);
    }
    this.#account.owner.put(slot, owner);
  }

  #payExactly(missing: number): number {
    if (tryCharge(this.#thread, OWNER_RESOURCE.lockedFrames, missing)) return missing;
    const { owner: owners } = this.#thread.region.tables;
    const owner = ownerOf(this.#thread);
    const values = { owner: owners.name.text(owner), frames: missing, pinnedHere: this.pinned };
    const limit = owners.limit.at(owner, OWNER_RESOURCE.lockedFrames);
    throw new VmError('EDQUOT', `${showCall('map', values)}: the owner's limit of locked frames is ${limit}`);
  }

  #refund(keep: number): void {
    const { slot } = this.#thread;
    const surplus = this.#account.prepaid.get(slot) - keep;
    if (surplus <= 0) return;
    this.#account.prepaid.put(slot, keep);
    uncharge(this.#thread.region, this.#account.owner.get(slot), OWNER_RESOURCE.lockedFrames, surplus);
  }
}

/** Gives back what a dead slot's mappings were charged for. */
export function recoverMappings(self: Thread, dead: SlotIndex): void {
  const account = self.region.tables.mapSlot;
  const prepaid = account.prepaid.get(dead);
  account.pinned.put(dead, 0);
  account.prepaid.put(dead, 0);
  if (prepaid > 0) uncharge(self.region, account.owner.get(dead), OWNER_RESOURCE.lockedFrames, prepaid);
}
