/** Named mutexes under every schedule: who is told that a thread has died inside, and what comes of a lock that is removed. */

import { describe, it } from 'vitest';
import { expose, LARGE, prove, scenarioClass } from './prove.ts';
import type { NamedMutexOptions } from './scenarios/named-mutex.ts';

const world = (mortal: readonly number[], ...programs: string[]) =>
  new (scenarioClass<NamedMutexOptions>('named-mutex.ts', 'NamedMutexWorld'))({ programs, mortal });

describe('named mutex', () => {
  it('is repaired whenever a thread has died inside, and only then', () => {
    prove('named mutex, 2 x 1', world([0, 1], 's', 's'), { deaths: 1 });
    prove('named mutex, 2 x 2', world([0], 'ss', 'ss'), { deaths: 1, preemptions: LARGE ? 4 : 2 });
    prove('named mutex, tries', world([0], 's', 'tt'), { deaths: 1, preemptions: LARGE ? 4 : 2 });
    prove('named mutex, 3 x 1', world(LARGE ? [0, 1, 2] : [0], 's', 's', 's'), {
      deaths: 1,
      preemptions: LARGE ? 3 : 1,
    });
  });

  it('is removed under nobody', () => {
    prove('named mutex, removed', world([0, 1], 's', 'x'), { deaths: 1, preemptions: LARGE ? 4 : 2 });
  });
});

describe('seeded bugs in the named mutex', () => {
  const seeded = (file: string, find: string, replace: string) => {
    const Mutated = scenarioClass<NamedMutexOptions>('named-mutex.ts', 'NamedMutexWorld', [{ file, find, replace }]);
    return (mortal: readonly number[], programs: string[]) => () => new Mutated({ programs, mortal });
  };

  it('finds an entry that does not look who was inside', () => {
    const look = '    if (before !== 0 && before !== this.thread.attachment) abandonedBy.put(this.row, before);\n';
    const make = seeded('src/sync/lock-place.ts', look, '');
    expose('no look', make([0], ['s', 's']), { deaths: 1 }, /disagree/);
  });

  it('finds an exit that takes its name back too late', () => {
    const inOrder = '    this.place.depart();\n    this.inner.exit();\n';
    const make = seeded('src/sync/named-mutex.ts', inOrder, '    this.inner.exit();\n    this.place.depart();\n');
    expose('name taken back late', make([0, 1], ['s', 's']), { deaths: 1 }, /disagree|a holder is named/);
  });
});
