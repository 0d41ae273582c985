/**
 * Run hand: taking and giving runs so that a death leaves none half taken or half given.
 *
 * PROBLEM     A run may be longer than a journal, and it may have to be made out of frames that others use.
 * STRUCTURE   A record per slot (stage, first, count). A run as the uses show it:
 *
 *               |page|page|run|rest|rest|free|page|free|absent|absent|
 *
 *               stage     frames of the window                          when the slot dies
 *               taking    run or runRest with the slot's mark           go back
 *               taken     the run is complete and not yet written down  goes back
 *               marking   all still in use                              are marked, then given back
 *               giving    with the slot's mark                          go back
 *
 *             While a run is made, each of its frames is a run of its own: so no neighbour's end is ever unclear.
 * INVARIANTS  I1 a run is one frame of use run and then frames of use runRest, all in one bank.
 *                The first frame of a run changes first when it is taken or given back, so that its neighbour's end is
 *                always seen.
 *             I2 a slot's hand record covers every frame that the slot has changed but not finished.
 * LOCKING     The frames' lock, piece by piece. Reclaimers run without it.
 * COSTS       Five journaled stores a frame; a run that must be made costs what evacuation.ts says.
 * FAILURE     -1 when no run can be had; `EINVAL` for a run that is not one.
 * REJECTED    A record per run: a slot makes one at a time.
 * REFERENCES  Robust lists, for the record.
 */

import { failMisuse, rejectUnknownOptions, requireInteger, requireObject } from '../base/errors.ts';
import { isPowerOfTwo } from '../base/exact.ts';
import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import { faultPoint } from '../sync/fault.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import type { FrameIndex } from './banks.ts';
import type { Evacuation } from './evacuation.ts';
import type { FrameCore } from './frame-core.ts';
import { FRAME_USE, SLOT_SHIFT } from './frame-uses.ts';
import { bestWindow } from './window-search.ts';

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

/** Windows tried before a run counts as not to be had. */
const ATTEMPTS_MAX = 16;

/** Where a run may lie; in frames. */
export interface RunPlace {
  /** The first frame is a multiple of this power of two. */
  readonly alignment: number;
  /** The run does not cross a multiple of this power of two; 0 for none. */
  readonly boundary: number;
  readonly low: FrameIndex;
  /** Frame behind the last one allowed. */
  readonly high: FrameIndex;
}

/** Throws `EINVAL` for what is no place. */
export function requirePlace(place: RunPlace): void {
  const call = 'frames.takeRun';
  requireObject(call, 'place', place);
  rejectUnknownOptions(call, place, Object.keys(ANYWHERE));
  const { alignment, boundary, low, high } = place;
  if (!isPowerOfTwo(alignment)) failMisuse(call, { alignment }, 'alignment must be a power of two');
  if (boundary !== 0 && !isPowerOfTwo(boundary)) failMisuse(call, { boundary }, 'boundary must be 0 or a power of two');
  requireInteger(call, 'low', low, 0, Number.MAX_SAFE_INTEGER);
  requireInteger(call, 'high', high, 0, Number.MAX_SAFE_INTEGER);
}

/** Any place. */
export const ANYWHERE: RunPlace = { alignment: 1, boundary: 0, low: 0, high: Number.MAX_SAFE_INTEGER };

/** This thread's record, and recovery from those of others. */
export class RunHand {
  readonly #thread: Thread;
  readonly #core: FrameCore;
  readonly #evacuation: Evacuation;
  readonly #hand: BoundTables['frameHand'];

  constructor(core: FrameCore, evacuation: Evacuation) {
    this.#thread = core.thread;
    this.#core = core;
    this.#evacuation = evacuation;
    this.#hand = core.thread.region.tables.frameHand;
  }

  /** Under the lock, with nothing logged: takes the lowest free run in its place that leaves `reserve` frames; its first frame, or -1. */
  takeFree(count: number, reserve: number, place: RunPlace): FrameIndex {
    const { frames, bankFrames } = this.#thread.region.geometry;
    const core = this.#core;
    const shape = { count, alignment: place.alignment, boundary: place.boundary };
    let first = -1;
    if (core.free - count < reserve) return -1;
    for (let bank = 0; bank < frames && first < 0; bank += bankFrames) {
      const low = Math.max(bank, place.low);
      const high = Math.min(bank + bankFrames, frames, place.high);
      if (high - low >= count) first = core.source.findRun(shape, low, high);
    }
    if (first < 0) return -1;
    this.#set(first, count, HAND_STAGE.taking);
    for (let done = 0; done < count; done++) {
      core.take(first + done, done === 0 ? FRAME_USE.run : FRAME_USE.runRest);
      if ((done + 1) % PIECE_FRAMES === 0) this.#thread.commit();
    }
    this.#thread.commit();
    this.#hand.stage.put(this.#thread.slot, HAND_STAGE.taken);
    return first;
  }

  /** Makes a run out of free frames and of others that are moved or given up; its first frame, or -1. Without locks. */
  assemble(count: number, place: RunPlace): FrameIndex {
    if (!this.#evacuation.any) return -1;
    const { slot, region } = this.#thread;
    const request = { ...place, count, high: Math.min(place.high, region.geometry.frames) };
    const inTheWay = new Set<FrameIndex>();
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const first = bestWindow(this.#core, this.#evacuation, request, inTheWay);
      if (first < 0) return -1;
      this.#set(first, count, HAND_STAGE.taking);
      const lost = this.#evacuation.takeAll(first, count, FRAME_USE.run);
      if (lost < 0) {
        this.#join(first, count);
        this.#hand.stage.put(slot, HAND_STAGE.taken);
        return first;
      }
      this.#giveMarked(first, count, slot);
      this.settle();
      inTheWay.add(lost);
    }
    return -1;
  }

  /** Says that the run taken last is written down elsewhere. */
  settle(): void {
    this.#hand.stage.put(this.#thread.slot, HAND_STAGE.empty);
  }

  /** Like `settle`, through the journal. */
  settleInSection(): void {
    this.#thread.journal.set(this.#hand.stage, this.#thread.slot, HAND_STAGE.empty);
  }

  /** The run taken last counts as written down, unless it is `first`. */
  settleOther(first = -1): void {
    const { slot } = this.#thread;
    if (this.#hand.stage.get(slot) === HAND_STAGE.taken && this.#hand.first.get(slot) !== first) this.settle();
  }

  /** Announces through the journal that `give` will be called for a run. */
  giveInSection(first: FrameIndex, count: number): void {
    const { journal, slot } = this.#thread;
    journal.set(this.#hand.first, slot, first);
    journal.set(this.#hand.count, slot, count);
    journal.set(this.#hand.stage, slot, HAND_STAGE.marking);
  }

  /** Gives a whole run back. Throws `EINVAL` when `first` and `count` are not a run as it was taken. */
  give(first: FrameIndex, count: number): void {
    this.#requireRun(first, count);
    this.settleOther(first);
    this.#set(first, count, HAND_STAGE.marking);
    this.#finishGiving(first, count, this.#thread.slot);
    this.settle();
  }

  /** True when a run is being put together or given back, by whomever. A look without the lock. */
  get isBusy(): boolean {
    const { stage, rowCount } = this.#hand;
    for (let slot = 0; slot < rowCount; slot++) {
      const now = stage.get(slot);
      if (now !== HAND_STAGE.empty && now !== HAND_STAGE.taken) return true;
    }
    return false;
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

  /** Broken invariants, for `check()`. */
  problems(): string[] {
    const found: string[] = [];
    const { frames, bankFrames } = this.#thread.region.geometry;
    for (let frame = 0; frame < frames; frame++) {
      const before = frame % bankFrames === 0 ? FRAME_USE.absent : this.#core.useOf(frame - 1);
      if (this.#core.useOf(frame) === FRAME_USE.runRest && before !== FRAME_USE.run && before !== FRAME_USE.runRest) {
        found.push(`phys/run-hand I1: frame ${frame} belongs to a run without a first frame`);
      }
    }
    return found;
  }

  /** Runs of one frame each become one. */
  #join(first: FrameIndex, count: number): void {
    this.#core.mutex.enter();
    for (let done = 1; done < count; done++) {
      this.#core.convert(first + done, FRAME_USE.runRest);
      if (done % PIECE_FRAMES === 0) this.#thread.commit();
    }
    this.#core.mutex.exit();
  }

  /** Marks all frames of a run as the giver's, then frees them. A takeover repeats it for a dead giver. */
  #finishGiving(first: FrameIndex, count: number, giver: SlotIndex): void {
    const mark = (giver + 1) << SLOT_SHIFT;
    this.#core.mutex.enter();
    for (let done = 0; done < count; done++) {
      const marked = mark | (done === 0 ? FRAME_USE.run : FRAME_USE.runRest);
      if (this.#core.wordOf(first + done) !== marked) this.#core.convertMarked(first + done, marked);
      if ((done + 1) % PIECE_FRAMES === 0) this.#thread.commit();
    }
    this.#core.mutex.exit();
    if (VERIFY) faultPoint(this.#thread, 'phys.run.marked');
    this.#hand.stage.put(giver, HAND_STAGE.giving);
    this.#giveMarked(first, count, giver);
  }

  /** Frees those frames of a window that are in a run and bear the slot's mark. */
  #giveMarked(first: FrameIndex, count: number, marker: SlotIndex): void {
    const core = this.#core;
    core.mutex.enter();
    for (let done = 0; done < count; done++) {
      const use = core.useOf(first + done);
      if ((use === FRAME_USE.run || use === FRAME_USE.runRest) && core.takerOf(first + done) === marker) {
        core.give(first + done);
      }
      if ((done + 1) % PIECE_FRAMES === 0) this.#thread.commit();
    }
    core.mutex.exit();
  }

  #requireRun(first: FrameIndex, count: number): void {
    const { frames, bankFrames } = this.#thread.region.geometry;
    const core = this.#core;
    requireInteger('frames.giveRun', 'first', first, 0, frames - 1);
    requireInteger('frames.giveRun', 'count', count, 1, frames - first);
    let whole = core.useOf(first) === FRAME_USE.run;
    for (let frame = first + 1; frame < first + count; frame++) whole &&= core.useOf(frame) === FRAME_USE.runRest;
    const end = first + count;
    if (end < frames && end % bankFrames !== 0) whole &&= core.useOf(end) !== FRAME_USE.runRest;
    if (!whole) failMisuse('frames.giveRun', { first, count }, 'a run is given back as it was taken, whole and once');
  }

  #set(first: FrameIndex, count: number, stage: number): void {
    const { slot } = this.#thread;
    this.#hand.first.put(slot, first);
    this.#hand.count.put(slot, count);
    this.#hand.stage.put(slot, stage);
  }
}
