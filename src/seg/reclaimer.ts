/**
 * Reclaim: giving shadow lists back to their drivers.
 *
 * PROBLEM     A driver's function must run with no lock held, for entries that are already out of reach, and must run also when
 *             the thread that unlinked them dies before, or when that thread's code is not at hand where the death is noticed.
 * STRUCTURE   pending of a slot --run--> called --settle--> pool
 *                    |
 *                    +--the slot dies--> orphans --adopt, by whoever purges or reaps next--> pending of its slot
 *
 *             Unlinking makes an entry pending, newest first. `run` calls the driver for each, then uncharges them.
 * INVARIANTS  I1 an entry is charged until its reclaim has returned.   I2 an entry that is pending or an orphan is reachable
 *             from nowhere else.
 * LOCKING     A pending list is its slot's own (W), but journaled. Orphans, counters and the pool are under the cache's lock.
 * COSTS       One lock per `SETTLE_BATCH` entries.
 * FAILURE     An error of a driver is thrown when all others were called; its entry counts as reclaimed. An orphan whose driver
 *             cannot be loaded in any thread stays charged, and its owner stays in use.
 * REJECTED    Recovery calling drivers: the monitor runs no user code. Calls under a lock: a driver locks pages.
 * REFERENCES  illumos vm_seg.c, delayed callback lists.
 */

import { assert } from '../base/assert.ts';
import { VERIFY } from '../base/verify.ts';
import { add, type Callbacks, faultPoint, load, notify, type SlotIndex } from '../sync/index.ts';
import { freeCacheOwner } from './cache-owners.ts';
import type { PagelockCore } from './pagelock-core.ts';
import { type CacheDriver, ENTRY_FLAG, type EntryIndex, PAGELOCK_COUNTER } from './pagelock-kinds.ts';

/** Entries that one transaction uncharges: it logs at most a dozen words for each. */
const SETTLE_BATCH = 64;

/** Runs reclaims for one thread. */
export class Reclaimer {
  readonly #core: PagelockCore;
  readonly #callbacks: Callbacks;
  /** Whether this thread can load a driver, by its number; what it cannot load is asked again now and then. */
  readonly #loadable = new Map<number, boolean>();
  /** Driver that was found last. */
  #lastLoaded = -1;
  #running = false;

  constructor(core: PagelockCore, callbacks: Callbacks) {
    this.#core = core;
    this.#callbacks = callbacks;
  }

  /** The driver of a number. Throws `ENOENT` when this thread cannot load it. */
  driver(number: number): CacheDriver {
    return this.#callbacks.resolve<CacheDriver>(number);
  }

  /**
   * Calls the driver for everything that this slot has pending, newest first, and uncharges it. True when a driver said that
   * a shared list is done. No lock of the cache may be held.
   */
  run(asynchronous: boolean): boolean {
    const { slots, thread } = this.#core;
    // A driver that calls the cache adds to the same list: the outer call goes on with that.
    if (this.#running || slots.pendingHead.get(thread.slot) === 0) return false;
    this.#running = true;
    let done = false;
    let failure: { readonly error: unknown } | null = null;
    try {
      for (let called = -1; called !== 0; ) {
        called = 0;
        for (
          let link = slots.pendingHead.get(thread.slot);
          link !== 0;
          link = this.#core.entries.chainNext.get(link - 1)
        ) {
          if ((this.#core.entries.flags.get(link - 1) & ENTRY_FLAG.called) !== 0 || !this.canCall(link - 1)) continue;
          called++;
          try {
            if (this.#call(link - 1, asynchronous)) done = true;
          } catch (error) {
            failure ??= { error };
          }
        }
      }
      this.#settle();
    } finally {
      this.#running = false;
    }
    if (failure !== null) throw failure.error;
    return done;
  }

  /**
   * Joins two shadow lists whose entries are pending of this slot. Meanwhile nothing is reclaimed, also when the driver calls
   * the cache. -1 when the driver does not want to.
   */
  join(number: number, first: number, second: number): number {
    this.#running = true;
    try {
      return this.driver(number).join?.(first, second) ?? -1;
    } finally {
      this.#running = false;
    }
  }

  /** Makes orphans whose driver this thread can load its own pending entries. Returns how many. */
  adopt(): number {
    const { control, thread, entries, slots, lock } = this.#core;
    if (control.orphanHead.get(0) === 0) return 0;
    this.askAgain();
    const { journal, slot } = thread;
    let adopted = 0;
    lock.enter();
    let previous = 0;
    for (let link = control.orphanHead.get(0); link !== 0; ) {
      const next = entries.chainNext.get(link - 1);
      if (this.canCall(link - 1)) {
        if (previous === 0) journal.set(control.orphanHead, 0, next);
        else journal.set(entries.chainNext, previous - 1, next);
        journal.set(entries.chainNext, link - 1, slots.pendingHead.get(slot));
        journal.set(slots.pendingHead, slot, link);
        thread.commit();
        adopted++;
      } else {
        previous = link;
      }
      link = next;
    }
    lock.exit();
    return adopted;
  }

  /** Makes what a slot has pending orphans: for one that died, or for what was unlinked in its place. */
  orphan(slot: SlotIndex): void {
    const { control, entries, slots, lock, thread } = this.#core;
    const { journal } = thread;
    lock.enter();
    const first = slots.pendingHead.get(slot);
    if (first !== 0) {
      let last = first;
      for (let link = first; link !== 0; link = entries.chainNext.get(link - 1)) last = link;
      journal.set(entries.chainNext, last - 1, control.orphanHead.get(0));
      journal.set(control.orphanHead, 0, first);
      journal.set(slots.pendingHead, slot, 0);
    }
    lock.exit();
  }

  #call(entry: EntryIndex, asynchronous: boolean): boolean {
    const { entries, pageSize, thread } = this.#core;
    const flags = entries.flags.get(entry);
    try {
      return this.driver(this.#core.driverOf(entry)).reclaim(
        entries.owner.get(entry) - 1,
        entries.address.get(entry),
        entries.pages.get(entry) * pageSize,
        entries.shadow.get(entry),
        (flags & ENTRY_FLAG.write) !== 0,
        asynchronous,
      );
    } finally {
      // One word, and nobody else reaches the entry.
      if (VERIFY) faultPoint(thread, 'seg.reclaim.called');
      entries.flags.put(entry, flags | ENTRY_FLAG.called);
    }
  }

  /** True when this thread can load the driver of an entry. */
  canCall(entry: EntryIndex): boolean {
    const number = this.#core.driverOf(entry);
    if (number === this.#lastLoaded) return true;
    let loadable = this.#loadable.get(number);
    if (loadable === undefined) {
      try {
        loadable = this.driver(number) !== undefined;
      } catch {
        loadable = false;
      }
      this.#loadable.set(number, loadable);
    }
    if (loadable) this.#lastLoaded = number;
    return loadable;
  }

  /** Forgets which drivers could not be loaded: they may have been registered since. */
  askAgain(): void {
    for (const [number, loadable] of this.#loadable) if (!loadable) this.#loadable.delete(number);
  }

  /** Uncharges what was called and gives it to the pool; what this thread cannot call becomes orphans. */
  #settle(): void {
    const { slots, thread, entries, lock, control } = this.#core;
    const { journal, slot } = thread;
    let settled = 0;
    let link = slots.pendingHead.get(slot);
    while (link !== 0) {
      lock.enter();
      let pooled = control.entryHead.get(0);
      let locked = control.lockedPages.get(0);
      let window = control.windowPages.get(0);
      let inUse = control.entryCount.get(0);
      for (let count = 0; count < SETTLE_BATCH && link !== 0; count++) {
        const entry = link - 1;
        const flags = entries.flags.get(entry);
        link = entries.chainNext.get(entry);
        assert(entries.active.get(entry) === 0, 'seg/pagelock-core I5: a reclaimed entry has no pins');
        if ((flags & ENTRY_FLAG.called) === 0) {
          journal.set(entries.chainNext, entry, control.orphanHead.get(0));
          journal.set(control.orphanHead, 0, entry + 1);
          continue;
        }
        const pages = entries.charge.get(entry);
        locked -= pages;
        if ((flags & ENTRY_FLAG.wired) === 0) window -= pages;
        inUse--;
        this.#free(entry, pooled);
        pooled = entry + 1;
        settled++;
      }
      journal.log3(control.entryHead.base, control.lockedPages.base, control.windowPages.base);
      control.entryHead.put(0, pooled);
      control.lockedPages.put(0, locked);
      control.windowPages.put(0, window);
      journal.set(control.entryCount, 0, inUse);
      journal.set(slots.pendingHead, slot, link);
      if (VERIFY) faultPoint(thread, 'seg.reclaim.dropped');
      lock.exit();
    }
    if (settled === 0) return;
    this.#core.count(PAGELOCK_COUNTER.reclaims, settled);
    this.#wakeDisable();
  }

  /** Journaled: ends an owner's claim and puts the entry in front of the pool. */
  #free(entry: EntryIndex, pooled: number): void {
    const { entries, owners, thread } = this.#core;
    const owner = entries.owner.get(entry) - 1;
    thread.journal.log3(entries.owner.address(entry), entries.chainNext.address(entry), owners.claims.address(owner));
    entries.owner.put(entry, 0);
    entries.chainNext.put(entry, pooled);
    const claims = owners.claims.get(owner) - 1;
    owners.claims.put(owner, claims);
    if (claims === 0 && owners.state.get(owner) < 0) freeCacheOwner(this.#core, owner);
  }

  /** A disable may wait for pages to leave. */
  #wakeDisable(): void {
    const { control, thread } = this.#core;
    if (load(thread.words, control.disabled.address(0)) === 0) return;
    add(thread.words, control.drained.address(0), 1);
    notify(thread.words, control.drained.address(0), Number.POSITIVE_INFINITY);
  }
}
