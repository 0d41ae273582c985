/**
 * The reaper: takes idle ranges out of the cache when memory is short or the window is nearly full.
 *
 * PROBLEM     Cached ranges keep pages locked that nobody uses. They must go when memory is needed, oldest first, without
 *             stopping hits, and those just released must get a second chance.
 * STRUCTURE   reap:  1 decide whether and how much   2 become the one that walks   3 walk the list that is not current,
 *                    then, at its end, the other   4 reclaim, with no lock held
 *             reclaim: as many pages as somebody needs; for a pagedaemon.
 *             flush: everything idle, owner by owner; for a disable.
 *             A range that was released lately loses its reference bit and stays; met again, it goes.
 * INVARIANTS  I1 `reaper` names the one slot that walks.   I2 each bucket is seen once in a walk.
 * LOCKING     Bucket, then its entries' owners by `tryEnter` only: whoever holds an owner's lock may be waiting for the bucket.
 * COSTS       About 20 ns an entry that stays.
 * FAILURE     A range whose owner is busy stays until the next visit of the reaper, as does one whose driver this thread
 *             cannot load.
 * REJECTED    Exact age order: the order in which buckets became active is nearly that, and free.
 * REFERENCES  illumos vm_seg.c, seg_ppurge_async; the CLOCK algorithm for the second chance.
 */

import { VERIFY } from '../base/verify.ts';
import { faultPoint } from '../sync/index.ts';
import type { PagelockCore } from './pagelock-core.ts';
import {
  type BucketIndex,
  type CacheOwner,
  ENTRY_FLAG,
  type EntryIndex,
  LIST_WIRED,
  type MemoryGauges,
  PAGELOCK_COUNTER,
  UNLIST,
} from './pagelock-kinds.ts';
import type { RangeSharing } from './range-sharing.ts';
import type { Reclaimer } from './reclaimer.ts';

/** Buckets between two looks at free memory, less one. */
const LOOK_MASK = 15;

/** What a walk is for. */
interface WalkPlan {
  /** Take everything idle, whatever its age. */
  readonly force: boolean;
  /** Stop after this many pages. */
  readonly wantPages: number;
  /** Stop when memory is no longer short. */
  readonly watchMemory: boolean;
}

/** One thread's reaper. */
export class CacheReaper {
  readonly #core: PagelockCore;
  readonly #sharing: RangeSharing;
  readonly #reclaimer: Reclaimer;
  readonly #gauges: MemoryGauges;

  constructor(core: PagelockCore, sharing: RangeSharing, reclaimer: Reclaimer, gauges: MemoryGauges) {
    this.#core = core;
    this.#sharing = sharing;
    this.#reclaimer = reclaimer;
    this.#gauges = gauges;
  }

  /** Takes what has to go now. */
  reap(): void {
    const { control, seedRules } = this.#core;
    this.#reclaimer.askAgain();
    this.#reclaimer.adopt();
    if (!seedRules) this.#passEpoch();
    if (control.windowPages.get(0) !== 0) {
      const plan = this.#plan();
      if (plan !== null) this.#walkAlone(plan);
    }
    this.#reclaimer.run(true);
  }

  /**
   * Takes idle ranges of about so many pages, whatever the gauges say: those that were released lately only when the others
   * are not enough. Returns how many pages.
   */
  reclaim(pages: number): number {
    this.#reclaimer.askAgain();
    this.#reclaimer.adopt();
    this.#passEpoch();
    let taken = 0;
    // The first walk takes the reference bits, the second what then has none.
    for (let walk = 0; walk < 2 && taken < pages; walk++) {
      taken += this.#walkAlone({ force: false, wantPages: pages - taken, watchMemory: false });
    }
    this.#reclaimer.run(true);
    return taken;
  }

  /**
   * Takes everything idle. Under the rules of the original source it passes over ranges of busy owners, and takes only wired
   * ranges while another thread walks. Under ours it waits for the owners, which nobody holds for long.
   */
  flush(): void {
    const { control, owners, seedRules } = this.#core;
    if (control.lockedPages.get(0) === 0) return;
    this.#reclaimer.adopt();
    if (seedRules) {
      this.#flushWired();
      this.#walkAlone({ force: true, wantPages: Number.POSITIVE_INFINITY, watchMemory: false });
    } else {
      const end = control.ownerFresh.get(0);
      for (let owner = 0; owner < end; owner++) if (owners.count.get(owner) !== 0) this.#takeIdleOf(owner);
    }
    this.#reclaimer.run(true);
  }

  /** Owners of wired ranges of a shadow list. */
  ownersOfWired(shadow: number): CacheOwner[] {
    const core = this.#core;
    const owners = new Set<CacheOwner>();
    for (const bucket of this.#wiredBuckets()) {
      core.lockBucket(bucket);
      for (let link = core.buckets.head.get(bucket); link !== 0; link = core.entries.chainNext.get(link - 1)) {
        if (core.entries.shadow.get(link - 1) === shadow) owners.add(core.entries.owner.get(link - 1) - 1);
      }
      core.unlockBucket(bucket);
    }
    return [...owners];
  }

  /** Whether memory is short or the window nearly full, and how many pages to take; null when neither. */
  #plan(): WalkPlan | null {
    const { control, maxWindow, seedRules } = this.#core;
    const window = control.windowPages.get(0);
    const shortage = this.#isShort(window);
    const trim = window >= 7 * Math.floor(maxWindow / 8);
    if (!shortage && !trim) return null;
    const purgePages = control.purgePages.get(0);
    const most = shortage ? Math.max(purgePages, this.#gauges.desiredFree) : purgePages;
    let wantPages = Math.min(Math.floor(window / 2 ** control.shrinkShift.get(0)), most);
    // A small cache has something to give too; the original source leaves the last pages for ever.
    if (!seedRules && shortage) wantPages = Math.max(wantPages, 1);
    return wantPages === 0 ? null : { force: false, wantPages, watchMemory: !trim };
  }

  /** The less memory is free, the smaller the window that counts as too large. */
  #isShort(window: number): boolean {
    const { freePages, lotsFree, desiredFree, neededFree } = this.#gauges;
    if (freePages >= lotsFree + neededFree) return false;
    const free = Math.max(freePages - neededFree, 0);
    const available = this.#core.control.availableAtBoot.get(0);
    if (free <= 5 * Math.floor(desiredFree / 4)) return true;
    if (free <= 7 * Math.floor(lotsFree / 8)) return window >= Math.floor(available / 2);
    return window >= 3 * Math.floor(available / 4);
  }

  /** Walks unless another thread does; returns the pages that it took. */
  #walkAlone(plan: WalkPlan): number {
    const { control, lock, thread } = this.#core;
    lock.enter();
    const alone = control.reaper.get(0) === 0;
    if (alone) thread.journal.set(control.reaper, 0, thread.tag);
    lock.exit();
    if (!alone) return 0;
    const taken = this.#walk(plan);
    lock.enter();
    thread.journal.set(control.reaper, 0, 0);
    lock.exit();
    this.#core.count(PAGELOCK_COUNTER.reapedPages, taken);
    return taken;
  }

  #walk(plan: WalkPlan): number {
    const { control, lists, lock, thread } = this.#core;
    let taken = 0;
    for (let walked = 0; walked < 2; walked++) {
      const list = 1 - control.current.get(0);
      for (let link = lists.first(list); link !== 0; ) {
        const bucket = link - 1;
        link = lists.after(bucket);
        if (VERIFY) faultPoint(thread, 'seg.reap.walking');
        const pages = this.#takeFrom(bucket, plan.force);
        if (pages < 0) continue;
        taken += pages;
        if (!this.#enough(plan, taken)) continue;
        // The next walk goes on where this one stops; at the very end of a list, it starts there again.
        if (link === 0) return taken;
        lock.enter();
        lists.startAt(list, link - 1);
        lock.exit();
        return taken;
      }
      // This list is done: from now on buckets join it, and the other one is walked.
      lock.enter();
      thread.journal.set(control.current, 0, list);
      lock.exit();
    }
    return taken;
  }

  #enough(plan: WalkPlan, taken: number): boolean {
    const { control } = this.#core;
    if (taken >= control.windowPages.get(0)) return true;
    if (plan.force) return false;
    if (taken >= plan.wantPages) return true;
    if (!plan.watchMemory || (control.fullBuckets.get(0) & LOOK_MASK) !== 0) return false;
    return this.#gauges.freePages >= this.#gauges.lotsFree + this.#gauges.neededFree;
  }

  /** Takes what may go from one bucket; returns pages, or -1 for an empty bucket. */
  #takeFrom(bucket: BucketIndex, force: boolean): number {
    const core = this.#core;
    const { control, buckets, entries } = core;
    if (buckets.head.get(bucket) === 0) {
      control.emptyBuckets.put(0, control.emptyBuckets.get(0) + 1);
      if (!core.seedRules) this.#unlistEmpty(bucket);
      return -1;
    }
    control.fullBuckets.put(0, control.fullBuckets.get(0) + 1);
    let taken = 0;
    const sharing: EntryIndex[] = [];
    core.lockBucket(bucket);
    for (let link = buckets.head.get(bucket); link !== 0; ) {
      const entry = link - 1;
      link = entries.chainNext.get(entry);
      if (entries.active.get(entry) !== 0 || (!force && this.#isYoung(entry))) continue;
      if ((entries.flags.get(entry) & ENTRY_FLAG.shares) === 0) taken += this.#take(entry, UNLIST.walker);
      else sharing.push(entry);
    }
    core.unlockBucket(bucket);
    for (const entry of sharing) taken += this.#takeSharing(entry, bucket);
    return taken;
  }

  /** Takes a bucket that was emptied off the list that this slot walks. */
  #unlistEmpty(bucket: BucketIndex): void {
    const core = this.#core;
    core.lockBucket(bucket);
    if (core.buckets.head.get(bucket) === 0) core.lists.leave(bucket, true);
    core.unlockBucket(bucket);
  }

  /** Second chance: a referenced entry that is young loses the bit and stays. */
  #isYoung(entry: EntryIndex): boolean {
    const { entries, control, seedRules } = this.#core;
    const flags = entries.flags.get(entry);
    if ((flags & ENTRY_FLAG.referenced) === 0) return false;
    // Unsigned: a clock that went back makes entries old, not young for ever.
    const young = seedRules
      ? (this.#core.ticks() - entries.lastUse.get(entry)) >>> 0 < control.maxAgeTicks.get(0)
      : (control.epoch.get(0) - entries.lastUse.get(entry)) >>> 0 < 2;
    // One word, and losing it with the thread does no harm: not logged.
    if (young) entries.flags.put(entry, flags & ~ENTRY_FLAG.referenced);
    return young;
  }

  /** Unlinks an idle entry unless its owner is busy or its driver not at hand; returns its pages. */
  #take(entry: EntryIndex, unlist: number): number {
    const core = this.#core;
    const owner = core.entries.owner.get(entry) - 1;
    const owned = core.isOwned(entry);
    if (!this.#reclaimer.canCall(entry)) return 0;
    if (owned && !core.tryLockOwner(owner)) return 0;
    // Others may have come to share its pages before the owner's lock was had.
    const shares = (core.entries.flags.get(entry) & ENTRY_FLAG.shares) !== 0;
    const pages = core.entries.pages.get(entry);
    if (!shares) core.unlink(entry, unlist, pages);
    if (owned) core.unlockOwner(owner);
    return shares ? 0 : pages;
  }

  /** Takes a range whose pages others may have too: for these one looks without the bucket's lock. Returns what it was charged. */
  #takeSharing(entry: EntryIndex, bucket: BucketIndex): number {
    const core = this.#core;
    const { entries } = core;
    const owner = entries.owner.get(entry) - 1;
    // No lock was held: it may have gone, and stand for something else.
    if (owner < 0 || !core.tryLockOwner(owner)) return 0;
    let taken = 0;
    if (entries.owner.get(entry) === owner + 1 && core.isChained(entry) && entries.bucket.get(entry) === bucket) {
      const pages = this.#sharing.pagesOf(entry);
      core.lockBucket(bucket);
      if (entries.active.get(entry) === 0 && this.#reclaimer.canCall(entry)) {
        core.unlink(entry, UNLIST.normal, pages);
        taken = pages;
      }
      core.unlockBucket(bucket);
    }
    core.unlockOwner(owner);
    return taken;
  }

  /** Unlinks all idle ranges of an owner. */
  #takeIdleOf(owner: CacheOwner): void {
    const core = this.#core;
    const { entries } = core;
    core.lockOwner(owner);
    for (let link = core.owners.head.get(owner); link !== 0; ) {
      const entry = link - 1;
      link = entries.ownerNext.get(entry);
      const bucket = entries.bucket.get(entry);
      const pages = this.#sharing.pagesOf(entry);
      core.lockBucket(bucket);
      if (entries.active.get(entry) === 0 && this.#reclaimer.canCall(entry)) core.unlink(entry, UNLIST.normal, pages);
      core.unlockBucket(bucket);
    }
    core.unlockOwner(owner);
  }

  #flushWired(): void {
    const core = this.#core;
    for (const bucket of this.#wiredBuckets()) {
      if (core.buckets.head.get(bucket) === 0) continue;
      core.lockBucket(bucket);
      for (let link = core.buckets.head.get(bucket); link !== 0; ) {
        const entry = link - 1;
        link = core.entries.chainNext.get(entry);
        if (core.entries.active.get(entry) === 0) this.#take(entry, UNLIST.normal);
      }
      core.unlockBucket(bucket);
    }
  }

  /** Wired buckets that may hold entries: all, in order, under the rules of the original source; else those listed. */
  #wiredBuckets(): BucketIndex[] {
    const { seedRules, windowBuckets, wiredMask, lists, lock } = this.#core;
    if (seedRules) return Array.from({ length: wiredMask + 1 }, (_, index) => windowBuckets + index);
    lock.enter();
    const buckets = lists.buckets(LIST_WIRED);
    lock.exit();
    return buckets;
  }

  /** Time as entries know it under our rules: a new epoch begins when an age has passed. */
  #passEpoch(): void {
    const { control, lock, thread } = this.#core;
    const now = thread.clock.now();
    const ageMs = control.maxAgeTicks.get(0) * control.tickMs.get(0);
    if (now - control.epochStart.get(0) < ageMs) return;
    lock.enter();
    thread.journal.setDouble(control.epochStart, 0, now);
    thread.journal.set(control.epoch, 0, (control.epoch.get(0) + 1) | 0);
    lock.exit();
  }
}
