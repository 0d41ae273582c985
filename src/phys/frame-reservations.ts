/**
 * Frame reservations: frames that are promised to an owner, and that nobody else can take.
 *
 * PROBLEM     A limit keeps an owner from taking too much; it does not help the one that must not go short. What is promised has
 *             to be there when it is asked for, however many others want frames, and whoever dies.
 * STRUCTURE   A number for each owner. What an owner has in page lists counts against its reservation; the rest of it is
 *             kept free, from everybody but the owner:
 *
 *               owner 2   reserved 100, in lists 60   -> 40 kept       reserves of the system
 *               owner 5   reserved 30,  in lists 45   ->  0 kept       + 40 for all but owner 2: what is left free
 *
 *             So nothing has to be booked when an owner takes or gives frames: its charge, which changes in the same section as
 *             the count of free frames, says it all. Whoever takes frames leaves `others` besides the reserves.
 * INVARIANTS  I1 the free frames are at least as many as are kept, unless memory was taken while only reserves of the seed were
 *                looked at (`compat: 'seed'`).  I2 `total` is the sum of the reservations.
 * LOCKING     The frames' lock. A look without it is a hint.
 * COSTS       Without reservations: a load for each request. With some: two loads for each owner.
 * FAILURE     `ENOMEM` when so many frames cannot be had, by giving up pages or in time; `EINVAL` above the owner's limit of frames.
 *             Nothing has changed then.
 * REJECTED    A set of certain frames for each owner: promised frames would lie in the way of runs. Promises for cookies: those take
 *             large pages, which are more than they are charged, and their pool keeps frames that belong to nobody.
 * REFERENCES  Linux hugetlbfs reservations and cgroup memory.min; illumos availrmem.
 */

import { assert } from '../base/assert.ts';
import { fail } from '../base/errors.ts';
import type { BoundTables } from '../layout/region.ts';
import { load } from '../sync/atomics.ts';
import { findOwner, isRegistered, OWNER_RESOURCE, type OwnerIndex, ownerNameOf } from '../sync/owners.ts';
import type { Thread } from '../sync/thread.ts';

const { frames: FRAMES } = OWNER_RESOURCE;

/** What is promised to an owner. */
export interface FrameReservation {
  readonly owner: OwnerIndex;
  readonly name: string;
  /** Frames promised. */
  readonly frames: number;
  /** Those of them that the owner does not have in page lists: they are kept free. */
  readonly kept: number;
}

/** The reservations as one thread sees them. */
export class FrameReservations {
  readonly #thread: Thread;
  readonly #promised: BoundTables['frameReservation']['frames'];
  readonly #total: BoundTables['frameReserve']['promised'];
  readonly #used: BoundTables['owner']['used'];

  constructor(thread: Thread) {
    const { frameReservation, frameReserve, owner } = thread.region.tables;
    this.#thread = thread;
    this.#promised = frameReservation.frames;
    this.#total = frameReserve.promised;
    this.#used = owner.used;
  }

  /** Frames that are kept for owners other than this one; -1: for all. */
  others(owner: OwnerIndex = -1): number {
    return this.#total.get(0) === 0 ? 0 : this.#sumOfOthers(owner);
  }

  /** True when so many frames are kept for an owner. */
  covers(owner: OwnerIndex, frames: number): boolean {
    return this.#total.get(0) !== 0 && owner >= 0 && this.#kept(owner) >= frames;
  }

  /** What is promised to an owner. Throws `ENOENT`, `EINVAL` for one that there is not. */
  of(owner: OwnerIndex | string): FrameReservation {
    const row = this.#require('reservations.of', owner);
    return {
      owner: row,
      name: ownerNameOf(this.#thread.region, row),
      frames: this.#promised.get(row),
      kept: this.#kept(row),
    };
  }

  /** All that is promised. */
  list(): FrameReservation[] {
    const rows = Array.from({ length: this.#promised.view.length }, (_, row) => row);
    return rows.filter((row) => this.#promised.get(row) > 0).map((row) => this.of(row));
  }

  /** Broken invariants, for `check()`. */
  problems(): string[] {
    let sum = 0;
    for (const frames of this.#promised.view) sum += frames;
    const total = this.#total.get(0);
    return sum === total ? [] : [`phys/frame-reservations I2: ${total} promised, found ${sum}`];
  }

  /** Free frames, above the reserves, without which so many cannot be promised to an owner. */
  needed(owner: OwnerIndex, frames: number): number {
    return this.others(owner) + this.#missing(owner, frames);
  }

  /** Frames that are promised to an owner. */
  promised(owner: OwnerIndex): number {
    return this.#promised.get(owner);
  }

  /** Under the lock, in its section: promises so many frames to an owner instead of what was. Journaled. */
  change(owner: OwnerIndex, frames: number): void {
    const { journal } = this.#thread;
    journal.set(this.#total, 0, this.#total.get(0) + frames - this.#promised.get(owner));
    journal.set(this.#promised, owner, frames);
  }

  #kept(owner: OwnerIndex): number {
    return this.#missing(owner, this.#promised.get(owner));
  }

  /** Of so many frames those that an owner does not have in lists. */
  #missing(owner: OwnerIndex, frames: number): number {
    return Math.max(0, frames - load(this.#thread.words, this.#used.address(owner, FRAMES)));
  }

  #sumOfOthers(owner: OwnerIndex): number {
    let sum = 0;
    for (let row = 0; row < this.#promised.view.length; row++) if (row !== owner) sum += this.#kept(row);
    assert(sum <= this.#total.get(0), 'phys/frame-reservations I2: no more is kept than was promised');
    return sum;
  }

  #require(call: string, owner: OwnerIndex | string): OwnerIndex {
    const { region } = this.#thread;
    const row = typeof owner === 'string' ? findOwner(region, owner) : owner;
    if (typeof owner === 'string' && row < 0) fail('ENOENT', call, { owner }, 'no such owner');
    const known = Number.isInteger(row) && row >= 0 && row < region.geometry.owners;
    if (!known || !isRegistered(region, row)) fail('EINVAL', call, { owner }, 'no such owner');
    return row;
  }
}
