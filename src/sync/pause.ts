/**
 * Pausing: letting time pass without waiting for anything.
 *
 * On a virtual clock a pause moves the clock and returns at once; verify builds then run the seam with the operation
 * `pause`, so that tests and replays can do there what other threads do meanwhile.
 */

import { VERIFY } from '../base/verify.ts';
import { load } from './atomics.ts';
import { seam } from './seam.ts';
import { sleepOn } from './sleep.ts';
import type { Thread } from './thread.ts';

/** Lets `milliseconds` pass. Throws `EPOISONED`, and `EWOULDBLOCK` on a thread that must not block. */
export function pause(thread: Thread, milliseconds: number): void {
  if (thread.clock.isVirtual) {
    thread.clock.advance(milliseconds);
    if (VERIFY) seam('pause', 0);
    return;
  }
  // A word of our own that nobody changes while we live: only time ends the sleep.
  const address = thread.region.tables.slot.generation.address(thread.slot);
  sleepOn(thread, address, load(thread.words, address), milliseconds);
  thread.clearWait();
}
