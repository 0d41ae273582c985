/**
 * The pagelock cache under our rules.
 *
 * PROBLEM     The rules of the original source miss requests inside a cached range, cache overlapping ranges twice, stop purges
 *             at a pinned range, and lose races with a disable.
 * STRUCTURE   lookup   a range that covers the request, wherever it starts; ranges that are doomed are passed over
 *             insert   1 nothing if a range covers it   2 idle ranges inside it go, pinned ones are doomed   3 look at
 *                      the window, charge and link in one transaction
 *             release  a doomed range goes with its last pin, as does every range while the cache is disabled
 *             purge    every idle range of the owner goes, pinned ones are doomed
 * INVARIANTS  Those of pagelock-core.ts and range-search.ts.
 *             I1 insertions of one owner follow one another.   I2 nothing is linked while the cache is disabled.
 *             I3 a doomed range has pins.
 * LOCKING     Owner, bucket, cache. A hit needs the bucket only.
 * COSTS       A hit locks one bucket; its release the same one.
 * FAILURE     -1, `INSERT_...`; `EINVAL` for a pin that is not in use.
 * REJECTED    Keeping ranges that a longer one covers: their pages would be charged twice.
 * REFERENCES  docs/differences.md, the pagelock cache.
 */

import { fail } from '../base/index.ts';
import { VERIFY } from '../base/verify.ts';
import { faultPoint } from '../sync/index.ts';
import { OWNER_JOINS } from './cache-owners.ts';
import type { PagelockCore } from './pagelock-core.ts';
import {
  type BucketIndex,
  type CacheOwner,
  DRIVER_POSITION,
  ENTRY_FLAG,
  type EntryIndex,
  INSERT_COVERED,
  INSERT_REFUSED,
  PAGELOCK_COUNTER,
  PIN,
  type Pin,
  UNLIST,
} from './pagelock-kinds.ts';
import { classBits, type RangeSearch } from './range-search.ts';
import type { RangeSharing } from './range-sharing.ts';
import type { Reclaimer } from './reclaimer.ts';

/** `release` has nothing more to do. */
export const RELEASED = -1;

/** `release` has unlinked the range, or another thread has pinned it again. */
export const RELEASED_LAST = -2;

/** One thread's view. */
export class RangeCache {
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

  /** A pin on a range that covers the request, or -1. */
  lookup(owner: CacheOwner, address: number, pages: number, flags: number): Pin {
    const core = this.#core;
    if (core.disabled || !core.pins.ensure()) return -1;
    const write = (flags & PIN.write) !== 0;
    const page = address * core.inversePageSize;
    const entry = this.#search.lockCovering(owner, page, pages, write, (flags & PIN.wired) !== 0);
    if (entry < 0) return -1;
    const { words, thread } = core;
    const at = entry * core.entryStride;
    const pin = core.pins.take(entry, core.activeAt + at);
    words[core.activeAt + at] = (words[core.activeAt + at] as number) + 1;
    if (write && ((words[core.flagsAt + at] as number) & ENTRY_FLAG.write) === 0) {
      thread.journal.log1(core.flagsAt + at);
      words[core.flagsAt + at] = (words[core.flagsAt + at] as number) | ENTRY_FLAG.write;
    }
    if (VERIFY) faultPoint(thread, 'seg.lookup.counted');
    core.unlockBucket(words[core.bucketAt + at] as number);
    return pin;
  }

  /** A pin on the new range, or `INSERT_...`. */
  insert(owner: CacheOwner, address: number, pages: number, shadow: number, flags: number, writable: number): Pin {
    const core = this.#core;
    const wired = (flags & PIN.wired) !== 0;
    const page = address * core.inversePageSize;
    let alone = pages;
    for (;;) {
      if (core.disabled || !core.pins.ensure()) return INSERT_REFUSED;
      core.lockOwner(owner);
      // 1. Another thread may have been faster.
      const covering = this.#search.lockCovering(owner, page, pages, (flags & PIN.write) !== 0, wired);
      if (covering >= 0) {
        core.unlockBucket(core.entries.bucket.get(covering));
        core.unlockOwner(owner);
        return INSERT_COVERED;
      }
      // 2. What this range covers is not needed any more. Its pages leave the window before this one enters it.
      if (!this.#search.mayOverlap(owner, page, pages, wired)) break;
      if (this.#dropInside(owner, page, pages, wired) === 0) {
        alone = this.#sharing.pagesOfNew(owner, page, pages, wired);
        break;
      }
      core.unlockOwner(owner);
      this.#reclaimer.run(false);
    }
    // 3.
    const bucket = this.#search.ownBucket(owner, page, pages, wired);
    const pin = this.#link(owner, address, pages, shadow, flags, writable, bucket, alone);
    core.unlockOwner(owner);
    return pin;
  }

  /** Takes a pin back. Returns the entry if its release makes it due for a merge, `RELEASED`, or `RELEASED_LAST`. */
  release(pin: Pin): EntryIndex {
    const core = this.#core;
    const { words, pins, thread } = core;
    const row = pins.likelyRowOf(pin, 'pagelock.release');
    const entry = pins.entryOf(row);
    const at = entry * core.entryStride;
    const bucket = words[core.bucketAt + at] as number;
    core.lockBucket(bucket);
    if (!pins.isCurrent(row, pin)) this.#failReleased(pin, bucket);
    const active = (words[core.activeAt + at] as number) - 1;
    const flags = words[core.flagsAt + at] as number;
    if (active === 0 && ((flags & ENTRY_FLAG.doomed) !== 0 || core.disabled)) {
      core.unlockBucket(bucket);
      this.#releaseLast(entry, row, bucket);
      return RELEASED_LAST;
    }
    pins.give(row, core.activeAt + at);
    words[core.activeAt + at] = active;
    // Hints, and harmless without the rest: not logged.
    if (active === 0) {
      words[core.flagsAt + at] = (flags | ENTRY_FLAG.referenced) & ~ENTRY_FLAG.mergeDue;
      words[core.lastUseAt + at] = words[core.epochAt] as number;
    }
    if (VERIFY) faultPoint(thread, 'seg.release.counted');
    core.unlockBucket(bucket);
    return active === 0 && (flags & ENTRY_FLAG.mergeDue) !== 0 ? entry : RELEASED;
  }

  /** Like `release` for the pin of a thread that has died: what has to go becomes pending of this slot. */
  releaseRow(row: number): void {
    const core = this.#core;
    const { entries, pins } = core;
    const entry = pins.entryOf(row);
    this.#releaseLast(entry, row, entries.bucket.get(entry));
  }

  /** Drops all idle ranges of an owner, of a shadow list if one is given, and dooms pinned ones. Returns how many of these. */
  drop(owner: CacheOwner, shadow = -1): number {
    const core = this.#core;
    const { entries } = core;
    let pinned = 0;
    core.lockOwner(owner);
    for (let link = core.owners.head.get(owner); link !== 0; ) {
      const entry = link - 1;
      link = entries.ownerNext.get(entry);
      if (shadow !== -1 && entries.shadow.get(entry) !== shadow) continue;
      if (!this.#dropOne(entry)) pinned++;
    }
    core.unlockOwner(owner);
    return pinned;
  }

  /** Unlinks a chained range, or dooms it when it is pinned: false then. Needs the owner's lock. */
  #dropOne(entry: EntryIndex): boolean {
    const core = this.#core;
    const { entries, thread } = core;
    const bucket = entries.bucket.get(entry);
    const pages = this.#sharing.pagesOf(entry);
    core.lockBucket(bucket);
    const idle = entries.active.get(entry) === 0;
    if (idle) core.unlink(entry, UNLIST.normal, pages);
    else thread.journal.set(entries.flags, entry, entries.flags.get(entry) | ENTRY_FLAG.doomed);
    core.unlockBucket(bucket);
    return idle;
  }

  /** Unlinks idle ranges inside a range and dooms pinned ones. Returns how many were unlinked. Needs the owner's lock. */
  #dropInside(owner: CacheOwner, page: number, pages: number, wired: boolean): number {
    const core = this.#core;
    const { entries, buckets } = core;
    const first = page * core.pageSize;
    const end = (page + pages) * core.pageSize;
    const inside: EntryIndex[] = [];
    this.#search.forEachBucketInside(owner, page, pages, wired, (bucket) => {
      core.lockBucket(bucket);
      for (let link = buckets.head.get(bucket); link !== 0; link = entries.chainNext.get(link - 1)) {
        const start = entries.address.get(link - 1);
        if (entries.owner.get(link - 1) !== owner + 1 || start < first) continue;
        if (start + entries.pages.get(link - 1) * core.pageSize <= end) inside.push(link - 1);
      }
      core.unlockBucket(bucket);
    });
    let dropped = 0;
    for (const entry of new Set(inside)) if (this.#dropOne(entry)) dropped++;
    return dropped;
  }

  #failReleased(pin: Pin, bucket: BucketIndex): never {
    this.#core.unlockBucket(bucket);
    fail('EINVAL', 'pagelock.release', { pin }, 'another thread has released it');
  }

  /** Step 3 of an insertion: one transaction under all three locks. */
  #link(
    owner: CacheOwner,
    address: number,
    pages: number,
    shadow: number,
    flags: number,
    writable: number,
    bucket: BucketIndex,
    alone: number,
  ): Pin {
    const core = this.#core;
    const { control, thread, entries, owners } = core;
    const wired = (flags & PIN.wired) !== 0;
    let pin: Pin = INSERT_REFUSED;
    core.lockBucket(bucket);
    core.lock.enter();
    const fits = wired || control.windowPages.get(0) + alone <= core.maxWindow;
    const entry = fits && !core.disabled ? core.takeEntry() : -1;
    if (entry >= 0) {
      const state = owners.state.get(owner);
      const driver = (state >> 1) - 1;
      const bits =
        (wired ? ENTRY_FLAG.wired : 0) |
        ((flags & PIN.write) !== 0 ? ENTRY_FLAG.write : 0) |
        ((state & OWNER_JOINS) !== 0 ? ENTRY_FLAG.joinable | ENTRY_FLAG.mergeDue : 0) |
        (alone < pages ? ENTRY_FLAG.shares : 0) |
        (driver << DRIVER_POSITION);
      core.fillEntry(entry, owner, address, pages, shadow, bits);
      entries.writablePages.put(entry, writable);
      core.charge(entry, 1, alone);
      const first = core.buckets.head.get(bucket) === 0;
      core.link(entry, bucket);
      if (VERIFY) faultPoint(thread, 'seg.insert.linked');
      if (first) core.lists.join(bucket);
      pin = core.pins.take(entry, owners.classes.address(owner));
      owners.classes.put(owner, owners.classes.get(owner) | classBits(address * core.inversePageSize, pages));
    }
    core.lock.exit();
    core.unlockBucket(bucket);
    if (VERIFY) faultPoint(thread, 'seg.insert.committed');
    core.count(pin >= 0 ? PAGELOCK_COUNTER.inserts : PAGELOCK_COUNTER.refused, 1);
    return pin;
  }

  /** Rare: the last pin of a range that has to go. Both locks are taken anew, in their order; the pin keeps the entry. */
  #releaseLast(entry: EntryIndex, row: number, bucket: BucketIndex): void {
    const core = this.#core;
    const { entries, pins } = core;
    const owner = entries.owner.get(entry) - 1;
    core.lockOwner(owner);
    const pages = this.#sharing.pagesOf(entry);
    core.lockBucket(bucket);
    const active = entries.active.get(entry) - 1;
    const goes = (entries.flags.get(entry) & ENTRY_FLAG.doomed) !== 0 || core.disabled;
    if (active === 0 && goes) core.unlink(entry, UNLIST.normal, pages, row);
    else {
      pins.give(row, entries.active.address(entry));
      entries.active.put(entry, active);
    }
    core.unlockBucket(bucket);
    core.unlockOwner(owner);
  }
}
