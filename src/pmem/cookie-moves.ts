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
 * INVARIANTS  I1 a cookie is claimed by one slot at most, whose row says so, and is not freed meanwhile.
 *             I2 at every commit exactly one frame stands in the cookie's chain at the index.
 * LOCKING     The pmem lock, and the frames' lock in it, in which all of a step is logged: both commit together. The mover is
 *             asked and told without locks.
 * COSTS       A walk over the runs of movable cookies, a copy of the frame, what the mover does.
 * FAILURE     False: no movable cookie has the frame, its mover refuses or is not known in this thread, or no frame or row is
 *             left. A death before 5 leaves the frame in place, later it has moved; either way the mover is told by whoever
 *             recovers, if it is known there.
 * REJECTED    Contiguous cookies that move: all of their frames would have to move at once. A word for each frame that names
 *             its cookie: 4 bytes a frame for memory that may never see pmem.
 * REFERENCES  pmem.c, comment on the right solution; illumos page_relocate; Linux movable_operations.
 */

import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import { type Banks, FRAME_USE, type FrameIndex, type FrameReclaimer, type PageLists } from '../phys/index.ts';
import type { Callbacks } from '../sync/callbacks.ts';
import { faultPoint } from '../sync/fault.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import type { CookieWork } from './cookie-work.ts';
import { COOKIE_STATE, type CookieIndex, type CookieMove, type CookieMover, MOVE_STAGE } from './kinds.ts';

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

  constructor(thread: Thread, banks: Banks, lists: PageLists, work: CookieWork, callbacks: Callbacks) {
    const { tables } = thread.region;
    this.#thread = thread;
    this.#banks = banks;
    this.#lists = lists;
    this.#work = work;
    this.#callbacks = callbacks;
    this.#cookies = tables.pmemCookie;
    this.#slot = tables.pmemSlot;
    this.#fresh = tables.pmemPool.cookieFresh;
    lists.frames.setReclaimer(this, FRAME_USE.movable);
  }

  /** Frames of a live cookie may be asked for from now on. */
  offer(cookie: CookieIndex): void {
    for (const { first, count } of this.#work.chains.list(this.#work.chainOf(cookie))) {
      this.#lists.setMovable(count > 0 ? first : first + count + 1, Math.abs(count), true);
    }
  }

  /** A cookie's frames are not given up. */
  reclaim(): boolean {
    return false;
  }

  relocate(frame: FrameIndex, use: number): boolean {
    // 1-2.
    const { slot } = this.#thread;
    if (this.#slot.moveStage.get(slot) !== MOVE_STAGE.none || !this.#claim(frame)) return false;
    if (VERIFY) faultPoint(this.#thread, 'pmem.move.claimed');
    const move = this.#moveOf(slot);
    const mover = this.#moverOf(move.cookie.cookie);
    let moved = false;
    // 3.
    const willing = mover?.before(move) ?? false;
    try {
      if (willing) {
        // 4.
        this.#banks.copyFrame(frame, move.to);
        if (VERIFY) faultPoint(this.#thread, 'pmem.move.copied');
        // 5.
        moved = this.#replace(move, use);
      }
    } finally {
      if (!moved) this.#undo(slot);
      if (willing) mover?.after(move, moved);
    }
    if (VERIFY) faultPoint(this.#thread, 'pmem.move.done');
    // 6.
    if (moved) this.#end(slot);
    return moved;
  }

  /** Ends what a dead slot was moving. */
  recover(dead: SlotIndex): void {
    const stage = this.#slot.moveStage.get(dead);
    if (stage === MOVE_STAGE.none) return;
    const move = this.#moveOf(dead);
    const mover = this.#moverOf(move.cookie.cookie);
    if (stage === MOVE_STAGE.claimed) this.#undo(dead);
    try {
      mover?.after(move, stage === MOVE_STAGE.moved);
    } catch {
      // A program's mistake must not stop the recovery.
    }
    if (stage === MOVE_STAGE.moved) this.#end(dead);
  }

  #claim(frame: FrameIndex): boolean {
    const { core, reserve } = this.#lists.frames;
    const { journal, slot } = this.#thread;
    this.#work.mutex.enter();
    const standing = this.#find(frame);
    let to = -1;
    if (standing !== null && this.#work.chains.hasSpare(2)) {
      core.mutex.enter();
      to = core.free > reserve ? core.takeNext(FRAME_USE.movable) : -1;
      if (to >= 0) {
        journal.set(this.#cookies.moving, standing.cookie, slot + 1);
        journal.set(this.#slot.moveCookie, slot, standing.cookie);
        journal.set(this.#slot.moveIndex, slot, standing.index);
        journal.set(this.#slot.moveFrom, slot, frame);
        journal.set(this.#slot.moveTo, slot, to + 1);
        journal.set(this.#slot.moveStage, slot, MOVE_STAGE.claimed);
      }
      core.mutex.exit();
    }
    this.#work.mutex.exit();
    return to >= 0;
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

  /** The frame that was taken goes back, and the claim ends. */
  #undo(slot: SlotIndex): void {
    const { core } = this.#lists.frames;
    const { journal } = this.#thread;
    this.#work.mutex.enter();
    core.mutex.enter();
    core.give(this.#slot.moveTo.get(slot) - 1);
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
    const { moveCookie, moveIndex, moveFrom, moveTo } = this.#slot;
    const cookie = moveCookie.get(slot);
    const { generation, frames } = this.#cookies;
    return {
      cookie: { cookie, generation: generation.get(cookie), frames: frames.get(cookie) },
      index: moveIndex.get(slot),
      from: moveFrom.get(slot),
      to: moveTo.get(slot) - 1,
    };
  }

  /** The mover of a cookie, or null when this thread does not know it. */
  #moverOf(cookie: CookieIndex): CookieMover | null {
    try {
      return this.#callbacks.resolve<CookieMover>(this.#cookies.mover.get(cookie) - 1);
    } catch {
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
