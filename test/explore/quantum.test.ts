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
      ...(LARGE ? {} : { preemptions: 1 }),
    });
  });

  it('lets a thread empty the magazines of others, who go on', () => {
    const rounds = 2;
    const plainStores = true;
    const limit = (preemptions: number) => (LARGE ? { plainStores } : { plainStores, preemptions });
    const few = { plainStores, preemptions: LARGE ? 3 : 1 };
    prove('emptying, who allocates', world({ threads: 2, programs: ['afa', 'e'], rounds }), limit(1));
    prove('emptying, who frees', world({ threads: 2, programs: ['aaff', 'e'], rounds }), limit(2));
    prove('emptying each other', world({ threads: 2, programs: ['afe', 'ae'], rounds }), limit(1));
    prove('emptying by two', world({ threads: 3, programs: ['fa', 'e', 'ea'], rounds }), few);
  });

  it('loses nothing when either thread dies while magazines are emptied', () => {
    const bounds = LARGE ? { deaths: 1, plainStores: true, preemptions: 2 } : { deaths: 1, preemptions: 1 };
    prove('emptying', world({ threads: 2, programs: ['afa', 'e'], mortal: [0, 1], rounds: 2 }), bounds);
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
    const owner = `    const expected = cachedIn(loaded);
    if (compareExchange(this.#words, this.#statesAddress + object, expected, this.#tag) !== expected) {
      return this.#allocSlow();
    }
`;
    const count = '    this.#counts[magazine] = count - 1;\n';
    const label = "    if (VERIFY) faultPoint(this.#thread, 'vmem.magazine.popping');\n";
    const make = seeded(file, owner + label + count, count + owner);
    const options = { threads: 2, programs: ['afaf', 'a'], mortal: [0] };
    expose('count first', make(options), { deaths: 1, preemptions: 1 }, /I1/);
  });

  it('finds an object that is freed without being named', () => {
    const make = seeded(file, '    this.#name(object + 1);\n', '');
    const options = { threads: 2, programs: ['af', 'a'], mortal: [0] };
    expose('not named', make(options), { deaths: 1, preemptions: 1 }, /I3|I1/);
  });

  it('finds an object that is allocated without a look at its state', () => {
    const find = 'object, expected, this.#tag) !== expected';
    const make = seeded(file, find, 'object, expected, this.#tag) === 12345');
    const options = { threads: 2, programs: ['aa', 'e'], rounds: 2 };
    expose('state not looked at', make(options), { plainStores: true, preemptions: 1 }, /is free already|I1|twice/);
  });

  it('finds magazines that are taken from a thread that is freeing', () => {
    const find = 'load(words, this.#slots.pending.address(slot, row)) !== 0';
    const make = seeded('src/vmem/magazine-depot.ts', find, 'load(words, loadedAddress) === 12345');
    const options = { threads: 2, programs: ['aaff', 'e'], rounds: 2 };
    expose('pending not looked at', make(options), { plainStores: true, preemptions: 2 }, /I1|objects|I3/);
  });

  it('finds a parked magazine that is used again before its thread has looked', () => {
    const find = '    this.emptyParked(slot);\n    return true;';
    const make = seeded('src/vmem/magazine-depot.ts', find, '    this.settleParked(slot);\n    return true;');
    const options = { threads: 2, programs: ['afa', 'e'], rounds: 2 };
    expose('not parked', make(options), { plainStores: true, preemptions: 1 }, /I1|objects|once|two/);
  });
});
