/** Threads that look up, insert, release, purge, reap and disable in one pagelock cache of two hash buckets. */

import { VmError } from '../../../src/base/errors.ts';
import { GEOMETRY_KEYS, type Geometry } from '../../../src/layout/geometry.ts';
import { Region } from '../../../src/layout/region.ts';
import { createCacheOwner } from '../../../src/seg/cache-owners.ts';
import { PagelockCache } from '../../../src/seg/pagelock-cache.ts';
import { PagelockCore } from '../../../src/seg/pagelock-core.ts';
import { type CacheDriver, type CacheOwner, PIN, type Pin } from '../../../src/seg/pagelock-kinds.ts';
import { createPagelock } from '../../../src/seg/pagelock-options.ts';
import { add, FOREVER, load } from '../../../src/sync/atomics.ts';
import type { Callbacks } from '../../../src/sync/callbacks.ts';
import { claimSlot } from '../../../src/sync/slots.ts';
import { takeOver } from '../../../src/sync/takeover.ts';
import { Thread } from '../../../src/sync/thread.ts';
import { digestThreads, type Scenario } from '../scenario.ts';

const PAGE = 4096;

/** Shadow lists that a thread may insert. */
const SHADOWS = 4;

/** What the world has in front of the threads' own shadow lists: 0 the range that is cached before they start. */
const FIRST = 1;

/** What the threads do. */
export interface PagelockWorldOptions {
  /**
   * What each thread does, in order: `l` look up the first range, `r` release the newest pin, `R` release it again, `i` insert
   * the second range, `b` insert one that covers both, `p` purge, `g` reap, `d` disable without waiting, `e` enable.
   */
  readonly programs: readonly string[];
  readonly mortal?: readonly number[];
}

/** See the file's header. */
export class PagelockWorld implements Scenario {
  readonly threads: number;
  readonly mortal: readonly number[];
  readonly options: PagelockWorldOptions;
  readonly members: Thread[] = [];
  region!: Region;
  words!: Int32Array;
  owner: CacheOwner = 0;

  constructor(options: PagelockWorldOptions) {
    this.options = options;
    this.threads = options.programs.length;
    this.mortal = options.mortal ?? [];
  }

  setUp(): void {
    const zeros = Object.fromEntries(GEOMETRY_KEYS.map((key) => [key, 0]));
    const rows = 32 * (this.threads + 1);
    const small: Partial<Geometry> = {
      slots: 4,
      slotLanes: 1,
      lockLanes: 2,
      heldLanes: 17,
      journalLanes: 513,
      pageSize: PAGE,
      tagBuckets: FIRST + SHADOWS * this.threads,
      pagelockBuckets: 2,
      pagelockEntries: 8,
      pagelockOwners: 1,
      pagelockPins: rows,
    };
    this.region = Region.create({ ...zeros, ...small } as Geometry, { spinLimit: 1, virtualClock: true });
    this.words = this.region.words;
    createPagelock(this.region, {
      memoryPages: 64,
      windowBuckets: 1,
      wiredBuckets: 1,
      maxWindow: Number.POSITIVE_INFINITY,
      maxAgeTicks: 0,
      shrinkShift: 0,
    });
    for (let thread = 0; thread <= this.threads; thread++) {
      this.members.push(new Thread(this.region, claimSlot(this.region, thread + 1), FOREVER));
    }
    this.owner = createCacheOwner(new PagelockCore(this.member(0)), 0, false, 0);
    // Every thread has pins at hand, and one range is cached, idle.
    for (let thread = 0; thread <= this.threads; thread++) {
      const cache = this.cacheOf(thread);
      if (cache.lookup(this.owner, 0, PAGE, PIN.read) >= 0) throw new Error('something is cached already');
    }
    const cache = this.cacheOf(this.threads);
    cache.release(cache.insert(this.owner, 0, PAGE, 0, PIN.read));
  }

  run(thread: number): void {
    // Made here: a rebuilt thread must find what is private to it as it was at the start.
    const cache = this.cacheOf(thread);
    const pins: Pin[] = [];
    let given: Pin = -1;
    let shadow = FIRST + SHADOWS * thread;
    for (const letter of this.options.programs[thread] as string) {
      if (letter === 'l') {
        const pin = cache.lookup(this.owner, 0, PAGE, PIN.read);
        if (pin >= 0) {
          pins.push(pin);
          if (cache.addressOf(pin) !== 0) throw new Error('a hit does not cover the request');
        }
      } else if (letter === 'i' || letter === 'b') {
        const first = letter === 'i' ? PAGE : 0;
        const pin = cache.insert(this.owner, first, 2 * PAGE - first, shadow, PIN.read);
        if (pin >= 0) pins.push(pin);
        else cache.inactive(this.owner, first, 2 * PAGE - first, pin, shadow, PIN.read);
        shadow++;
      } else if (letter === 'r') {
        given = pins.pop() ?? -1;
        if (given >= 0) cache.release(given);
      } else if (letter === 'R') {
        if (given >= 0) this.releaseAgain(cache, given);
      } else if (letter === 'p') cache.purge(this.owner);
      else if (letter === 'g') cache.reap();
      else if (letter === 'd') this.disable(cache);
      else cache.enable();
    }
    for (const pin of pins) cache.release(pin);
  }

  /** What is empty stays empty; a load in between is a place to be preempted at. */
  disable(cache: PagelockCache): void {
    if (!cache.disable(0)) return;
    load(this.words, this.region.tables.pagelock.suspended.address(0));
    if (cache.lockedPages !== 0) throw new Error(`the disabled cache holds ${cache.lockedPages} pages`);
  }

  /** A second release must be refused, whatever has happened to the row meanwhile. */
  releaseAgain(cache: PagelockCache, pin: Pin): void {
    try {
      cache.release(pin);
    } catch (error) {
      if (error instanceof VmError && error.code === 'EINVAL') return;
      throw error;
    }
    throw new Error(`pin ${pin} was released twice`);
  }

  recover(dead: number): void {
    const cache = this.cacheOf(this.threads);
    takeOver(this.members[this.threads] as Thread, dead, [(_self, slot) => cache.recover(slot)]);
  }

  passTime(): void {}

  digest(into: number[]): void {
    const { tables } = this.region;
    const { pagelock, pagelockBucket, pagelockBucketLink, pagelockEntry, pagelockOwner, pagelockPin } = tables;
    const { pagelockSlot, bucket } = tables;
    for (let row = 0; row < bucket.rowCount; row++) into.push(bucket.head.get(row));
    const { disabled, lock, lockedPages, windowPages, current, reaper, entryHead, entryFresh, entryCount } = pagelock;
    for (const column of [
      disabled,
      lock,
      lockedPages,
      windowPages,
      current,
      reaper,
      entryHead,
      entryFresh,
      entryCount,
    ]) {
      into.push(column.get(0));
    }
    into.push(pagelock.epoch.get(0), pagelock.orphanHead.get(0), pagelock.pinHead.get(0));
    for (let lane = 0; lane < 3; lane++) into.push(pagelock.headNext.at(0, lane), pagelock.headPrevious.at(0, lane));
    for (let row = 0; row < 2; row++) {
      into.push(pagelockBucket.lock.get(row), pagelockBucket.head.get(row), pagelockBucketLink.listed.get(row));
      into.push(pagelockBucketLink.listNext.get(row), pagelockBucketLink.listPrevious.get(row));
    }
    for (let row = 0; row < pagelockEntry.rowCount; row++) {
      into.push(pagelockEntry.owner.get(row), pagelockEntry.chainNext.get(row));
      if (pagelockEntry.owner.get(row) === 0) continue;
      into.push(pagelockEntry.shadow.get(row), pagelockEntry.active.get(row), pagelockEntry.flags.get(row));
      into.push(pagelockEntry.lastUse.get(row), pagelockEntry.bucket.get(row), pagelockEntry.chainPrevious.get(row));
      into.push(pagelockEntry.ownerNext.get(row), pagelockEntry.ownerPrevious.get(row));
    }
    into.push(pagelockOwner.lock.get(0), pagelockOwner.head.get(0), pagelockOwner.count.get(0));
    into.push(pagelockOwner.classes.get(0), pagelockOwner.claims.get(0));
    for (let slot = 0; slot <= this.threads; slot++) {
      into.push(pagelockSlot.pinHead.get(slot), pagelockSlot.pendingHead.get(slot), pagelockSlot.disables.get(slot));
      // Pins that a slot has not yet come to are as they were.
      for (let row = 32 * slot + 24; row < 32 * slot + 32; row++) {
        into.push(pagelockPin.entry.get(row), pagelockPin.next.get(row), pagelockPin.slot.get(row));
        into.push(pagelockPin.generation.get(row));
      }
    }
    digestThreads(this.members, into);
  }

  /** Takes the cache down: nothing may be left, and every shadow list must have gone back once. */
  verdict(dead: number): string | null {
    const cache = this.cacheOf(this.threads);
    const before = cache.check().problems;
    if (before.length > 0) return before.join('; ');
    // Without a death nobody has a pin any more, and nothing waits to be reclaimed.
    if (dead < 0 && cache.disabled > 0 && cache.lockedPages !== 0)
      return `the disabled cache holds ${cache.lockedPages} pages`;
    while (cache.disabled > 0) cache.enable();
    if (cache.purge(this.owner) !== 0) return 'a range is pinned for ever';
    const { problems } = cache.check();
    if (problems.length > 0) return problems.join('; ');
    if (cache.lockedPages !== 0) return `${cache.lockedPages} pages stay locked`;
    if (this.region.tables.pagelockOwner.claims.get(0) !== 0) return 'the owner is claimed for ever';
    if (dead >= 0 && this.region.tables.slot.claim.get(dead) !== 0) return `slot ${dead} cannot be claimed again`;
    return this.account(dead);
  }

  /** Who died in a driver's function may have done its work: it runs once more. What it had not offered yet is lost. */
  account(dead: number): string | null {
    const { bucket } = this.region.tables;
    for (let shadow = 0; shadow < bucket.rowCount; shadow++) {
      const offers = this.offersOf(shadow);
      const times = bucket.head.get(shadow);
      const least = dead >= 0 && shadow >= FIRST && this.threadOf(shadow) === dead ? 0 : offers;
      if (times < least || times > offers + (dead >= 0 ? 1 : 0))
        return `shadow list ${shadow} went back ${times} times`;
    }
    return null;
  }

  threadOf(shadow: number): number {
    return Math.floor((shadow - FIRST) / SHADOWS);
  }

  /** 1 for a shadow list that its thread inserts, or that was there before. */
  offersOf(shadow: number): number {
    if (shadow < FIRST) return 1;
    const program = this.options.programs[this.threadOf(shadow)] as string;
    const inserted = [...program].filter((letter) => letter === 'i' || letter === 'b').length;
    return (shadow - FIRST) % SHADOWS < inserted ? 1 : 0;
  }

  member(thread: number): Thread {
    return this.members[thread] as Thread;
  }

  cacheOf(thread: number): PagelockCache {
    const { head } = this.region.tables.bucket;
    const { words } = this;
    const driver: CacheDriver = {
      reclaim(_owner, _address, _length, shadow) {
        add(words, head.address(shadow), 1);
        return false;
      },
    };
    const callbacks = { resolve: () => driver } as unknown as Callbacks;
    const gauges = { freePages: 0, lotsFree: 1000, desiredFree: 500, neededFree: 0 };
    return new PagelockCache(this.member(thread), callbacks, gauges);
  }
}
