/**
 * Waiting for an event: the way to make a test independent of how fast threads are. What is waited for is the event itself
 * (a word in shared memory, a counter, a call that was made), never a time in which it should have come. Whoever waits in vain
 * says so, and says it at once when a worker has failed meanwhile.
 */

/** The longest wait for anything that must come: far more than a loaded machine with one processor takes. */
export const PATIENCE_MS = 100_000;

const POLL_MS = 1;

/** What workers threw that nobody expected, until `takeFailures`. */
const failures: Error[] = [];

/** Says that a worker has failed: everything that waits stops waiting. */
export function workerFailed(error: Error): void {
  failures.push(error);
}

/** What workers threw since the last call. */
export function takeFailures(): Error[] {
  return failures.splice(0);
}

/** Waits until the condition holds, looking every millisecond; throws with `what` after `PATIENCE_MS`. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!condition()) {
    const [failure] = failures;
    if (failure !== undefined) throw new Error(`a worker has failed while this waits: ${what}`, { cause: failure });
    if (performance.now() > end) throw new Error(`waited ${PATIENCE_MS} ms in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
