/** The transformation itself: what it does not understand it refuses, and a seeded bug must fit the code. */

import { expect, it } from 'vitest';
import { Explorer } from './explorer.ts';
import type { Scenario } from './scenario.ts';
import { loadExplored } from './sources.ts';

const MUTEX = 'test/explore/scenarios/mutex.ts';
const journal = (find: string, replace: string) => [{ file: 'src/sync/journal.ts', find, replace }];

it('refuses stores that it would not see', () => {
  const commit = '    this.log[LENGTH] = mark;\n';
  expect(() => loadExplored(MUTEX, journal(commit, '    this.log[LENGTH] -= mark;\n'))).toThrow(
    /src\/sync\/journal\.ts:\d+: exploration cannot transform a compound store: this\.log\[LENGTH\] -= mark/,
  );
  expect(() => loadExplored(MUTEX, journal(commit, '    this.log[LENGTH]++;\n'))).toThrow(/an increment in a view/);
});

it('refuses a seeded bug that does not fit, or is not explored', () => {
  expect(() => loadExplored(MUTEX, journal('no such line', ''))).toThrow(/must fit exactly once: no such line/);
  const elsewhere = [{ file: 'src/vmem/arena.ts', find: 'x', replace: 'y' }];
  expect(() => loadExplored(MUTEX, elsewhere)).toThrow(/not part of the exploration/);
});

it('stops in front of every shared operation, and runs the same code to the same end', () => {
  const World = loadExplored(MUTEX).MutexWorld as new (options: object) => Scenario;
  const explorer = new Explorer(new World({ threads: 2, sections: 1 }));
  // Enter, a pause inside, exit: three steps for each thread when nobody is in the way.
  expect(explorer.replay('0 0 0 1 1 1')).toBe(null);
  expect(() => explorer.replay('0 0 0 0')).toThrow(/without an operation|null/);
  expect(new Explorer(new World({ threads: 2, sections: 1 }), { statesMax: 10 }).explore().complete).toBe(false);
});
