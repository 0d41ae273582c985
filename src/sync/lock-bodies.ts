/** What the functions that run a body under a lock have in common. */

import { failMisuse } from '../base/errors.ts';

/** Throws `EINVAL` for a promise: the lock would be given back before its work is done. */
export function requireNoPromise<Value>(call: string, value: Value): Value {
  if (value instanceof Promise) failMisuse(call, {}, `the body returned a promise; use ${call}Async`);
  return value;
}
