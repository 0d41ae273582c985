/**
 * The pagelock cache under the rules of the original source, kept for replays.
 *
 * PROBLEM     Recorded runs must come out exactly, with everything that docs/differences.md lists as a weakness.
 * STRUCTURE   One hash of (owner's tag, address, page shift) without mixing; a range is found by its first address only:
 *
 *               lookup     newest match decides, even when it denies
 *               insert     charge, then drop shorter idle ranges of the same start, then link unless one is covered
 *               inactive   find the own range from the newest on; a longer one met before makes it go
 *               purge      from the newest on, up to the first that is pinned
 *
 * INVARIANTS  Those of pagelock-core.ts, but for wired entries, which are on no owner's list.
 * LOCKING     Owner, bucket, cache. `inactive` needs the owner's lock after the bucket's: it tries, and starts again in the
 *             right order when that fails.
 * COSTS       Those of the structure.
 * FAILURE     -1 and `INSERT_...`; see the public class.
 * REJECTED    Nothing: every step is as the source has it.
 * REFERENCES  illumos vm_seg.c: seg_plookup, seg_pinsert_check, seg_pinsert, seg_pinactive, seg_ppurge, seg_ppurge_wiredpp.
 */

import { assert } from '../base/assert.ts';
import { fail } from '../base/index.ts';
import { VERIFY } from '../base/verify.ts';
import { faultPoint } from '../sync/index.ts';
import type { PagelockCore } from './pagelock-core.ts';
import {
  type BucketIndex,
  type CacheOwner,
  DRIVER_POSITION,
  ENTRY_FLAG,
  type EntryIndex,
  INSERT_COVERED,
  INSERT_REFUSED,
  PIN,
  type Pin,
  UNLIST,
} from './pagelock-kinds.ts';
import type { Reclaimer } from './reclaimer.ts';

const ACTIVE_MAX = 0xffffffff;

/** One thread's view. */
export class SeedCache {
  readonly #core: PagelockCore;
  readonly #reclaimer: Reclaimer;

  constructor(core: PagelockCore, reclaimer: Reclaimer) {
    this.#core = core;
    this.#reclaimer = reclaimer;
  }

  /** A pin on the newest range of this start that is long enough, or -1. */
  lookup(owner: CacheOwner, address: number, pages: number, flags: number): Pin {
    const core = this.#core;
    if (core.disabled || !core.pins.ensure()) return -1;
    const { entries, thread } = core;
    const bucket = core.seedBucket(owner, address, flags);
    const write = (flags & PIN.write) !== 0;
    let pin = -1;
    core.lockBucket(bucket);
    const entry = this.#newest(bucket, owner, address, pages);
    if (entry >= 0) {
      const active = entries.active.get(entry) >>> 0;
      if (!(write && entries.writablePages.get(entry) < pages) && active !== ACTIVE_MAX) {
        pin = core.pins.take(entry, entries.active.address(entry));
        entries.active.put(entry, active + 1);
        const known = entries.flags.get(entry);
        if (write && (known & ENTRY_FLAG.write) === 0) {
          thread.journal.set(entries.flags, entry, known | ENTRY_FLAG.write);
        }
        if (VERIFY) faultPoint(thread, 'seg.lookup.counted');
      }
    }
    core.unlockBucket(bucket);
    return pin;
  }

  /** A pin on the new range, or `INSERT_...`. */
  insert(owner: CacheOwner, address: number, pages: number, shadow: number, flags: number, writablePages: number): Pin {
    const core = this.#core;
    if (core.disabled || !core.pins.ensure()) return INSERT_REFUSED;
    const wired = (flags & PIN.wired) !== 0;
    const entry = this.#charge(owner, address, pages, shadow, flags, writablePages);
    if (entry < 0) return INSERT_REFUSED;
    const bucket = core.seedBucket(owner, address, flags);
    if (!wired) core.lockOwner(owner);
    core.lockBucket(bucket);
    const covered = !wired && this.#dropShorter(bucket, owner, address, pages);
    const pin = covered ? INSERT_COVERED : this.#link(entry, bucket, wired);
    core.unlockBucket(bucket);
    if (!wired) core.unlockOwner(owner);
    if (covered) this.#uncharge(entry);
    this.#reclaimer.run(false);
    return pin;
  }

  /** Releases a pin, or a shadow list that is not cached (`pin` negative), whose key the caller names. */
  inactive(owner: CacheOwner, address: number, pages: number, pin: Pin, shadow: number, flags: number): void {
    const core = this.#core;
    if (!core.enabled) {
      this.#reclaimNow(owner, address, pages, shadow, flags);
      return;
    }
    const wired = (flags & PIN.wired) !== 0;
    let ownerHeld = false;
    let keep = false;
    // 1. Whoever will remove the range needs the owner's lock first.
    if (!wired && core.disabled) {
      core.lockOwner(owner);
      ownerHeld = true;
    }
    const bucket = core.seedBucket(owner, address, flags);
    core.lockBucket(bucket);
    // 2. From the newest on: longer ranges of the same start come before the own one.
    let entry = this.#newest(bucket, owner, address, pages);
    while (entry >= 0) {
      if (core.entries.shadow.get(entry) === shadow) {
        if (keep) {
          core.unlockOwner(owner);
          ownerHeld = false;
        }
        this.#releaseOwn(entry, bucket, pin, flags, ownerHeld);
        if (ownerHeld) core.unlockOwner(owner);
        this.#reclaimer.run(false);
        return;
      }
      if (!wired) {
        if (core.entries.active.get(entry) === 0) this.#refresh(entry);
        if (ownerHeld) keep = false;
        else if (core.tryLockOwner(owner)) ownerHeld = true;
        else {
          core.unlockBucket(bucket);
          core.lockOwner(owner);
          core.lockBucket(bucket);
          ownerHeld = true;
          keep = true;
          entry = this.#newest(bucket, owner, address, pages);
          continue;
        }
      }
      entry = this.#older(entry, owner, address, pages);
    }
    // 3. Not cached: its user is its only one.
    core.unlockBucket(bucket);
    if (ownerHeld) core.unlockOwner(owner);
    this.#reclaimNow(owner, address, pages, shadow, flags);
  }

  /** Drops the ranges of an owner from the newest on, up to the first that is pinned. */
  purge(owner: CacheOwner, wired: boolean): void {
    const core = this.#core;
    if (core.control.lockedPages.get(0) === 0) return;
    if (wired) this.#purgeWired(owner);
    else {
      core.lockOwner(owner);
      for (let link = core.owners.head.get(owner); link !== 0; link = core.owners.head.get(owner)) {
        const entry = link - 1;
        const bucket = core.entries.bucket.get(entry);
        core.lockBucket(bucket);
        const idle = core.entries.active.get(entry) === 0;
        if (idle) core.unlink(entry, UNLIST.normal, core.entries.pages.get(entry));
        core.unlockBucket(bucket);
        if (!idle) break;
      }
      core.unlockOwner(owner);
    }
    this.#reclaimer.run(false);
  }

  /** Drops the idle wired ranges of a shadow list, bucket by bucket, until its driver says that it is done. */
  purgeShadow(shadow: number): void {
    const core = this.#core;
    if (core.control.lockedPages.get(0) === 0) return;
    const end = core.windowBuckets + core.wiredMask + 1;
    for (let bucket = core.windowBuckets; bucket < end; bucket++) {
      if (core.buckets.head.get(bucket) === 0) continue;
      core.lockBucket(bucket);
      for (let link = core.buckets.head.get(bucket); link !== 0; ) {
        const entry = link - 1;
        link = core.entries.chainNext.get(entry);
        if (core.entries.active.get(entry) !== 0 || core.entries.shadow.get(entry) !== shadow) continue;
        core.unlink(entry, UNLIST.normal, core.entries.pages.get(entry));
      }
      core.unlockBucket(bucket);
      if (this.#reclaimer.run(true)) return;
    }
  }

  /** The newest range of a start that is long enough, or -1. */
  #newest(bucket: BucketIndex, owner: CacheOwner, address: number, pages: number): EntryIndex {
    return this.#firstMatch(this.#core.buckets.head.get(bucket), owner, address, pages);
  }

  #older(entry: EntryIndex, owner: CacheOwner, address: number, pages: number): EntryIndex {
    return this.#firstMatch(this.#core.entries.chainNext.get(entry), owner, address, pages);
  }

  #firstMatch(from: number, owner: CacheOwner, address: number, pages: number): EntryIndex {
    const { entries } = this.#core;
    for (let link = from; link !== 0; link = entries.chainNext.get(link - 1)) {
      const entry = link - 1;
      if (
        entries.owner.get(entry) === owner + 1 &&
        entries.address.get(entry) === address &&
        entries.pages.get(entry) >= pages
      ) {
        return entry;
      }
    }
    return -1;
  }

  /** The clock and the bit that protect from the reaper: a whole by themselves, so they are not logged. */
  #refresh(entry: EntryIndex): void {
    const { entries } = this.#core;
    entries.lastUse.put(entry, this.#core.ticks());
    entries.flags.put(entry, entries.flags.get(entry) | ENTRY_FLAG.referenced);
  }

  /** Counts a pin of the own range down. Leaves the bucket. */
  #releaseOwn(entry: EntryIndex, bucket: BucketIndex, pin: Pin, flags: number, ownerHeld: boolean): void {
    const core = this.#core;
    const { entries, thread } = core;
    const row = this.#rowOf(pin, entry, bucket);
    const active = (entries.active.get(entry) >>> 0) - 1;
    const wired = (flags & PIN.wired) !== 0;
    if (active === 0 && (ownerHeld || (wired && core.disabled))) {
      if ((flags & PIN.write) !== 0) entries.flags.put(entry, entries.flags.get(entry) | ENTRY_FLAG.write);
      core.unlink(entry, UNLIST.normal, entries.pages.get(entry), row);
    } else {
      core.pins.give(row, entries.active.address(entry));
      entries.active.put(entry, active);
      if (VERIFY) faultPoint(thread, 'seg.release.counted');
      if (active === 0 && !wired) this.#refresh(entry);
    }
    core.unlockBucket(bucket);
  }

  #rowOf(pin: Pin, entry: EntryIndex, bucket: BucketIndex): number {
    const { pins } = this.#core;
    if (pin >= 0) {
      const row = pins.rowOf(pin, 'pagelock.inactive');
      if (pins.entryOf(row) === entry) return row;
    }
    this.#core.unlockBucket(bucket);
    fail('EINVAL', 'pagelock.inactive', { pin }, 'the shadow list is cached, but the pin is none of its pins');
  }

  #reclaimNow(owner: CacheOwner, address: number, pages: number, shadow: number, flags: number): void {
    const { owners, pageSize } = this.#core;
    const driver = this.#reclaimer.driver((owners.state.get(owner) >> 1) - 1);
    driver.reclaim(owner, address, pages * pageSize, shadow, (flags & PIN.write) !== 0, false);
  }

  /** One transaction: an entry, charged and reserved for this slot; -1 when the window or the table is full. */
  #charge(
    owner: CacheOwner,
    address: number,
    pages: number,
    shadow: number,
    flags: number,
    writablePages: number,
  ): EntryIndex {
    const { control, lock, slots, thread, maxWindow, owners, entries } = this.#core;
    const wired = (flags & PIN.wired) !== 0;
    lock.enter();
    let entry = -1;
    if (wired || control.windowPages.get(0) + pages <= maxWindow) entry = this.#core.takeEntry();
    if (entry >= 0) {
      const driver = (owners.state.get(owner) >> 1) - 1;
      const bits =
        (wired ? ENTRY_FLAG.wired : 0) |
        ((flags & PIN.write) !== 0 ? ENTRY_FLAG.write : 0) |
        (driver << DRIVER_POSITION);
      this.#core.fillEntry(entry, owner, address, pages, shadow, bits);
      entries.writablePages.put(entry, writablePages);
      this.#core.charge(entry, 1, pages);
      thread.journal.set(slots.reserved, thread.slot, entry + 1);
      if (VERIFY) faultPoint(thread, 'seg.insert.charged');
    }
    lock.exit();
    return entry;
  }

  /** One transaction: a reserved entry that was not linked goes back. */
  #uncharge(entry: EntryIndex): void {
    const { lock, slots, thread } = this.#core;
    lock.enter();
    this.#core.charge(entry, -1, this.#core.entries.pages.get(entry));
    this.#core.freeEntry(entry);
    thread.journal.set(slots.reserved, thread.slot, 0);
    lock.exit();
  }

  /** One transaction: links a reserved entry. */
  #link(entry: EntryIndex, bucket: BucketIndex, wired: boolean): Pin {
    const core = this.#core;
    const { thread, slots } = core;
    const joins = !wired && core.buckets.head.get(bucket) === 0;
    if (joins) core.lock.enter();
    core.link(entry, bucket);
    if (VERIFY) faultPoint(thread, 'seg.insert.linked');
    if (joins) core.lists.join(bucket);
    const reserved = slots.reserved.address(thread.slot);
    const pin = core.pins.take(entry, reserved);
    slots.reserved.put(thread.slot, 0);
    if (joins) core.lock.exit();
    else thread.commit();
    return pin;
  }

  /** True when a range of this start is at least as long. Idle shorter ones that were met before are unlinked. */
  #dropShorter(bucket: BucketIndex, owner: CacheOwner, address: number, pages: number): boolean {
    const core = this.#core;
    const { entries, buckets } = core;
    for (let link = buckets.head.get(bucket); link !== 0; ) {
      const entry = link - 1;
      link = entries.chainNext.get(entry);
      if (entries.owner.get(entry) !== owner + 1 || entries.address.get(entry) !== address) continue;
      if (entries.pages.get(entry) >= pages) return true;
      if (entries.active.get(entry) === 0) core.unlink(entry, UNLIST.never, entries.pages.get(entry));
    }
    return false;
  }

  #purgeWired(owner: CacheOwner): void {
    const core = this.#core;
    const { entries, buckets } = core;
    const bucket = core.seedBucket(owner, 0, PIN.wired);
    core.lockBucket(bucket);
    for (let link = buckets.head.get(bucket); link !== 0; ) {
      const entry = link - 1;
      link = entries.chainNext.get(entry);
      assert((entries.flags.get(entry) & ENTRY_FLAG.wired) !== 0, 'seg/seed-cache: wired buckets hold wired entries');
      if (entries.owner.get(entry) !== owner + 1) continue;
      if (entries.active.get(entry) !== 0) break;
      core.unlink(entry, UNLIST.normal, entries.pages.get(entry));
    }
    core.unlockBucket(bucket);
  }
}
