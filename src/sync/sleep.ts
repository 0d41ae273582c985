/**
 * Sleeping: the one place where a thread of ours blocks.
 *
 * A sleep publishes its word first, so that a takeover of this slot can wake whoever should have been woken in its
 * place, and it wakes now and then to look whether the region was poisoned, the monitor has gone silent, or the
 * canceller came just before it fell asleep.
 */

import { failMisuse } from '../base/errors.ts';
import type { WordAddress } from '../layout/column.ts';
import { FOREVER, load, type WaitResult, wait } from './atomics.ts';
import type { CancelToken } from './cancel.ts';
import { poisonRegion } from './poison.ts';
import type { Thread } from './thread.ts';

/** Slices without a beat of a monitor that once beat, after which the region counts as abandoned. */
const SILENT_SLICES_MAX = 10;

/** What a sleep came back with. */
export type SleepResult = WaitResult | 'cancelled';

/** Throws `EINVAL` unless `timeoutMs` is a number of milliseconds, 0 or more, `FOREVER` included. */
export function requireTimeout(call: string, timeoutMs: number): void {
  if (typeof timeoutMs !== 'number' || !(timeoutMs >= 0))
    failMisuse(call, { timeoutMs }, 'a timeout is a number of milliseconds, 0 or more');
}

/** The time at which a wait of `timeoutMs` from now ends. */
export function deadlineOf(thread: Thread, timeoutMs: number): number {
  return timeoutMs === FOREVER ? FOREVER : thread.clock.now() + timeoutMs;
}

/** Milliseconds left until a deadline; 0 or less when it has passed. */
export function remainingMs(thread: Thread, deadline: number): number {
  return deadline === FOREVER ? FOREVER : deadline - thread.clock.now();
}

/**
 * Sleeps while the word holds `expected`, at most `timeoutMs`, or until the token is cancelled. Throws `EPOISONED`, and
 * `EWOULDBLOCK` where blocking is not allowed. The publication stays until `thread.clearWait()`, which the caller does
 * once it no longer needs a wake-up to be passed on.
 */
export function sleepOn(
  thread: Thread,
  address: WordAddress,
  expected: number,
  timeoutMs: number,
  token?: CancelToken,
): SleepResult {
  thread.publishWait(address);
  thread.countSlept();
  if (timeoutMs <= thread.sliceMs && token === undefined) {
    const result = wait(thread.words, address, expected, timeoutMs);
    thread.checkPoison();
    return result;
  }
  return sleepInSlices(thread, address, expected, timeoutMs, token);
}

function sleepInSlices(
  thread: Thread,
  address: WordAddress,
  expected: number,
  timeoutMs: number,
  token: CancelToken | undefined,
): SleepResult {
  const heartbeat = thread.region.tables.header.heartbeat.address(0);
  const deadline = deadlineOf(thread, timeoutMs);
  let lastBeat = load(thread.words, heartbeat);
  let silentSlices = 0;
  // The token is published before it is looked at, and cancelled before the publications are: one side sees the other.
  if (token !== undefined) thread.publishToken(token.number + 1);
  for (;;) {
    if (token?.cancelled) return 'cancelled';
    const remaining = remainingMs(thread, deadline);
    const slice = Math.min(thread.sliceMs, Math.max(0, remaining));
    const result = wait(thread.words, address, expected, slice);
    thread.checkPoison();
    if (result !== 'timed-out' || remaining <= thread.sliceMs) return result;
    const beat = load(thread.words, heartbeat);
    silentSlices = beat === lastBeat && beat !== 0 ? silentSlices + 1 : 0;
    lastBeat = beat;
    if (silentSlices === SILENT_SLICES_MAX) {
      poisonRegion(thread.region, 'the monitor has stopped: the thread that booted the system has ended');
      thread.checkPoison();
    }
  }
}
