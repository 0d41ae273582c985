/**
 * Waiting for an event: the way to make a test independent of how fast threads are. What is waited for is the event itself
 * (a word in shared memory, a counter, a call that was made), never a time in which it should have come.
 */

/** The longest wait for anything that must come: far more than a loaded machine with one processor takes. */
export const PATIENCE_MS = 100_000;

const POLL_MS = 1;

/** Waits until the condition holds, looking every millisecond; throws with `what` after `PATIENCE_MS`. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`waited ${PATIENCE_MS} ms in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
