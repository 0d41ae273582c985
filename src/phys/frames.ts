/**
 * Frames: who uses which piece of physical memory.
 *
 * PROBLEM     Page cache, arenas and whoever needs adjacent frames share one memory, and any of them may die with frames
 *             in hand.
 * STRUCTURE   What every thread uses; the work is in the files named on the right:
 *
 *               uses, counts, the source of free frames    frame-core.ts
 *               runs                                        run-hand.ts
 *               frames that others give up or move          evacuation.ts, window-search.ts
 *               requests that wait                          frame-queue.ts, frame-waiting.ts
 *               reserves and the pagedaemon's marks         watermarks.ts
 *
 * INVARIANTS  I1 a thread leaves to others what is reserved for those with more rights than it has.
 * LOCKING     One mutex (RANK.frames), innermost but for counters. Reclaimers run without it.
 * COSTS       A frame: one lock pair and five journaled stores, shared by up to 32 frames taken at once.
 * FAILURE     `tryX` returns -1, `x` throws `ENOMEM`; `xWait` and `xAsync` also `ETIMEDOUT`, `ECANCELED`; `EINVAL` for a run
 *             that is not one.
 * REJECTED    Counting by walking: `check` does that, and it must come to the same.
 * REFERENCES  BSD vm_page and vm_phys.
 */

import { assert } from '../base/assert.ts';
import type { CheckReport } from '../base/check.ts';
import { fail, failMisuse, requireFunction, requireInteger, requireObject } from '../base/errors.ts';
import type { Int32Column } from '../layout/column.ts';
import type { Mutex } from '../sync/mutex.ts';
import type { OwnerIndex } from '../sync/owners.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import { singleOut, takeFreeRun } from './adjacent-frames.ts';
import type { FrameIndex } from './banks.ts';
import { type CompactionOptions, type CompactionReport, compactFrames } from './compaction.ts';
import { Evacuation, type FrameReclaimer } from './evacuation.ts';
import { FrameCore, type FrameCounts } from './frame-core.ts';
import { type FrameCounter, frameStatistics } from './frame-counters.ts';
import { reserveFrames } from './frame-promises.ts';
import { FRAME_USE } from './frame-uses.ts';
import {
  type FrameAsyncOptions,
  type FrameDemand,
  type FrameWaitOptions,
  waitForFrames,
  waitForFramesAsync,
} from './frame-waiting.ts';
import { listsBusy } from './list-hand.ts';
import { MakingRoom } from './making-room.ts';
import { addMemory } from './memory-arrival.ts';
import { type MemoryListener, type RemovalOptions, removeMemory } from './memory-removal.ts';
import type { PhysSegmentOptions } from './phys-segments.ts';
import { ANYWHERE, RunHand, type RunPlace, requirePlace } from './run-hand.ts';
import { SlotCaches } from './slot-caches.ts';
import { type FramePrivilege, requirePrivilege, Watermarks } from './watermarks.ts';

export type { FrameReclaimer } from './evacuation.ts';
export { FRAME_USE } from './frame-uses.ts';
export { HAND_STAGE } from './run-hand.ts';

/** The frames as one thread sees them. */
export class Frames {
  /** Uses, source and counts. */
  readonly core: FrameCore;
  /** Reserves, the marks that the pagedaemon goes by, and its kick. */
  readonly watermarks: Watermarks;
  /** Who is asked for frames that are in use. */
  readonly evacuation: Evacuation;
  /** Free frames that slots keep for themselves. */
  readonly caches: SlotCaches;
  /** What a request does when pages are in its way. */
  readonly room: MakingRoom;
  readonly #thread: Thread;
  readonly #mutex: Mutex;
  readonly #runs: RunHand;
  readonly #spareHolders: (() => void)[] = [];
  readonly #listeners: MemoryListener[] = [];
  #privilege: FramePrivilege = 'user';
  #pressing = false;

  constructor(thread: Thread) {
    this.#thread = thread;
    this.core = new FrameCore(thread);
    this.watermarks = new Watermarks(thread);
    this.room = new MakingRoom(thread, this);
    this.evacuation = new Evacuation(this.core, this.room);
    this.evacuation.floor = () => this.reserve;
    this.#mutex = this.core.mutex;
    this.caches = new SlotCaches(this.core, this.watermarks, this.evacuation);
    this.#runs = new RunHand(this.core, this.evacuation);
  }

  /** Runs something for which this thread may take from the reserves of others; see `FramePrivilege`. */
  withPrivilege<Value>(privilege: FramePrivilege, action: () => Value): Value {
    requirePrivilege(privilege);
    requireFunction('frames.withPrivilege', 'action', action);
    const before = this.#privilege;
    this.#privilege = privilege;
    try {
      return action();
    } finally {
      this.#privilege = before;
    }
  }

  /** Free frames that this thread leaves to others: the reserves, and what is kept for owners that it does not take for. */
  get reserve(): number {
    return this.systemReserve + this.core.reservations.others(this.core.charges.owner);
  }

  /** The part of `reserve` that is kept for the system. */
  get systemReserve(): number {
    return this.watermarks.reserveFor(this.#privilege);
  }

  /**
   * Promises frames to an owner: they are kept free for its page lists, from everybody else, and what it has in lists counts. 0 ends
   * that. Pages are given up for it where free frames are short; with `timeoutMs` it waits. Throws `ENOMEM`, or `ETIMEDOUT`, when
   * so many cannot be had, `EINVAL` above the owner's limit; nothing has changed then.
   */
  reserveFor(owner: OwnerIndex | string, frames: number, options: FrameWaitOptions = {}): void {
    reserveFrames(this, owner, frames, options);
  }

  /** Who is told, without any lock held, that frames are short: to give back what is kept for later. */
  onShortage(giveSpares: () => void): void {
    requireFunction('frames.onShortage', 'giveSpares', giveSpares);
    this.#spareHolders.push(giveSpares);
  }

  /**
   * Tells them. True when that freed frames. Called without locks of rank arena or later. Whoever holds any other lock, such as a
   * vnode's, leaves the telling to the pagedaemon: those who keep spares have locks of lower ranks.
   */
  press(): boolean {
    // What is told may itself look for frames.
    if (this.#pressing) return false;
    this.#pressing = true;
    const before = this.core.free;
    try {
      this.caches.drain();
      if (this.#thread.heldCount > 0) this.watermarks.kick();
      else for (const giveSpares of this.#spareHolders) giveSpares();
    } finally {
      this.#pressing = false;
    }
    return this.core.free > before;
  }

  /** Who is asked for frames of a use when they are needed for something else. */
  setReclaimer(reclaimer: FrameReclaimer, use: number = FRAME_USE.page): void {
    this.evacuation.set(use, reclaimer);
  }

  /** Brings frames that are absent online. */
  online(first: FrameIndex, count: number): void {
    const { frames } = this.#thread.region.geometry;
    requireInteger('frames.online', 'first', first, 0, frames);
    requireInteger('frames.online', 'count', count, 0, frames - first);
    if (count > 0) addMemory(this.core, this.#listeners, { start: first, end: first + count }, 'frames.online');
  }

  /** Brings frames that are absent online as a segment of its own; those of its available range become free. */
  addSegment(options: PhysSegmentOptions): void {
    addMemory(this.core, this.#listeners, options);
  }

  /**
   * Takes frames offline: what is in them is moved or given up. Throws `EBUSY` with who holds on to which frame when that
   * does not come about in time, `ECANCELED`, `EINVAL` for frames that are not online; then everything is as before.
   */
  offline(first: FrameIndex, count: number, options: RemovalOptions = {}): void {
    const { core, evacuation } = this;
    const press = () => {
      this.press();
      if (this.core.free <= this.reserve) this.room.clean(count);
    };
    this.caches.paused(() => removeMemory(core, evacuation, this.#listeners, press, first, count, options));
  }

  /** Who is told, in this thread, about memory that comes and goes. */
  onMemoryChange(listener: MemoryListener): void {
    requireObject('frames.onMemoryChange', 'listener', listener);
    this.#listeners.push(listener);
  }

  /** What a frame is used for: a value of `FRAME_USE`. */
  useOf(frame: FrameIndex): number {
    return this.core.useOf(frame);
  }

  /** The slot that took a frame, or -1. */
  takerOf(frame: FrameIndex): SlotIndex {
    return this.core.takerOf(frame);
  }

  /** Takes a free frame for a use; -1 when there is none above the reserve. */
  tryTake(use: number): FrameIndex {
    const cached = use === FRAME_USE.page ? this.caches.take() : -1;
    if (cached >= 0) return cached;
    const found = this.#takeOne(use, false);
    const frame = found < 0 && this.caches.drain() ? this.#takeOne(use, false) : found;
    this.watermarks.kickIfLow();
    return frame;
  }

  /** Like `tryTake`, but waits for a frame. Throws `ETIMEDOUT`, `ECANCELED`; `ENOMEM` when too many wait. */
  takeWait(use: number, options: FrameWaitOptions = {}): FrameIndex {
    return waitForFrames(this.#demandOne(use), options);
  }

  /** Like `takeWait`, but leaves the event loop free; `signal` aborts. */
  takeAsync(use: number, options: FrameAsyncOptions = {}): Promise<FrameIndex> {
    return waitForFramesAsync(this.#demandOne(use), options);
  }

  /** Takes up to `count` free frames (at most 32) into `out` from lane `at`; returns how many. */
  tryTakeSeveral(use: number, count: number, out: Int32Array, at: number): number {
    let taken = 0;
    const reserve = this.reserve;
    // Several at once come from the source: they lie side by side there.
    if (use === FRAME_USE.page && (count === 1 || this.core.free <= reserve)) {
      while (taken < count) {
        const cached = this.caches.take();
        if (cached < 0) break;
        out[at + taken++] = cached;
      }
      if (taken > 0) return taken;
      if (this.core.free <= reserve) this.caches.drain();
    }
    // A hint: the lock decides when there are some.
    if (this.core.free > reserve) {
      this.#mutex.enter();
      const most = Math.min(count, this.core.free - this.reserve);
      const yields = most > 0 && this.core.queue.mustYield(1);
      while (!yields && taken < most) out[at + taken++] = this.core.takeNext(use);
      this.#mutex.exit();
    }
    this.watermarks.kickIfLow();
    return taken;
  }

  /**
   * Takes `count` frames (at most 32) that lie side by side in one bank for a single-frame use; with `mayAsk`, what is in the
   * way is moved or given up. The first of them, or -1.
   */
  tryTakeAdjacent(use: number, count: number, mayAsk: boolean): FrameIndex {
    if (count > this.#thread.region.geometry.bankFrames) return -1;
    // Room that pages make for pages leaves as many of them.
    const first = mayAsk
      ? this.#makeRun(count, ANYWHERE, false)
      : takeFreeRun(this.core, this.#runs, count, this.reserve);
    if (first >= 0) singleOut(this.core, this.#runs, first, count, use);
    if (!mayAsk) this.watermarks.kickIfLow();
    return first;
  }

  /** Gives a frame of a single-frame use back. `note`, a column by frame, gets its value in the same section. */
  give(frame: FrameIndex, use: number, note?: Int32Column, value = 0): void {
    // Whoever uses a frame is the only one that changes its use: a look without the lock is certain.
    if (this.useOf(frame) !== use) {
      failMisuse('frames.give', { frame, use, found: this.useOf(frame) }, 'a frame is given back by whoever uses it');
    }
    if (use === FRAME_USE.page && this.caches.put(frame, note, value)) return;
    this.#mutex.enter();
    if (note !== undefined) this.#thread.journal.set(note, frame, value);
    this.core.give(frame);
    this.#mutex.exit();
  }

  /** Gives a frame back if `condition` holds under the lock: for recovery. `note` as with `give`. */
  giveIf(frame: FrameIndex, condition: () => boolean, note: Int32Column, value: number): void {
    // Frames are given back under the frames' lock, but for those that go to a slot's cache.
    this.caches.paused(() => {
      this.#mutex.enter();
      if (condition()) {
        this.#thread.journal.set(note, frame, value);
        this.core.give(frame);
      }
      this.#mutex.exit();
    });
  }

  /** Changes what a frame is used for, without freeing it in between; it then bears this thread's mark. `note` as above. */
  convert(frame: FrameIndex, from: number, to: number, note?: Int32Column, value = 0): void {
    this.#mutex.enter();
    assert(this.useOf(frame) === from, 'phys/frames: a frame is converted by whoever uses it');
    if (note !== undefined) this.#thread.journal.set(note, frame, value);
    this.core.convert(frame, to);
    this.#mutex.exit();
  }

  /** Like `tryTakeRun`, but throws `ENOMEM`. */
  takeRun(count: number): FrameIndex {
    const first = this.tryTakeRun(count);
    if (first >= 0) return first;
    const { free, page, run } = this.counts();
    return fail('ENOMEM', 'frames.takeRun', { count, free, page, run }, 'no such run is free or can be reclaimed');
  }

  /**
   * First frame of a run of `count` adjacent frames of one bank, in its place, or -1. Where no run is free, what is in the way
   * is moved or given up, but for the last pages; if that is not enough, and with `mayWrite`, modified pages are written
   * back. Until `settle` or `settleInSection` is called, the run goes back when this thread dies: call it once, or in the
   * critical section in which, the run is written down elsewhere.
   */
  tryTakeRun(count: number, place: RunPlace = ANYWHERE, mayWrite = true): FrameIndex {
    requireInteger('frames.takeRun', 'count', count, 1, 2 ** 30);
    if (place !== ANYWHERE) requirePlace(place);
    if (count > this.#thread.region.geometry.bankFrames) return -1;
    if (place.boundary !== 0 && count > place.boundary) return -1;
    return this.room.sparing(() => this.#makeRun(count, place, mayWrite));
  }

  /** Like `takeRun`, but waits until such a run can be had. `EINVAL` at once when that can never be. */
  takeRunWait(count: number, options: FrameWaitOptions = {}): FrameIndex {
    return waitForFrames(this.#demandRun(count), options);
  }

  /** Like `takeRunWait`, but leaves the event loop free; `signal` aborts. */
  takeRunAsync(count: number, options: FrameAsyncOptions = {}): Promise<FrameIndex> {
    return waitForFramesAsync(this.#demandRun(count), options);
  }

  /** Says that the run taken last is written down elsewhere. */
  settle(): void {
    this.#runs.settle();
  }

  /** Like `settle`, through the journal: undone with the critical section that writes the run down. */
  settleInSection(): void {
    this.#runs.settleInSection();
  }

  /**
   * Announces through the journal that `giveRun` will be called for a run: from the end of the critical section on, in
   * which whoever owned it lets go of it, the run goes back even if this thread dies first.
   */
  giveInSection(first: FrameIndex, count: number): void {
    this.#runs.giveInSection(first, count);
  }

  /** Gives a whole run back. Throws `EINVAL` when `first` and `count` are not a run as it was taken. */
  giveRun(first: FrameIndex, count: number): void {
    this.#runs.give(first, count);
  }

  /**
   * Moves what can be moved to low frames, so that long runs come about. Call it while nothing else waits: it may move a
   * good part of memory.
   */
  compact(options: CompactionOptions = {}): CompactionReport {
    return this.caches.paused(() => compactFrames(this.core, this.evacuation, options));
  }

  /** Frames by use, as they are now. */
  counts(): FrameCounts {
    const counts = this.core.counts();
    const cached = this.caches.frames;
    return cached === 0 ? counts : { ...counts, free: counts.free + cached, page: counts.page - cached };
  }

  /** True while a run or a page list is put together or given back, or its thread has died meanwhile. A look without the lock. */
  get someInFlight(): boolean {
    return this.#runs.isBusy || listsBusy(this.#thread);
  }

  /** What all slots did with frames. */
  statistics(): Record<FrameCounter, number> {
    return frameStatistics(this.#thread.region);
  }

  /** Gives back what a dead slot had in hand. */
  recover(dead: SlotIndex): void {
    this.caches.recover(dead);
    this.#runs.recover(dead);
    this.#mutex.enter();
    this.core.queue.recover(dead, this.core.free);
    this.#mutex.exit();
  }

  /** Compares uses, counts and the source. For quiet points. */
  check(): CheckReport {
    const { structure, checked, problems } = this.core.check();
    return {
      structure,
      checked,
      problems: [...problems, ...this.watermarks.problems(), ...this.#runs.problems(), ...this.caches.problems()],
    };
  }

  #takeOne(use: number, waiter: boolean): FrameIndex {
    this.#mutex.enter();
    const may = this.core.free > this.reserve && (waiter || !this.core.queue.mustYield(1));
    const frame = may ? this.core.takeNext(use) : -1;
    this.#mutex.exit();
    return frame;
  }

  #takeRun(count: number, waiter: boolean, place: RunPlace = ANYWHERE): FrameIndex | null {
    this.#mutex.enter();
    const may = waiter || !this.core.queue.mustYield(count);
    const free = may ? this.#runs.takeFree(count, this.reserve, place) : -1;
    this.#mutex.exit();
    if (free >= 0) return free;
    const made = may ? this.#runs.assemble(count, place) : -1;
    return made < 0 ? null : made;
  }

  #makeRun(count: number, place: RunPlace, mayWrite: boolean): FrameIndex {
    this.#runs.settleOther();
    const take = () => this.#takeRun(count, false, place);
    const first = take() ?? (this.press() ? take() : null) ?? this.room.attempt(take, mayWrite) ?? -1;
    this.watermarks.kickIfLow();
    return first;
  }

  #demandOne(use: number): FrameDemand<FrameIndex> {
    return {
      call: 'frames.take',
      core: this.core,
      count: 1,
      values: { use },
      possible: () => this.core.online > this.systemReserve,
      attempt: (waiter) => {
        const frame = this.#takeOne(use, waiter);
        return frame < 0 ? null : frame;
      },
      press: () => this.#pressAndKick(),
    };
  }

  #demandRun(count: number): FrameDemand<FrameIndex> {
    requireInteger('frames.takeRun', 'count', count, 1, 2 ** 30);
    this.#runs.settleOther();
    return {
      call: 'frames.takeRun',
      core: this.core,
      count,
      values: { count },
      possible: () => this.core.online - this.systemReserve >= count && this.core.segments.longestStretch() >= count,
      attempt: (waiter) => this.#takeRun(count, waiter),
      press: () => this.#pressAndKick() || this.room.clean(count),
    };
  }

  #pressAndKick(): boolean {
    this.watermarks.kick();
    return this.press();
  }
}
