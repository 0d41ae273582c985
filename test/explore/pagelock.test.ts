/** The pagelock cache under every schedule: hits, insertions, releases, purges, reaps and disables, and deaths at every step. */

import { describe, it } from 'vitest';
import { expose, LARGE, prove, scenarioClass } from './prove.ts';
import type { PagelockWorldOptions } from './scenarios/pagelock.ts';

const world = (programs: readonly string[], mortal: readonly number[] = []) =>
  new (scenarioClass<PagelockWorldOptions>('pagelock.ts', 'PagelockWorld'))({ programs, mortal });

describe('pagelock cache', () => {
  it('hits, and refuses a second release, while others purge and reap', () => {
    prove('pagelock cache, hits', world(['lr', 'lr']), {});
    prove('pagelock cache, hits and a purge', world(['lrR', 'p']), {});
    prove('pagelock cache, hits and a reap', world(['lr', 'g']), LARGE ? {} : { preemptions: 2 });
    prove('pagelock cache, a hit, a purge, a reap', world(['l', 'p', 'g']), { preemptions: LARGE ? 3 : 2 });
  });

  it('inserts the same range, or one that covers it, from two threads', () => {
    prove('pagelock cache, one range twice', world(['ir', 'ir']), { preemptions: LARGE ? 4 : 2 });
    prove('pagelock cache, a range and one around it', world(['lir', 'b']), { preemptions: LARGE ? 3 : 2 });
  });

  it('caches nothing that a disable would miss', () => {
    prove('pagelock cache, a disable', world(['ir', 'd']), { preemptions: LARGE ? 4 : 2 });
    prove('pagelock cache, a disable and back', world(['lr', 'de', 'i']), { preemptions: LARGE ? 3 : 1 });
  });

  it('loses nothing when a thread dies at any step', () => {
    const preemptions = LARGE ? 2 : 1;
    const cases = ['lr p', 'ir g', 'b lr', 'd lr', 'g p', 'p i'];
    for (const programs of cases) {
      const mortal = LARGE ? [0, 1] : [0];
      prove(`pagelock cache, ${programs}`, world(programs.split(' '), mortal), { deaths: 1, preemptions });
    }
  });
});

describe('seeded bugs in the pagelock cache', () => {
  const seeded = (file: string, find: string, replace: string) => {
    const mutation = { file: `src/seg/${file}`, find, replace };
    const Mutated = scenarioClass<PagelockWorldOptions>('pagelock.ts', 'PagelockWorld', [mutation]);
    return (programs: readonly string[], mortal: readonly number[] = []) =>
      () =>
        new Mutated({ programs, mortal });
  };

  it('finds a last release that keeps a doomed range', () => {
    const make = seeded('range-cache.ts', '((flags & ENTRY_FLAG.doomed) !== 0 || core.disabled)', 'core.disabled');
    expose('doomed range kept', make(['lr', 'p']), { preemptions: 2 }, /doomed and idle/);
  });

  it('finds an insertion that does not look at the switch again', () => {
    const make = seeded('range-cache.ts', 'const entry = fits && !core.disabled ?', 'const entry = fits ?');
    expose('switch not looked at', make(['ir', 'd']), { preemptions: 2 }, /disabled cache holds/);
  });

  it('finds a purge that looks at pins before it has the bucket', () => {
    const make = seeded(
      'range-cache.ts',
      '    core.lockBucket(bucket);\n    const idle = entries.active.get(entry) === 0;\n',
      '    const idle = entries.active.get(entry) === 0;\n    core.lockBucket(bucket);\n',
    );
    expose('pins looked at too early', make(['lr', 'p']), { preemptions: 2 }, /I5/);
  });

  it('finds a pin whose list is not journaled', () => {
    const make = seeded(
      'cache-pins.ts',
      'this.#thread.journal.log3(also, this.#headAt,',
      'this.#thread.journal.log2(also,',
    );
    expose('list of pins not journaled', make(['lr', 'l'], [0]), { deaths: 1, preemptions: 1 }, /cache-pins I3/);
  });
});
