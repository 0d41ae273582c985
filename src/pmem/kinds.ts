/** States of cookies and large pages, why a request failed, and what a cookie is to its holder. */

/** State of a cookie's row. */
export const COOKIE_STATE = {
  free: 0,
  /** Its frames are being gathered by one slot. */
  building: 1,
  live: 2,
  /** Its frames are being given back by one slot. */
  freeing: 3,
  /** One slot is about to free it: live again if somebody has pinned it, or if that slot dies. */
  closing: 4,
} as const;

/** State of a large page. */
export const LARGE_STATE = {
  /** Not taken by pmem. */
  none: 0,
  inUse: 1,
  /** On its way out of the seed's pool list. */
  leaving: 2,
} as const;

/** Why an allocation failed: the request, the tables, the locked limit, the owner's limit of frames, the reservation limit, or no frames. */
export type PmemFailure = 'args' | 'tables' | 'locked' | 'quota' | 'reservation' | 'frames';

/** Number of a cookie's row. */
export type CookieIndex = number & { readonly __unit?: 'cookie' };

/** Frames that belong together. A plain object: it may be sent to other threads. */
export interface Cookie {
  readonly cookie: CookieIndex;
  readonly generation: number;
  /** Frames in it. */
  readonly frames: number;
}

/** What a slot that moves a frame of a cookie has done. */
export const MOVE_STAGE = {
  none: 0,
  /** The cookie is claimed, its mover is asked, bytes are copied: a death leaves the frame in place. */
  claimed: 1,
  /** The cookie has the new frame; its mover is yet to be told. */
  moved: 2,
} as const;

/** One frame of a cookie that moves. */
export interface CookieMove {
  readonly cookie: Cookie;
  /** Which frame of the cookie, from 0. */
  readonly index: number;
  readonly from: number;
  readonly to: number;
  /** Frames from `from` on that move to those from `to` on: one, or all of a contiguous cookie. */
  readonly frames: number;
}

/**
 * Lets frames of movable cookies move. Found by every thread that may need frames, as a (module, export) pair or under a
 * registered name; runs with no lock held, in the thread that needs the frames. A `before` that throws has refused; what `after`
 * throws changes nothing about the move. Neither reaches who needed the frames: `pmem.moverFailure` has it. Neither may be
 * asynchronous: a promise is taken as if it had been thrown, and what it rejects with is lost.
 */
export interface CookieMover {
  /**
   * Stops all use of the frames that move, in every thread, until `after`; false: it cannot be moved now. Must not wait long. Who
   * has refused is not asked by the same thread for 2 ms, after more refusals in a row for up to 64 ms.
   */
  before(move: CookieMove): boolean;
  /** The bytes are at `to` now, or, when not `moved`, still at `from`. Also called for a thread that died in between. */
  after(move: CookieMove, moved: boolean): void;
}

/** What a mover threw, what is wrong with what it returned, or why none could be used: its module cannot be loaded or has no such export, or that has no functions. */
export interface MoverFailure {
  readonly move: CookieMove;
  readonly error: unknown;
  /** How often that has happened in this thread so far. */
  readonly times: number;
}
