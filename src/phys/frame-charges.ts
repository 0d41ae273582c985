/**
 * Frame charges: which owner the frames of page lists are charged to.
 *
 * PROBLEM     One part of a program must not take the frames of all others. Lists are given back in parts, in any order, by
 *             any thread, and threads die while they take or give them.
 * STRUCTURE   The word that says what a frame is used for also says whom it is charged to, and the owner's charge is changed
 *             in the sections that change the count of frames in lists:
 *
 *               word   |generation 15|slot + 1: 7|owner + 1: 6|use 4|       0 owner: charged to nobody
 *
 *             Frames of cookies are charged with their cookie: pmem/cookie-work.ts.
 * INVARIANTS  I1 what is charged here to an owner is the number of frames counted as list whose words name it.
 * LOCKING     This part of an owner's charge is changed under the frames' lock; the other part under that of pmem. See
 *             sync/owners.ts for limits over both.
 * COSTS       One logged word for each section that takes or gives frames of lists.
 * FAILURE     `EDQUOT` names owner, limit and charge, at once for a request that is itself above the limit; another one may wait.
 *             Frames that are moved or given up for a request are charged together, when all are there: a request that then finds
 *             the limit reached gives them back.
 * REJECTED    A count in each list: lists have no rows. A column of its own: 4 bytes a frame, and one more cache line a list.
 * REFERENCES  Linux memory control groups, page_cgroup.
 */

import { fail } from '../base/errors.ts';
import type { BoundTables } from '../layout/region.ts';
import { load } from '../sync/atomics.ts';
import { OwnerSection } from '../sync/owner-section.ts';
import { chargeOf, limitOf, OWNER_RESOURCE, type OwnerIndex, ownerNameOf, ownerOf } from '../sync/owners.ts';
import type { Thread } from '../sync/thread.ts';
import { OWNER_MASK, OWNER_SHIFT, OWNERS_MAX } from './frame-uses.ts';

const { frames: FRAMES } = OWNER_RESOURCE;

/** Says, in what `begin` returns, that frames are charged later. */
const LATER = 1;

/** Charges of the frames of page lists, as one thread makes them. */
export class FrameCharges {
  /** Where a frame's word says whom it is charged to: what this thread takes for lists now. */
  bits = 0;
  /** Whom requests are made for now, in the bits of a frame's word, and `LATER`. */
  #payer = 0;
  readonly #thread: Thread;
  readonly #used: BoundTables['owner']['used'];
  readonly #section: OwnerSection;
  readonly #changes = new Int32Array(OWNERS_MAX + 1);

  constructor(thread: Thread) {
    this.#thread = thread;
    this.#used = thread.region.tables.owner.used;
    this.#section = new OwnerSection(thread, FRAMES);
  }

  /** Whom this thread's frames for lists are charged to now; -1 nobody. */
  get owner(): number {
    return (this.#payer >>> OWNER_SHIFT) - 1;
  }

  /** Whom this thread's lists are charged to: its owner, or -1 when that was never registered. */
  ownerNow(): OwnerIndex {
    return this.#section.ownerNow();
  }

  /**
   * From now on frames for lists are taken for `owner`, -1 for nobody, and charged to it as they are taken, or `later`, by whoever
   * took them; returns what `end` needs.
   */
  begin(owner: OwnerIndex, later = false): number {
    const before = this.#payer;
    this.#payer = ((owner + 1) << OWNER_SHIFT) | (later ? LATER : 0);
    this.bits = later ? 0 : this.#payer;
    return before;
  }

  /** Ends what `begin` began. */
  end(before: number): void {
    this.#payer = before;
    this.bits = (before & LATER) === 0 ? before : 0;
  }

  /** True when so many frames more are within the limit of whom frames are charged to now. */
  fits(frames: number): boolean {
    const { owner } = this;
    return owner < 0 || this.#section.fits(owner, frames);
  }

  /** True when so many frames more are within the limit of an owner. */
  allows(owner: OwnerIndex, frames: number): boolean {
    return this.#section.fits(owner, frames);
  }

  /** Throws `EDQUOT` for a request of this thread that can never be within the limit, unless that is raised. */
  requireAllowable(call: string, frames: number): void {
    if (frames > limitOf(this.#thread.region, ownerOf(this.#thread), FRAMES)) this.fail(call, frames);
  }

  /** What keeps a request of an owner from being served at present, as the end of a sentence; '' for nothing. */
  inTheWay(owner: OwnerIndex, frames: number): string {
    if (owner < 0 || this.allows(owner, frames)) return '';
    const { region } = this.#thread;
    const [name, used] = [JSON.stringify(ownerNameOf(region, owner)), chargeOf(region, owner, FRAMES)];
    return `; the owner ${name} has ${used} of its limit of ${limitOf(region, owner, FRAMES)} frames`;
  }

  /** Throws `EDQUOT` for a request of this thread that does not fit. */
  fail(call: string, frames: number): never {
    const { region } = this.#thread;
    const owner = ownerOf(this.#thread);
    const values = { frames, owner: ownerNameOf(region, owner), used: chargeOf(region, owner, FRAMES) };
    const limit = limitOf(region, owner, FRAMES);
    return fail('EDQUOT', call, values, `the owner's limit of frames is ${limit}`);
  }

  /** Under the frames' lock: frames with this part of their words have come, or, below 0, have gone. Journaled. */
  change(bits: number, frames: number): void {
    if (bits === 0) return;
    this.#section.add((bits >>> OWNER_SHIFT) - 1, frames);
  }

  /** Under the frames' lock: the frames `[first, first + count)` go; `words` are those of all frames. Journaled. */
  release(words: Int32Array, first: number, count: number): void {
    const bits = (words[first] as number) & OWNER_MASK;
    const end = first + count;
    let same = first + 1;
    while (same < end && ((words[same] as number) & OWNER_MASK) === bits) same++;
    this.change(bits, first - same);
    if (same === end) return;
    const changes = this.#changes.fill(0);
    for (let frame = same; frame < end; frame++) {
      const owner = ((words[frame] as number) & OWNER_MASK) >>> OWNER_SHIFT;
      changes[owner] = (changes[owner] as number) - 1;
    }
    for (let owner = 1; owner < changes.length; owner++) {
      const change = changes[owner] as number;
      if (change !== 0) this.change(owner << OWNER_SHIFT, change);
    }
  }

  /** Compares the charges with what was found, by owner + 1. For quiet points. */
  problems(found: readonly number[]): string[] {
    const problems: string[] = [];
    const { words, region } = this.#thread;
    for (let owner = 0; owner < region.geometry.owners; owner++) {
      const used = load(words, this.#used.address(owner, FRAMES));
      const frames = found[owner + 1] ?? 0;
      if (used !== frames) problems.push(`phys/frame-charges I1: owner ${owner}: charged ${used}, found ${frames}`);
    }
    return problems;
  }
}
