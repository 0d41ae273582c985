/** What the cases of the vmem bench shall reach, by their names; DESIGN's costs and what users of other allocators wanted. */

import type { Goal } from './harness.ts';

const GOALS: readonly (readonly [cases: RegExp, goal: Goal])[] = [
  [/^instant, 1 to 64 quanta, 10{2,5} live$/, { atMost: 350 }],
  [/^instant, 1 to 64 quanta, 1000000 live$/, { atMost: 1500 }],
  [/^best, .* against instant$/, { atMost: 3 }],
  [/^instant, 1000 live beside \d+ fragments, against none$/, { atMost: 2 }],
  [/^quantum cache, \d+ quanta, 1000 live$/, { atMost: 80 }],
  [/^quantum cache, .* boundary tags$/, { atMost: 1 }],
  [/^scaling, quantum cache, .* against the arithmetic loop$/, { atLeast: 0.9 }],
  [/^50000 deletes and 50000 inserts .*: all of them$/, { atMost: 100 }],
];

/** The goal of a case, if it has one. */
export function goalOf(name: string): Goal | undefined {
  return GOALS.find(([cases]) => cases.test(name))?.[1];
}
