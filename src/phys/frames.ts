/**
 * Frames: who uses which piece of physical memory.
 *
 * PROBLEM     Page cache, arenas and whoever needs adjacent frames share one memory, and any of them may die with frames
 *             in hand.
 * STRUCTURE   Single frames and runs over the frame core. A run as the uses show it:
 *
 *               |page|page|run|rest|rest|free|page|free|absent|absent|
 *
 *             A thread that works on a run longer than its journal commits piece by piece; its hand record (stage, first,
 *             count) lets the takeover finish or undo the rest.
 * INVARIANTS  I1 a run is one frame of use run and then frames of use runRest, all in one bank.
 *                The first frame of a run changes first when it is taken or given back, so that its neighbour's end is
 *                always seen.
 *             I2 a slot's hand record covers every frame that the slot has changed but not finished.
 * LOCKING     One mutex (RANK.frames), innermost but for counters. Reclaimers run without it.
 * COSTS       A frame: one lock pair and five journaled stores, shared by up to 32 frames taken at once.
 * FAILURE     `tryX` returns -1, `x` throws `ENOMEM`; `EINVAL` for a run that is not one.
 * REJECTED    Counting by walking: `check` does that, and it must come to the same.
 * REFERENCES  BSD vm_page and vm_phys; DESIGN of robust lists for the hand record.
 */

import { assert } from '../base/assert.ts';
import type { CheckReport } from '../base/check.ts';
import { fail, failMisuse, requireInteger } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { Int32Column } from '../layout/column.ts';
import type { BoundTables } from '../layout/region.ts';
import { faultPoint } from '../sync/fault.ts';
import type { Mutex } from '../sync/mutex.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import type { FrameIndex } from './banks.ts';
import { FrameCore, type FrameCounts } from './frame-core.ts';
import { FRAME_USE, SLOT_SHIFT } from './frame-uses.ts';
import type { PhysSegmentOptions } from './phys-segments.ts';
import { Watermarks } from './watermarks.ts';

export { FRAME_USE } from './frame-uses.ts';

/** Stages of a slot's hand record. */
export const HAND_STAGE = {
  empty: 0,
  /** Frames of the run are being taken; those that bear the slot's mark go back. */
  taking: 1,
  /** The run is complete, and whoever asked has not written it down yet. */
  taken: 2,
  /** A run is being given back; all of its frames are still marked as in use. */
  marking: 3,
  /** All frames of the run bear the slot's mark and go back one by one. */
  giving: 4,
} as const;

/** Frames changed between two commits: each takes up to twelve journal entries. */
const PIECE_FRAMES = 32;

/** Somebody whose frames can be had back: declared here, implemented by the rooms above. */
export interface FrameReclaimer {
  /** Tries to give up a frame of use page; on success it bears this thread's mark with the given use. */
  reclaim(frame: FrameIndex, use: number): boolean;
  /**
   * Tries to move what is in a frame to another one, which it takes itself; on success the frame bears this thread's mark
   * with the given use, as after `reclaim`. Left out by who cannot move anything.
   */
  relocate?(frame: FrameIndex, use: number): boolean;
}

/** The frames as one thread sees them. */
export class Frames {
  /** Uses, source and counts. */
  readonly core: FrameCore;
  /** Reserves, the marks that the pagedaemon goes by, and its kick. */
  readonly watermarks: Watermarks;
  readonly #thread: Thread;
  readonly #mutex: Mutex;
  readonly #hand: BoundTables['frameHand'];
  #reclaimer: FrameReclaimer | null = null;
  readonly #spareHolders: (() => void)[] = [];
  #pressing = false;

  constructor(thread: Thread) {
    this.#thread = thread;
    this.core = new FrameCore(thread);
    this.watermarks = new Watermarks(thread);
    this.#mutex = this.core.mutex;
    this.#hand = thread.region.tables.frameHand;
  }

  /** Who is told, without any lock held, that frames are short: to give back what is kept for later. */
  onShortage(giveSpares: () => void): void {
    this.#spareHolders.push(giveSpares);
  }

  /** Tells them. True when that freed frames. Called without locks of rank arena or later. */
  press(): boolean {
    // What is told may itself look for frames.
    if (this.#pressing) return false;
    this.#pressing = true;
    const before = this.counts().free;
    try {
      for (const giveSpares of this.#spareHolders) giveSpares();
    } finally {
      this.#pressing = false;
    }
    return this.counts().free > before;
  }

  /** Who is asked for frames when a run cannot be had otherwise. */
  setReclaimer(reclaimer: FrameReclaimer): void {
    this.#reclaimer = reclaimer;
  }

  /** Who was set to be asked for frames. */
  get reclaimer(): FrameReclaimer | null {
    return this.#reclaimer;
  }

  /** Brings frames that are absent online. */
  online(first: FrameIndex, count: number): void {
    const { frames } = this.#thread.region.geometry;
    requireInteger('frames.online', 'first', first, 0, frames);
    requireInteger('frames.online', 'count', count, 0, frames - first);
    if (count > 0) this.addSegment({ start: first, end: first + count });
  }

  /** Brings frames that are absent online as a segment of its own; those of its available range become free. */
  addSegment(options: PhysSegmentOptions): void {
    const { segments } = this.core;
    this.#mutex.enter();
    let row: number;
    try {
      row = segments.add(options);
      this.#thread.commit();
    } catch (error) {
      this.#mutex.exit();
      throw error;
    }
    const { availableStart, availableEnd } = segments.rows;
    for (let frame = availableStart.get(row), left = PIECE_FRAMES; frame < availableEnd.get(row); frame++) {
      this.core.admit(frame);
      if (--left > 0) continue;
      this.#thread.commit();
      left = PIECE_FRAMES;
    }
    this.#mutex.exit();
  }

  /** What a frame is used for: a value of `FRAME_USE`. */
  useOf(frame: FrameIndex): number {
    return this.core.useOf(frame);
  }

  /** The slot that took a frame, or -1. */
  takerOf(frame: FrameIndex): SlotIndex {
    return this.core.takerOf(frame);
  }

  /** Takes a free frame for a use; -1 when there is none. */
  tryTake(use: number): FrameIndex {
    this.#mutex.enter();
    const frame = this.core.takeNext(use);
    this.#mutex.exit();
    this.watermarks.kickIfLow();
    return frame;
  }

  /** Takes up to `count` free frames (at most 32) into `out` from lane `at`; returns how many. */
  tryTakeSeveral(use: number, count: number, out: Int32Array, at: number): number {
    let taken = 0;
    // A hint: the lock decides when it is not 0.
    if (this.core.free === 0) {
      this.watermarks.kickIfLow();
      return 0;
    }
    this.#mutex.enter();
    while (taken < count) {
      const frame = this.core.takeNext(use);
      if (frame < 0) break;
      out[at + taken++] = frame;
    }
    this.#mutex.exit();
    this.watermarks.kickIfLow();
    return taken;
  }

  /** Gives a frame of a single-frame use back. `note`, a column by frame, gets its value in the same section. */
  give(frame: FrameIndex, use: number, note?: Int32Column, value = 0): void {
    // Whoever uses a frame is the only one that changes its use: a look without the lock is certain.
    if (this.useOf(frame) !== use) {
      failMisuse('frames.give', { frame, use, found: this.useOf(frame) }, 'a frame is given back by whoever uses it');
    }
    this.#mutex.enter();
    if (note !== undefined) this.#thread.journal.set(note, frame, value);
    this.core.give(frame);
    this.#mutex.exit();
  }

  /** Gives a frame back if `condition` holds under the lock: for recovery. `note` as with `give`. */
  giveIf(frame: FrameIndex, condition: () => boolean, note: Int32Column, value: number): void {
    this.#mutex.enter();
    if (condition()) {
      this.#thread.journal.set(note, frame, value);
      this.core.give(frame);
    }
    this.#mutex.exit();
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
   * First frame of a run of `count` adjacent frames of one bank, or -1. Pages are reclaimed where no run is free.
   * Until `settle` or `settleInSection` is called, the run goes back when this thread dies: call it once, or in the
   * critical section in which, the run is written down elsewhere.
   */
  tryTakeRun(count: number): FrameIndex {
    const { bankFrames } = this.#thread.region.geometry;
    requireInteger('frames.takeRun', 'count', count, 1, 2 ** 30);
    if (count > bankFrames) return -1;
    if (this.#hand.stage.get(this.#thread.slot) === HAND_STAGE.taken) this.settle();
    const found = this.#takeAnyRun(count);
    const first = found < 0 && this.press() ? this.#takeAnyRun(count) : found;
    this.watermarks.kickIfLow();
    return first;
  }

  #takeAnyRun(count: number): FrameIndex {
    const free = this.#takeFreeRun(count);
    return free >= 0 || this.#reclaimer === null ? free : this.#assembleRun(count, this.#reclaimer);
  }

  /** Says that the run taken last is written down elsewhere. */
  settle(): void {
    this.#hand.stage.put(this.#thread.slot, HAND_STAGE.empty);
  }

  /** Like `settle`, through the journal: undone with the critical section that writes the run down. */
  settleInSection(): void {
    this.#thread.journal.set(this.#hand.stage, this.#thread.slot, HAND_STAGE.empty);
  }

  /**
   * Announces through the journal that `giveRun` will be called for a run: from the end of the critical section on, in
   * which whoever owned it lets go of it, the run goes back even if this thread dies first.
   */
  giveInSection(first: FrameIndex, count: number): void {
    const { journal, slot } = this.#thread;
    journal.set(this.#hand.first, slot, first);
    journal.set(this.#hand.count, slot, count);
    journal.set(this.#hand.stage, slot, HAND_STAGE.marking);
  }

  /** Gives a whole run back. Throws `EINVAL` when `first` and `count` are not a run as it was taken. */
  giveRun(first: FrameIndex, count: number): void {
    this.#requireRun(first, count);
    const { slot } = this.#thread;
    const hand = this.#hand;
    if (hand.stage.get(slot) === HAND_STAGE.taken && hand.first.get(slot) !== first) this.settle();
    this.#setHand(first, count, HAND_STAGE.marking);
    this.#finishGiving(first, count, this.#thread.slot);
    this.settle();
  }

  /** Frames by use, as they are now. */
  counts(): FrameCounts {
    return this.core.counts();
  }

  /** Gives back what a dead slot had in hand. */
  recover(dead: SlotIndex): void {
    const stage = this.#hand.stage.get(dead);
    const first = this.#hand.first.get(dead);
    const count = this.#hand.count.get(dead);
    if (stage === HAND_STAGE.marking) this.#finishGiving(first, count, dead);
    else if (stage !== HAND_STAGE.empty) this.#giveMarked(first, count, dead);
    this.#hand.stage.put(dead, HAND_STAGE.empty);
  }

  /** Compares uses, counts and the source. For quiet points. */
  check(): CheckReport {
    const { structure, checked, problems } = this.core.check();
    const broken = [...problems, ...this.watermarks.problems()];
    const { frames, bankFrames } = this.#thread.region.geometry;
    for (let frame = 0; frame < frames; frame++) {
      const before = frame % bankFrames === 0 ? FRAME_USE.absent : this.useOf(frame - 1);
      if (this.useOf(frame) === FRAME_USE.runRest && before !== FRAME_USE.run && before !== FRAME_USE.runRest) {
        broken.push(`phys/frames I1: frame ${frame} belongs to a run without a first frame`);
      }
    }
    return { structure, checked, problems: broken };
  }

  #takeFreeRun(count: number): FrameIndex {
    const { frames, bankFrames } = this.#thread.region.geometry;
    const shape = { count, alignment: 1, boundary: 0 };
    this.#mutex.enter();
    let first = -1;
    if (this.core.free >= count) {
      for (let low = 0; low < frames && first < 0; low += bankFrames) {
        first = this.core.source.findRun(shape, low, Math.min(low + bankFrames, frames));
      }
    }
    if (first >= 0) {
      this.#setHand(first, count, HAND_STAGE.taking);
      for (let done = 0; done < count; done++) {
        this.core.take(first + done, done === 0 ? FRAME_USE.run : FRAME_USE.runRest);
        if ((done + 1) % PIECE_FRAMES === 0) this.#thread.commit();
      }
      this.#thread.commit();
      this.#hand.stage.put(this.#thread.slot, HAND_STAGE.taken);
    }
    this.#mutex.exit();
    return first;
  }

  /** Looks for a window in which every frame is free or a page that its user gives up, and takes them one by one. */
  #assembleRun(count: number, reclaimer: FrameReclaimer): FrameIndex {
    const { frames, bankFrames } = this.#thread.region.geometry;
    let first = 0;
    while (first + count <= frames) {
      const bankEnd = Math.min(frames, (Math.floor(first / bankFrames) + 1) * bankFrames);
      if (first + count > bankEnd) {
        first = bankEnd;
        continue;
      }
      const obstacle = this.#obstacleIn(first, count);
      if (obstacle >= 0) {
        first = obstacle + 1;
        continue;
      }
      this.#setHand(first, count, HAND_STAGE.taking);
      const lost = this.#takeWindow(first, count, reclaimer);
      if (lost < 0) {
        this.#hand.stage.put(this.#thread.slot, HAND_STAGE.taken);
        return first;
      }
      this.#giveMarked(first, count, this.#thread.slot);
      this.settle();
      first = lost + 1;
    }
    return -1;
  }

  /** The last frame of the window that can be neither taken nor reclaimed, or -1. A look without the lock. */
  #obstacleIn(first: FrameIndex, count: number): FrameIndex {
    for (let frame = first + count - 1; frame >= first; frame--) {
      const use = this.useOf(frame);
      if (use !== FRAME_USE.free && use !== FRAME_USE.page) return frame;
    }
    return -1;
  }

  /** Takes every frame of the window; the first one that could not be had, or -1. */
  #takeWindow(first: FrameIndex, count: number, reclaimer: FrameReclaimer): FrameIndex {
    for (let frame = first; frame < first + count; frame++) {
      if (VERIFY && faultPoint(this.#thread, 'phys.run.partial')) return frame;
      const use = frame === first ? FRAME_USE.run : FRAME_USE.runRest;
      this.#mutex.enter();
      const free = this.core.source.has(frame);
      if (free) this.core.take(frame, use);
      this.#mutex.exit();
      if (!free && !(this.useOf(frame) === FRAME_USE.page && reclaimer.reclaim(frame, use))) return frame;
    }
    return -1;
  }

  /** Marks all frames of a run as the giver's, then frees them. A takeover repeats it for a dead giver. */
  #finishGiving(first: FrameIndex, count: number, giver: SlotIndex): void {
    const mark = (giver + 1) << SLOT_SHIFT;
    this.#mutex.enter();
    for (let done = 0; done < count; done++) {
      const marked = mark | (done === 0 ? FRAME_USE.run : FRAME_USE.runRest);
      if (this.core.wordOf(first + done) !== marked) this.core.convertMarked(first + done, marked);
      if ((done + 1) % PIECE_FRAMES === 0) this.#thread.commit();
    }
    this.#mutex.exit();
    if (VERIFY) faultPoint(this.#thread, 'phys.run.marked');
    this.#hand.stage.put(giver, HAND_STAGE.giving);
    this.#giveMarked(first, count, giver);
  }

  /** Frees those frames of a window that are in a run and bear the slot's mark. */
  #giveMarked(first: FrameIndex, count: number, marker: SlotIndex): void {
    this.#mutex.enter();
    for (let done = 0; done < count; done++) {
      const use = this.useOf(first + done);
      if ((use === FRAME_USE.run || use === FRAME_USE.runRest) && this.takerOf(first + done) === marker) {
        this.core.give(first + done);
      }
      if ((done + 1) % PIECE_FRAMES === 0) this.#thread.commit();
    }
    this.#mutex.exit();
  }

  #requireRun(first: FrameIndex, count: number): void {
    const { frames } = this.#thread.region.geometry;
    requireInteger('frames.giveRun', 'first', first, 0, frames - 1);
    requireInteger('frames.giveRun', 'count', count, 1, frames - first);
    let whole = this.useOf(first) === FRAME_USE.run;
    for (let frame = first + 1; frame < first + count; frame++) {
      whole &&= this.useOf(frame) === FRAME_USE.runRest;
    }
    const end = first + count;
    if (end < frames && end % this.#thread.region.geometry.bankFrames !== 0) {
      whole &&= this.useOf(end) !== FRAME_USE.runRest;
    }
    if (!whole) failMisuse('frames.giveRun', { first, count }, 'a run is given back as it was taken, whole and once');
  }

  #setHand(first: FrameIndex, count: number, stage: number): void {
    const { slot } = this.#thread;
    this.#hand.first.put(slot, first);
    this.#hand.count.put(slot, count);
    this.#hand.stage.put(slot, stage);
  }
}
