/**
 * Cookie moves: frames of movable cookies go to other frames when theirs are needed.
 *
 * PROBLEM     Locked frames make runs of other frames impossible. Most users of a cookie could do with other frames, if they
 *             were told in time: what the comment at the top of pmem.c calls the right solution.
 * STRUCTURE   1 find the cookie, claim it for this slot   2 take a frame   3 ask its mover: uses of the old frame stop
 *             4 copy   5 the chain has the new frame, the old one is the asking thread's   6 tell the mover, end the claim
 *
 *               slot's row   none -1-> claimed(cookie, index, from) -2-> to -5-> moved -6-> none
 *
 *             A contiguous cookie goes as a whole, to a run of free frames; 2 and 5 then take several commits:
 *
 *               from   |movable|movable|movable|     5 listGiving with the slot's mark, then free, but for the one asked for
 *               to     |free|free|free|              2 movable with the slot's mark
 *
 * INVARIANTS  I1 a cookie is claimed by one slot at most, whose row says so, and is not freed meanwhile.
 *             I2 at every commit exactly one frame stands in the cookie's chain at the index.
 *             I3 of the frames that a slot's row names, those at `to` with its mark are the cookie's or go back when it dies
 *                before 5, and those at `from` of use listGiving with its mark are the cookie's again before 5 and go back
 *                after it.
 * LOCKING     The pmem lock, and the frames' lock in it, in which all of a step is logged: both commit together. The mover is
 *             asked and told without locks.
 * COSTS       A walk over the runs of movable cookies, a copy of the frames, what the mover does.
 * FAILURE     False: no movable cookie has the frame, its mover refuses or has done so a moment ago (mover-rests.ts),
 *             throws, answers neither true nor false, is asynchronous, is not known in this thread or is none (`failure` has
 *             it), or no frame or row is left; of a contiguous cookie, no run. A death before 5 leaves the frame in place,
 *             later it has moved; either way the mover is told by whoever recovers, if it is known there.
 * REJECTED    A word for each frame that names its cookie: 4 bytes a frame for memory that may never see pmem.
 * REFERENCES  pmem.c, comment on the right solution; illumos page_relocate; Linux movable_operations.
 */

import { failMisuse, InvariantError } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import {
  type Banks,
  FRAME_USE,
  type FrameIndex,
  type FrameReclaimer,
  type PageLists,
  SLOT_SHIFT,
} from '../phys/index.ts';
import type { Callbacks } from '../sync/callbacks.ts';
import { faultPoint } from '../sync/fault.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import type { CookieWork } from './cookie-work.ts';
import {
  COOKIE_STATE,
  type CookieIndex,
  type CookieMove,
  type CookieMover,
  MOVE_STAGE,
  type MoverFailure,
} from './kinds.ts';
import { MoverRests } from './mover-rests.ts';
import { isMover } from './pmem-request.ts';

/** Where a frame stands. */
interface Standing {
  readonly cookie: CookieIndex;
  /** Row of its run. */
  readonly row: number;
  readonly index: number;
}

/** Moves frames of cookies, as one thread sees them. */
export class CookieMoves implements FrameReclaimer {
  readonly #thread: Thread;
  readonly #banks: Banks;
  readonly #lists: PageLists;
  readonly #work: CookieWork;
  readonly #callbacks: Callbacks;
  readonly #cookies: BoundTables['pmemCookie'];
  readonly #slot: BoundTables['pmemSlot'];
  readonly #fresh: BoundTables['pmemPool']['cookieFresh'];
  readonly #rests: MoverRests;
  #failure: MoverFailure | null = null;

  constructor(thread: Thread, banks: Banks, lists: PageLists, work: CookieWork, callbacks: Callbacks) {
    const { tables } = thread.region;
    this.#thread = thread;
    this.#banks = banks;
    this.#lists = lists;
    this.#work = work;
    this.#callbacks = callbacks;
    this.#rests = new MoverRests(thread);
    this.#cookies = tables.pmemCookie;
    this.#slot = tables.pmemSlot;
    this.#fresh = tables.pmemPool.cookieFresh;
    lists.frames.setReclaimer(this, FRAME_USE.movable);
  }

  /** Frames of a cookie that is being built may be asked for as soon as it is live. */
  offer(cookie: CookieIndex): void {
    for (const { first, count } of this.#work.chains.list(this.#work.chainOf(cookie))) {
      this.#lists.setMovable(count > 0 ? first : first + count + 1, Math.abs(count), true);
    }
  }

  /** A cookie's frames are not given up. */
  reclaim(): boolean {
    return false;
  }

  obstacle(frame: FrameIndex): string {
    const { move, error } = this.#failure ?? {};
    this.#work.mutex.enter();
    const cookie = this.#find(frame)?.cookie ?? -1;
    this.#work.mutex.exit();
    if (cookie < 0) return '';
    const { module, name } = this.#callbacks.describe(this.#cookies.mover.get(cookie) - 1);
    const mover = `cookie ${cookie} with the mover ${JSON.stringify(name)}${module === '' ? '' : ` of ${module}`}`;
    const failed = move?.cookie.cookie === cookie && move.cookie.generation === this.#cookies.generation.get(cookie);
    if (failed) return `${mover}: ${error instanceof Error ? error.message : String(error)}`;
    const rests = this.#rests.has(cookie, this.#cookies.generation.get(cookie));
    return rests ? `${mover}, which has refused` : mover;
  }

  /** What a mover threw last in this thread, or why one cannot be used, and in which move; null if none ever did. */
  get failure(): MoverFailure | null {
    return this.#failure;
  }

  relocate(frame: FrameIndex, use: number): boolean {
    // 1-2.
    const { slot } = this.#thread;
    if (this.#slot.moveStage.get(slot) !== MOVE_STAGE.none || !this.#claim(frame)) return false;
    if (VERIFY) faultPoint(this.#thread, 'pmem.move.claimed');
    const move = this.#moveOf(slot);
    const mover = this.#usableMover(move);
    let moved = false;
    let willing = false;
    try {
      // 3.
      willing = mover !== null && this.#guarded(move, 'before', () => mover.before(move));
      if (!willing) this.#rests.refused(move.cookie);
      if (willing) {
        // 4.
        for (let at = 0; at < move.frames; at++) this.#banks.copyFrame(move.from + at, move.to + at);
        if (VERIFY) faultPoint(this.#thread, 'pmem.move.copied');
        // 5.
        moved = move.frames === 1 ? this.#replace(move, use) : this.#replaceAll(move, frame, use);
      }
    } finally {
      if (!moved) this.#undo(slot);
      // A claim that has moved is left to `#end` whatever the mover does.
      if (willing) this.#guarded(move, 'after', () => mover?.after(move, moved));
    }
    if (VERIFY) faultPoint(this.#thread, 'pmem.move.done');
    // 6.
    if (moved) {
      this.#rests.moved(move.cookie);
      this.#end(slot);
    }
    return moved;
  }

  /** Ends what a dead slot was moving. */
  recover(dead: SlotIndex): void {
    const stage = this.#slot.moveStage.get(dead);
    if (stage === MOVE_STAGE.none) return;
    const move = this.#moveOf(dead);
    if (move.frames > 1) this.#recoverRun(move, stage, dead);
    if (stage === MOVE_STAGE.claimed) this.#undo(dead);
    this.#guarded(move, 'after', () => this.#moverOf(move.cookie.cookie).after(move, stage === MOVE_STAGE.moved));
    if (stage === MOVE_STAGE.moved) this.#end(dead);
  }

  /** What a mover says; false when it throws: a program's mistake must stop neither who needs the frame nor a recovery. */
  #guarded(move: CookieMove, asked: 'before' | 'after', ask: () => unknown): boolean {
    try {
      const answer = ask();
      const isPromise = leaveAlone(answer);
      if (isPromise) this.#failMover(move, asked, 'a mover must not be asynchronous, and this returned a promise');
      if (asked === 'before' && typeof answer !== 'boolean') {
        this.#failMover(move, asked, `before of a mover returns true or false, and this returned ${typeof answer}`);
      }
      return answer === true;
    } catch (error) {
      if (error instanceof InvariantError) throw error;
      return this.#noteFailure(move, error);
    }
  }

  #failMover({ cookie }: CookieMove, asked: 'before' | 'after', rule: string): never {
    const { module, name } = this.#callbacks.describe(this.#cookies.mover.get(cookie.cookie) - 1);
    return failMisuse('pmem.move', { module, export: name, function: asked }, rule);
  }

  #noteFailure(move: CookieMove, error: unknown): false {
    this.#failure = { move, error, times: (this.#failure?.times ?? 0) + 1 };
    return false;
  }

  #claim(frame: FrameIndex): boolean {
    const { frames } = this.#lists;
    const { core } = frames;
    this.#work.mutex.enter();
    const standing = this.#find(frame);
    let to = -1;
    if (standing !== null && !this.#rests.has(standing.cookie, this.#cookies.generation.get(standing.cookie))) {
      const together = this.#cookies.contiguous.get(standing.cookie) === 1;
      core.mutex.enter();
      if (together) {
        to = this.#claimRun(standing, frame);
      } else if (this.#work.chains.hasSpare(2)) {
        to = core.free > frames.reserve ? core.takeNext(FRAME_USE.movable) : -1;
        if (to >= 0) this.#note(standing.cookie, standing.index, frame, to, 1, frame);
      }
      core.mutex.exit();
    }
    this.#work.mutex.exit();
    return to >= 0;
  }

  /** Under both locks, with nothing logged: steps 1 and 2 for a whole run; its new first frame, or -1. */
  #claimRun({ cookie, row }: Standing, asked: FrameIndex): FrameIndex {
    const { frames } = this.#lists;
    const { core } = frames;
    const { first, count } = this.#work.chains.run(row);
    const to = core.free - count < frames.reserve ? -1 : this.#lists.findFree(count);
    // Whoever moves frames together has nothing from a run that goes up.
    if (to < 0 || (core.lowestFirst && to > first)) return -1;
    this.#note(cookie, 0, first, to, count, asked);
    this.#thread.commit();
    core.takeRun(to, count, FRAME_USE.movable);
    return to;
  }

  #note(cookie: CookieIndex, index: number, from: FrameIndex, to: FrameIndex, count: number, asked: FrameIndex): void {
    const { journal, slot } = this.#thread;
    journal.set(this.#cookies.moving, cookie, slot + 1);
    journal.set(this.#slot.moveCookie, slot, cookie);
    journal.set(this.#slot.moveIndex, slot, index);
    journal.set(this.#slot.moveFrom, slot, from);
    journal.set(this.#slot.moveTo, slot, to + 1);
    journal.set(this.#slot.moveCount, slot, count);
    journal.set(this.#slot.moveAsked, slot, asked);
    journal.set(this.#slot.moveStage, slot, MOVE_STAGE.claimed);
  }

  #replace({ cookie, from, to }: CookieMove, use: number): boolean {
    const { core } = this.#lists.frames;
    const { chains } = this.#work;
    this.#work.mutex.enter();
    const standing = this.#standingIn(cookie.cookie, from);
    const fits = standing !== null && chains.hasSpare(2);
    if (fits) {
      core.mutex.enter();
      chains.replace(this.#work.chainOf(cookie.cookie), standing.row, from, to);
      core.convert(from, use);
      this.#thread.journal.set(this.#slot.moveStage, this.#thread.slot, MOVE_STAGE.moved);
      core.mutex.exit();
    }
    this.#work.mutex.exit();
    return fits;
  }

  /** Step 5 for all frames of a cookie that lie side by side. */
  #replaceAll({ cookie, from, to, frames }: CookieMove, asked: FrameIndex, use: number): boolean {
    const { core } = this.#lists.frames;
    const { chains } = this.#work;
    this.#work.mutex.enter();
    core.mutex.enter();
    core.stamp(from, frames, FRAME_USE.listGiving);
    chains.shift(chains.headOf(this.#work.chainOf(cookie.cookie)), to);
    core.convert(asked, use);
    this.#thread.journal.set(this.#slot.moveStage, this.#thread.slot, MOVE_STAGE.moved);
    this.#thread.commit();
    if (VERIFY) faultPoint(this.#thread, 'pmem.move.giving');
    core.giveRun(from, asked - from, FRAME_USE.listGiving);
    core.giveRun(asked + 1, from + frames - asked - 1, FRAME_USE.listGiving);
    core.mutex.exit();
    this.#work.mutex.exit();
    return true;
  }

  /** I3, for a slot that died. What is left then is what `#undo` or `#end` expects. */
  #recoverRun({ from, to, frames }: CookieMove, stage: number, dead: SlotIndex): void {
    const { core } = this.#lists.frames;
    const mark = (dead + 1) << SLOT_SHIFT;
    const claimed = stage === MOVE_STAGE.claimed;
    core.mutex.enter();
    for (let at = 0; at < frames; at++) {
      const leaves = claimed ? to + at : from + at;
      if (core.wordOf(leaves) === (mark | (claimed ? FRAME_USE.movable : FRAME_USE.listGiving))) {
        if (core.source.has(leaves)) core.restamp(leaves, FRAME_USE.free);
        else core.give(leaves);
        this.#thread.commit();
      }
      if (claimed && core.wordOf(from + at) === (mark | FRAME_USE.listGiving)) {
        core.restamp(from + at, mark | FRAME_USE.movable);
      }
    }
    core.mutex.exit();
  }

  /** The frames that were taken go back, and the claim ends. */
  #undo(slot: SlotIndex): void {
    const { core } = this.#lists.frames;
    const { journal } = this.#thread;
    const to = this.#slot.moveTo.get(slot) - 1;
    const count = this.#slot.moveCount.get(slot);
    this.#work.mutex.enter();
    core.mutex.enter();
    // Those of a dead slot's run have gone back already.
    if (count === 1) core.give(to);
    else if (slot === this.#thread.slot) core.giveRun(to, count, FRAME_USE.movable);
    journal.set(this.#slot.moveTo, slot, 0);
    journal.set(this.#slot.moveStage, slot, MOVE_STAGE.none);
    journal.set(this.#cookies.moving, this.#slot.moveCookie.get(slot), 0);
    core.mutex.exit();
    this.#work.mutex.exit();
  }

  #end(slot: SlotIndex): void {
    const { journal } = this.#thread;
    this.#work.mutex.enter();
    journal.set(this.#slot.moveTo, slot, 0);
    journal.set(this.#slot.moveStage, slot, MOVE_STAGE.none);
    journal.set(this.#cookies.moving, this.#slot.moveCookie.get(slot), 0);
    this.#work.mutex.exit();
  }

  #moveOf(slot: SlotIndex): CookieMove {
    const { moveCookie, moveIndex, moveFrom, moveTo, moveCount } = this.#slot;
    const cookie = moveCookie.get(slot);
    const { generation, frames } = this.#cookies;
    return {
      cookie: { cookie, generation: generation.get(cookie), frames: frames.get(cookie) },
      index: moveIndex.get(slot),
      from: moveFrom.get(slot),
      to: moveTo.get(slot) - 1,
      frames: moveCount.get(slot),
    };
  }

  /** The mover of a cookie. Throws when this thread does not know it, or when it is none. */
  #moverOf(cookie: CookieIndex): CookieMover {
    const index = this.#cookies.mover.get(cookie) - 1;
    const mover = this.#callbacks.resolve(index);
    if (isMover(mover)) return mover;
    const { module, name } = this.#callbacks.describe(index);
    return failMisuse('pmem.move', { module, export: name }, 'a mover has functions before and after');
  }

  /** The mover of a cookie, or null, which is noted. */
  #usableMover(move: CookieMove): CookieMover | null {
    try {
      return this.#moverOf(move.cookie.cookie);
    } catch (error) {
      this.#noteFailure(move, error);
      return null;
    }
  }

  #find(frame: FrameIndex): Standing | null {
    for (let cookie = 0; cookie < this.#fresh.get(0); cookie++) {
      if (this.#cookies.mover.get(cookie) === 0 || this.#cookies.state.get(cookie) !== COOKIE_STATE.live) continue;
      if (this.#cookies.moving.get(cookie) !== 0) continue;
      const standing = this.#standingIn(cookie, frame);
      if (standing !== null) return standing;
    }
    return null;
  }

  #standingIn(cookie: CookieIndex, frame: FrameIndex): Standing | null {
    const { chains } = this.#work;
    let index = 0;
    for (let row = chains.headOf(this.#work.chainOf(cookie)); row >= 0; row = chains.after(row)) {
      const { first, count } = chains.run(row);
      const position = Math.sign(count) * (frame - first);
      if (position >= 0 && position < Math.abs(count)) return { cookie, row, index: index + position };
      index += Math.abs(count);
    }
    return null;
  }
}

/** True for a promise. What it rejects with, if it does, is not left to whoever runs in this thread. */
function leaveAlone(answer: unknown): boolean {
  if (typeof answer !== 'object' || answer === null || !('then' in answer)) return false;
  if (typeof answer.then !== 'function') return false;
  answer.then(undefined, () => {});
  return true;
}
