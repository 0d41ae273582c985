/**
 * Assertions that stay on.
 *
 * Pass a literal message that starts with the invariant's id: an eager template would cost more than the check.
 */

import { InvariantError } from './errors.ts';

/** Throws `InvariantError` unless `condition` holds. About a nanosecond when it does. */
export function assert(condition: boolean, invariant: string): asserts condition {
  if (!condition) broken(invariant);
}

function broken(invariant: string): never {
  throw new InvariantError(invariant, 'asserted condition is false');
}
