/**
 * Disabling and enabling the cache, around the removal of memory.
 *
 * PROBLEM     Before memory goes, cached ranges must release their pages, and no new ones may come. Pinned ranges cannot be
 *             taken; whoever waits for them must not wait for something that cannot happen.
 * STRUCTURE   `disabled` counts disables. From then on nothing is cached, and every range goes with its last pin.
 *
 *               original rules   flush, pause a quarter of a second, until nothing is left or 101 flushes in a row were in vain
 *               our rules        flush, sleep until pages leave, until nothing is left, the time is over, or all that is left
 *                                is pinned by the calling slot itself, which cannot release while it sleeps
 *
 * INVARIANTS  I1 nothing is linked while `disabled` is above 0: both are looked at under the cache's lock.
 *             I2 `disabled` is the sum of what slots disabled, and 1 more when the cache is off: the disables of a thread
 *             that dies end with it.
 * LOCKING     `disabled` changes under the cache's lock.
 * COSTS       Those of the flush.
 * FAILURE     False: pinned ranges are left, and the cache stays disabled. `EINVAL` for an enable without a disable.
 * REJECTED    Enabling again after a failure: the removal may still succeed when other callbacks have run.
 * REFERENCES  illumos vm_seg.c: seg_p_disable, seg_p_enable.
 */

import { fail } from '../base/index.ts';
import { VERIFY } from '../base/verify.ts';
import { faultPoint, load, pause, type SlotIndex, sleepOn } from '../sync/index.ts';
import type { CacheReaper } from './cache-reaper.ts';
import type { PagelockCore } from './pagelock-core.ts';

/** Milliseconds between two flushes under the rules of the original source. */
const SEED_PAUSE_MS = 250;

/** Longest sleep under our rules: whether anything can still change is looked at again. */
const SLICE_MS = 20;

/** Milliseconds that a disable waits for pinned ranges when it is not told. */
const DISABLE_WAIT_MS = 1000;

/** One thread's view of the switch. */
export class CacheSwitch {
  readonly #core: PagelockCore;
  readonly #reaper: CacheReaper;

  constructor(core: PagelockCore, reaper: CacheReaper) {
    this.#core = core;
    this.#reaper = reaper;
  }

  /** Disables the cache and empties it; see the public class. */
  disable(timeoutMs: number = DISABLE_WAIT_MS): boolean {
    const { control, lock, slots, thread } = this.#core;
    lock.enter();
    thread.journal.set(slots.disables, thread.slot, slots.disables.get(thread.slot) + 1);
    thread.journal.set(control.disabled, 0, control.disabled.get(0) + 1);
    lock.exit();
    return this.#core.seedRules ? this.#drainStubbornly() : this.#drainPromptly(timeoutMs);
  }

  /** Takes one disable back: one of this slot, if there is one. */
  enable(): void {
    const { control, lock, slots, thread } = this.#core;
    lock.enter();
    const slot = this.#someDisabler();
    if (slot >= 0) {
      thread.journal.set(slots.disables, slot, slots.disables.get(slot) - 1);
      thread.journal.set(control.disabled, 0, control.disabled.get(0) - 1);
    }
    lock.exit();
    if (slot < 0) fail('EINVAL', 'pagelock.enable', {}, 'the cache is not disabled');
  }

  #someDisabler(): SlotIndex {
    const { slots, thread } = this.#core;
    if (slots.disables.get(thread.slot) > 0) return thread.slot;
    for (let slot = 0; slot < slots.rowCount; slot++) if (slots.disables.get(slot) > 0) return slot;
    return -1;
  }

  #drainStubbornly(): boolean {
    const { control, thread } = this.#core;
    const threshold = control.stallThreshold.get(0);
    let stalls = 0;
    while (control.lockedPages.get(0) !== 0) {
      const before = control.lockedPages.get(0);
      this.#reaper.flush();
      if (control.lockedPages.get(0) !== before) stalls = 0;
      else if (stalls++ > threshold) return false;
      if (control.lockedPages.get(0) !== 0) pause(thread, SEED_PAUSE_MS);
    }
    return true;
  }

  #drainPromptly(timeoutMs: number): boolean {
    const { control, thread, pins } = this.#core;
    const drained = control.drained.address(0);
    const deadline = thread.clock.now() + timeoutMs;
    for (;;) {
      const seen = load(thread.words, drained);
      this.#reaper.flush();
      if (load(thread.words, control.lockedPages.address(0)) === 0) return true;
      if (VERIFY) faultPoint(thread, 'seg.disable.waiting');
      const remaining = deadline - thread.clock.now();
      if (remaining <= 0 || !this.#canChange(pins.othersPin())) return false;
      if (thread.clock.isVirtual) pause(thread, Math.min(remaining, SLICE_MS));
      else sleepOn(thread, drained, seen, Math.min(remaining, SLICE_MS));
      thread.clearWait();
    }
  }

  /** True while a thread other than this one may still give pages back. */
  #canChange(othersPin: boolean): boolean {
    const { slots, thread, control } = this.#core;
    if (othersPin || control.reaper.get(0) !== 0) return true;
    for (let slot = 0; slot < slots.rowCount; slot++) {
      if (slot === thread.slot) continue;
      if (slots.pendingHead.get(slot) !== 0 || slots.reserved.get(slot) !== 0) return true;
    }
    // What remains is pinned by this slot, or has a driver that this thread cannot load.
    return false;
  }
}
