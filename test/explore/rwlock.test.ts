/** The readers/writer lock and its takeover under every schedule. */

import { describe, it } from 'vitest';
import { expose, LARGE, prove, scenarioClass } from './prove.ts';
import type { RwLockOptions } from './scenarios/rwlock.ts';

const world = (mortal: number[], ...programs: string[]) =>
  new (scenarioClass<RwLockOptions>('rwlock.ts', 'RwLockWorld'))({ programs, mortal });

const BOTH = [0, 1];
const ALL = [0, 1, 2];

describe('readers/writer lock', () => {
  it('holds for two threads that read and write, under all interleavings with a death', () => {
    prove('rwlock, rw | wr', world([], 'rw', 'wr'), {});
    prove('rwlock, rw | wr', world(BOTH, 'rw', 'wr'), { deaths: 1 });
    prove('rwlock, ww | nr', world(BOTH, 'ww', 'nr'), { deaths: 1 });
    prove('rwlock', world(LARGE ? BOTH : [], 'RW', 'WR'), { deaths: 1, passTime: true });
    prove('rwlock, tries', world(BOTH, '?!', 'w!'), { deaths: 1 });
  });

  it('holds for upgrades and downgrades, with a death', () => {
    prove('rwlock, upgrades', world(BOTH, 'uw', 'uw'), { deaths: 1 });
    prove('rwlock, downgrades', world(BOTH, 'dr', 'dr'), { deaths: 1 });
    prove('rwlock, upgrade and downgrade', world(LARGE ? BOTH : [], 'ud', 'du'), { deaths: 1 });
  });

  it('holds for three threads under all schedules with two preemptions and a death', () => {
    const bounds = { deaths: 1, preemptions: LARGE ? 3 : 2 };
    prove('rwlock, r | w | w', world(LARGE ? ALL : [0, 1], 'r', 'w', 'w'), bounds);
    prove('rwlock, r | r | w', world(LARGE ? ALL : [0, 2], 'r', 'r', 'w'), bounds);
    prove('rwlock, u | r | d', world(LARGE ? ALL : [0], 'u', 'r', 'd'), bounds);
    prove('rwlock, R | W | w', world([], 'R', 'W', 'w'), { preemptions: 2, passTime: true });
  });

  it('holds for event loops', () => {
    prove('rwlock, asynchronous writer', world(BOTH, 'xy', 'wr'), { deaths: 1 });
    prove('rwlock, asynchronous reader', world(BOTH, 'yy', 'ww'), { deaths: 1 });
    prove('rwlock, asynchronous both', world(BOTH, 'xy', 'yx'), { deaths: 1 });
  });
});

describe('seeded bugs in the readers/writer lock', () => {
  const seeded = (file: string, ...changes: [find: string, replace: string][]) => {
    const mutations = changes.map(([find, replace]) => ({ file: `src/sync/${file}`, find, replace }));
    const Mutated = scenarioClass<RwLockOptions>('rwlock.ts', 'RwLockWorld', mutations);
    return (mortal: number[], ...programs: string[]) =>
      () =>
        new Mutated({ programs, mortal });
  };

  it('finds a reader that looks for the writer before it sets its bit', () => {
    const fault = "  if (VERIFY) faultPoint(thread, 'sync.rwlock.shared');\n";
    const set = `  or(words, bits, bit);\n${fault}  if ((load(words, address) & LOCK_OWNER) === 0) return true;\n`;
    const swapped =
      '  const owner = load(words, address) & LOCK_OWNER;\n  or(words, bits, bit);\n  if (owner === 0) return true;\n';
    const make = seeded('rwlock.ts', [set, swapped]);
    expose('bit set late', make([], 'r', 'w'), {}, /beside a writer|change under|inside|disagree/);
  });

  it('finds a last reader that leaves without a word', () => {
    const wake = ' && (load(words, address) & LOCK_OWNER) !== 0) notify(words, bits, ALL_WAITERS);';
    const make = seeded('rwlock.ts', [wake, ' && bits < 0) notify(words, bits, ALL_WAITERS);']);
    expose('no wake-up of the writer', make([], 'r', 'w'), {}, /sleep for ever/);
  });

  it('finds a downgrade that gives the lock back before it sets its bit', () => {
    const fault = "  if (VERIFY) faultPoint(thread, 'sync.rwlock.downgraded');\n";
    const set = `  or(thread.words, address + 1 + thread.bitLane, thread.bit);\n${fault}`;
    const give = '  exclusiveRelease(thread, address);\n';
    const make = seeded('rwlock.ts', [set + give, give + set]);
    expose('downgrade with a gap', make([], 'd', 'w'), {}, /beside a writer|change under|inside|disagree/);
  });

  it('finds an upgrade that does not look for other readers', () => {
    const make = seeded('rwlock.ts', [
      '  and(words, address + 1 + thread.bitLane, ~bit);\n  if (!anyReader(thread, address)) return true;',
      '  and(words, address + 1 + thread.bitLane, ~bit);\n  if (bit !== 0) return true;',
    ]);
    expose('upgrade beside readers', make([], 'u', 'r'), {}, /beside a writer|change under/);
  });

  it('finds a takeover that leaves the bit of a dead reader', () => {
    const make = seeded('takeover.ts', ['  const before = and(region.words, bits, ~bit);', '  const before = bit;']);
    expose('bit left', make([0], 'r', 'w'), { deaths: 1 }, /sleep for ever|not empty/);
  });
});
