/**
 * Charges of owners that a room makes in its own critical sections, all under one and the same lock.
 *
 * PROBLEM     A room that takes and gives thousands of pieces a millisecond cannot afford a lock pair for each charge.
 * STRUCTURE   A charge is used[resource] + used[resource + UNDER_LOCK]: this changes the first part, `tryChargeUnderLock` the other.
 *             The columns are looked up once, when a thread attaches.
 * INVARIANTS  Those of owners.ts.
 * LOCKING     All sections that change the part of one resource are under one and the same lock. Who has a limit is charged by
 *             ordered stores; for who has none the order between the two parts does not matter, and the stores are plain.
 * COSTS       One logged word; 30 to 40 ns.
 * FAILURE     Assertions. The room asks `fits` itself.
 * REJECTED    Counting beside the owner and adding up later: a death would lose what was not yet added.
 * REFERENCES  owners.ts.
 */

import { assert } from '../base/assert.ts';
import type { BoundTables } from '../layout/region.ts';
import { load, store } from './atomics.ts';
import type { Journal } from './journal.ts';
import { isRegistered, NO_LIMIT, type OwnerIndex, UNDER_LOCK } from './owners.ts';
import type { Thread } from './thread.ts';

/** Charges of one resource as one thread makes them in sections. */
export class OwnerSection {
  readonly #thread: Thread;
  readonly #slotOwner: BoundTables['slot']['owner'];
  readonly #limit: BoundTables['owner']['limit'];
  readonly #used: BoundTables['owner']['used'];
  readonly #peak: BoundTables['owner']['peak'];
  readonly #words: Int32Array;
  readonly #journal: Journal;
  readonly #slot: number;
  readonly #resource: number;
  /** The owner that was found to be registered last: while a slot charges an owner, that stays. */
  #known: OwnerIndex = -1;

  constructor(thread: Thread, resource: number) {
    const { owner, slot } = thread.region.tables;
    this.#thread = thread;
    this.#slotOwner = slot.owner;
    this.#limit = owner.limit;
    this.#used = owner.used;
    this.#peak = owner.peak;
    this.#words = thread.words;
    this.#journal = thread.journal;
    this.#slot = thread.slot;
    this.#resource = resource;
  }

  /** The owner that this thread charges, or -1 when its row was never registered. */
  ownerNow(): OwnerIndex {
    const owner = this.#slotOwner.get(this.#slot);
    if (owner === this.#known) return owner;
    if (!isRegistered(this.#thread.region, owner)) return -1;
    this.#known = owner;
    return owner;
  }

  /** True when an owner may be charged so much more. */
  fits(owner: OwnerIndex, amount: number): boolean {
    const limit = this.#limit.at(owner, this.#resource);
    if (limit === NO_LIMIT) return true;
    const used = this.#used.address(owner, this.#resource);
    return load(this.#words, used) + load(this.#words, used + UNDER_LOCK) + amount <= limit;
  }

  /** Changes the charge, in the room's section, and notes the highest. Journaled. */
  add(owner: OwnerIndex, amount: number): void {
    const words = this.#words;
    const address = this.#used.address(owner, this.#resource);
    const used = (words[address] as number) + amount;
    assert(used >= 0, 'sync/owners I2: a charge never goes below zero');
    this.#journal.log1(address);
    if (amount <= 0 || this.#limit.at(owner, this.#resource) === NO_LIMIT) words[address] = used;
    else store(words, address, used);
    if (amount <= 0) return;
    const total = used + (words[address + UNDER_LOCK] as number);
    if (total > this.#peak.at(owner, this.#resource)) this.#peak.putAt(owner, this.#resource, total);
  }
}
