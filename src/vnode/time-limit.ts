/** How long what comes through an event loop may take: providers' pages and looks, answers of servers. */

import { requireInteger, showCall, VmError } from '../base/errors.ts';

/** Longest limit: what a timer can count. */
const LIMIT_MS_MAX = 0x7fffffff;

/** Checks the option; null when it was not given. Throws `EINVAL`. */
export function timeLimitOf(call: string, timeoutMs: number | undefined): number | null {
  return timeoutMs === undefined ? null : requireInteger(call, 'timeoutMs', timeoutMs, 0, LIMIT_MS_MAX);
}

/**
 * What an action answers, unless it takes longer than `timeoutMs`, 0 for no limit: then `ETIMEDOUT`, and whatever the action
 * still answers is dropped. The signal tells it.
 */
export async function withinLimit<Result>(
  call: string,
  values: Readonly<Record<string, unknown>>,
  timeoutMs: number,
  action: (signal?: AbortSignal) => Result | Promise<Result>,
): Promise<Result> {
  if (timeoutMs === 0) return action();
  const late = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const error = new VmError('ETIMEDOUT', `${showCall(call, { ...values, timeoutMs })}: no answer came in time`);
      // First, so that nothing that the signal stops is answered in its place.
      reject(error);
      late.abort(error);
    }, timeoutMs);
  });
  try {
    return await Promise.race([action(late.signal), limit]);
  } finally {
    clearTimeout(timer);
  }
}
