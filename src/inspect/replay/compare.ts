/** Compares what a step returned with what was recorded. */

import type { Difference } from './replay.ts';

/** Null when both are the same JSON. */
export function compare(expected: unknown, got: unknown): Difference | null {
  const [expectedText, gotText] = [JSON.stringify(expected), JSON.stringify(got)];
  return expectedText === gotText ? null : { expected: expectedText, got: gotText };
}
