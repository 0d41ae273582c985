/**
 * List hand: taking and giving the frames of page lists so that a death leaves no list half taken or half given.
 *
 * PROBLEM     A list has more frames than a journal has room for, and they lie anywhere.
 * STRUCTURE   A record per slot says what it is doing and between which frames; the uses of the frames say the rest:
 *
 *               stage      frames of the call                         when the slot dies
 *               takingRun  exactly [first, first + count), use list   go back
 *               taking     use listTaking, the slot's mark            go back
 *               settling   some are list already                      all become list: the list stands
 *               marking    some are listGiving, the slot's mark       become list again: nothing was given back
 *               giving     use listGiving, the slot's mark            go back
 *               givingRun  exactly [first, first + count), use list   those that the source has are free: all or none
 *               leaving    use listTaking, the slot's mark            become absent: their memory goes offline
 *               admitting  absent or free                             all become free: their memory comes online
 *
 * INVARIANTS  I1 a frame of use listTaking or listGiving lies between the marks of its slot's record.
 *             I2 a list is taken as a whole or not at all, and given back as a whole or not at all.
 * LOCKING     Under the frames' lock. The record is the slot's own.
 * COSTS       A run: three stores. Scattered frames: a store a frame more.
 * FAILURE     `EINVAL` for frames that are not in a list, or twice in one: nothing has changed then.
 * REJECTED    Lists linked through shared memory, as the seed has them: their owner's death would not be any safer, and
 *             8 bytes a frame would be.
 * REFERENCES  Robust lists; hand record of phys/frames.ts.
 */

import { fail, failMisuse } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import { faultPoint } from '../sync/fault.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import type { FrameIndex } from './banks.ts';
import type { FrameCore } from './frame-core.ts';
import { type FrameRun, onlyRunOf, type PageList } from './frame-runs.ts';
import { FRAME_USE, SLOT_SHIFT } from './frame-uses.ts';

/** Stages of a slot's record; see the file's header. */
export const LIST_STAGE = {
  empty: 0,
  takingRun: 1,
  taking: 2,
  settling: 3,
  marking: 4,
  giving: 5,
  leaving: 6,
  admitting: 7,
  givingRun: 8,
} as const;

/** True when a list is being put together or given back, by whomever. A look without the lock. */
export function listsBusy(thread: Thread): boolean {
  const { stage, rowCount } = thread.region.tables.pageListSlot;
  for (let slot = 0; slot < rowCount; slot++) if (stage.get(slot) !== LIST_STAGE.empty) return true;
  return false;
}

/** This thread's record, and recovery from those of others. */
export class ListHand {
  readonly #thread: Thread;
  readonly #core: FrameCore;
  readonly #record: BoundTables['pageListSlot'];
  readonly #frames: number;

  constructor(core: FrameCore) {
    this.#thread = core.thread;
    this.#core = core;
    this.#record = core.thread.region.tables.pageListSlot;
    this.#frames = core.thread.region.geometry.frames;
  }

  /** Under the lock, with nothing logged: takes the free frames of a run; for good unless `held` leaves that to `settle`. */
  takeRun(first: FrameIndex, count: number, held = false): void {
    this.#set(LIST_STAGE.takingRun, first, count);
    this.#core.takeRun(first, count, FRAME_USE.list);
    if (VERIFY) faultPoint(this.#thread, 'phys.list.taken');
    this.#thread.commit();
    if (!held) this.#clear();
  }

  /** Begins to take frames one after another; they lie anywhere in a range, or in all of memory. */
  begin(first: FrameIndex = 0, count: number = this.#frames): void {
    this.#set(LIST_STAGE.taking, first, count);
  }

  /** Under the lock, with nothing logged, after `begin`: takes free frames. */
  take(first: FrameIndex, count: number): void {
    this.#core.takeRun(first, count, FRAME_USE.listTaking);
    this.#thread.commit();
    if (VERIFY) faultPoint(this.#thread, 'phys.list.partial');
  }

  /** What was taken since `begin` becomes a list. */
  settle(runs: readonly FrameRun[]): void {
    if (this.#record.stage.get(this.#thread.slot) === LIST_STAGE.takingRun) {
      this.#clear();
      return;
    }
    this.#record.stage.put(this.#thread.slot, LIST_STAGE.settling);
    for (const { first, count } of runs) this.#core.stamp(first, count, FRAME_USE.list);
    this.#clear();
  }

  /** Under the lock, with nothing logged: gives back what was taken since `begin`, in order. */
  giveUp(runs: readonly FrameRun[]): void {
    for (const { first, count } of runs) this.#core.giveRun(first, count, FRAME_USE.listTaking);
    this.#clear();
  }

  /** Under the lock, after `begin`: gives one frame back that was taken. */
  giveOne(frame: FrameIndex): void {
    this.#core.give(frame);
  }

  /** Under the lock, in its section: from its end on, what was taken since `begin` leaves memory, also if this thread dies. */
  leaveInSection(): void {
    this.#core.thread.journal.set(this.#record.stage, this.#thread.slot, LIST_STAGE.leaving);
  }

  /** Under the lock, with nothing logged, after `leaveInSection`: what was taken becomes absent. */
  leave(first: FrameIndex, count: number): void {
    this.#finishLeaving(first, first + count, this.#thread.slot);
    this.#clear();
  }

  /** Under the lock, in its section: says that absent frames are about to become free. */
  admitInSection(first: FrameIndex, count: number): void {
    const { journal, slot } = this.#thread;
    journal.set(this.#record.first, slot, first);
    journal.set(this.#record.count, slot, count);
    journal.set(this.#record.stage, slot, LIST_STAGE.admitting);
  }

  /** Under the lock, with nothing logged, after `admitInSection`: the frames become free. */
  admit(first: FrameIndex, count: number): void {
    this.#core.admitRun(first, count);
    this.#clear();
  }

  /** Ends what `begin` began when nothing taken is left. */
  end(): void {
    this.#clear();
  }

  /** What a slot's record says. */
  recordOf(slot: SlotIndex): { readonly stage: number; readonly first: FrameIndex; readonly count: number } {
    const record = this.#record;
    return { stage: record.stage.get(slot), first: record.first.get(slot), count: record.count.get(slot) };
  }

  /** Empties the record of a dead slot whose run was written down elsewhere. */
  forget(dead: SlotIndex): void {
    this.#record.stage.put(dead, LIST_STAGE.empty);
  }

  /**
   * Under the lock, with nothing logged: frees a list, in order. Throws `EINVAL` when it is not one. From the moment that
   * `certain` runs, the frames go back even if this thread dies; before it they stay.
   */
  give(list: PageList, certain?: () => void): void {
    const core = this.#core;
    const only = onlyRunOf(list);
    if (only >= 0 && list.frameCount <= core.source.pieceFrames && certain === undefined) {
      this.#giveOnly(only, list.frameCount);
      return;
    }
    const runs: readonly FrameRun[] = this.#runsOf(list);
    let low = this.#frames;
    let high = 0;
    for (const { first, count } of runs) {
      if (!(Number.isInteger(first) && Number.isInteger(count) && first >= 0 && count > 0))
        this.#failGive(first, count);
      if (first + count > this.#frames) this.#failGive(first, count);
      low = Math.min(low, first);
      high = Math.max(high, first + count);
    }
    this.#set(LIST_STAGE.marking, low, high - low);
    for (let index = 0; index < runs.length; index++) {
      const { first, count } = runs[index] as FrameRun;
      const foreign = core.firstOther(first, count, FRAME_USE.list);
      if (foreign >= 0) {
        this.#unmark(runs.slice(0, index));
        this.#failGive(foreign, 1);
      }
      core.stamp(first, count, FRAME_USE.listGiving);
    }
    if (VERIFY) faultPoint(this.#thread, 'phys.list.marked');
    this.#record.stage.put(this.#thread.slot, LIST_STAGE.giving);
    certain?.();
    for (const { first, count } of runs) {
      core.giveRun(first, count, FRAME_USE.listGiving);
      if (VERIFY) faultPoint(this.#thread, 'phys.list.given');
    }
    this.#clear();
  }

  /** One run that the source takes in one piece: nothing needs to be marked before. */
  #giveOnly(first: FrameIndex, count: number): void {
    const foreign = this.#core.firstOther(first, count, FRAME_USE.list);
    if (foreign >= 0) this.#failGive(foreign, 1);
    this.#set(LIST_STAGE.givingRun, first, count);
    this.#core.giveRun(first, count, FRAME_USE.list);
    if (VERIFY) faultPoint(this.#thread, 'phys.list.given');
    this.#clear();
  }

  /** Finishes or undoes what a dead slot was doing. */
  recover(dead: SlotIndex): void {
    const record = this.#record;
    const stage = record.stage.get(dead);
    if (stage === LIST_STAGE.empty) return;
    const first = record.first.get(dead);
    const end = first + record.count.get(dead);
    const mark = (dead + 1) << SLOT_SHIFT;
    this.#core.mutex.enter();
    if (stage === LIST_STAGE.leaving) this.#finishLeaving(first, end, dead);
    else for (let frame = first; frame < end; frame++) this.#recoverFrame(frame, stage, mark);
    record.stage.put(dead, LIST_STAGE.empty);
    this.#core.mutex.exit();
  }

  #recoverFrame(frame: FrameIndex, stage: number, mark: number): void {
    const core = this.#core;
    const word = core.wordOf(frame);
    if (stage === LIST_STAGE.admitting) {
      if (core.source.has(frame)) core.restamp(frame, FRAME_USE.free);
      else if (word === FRAME_USE.absent) core.admit(frame);
      this.#thread.commit();
      return;
    }
    if (stage === LIST_STAGE.givingRun) {
      if (core.source.has(frame) && word !== FRAME_USE.free) core.restamp(frame, FRAME_USE.free);
      return;
    }
    const goesBack =
      (stage === LIST_STAGE.takingRun && word === (mark | FRAME_USE.list)) ||
      (stage === LIST_STAGE.taking && word === (mark | FRAME_USE.listTaking)) ||
      (stage === LIST_STAGE.giving && word === (mark | FRAME_USE.listGiving));
    if (goesBack) {
      // The use was written before the source changed, or stands after the source has changed.
      if (core.source.has(frame)) core.restamp(frame, FRAME_USE.free);
      else core.give(frame);
      this.#thread.commit();
    } else if (
      (stage === LIST_STAGE.settling && word === (mark | FRAME_USE.listTaking)) ||
      (stage === LIST_STAGE.marking && word === (mark | FRAME_USE.listGiving))
    ) {
      core.restamp(frame, mark | FRAME_USE.list);
    }
  }

  #finishLeaving(first: FrameIndex, end: FrameIndex, leaver: SlotIndex): void {
    const marked = ((leaver + 1) << SLOT_SHIFT) | FRAME_USE.listTaking;
    for (let frame = first; frame < end; frame++) {
      if (this.#core.wordOf(frame) !== marked) continue;
      this.#core.retire(frame);
      this.#thread.commit();
    }
  }

  #unmark(runs: readonly FrameRun[]): void {
    for (const { first, count } of runs) this.#core.stamp(first, count, FRAME_USE.list);
    this.#clear();
  }

  #set(stage: number, first: FrameIndex, count: number): void {
    const { slot } = this.#thread;
    const record = this.#record;
    record.first.put(slot, first);
    record.count.put(slot, count);
    record.stage.put(slot, stage);
  }

  #clear(): void {
    this.#record.stage.put(this.#thread.slot, LIST_STAGE.empty);
  }

  /** The runs of a list, as whoever gives it back may have made it. */
  #runsOf({ runs }: PageList): readonly FrameRun[] {
    const isList = Array.isArray(runs) && runs.every((run) => typeof run === 'object' && run !== null);
    if (!isList) failMisuse('pageList.free', { runs }, 'a list has an array of runs, each with first and count');
    return runs;
  }

  #failGive(first: FrameIndex, count: number): never {
    this.#clear();
    fail('EINVAL', 'pageList.free', { first, count }, 'these frames are in no page list, or twice in this one');
  }
}
