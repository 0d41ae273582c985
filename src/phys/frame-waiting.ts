/**
 * Waiting for frames: blocking this thread, or its event loop only.
 *
 * STRUCTURE   1 a request that no memory of this system could serve is refused   2 try   3 ask those who can free frames, try
 *             again   4 join the queue   5 when it is our turn try and ask, else sleep; until it worked, the time is up, the
 *             wait is cancelled, or so much memory has gone that it cannot work any more
 * LOCKING     None is held while frames are asked for or while sleeping; see frame-queue.ts.
 *             Who would exceed its owner's limit of frames waits like others; nobody is asked to free frames for it.
 * FAILURE     `EINVAL` for 1, also when it comes true while the request waits; `ETIMEDOUT`, `ECANCELED`, `ENOMEM` when the queue is full.
 */

import { fail, failMisuse, rejectUnknownOptions, requireObject } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import { FOREVER } from '../sync/atomics.ts';
import { CancelToken } from '../sync/cancel.ts';
import { watchToken } from '../sync/cancel-async.ts';
import { faultPoint } from '../sync/fault.ts';
import { type AsyncWaitOptions, openAsyncWait, throwIfAborted } from '../sync/mutex-async.ts';
import { chargingTo, type OwnerIndex, ownerStay } from '../sync/owners.ts';
import { deadlineOf, remainingMs, requireTimeout } from '../sync/sleep.ts';
import type { FrameCore } from './frame-core.ts';
import type { FrameWaiterIndex } from './frame-queue.ts';

/** Longest sleep before a waiter tries by itself: pages become reclaimable without a frame being given back. */
const LOOK_MS = 50;

/** How long a blocking request may wait. */
export interface FrameWaitOptions {
  /** Milliseconds, 0 or more. Default: without limit. */
  readonly timeoutMs?: number;
  /** Ends the wait with `ECANCELED`, from any thread. */
  readonly cancel?: CancelToken;
}

/** How long an asynchronous request may wait. */
export interface FrameAsyncOptions extends AsyncWaitOptions {
  /** Ends the wait with `ECANCELED`, from any thread. */
  readonly cancel?: CancelToken;
}

/** A request that may wait. */
export interface FrameDemand<Found> {
  readonly call: string;
  readonly core: FrameCore;
  /** Frames asked for. */
  readonly count: number;
  /** Who is charged for them; -1, or left out: nobody, or the caller does that. */
  readonly owner?: OwnerIndex;
  /** What the caller asked for, for messages. */
  readonly values: Readonly<Record<string, unknown>>;
  /** Under the frames' lock: true when it could be served if every frame that can ever be had were free. */
  possible(): boolean;
  /** One try; `waiter` says that it may overtake nobody because it is first in the queue. Null when it cannot be served. */
  attempt(waiter: boolean): Found | null;
  /** Asks those who can free frames; true when a try may now succeed. */
  press(): boolean;
}

/** Throws `EINVAL` for what does not say how long a request may wait. */
export function requireWaitOptions(call: string, options: FrameWaitOptions): void {
  requireObject(call, 'options', options);
  rejectUnknownOptions(call, options, ['timeoutMs', 'cancel']);
  const { timeoutMs = FOREVER, cancel } = options;
  requireTimeout(call, timeoutMs);
  requireCancel(call, cancel);
}

function requireCancel(call: string, cancel: unknown): void {
  if (cancel === undefined || cancel instanceof CancelToken) return;
  failMisuse(call, { cancel }, 'cancel must be a CancelToken');
}

/** Serves a demand, blocking the thread while it cannot be served. */
export function waitForFrames<Found>(demand: FrameDemand<Found>, options: FrameWaitOptions): Found {
  const { call, core } = demand;
  requireWaitOptions(call, options);
  const { timeoutMs = FOREVER, cancel } = options;
  cancel?.throwIfCancelled(call);
  const deadline = deadlineOf(core.thread, timeoutMs);
  const now = tryFirst(demand);
  if (now !== null) return now;
  const row = join(demand);
  let found: Found | null = null;
  try {
    for (;;) {
      found = tryInTurn(demand, row);
      if (found !== null) return found;
      requirePossible(demand);
      const remaining = remainingMs(core.thread, deadline);
      if (remaining <= 0) failTimedOut(demand, timeoutMs);
      if (VERIFY) faultPoint(core.thread, 'phys.list.waiting');
      if (core.queue.sleep(row, Math.min(remaining, LOOK_MS), cancel)) cancel?.throwIfCancelled(call);
    }
  } finally {
    leave(demand, row, found !== null);
  }
}

/** Serves a demand, leaving the event loop free while it cannot be served. */
export async function waitForFramesAsync<Found>(
  demand: FrameDemand<Found>,
  options: FrameAsyncOptions,
): Promise<Found> {
  const { call, core } = demand;
  requireObject(call, 'options', options);
  const { cancel } = options;
  const limit = openAsyncWait(call, options, ['cancel']);
  requireCancel(call, cancel);
  cancel?.throwIfCancelled(call);
  const deadline = deadlineOf(core.thread, limit);
  // Other tasks of the thread may charge others by the time that this is served.
  const stay = ownerStay(core.thread);
  const now = tryFirst(demand);
  if (now !== null) return now;
  const row = join(demand);
  const unwatch = cancel && watchToken(core.thread, cancel, () => core.queue.wake(row));
  let found: Found | null = null;
  try {
    for (;;) {
      found = chargingTo(core.thread, stay, call, () => tryInTurn(demand, row));
      if (found !== null) return found;
      requirePossible(demand);
      const remaining = remainingMs(core.thread, deadline);
      if (remaining <= 0) failTimedOut(demand, limit);
      await core.queue.sleepAsync(row, Math.min(remaining, LOOK_MS), options.signal);
      throwIfAborted(call, options.signal);
      cancel?.throwIfCancelled(call);
    }
  } finally {
    unwatch?.();
    leave(demand, row, found !== null);
  }
}

/** Steps 1 to 3. */
function tryFirst<Found>(demand: FrameDemand<Found>): Found | null {
  const found = demand.attempt(false);
  if (found !== null) return found;
  requirePossible(demand);
  return demand.press() ? demand.attempt(false) : null;
}

/** Refuses what cannot be served however long it waits: memory may have gone since it was asked for. */
function requirePossible<Found>({ core, call, values, possible }: FrameDemand<Found>): void {
  core.mutex.enter();
  const may = possible();
  core.mutex.exit();
  if (!may) failMisuse(call, { ...values }, 'waiting cannot help: memory is not made that way');
}

/** Step 4. */
function join<Found>({ core, count, owner, call, values }: FrameDemand<Found>): FrameWaiterIndex {
  core.mutex.enter();
  const row = core.queue.join(count, owner);
  core.mutex.exit();
  if (row >= 0) return row;
  const { rowCount } = core.thread.region.tables.frameWaiter;
  return fail('ENOMEM', call, { ...values }, `${rowCount} requests wait already: no room in the queue`);
}

/** Step 5, without the sleep. */
function tryInTurn<Found>(demand: FrameDemand<Found>, row: FrameWaiterIndex): Found | null {
  const { core } = demand;
  core.mutex.enter();
  const first = core.queue.mayTry(row);
  core.mutex.exit();
  if (!first) return null;
  const found = demand.attempt(true) ?? (demand.press() ? demand.attempt(true) : null);
  if (found !== null) return found;
  core.mutex.enter();
  core.queue.noteNothingFits(row, core.free);
  core.mutex.exit();
  return null;
}

function leave<Found>({ core }: FrameDemand<Found>, row: FrameWaiterIndex, served: boolean): void {
  core.mutex.enter();
  core.queue.leave(row, served, core.free);
  core.mutex.exit();
}

function failTimedOut<Found>({ call, core, count, owner = -1, values }: FrameDemand<Found>, timeoutMs: number): never {
  const limit = core.charges.inTheWay(owner, count);
  fail('ETIMEDOUT', call, { ...values, timeoutMs }, `no such frames became free in time${limit}`);
}
