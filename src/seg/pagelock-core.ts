/**
 * The pagelock cache's structure: entries on chains, owner lists and lists of active buckets, and what they are charged.
 *
 * PROBLEM     Locking pages for a device or a foreign runtime is expensive, so locked ranges stay cached when their last
 *             user leaves. Hits must cost two short locks; ranges must be found by key, by owner, and by age.
 * STRUCTURE   An entry is on up to three structures, or in flight:
 *
 *               bucket -> entry -> entry            chain, newest first          lookup
 *               owner  -> entry -> entry            list, newest first           purge of a segment or an anon map
 *               list   -> bucket -> bucket          active buckets               reaper
 *               slot   -> entry -> entry            pending: unlinked, reclaim due
 *
 *             Entries with no place in these are in the pool. Everything an entry was charged for stays charged until its
 *             reclaim has run.
 * INVARIANTS  I1 an entry in use is on the chain of its bucket, or pending of one slot, reserved by one, or an orphan.
 *             I2 a chained entry is on the list of its owner (under the rules of the original source unless wired).
 *             I3 `lockedPages` is what entries in use are charged, `windowPages` that without wired ones: chained entries for all
 *             their pages, or as range-sharing.ts I1 says; others for `charge`.
 *             I4 `claims` of an owner counts its entries in use.
 *             I5 a pending entry has no pins.
 * LOCKING     Owner, then bucket, then the cache's lock, which guards counters, lists of active buckets and pools. Every change
 *             is one transaction: inner locks are taken before anything is logged.
 * COSTS       Unlinking logs 10 to 20 words.
 * FAILURE     `takeEntry` is -1 when the table is full.
 * REJECTED    The cache's lock alone: hits of different threads would meet. Links through byte offsets cast to entries, as
 *             the original has them: undefined behaviour there, no gain here.
 * REFERENCES  illumos vm_seg.c; docs/differences.md.
 */

import { assert } from '../base/assert.ts';
import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import { faultPoint, Mutex, mutexEnter, mutexExit, mutexTryEnter, RANK, type Thread } from '../sync/index.ts';
import { ActiveBuckets } from './active-buckets.ts';
import { CachePins } from './cache-pins.ts';
import {
  type BucketIndex,
  type CacheOwner,
  DRIVER_POSITION,
  ENTRY_FLAG,
  type EntryIndex,
  PIN,
  PIN_SHIFT_POSITION,
  UNLIST,
} from './pagelock-kinds.ts';

/** One thread's view of the structure. The rules for using it are in range-cache.ts and seed-cache.ts. */
export class PagelockCore {
  readonly thread: Thread;
  /** True under the rules of the original source. */
  readonly seedRules: boolean;
  /** True when the cache is configured at all. */
  readonly enabled: boolean;
  readonly pageSize: number;
  readonly inversePageSize: number;
  readonly windowBuckets: number;
  readonly windowMask: number;
  readonly wiredMask: number;
  readonly maxWindow: number;
  readonly control: BoundTables['pagelock'];
  readonly buckets: BoundTables['pagelockBucket'];
  readonly bucketLinks: BoundTables['pagelockBucketLink'];
  readonly entries: BoundTables['pagelockEntry'];
  readonly owners: BoundTables['pagelockOwner'];
  readonly slots: BoundTables['pagelockSlot'];
  readonly lists: ActiveBuckets;
  readonly pins: CachePins;
  readonly lock: Mutex;
  /** The region's words and doubles, and where in them the fields lie that hits touch: fewer loads than through columns. */
  readonly words: Int32Array;
  readonly doubles: Float64Array;
  readonly disabledAt: number;
  readonly epochAt: number;
  readonly entryStride: number;
  readonly ownerAt: number;
  readonly pagesAt: number;
  readonly chargeAt: number;
  readonly writableAt: number;
  readonly activeAt: number;
  readonly flagsAt: number;
  readonly lastUseAt: number;
  readonly bucketAt: number;
  readonly chainNextAt: number;
  readonly chainPreviousAt: number;
  readonly ownerNextAt: number;
  readonly ownerPreviousAt: number;
  readonly shadowAt: number;
  readonly ownerStride: number;
  readonly ownerHeadAt: number;
  readonly ownerCountAt: number;
  readonly ownerClaimsAt: number;
  readonly ownerClassesAt: number;
  readonly entryHeadAt: number;
  readonly entryFreshAt: number;
  readonly entryCountAt: number;
  readonly lockedPagesAt: number;
  readonly windowPagesAt: number;
  readonly addressStride: number;
  readonly addressAt: number;
  readonly bucketStride: number;
  readonly bucketLockAt: number;
  readonly bucketHeadAt: number;
  readonly #counters: Float64Array;
  readonly #countersAt: number;
  readonly #pendingAt: number;

  constructor(thread: Thread) {
    const { tables, geometry } = thread.region;
    this.thread = thread;
    this.words = thread.words;
    this.doubles = thread.region.doubles;
    this.disabledAt = tables.pagelock.disabled.address(0);
    this.epochAt = tables.pagelock.epoch.address(0);
    const { pagelockEntry: entry, pagelockBucket: bucket } = tables;
    this.entryStride = entry.owner.stride;
    this.ownerAt = entry.owner.base;
    this.pagesAt = entry.pages.base;
    this.chargeAt = entry.charge.base;
    this.writableAt = entry.writablePages.base;
    this.activeAt = entry.active.base;
    this.flagsAt = entry.flags.base;
    this.lastUseAt = entry.lastUse.base;
    this.bucketAt = entry.bucket.base;
    this.chainNextAt = entry.chainNext.base;
    this.chainPreviousAt = entry.chainPrevious.base;
    this.ownerNextAt = entry.ownerNext.base;
    this.ownerPreviousAt = entry.ownerPrevious.base;
    this.shadowAt = entry.shadow.base;
    this.ownerStride = tables.pagelockOwner.head.stride;
    this.ownerHeadAt = tables.pagelockOwner.head.base;
    this.ownerCountAt = tables.pagelockOwner.count.base;
    this.ownerClaimsAt = tables.pagelockOwner.claims.base;
    this.ownerClassesAt = tables.pagelockOwner.classes.base;
    this.entryHeadAt = tables.pagelock.entryHead.base;
    this.entryFreshAt = tables.pagelock.entryFresh.base;
    this.entryCountAt = tables.pagelock.entryCount.base;
    this.#pendingAt = tables.pagelockSlot.pendingHead.address(thread.slot);
    this.lockedPagesAt = tables.pagelock.lockedPages.base;
    this.windowPagesAt = tables.pagelock.windowPages.base;
    this.addressStride = entry.address.stride;
    this.addressAt = entry.address.base;
    this.bucketStride = bucket.lock.stride;
    this.bucketLockAt = bucket.lock.base;
    this.bucketHeadAt = bucket.head.base;
    this.#counters = tables.pagelockSlot.counters.view;
    this.#countersAt = thread.slot * tables.pagelockSlot.counters.stride;
    this.control = tables.pagelock;
    this.buckets = tables.pagelockBucket;
    this.bucketLinks = tables.pagelockBucketLink;
    this.entries = tables.pagelockEntry;
    this.owners = tables.pagelockOwner;
    this.slots = tables.pagelockSlot;
    this.seedRules = this.control.seedRules.get(0) === 1;
    this.windowBuckets = this.control.windowBuckets.get(0);
    this.enabled = this.windowBuckets !== 0;
    this.windowMask = this.windowBuckets - 1;
    this.wiredMask = this.control.wiredBuckets.get(0) - 1;
    this.maxWindow = this.control.maxWindow.get(0);
    this.pageSize = geometry.pageSize;
    this.inversePageSize = 1 / geometry.pageSize;
    this.lists = new ActiveBuckets(thread);
    this.pins = new CachePins(thread);
    this.lock = new Mutex(thread, this.control.lock.address(0), RANK.pagelock);
  }

  /** True while nothing may be cached. A hint without the cache's lock. */
  get disabled(): boolean {
    return this.words[this.disabledAt] !== 0;
  }

  lockBucket(bucket: BucketIndex): void {
    mutexEnter(this.thread, this.bucketLockAt + bucket * this.bucketStride, RANK.pagelockBucket);
  }

  unlockBucket(bucket: BucketIndex): void {
    mutexExit(this.thread, this.bucketLockAt + bucket * this.bucketStride);
  }

  lockOwner(owner: CacheOwner): void {
    mutexEnter(this.thread, this.owners.lock.address(owner), RANK.segment);
  }

  tryLockOwner(owner: CacheOwner): boolean {
    return mutexTryEnter(this.thread, this.owners.lock.address(owner), RANK.segment);
  }

  unlockOwner(owner: CacheOwner): void {
    mutexExit(this.thread, this.owners.lock.address(owner));
  }

  /** Adds to a counter of this slot. */
  count(counter: number, amount: number): void {
    const at = this.#countersAt + counter;
    this.#counters[at] = (this.#counters[at] as number) + amount;
  }

  /** Bucket of a key under the rules of the original source: no mixing, and the page shift is part of it. */
  seedBucket(owner: CacheOwner, address: number, flags: number): BucketIndex {
    const tag = this.owners.tag.get(owner);
    if ((flags & PIN.wired) !== 0) return this.windowBuckets + (Math.floor(tag / 64) & this.wiredMask);
    const pages = Math.floor(address / 2 ** (flags >> PIN_SHIFT_POSITION));
    return (Math.floor(tag / 8) ^ pages) & this.windowMask;
  }

  /** True when an entry is linked to its owner. */
  isOwned(entry: EntryIndex): boolean {
    return (
      !this.seedRules || ((this.words[this.flagsAt + entry * this.entryStride] as number) & ENTRY_FLAG.wired) === 0
    );
  }

  /** Number of an entry's driver. */
  driverOf(entry: EntryIndex): number {
    return this.entries.flags.get(entry) >>> DRIVER_POSITION;
  }

  /** Now in ticks, as entries remember it under the rules of the original source. */
  ticks(): number {
    return Math.floor(this.thread.clock.now() / this.control.tickMs.get(0)) | 0;
  }

  /** Journaled: an entry of the pool, or -1. Needs the cache's lock. */
  takeEntry(): EntryIndex {
    const { words, entryHeadAt, entryFreshAt, entryCountAt } = this;
    const { journal } = this.thread;
    let entry = (words[entryHeadAt] as number) - 1;
    if (entry >= 0) {
      const at = entry * this.entryStride;
      // What the caller stores into the entry is undone with this: to be in the pool takes these two words.
      journal.log2(this.chainNextAt + at, this.ownerAt + at);
      journal.log2(entryHeadAt, entryCountAt);
      words[entryHeadAt] = words[this.chainNextAt + at] as number;
    } else {
      entry = words[entryFreshAt] as number;
      if (entry === this.entries.rowCount) return -1;
      journal.log2(entryFreshAt, entryCountAt);
      words[entryFreshAt] = entry + 1;
    }
    words[entryCountAt] = (words[entryCountAt] as number) + 1;
    return entry;
  }

  /** Plain stores into an entry that nobody can reach yet. Puts it into use. */
  fillEntry(entry: EntryIndex, owner: CacheOwner, address: number, pages: number, shadow: number, flags: number): void {
    const { words, doubles } = this;
    const at = entry * this.entryStride;
    const doubleAt = entry * this.addressStride;
    doubles[this.addressAt + doubleAt] = address;
    doubles[this.shadowAt + doubleAt] = shadow;
    words[this.pagesAt + at] = pages;
    words[this.chargeAt + at] = pages;
    words[this.writableAt + at] = pages;
    words[this.activeAt + at] = 1;
    words[this.flagsAt + at] = flags;
    words[this.lastUseAt + at] = 0;
    words[this.ownerAt + at] = owner + 1;
  }

  /** Journaled: charges so many pages of an entry, or takes them off, and its owner's claim. Needs the cache's lock. */
  charge(entry: EntryIndex, sign: 1 | -1, count: number): void {
    const { words, lockedPagesAt, windowPagesAt } = this;
    const at = entry * this.entryStride;
    const pages = sign * count;
    const claimsAt = this.ownerClaimsAt + ((words[this.ownerAt + at] as number) - 1) * this.ownerStride;
    this.thread.journal.log3(lockedPagesAt, windowPagesAt, claimsAt);
    words[lockedPagesAt] = (words[lockedPagesAt] as number) + pages;
    words[claimsAt] = (words[claimsAt] as number) + sign;
    if (((words[this.flagsAt + at] as number) & ENTRY_FLAG.wired) !== 0) return;
    words[windowPagesAt] = (words[windowPagesAt] as number) + pages;
  }

  /** Journaled: gives an entry back to the pool. Needs the cache's lock. */
  freeEntry(entry: EntryIndex): void {
    const { journal } = this.thread;
    const { control, entries } = this;
    journal.set(entries.owner, entry, 0);
    journal.set(entries.chainNext, entry, control.entryHead.get(0));
    journal.set(control.entryHead, 0, entry + 1);
    journal.set(control.entryCount, 0, control.entryCount.get(0) - 1);
  }

  /** Journaled: makes an entry the newest of its bucket and its owner. Needs the locks of both. */
  link(entry: EntryIndex, bucket: BucketIndex): void {
    const { words } = this;
    const { journal } = this.thread;
    const at = entry * this.entryStride;
    const headAt = this.bucketHeadAt + bucket * this.bucketStride;
    const older = words[headAt] as number;
    words[this.bucketAt + at] = bucket;
    words[this.chainNextAt + at] = older;
    words[this.chainPreviousAt + at] = 0;
    if (older !== 0) {
      const backAt = this.chainPreviousAt + (older - 1) * this.entryStride;
      journal.log1(backAt);
      words[backAt] = entry + 1;
    }
    if (!this.isOwned(entry)) {
      journal.log1(headAt);
      words[headAt] = entry + 1;
      return;
    }
    const owner = ((words[this.ownerAt + at] as number) - 1) * this.ownerStride;
    const firstAt = this.ownerHeadAt + owner;
    const countAt = this.ownerCountAt + owner;
    const first = words[firstAt] as number;
    words[this.ownerNextAt + at] = first;
    words[this.ownerPreviousAt + at] = 0;
    if (first !== 0) {
      const backAt = this.ownerPreviousAt + (first - 1) * this.entryStride;
      journal.log1(backAt);
      words[backAt] = entry + 1;
    }
    journal.log3(headAt, firstAt, countAt);
    words[headAt] = entry + 1;
    words[firstAt] = entry + 1;
    words[countAt] = (words[countAt] as number) + 1;
  }

  /**
   * One transaction: unlinks an entry and makes it pending of this slot, newest first; `pages` are its charge from then on, and
   * with `pin`, the row of its last pin is given back. Needs the locks of its bucket and, if it is owned, of its owner, with
   * nothing logged under them.
   */
  unlink(entry: EntryIndex, unlist: number, pages: number, pin = -1): void {
    const { thread, words } = this;
    const at = entry * this.entryStride;
    const bucket = words[this.bucketAt + at] as number;
    const headAt = this.bucketHeadAt + bucket * this.bucketStride;
    const lone = words[headAt] === entry + 1 && words[this.chainNextAt + at] === 0;
    const leaves = lone && this.#leavesList(bucket, unlist);
    assert(words[this.activeAt + at] === (pin < 0 ? 0 : 1), 'seg/pagelock-core I5: an entry with pins stays');
    // The list that a reaper walks is its own: see active-buckets.ts.
    const locks = leaves && unlist !== UNLIST.walker;
    if (locks) this.lock.enter();
    if (pin >= 0) {
      this.pins.give(pin, this.activeAt + at);
      words[this.activeAt + at] = 0;
    }
    this.#unchain(at, headAt);
    if (words[this.chargeAt + at] !== pages) {
      thread.journal.log1(this.chargeAt + at);
      words[this.chargeAt + at] = pages;
    }
    if (VERIFY) faultPoint(thread, 'seg.unlink.unchained');
    thread.journal.log2(this.chainNextAt + at, this.#pendingAt);
    words[this.chainNextAt + at] = words[this.#pendingAt] as number;
    words[this.#pendingAt] = entry + 1;
    if (VERIFY) faultPoint(thread, 'seg.unlink.pending');
    if (leaves) this.lists.leave(bucket, unlist === UNLIST.walker);
    if (locks) this.lock.exit();
    else thread.commit();
  }

  /** True when an entry is on the list of its owner, whose lock is held. */
  isChained(entry: EntryIndex): boolean {
    const { entries, owners } = this;
    const previous = entries.ownerPrevious.get(entry);
    if (previous !== 0) return entries.ownerNext.get(previous - 1) === entry + 1;
    return owners.head.get(entries.owner.get(entry) - 1) === entry + 1;
  }

  /** Whether an emptied bucket leaves its list at once. Under our rules a window bucket waits for the reaper to come by. */
  #leavesList(bucket: BucketIndex, unlist: number): boolean {
    if (unlist === UNLIST.never) return false;
    if (!this.seedRules && unlist === UNLIST.normal && bucket < this.windowBuckets) return false;
    return this.bucketLinks.listed.get(bucket) !== 0;
  }

  /** Journaled: takes an entry, whose words begin at `at`, off its chain and its owner's list. */
  #unchain(at: number, headAt: number): void {
    const { words, entryStride } = this;
    const { journal } = this.thread;
    const older = words[this.chainNextAt + at] as number;
    const newer = words[this.chainPreviousAt + at] as number;
    const forwardAt = newer === 0 ? headAt : this.chainNextAt + (newer - 1) * entryStride;
    journal.log1(forwardAt);
    words[forwardAt] = older;
    if (older !== 0) {
      const backAt = this.chainPreviousAt + (older - 1) * entryStride;
      journal.log1(backAt);
      words[backAt] = newer;
    }
    if (this.seedRules && ((words[this.flagsAt + at] as number) & ENTRY_FLAG.wired) !== 0) return;
    const owner = ((words[this.ownerAt + at] as number) - 1) * this.ownerStride;
    const next = words[this.ownerNextAt + at] as number;
    const previous = words[this.ownerPreviousAt + at] as number;
    const listAt = previous === 0 ? this.ownerHeadAt + owner : this.ownerNextAt + (previous - 1) * entryStride;
    const countAt = this.ownerCountAt + owner;
    const classesAt = this.ownerClassesAt + owner;
    journal.log3(listAt, countAt, classesAt);
    words[listAt] = next;
    if (next !== 0) {
      const backAt = this.ownerPreviousAt + (next - 1) * entryStride;
      journal.log1(backAt);
      words[backAt] = previous;
    }
    const left = (words[countAt] as number) - 1;
    words[countAt] = left;
    if (left === 0) words[classesAt] = 0;
  }
}
