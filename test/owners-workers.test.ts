/** Owners that come and go under workers that charge them, and under one that is terminated again and again. */

import { setTimeout as pause } from 'node:timers/promises';
import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { afterEach, describe, expect, it } from 'vitest';
import { kill, nextMessage, start, until } from './support/chaos.ts';
import { testSeed } from './support/seed.ts';

const program = new URL('../build/test/workers/owner-churn.js', import.meta.url);
const keeper = new URL('../build/test/workers/owner-keeper.js', import.meta.url);

let vm: VirtualMemory | undefined;

afterEach(async () => {
  if (vm) await shutDown(vm);
  vm = undefined;
});

describe('owners under workers', () => {
  it('never go while they are charged, and are charged nothing in the end', async () => {
    const seed = testSeed('owners under workers', 20261127);
    vm = boot({ memory: '1 MiB', slots: 8, owners: 3 });
    const system = vm;
    const arena = system.createArena('ids', { size: 256, charge: true });
    const counts = new Int32Array(new SharedArrayBuffer(16));
    const stop = new Int32Array(new SharedArrayBuffer(4));
    let started = 0;
    const join = () => start(system, program, { seed: seed + started++, counts, stop });
    const crew = [await join(), await join()];
    for (let round = 0; round < 6; round++) {
      const victim = await join();
      await pause(10 + ((round * 7) % 30));
      await kill(system, victim);
      for (const { attachment } of arena.allocations()) {
        if ((attachment & 127) - 1 === victim.slot) arena.freeOf(attachment);
      }
    }
    await until(() => counts.every((count) => count > 10), `too little of something: ${counts}`);
    const ended = crew.map(({ worker }) => nextMessage(worker));
    stop[0] = 1;
    await Promise.all(ended);
    const [turned, missed, changed, refused] = counts;
    console.log(`${turned} turns to owners, ${missed} to none, ${changed} changes of owners, ${refused} refused`);
    for (const count of counts) expect(count).toBeGreaterThan(10);
    expect(arena.size('allocated')).toBe(0);
    for (const { name, resources } of system.statistics().owners) {
      expect(resources.arenaBytes.used).toBe(0);
      if (name !== 'default') system.removeOwner(name);
    }
    expect(system.statistics().owners.map(({ name }) => name)).toEqual(['default']);
    expect(system.check().flatMap(({ problems }) => problems)).toEqual([]);
    expect(arena.alloc(256)).toBe(0);
  });

  it('are there all the time while others try in vain to remove them', async () => {
    vm = boot({ memory: '1 MiB', slots: 6, owners: 3 });
    const system = vm;
    system.createOwner('busy', { frames: 200, swap: 50 });
    system.chargeTo('busy');
    const rounds = new Int32Array(new SharedArrayBuffer(4));
    const stop = new Int32Array(new SharedArrayBuffer(4));
    const { worker, slot } = await start(system, keeper, { rounds, stop });
    const ended = nextMessage(worker);
    const hasMet = () => system.statistics().slots.some((report) => report.slot === slot && report.contended > 3);
    let refused = 0;
    const attempt = () => {
      for (let again = 0; again < 200; again++) {
        expect(() => system.removeOwner('busy')).toThrow(/^EBUSY/);
        refused++;
      }
      return rounds[0] !== undefined && rounds[0] > 200 && hasMet();
    };
    await until(attempt, 'the worker meets nobody who removes');
    stop[0] = 1;
    await ended;
    console.log(`${rounds[0]} rounds beside ${refused} attempts to remove the owner`);
    system.frames.reserveFor('busy', 0);
    system.chargeTo(0);
    system.removeOwner('busy');
    expect(system.check().flatMap(({ problems }) => problems)).toEqual([]);
    expect(system.statistics().owners.map(({ name }) => name)).toEqual(['default']);
  });
});
