/** Quantum caches under every schedule: the paths without a lock, the depot, and what a dead thread leaves. */

import { describe, it } from 'vitest';
import { expose, LARGE, prove, scenarioClass } from './prove.ts';
import type { QuantumOptions } from './scenarios/quantum.ts';

const world = (options: QuantumOptions) => new (scenarioClass<QuantumOptions>('quantum.ts', 'QuantumWorld'))(options);

describe('quantum cache', () => {
  it('keeps every object in one place for two threads, under all interleavings', () => {
    prove('quantum cache, own objects', world({ threads: 2, programs: ['aaff', 'aff'] }), {});
  });

  it('lets one thread free what another allocated', () => {
    prove('quantum cache, passed on', world({ threads: 2, programs: ['apap', 'tat'] }), {});
  });

  it('loses nothing when either thread dies at any step', () => {
    const programs = LARGE ? ['aafaff', 'apt'] : ['aaff', 'ap'];
    prove('quantum cache', world({ threads: 2, programs, mortal: [0, 1] }), {
      deaths: 1,
      ...(LARGE ? {} : { preemptions: 2 }),
    });
  });

  it('tells one of two threads that free the same object', () => {
    const options = { threads: 2, programs: ['t', 't'], sameObject: true };
    prove('quantum cache, the same object', world(options), {});
    prove('quantum cache, the same object', world({ ...options, mortal: [0, 1] }), { deaths: 1 });
  });
});

describe('seeded bugs in the quantum cache', () => {
  const seeded = (file: string, find: string, replace: string) => {
    const Mutated = scenarioClass<QuantumOptions>('quantum.ts', 'QuantumWorld', [{ file, find, replace }]);
    return (options: QuantumOptions) => () => new Mutated(options);
  };
  const file = 'src/vmem/quantum-cache.ts';

  it('finds a free that does not look at the state again', () => {
    const make = seeded(file, 'state, this.#freeing) !== state) {', 'state, this.#freeing) === 12345) {');
    const options = { threads: 2, programs: ['t', 't'], sameObject: true };
    expose('state not compared', make(options), {}, /accepted|I1/);
  });

  it('finds a count that is lowered before the owner is stored', () => {
    const owner = '    this.#states[object] = this.#tag;\n';
    const count = '    this.#counts[magazine] = count - 1;\n';
    const make = seeded(file, owner + count, count + owner);
    const options = { threads: 2, programs: ['afaf', 'a'], mortal: [0] };
    expose('count first', make(options), { deaths: 1, preemptions: 1 }, /I1/);
  });

  it('finds an object that is freed without being named', () => {
    const make = seeded(file, '    this.#pending[this.row] = object + 1;\n', '');
    const options = { threads: 2, programs: ['af', 'a'], mortal: [0] };
    expose('not named', make(options), { deaths: 1, preemptions: 1 }, /I3|I1/);
  });
});
