/**
 * Frame core: the one place where a frame changes its use.
 *
 * PROBLEM     Page cache, runs and page lists share one memory. Each frame has one use, the source knows the free ones, and
 *             the counts must agree with both whoever dies when.
 * STRUCTURE   A use for every frame, a source of free ones, and a count for every use, under one lock:
 *
 *               use    |page|page|run|rest|rest|free|page|list|absent|absent|
 *               source                           ^
 *               counts absent 2, free 1, page 3, run 1, runRest 2, list 1
 *
 *             The use also names the slot that took the frame, and in which of its generations.
 * INVARIANTS  I1 a frame is in the source iff its use is free.  I2 each count is the number of frames with that use.
 * LOCKING     One mutex (RANK.frames), innermost but for counters.
 * COSTS       A frame: one lock pair and about five journaled stores. A run: one store a frame for its use, which is not
 *             journaled, and a few for every 32 frames.
 * FAILURE     Assertions.
 *             Uses of a run are written before the source changes and are not undone: after a death, until the recovery of
 *             the slot, a free frame may still bear a use with the dead slot's mark. So nobody asks the use whether a
 *             frame is free, and taking a frame does not look at it.
 * REJECTED    Journaling the use of every frame of a run: 512 entries for what one line of a hand record says.
 * REFERENCES  BSD vm_page and vm_phys.
 */

import type { CheckReport } from '../base/check.ts';
import { FRAME_ORDER } from '../layout/phys-tables.ts';
import type { BoundTables } from '../layout/region.ts';
import { Mutex } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import {
  type Attachment,
  generationOfAttachment,
  type SlotIndex,
  slotOfAttachment,
  type Thread,
} from '../sync/thread.ts';
import type { FrameIndex } from './banks.ts';
import { FrameCharges } from './frame-charges.ts';
import { FrameLists } from './frame-lists.ts';
import { FrameMap } from './frame-map.ts';
import { FrameQueue } from './frame-queue.ts';
import { FrameReservations } from './frame-reservations.ts';
import { type FrameRun, RunBuilder } from './frame-runs.ts';
import type { FrameSource } from './frame-source.ts';
import {
  countLane,
  FRAME_USE,
  GENERATION_MASK,
  GENERATION_SHIFT,
  OWNER_MASK,
  OWNER_SHIFT,
  SLOT_SHIFT,
  SLOT_USE_MASK,
  USE_MASK,
} from './frame-uses.ts';
import { PhysSegments } from './phys-segments.ts';

/** Frames of a run that are written one by one. */
const SHORT_RUN = 32;

/** Frames by use. */
export interface FrameCounts {
  readonly total: number;
  readonly absent: number;
  readonly free: number;
  readonly page: number;
  /** Frames in runs. */
  readonly run: number;
  /** Frames in page lists. */
  readonly list: number;
}

/** What a frame's word says of who took it. */
function markOf(taker: Attachment): number {
  const generation = generationOfAttachment(taker) & GENERATION_MASK;
  return ((slotOfAttachment(taker) + 1) << SLOT_SHIFT) | (generation << GENERATION_SHIFT);
}

/** Uses, source and counts as one thread sees them. */
export class FrameCore {
  readonly thread: Thread;
  /** Guards everything here. */
  readonly mutex: Mutex;
  /** Free frames by address: the source itself, or what lies under it. */
  readonly map: FrameMap;
  readonly source: FrameSource;
  readonly segments: PhysSegments;
  /** Requests that wait for frames: told when some come back. */
  readonly queue: FrameQueue;
  /** Whom the frames of page lists are charged to. */
  readonly charges: FrameCharges;
  /** What is promised to owners. */
  readonly reservations: FrameReservations;
  /** True while this thread wants the lowest free frame whatever the order: it moves frames together. */
  lowestFirst = false;
  readonly #use: BoundTables['frame']['use'];
  readonly #counts: BoundTables['framePool']['counts'];
  readonly #mark: number;

  constructor(thread: Thread) {
    const { tables } = thread.region;
    this.thread = thread;
    this.mutex = new Mutex(thread, tables.framePool.lock.address(0), RANK.frames);
    this.map = new FrameMap(thread);
    this.segments = new PhysSegments(thread);
    const ordered = tables.frameOrder.source.get(0) !== FRAME_ORDER.lowest;
    this.source = ordered ? new FrameLists(thread, this.map, this.segments) : this.map;
    this.charges = new FrameCharges(thread);
    this.queue = new FrameQueue(thread, this.charges);
    this.reservations = new FrameReservations(thread);
    this.#use = tables.frame.use;
    this.#counts = tables.framePool.counts;
    this.#mark = markOf(thread.attachment);
  }

  /** What a frame is used for: a value of `FRAME_USE`. */
  useOf(frame: FrameIndex): number {
    return this.#use.get(frame) & USE_MASK;
  }

  /** The slot that took a frame, or -1. */
  takerOf(frame: FrameIndex): SlotIndex {
    return ((this.#use.get(frame) & SLOT_USE_MASK) >>> SLOT_SHIFT) - 1;
  }

  /** Use and slot of a frame in one word, without the owner. */
  wordOf(frame: FrameIndex): number {
    return this.#use.get(frame) & SLOT_USE_MASK;
  }

  /** Frames of a use that a thread took, all it took and not what its slot took in other generations; as runs. */
  takenBy(taker: Attachment, use: number): FrameRun[] {
    const { view } = this.#use;
    const word = markOf(taker) | use;
    const runs = new RunBuilder();
    for (let frame = 0; frame < view.length; frame++)
      if (((view[frame] as number) & ~OWNER_MASK) === word) runs.push(frame, 1);
    return [...runs.build().runs];
  }

  /** Frames that are free; a look without the lock is a hint. */
  get free(): number {
    return this.#counts.at(0, FRAME_USE.free);
  }

  /** Frames that are not absent. */
  get online(): number {
    const { total, absent } = this.counts();
    return total - absent;
  }

  /** Frames of a use. */
  countOf(use: number): number {
    return this.#counts.at(0, use);
  }

  /** Frames by use, as they are now. */
  counts(): FrameCounts {
    const at = (use: number) => this.#counts.at(0, use);
    const total = this.thread.region.geometry.frames;
    const free = at(FRAME_USE.free);
    const page = at(FRAME_USE.page);
    const run = at(FRAME_USE.run) + at(FRAME_USE.runRest);
    const list = at(FRAME_USE.list);
    return { total, free, page, run, list, absent: total - free - page - run - list };
  }

  /** Under the lock: takes the frame that comes next; -1 when there is none above the reserve. */
  takeNext(use: number, reserve = 0): FrameIndex {
    if (this.lowestFirst) return this.#takeLowest(use);
    const frame = this.source.takeNext(reserve);
    if (frame >= 0) this.#noteTaken(frame, use);
    return frame;
  }

  /** Under the lock: takes a certain frame, which the source has. */
  take(frame: FrameIndex, use: number): void {
    this.source.take(frame);
    this.#noteTaken(frame, use);
  }

  /** Under the lock: an absent frame becomes free. */
  admit(frame: FrameIndex): void {
    this.source.give(frame);
    this.thread.journal.set(this.#use, frame, FRAME_USE.free);
    this.#count(FRAME_USE.free, 1);
  }

  /**
   * Under the lock, with nothing logged: absent frames become free; commits piece by piece. A death leaves a part of them
   * absent, or free with a use that says absent: the caller's hand record has said before that all become free.
   */
  admitRun(first: FrameIndex, count: number): void {
    const { pieceFrames } = this.source;
    for (let done = 0; done < count; done += pieceFrames) {
      const piece = Math.min(pieceFrames, count - done);
      this.source.giveRun(first + done, piece);
      this.#count(FRAME_USE.free, piece);
      this.thread.commit();
      this.#fill(first + done, piece, FRAME_USE.free);
    }
    this.queue.tell(this.free);
  }

  /** Under the lock: a frame that is in use becomes absent. */
  retire(frame: FrameIndex): void {
    const before = this.useOf(frame);
    this.charges.change(this.#owner(frame), -1);
    this.thread.journal.set(this.#use, frame, FRAME_USE.absent);
    this.#count(countLane(before), -1);
  }

  /** Under the lock: a frame that is in use becomes free. */
  give(frame: FrameIndex): void {
    const before = this.useOf(frame);
    this.source.give(frame);
    this.charges.change(this.#owner(frame), -1);
    this.thread.journal.set(this.#use, frame, FRAME_USE.free);
    this.#move(countLane(before), FRAME_USE.free, 1);
    this.queue.tell(this.free);
  }

  /** Under the lock: a frame in use gets another use, and bears this thread's mark. */
  convert(frame: FrameIndex, use: number): void {
    this.convertMarked(frame, this.#wordFor(use));
  }

  /** Under the lock of a slot's cache: a frame goes onto the stack or comes from it; counts stay as they are. */
  convertSpare(frame: FrameIndex, use: number): void {
    this.thread.journal.set(this.#use, frame, use | this.#mark);
  }

  /** Like `convert`, with the mark of another slot. */
  convertMarked(frame: FrameIndex, marked: number): void {
    const before = countLane(this.useOf(frame));
    const after = countLane(marked & USE_MASK);
    this.charges.change(this.#owner(frame), -1);
    this.charges.change(marked & OWNER_MASK, 1);
    this.thread.journal.set(this.#use, frame, marked);
    if (before === after) return;
    this.#count(before, -1);
    this.#count(after, 1);
  }

  /**
   * Under the lock, with nothing logged: takes the free frames `[first, first + count)`; commits piece by piece. A death
   * leaves a part of them taken: the caller's hand record has said before that they go back.
   */
  takeRun(first: FrameIndex, count: number, use: number): void {
    const { pieceFrames } = this.source;
    const word = this.#wordFor(use);
    this.#fill(first, count, word);
    for (let done = 0; done < count; done += pieceFrames) {
      const piece = Math.min(pieceFrames, count - done);
      this.source.takeRun(first + done, piece);
      this.#move(FRAME_USE.free, countLane(use), piece);
      this.charges.change(word & OWNER_MASK, piece);
      if (piece < count) this.thread.commit();
    }
  }

  /**
   * Under the lock, with nothing logged: frees `[first, first + count)`, which are all of one use; commits piece by piece.
   * A death leaves a part of them with that use: the caller's hand record has said before that they go back.
   */
  giveRun(first: FrameIndex, count: number, use: number): void {
    const { pieceFrames } = this.source;
    for (let done = 0; done < count; done += pieceFrames) {
      const piece = Math.min(pieceFrames, count - done);
      this.source.giveRun(first + done, piece);
      this.#move(countLane(use), FRAME_USE.free, piece);
      this.charges.release(this.#use.view, first + done, piece);
      this.thread.commit();
      this.#fill(first + done, piece, FRAME_USE.free);
    }
    this.queue.tell(this.free);
  }

  /** Writes a use with this thread's mark over frames that nobody else can change; not journaled. Charges stay. */
  stamp(first: FrameIndex, count: number, use: number): void {
    const { view } = this.#use;
    const word = use | this.#mark;
    for (let frame = first; frame < first + count; frame++) {
      view[frame] = word | ((view[frame] as number) & OWNER_MASK);
    }
  }

  /** The first of some frames that is not of a use, or -1. */
  firstOther(first: FrameIndex, count: number, use: number): FrameIndex {
    const { view } = this.#use;
    for (let frame = first; frame < first + count; frame++) {
      if (((view[frame] as number) & USE_MASK) !== use) return frame;
    }
    return -1;
  }

  /** Under the lock, in recovery: the use that a dead slot wrote over a frame becomes another one of the same slot, or free. */
  restamp(frame: FrameIndex, marked: number): void {
    const generation = marked === FRAME_USE.free ? 0 : this.#use.get(frame) & ~SLOT_USE_MASK;
    this.#use.put(frame, generation | marked);
  }

  /** Has everybody look again who waits for frames: limits of owners have changed. */
  limitsChanged(): void {
    this.mutex.enter();
    this.queue.tellAll();
    this.mutex.exit();
  }

  /** Compares uses, counts, source and segments. For quiet points. */
  check(): CheckReport {
    const problems = [...this.source.problems(), ...this.segments.problems(), ...this.queue.problems()];
    const found = new Array<number>(this.#counts.stride).fill(0);
    const charged = new Array<number>(this.thread.region.geometry.owners + 1).fill(0);
    const { frames } = this.thread.region.geometry;
    for (let frame = 0; frame < frames; frame++) {
      const use = this.useOf(frame);
      const lane = countLane(use);
      found[lane] = (found[lane] ?? 0) + 1;
      const owner = this.#owner(frame) >>> OWNER_SHIFT;
      charged[owner] = (charged[owner] ?? 0) + 1;
      if (this.source.has(frame) !== (use === FRAME_USE.free)) {
        problems.push(`phys/frame-core I1: frame ${frame}, use ${use}`);
      }
    }
    for (const [name, use] of Object.entries(FRAME_USE)) {
      const count = this.#counts.at(0, use);
      if (use === FRAME_USE.absent || count === found[use]) continue;
      problems.push(`phys/frame-core I2: ${name}: count ${count}, found ${found[use]}`);
    }
    problems.push(...this.charges.problems(charged), ...this.reservations.problems());
    return { structure: 'phys/frames', checked: frames, problems };
  }

  #fill(first: FrameIndex, count: number, word: number): void {
    const { view } = this.#use;
    // A call of `fill` costs more than a short loop.
    if (count > SHORT_RUN) view.fill(word, first, first + count);
    else for (let frame = first; frame < first + count; frame++) view[frame] = word;
  }

  #takeLowest(use: number): FrameIndex {
    const frame = this.source.nextFree(0, this.thread.region.geometry.frames);
    if (frame >= 0) this.take(frame, use);
    return frame;
  }

  #noteTaken(frame: FrameIndex, use: number): void {
    const word = this.#wordFor(use);
    this.thread.journal.set(this.#use, frame, word);
    this.#move(FRAME_USE.free, countLane(use), 1);
    this.charges.change(word & OWNER_MASK, 1);
  }

  /** What the word of a frame that this thread takes says: those for lists are charged. */
  #wordFor(use: number): number {
    const charged = use === FRAME_USE.list || use === FRAME_USE.listTaking;
    return use | this.#mark | (charged ? this.charges.bits : 0);
  }

  /** Whom a frame is charged to. */
  #owner(frame: FrameIndex): number {
    return this.#use.get(frame) & OWNER_MASK;
  }

  /** So many frames of one count are in another now. */
  #move(from: number, to: number, frames: number): void {
    const { base, view } = this.#counts;
    this.thread.journal.log2(base + from, base + to);
    view[from] = (view[from] as number) - frames;
    view[to] = (view[to] as number) + frames;
  }

  #count(lane: number, amount: number): void {
    this.thread.journal.setAt(this.#counts, 0, lane, this.#counts.at(0, lane) + amount);
  }
}
