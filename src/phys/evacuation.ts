/**
 * Evacuation: having frames back from those who use them.
 *
 * PROBLEM     A run that nobody has must be made: what lies in the way can often be moved, sometimes be given up, and is
 *             sometimes pinned.
 * STRUCTURE   Each use may have a reclaimer. A window is emptied in two passes:
 *
 *               1 its free frames are taken, so that nothing is moved into it
 *               2 each other frame: moved; if there is no frame to move to, some pages leave that are needed least, wherever
 *                 they are, then 1, and moved; else given up
 *
 *               |free|page|free|page|  ->  |mine|page|mine|page|  ->  |mine|mine|mine|mine|
 *
 * INVARIANTS  I1 every frame taken bears this thread's mark with the use that the caller named: its hand record, written
 *                before, says what a death makes of them.
 * LOCKING     Frames are taken under the frames' lock, 32 at a time. Reclaimers run without it.
 * COSTS       What moving costs: a copy of 4 KiB and two page locks each.
 * FAILURE     The first frame that could not be had.
 * REJECTED    Giving up before moving: the bytes would have to be read again. Giving up what stands in the window because no
 *             frame is free: it may be what everybody uses, while most of memory is read once. Marking a window against others: whoever
 *             takes a frame of it makes this attempt fail, and the next window is chosen.
 * REFERENCES  Linux alloc_contig_range, isolate and migrate; illumos page_relocate.
 */

import { VERIFY } from '../base/verify.ts';
import { faultPoint } from '../sync/fault.ts';
import type { SlotIndex } from '../sync/thread.ts';
import type { FrameIndex } from './banks.ts';
import type { FrameCore } from './frame-core.ts';
import { FRAME_COUNTER } from './frame-counters.ts';
import { USE_MASK } from './frame-uses.ts';

/** Somebody whose frames can be had back: declared here, implemented by the rooms above. */
export interface FrameReclaimer {
  /** Tries to give up a frame of its use; on success it bears this thread's mark with the given use. */
  reclaim(frame: FrameIndex, use: number): boolean;
  /**
   * Tries to move what is in a frame to another one, which it takes itself; on success the frame bears this thread's mark
   * with the given use, as after `reclaim`. Left out by who cannot move anything.
   */
  relocate?(frame: FrameIndex, use: number): boolean;
  /** What else keeps a frame from moving, for messages; '' when nothing is known. */
  obstacle?(frame: FrameIndex): string;
  /** Slots that keep a frame from moving, for messages. */
  holders?(frame: FrameIndex): SlotIndex[];
}

/** What goes for requests that are in progress: see making-room.ts. */
export interface EvacuationRoom {
  /** False when pages must not become fewer. */
  readonly mayShrink: boolean;
  /** Frees frames that what is in the way can move to, if there are none; true when it did. */
  evictSome(): boolean;
  /** Has as many pages leave as the policy lets go, at most so many; returns how many left. */
  evict(count: number): number;
  /** Writes back what keeps a frame from being given up; true when it may be now. */
  cleanFrame(frame: FrameIndex): boolean;
}

/** Frames taken in one critical section: each takes up to nine journal entries. */
const PIECE_FRAMES = 32;

/** Who is asked for frames, and how. */
export class Evacuation {
  readonly #core: FrameCore;
  readonly #counters: Float64Array;
  readonly #room: EvacuationRoom | null;
  #name: (frame: FrameIndex) => Readonly<Record<string, unknown>> = () => ({});
  /** Free frames that are left to others. */
  floor: () => number = () => 0;
  readonly #reclaimers: (FrameReclaimer | null)[] = new Array(USE_MASK + 1).fill(null);

  constructor(core: FrameCore, room: EvacuationRoom | null = null) {
    this.#room = room;
    const { counters } = core.thread.region.tables.pageListSlot;
    const first = core.thread.slot * counters.stride;
    this.#core = core;
    this.#counters = counters.view.subarray(first, first + counters.stride);
  }

  /** Sets who says in messages what a frame belongs to, as names and values. */
  setNamer(name: (frame: FrameIndex) => Readonly<Record<string, unknown>>): void {
    this.#name = name;
  }

  /** What a frame belongs to, for messages. */
  nameOf(frame: FrameIndex): Readonly<Record<string, unknown>> {
    return this.#name(frame);
  }

  /** Sets who is asked for frames of a use. */
  set(use: number, reclaimer: FrameReclaimer | null): void {
    this.#reclaimers[use] = reclaimer;
  }

  /** Who is asked for frames of a use, or null. */
  of(use: number): FrameReclaimer | null {
    return this.#reclaimers[use] ?? null;
  }

  /** True when somebody is there to be asked at all. */
  get any(): boolean {
    return this.#reclaimers.some((reclaimer) => reclaimer !== null);
  }

  /** True when a frame is free or its user can be asked for it. A look without the lock. */
  mayHave(frame: FrameIndex): boolean {
    return this.#core.source.has(frame) || this.of(this.#core.useOf(frame)) !== null;
  }

  /** Takes all frames of a window; the first that could not be had, or -1. What was taken stays taken. */
  takeAll(first: FrameIndex, count: number, use: number): FrameIndex {
    this.#tally(FRAME_COUNTER.windows, 1);
    // 1.
    this.takeFree(first, count, use);
    // 2.
    for (let frame = first; frame < first + count; frame++) {
      if (VERIFY && faultPoint(this.#core.thread, 'phys.run.partial')) return frame;
      if (!this.#isMine(frame, use) && !this.takeOne(frame, use, true, first, count)) return frame;
    }
    this.#tally(FRAME_COUNTER.assembled, 1);
    return -1;
  }

  /** Takes the free frames of a range, as many as the reserves of others allow. */
  takeFree(first: FrameIndex, count: number, use: number): void {
    const core = this.#core;
    const end = first + count;
    for (let at = first; at >= 0 && at < end; ) {
      core.mutex.enter();
      const most = core.free - this.floor();
      if (most <= 0) at = -1;
      for (let left = Math.min(PIECE_FRAMES, most); left > 0; left--) {
        at = core.source.nextFree(at, end);
        if (at < 0) break;
        core.take(at++, use);
      }
      core.mutex.exit();
    }
  }

  /** Has pages leave, at most so many, as their policy says: for who needs frames, whichever they are. Returns how many left. */
  evict(count: number): number {
    return this.#room?.evict(count) ?? 0;
  }

  /**
   * Takes one frame: a free one, or by moving what is in it, or by having it given up. `first` and `count` are the range that
   * is emptied, in whose free frames nothing should go.
   */
  takeOne(frame: FrameIndex, use: number, mayReclaim = true, first = frame, count = 1): boolean {
    const taken = this.#takeIfFree(frame, use);
    if (taken === true) return true;
    // Where the reserves keep a free frame from being taken, pages leave for it.
    if (taken === false) {
      return mayReclaim && this.#room?.evictSome() === true && this.#takeIfFree(frame, use) === true;
    }
    const reclaimer = this.of(this.#core.useOf(frame));
    if (reclaimer === null) return false;
    if (this.#move(reclaimer, frame, use)) return true;
    if (mayReclaim) {
      while (reclaimer.relocate !== undefined && this.#room?.evictSome() === true) {
        this.takeFree(first, count, use);
        if (this.#isMine(frame, use) || this.#move(reclaimer, frame, use)) return true;
      }
      if (this.#room?.mayShrink !== false && this.#giveUp(reclaimer, frame, use)) return true;
    }
    this.#tally(FRAME_COUNTER.pinned, 1);
    return false;
  }

  /** Counts something that this slot did. */
  count(counter: number, amount = 1): void {
    this.#tally(counter, amount);
  }

  /** True when the frame was free and is taken, false when it is free and left to others, null when it is not free. */
  #takeIfFree(frame: FrameIndex, use: number): boolean | null {
    const core = this.#core;
    core.mutex.enter();
    const free = core.source.has(frame);
    const taken = free && core.free > this.floor();
    if (taken) core.take(frame, use);
    core.mutex.exit();
    return free ? taken : null;
  }

  #isMine(frame: FrameIndex, use: number): boolean {
    return this.#core.useOf(frame) === use && this.#core.takerOf(frame) === this.#core.thread.slot;
  }

  /** Has what is in a frame moved to another one. */
  #move(reclaimer: FrameReclaimer, frame: FrameIndex, use: number): boolean {
    if (reclaimer.relocate === undefined) return false;
    const moved = reclaimer.relocate(frame, use);
    this.#tally(moved ? FRAME_COUNTER.moved : FRAME_COUNTER.moveFailed, 1);
    return moved;
  }

  /** Has what is in a frame given up, where that may be after it was written to where it belongs. */
  #giveUp(reclaimer: FrameReclaimer, frame: FrameIndex, use: number): boolean {
    const gone =
      reclaimer.reclaim(frame, use) || (this.#room?.cleanFrame(frame) === true && reclaimer.reclaim(frame, use));
    if (gone) this.#tally(FRAME_COUNTER.reclaimed, 1);
    return gone;
  }

  #tally(lane: number, amount: number): void {
    this.#counters[lane] = (this.#counters[lane] as number) + amount;
  }
}
