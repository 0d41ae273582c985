/**
 * Pins with the event loop free.
 *
 * PROBLEM     To pin a range, its pages must be brought or made, and the space taken, which somebody may be changing: an event
 *             loop must wait for neither.
 * STRUCTURE   1 try to pin on this thread, without waiting   2 the first page that would have to be waited for: a pages worker
 *             brings what is behind it, a stretch at a time, as a blocking pin would, and waits for locks   3 again from 1
 *
 *             Pages that leave each time before they can be pinned are brought again, after pauses: memory is short, until a pin
 *             is released, perhaps by another task of this thread. After 10 seconds, as in a blocking pin, it is `ENOMEM`.
 * INVARIANTS  I1 nothing is held, and nothing is noted, across an `await`: a thread that ends there leaves a request alone.
 * LOCKING     None while it awaits; the worker takes the space shared.
 * COSTS       What is in memory, and the space's own: a pin and a promise. Else a round trip, some 20 us, for each 32 pages.
 *             Short memory: a round every 64 ms.
 * FAILURE     What `as.pin` throws; `ETIMEDOUT`, `ECANCELED`, when a request that was posted may still be carried out: pages are in
 *             memory then that nobody wanted; `EIO` when the worker ends; `ENOTSUP` without services when a page is missing.
 * REJECTED    Pinning in the worker and handing the pin over: it would be the worker's for a while, and its end would take it.
 *             Keeping what is pinned of a range while the rest comes: unmapping would wait for a thread that waits.
 *             A blocking pin after some rounds: nobody of this thread could release what it waits for.
 * REFERENCES  vpm/file-async.ts, which is the same for files.
 */

import { fail } from '../base/errors.ts';
import { FETCH_PAGES_MAX, SHORTAGE_MS, type VnodeIndex } from '../page/index.ts';
import { watchToken } from '../sync/cancel-async.ts';
import {
  chargingTo,
  deadlineOf,
  openAsyncWait,
  ownerStay,
  remainingMs,
  type Thread,
  throwIfAborted,
} from '../sync/index.ts';
import { IO_OPERATION, IO_ROLE } from '../vnode/index.ts';
import { namedError } from '../vpm/named-errors.ts';
import type { AddressSpaceId } from './address-space.ts';
import type { PinWaitAsync } from './async-changes.ts';
import type { SpacePin } from './pin-pieces.ts';
import { requireOptions, requireToken } from './space-arguments.ts';
import type { SpaceIndex } from './space-kinds.ts';
import type { SpacePins } from './space-pins.ts';
import type { SpaceParts } from './spaces.ts';

/** Times that pages are brought again at once because they left before they could be pinned: at least so many before it is `ENOMEM`. */
const ROUNDS_MIN = 8;

/** Longest pause between later rounds; the first is of 1 ms. */
const PAUSE_MAX_MS = 64;

/** Longest time that a timer can be set to. */
const TIMER_MAX_MS = 2 ** 31 - 1;

/** A range that is to be pinned. */
export interface PinRequest {
  readonly address: number;
  readonly length: number;
  readonly write: boolean;
}

/** What a worker is asked to bring: pages from `from` on, for a pin of the range. */
export interface BringRequest extends AddressSpaceId, PinRequest {
  readonly call: string;
  readonly from: number;
  readonly pages: number;
}

/** Pins a range once its pages are there. */
export async function pinWhenThere(
  parts: SpaceParts,
  pins: SpacePins,
  id: AddressSpaceId,
  request: PinRequest,
  options: PinWaitAsync,
): Promise<SpacePin> {
  const call = 'as.pinAsync';
  const { thread } = parts.core;
  const { address, length, write } = request;
  const ending = new Ending(parts, call, options);
  // Other tasks of the thread may charge others by the time that the pages are there.
  const stay = ownerStay(thread);
  let shortUntil = Number.POSITIVE_INFINITY;
  try {
    for (let round = 0; ; round++) {
      if (round > 0) ending.throwIfOver();
      const pin = chargingTo(thread, stay, call, () => pins.tryPin(address, length, write, call));
      if (typeof pin !== 'number') return pin;
      if (round === 1) shortUntil = deadlineOf(thread, SHORTAGE_MS);
      if (round >= ROUNDS_MIN) {
        if (remainingMs(thread, shortUntil) <= 0) parts.rooms.pages.failShort(call, { address, length });
        await pauseUnless(ending.signal, Math.min(PAUSE_MAX_MS, 2 ** (round - ROUNDS_MIN)));
      }
      await bring(parts, id, { call, ...request }, pin, ending.signal);
    }
  } catch (error) {
    if (ending.signal.aborted) ending.throwIfOver();
    throw namedError(call, error, { address, length });
  } finally {
    ending.close();
  }
}

/** Lets others run for a moment, or until the signal. */
function pauseUnless(signal: AbortSignal, ms: number): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener('abort', end);
    if (signal.aborted) end();
  });
}

/**
 * Has the pages of a range brought from an address on, as many as memory may have room for: as many at a time as one mapping, and one
 * source, has of them.
 */
async function bring(
  parts: SpaceParts,
  id: AddressSpaceId,
  request: PinRequest & { readonly call: string },
  first: number,
  signal: AbortSignal,
): Promise<void> {
  const { pageSize } = parts.core;
  const start = Math.floor(first / pageSize);
  const pages = Math.ceil((request.address + request.length) / pageSize) - start;
  // The try found the space taken, and could not say that the range is too large.
  const end = (start + Math.min(pages, parts.rooms.pages.mostInMemory(pages))) * pageSize;
  for (let from = start * pageSize; from < end; ) {
    const { pages, far } = stretchAt(parts, id.space, from, end);
    const { space, generation } = id;
    const asked: BringRequest = { ...request, space, generation, from, pages };
    const question = { operation: IO_OPERATION.space, first: 0, count: 0, text: JSON.stringify(asked) };
    await parts.rooms.io.askAsync({ ...question, ...(far ?? { role: IO_ROLE.pages, vnode: -1 }) }, signal);
    from += pages * pageSize;
  }
}

/** What is brought at once, and of which vnode far away, if of one; no pages: somebody has the space, who is waited for. */
function stretchAt({ core, segments, rooms }: SpaceParts, space: SpaceIndex, from: number, end: number): Stretch {
  const { pageSize, segments: rows } = core;
  const lock = core.lockOf(space);
  if (!lock.tryEnterShared()) return { pages: 0, far: null };
  try {
    const segment = segments.tree.find(space, from);
    // The worker says what is wrong.
    if (segment < 0) return { pages: 1, far: null };
    const last = Math.min(end, rows.base.get(segment) + rows.size.get(segment));
    const pages = Math.min(FETCH_PAGES_MAX, (last - from) / pageSize);
    const vnode = rows.vnode.get(segment) - 1;
    const source = vnode < 0 ? null : rooms.vnodes.farSource(vnode);
    return { pages, far: source === null ? null : { role: IO_ROLE.farPages, vnode, source } };
  } finally {
    lock.exitShared();
  }
}

interface Stretch {
  readonly pages: number;
  readonly far: { readonly role: number; readonly vnode: VnodeIndex; readonly source: number } | null;
}

/** What ends a call before its time: one signal for all of it. */
class Ending {
  private readonly call: string;
  private readonly options: PinWaitAsync;
  private readonly controller = new AbortController();
  private readonly closers: (() => void)[] = [];
  private readonly thread: Thread;
  private readonly deadline: number;

  constructor({ core }: SpaceParts, call: string, options: PinWaitAsync) {
    requireOptions(call, options, ['timeoutMs', 'signal', 'cancel']);
    const { cancel, ...wait } = options;
    requireToken(call, cancel);
    const timeoutMs = openAsyncWait(call, wait);
    cancel?.throwIfCancelled(call);
    this.call = call;
    this.options = options;
    this.thread = core.thread;
    this.deadline = deadlineOf(core.thread, timeoutMs);
    const end = () => this.controller.abort();
    if (timeoutMs <= TIMER_MAX_MS) {
      const timer = setTimeout(end, timeoutMs);
      this.closers.push(() => clearTimeout(timer));
    }
    wait.signal?.addEventListener('abort', end, { once: true });
    this.closers.push(() => wait.signal?.removeEventListener('abort', end));
    if (cancel !== undefined) this.closers.push(watchToken(core.thread, cancel, end));
  }

  get signal(): AbortSignal {
    return this.controller.signal;
  }

  /** Throws what the end of the call is, when it was ended. */
  throwIfOver(): void {
    const { call, options, thread, deadline } = this;
    options.cancel?.throwIfCancelled(call);
    throwIfAborted(call, options.signal);
    const { timeoutMs } = options;
    if (remainingMs(thread, deadline) <= 0) fail('ETIMEDOUT', call, { timeoutMs }, 'the pages did not come in time');
  }

  close(): void {
    for (const close of this.closers) close();
  }
}
