/**
 * Making room at once: what a request does when what is in its way can neither be given up nor moved.
 *
 * PROBLEM     A modified page cannot be given up, and it can be moved only to a free frame. A request that may not wait would
 *             fail although most of memory holds pages that can be had again. And a request that takes whatever it can get
 *             would leave none for pages, so that every file in the program fails.
 * STRUCTURE   evictSome       what is in the way moves; where no frame is free for it, some clean pages leave first, those that
 *                             the replacement policy lets go, wherever they are
 *             within(action)  all free frames are in one place meanwhile, and pages may be written
 *             writing(take)   take; then again, with modified pages written back: some anywhere, so that they can leave, or the
 *                             one in a frame that is in the way (cleanFrame)
 *             sparing(action) the last pages stay; for requests that do not wait
 *
 *               pages |....................|#####|     what is on the left may leave, the last PAGES_KEPT_MAX stay
 * INVARIANTS  I1 nothing is made for what is asked for while room is made: no recursion.
 * LOCKING     None of its own; writes nothing for a thread that holds a lock, because stores of pages may need any.
 * COSTS       Evicting and writing back about as many pages as the request has frames; SPARE_FRAMES more may leave.
 * FAILURE     null or false when it does not help; pages that could not be written stay modified.
 * REJECTED    Writing all modified pages back: one request would pay for everybody's writes. Keeping the last pages from those
 *             who wait, or who take memory offline, too: they ask for just that memory, and nothing less will do.
 * REFERENCES  frames.ts and page-lists.ts, which ask; system/page-room.ts, which answers; Linux min_free_kbytes.
 */

import type { Thread } from '../sync/thread.ts';
import type { FrameIndex } from './banks.ts';
import type { EvacuationRoom } from './evacuation.ts';
import type { FrameCore } from './frame-core.ts';
import { FRAME_USE } from './frame-uses.ts';
import type { FrameRoom } from './pressure.ts';
import type { SlotCaches } from './slot-caches.ts';

/** Frames made free or clean beyond those that are missing. */
const SPARE_FRAMES = 16;

/** Pages that requests which do not wait leave in memory: as many as one fetch may hold, */
const PAGES_KEPT_MAX = 32;

/** but at most such a part of the memory. */
const PAGES_KEPT_PART = 16;

/** Those for whom room is made. */
export interface RoomUser {
  readonly core: FrameCore;
  readonly caches: SlotCaches;
  /** Free frames that are left to others. */
  readonly reserve: number;
}

/** Makes room for one thread. */
export class MakingRoom implements EvacuationRoom {
  readonly #thread: Thread;
  readonly #user: RoomUser;
  readonly #kept: number;
  #room: FrameRoom | null = null;
  #active = false;
  #spares = false;
  #writes = false;

  constructor(thread: Thread, user: RoomUser) {
    this.#thread = thread;
    this.#user = user;
    this.#kept = pagesKept(thread.region.geometry.frames);
  }

  /** Sets who frees frames and cleans pages. */
  set(room: FrameRoom): void {
    this.#room = room;
  }

  /** Runs something that moves pages out of the way, with all free frames in one place, and which may have pages written. */
  within<Value>(action: () => Value): Value {
    const before = this.#active;
    this.#active = this.#room !== null && this.#thread.heldCount === 0;
    try {
      return this.#user.caches.paused(action);
    } finally {
      this.#active = before;
    }
  }

  /** Runs something that leaves the last pages where they are. */
  sparing<Value>(action: () => Value): Value {
    const before = this.#spares;
    this.#spares = true;
    try {
      return action();
    } finally {
      this.#spares = before;
    }
  }

  /** Tries with no frame left in a slot's cache, then, with `mayWrite`, after modified ones are written back; null when it does not help. */
  attempt(take: () => FrameIndex | null, mayWrite: boolean): FrameIndex | null {
    if (this.#room === null || this.#active || this.#thread.heldCount > 0) return null;
    return this.within(() => (mayWrite ? this.writing(take) : take()));
  }

  /** Tries, and tries again with modified pages being written back where they are in the way. */
  writing<Found>(take: () => Found | null): Found | null {
    const found = take();
    if (found !== null) return found;
    const before = this.#writes;
    this.#writes = true;
    try {
      return take();
    } finally {
      this.#writes = before;
    }
  }

  /** Writes back what may be in the way of so many frames; true when some pages are clean now. */
  clean(count: number): boolean {
    if (this.#room === null || this.#thread.heldCount > 0) return false;
    return this.#room.clean(count + SPARE_FRAMES) > 0;
  }

  /** False when the pages that are there now are the last ones, and have to stay. A look without the lock. */
  get mayShrink(): boolean {
    return this.#spareable > 0;
  }

  /**
   * Evicts some pages if there is no frame above the reserve to move to; true when there is one now. In the second try of
   * `writing`, pages that were modified first are written back for that where clean ones are not enough.
   */
  evictSome(): boolean {
    const missing = this.#user.reserve + 1 - this.#user.core.free;
    const most = Math.min(missing + SPARE_FRAMES, this.#spareable);
    if (this.#room === null || missing <= 0 || most < missing) return false;
    const left = this.#room.evict(most);
    if (left >= missing) return true;
    if (!this.#active || !this.#writes || this.#room.clean(most) === 0) return false;
    return left + this.#room.evict(most - left) >= missing;
  }

  /** Has at most so many pages leave, but for the last ones; returns how many left. */
  evict(count: number): number {
    const most = Math.min(count, this.#spareable);
    return this.#room === null || most <= 0 ? 0 : this.#room.evict(most);
  }

  /** Inside `within` and the second try of `writing`: writes back what a frame holds; true when it may be given up now. */
  cleanFrame(frame: FrameIndex): boolean {
    return this.#active && this.#writes && this.#room?.cleanFrame(frame) === true;
  }

  /** Pages that may leave. */
  get #spareable(): number {
    if (!this.#spares) return Number.POSITIVE_INFINITY;
    return this.#user.core.countOf(FRAME_USE.page) - this.#kept;
  }
}

/** Pages that requests which do not wait leave in a memory of so many frames. */
export function pagesKept(frames: number): number {
  return Math.min(PAGES_KEPT_MAX, Math.floor(frames / PAGES_KEPT_PART));
}
