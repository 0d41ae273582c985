/** What cookies are asked for with, and what is said when it does not work. */

import { failMisuse, rejectUnknownOptions, requireInteger } from '../base/errors.ts';
import { type FrameWaitOptions, type PageList, type PageListRequest, requireWaitOptions } from '../phys/index.ts';
import type { CallbackReference } from '../sync/callbacks.ts';
import type { Cookie, PmemFailure } from './kinds.ts';

/** What a cookie must be. */
export interface PmemRequest {
  /** Bytes; rounded up to whole frames. */
  readonly size: number;
  /** May wait for single frames, never for large pages. Default: no. */
  readonly wait?: boolean | FrameWaitOptions;
  /** One run of adjacent frames, which `view` then shows. Default: no. */
  readonly contiguous?: boolean;
  /**
   * Lets its frames move when they are in somebody's way, instead of locking them: see `CookieMover`. They are not charged
   * as locked, and come from no large page. A contiguous cookie moves as a whole. Default: they stay where they are.
   */
  readonly movable?: CallbackReference;
}

/** Takes small pages from the page lists, as `tryTakeHeld` does; null when there are not enough. */
export type TakeSmall = (request: PageListRequest) => PageList | null;

/** Throws `EINVAL` for a request that is none. */
export function checkPmemRequest(request: PmemRequest): void {
  const call = 'pmem.alloc';
  if (typeof request !== 'object' || request === null) failMisuse(call, { request }, 'a request is an object');
  rejectUnknownOptions(call, request, ['size', 'wait', 'contiguous', 'movable']);
  const { size, wait, contiguous, movable } = request;
  requireInteger(call, 'size', size, 0, Number.MAX_SAFE_INTEGER);
  if (contiguous !== undefined && typeof contiguous !== 'boolean') {
    failMisuse(call, { contiguous }, 'contiguous is true or false');
  }
  if (wait !== undefined && typeof wait !== 'boolean') {
    if (typeof wait !== 'object' || wait === null) failMisuse(call, { wait }, 'wait is true, false, or how long');
    requireWaitOptions(call, wait);
  }
  if (movable !== undefined) requireMover(movable);
}

/** A mover that no thread has registered yet is fine: it is looked for when frames are to move. */
function requireMover(movable: CallbackReference): void {
  if (typeof movable !== 'object' || movable === null || typeof movable.export !== 'string' || movable.export === '') {
    failMisuse('pmem.alloc', { movable }, 'movable is { module, export }, or { export } with a registered name');
  }
  const { module } = movable;
  if (module !== undefined && typeof module !== 'string' && !(module instanceof URL)) {
    failMisuse('pmem.alloc', { module }, 'module is a URL');
  }
}

/** Throws `EINVAL` for what cannot be a cookie. */
export function requireCookie(cookie: Cookie, call: string): void {
  const { cookie: row, generation, frames }: Partial<Cookie> = cookie ?? {};
  if (!Number.isInteger(row) || !Number.isInteger(generation) || !Number.isInteger(frames)) {
    failMisuse(call, { cookie }, 'pass what alloc returned');
  }
}

/** Why a cookie could not be had. */
export const FAILURE_REASON: Readonly<Record<PmemFailure, string>> = {
  args: 'a cookie has at least one frame, and less than half of memory',
  tables: 'no rows are left for cookies or runs; boot with more',
  locked: "the owner's limit of locked frames",
  quota: "the owner's limit of frames",
  reservation: 'the reservation limit is reached',
  frames: 'too few frames are free',
};
