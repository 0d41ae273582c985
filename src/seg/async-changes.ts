/**
 * Changes of a space that wait for pins with the event loop free.
 *
 * PROBLEM     What keeps a part of a space from being unmapped may be a pin of the same thread, which another task of it will
 *             release: whoever blocks the thread waits for ever.
 * STRUCTURE   Beside the steps of space-changes.ts:
 *
 *               pinned? -- await the condition `drained`, looking again at every signal --> not pinned: try, without waiting
 *                  ^                                                                               |
 *                  '------------------------- `EBUSY` that names who has pinned it ---------------'
 *
 * INVARIANTS  I1 no lock is held across an `await`.
 * LOCKING     The lock of the spaces while it looks at pins: it is held for short times only, so that waiting for it is no matter.
 * COSTS       A look at all pins for each pin that is released meanwhile.
 * FAILURE     `ETIMEDOUT` names who has it pinned; `ECANCELED`; else what the try throws.
 * REJECTED    A queue of those who wait: a later one that asks for a smaller part may go first.
 * REFERENCES  condvar.ts for awaited conditions.
 */

import { fail, VmError } from '../base/errors.ts';
import { watchToken } from '../sync/cancel-async.ts';
import {
  ALL_WAITERS,
  type AsyncWaitOptions,
  type CancelToken,
  deadlineOf,
  notify,
  openAsyncWait,
  remainingMs,
  throwIfAborted,
} from '../sync/index.ts';
import { requireOptions, requireToken } from './space-arguments.ts';
import type { SpaceChanges } from './space-changes.ts';
import type { SpaceCore } from './space-core.ts';

/** Options of asynchronous calls that may meet pins. */
export interface PinWaitAsync extends AsyncWaitOptions {
  /** Ends the wait with `ECANCELED`, from any thread. */
  readonly cancel?: CancelToken;
}

/** A range, and who asks. */
export interface AwaitedRange {
  readonly call: string;
  readonly start: number;
  readonly end: number;
}

/** Runs `attempt`, which throws `EBUSY` while the range is pinned, as soon as it is not. */
export async function whenUnpinned(
  core: SpaceCore,
  changes: SpaceChanges,
  { call, start, end }: AwaitedRange,
  options: PinWaitAsync,
  attempt: () => void,
): Promise<void> {
  const { thread, lock, drained } = core;
  requireOptions(call, options, ['timeoutMs', 'signal', 'cancel']);
  const { cancel, ...wait } = options;
  requireToken(call, cancel);
  const { signal } = wait;
  const deadline = deadlineOf(thread, openAsyncWait(call, wait));
  const { words } = thread;
  const unwatch = cancel && watchToken(thread, cancel, () => notify(words, drained.address, ALL_WAITERS));
  const mutex = {
    tryEnter: () => {
      lock.enter();
      return true;
    },
    enterAsync: async () => true,
    exit: () => lock.exit(),
  };
  const isFree = () => {
    cancel?.throwIfCancelled(call);
    return changes.pinIn(start, end) < 0 ? true : undefined;
  };
  try {
    for (;;) {
      const timeoutMs = Math.max(0, remainingMs(thread, deadline));
      let free: true | undefined;
      try {
        free = await drained.untilAsync(mutex, isFree, { timeoutMs, ...(signal === undefined ? {} : { signal }) });
      } catch (error) {
        throwIfAborted(call, signal);
        throw error;
      }
      if (free === undefined) {
        const pinnedBy = changes.pinIn(start, end);
        fail('ETIMEDOUT', call, { start, end, ...(pinnedBy < 0 ? {} : { pinnedBy }) }, 'it is pinned still');
      }
      try {
        attempt();
        return;
      } catch (error) {
        // The pin may be gone by now. Pages that stay locked without one are another error, which names nobody.
        const isPinned = error instanceof VmError && error.code === 'EBUSY' && error.message.includes('pinnedBy=');
        if (!isPinned) throw error;
      }
    }
  } finally {
    unwatch?.();
  }
}
