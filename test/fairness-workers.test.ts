/**
 * How many later requests of its class precede a request that waits, once space fits it: counted by those who overtake, in
 * real threads. The arena has room for one request of the class at a time, so all space that comes back fits whoever waits.
 */

import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { store } from 'pagewright/sync';
import { afterEach, describe, expect, it } from 'vitest';
import { nextMessage, start, until } from './support/chaos.ts';
import { untilContended } from './support/contention.ts';

const program = new URL('../build/test/workers/overtaker.js', import.meta.url);
const seed = Number(process.env.PAGEWRIGHT_SEED ?? 20261121);
const SLOTS = 8;
const ROLES = ['churn', 'wait', 'busy'] as const;
/** Longer than one run waits for. */
const TICKETS = 1 << 20;
const RUN_MS = Number(process.env.PAGEWRIGHT_FAIRNESS_MS ?? 1500);

let vm: VirtualMemory | undefined;

afterEach(async () => {
  if (vm) await shutDown(vm);
  vm = undefined;
});

describe('a request that waits', () => {
  it.each([
    ['plain, of many sizes', { size: 64 }, 33, 63],
    ['objects of a quantum cache', { size: 64, quantumCacheMax: 16 }, 16, 16],
  ] as const)(
    'is overtaken by no more later ones than there are slots: %s',
    async (name, options, sizeMin, sizeMax) => {
      vm = boot({ memory: '1 MiB', slots: SLOTS });
      const system = vm;
      const arena = system.createArena('one', options);
      const cached = 'quantumCacheMax' in options;
      // A slab has four objects: one is left.
      const kept = cached ? [0, 1, 2].map(() => arena.alloc(16)) : [];
      const control = new Int32Array(new SharedArrayBuffer(4 * 8));
      const overtaken = new Int32Array(new SharedArrayBuffer(4 * TICKETS));
      const crew = [];
      for (const [number, role] of ['churn', 'wait', 'churn', 'busy'].entries()) {
        const workerData = { seed: seed + number, role, sizeMin, sizeMax, cached, control, overtaken };
        crew.push(await start(system, program, workerData));
      }
      const results = crew.map(({ worker }) => nextMessage(worker));
      await new Promise((resolve) => setTimeout(resolve, RUN_MS));
      const { ticketNext } = system.region.tables.spaceQueue;
      const met = () => ticketNext.get(0) > 20 && overtaken.subarray(0, ticketNext.get(0)).some((count) => count > 0);
      await Promise.race([until(met, 'nobody overtakes anybody'), ...results]);
      await Promise.race([untilContended(system, crew), ...results]);
      store(control, 0, 1);
      let contended = 0;
      let slept = 0;
      for (const [result] of await Promise.all(results)) {
        contended += result.contended;
        slept += result.slept;
      }
      await Promise.all(crew.map(({ worker }) => worker.terminate()));
      const tickets = ticketNext.get(0);
      expect(tickets).toBeLessThan(TICKETS);
      const counts = [...overtaken.subarray(0, tickets)];
      const most = Math.max(...counts);
      const turns = ROLES.map((role, at) => `${control[2 + at]} of ${role}`).join(', ');
      const often = counts.filter((count) => count > 0).length;
      console.log(
        `${name}: seed ${seed}, ${tickets} waits, ${turns}; ${often} were overtaken, at most ${most} times; ` +
          `${contended} contended entries, ${slept} sleeps`,
      );
      expect(tickets).toBeGreaterThan(20);
      expect(contended).toBeGreaterThan(0);
      expect(most).toBeGreaterThan(0);
      expect(most).toBeLessThanOrEqual(SLOTS);
      for (const address of kept) arena.free(address, 16);
      arena.drain();
      arena.trim();
      expect(system.check().flatMap((report) => report.problems)).toEqual([]);
      expect(arena.xalloc(64)).toBe(0);
    },
  );
});
