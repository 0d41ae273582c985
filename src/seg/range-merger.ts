/**
 * Merging neighbours: two idle ranges that touch become one.
 *
 * PROBLEM     A file read piece by piece leaves many small ranges; a request across two of them misses although all its pages
 *             are locked.
 * STRUCTURE   1 lock the owner   2 find the released range again and an idle neighbour   3 unlink both: pending of this slot
 *             4 with no lock held, the driver joins their shadow lists   5 in one transaction, one of the two entries becomes
 *             the joined range and is linked, the other goes to the pool; what both were charged stays charged
 *             A range tries this once after its insertion, and again when a neighbour found it pinned.
 * INVARIANTS  I1 from step 3 to 5 the two are the newest pending entries of this slot: if it dies they are reclaimed.
 * LOCKING     Owner, bucket, cache; none during step 4.
 * COSTS       Two unlinks and one link for a merge; one search on each side when there is no neighbour.
 * FAILURE     A driver that says -1, a disable, or a range inserted meanwhile: both are reclaimed.
 * REJECTED    Pins that span several entries: every hit would pay. Merging pinned ranges: pins name their entry.
 * REFERENCES  DESIGN 5.5.
 */

import { assert } from '../base/assert.ts';
import { VERIFY } from '../base/verify.ts';
import { faultPoint } from '../sync/index.ts';
import type { PagelockCore } from './pagelock-core.ts';
import { type CacheOwner, ENTRY_FLAG, type EntryIndex, PAGELOCK_COUNTER, UNLIST } from './pagelock-kinds.ts';
import { classBits, type RangeSearch } from './range-search.ts';
import type { RangeSharing } from './range-sharing.ts';
import type { Reclaimer } from './reclaimer.ts';

/** One thread's merger. */
export class RangeMerger {
  readonly #core: PagelockCore;
  readonly #search: RangeSearch;
  readonly #sharing: RangeSharing;
  readonly #reclaimer: Reclaimer;

  constructor(core: PagelockCore, search: RangeSearch, sharing: RangeSharing, reclaimer: Reclaimer) {
    this.#core = core;
    this.#search = search;
    this.#sharing = sharing;
    this.#reclaimer = reclaimer;
  }

  /**
   * Merges an entry that was released with the ranges that touch it, as long as there are such. The entry may have changed
   * since: that is looked at under the owner's lock.
   */
  merge(owner: CacheOwner, released: EntryIndex): void {
    let entry = released;
    while (entry >= 0) {
      // 1-3.
      const pair = this.#unlinkPair(owner, entry);
      if (pair === null) break;
      // 4-5.
      entry = this.#join(owner, pair.first, pair.second);
    }
    // When only one of a pair could be unlinked, it has to go.
    this.#reclaimer.run(false);
  }

  #unlinkPair(owner: CacheOwner, entry: EntryIndex): { first: EntryIndex; second: EntryIndex } | null {
    const core = this.#core;
    const { entries } = core;
    core.lockOwner(owner);
    try {
      // Entries leave an owner only under its lock: one that is its own and idle now can only be pinned, not go.
      if (entries.owner.get(entry) !== owner + 1 || !core.isChained(entry)) return null;
      const start = entries.address.get(entry) * core.inversePageSize;
      const end = start + entries.pages.get(entry);
      const wired = (entries.flags.get(entry) & ENTRY_FLAG.wired) !== 0;
      const after = this.#idleNeighbour(owner, entry, end, 'after', wired);
      if (after >= 0) return this.#unlinkBoth(entry, after) ? { first: entry, second: after } : null;
      const before = this.#idleNeighbour(owner, entry, start, 'before', wired);
      if (before >= 0) return this.#unlinkBoth(before, entry) ? { first: before, second: entry } : null;
      return null;
    } finally {
      core.unlockOwner(owner);
    }
  }

  /** A neighbour that may be merged; one that is only pinned is told to try at its own release. */
  #idleNeighbour(
    owner: CacheOwner,
    entry: EntryIndex,
    page: number,
    side: 'after' | 'before',
    wired: boolean,
  ): EntryIndex {
    const core = this.#core;
    const { entries } = core;
    const found = this.#search.lockNeighbour(owner, page, side, wired);
    if (found < 0) return -1;
    const flags = entries.flags.get(found);
    const fits =
      entries.pages.get(found) + entries.pages.get(entry) <= core.control.mergePages.get(0) &&
      (flags & ENTRY_FLAG.joinable) !== 0 &&
      (flags & ENTRY_FLAG.doomed) === 0 &&
      core.driverOf(found) === core.driverOf(entry) &&
      this.#isWritable(found) === this.#isWritable(entry);
    const idle = entries.active.get(found) === 0;
    // One word, and a hint: not logged.
    if (fits && !idle) entries.flags.put(found, flags | ENTRY_FLAG.mergeDue);
    core.unlockBucket(entries.bucket.get(found));
    return fits && idle ? found : -1;
  }

  /** 0 read only, 1 writable throughout, 2 in part. */
  #isWritable(entry: EntryIndex): number {
    const { entries } = this.#core;
    const writable = entries.writablePages.get(entry);
    if (writable === 0) return 0;
    return writable === entries.pages.get(entry) ? 1 : 2;
  }

  /** Unlinks two entries if both are idle; the owner's lock is held. False leaves what was not unlinked. */
  #unlinkBoth(first: EntryIndex, second: EntryIndex): boolean {
    if (this.#isWritable(first) === 2) return false;
    return this.#unlinkIdle(first) && this.#unlinkIdle(second);
  }

  #unlinkIdle(entry: EntryIndex): boolean {
    const core = this.#core;
    const bucket = core.entries.bucket.get(entry);
    const pages = this.#sharing.pagesOf(entry);
    core.lockBucket(bucket);
    const idle = core.entries.active.get(entry) === 0;
    if (idle) core.unlink(entry, UNLIST.normal, pages);
    core.unlockBucket(bucket);
    return idle;
  }

  /** Steps 4 and 5; returns the joined entry, or -1 when both were given up. */
  #join(owner: CacheOwner, first: EntryIndex, second: EntryIndex): EntryIndex {
    const core = this.#core;
    const { entries } = core;
    let joined = false;
    try {
      const shadow = this.#reclaimer.join(core.driverOf(first), entries.shadow.get(first), entries.shadow.get(second));
      if (VERIFY) faultPoint(core.thread, 'seg.merge.joined');
      joined = shadow >= 0 && this.#relink(owner, first, second, shadow);
    } finally {
      this.#reclaimer.run(false);
    }
    if (joined) core.count(PAGELOCK_COUNTER.merges, 1);
    return joined ? first : -1;
  }

  /** One transaction. False when the joined range may not be linked: it is pending then, as one entry. */
  #relink(owner: CacheOwner, first: EntryIndex, second: EntryIndex, shadow: number): boolean {
    const core = this.#core;
    const { entries, slots, thread, owners } = core;
    const { journal, slot } = thread;
    const page = entries.address.get(first) * core.inversePageSize;
    const pages = entries.pages.get(first) + entries.pages.get(second);
    const wired = (entries.flags.get(first) & ENTRY_FLAG.wired) !== 0;
    core.lockOwner(owner);
    const covering = this.#search.lockCovering(owner, page, pages, false, wired);
    if (covering >= 0) core.unlockBucket(entries.bucket.get(covering));
    const bucket = this.#search.ownBucket(owner, page, pages, wired);
    const alone = this.#sharing.pagesOfNew(owner, page, pages, wired);
    core.lockBucket(bucket);
    core.lock.enter();
    this.#takePending(first);
    this.#takePending(second);
    const shares = alone < pages ? ENTRY_FLAG.shares : 0;
    const kept = (entries.flags.get(first) | entries.flags.get(second)) & ~(ENTRY_FLAG.mergeDue | ENTRY_FLAG.shares);
    const charged = entries.charge.get(first) + entries.charge.get(second);
    journal.setDouble(entries.shadow, first, shadow);
    journal.set(entries.pages, first, pages);
    journal.set(entries.writablePages, first, entries.writablePages.get(first) + entries.writablePages.get(second));
    journal.set(entries.flags, first, kept | shares);
    journal.set(owners.claims, owner, owners.claims.get(owner) - 1);
    core.freeEntry(second);
    const links = covering < 0 && !core.disabled;
    if (links) {
      this.#recharge(wired, alone - charged);
      this.#linkAgain(first, bucket, classBits(page, pages));
    } else {
      journal.set(entries.charge, first, charged);
      journal.set(entries.chainNext, first, slots.pendingHead.get(slot));
      journal.set(slots.pendingHead, slot, first + 1);
    }
    core.lock.exit();
    core.unlockBucket(bucket);
    core.unlockOwner(owner);
    return links;
  }

  /** Journaled: what two ranges shared with others when they were unlinked may have changed since. */
  #recharge(wired: boolean, pages: number): void {
    const { control, thread } = this.#core;
    if (pages === 0) return;
    thread.journal.set(control.lockedPages, 0, control.lockedPages.get(0) + pages);
    if (!wired) thread.journal.set(control.windowPages, 0, control.windowPages.get(0) + pages);
  }

  /** Journaled: links an entry whose words others may remember: every one of them is logged. */
  #linkAgain(entry: EntryIndex, bucket: number, bits: number): void {
    const core = this.#core;
    const { entries, buckets, owners, thread } = core;
    const { journal } = thread;
    const alone = buckets.head.get(bucket) === 0;
    for (const column of [entries.bucket, entries.chainNext, entries.chainPrevious, entries.ownerNext]) {
      journal.set(column, entry, column.get(entry));
    }
    journal.set(entries.ownerPrevious, entry, entries.ownerPrevious.get(entry));
    core.link(entry, bucket);
    if (alone) core.lists.join(bucket);
    const owner = entries.owner.get(entry) - 1;
    journal.set(owners.classes, owner, owners.classes.get(owner) | bits);
  }

  /** Journaled: takes an entry off this slot's pending list, where it is among the first. */
  #takePending(entry: EntryIndex): void {
    const { entries, slots, thread } = this.#core;
    const { journal, slot } = thread;
    let previous = 0;
    let link = slots.pendingHead.get(slot);
    while (link !== entry + 1) {
      assert(link !== 0, 'seg/range-merger I1: both ranges are pending');
      previous = link;
      link = entries.chainNext.get(link - 1);
    }
    if (previous === 0) journal.set(slots.pendingHead, slot, entries.chainNext.get(entry));
    else journal.set(entries.chainNext, previous - 1, entries.chainNext.get(entry));
  }
}
