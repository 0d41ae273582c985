/** Attaching and detaching under every schedule, with a death at any step. */

import { describe, it } from 'vitest';
import { expose, LARGE, prove, scenarioClass } from './prove.ts';
import type { SlotOptions } from './scenarios/slots.ts';

describe('slots', () => {
  it('are given out once, and come back whenever their thread dies', () => {
    const Slots = scenarioClass<SlotOptions>('slots.ts', 'SlotWorld');
    prove('slots, 2 threads', new Slots({ stays: 1 }), {});
    prove('slots, 2 threads', new Slots({ stays: 1, mortal: LARGE ? [0, 1] : [0] }), { deaths: 1 });
    prove('slots, 2 threads, 2 stays', new Slots({ stays: 2, mortal: [0] }), {
      deaths: 1,
      preemptions: LARGE ? 4 : 2,
    });
  });

  it('are seen to leak when a takeover forgets the claim', () => {
    const mutations = [
      { file: 'src/sync/slots.ts', find: '  store(region.words, slots.claim.address(slot), 0);\n', replace: '' },
    ];
    const Slots = scenarioClass<SlotOptions>('slots.ts', 'SlotWorld', mutations);
    expose('claim forgotten', () => new Slots({ stays: 1, mortal: [0] }), { deaths: 1 }, /still claimed|all 5 slots/);
  });

  it('are seen to be shared when a slot is taken without a comparison', () => {
    const mutations = [
      {
        file: 'src/sync/slots.ts',
        find: 'compareExchange(region.words, slots.claim.address(slot), 0, watchId) !== 0) continue',
        replace: 'exchange(region.words, slots.claim.address(slot), watchId) < 0) continue',
      },
      {
        file: 'src/sync/slots.ts',
        find: 'import { add, compareExchange, load, store }',
        replace: 'import { add, exchange, load, store }',
      },
    ];
    const Slots = scenarioClass<SlotOptions>('slots.ts', 'SlotWorld', mutations);
    expose('slot shared', () => new Slots({ stays: 1 }), {}, /EDEADLK|inside|disagree|EBUSY|records|does not hold/);
  });
});
