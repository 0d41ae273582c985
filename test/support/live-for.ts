/**
 * A thread that ends after so many steps: before each logged store and before each atomic operation one step is counted.
 * The takeover is the caller's, and so is looking at what is left.
 */

import { Journal, setSeam, type Thread } from '../../src/sync/index.ts';

/** Steps from one death to the next: all of them are taken with `PAGEWRIGHT_EXPLORE=large`. */
export const DEATH_STRIDE = process.env.PAGEWRIGHT_EXPLORE === 'large' ? 1 : 3;

/** Thrown instead of a step that the victim does not live to take. */
class Death extends Error {}

let stepsLeft = Number.POSITIVE_INFINITY;

function step(): void {
  if (stepsLeft-- <= 0) throw new Death();
}

/** Runs something that dies after so many steps; true when it lived to its end. */
export function liveFor(steps: number, victim: Thread, run: () => void): boolean {
  const names = ['log1', 'log2', 'log3', 'log7Marking', 'log8', 'log7MarkingAnd8', 'logRange'] as const;
  const originals = names.map((name) => Journal.prototype[name]);
  const journal = victim.journal as unknown as Record<string, unknown>;
  for (const [index, name] of names.entries()) {
    journal[name] = function stepped(this: Journal, ...values: [number, number, number]) {
      step();
      (originals[index] as (...values: number[]) => void).apply(this, values);
    };
  }
  stepsLeft = steps;
  setSeam(step);
  try {
    run();
    return true;
  } catch (error) {
    if (!(error instanceof Death)) throw error;
    return false;
  } finally {
    setSeam(undefined);
    for (const name of names) delete journal[name];
  }
}
