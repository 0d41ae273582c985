/**
 * Slot caches: a few free frames for each slot, taken and given back without the frames' lock.
 *
 * PROBLEM     Threads that take and give single frames meet at one lock, for work of a few nanoseconds.
 * STRUCTURE   A stack per slot under a lock of its own, which nobody else wants but for emptying it:
 *
 *               slot 3   count 5   |90|41|40|12|11|     take: 11    give: on top
 *               empty    half of it is taken from the source, in one section, lowest frame on top
 *               full     half of it goes back
 *
 *               paused   a bit per slot that wants all free frames to be in the source: set, then every stack is emptied
 *                        under its lock; whoever enters later finds the bit and leaves the stack alone
 *
 * INVARIANTS  I1 a frame of use spare is on one stack, and frames on stacks are of use spare.
 *             I2 while a bit is set and its setter has emptied the stacks, they stay empty.
 *             Frames on stacks are counted as pages by the lanes of the frames' lock, and as free by `counts`.
 * LOCKING     The stack's lock (RANK.frameCache), in it the frames' lock: everything is logged in the inner one, or in the
 *             outer one alone. The use of a frame on a stack changes under the stack's lock.
 * COSTS       A lock pair that nobody contends, two or three logged words.
 * FAILURE     -1 and false: the caller goes to the source. A dead slot's stack and bit are emptied by its recovery; anybody
 *             may empty a stack before.
 *             Off unless `slotFrames` is set: a thread by itself gains nothing (150 ns for a pair with and without, 173
 *             against 144 ns in bursts of 64), and the page cache takes frames by the batch.
 * REJECTED    Stacks without a lock: a constrained search would have to ask each thread to empty its own, and wait for it.
 * REFERENCES  uvm_pgflcache.c; Bonwick and Adams 2001, magazines.
 */

import { VERIFY } from '../base/verify.ts';
import type { Int32Column } from '../layout/column.ts';
import type { BoundTables } from '../layout/region.ts';
import { and, load, or } from '../sync/atomics.ts';
import { faultPoint } from '../sync/fault.ts';
import { mutexEnter, mutexExit } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import type { FrameIndex } from './banks.ts';
import type { Evacuation } from './evacuation.ts';
import type { FrameCore } from './frame-core.ts';
import { FRAME_COUNTER } from './frame-counters.ts';
import { FRAME_USE } from './frame-uses.ts';
import type { Watermarks } from './watermarks.ts';

/** The caches as one thread sees them. */
export class SlotCaches {
  /** Frames that a stack has room for; 0: there are none. */
  readonly room: number;
  readonly #thread: Thread;
  readonly #core: FrameCore;
  readonly #watermarks: Watermarks;
  readonly #evacuation: Evacuation;
  readonly #stack: BoundTables['frameCache'];
  readonly #pausedBy: BoundTables['frameCachePause']['slots'];
  readonly #lanes: number;
  #pauses = 0;

  constructor(core: FrameCore, watermarks: Watermarks, evacuation: Evacuation) {
    const { region } = core.thread;
    this.#thread = core.thread;
    this.#core = core;
    this.#watermarks = watermarks;
    this.#evacuation = evacuation;
    this.#stack = region.tables.frameCache;
    this.#pausedBy = region.tables.frameCachePause.slots;
    this.#lanes = region.geometry.slotLanes;
    this.room = region.geometry.frameCacheFrames;
  }

  /** Frames on all stacks: a look without locks. */
  get frames(): number {
    let sum = 0;
    if (this.room > 0) for (let slot = 0; slot < this.#stack.rowCount; slot++) sum += this.#stack.count.get(slot);
    return sum;
  }

  /** Takes a frame for use page from this slot's stack, which is filled when it is empty; -1 when that cannot be. */
  take(): FrameIndex {
    if (this.room === 0) return -1;
    const { journal, slot } = this.#thread;
    const { count } = this.#stack;
    // It would not be filled.
    if (count.get(slot) === 0 && this.#watermarks.isScarce) return -1;
    let frame = -1;
    this.#enter(slot);
    if (!this.#paused && (count.get(slot) > 0 || this.#fill())) {
      const top = count.get(slot) - 1;
      frame = this.#stack.frames.at(slot, top);
      journal.set(count, slot, top);
      this.#core.convertSpare(frame, FRAME_USE.page);
      this.#evacuation.count(FRAME_COUNTER.cacheTakes);
      if (VERIFY) faultPoint(this.#thread, 'phys.cache.taken');
    }
    this.#exit(slot);
    return frame;
  }

  /** Puts a frame of use page on this slot's stack; false when it must go to the source. `note` as with `frames.give`. */
  put(frame: FrameIndex, note: Int32Column | undefined, value: number): boolean {
    if (this.room === 0 || this.#watermarks.isScarce || this.#core.queue.count !== 0) return false;
    const { journal, slot } = this.#thread;
    const { count } = this.#stack;
    this.#enter(slot);
    const put = !this.#paused;
    if (put) {
      if (count.get(slot) === this.room) this.#giveBack(slot, this.room >>> 1);
      const top = count.get(slot);
      if (note !== undefined) journal.set(note, frame, value);
      this.#core.convertSpare(frame, FRAME_USE.spare);
      journal.setAt(this.#stack.frames, slot, top, frame);
      journal.set(count, slot, top + 1);
      if (VERIFY) faultPoint(this.#thread, 'phys.cache.put');
    }
    this.#exit(slot);
    return put;
  }

  /** Empties all stacks. True when that freed frames. */
  drain(): boolean {
    let drained = 0;
    if (this.room === 0) return false;
    for (let slot = 0; slot < this.#stack.rowCount; slot++) drained += this.drainOne(slot);
    return drained > 0;
  }

  /** Empties one stack; returns its frames. */
  drainOne(slot: SlotIndex): number {
    // The look is certain enough but for a pause, which must meet whoever is in a section.
    if (this.room === 0 || (this.#pauses === 0 && this.#stack.count.get(slot) === 0)) return 0;
    this.#enter(slot);
    const frames = this.#stack.count.get(slot);
    if (frames > 0) {
      this.#giveBack(slot, 0);
      this.#evacuation.count(FRAME_COUNTER.cacheDrains);
    }
    this.#exit(slot);
    return frames;
  }

  /** Runs something for which all free frames are in the source, and stay there. */
  paused<Value>(action: () => Value): Value {
    if (this.room === 0) return action();
    const { words, bitLane, bit } = this.#thread;
    const address = this.#pausedBy.address(0, bitLane);
    if (this.#pauses++ === 0) or(words, address, bit);
    try {
      this.drain();
      return action();
    } finally {
      if (--this.#pauses === 0) and(words, address, ~bit);
    }
  }

  /** Ends the pause of a dead slot and empties its stack. */
  recover(dead: SlotIndex): void {
    if (this.room === 0) return;
    and(this.#thread.words, this.#pausedBy.address(0, dead >>> 5), ~(1 << (dead & 31)));
    this.drainOne(dead);
  }

  /** Broken invariants, for `check()`. */
  problems(): string[] {
    const found: string[] = [];
    const seen = new Set<FrameIndex>();
    if (this.room === 0) return found;
    for (let slot = 0; slot < this.#stack.rowCount; slot++) {
      for (let at = 0; at < this.#stack.count.get(slot); at++) {
        const frame = this.#stack.frames.at(slot, at);
        if (seen.has(frame) || this.#core.useOf(frame) !== FRAME_USE.spare) {
          found.push(`phys/slot-caches I1: frame ${frame} on the stack of slot ${slot}`);
        }
        seen.add(frame);
      }
    }
    for (let frame = 0; frame < this.#thread.region.geometry.frames; frame++) {
      if (this.#core.useOf(frame) === FRAME_USE.spare && !seen.has(frame)) {
        found.push(`phys/slot-caches I1: frame ${frame} is on no stack`);
      }
    }
    return found;
  }

  get #paused(): boolean {
    const { words } = this.#thread;
    for (let lane = 0; lane < this.#lanes; lane++) {
      if (load(words, this.#pausedBy.address(0, lane)) !== 0) return true;
    }
    return false;
  }

  /** Under the stack's lock, with nothing logged: fills half of the empty stack, while frames are plenty. */
  #fill(): boolean {
    const core = this.#core;
    const { journal, slot } = this.#thread;
    const wanted = Math.max(1, this.room >>> 1);
    core.mutex.enter();
    const { desiredFree } = this.#watermarks.read();
    const reserves = this.#watermarks.pagedaemonReserve + this.#watermarks.kernelReserve + core.reservations.others();
    const fills = core.queue.count === 0 && core.free - wanted >= Math.max(desiredFree, reserves);
    if (fills) {
      for (let at = wanted - 1; at >= 0; at--) {
        journal.setAt(this.#stack.frames, slot, at, core.takeNext(FRAME_USE.spare));
      }
      journal.set(this.#stack.count, slot, wanted);
      this.#evacuation.count(FRAME_COUNTER.cacheFills);
    }
    core.mutex.exit();
    if (VERIFY && fills) faultPoint(this.#thread, 'phys.cache.filled');
    return fills;
  }

  /** Under the stack's lock, with nothing logged: all but `kept` frames go back. */
  #giveBack(slot: SlotIndex, kept: number): void {
    const core = this.#core;
    const { count, frames } = this.#stack;
    core.mutex.enter();
    for (let at = count.get(slot) - 1; at >= kept; at--) core.give(frames.at(slot, at));
    this.#thread.journal.set(count, slot, kept);
    core.mutex.exit();
    if (VERIFY) faultPoint(this.#thread, 'phys.cache.returned');
  }

  #enter(slot: SlotIndex): void {
    mutexEnter(this.#thread, this.#stack.lock.address(slot), RANK.frameCache);
  }

  #exit(slot: SlotIndex): void {
    mutexExit(this.#thread, this.#stack.lock.address(slot));
  }
}
