/** States of cookies and large pages, why a request failed, and what a cookie is to its holder. */

/** State of a cookie's row. */
export const COOKIE_STATE = {
  free: 0,
  /** Its frames are being gathered by one slot. */
  building: 1,
  live: 2,
  /** Its frames are being given back by one slot. */
  freeing: 3,
} as const;

/** State of a large page. */
export const LARGE_STATE = {
  /** Not taken by pmem. */
  none: 0,
  inUse: 1,
  /** On its way out of the seed's pool list. */
  leaving: 2,
} as const;

/** Why an allocation failed: the request, the tables, the locked limit, the reservation limit, or no frames. */
export type PmemFailure = 'args' | 'tables' | 'locked' | 'reservation' | 'frames';

/** Number of a cookie's row. */
export type CookieIndex = number & { readonly __unit?: 'cookie' };

/** Frames that belong together. A plain object: it may be sent to other threads. */
export interface Cookie {
  readonly cookie: CookieIndex;
  readonly generation: number;
  /** Frames in it. */
  readonly frames: number;
}
