/** Condition variables, their asynchronous form, and cancel tokens under every schedule. */

import { describe, it } from 'vitest';
import { expose, LARGE, prove, scenarioClass } from './prove.ts';
import type { CancelOptions } from './scenarios/cancel.ts';
import type { ConditionOptions } from './scenarios/condition.ts';

const world = (...programs: string[]) => mortalWorld([], ...programs);
const mortalWorld = (mortal: number[], ...programs: string[]) =>
  new (scenarioClass<ConditionOptions>('condition.ts', 'ConditionWorld'))({ programs, mortal });

describe('condition variable', () => {
  it('hands items from one thread to another under all interleavings', () => {
    prove('condition, 2 x 2', world('pp', 'tt'), {});
    prove('condition, 2 x 2', mortalWorld([1], 'pp', 'tt'), { deaths: 1 });
    prove('condition, 2 x 2', world('pp', 'TT'), { passTime: true });
    prove('condition, 2 x 2, to and fro', world('pT', 'Tp'), { passTime: true });
  });

  it('hands items over with time limits and a death, when there is time', () => {
    if (!LARGE) return;
    const bounds = { deaths: 1, passTime: true };
    prove('condition, 2 x 2', mortalWorld([0, 1], 'pp', 'TT'), bounds);
    prove('condition, 2 x 2, to and fro', mortalWorld([0, 1], 'pT', 'Tp'), bounds);
  });

  it('wakes another taker when the one that was signalled dies', () => {
    prove('condition, 2 takers', mortalWorld([1], 'pp', 't', 't'), {
      deaths: 1,
      preemptions: LARGE ? 4 : 2,
    });
  });

  it('gives every signal when the thread that signals dies', () => {
    prove('condition, 2 givers', mortalWorld([0], 'p', 'p', 't'), {
      deaths: 1,
      preemptions: LARGE ? 4 : 2,
    });
    const mortal = LARGE ? [1, 2] : [];
    prove('condition, broadcast', mortalWorld(mortal, 'PP', 't', 't'), { deaths: 1, preemptions: 2 });
  });

  it('wakes event loops and threads side by side', () => {
    prove('condition, an event loop', mortalWorld([1], 'pp', 'aa'), { deaths: 1 });
    prove('condition, a thread and an event loop', mortalWorld([1], 'pp', 'a', 't'), {
      deaths: 1,
      preemptions: LARGE ? 2 : 1,
    });
  });
});

describe('cancel token', () => {
  it('ends a wait or comes too late, and nobody hangs', () => {
    const Cancel = scenarioClass<CancelOptions>('cancel.ts', 'CancelWorld');
    prove('cancel, nobody holds', new Cancel({ holder: false, mortal: [1] }), { deaths: 1 });
    prove('cancel', new Cancel({ holder: true, mortal: LARGE ? [0, 1] : [] }), {
      deaths: LARGE ? 1 : 0,
      preemptions: 2,
    });
  });
});

describe('seeded bugs in the condition variable', () => {
  const seeded = (...changes: [find: string, replace: string, file?: string][]) => {
    const mutations = changes.map(([find, replace, file = 'condvar.ts']) => ({
      file: `src/sync/${file}`,
      find,
      replace,
    }));
    const Mutated = scenarioClass<ConditionOptions>('condition.ts', 'ConditionWorld', mutations);
    return (mortal: number[], programs: string[]) => () => new Mutated({ programs, mortal });
  };
  const read = '    const sequence = load(words, this.address);\n';
  const exit = '    mutexRelease(thread, mutex.address);\n';

  it('finds a sequence that is read after the mutex was exited', () => {
    const make = seeded([read, ''], [exit, exit + read]);
    expose('sequence read late', make([], ['pp', 'tt']), {}, /sleep for ever/);
  });

  it('finds a waiter that announces itself after the mutex was exited', () => {
    const announce = '    or(words, bits, thread.bit);\n';
    const make = seeded([announce, ''], [exit, exit + announce]);
    expose('announced late', make([], ['pp', 'tt']), {}, /sleep for ever/);
  });

  it('finds a signal that dies with the thread that it woke', () => {
    const again = '  add(region.words, condition, SEQUENCE_STEP);\n  notify(region.words, condition, ALL_WAITERS);\n';
    const make = seeded([again, '', 'takeover.ts']);
    expose('signal dies', make([1, 2], ['p', 't', 't']), { deaths: 1, preemptions: 2 }, /sleep for ever/);
  });

  it('finds a signal to one that an event loop may take', () => {
    const make = seeded(['(sequence & ASYNC_WAITERS) !== 0 ? ALL_WAITERS : count', 'count']);
    expose('one woken', make([1], ['p', 'a', 't']), { deaths: 1, preemptions: 2 }, /sleep for ever/);
  });
});
