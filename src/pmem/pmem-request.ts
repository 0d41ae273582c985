/** What cookies are asked for with, and what is said when it does not work. */

import { fail, failMisuse, rejectUnknownOptions, requireInteger } from '../base/errors.ts';
import { type FrameWaitOptions, type PageList, type PageListRequest, requireWaitOptions } from '../phys/index.ts';
import type { CallbackReference, Callbacks } from '../sync/callbacks.ts';
import { chargeOf, limitOf, OWNER_RESOURCE, ownerNameOf, ownerOf } from '../sync/owners.ts';
import type { Thread } from '../sync/thread.ts';
import type { Cookie, CookieMover, PmemFailure } from './kinds.ts';

/** What a cookie must be. */
export interface PmemRequest {
  /** Bytes; rounded up to whole frames. */
  readonly size: number;
  /** May wait for single frames, never for large pages, and for the owner's limit of frames. Default: no. */
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

/** Throws `EINVAL` for a request that is none, `ENOENT` for a mover by a name that this thread has not registered. */
export function checkPmemRequest(request: PmemRequest, call: string, callbacks: Callbacks): void {
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
  if (movable !== undefined) requireMover(movable, call, callbacks);
}

/** A registered mover is looked at here; a module is loaded when frames are to move, and found unusable then: see cookie-moves.ts. */
function requireMover(movable: CallbackReference, call: string, callbacks: Callbacks): void {
  if (typeof movable !== 'object' || movable === null || typeof movable.export !== 'string' || movable.export === '') {
    failMisuse(call, { movable }, 'movable is { module, export }, or { export } with a registered name');
  }
  rejectUnknownOptions(call, movable, ['module', 'export']);
  const { module, export: name } = movable;
  if (module !== undefined && (typeof module !== 'string' || module === '') && !(module instanceof URL)) {
    failMisuse(call, { module }, 'module is a URL');
  }
  if (module !== undefined) return;
  const mover = callbacks.registered(name);
  const rule =
    'no mover of this name is registered in this thread, and every thread that may need frames has to know it';
  if (mover === undefined) fail('ENOENT', call, { export: name }, rule);
  if (!isMover(mover)) failMisuse(call, { export: name }, 'a mover has functions before and after');
}

/** True for what can move cookies. */
export function isMover(value: unknown): value is CookieMover {
  const { before, after } = Object(value) as Partial<CookieMover>;
  return typeof before === 'function' && typeof after === 'function';
}

/** Throws `EINVAL` for what cannot be a cookie. */
export function requireCookie(cookie: Cookie, call: string): void {
  const { cookie: row, generation, frames }: Partial<Cookie> = cookie ?? {};
  if (!Number.isInteger(row) || !Number.isInteger(generation) || !Number.isInteger(frames)) {
    failMisuse(call, { cookie }, 'pass what alloc returned');
  }
}

/** Why a cookie could not be had. */
const FAILURE_REASON: Readonly<Record<PmemFailure, string>> = {
  args: 'a cookie has at least one frame, and less than half of memory',
  tables: 'no rows are left for cookies or runs; boot with more',
  locked: "the owner's limit of locked frames",
  quota: "the owner's limit of frames",
  reservation: 'the reservation limit is reached',
  frames: 'too few frames are free',
};

/** Throws for a request that could not be served: `EDQUOT` at a limit of this thread's owner, else `ENOMEM`. */
export function failPmemRequest(thread: Thread, call: string, request: object, failure: PmemFailure | null): never {
  if (failure !== 'locked' && failure !== 'quota') {
    return fail('ENOMEM', call, { ...request }, FAILURE_REASON[failure ?? 'frames']);
  }
  const { region } = thread;
  const owner = ownerOf(thread);
  const resource = failure === 'locked' ? OWNER_RESOURCE.lockedFrames : OWNER_RESOURCE.frames;
  const values = { ...request, owner: ownerNameOf(region, owner), used: chargeOf(region, owner, resource) };
  return fail('EDQUOT', call, values, `${FAILURE_REASON[failure]} is ${limitOf(region, owner, resource)}`);
}
