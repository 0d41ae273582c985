/**
 * Allocations that wait: blocking this thread, or its event loop only.
 *
 * STRUCTURE   1 try   2 ask those who listen for pressure, trim what imports from this arena, try again   3 join the queue
 *             4 try, then sleep until told; until it worked, the time is up, or the wait is cancelled
 *             What a try takes and gives back on its way tells others, and may tell the request itself, or one that does the same
 *             in turn. So who was told before it slept sleeps a little all the same, longer each time: those who come for what was
 *             kept for them get their turn, and no event loop is held up.
 * LOCKING     None is held while listeners run or while sleeping; see space-queue.ts.
 * FAILURE     `ETIMEDOUT`, `ECANCELED`, `ENOMEM` when the queue is full, `ESTALE` when the arena is destroyed meanwhile. With
 *             `compat: 'seed'` a constrained request does not wait: `ENOMEM`.
 */

import { fail, failMisuse } from '../base/index.ts';
import { VERIFY } from '../base/verify.ts';
import { ALL_WAITERS, FOREVER, load, notify } from '../sync/atomics.ts';
import { CancelToken } from '../sync/cancel.ts';
import { watchToken } from '../sync/cancel-async.ts';
import { faultPoint } from '../sync/fault.ts';
import { type AsyncWaitOptions, openAsyncWait, sleepAsync, throwIfAborted } from '../sync/mutex-async.ts';
import { chargingTo, ownerStay } from '../sync/owners.ts';
import { deadlineOf, remainingMs, requireTimeout, sleepOn } from '../sync/sleep.ts';
import type { ArenaCore } from './arena-core.ts';
import { isHeld } from './exhausted.ts';
import type { ConstraintOptions } from './fit.ts';
import { COUNT_WAITS, FLAG_COMPAT_SEED } from './kinds.ts';
import {
  isFirstOfItsKind,
  joinQueue,
  leaveQueue,
  markWaiting,
  NO_WAITER,
  noteUnheld,
  WAITER_STATE,
  type WaiterIndex,
  type WaitingRequest,
} from './space-queue.ts';

/** Longest sleep before a waiter tries by itself: memory may come back where no arena sees it. */
const LOOK_MS = 250;

/** Longest sleep of a request that is told again and again before it sleeps. */
const RESTLESS_MS = 8;

/** Milliseconds that a request sleeps which was told before it slept so many times in a row. */
function restlessMs(rounds: number): number {
  return Math.min(RESTLESS_MS, 2 ** (rounds - 2));
}

/** How long a blocking allocation may wait, and under which constraints. */
export interface AllocWaitOptions extends ConstraintOptions {
  /** Milliseconds, 0 or more; without it there is no limit. */
  readonly timeoutMs?: number;
  /** Ends the wait with `ECANCELED`, from any thread. */
  readonly cancel?: CancelToken;
}

/** How long an asynchronous allocation may wait, and under which constraints. */
export interface AllocAsyncOptions extends ConstraintOptions, AsyncWaitOptions {
  /** Ends the wait with `ECANCELED`, from any thread. */
  readonly cancel?: CancelToken;
}

/** What a waiting request asks of its arena. */
export interface SpaceRequest extends WaitingRequest {
  readonly call: string;
  readonly core: ArenaCore;
  /** One try; `row` is the one in the queue, if it is in the queue. -1 when there is nothing that it may have. */
  attempt(row: WaiterIndex): number;
  /** Asks for space: listeners, trimming. */
  press(): void;
  /** Asks for an import that somebody makes later; `here`: this thread may be the one. */
  seek(here: boolean): void;
  /** Imports that failed so far. */
  failures(): number;
  /** Throws `EDQUOT` when a limit forbids the request for ever. */
  failIfNeverAllowed(): void;
  /** Limits that are in the way at present, for the message of a time-out. */
  limits(): string;
  /** Milliseconds until time alone may have changed something: until a quarantine runs out. */
  quietMs(): number;
  /** Throws `EIO` when an import failed since `noted` was read. */
  failIfImportFailed(noted: number): void;
}

/** Allocates, blocking the thread while there is no space. */
export function allocateWait(request: SpaceRequest, options: AllocWaitOptions): number {
  const { core, call } = request;
  const { timeoutMs = FOREVER, cancel } = options;
  requireTimeout(call, timeoutMs);
  requireToken(call, cancel);
  cancel?.throwIfCancelled(call);
  const deadline = deadlineOf(core.thread, timeoutMs);
  const address = tryFirst(request);
  if (address >= 0) return address;
  const failures = request.failures();
  const row = join(request);
  const state = core.tables.spaceWaiter.state.address(row);
  let got = -1;
  try {
    for (let told = 0; ; ) {
      got = tryInTurn(request, row, failures, false);
      if (got >= 0) return got;
      const remaining = remainingMs(core.thread, deadline);
      if (remaining <= 0) failTimedOut(request, timeoutMs);
      told = load(core.thread.words, state) === WAITER_STATE.told ? told + 1 : 0;
      const sleepMs = told > 1 ? restlessMs(told) : Math.min(LOOK_MS, request.quietMs());
      const expected = told > 1 ? WAITER_STATE.told : WAITER_STATE.waiting;
      const result = sleepOn(core.thread, state, expected, Math.min(remaining, sleepMs), cancel);
      core.thread.clearWait();
      if (VERIFY) faultPoint(core.thread, 'vmem.queue.woken');
      if (VERIFY && result === 'cancelled') faultPoint(core.thread, 'vmem.queue.cancelled');
      if (result === 'cancelled') cancel?.throwIfCancelled(call);
    }
  } finally {
    leaveQueue(core, row, got >= 0);
  }
}

/** Allocates, leaving the event loop free while there is no space. */
export async function allocateAsync(request: SpaceRequest, options: AllocAsyncOptions): Promise<number> {
  const { core, call } = request;
  const { timeoutMs, signal, cancel } = options;
  const limit = openAsyncWait(call, {
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(signal === undefined ? {} : { signal }),
  });
  requireToken(call, cancel);
  cancel?.throwIfCancelled(call);
  const deadline = deadlineOf(core.thread, limit);
  // Other tasks of the thread may charge others by the time that this is served.
  const stay = ownerStay(core.thread);
  const address = tryFirst(request);
  if (address >= 0) return address;
  const failures = request.failures();
  const row = join(request);
  const { words } = core.thread;
  const state = core.tables.spaceWaiter.state.address(row);
  const unwatch = cancel && watchToken(core.thread, cancel, () => notify(words, state, ALL_WAITERS));
  let got = -1;
  try {
    for (let told = 0; ; ) {
      got = chargingTo(core.thread, stay, call, () => tryInTurn(request, row, failures, true));
      if (got >= 0) return got;
      const remaining = remainingMs(core.thread, deadline);
      if (remaining <= 0) failTimedOut(request, limit);
      told = load(words, state) === WAITER_STATE.told ? told + 1 : 0;
      const sleepMs = told > 1 ? restlessMs(told) : Math.min(LOOK_MS, request.quietMs());
      const expected = told > 1 ? WAITER_STATE.told : WAITER_STATE.waiting;
      await sleepAsync(core.thread, state, expected, Math.min(remaining, sleepMs), signal);
      throwIfAborted(call, signal);
      cancel?.throwIfCancelled(call);
    }
  } finally {
    unwatch?.();
    leaveQueue(core, row, got >= 0);
  }
}

function requireToken(call: string, cancel: unknown): void {
  if (cancel === undefined || cancel instanceof CancelToken) return;
  failMisuse(call, { cancel }, 'cancel must be a CancelToken');
}

/** Steps 1 and 2. */
function tryFirst(request: SpaceRequest): number {
  const address = request.attempt(NO_WAITER);
  if (address >= 0) return address;
  request.failIfNeverAllowed();
  if (request.constraints !== null && (request.core.flags & FLAG_COMPAT_SEED) !== 0) {
    fail(
      'ENOMEM',
      request.call,
      { arena: request.core.name, size: request.size },
      'constrained requests do not wait here',
    );
  }
  request.press();
  return request.attempt(NO_WAITER);
}

/** Step 3. */
function join(request: SpaceRequest): WaiterIndex {
  request.core.enter();
  request.core.count(COUNT_WAITS);
  request.core.exit();
  const row = joinQueue(request.core, request);
  if (row >= 0) return row;
  const { rowCount } = request.core.tables.spaceWaiter;
  const values = { arena: request.core.name, size: request.size };
  return fail('ENOMEM', request.call, values, `${rowCount} requests wait already; boot with more \`spaceWaiters\``);
}

/** Step 4, without the sleep. Throws `EIO` when an import failed since the request came; `here`: this thread may run one. */
function tryInTurn(request: SpaceRequest, row: WaiterIndex, failures: number, here: boolean): number {
  const { core } = request;
  markWaiting(core, row);
  const address = request.attempt(row);
  if (address >= 0) return address;
  if (!isHeld(core)) noteUnheld(core, row);
  request.failIfImportFailed(failures);
  // What is kept for an earlier request comes with it; who asks for the same has asked for both.
  if (!core.held && isFirstOfItsKind(core, row)) request.seek(here);
  return -1;
}

function failTimedOut(request: SpaceRequest, timeoutMs: number): never {
  const { core, call, size } = request;
  const values = { arena: core.name, size, timeoutMs };
  return fail('ETIMEDOUT', call, values, `no segment became free that can hold it${request.limits()}`);
}
