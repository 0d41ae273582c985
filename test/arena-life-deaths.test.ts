/**
 * A thread ends at every single step of what happens around allocations: growing, merging, quarantine, charges, recording.
 * The arena must be sound, in the state before or after the operation; nothing may leak, and no charge may stay behind.
 */

import { afterEach, describe, expect, it } from 'vitest';
import { Callbacks, createOwner, ownerUsage, setSeam, takeOver } from '../src/sync/index.ts';
import { type Arena, Arenas } from '../src/vmem/index.ts';
import { liveFor } from './support/live-for.ts';
import { testRegion, testThread } from './support/region.ts';

afterEach(() => setSeam(undefined));

/** The arena that the operations are on: spans that touch, holes, an import source, charges and a quarantine. */
function populate(arenas: Arenas): Arena {
  const source = arenas.create('source', { base: 10_000, size: 4096 });
  const arena = arenas.create('a', {
    size: 100,
    charge: true,
    quarantine: { frees: 2, early: true },
    import: { from: source },
  });
  arena.add(200, 50);
  arena.add(100, 100);
  for (const [address, size] of [
    [0, 10],
    [10, 20],
    [40, 10],
    [90, 10],
    [120, 30],
    [210, 5],
  ] as const) {
    arena.tryReserve(address, size);
  }
  arena.free(10, 20);
  arena.free(210, 5);
  return arena;
}

/** What a user can see. Order of lists included. */
function stateOf(arena: Arena): string {
  return arena.dump();
}

const OPERATIONS: readonly (readonly [string, (arena: Arena) => unknown, atomic: boolean])[] = [
  ['grow into a part of what follows', (arena) => arena.tryResize(40, 10, 20), true],
  ['grow into all of it', (arena) => arena.tryResize(40, 10, 50), true],
  ['shrink beside an allocation', (arena) => arena.tryResize(120, 30, 10), true],
  ['split', (arena) => arena.split(120, 30, 10), true],
  ['merge two spans', (arena) => arena.mergeSpans(200), true],
  ['merge three spans', (arena) => arena.mergeSpans(), false],
  ['free into quarantine', (arena) => arena.free(0, 10), true],
  ['a free that lets another one go', (arena) => [arena.free(0, 10), arena.free(40, 10)], false],
  ['an empty quarantine', (arena) => arena.releaseQuarantine(), false],
  ['an allocation that empties it', (arena) => arena.xalloc(20, { min: 10, max: 29 }), false],
  ['remove', (arena) => [arena.releaseQuarantine(), arena.remove(200)], false],
  ['tryReserve', (arena) => arena.tryReserve(60, 10), true],
  ['a charged allocation', (arena) => arena.alloc(10), true],
  ['a charged allocation that imports', (arena) => arena.alloc(500), false],
  ['free all', (arena) => arena.xfreeAll(), false],
  ['destroy', (arena) => [arena.xfreeAll(), arena.destroy()], false],
];

describe('a death at every step of the life of an arena', () => {
  it.each(OPERATIONS)('%s', (title, operate, atomic) => {
    const states = new Set<string>();
    let deaths = 0;
    for (let steps = 0; ; steps++) {
      const { region, thread, callbacks } = testRegion();
      createOwner(region, 'default');
      const arenas = new Arenas(thread, callbacks);
      populate(arenas);
      // Half of the runs are recorded.
      const recording = steps % 2 === 0 ? arenas.open('a').record() : undefined;
      const victim = testThread(region);
      const theirs = new Arenas(victim, new Callbacks(region));
      const lived = liveFor(steps, victim, () => operate(theirs.open('a')));
      expect(takeOver(thread, victim.slot, [(_self, dead) => arenas.recover(dead)])).not.toBeNull();
      if (!lived) deaths++;
      for (const { structure, problems } of arenas.check()) expect([structure, ...problems]).toEqual([structure]);
      const charged = () => ownerUsage(region)[0]?.resources.arenaBytes.used;
      if (arenas.has('a')) {
        const arena = arenas.open('a');
        states.add(stateOf(arena));
        // What is charged is what is allocated.
        expect([charged(), steps]).toEqual([arena.size('allocated'), steps]);
        arena.xfreeAll();
        recording?.stop();
        arena.mergeSpans();
        arena.trim();
        const last = arena.size('all');
        if (last === 250) expect(arena.xalloc(250)).toBe(0);
        arena.xfreeAll();
        arena.destroy();
      }
      expect([charged(), steps]).toEqual([0, steps]);
      expect([arenas.open('source').size('allocated'), steps]).toEqual([0, steps]);
      arenas.destroy('source');
      const { tags, unusedTags, ownTags } = arenas.stats();
      expect(unusedTags + ownTags).toBe(tags);
      if (lived) break;
    }
    expect(deaths).toBeGreaterThan(3);
    if (atomic) expect([title, states.size]).toEqual([title, 2]);
    console.log(`${title}: ${deaths} places to die, ${states.size} states`);
  });
});
