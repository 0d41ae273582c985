/**
 * The pagelock cache: ranges whose pages stay locked for the next user.
 *
 * PROBLEM     Locking the pages of a range for a WASM module, a device or a socket takes far longer than using a range that is
 *             locked already.
 * STRUCTURE   What every thread uses; the work is in the files named on the right:
 *
 *               lookup, insert, release     range-cache.ts, or seed-cache.ts with `compat: 'seed'`
 *               reap, kick                  cache-reaper.ts
 *               disable, enable             cache-switch.ts
 *               shadow lists going back     reclaimer.ts
 *
 *             A segment driver asks `lookup`. When that misses it asks `insertCheck` whether caching makes sense, locks the
 *             pages, and offers them to `insert`. With a pin it ends by `release(pin)`; without, by `inactive`.
 * INVARIANTS  See pagelock-core.ts.
 * LOCKING     None is held when a driver's function runs.
 * COSTS       A hit and its release: one lock each.
 * FAILURE     Negative pins; `EINVAL` for misuse; `ENOMEM`, `EBUSY` for owners.
 * REJECTED    Objects for pins: hot calls return numbers.
 * REFERENCES  illumos vm_seg.c; DESIGN 5.5, 5.6.
 */

import { type CheckReport, fail, failMisuse, requireInteger } from '../base/index.ts';
import { VERIFY } from '../base/verify.ts';
import {
  add,
  type CallbackReference,
  type Callbacks,
  faultPoint,
  load,
  notify,
  requireTimeout,
  type SlotIndex,
  sleepOn,
  store,
  type Thread,
  waitAsync,
} from '../sync/index.ts';
import { checkPagelock } from './cache-check.ts';
import { createCacheOwner, destroyCacheOwner, isCacheOwner, requireOwner, retireCacheOwner } from './cache-owners.ts';
import { CacheReaper } from './cache-reaper.ts';
import { recoverPagelock } from './cache-recovery.ts';
import { type CacheSnapshot, type CacheStatistics, cacheStatistics, snapshotCache } from './cache-snapshot.ts';
import { CacheSwitch } from './cache-switch.ts';
import { PagelockCore } from './pagelock-core.ts';
import {
  type CacheDriver,
  type CacheOwner,
  INSERT_COVERED,
  INSERT_REFUSED,
  type MemoryGauges,
  PAGELOCK_COUNTER,
  PIN,
  type Pin,
} from './pagelock-kinds.ts';
import { RangeCache, RELEASED } from './range-cache.ts';
import { RangeMerger } from './range-merger.ts';
import { RangeSearch } from './range-search.ts';
import { RangeSharing } from './range-sharing.ts';
import { Reclaimer } from './reclaimer.ts';
import { SeedCache } from './seed-cache.ts';
import { requireOptions, requireReference } from './space-arguments.ts';

/** Options of `createOwner`. */
export interface CacheOwnerOptions {
  /** The driver that reclaims this owner's ranges: an export, or a name that every thread registers. */
  readonly driver: CallbackReference;
  /** Number that stands for the owner in the hash of the original source. Default 0; without meaning under our rules. */
  readonly tag?: number;
}

/** One thread's view of the cache. Make it once per thread, after `createPagelock` in the thread that booted. */
export class PagelockCache {
  readonly #core: PagelockCore;
  readonly #callbacks: Callbacks;
  readonly #reclaimer: Reclaimer;
  readonly #seed: SeedCache;
  readonly #ranges: RangeCache;
  readonly #sharing: RangeSharing;
  readonly #merger: RangeMerger;
  readonly #reaper: CacheReaper;
  readonly #switch: CacheSwitch;
  readonly #gauges: MemoryGauges;
  readonly #seedRules: boolean;
  readonly #inversePageSize: number;

  constructor(thread: Thread, callbacks: Callbacks, gauges: MemoryGauges) {
    this.#core = new PagelockCore(thread);
    this.#callbacks = callbacks;
    this.#gauges = gauges;
    const search = new RangeSearch(this.#core);
    const sharing = new RangeSharing(this.#core, search);
    this.#sharing = sharing;
    this.#reclaimer = new Reclaimer(this.#core, callbacks);
    this.#seed = new SeedCache(this.#core, this.#reclaimer);
    this.#ranges = new RangeCache(this.#core, search, sharing, this.#reclaimer);
    this.#merger = new RangeMerger(this.#core, search, sharing, this.#reclaimer);
    this.#reaper = new CacheReaper(this.#core, sharing, this.#reclaimer, gauges);
    this.#switch = new CacheSwitch(this.#core, this.#reaper);
    this.#seedRules = this.#core.seedRules;
    this.#inversePageSize = this.#core.inversePageSize;
  }

  /**
   * A row for a segment or an anon map. `note` is called with it inside the transaction, for journaled stores. Throws `ENOMEM`
   * when none is left, `ENOENT` when the driver cannot be loaded.
   */
  createOwner(options: CacheOwnerOptions, note?: (owner: CacheOwner) => void): CacheOwner {
    const call = 'pagelock.createOwner';
    requireOptions(call, options, ['driver', 'tag']);
    requireReference(call, options.driver);
    const driver = this.#callbacks.intern(options.driver);
    const { join, reclaim } = this.#callbacks.resolve<Partial<CacheDriver>>(driver);
    if (typeof reclaim !== 'function') failMisuse(call, { driver: options.driver.export }, 'it has no `reclaim`');
    return createCacheOwner(this.#core, driver, join !== undefined && !this.#seedRules, options.tag ?? 0, note);
  }

  /** Gives a row back. Throws `EBUSY` while ranges of the owner are cached, pinned or being reclaimed. */
  destroyOwner(owner: CacheOwner): void {
    destroyCacheOwner(this.#core, owner);
  }

  /**
   * Drops the ranges of an owner for whom nobody inserts any more, and gives the row back with its last claim: at once, or when
   * a thread that is reclaiming one of them has done so. `note`: as for `createOwner`.
   */
  retireOwner(owner: CacheOwner, note: () => void): void {
    this.purge(owner);
    if (this.#seedRules) this.purge(owner, PIN.wired);
    retireCacheOwner(this.#core, owner, note);
  }

  /**
   * A pin on a cached range, or -1. Flags: `PIN.write` to write, `PIN.wired` for the wired table. Under our rules the range
   * only has to cover the request: `addressOf` says where it starts.
   */
  lookup(owner: CacheOwner, address: number, lengthBytes: number, flags: number): Pin {
    const areNumbers = typeof owner === 'number' && typeof address === 'number' && typeof lengthBytes === 'number';
    if (!areNumbers) this.#requireRange('pagelock.lookup', owner, address, lengthBytes);
    const pages = lengthBytes * this.#inversePageSize;
    const pin = this.#seedRules
      ? this.#seed.lookup(owner, address, pages, flags)
      : this.#ranges.lookup(owner, address, pages, flags);
    this.#core.count(pin < 0 ? PAGELOCK_COUNTER.misses : PAGELOCK_COUNTER.hits, 1);
    // What cannot be cached is never found: misuse is looked for where it costs nothing.
    if (pin < 0) this.#requireRange('pagelock.lookup', owner, address, lengthBytes);
    return pin;
  }

  /**
   * False when `insert` would refuse: lock the pages for this use only. A hint: nothing is reserved. With the owner and address
   * of the range, under our rules, pages that other ranges of the owner have are not counted, as `insert` does not.
   */
  insertCheck(lengthBytes: number, flags: number, owner: CacheOwner = -1, address = 0): boolean {
    const { disabled, control, maxWindow, thread } = this.#core;
    const call = 'pagelock.insertCheck';
    const pages =
      owner === -1 ? this.#requireLength(call, lengthBytes) : this.#requireRange(call, owner, address, lengthBytes);
    if (disabled) return false;
    if (VERIFY && faultPoint(thread, 'seg.insertCheck.refuse')) return false;
    if ((flags & PIN.wired) !== 0) return true;
    const room = maxWindow - control.windowPages.get(0);
    if (pages > room && (owner === -1 || this.#seedRules || this.#pagesBeside(owner, address, pages) > room))
      return false;
    const { freePages, desiredFree, neededFree } = this.#gauges;
    return freePages - (this.#seedRules ? 0 : neededFree) >= desiredFree;
  }

  /**
   * Caches a locked range with its shadow list. A pin, or `INSERT_COVERED` or `INSERT_REFUSED`: then the shadow list stays
   * with the caller, who ends by `inactive` with that number as pin. `writableBytes`: how much from the start may be
   * written. Throws `EINVAL` for a range that is not made of pages.
   */
  insert(
    owner: CacheOwner,
    address: number,
    lengthBytes: number,
    shadow: number,
    flags: number,
    writableBytes: number = lengthBytes,
  ): Pin {
    const call = 'pagelock.insert';
    const pages = this.#requireRange(call, owner, address, lengthBytes);
    requireInteger(call, 'shadow', shadow, 0, Number.MAX_SAFE_INTEGER);
    requireInteger(call, 'writableBytes', writableBytes, 0, Number.MAX_SAFE_INTEGER);
    const writablePages = Math.floor(writableBytes * this.#inversePageSize);
    if (writablePages > pages || ((flags & PIN.write) !== 0 && writablePages !== pages)) {
      failMisuse(call, { lengthBytes, writableBytes, flags }, 'what is pinned to write must be writable');
    }
    if (VERIFY && faultPoint(this.#core.thread, 'seg.insert.refuse')) return INSERT_REFUSED;
    const pin = this.#seedRules
      ? this.#seed.insert(owner, address, pages, shadow, flags, writablePages)
      : this.#ranges.insert(owner, address, pages, shadow, flags, writablePages);
    if (pin === INSERT_COVERED) this.#core.count(PAGELOCK_COUNTER.covered, 1);
    return pin;
  }

  /** Takes a pin back. Throws `EINVAL` for one that is not in use. Any thread may release. */
  release(pin: Pin): void {
    if (this.#seedRules) failMisuse('pagelock.release', { pin }, "use `inactive`: with compat 'seed' it needs the key");
    const due = this.#ranges.release(pin);
    if (due === RELEASED) return;
    if (due >= 0) this.#merger.merge(this.#core.entries.owner.get(due) - 1, due);
    else this.#reclaimer.run(false);
  }

  /**
   * Ends a use: of a pin, or with a negative pin of a shadow list that was not cached, which goes back to its driver. The
   * key is the one that `lookup` or `insert` was called with. Throws `EINVAL` for a negative pin and a cached shadow list.
   */
  inactive(owner: CacheOwner, address: number, lengthBytes: number, pin: Pin, shadow: number, flags: number): void {
    const pages = this.#requireRange('pagelock.inactive', owner, address, lengthBytes);
    if (this.#seedRules) this.#seed.inactive(owner, address, pages, pin, shadow, flags);
    else if (pin >= 0) this.release(pin);
    else this.#discard(owner, address, lengthBytes, shadow, flags);
  }

  /** The shadow list behind a pin. */
  shadowOf(pin: Pin): number {
    return this.#core.entries.shadow.get(this.#entryOf(pin, 'pagelock.shadowOf'));
  }

  /** True when an entry in use has this shadow list, cached or on its way out. Looks at all entries: for recovery. */
  hasShadow(shadow: number): boolean {
    const { entries, control } = this.#core;
    for (let entry = 0; entry < control.entryFresh.get(0); entry++) {
      if (entries.owner.get(entry) !== 0 && entries.shadow.get(entry) === shadow) return true;
    }
    return false;
  }

  /** Slots that have pinned a range with this shadow list. Looks at all pins: for messages. */
  slotsOf(shadow: number): SlotIndex[] {
    const { entries, pins } = this.#core;
    return pins.slotsOf((entry) => entries.shadow.get(entry) === shadow);
  }

  /** First address of the range behind a pin: a request may lie inside. */
  addressOf(pin: Pin): number {
    return this.#core.entries.address.get(this.#entryOf(pin, 'pagelock.addressOf'));
  }

  /** Length in bytes of the range behind a pin. */
  lengthOf(pin: Pin): number {
    return this.#core.entries.pages.get(this.#entryOf(pin, 'pagelock.lengthOf')) * this.#core.pageSize;
  }

  /**
   * Drops the ranges of an owner; returns how many are left because they are pinned. Under our rules they are not hit any
   * more and go with their last pin, and wired ranges go too. With `compat: 'seed'` it stops at the first pinned range,
   * and `flags` says which table is meant.
   */
  purge(owner: CacheOwner, flags: number = PIN.read): number {
    requireOwner(this.#core, owner, 'pagelock.purge');
    return this.#purge(owner, flags);
  }

  /** Like `purge`, for an owner that another thread may retire at any time: with it everything has gone, and 0 is left. */
  purgeIfKnown(owner: CacheOwner): number {
    return isCacheOwner(this.#core, owner) ? this.#purge(owner, PIN.read) : 0;
  }

  /** Drops the wired ranges of a shadow list that several segments share; returns how many are pinned. */
  purgeShadow(shadow: number): number {
    if (!this.#core.enabled) return 0;
    if (this.#seedRules) {
      this.#seed.purgeShadow(shadow);
      return 0;
    }
    let pinned = 0;
    for (const owner of this.#reaper.ownersOfWired(shadow)) pinned += this.#ranges.drop(owner, shadow);
    this.#reclaimer.run(true);
    return pinned;
  }

  /** Takes idle ranges when memory is short or the window nearly full: what the reaper does once a second. */
  reap(): void {
    if (this.#core.enabled) this.#reaper.reap();
  }

  /**
   * Takes idle ranges of about so many pages, oldest first, whatever the gauges say; returns how many pages. For a pagedaemon
   * that has found memory short itself. With `compat: 'seed'` it is `reap`, and returns 0.
   */
  reclaim(pages: number): number {
    requireInteger('pagelock.reclaim', 'pages', pages, 0, Number.MAX_SAFE_INTEGER);
    if (!this.#core.enabled || pages === 0) return 0;
    if (!this.#seedRules) return this.#reaper.reclaim(pages);
    this.#reaper.reap();
    return 0;
  }

  /** Tells the reaper to come at once. For a pagedaemon that is short of memory. */
  kick(): void {
    const { control, thread, disabled } = this.#core;
    if (control.windowPages.get(0) === 0 || disabled) return;
    add(thread.words, control.kicks.address(0), 1);
    notify(thread.words, control.kicks.address(0), Number.POSITIVE_INFINITY);
  }

  /**
   * One visit of the reaper: sleeps until a kick or for `timeoutMs`, then reaps, unless the cache is disabled or the reaper
   * suspended. False when the cache is off: there is nothing to come back for.
   */
  reapWhenKicked(timeoutMs: number = this.#core.control.reapMs.get(0)): boolean {
    requireTimeout('pagelock.reapWhenKicked', timeoutMs);
    const { control, thread, enabled } = this.#core;
    if (!enabled) return false;
    const kicks = control.kicks.address(0);
    sleepOn(thread, kicks, load(thread.words, kicks), timeoutMs);
    thread.clearWait();
    if (!this.#core.disabled && load(thread.words, control.suspended.address(0)) === 0) this.#reaper.reap();
    return true;
  }

  /** Like `reapWhenKicked`, for a thread with an event loop. */
  async reapWhenKickedAsync(timeoutMs: number = this.#core.control.reapMs.get(0)): Promise<boolean> {
    requireTimeout('pagelock.reapWhenKickedAsync', timeoutMs);
    const { control, thread, enabled } = this.#core;
    if (!enabled) return false;
    const kicks = control.kicks.address(0);
    await waitAsync(thread.words, kicks, load(thread.words, kicks), timeoutMs);
    thread.checkPoison();
    if (!this.#core.disabled && load(thread.words, control.suspended.address(0)) === 0) this.#reaper.reap();
    return true;
  }

  /** Lets the reaper rest, or go on. */
  suspendReaper(suspended: boolean): void {
    const { control, thread } = this.#core;
    store(thread.words, control.suspended.address(0), suspended ? 1 : 0);
  }

  /** Pins that this thread has and has not released. Looks at every row that was ever used. */
  pinsHeld(): number {
    return this.#core.pins.pinsOf(this.#core.thread.slot).length;
  }

  /**
   * Turns caching off and empties the cache; false when pinned ranges are left, which go with their last pins. Nests. Waits
   * at most `timeoutMs` for pins of other threads. The cache stays disabled until `enable`, also after false.
   */
  disable(timeoutMs?: number): boolean {
    if (timeoutMs !== undefined) requireTimeout('pagelock.disable', timeoutMs);
    return this.#switch.disable(timeoutMs);
  }

  /** Takes one `disable` back. Throws `EINVAL` without one. */
  enable(): void {
    this.#switch.enable();
  }

  /** Disables that were not taken back; 1 more when the cache is off. */
  get disabled(): number {
    return this.#core.control.disabled.get(0);
  }

  /** Different pages of all cached ranges, owner by owner; under the rules of the original source, all that they have. */
  get lockedPages(): number {
    return this.#core.control.lockedPages.get(0);
  }

  /** The same of cached ranges that are not wired. */
  get windowPages(): number {
    return this.#core.control.windowPages.get(0);
  }

  /** Gives back what a dead slot had: for the takeover. */
  recover(dead: SlotIndex): void {
    recoverPagelock(this.#core, this.#ranges, this.#reclaimer, dead);
  }

  /** Everything cached, for dumps and comparisons. */
  snapshot(): CacheSnapshot {
    return snapshotCache(this.#core);
  }

  /** Numbers summed over all slots. */
  statistics(): CacheStatistics {
    return cacheStatistics(this.#core);
  }

  /** Checks the structure. Call it at quiet points. */
  check(): CheckReport {
    return checkPagelock(this.#core);
  }

  /** The owner may go at any step: its row is without entries then, or another's, whose idle ranges go. */
  #purge(owner: CacheOwner, flags: number): number {
    if (!this.#core.enabled) return 0;
    if (this.#seedRules) {
      this.#seed.purge(owner, (flags & PIN.wired) !== 0);
      return 0;
    }
    const pinned = this.#ranges.drop(owner);
    this.#reclaimer.adopt();
    this.#reclaimer.run(false);
    return pinned;
  }

  /** Pages of a request that no range of the owner in the window has. */
  #pagesBeside(owner: CacheOwner, address: number, pages: number): number {
    this.#core.lockOwner(owner);
    const beside = this.#sharing.pagesBeside(owner, address * this.#inversePageSize, pages, false);
    this.#core.unlockOwner(owner);
    return beside;
  }

  #entryOf(pin: Pin, call: string): number {
    const { pins } = this.#core;
    return pins.entryOf(pins.rowOf(pin, call));
  }

  /** A shadow list that is in the cache belongs to the cache: giving it back would free it twice. */
  #discard(owner: CacheOwner, address: number, lengthBytes: number, shadow: number, flags: number): void {
    const { entries, owners } = this.#core;
    this.#core.lockOwner(owner);
    let cached = false;
    for (let link = owners.head.get(owner); link !== 0 && !cached; link = entries.ownerNext.get(link - 1)) {
      cached = entries.shadow.get(link - 1) === shadow && entries.address.get(link - 1) === address;
    }
    this.#core.unlockOwner(owner);
    if (cached)
      fail('EINVAL', 'pagelock.inactive', { owner, address, shadow }, 'the shadow list is cached: release its pin');
    const driver = this.#reclaimer.driver((owners.state.get(owner) >> 1) - 1);
    driver.reclaim(owner, address, lengthBytes, shadow, (flags & PIN.write) !== 0, false);
  }

  #requireLength(call: string, lengthBytes: number): number {
    const pages = typeof lengthBytes === 'number' ? lengthBytes * this.#inversePageSize : Number.NaN;
    if (pages >= 1 && Number.isInteger(pages) && pages < 2 ** 30) return pages;
    return failMisuse(call, { lengthBytes }, 'a range has from 1 to 2^30 whole pages');
  }

  #requireRange(call: string, owner: CacheOwner, address: number, lengthBytes: number): number {
    requireOwner(this.#core, owner, call);
    const pages = this.#requireLength(call, lengthBytes);
    if (typeof address !== 'number') failMisuse(call, { address }, 'an address is a number');
    const page = address * this.#inversePageSize;
    if (!(page >= 0 && Number.isInteger(page) && Number.isSafeInteger(address + lengthBytes))) {
      failMisuse(call, { address, lengthBytes }, 'a range starts at a page, below 2^53');
    }
    return pages;
  }
}
