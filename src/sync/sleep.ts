/**
 * Sleeping: the one place where a thread of ours blocks.
 *
 * A sleep publishes its word first, so that a takeover of this slot can wake whoever should have been woken in its
 * place, and it wakes now and then to look whether the region was poisoned or the monitor has gone silent.
 */

import type { WordAddress } from '../layout/column.ts';
import { FOREVER, load, type WaitResult, wait } from './atomics.ts';
import { poisonRegion } from './poison.ts';
import type { Thread } from './thread.ts';

/** Slices without a beat of a monitor that once beat, after which the region counts as abandoned. */
const SILENT_SLICES_MAX = 10;

/**
 * Sleeps while the word holds `expected`, at most `timeoutMs`. Throws `EPOISONED`. The publication stays until
 * `thread.clearWait()`, which the caller does once it no longer needs a wake-up to be passed on.
 */
export function sleepOn(thread: Thread, address: WordAddress, expected: number, timeoutMs: number): WaitResult {
  thread.publishWait(address);
  thread.countSlept();
  if (timeoutMs <= thread.sliceMs) {
    const result = wait(thread.words, address, expected, timeoutMs);
    thread.checkPoison();
    return result;
  }
  return sleepInSlices(thread, address, expected, timeoutMs);
}

function sleepInSlices(thread: Thread, address: WordAddress, expected: number, timeoutMs: number): WaitResult {
  const heartbeat = thread.region.tables.header.heartbeat.address(0);
  const deadline = timeoutMs === FOREVER ? FOREVER : thread.clock.now() + timeoutMs;
  let lastBeat = load(thread.words, heartbeat);
  let silentSlices = 0;
  for (;;) {
    const remaining = deadline === FOREVER ? FOREVER : deadline - thread.clock.now();
    const slice = Math.min(thread.sliceMs, Math.max(0, remaining));
    const result = wait(thread.words, address, expected, slice);
    thread.checkPoison();
    if (result !== 'timed-out' || remaining <= thread.sliceMs) return result;
    const beat = load(thread.words, heartbeat);
    silentSlices = beat === lastBeat ? silentSlices + 1 : 0;
    lastBeat = beat;
    if (beat !== 0 && silentSlices === SILENT_SLICES_MAX) {
      poisonRegion(thread.region, 'the monitor has stopped: the thread that booted the system has ended');
      thread.checkPoison();
    }
  }
}
