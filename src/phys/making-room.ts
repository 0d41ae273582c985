/**
 * Making room at once: what a request does when what is in its way can neither be given up nor moved.
 *
 * PROBLEM     A modified page cannot be given up, and it can be moved only to a free frame. A request that may not wait would
 *             fail although most of memory holds pages that can be had again.
 * STRUCTURE   within(action): moves that find no frame free evict some clean pages first (evictSome)
 *             attempt(): take -> write back (clean) -> take, at most CLEANINGS_MAX times
 * INVARIANTS  I1 nothing is made for what is asked for while room is made: no recursion.
 * LOCKING     None of its own; does nothing for a thread that holds a lock, because stores of pages may need any.
 * COSTS       Evicting and writing back about as many pages as the request has frames, and SPARE_FRAMES.
 * FAILURE     null or false when it does not help; pages that could not be written stay modified.
 * REJECTED    Writing all modified pages back: one request would pay for everybody's writes.
 * REFERENCES  frames.ts and page-lists.ts, which ask; system/page-room.ts, which answers.
 */

import type { Thread } from '../sync/thread.ts';
import type { FrameIndex } from './banks.ts';
import type { FrameCore } from './frame-core.ts';
import type { FrameRoom } from './pressure.ts';
import type { SlotCaches } from './slot-caches.ts';

/** Frames made free or clean beyond those that are missing. */
const SPARE_FRAMES = 16;

/** Times that modified pages are written back for one request. */
const CLEANINGS_MAX = 3;

/** Makes room for one thread. */
export class MakingRoom {
  readonly #thread: Thread;
  readonly #core: FrameCore;
  readonly #caches: SlotCaches;
  #room: FrameRoom | null = null;
  #active = false;

  constructor(core: FrameCore, caches: SlotCaches) {
    this.#thread = core.thread;
    this.#core = core;
    this.#caches = caches;
  }

  /** Sets who frees frames and cleans pages. */
  set(room: FrameRoom): void {
    this.#room = room;
  }

  /** Runs something that moves pages out of the way: where no frame is free for them, clean pages leave meanwhile. */
  within<Value>(action: () => Value): Value {
    const before = this.#active;
    this.#active = this.#room !== null && this.#thread.heldCount === 0;
    try {
      return this.#caches.paused(action);
    } finally {
      this.#active = before;
    }
  }

  /** Tries with clean pages leaving, then, with `mayWrite`, after modified ones are written back; null when it does not help. */
  attempt(count: number, take: () => FrameIndex | null, mayWrite: boolean): FrameIndex | null {
    if (this.#room === null || this.#active || this.#thread.heldCount > 0) return null;
    return this.within(() => {
      let first = take();
      for (let tries = CLEANINGS_MAX; first === null && mayWrite && tries > 0; tries--) {
        if (!this.clean(count)) break;
        first = take();
      }
      return first;
    });
  }

  /** Writes back what may be in the way of so many frames; true when some pages are clean now. */
  clean(count: number): boolean {
    if (this.#room === null || this.#thread.heldCount > 0) return false;
    return this.#room.clean(count + SPARE_FRAMES) > 0;
  }

  /** Inside `within`: evicts some pages if there is no frame above the reserve to move to; true when there is one now. */
  evictSome(reserve: number): boolean {
    const missing = reserve + 1 - this.#core.free;
    if (!this.#active || this.#room === null || missing <= 0) return false;
    return this.#room.evict(missing + SPARE_FRAMES) >= missing;
  }
}
