/** Mutex and takeover under every schedule. */

import { describe, expect, it } from 'vitest';
import { Explorer } from './explorer.ts';
import { expose, LARGE, prove, scenarioClass } from './prove.ts';
import type { MutexOptions } from './scenarios/mutex.ts';

const world = (options: MutexOptions) => new (scenarioClass<MutexOptions>('mutex.ts', 'MutexWorld'))(options);

describe('mutex', () => {
  it('holds for two threads with two sections each, under all interleavings', () => {
    prove('mutex, 2 x 2', world({ threads: 2, sections: 2 }), {});
  });

  it('holds for two threads when either dies at any step', () => {
    prove('mutex, 2 x 2', world({ threads: 2, sections: 2, mortal: [0, 1] }), { deaths: 1 });
  });

  it('holds for two threads with time limits, when either dies at any step', () => {
    const options = { threads: 2, sections: 2, mortal: LARGE ? [0, 1] : [1], timed: [1] };
    prove('mutex, 2 x 2', world(options), { deaths: 1, passTime: true });
    prove('mutex, 2 x 2, all timed', world({ ...options, timed: [0, 1], mortal: LARGE ? [0, 1] : [] }), {
      deaths: 1,
      passTime: true,
    });
  });

  it('holds for three threads under all schedules with two preemptions', () => {
    prove('mutex, 3 x 2', world({ threads: 3, sections: 2 }), { preemptions: 2 });
    const options = { threads: 3, sections: LARGE ? 2 : 1, mortal: [0, 1, 2] };
    prove('mutex, 3 threads', world(options), { preemptions: 2, deaths: 1 });
    prove('mutex, 3 threads', world({ ...options, sections: 2, timed: [1] }), {
      preemptions: 2,
      passTime: true,
    });
  });

  it('holds for threads that block and event loops that wait', () => {
    const options = { threads: 2, sections: 2, mortal: [0, 1], async: [1] };
    prove('mutex, 1 blocking and 1 asynchronous', world(options), { deaths: 1 });
    prove('mutex, 2 blocking and 1 asynchronous', world({ ...options, threads: 3, mortal: [] }), {
      preemptions: 2,
    });
    prove('mutex, 1 timed, 1 blocking, 1 asynchronous', world({ ...options, threads: 3, timed: [0] }), {
      preemptions: 2,
      passTime: true,
      deaths: LARGE ? 1 : 0,
    });
  });

  it('holds for three threads with more preemptions, when there is time', () => {
    if (!LARGE) return;
    prove('mutex, 3 x 1', world({ threads: 3, sections: 1, mortal: [0, 1, 2] }), { deaths: 1 });
    prove('mutex, 3 x 2, 4 preemptions', world({ threads: 3, sections: 2 }), { preemptions: 4 });
  });

  it('loses nothing by merging states whose threads stand in the same place', () => {
    for (const options of [
      { threads: 2, sections: 1, mortal: [0, 1] },
      { threads: 2, sections: 1, mortal: [], timed: [1] },
    ]) {
      const bounds = { deaths: options.mortal.length === 0 ? 0 : 1, passTime: options.mortal.length === 0 };
      const merged = new Explorer(world(options), bounds).explore();
      const whole = new Explorer(world(options), { ...bounds, wholeHistories: true }).explore();
      console.log(`merging: ${merged.states} states instead of ${whole.states}`);
      expect(whole.violation).toBeNull();
      expect(whole.complete).toBe(true);
      expect(merged.ends).toBe(whole.ends);
      expect(merged.states).toBeLessThanOrEqual(whole.states);
    }
  });
});

describe('seeded bugs in mutex and takeover', () => {
  const seeded = (file: string, ...changes: [find: string, replace: string][]) => {
    const mutations = changes.map(([find, replace]) => ({ file, find, replace }));
    const Mutated = scenarioClass<MutexOptions>('mutex.ts', 'MutexWorld', mutations);
    return (options: MutexOptions) => () => new Mutated(options);
  };

  it('finds a missing look after waking', () => {
    const make = seeded('src/sync/mutex.ts', [
      "if (result === 'timed-out' || result === 'cancelled') return result;",
      'return result;',
    ]);
    expose('no look after waking', make({ threads: 2, sections: 2 }), {}, /inside|disagree|does not hold|still held/);
  });

  it('finds a timed-out waiter that keeps its wake-up', () => {
    const make = seeded('src/sync/mutex.ts', [
      '  notify(thread.words, address, ALL_WAITERS);\n  thread.clearWait();',
      '  thread.clearWait();',
    ]);
    const options = { threads: 3, sections: 2, timed: [1] };
    expose('wake-up kept', make(options), { preemptions: 2, passTime: true }, /sleep for ever/);
  });

  it('finds a takeover that frees locks before it undoes', () => {
    const undo = 'const undone = undoJournal(region, dead);';
    const make = seeded(
      'src/sync/takeover.ts',
      [undo, ''],
      ['  wakeBesides(region, dead);\n  return', `  wakeBesides(region, dead);\n  ${undo}\n  return`],
    );
    const options = { threads: 2, sections: 2, mortal: [0, 1] };
    expose('locks freed first', make(options), { deaths: 1 }, /inside|disagree/);
  });

  it('finds a sleeper that takes the lock without the mark of waiters', () => {
    const make = seeded('src/sync/mutex.ts', [
      'word, tag | LOCK_WAITERS) === word) break;',
      'word, tag) === word) break;',
    ]);
    expose('no mark', make({ threads: 3, sections: 2 }), { preemptions: 2 }, /sleep for ever/);
  });

  it('finds a record that is dropped before its lock is free', () => {
    const make = seeded('src/sync/mutex.ts', [
      '  mutexRelease(thread, address);\n  thread.dropNewest();',
      '  thread.dropNewest();\n  mutexRelease(thread, address);',
    ]);
    const options = { threads: 2, sections: 1, mortal: [0, 1] };
    expose('record dropped early', make(options), { deaths: 1 }, /sleep for ever|still held/);
  });

  it('finds a store that is made before it is logged', () => {
    const log = '    this.log1(column.base + index);\n';
    const store = '    column.view[index] = value;\n';
    const next = '  }\n\n  /** Stores into one lane';
    const make = seeded('src/sync/journal.ts', [log + store + next, store + log + next]);
    const options = { threads: 2, sections: 2, mortal: [0, 1] };
    expose('store before log', make(options), { deaths: 1 }, /inside|disagree|sections/);
  });

  it('finds a journal whose length covers an entry that is not complete', () => {
    const entry = '    log[length + 1] = words[address] as number;\n    log[length + 2] = address;\n';
    const length = '    log[LENGTH] = length + 2;\n';
    const make = seeded('src/sync/journal.ts', [entry + length, length + entry]);
    const options = { threads: 2, sections: 2, mortal: [0, 1] };
    expose('length first', make(options), { deaths: 1 }, /inside|disagree|sections|monitor/);
  });

  it('finds an exit that wakes one although an event loop waits', () => {
    const make = seeded('src/sync/mutex.ts', ['(word & LOCK_ASYNC) !== 0 ? ALL_WAITERS : 1', '1']);
    const options = { threads: 3, sections: 2, async: [1], mortal: [1] };
    expose('one woken', make(options), { preemptions: 3, deaths: 1 }, /sleep for ever/);
  });
});
