/** Requests that wait for space under every schedule: the queue, the waiting, time-outs, and what a dead thread leaves. */

import { describe, it } from 'vitest';
import { expose, LARGE, prove, scenarioClass } from './prove.ts';
import type { SpaceOptions } from './scenarios/space.ts';
import type { Mutation } from './sources.ts';

/** Waiters look by themselves four times a second: here they do not, so that a wake-up that is lost is seen. */
const NO_LOOK: Mutation = {
  file: 'src/vmem/waiting.ts',
  find: 'const LOOK_MS = 250;',
  replace: 'const LOOK_MS = FOREVER;',
};

const Patient = scenarioClass<SpaceOptions>('space.ts', 'SpaceWorld', [NO_LOOK]);
const world = (options: SpaceOptions) => new Patient(options);

describe('waiting for space', () => {
  it('wakes who waits when something is freed, under all interleavings', () => {
    prove('space, one waits', world({ programs: ['f', '1f'], units: 1, taken: 1 }), {});
    prove('space, one waits for two', world({ programs: ['ff', '2f'], units: 2, taken: 2 }), {});
    prove('space, both wait in turn', world({ programs: ['f1f', '1f'], units: 1, taken: 1 }), { preemptions: 3 });
  });

  it('serves several waiters, and requests that do not wait', () => {
    const preemptions = LARGE ? 2 : 1;
    prove('space, one overtakes', world({ programs: ['f', '1f', 'nf'], units: 1, taken: 1 }), { preemptions });
    prove('space, two of a class', world({ programs: ['f', '1f', '1f'], units: 1, taken: 1 }), { preemptions });
    if (!LARGE) return;
    prove('space, two classes', world({ programs: ['ff', '2f', '1f'], units: 2, taken: 2 }), { preemptions: 1 });
  });

  it('serves those behind one that nothing fits, and one that does not come for what fits it', () => {
    prove('space, behind one too large', world({ programs: ['ff', '2f'], units: 2, taken: 2, stuck: 3 }), {});
    prove('space, behind a busy one', world({ programs: ['ff', '1f'], units: 2, taken: 2, stuck: 1 }), {});
  });

  it('loses nobody when a thread dies at any step', () => {
    const preemptions = LARGE ? 4 : 1;
    prove('space, who frees dies', world({ programs: ['f', '1f'], units: 1, taken: 1, mortal: [0] }), {
      deaths: 1,
      ...(LARGE ? {} : { preemptions: 1 }),
    });
    prove('space, who waits dies', world({ programs: ['f1f', '1f'], units: 1, taken: 1, mortal: [1] }), {
      deaths: 1,
      preemptions,
    });
    prove('space, one of two dies', world({ programs: ['f', '1f', '1f'], units: 1, taken: 1, mortal: [0, 1] }), {
      deaths: 1,
      preemptions: LARGE ? 2 : 0,
    });
  });

  it('lets time run out at any step', () => {
    prove('space, a time limit', world({ programs: ['f1f', '!f'], units: 1, taken: 1 }), {
      passTime: true,
      preemptions: LARGE ? 4 : 1,
    });
  });

  it('wakes an event loop', () => {
    prove('space, an event loop', world({ programs: ['f', 'af'], units: 1, taken: 1, mortal: [0, 1] }), {
      deaths: 1,
      preemptions: LARGE ? 4 : 1,
    });
  });
});

describe('seeded bugs in waiting for space', () => {
  const seeded = (find: string, replace: string, file = 'space-queue') => {
    const bugs = [{ file: `src/vmem/${file}.ts`, find, replace }];
    const Mutated = scenarioClass<SpaceOptions>('space.ts', 'SpaceWorld', [NO_LOOK, ...bugs]);
    return (options: SpaceOptions) => () => new Mutated(options);
  };

  const wake = 'if (rows.slot.get(row) !== 0) wake(thread, row);\n  exit';

  it('finds a waiter that says that it waits after it has tried', () => {
    const mark = '  markWaiting(core, row);\n  const address = request.attempt(row);\n';
    const late = '  const address = request.attempt(row);\n  markWaiting(core, row);\n';
    const make = seeded(mark, late, 'waiting');
    expose('marked late', make({ programs: ['ff', '2f'], units: 2, taken: 2 }), {}, /sleep for ever/);
  });

  it('finds a queue that is left without telling who is first now', () => {
    const tell = '  tellAll(thread, core.row);\n  exit(thread);\n}\n\n/** Step 2';
    const make = seeded(tell, tell.replace('  tellAll(thread, core.row);\n', ''));
    const options = { programs: ['ff', '1', '1'], units: 2, taken: 2 };
    expose('left silently', make(options), { preemptions: 2 }, /sleep for ever/);
  });

  it('finds that one that nothing fits stops those behind it', () => {
    const deprived = 'const deprived = ahead.length === 0 ? ahead : deprives(ahead);';
    const make = seeded(deprived, 'const deprived = ahead;');
    expose('head of line', make({ programs: ['ff', '2f'], units: 2, taken: 2, stuck: 3 }), {}, /sleep for ever/);
  });

  it('finds a death between freeing and telling', () => {
    const make = seeded(wake, 'load(thread.words, 0);\n  exit');
    const options = { programs: ['f', '1f'], units: 1, taken: 1, mortal: [0] };
    expose('recovery tells nobody', make(options), { deaths: 1, preemptions: 1 }, /sleep for ever/);
  });

  it('finds a death between telling and waking', () => {
    const make = seeded(wake, 'if (rows.slot.get(row) !== 0) tell(thread, row);\n  exit');
    const options = { programs: ['f', '1f'], units: 1, taken: 1, mortal: [0] };
    expose('told, not woken', make(options), { deaths: 1, preemptions: 1 }, /sleep for ever/);
  });
});
