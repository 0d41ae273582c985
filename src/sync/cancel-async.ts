/** Cancel tokens for waits of an event loop, which cannot publish one word per slot as a blocked thread does. */

import { CANCEL_LANES } from '../layout/system-tables.ts';
import { ALL_WAITERS, notify, waitAsync } from './atomics.ts';
import type { CancelToken } from './cancel.ts';
import type { Thread } from './thread.ts';

/**
 * Calls back from the event loop once the token is cancelled. Returns what ends that: call it when the wait is over. The
 * canceller notifies the token's own word; a wake-up that is lost costs a slice.
 */
export function watchToken(thread: Thread, token: CancelToken, callback: () => void): () => void {
  const { words } = thread;
  const { token: number, state } = token.handle();
  const address = thread.region.tables.cancel.state.address(Math.floor(number / CANCEL_LANES), number % CANCEL_LANES);
  let watching = true;
  const watch = async () => {
    while (watching && !token.cancelled) {
      const started = waitAsync(words, address, state, thread.sliceMs);
      if (typeof started !== 'string') await started;
    }
    if (watching) callback();
  };
  void watch();
  return () => {
    watching = false;
    notify(words, address, ALL_WAITERS);
  };
}
