/** Promises that are awaited in an event loop, by its turns instead of by time: a busy machine makes turns long, not more. */

const TURN_MS = 5;

/**
 * What a promise brings, which must come by a wake-up. Who waits looks by itself after 250 ms: so many turns come before that on
 * a machine that has nothing else to do, and on a busy one a look that comes first only makes this say nothing.
 */
export async function within<Value>(promise: Promise<Value>, turns = 30): Promise<Value> {
  let isSettled = false;
  const settled = promise.finally(() => {
    isSettled = true;
  });
  settled.catch(() => undefined);
  for (let turn = 0; turn < turns && !isSettled; turn++) await new Promise((resolve) => setTimeout(resolve, TURN_MS));
  if (!isSettled) throw new Error(`not awake after ${turns} turns of the event loop`);
  return settled;
}
