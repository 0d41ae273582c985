/**
 * Against hangs: the runner's limits need turns of the event loop, and a test whose thread blocks for ever has none. Set up for
 * every file of tests: a blocking wait throws when it, with those before it, has lasted too long without a turn in between, so
 * that the test fails where it hangs. `scripts/watchdog.mjs` ends what spins.
 */

/** Less than the limit of a test, more than anybody waits on purpose. */
const LIMIT_MS = 200_000;

const TURN_MS = 1000;

/** From now on all waits of this thread together take no longer between two turns. Returns how to undo that. */
export function limitWaits(limitMs: number): () => void {
  const { wait } = Atomics;
  let waitedMs = 0;
  const timer = setInterval(() => {
    waitedMs = 0;
  }, TURN_MS).unref();
  const within = (words: Int32Array, address: number, expected: number, timeoutMs = Number.POSITIVE_INFINITY) => {
    const left = limitMs - waitedMs;
    if (left <= 0) throw new Error(`this thread has blocked for ${limitMs} ms without a turn of its event loop`);
    const from = performance.now();
    const result = wait(words, address, expected, Math.min(timeoutMs, left));
    waitedMs += performance.now() - from;
    return result;
  };
  Atomics.wait = within as typeof Atomics.wait;
  return () => {
    clearInterval(timer);
    Atomics.wait = wait;
  };
}

limitWaits(LIMIT_MS);
