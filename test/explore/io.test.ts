/** Requests to the I/O worker under every schedule, with the end of who asks or answers at any step. */

import { describe, it } from 'vitest';
import { expose, LARGE, prove, scenarioClass } from './prove.ts';
import type { IoOptions } from './scenarios/io.ts';

const world = (options: IoOptions) => new (scenarioClass<IoOptions>('io.ts', 'IoWorld'))(options);

describe('requests to the I/O worker', () => {
  it('are answered once each, under all interleavings', () => {
    prove('io, one asker', world({ questions: [1], rows: 1 }), {});
    prove('io, two questions', world({ questions: [2], rows: 1, fails: true }), { preemptions: LARGE ? 3 : 1 });
    prove('io, two askers', world({ questions: [1, 1], rows: 2 }), { preemptions: LARGE ? 2 : 0 });
    prove('io, two askers, one row', world({ questions: [1, 1], rows: 1 }), { preemptions: LARGE ? 2 : 0 });
  });

  it('leave no row and touch no frame of others when who asks ends', () => {
    prove('io, an asker dies', world({ questions: [1], rows: 1, mortal: [0] }), { deaths: 1 });
    prove('io, one of two askers dies', world({ questions: [1, 1], rows: 2, mortal: [0] }), {
      deaths: 1,
      preemptions: LARGE ? 1 : 0,
    });
  });

  it('fail when the worker ends', () => {
    prove('io, the worker dies', world({ questions: [1], rows: 1, mortal: [1] }), { deaths: 1 });
    if (LARGE)
      prove('io, the worker of two dies', world({ questions: [1, 1], rows: 2, mortal: [2] }), {
        deaths: 1,
        preemptions: 0,
      });
  });
});

describe('seeded bugs in requests', () => {
  const file = 'src/vnode/io-requests.ts';
  const seeded = (find: string, replace: string, options: IoOptions) => {
    const Mutated = scenarioClass<IoOptions>('io.ts', 'IoWorld', [{ file, find, replace }]);
    return () => new Mutated(options);
  };
  const bounds = { deaths: 1, preemptions: 2 };

  it('finds a copy that does not say that it is one', () => {
    const find =
      'if (compareExchange(words, address, IO_STATE.running, IO_STATE.copying) !== IO_STATE.running) return;';
    const make = seeded(find, 'if (load(words, address) !== IO_STATE.running) return;', {
      questions: [1],
      rows: 1,
      mortal: [0],
    });
    expose('copy unsaid', make, bounds, /a copy goes into frame|frame of the dead/);
  });

  it('finds a request that is freed while the worker has it', () => {
    const find =
      'const next = state === IO_STATE.running || state === IO_STATE.copying ? IO_STATE.abandoned : IO_STATE.free;';
    const make = seeded(find, 'const next = IO_STATE.free;', { questions: [1, 1], rows: 1, mortal: [0] });
    expose('freed while served', make, bounds, /left in state|instead of|was given|a copy goes/);
  });

  it('finds an answer to a request that was given up', () => {
    const find = 'const next = now === IO_STATE.abandoned ? IO_STATE.free : state;';
    const make = seeded(find, 'const next = state;', { questions: [1], rows: 1, mortal: [0] });
    expose('answered the dead', make, bounds, /left in state/);
  });

  it('finds a worker that does not wake who asked', () => {
    const find = '      if (compareExchange(words, address, now, next) === now) break;\n    }\n    notify(';
    const make = seeded(find, find.replace('notify(', 'if (words.length === 0) notify('), { questions: [1], rows: 1 });
    // The asker looks now and then by itself.
    prove('io, nobody woken', make(), {});
  });

  it('finds a worker that ends without failing what it had', () => {
    const find = 'state === IO_STATE.posted || state === IO_STATE.running || state === IO_STATE.copying)';
    const make = seeded(find, 'state === IO_STATE.posted)', { questions: [1], rows: 1, mortal: [1] });
    expose('not failed', make, bounds, /left in state|sleep|states/);
  });
});
