/**
 * A thread ends at every single step of every arena operation: before each logged store and before each atomic operation.
 * By default every third step of the run's seed is one; `PAGEWRIGHT_EXPLORE=large` takes them all.
 * The takeover must leave sound arenas, in the state before or after the operation, and nothing may leak.
 */

import { afterEach, describe, expect, it } from 'vitest';
import { Callbacks, setSeam, takeOver } from '../src/sync/index.ts';
import { type Arena, Arenas } from '../src/vmem/index.ts';
import { DEATH_STRIDE, liveFor } from './support/live-for.ts';
import { testRegion, testThread } from './support/region.ts';
import { testSeed } from './support/seed.ts';

afterEach(() => setSeam(undefined));

/** The first death: other seeds die at other steps. */
const FIRST = testSeed('arena deaths', 20261121) % DEATH_STRIDE;

interface World {
  readonly arenas: Arenas;
  readonly leaves: readonly string[];
}

/** A heap with holes, children that import from it, and an arena with spans of its own. */
function populate(arenas: Arenas): World {
  const heap = arenas.create('heap', { base: 4096, size: 65536, quantum: 16 });
  const plain = arenas.create('plain', { import: { from: heap } });
  const middle = arenas.create('middle', { quantum: 8, import: { from: heap, large: true } });
  const leaf = arenas.create('leaf', { import: { from: middle } });
  const own = arenas.create('own', { size: 100 });
  own.add(300, 100);
  own.add(200, 50);
  const exact = arenas.create('exact', { size: 100, strategy: 'exact' });
  const next = arenas.create('next', { size: 100, strategy: 'next' });
  for (const arena of [plain, leaf, own, exact, next]) {
    const addresses = [10, 20, 5, 16, 7].map((size) => [arena.alloc(size), size] as const);
    for (const index of [0, 2, 3]) arena.free(...(addresses[index] as readonly [number, number]));
  }
  return { arenas, leaves: ['plain', 'leaf', 'own', 'exact', 'next'] };
}

function busyOf(arena: Arena, kind = 'busy'): { start: number; size: number }[] {
  return arena.snapshot().segments.filter((segment) => segment.kind === kind);
}

/** The rest behind the cursor first, then what lies before it. */
function roam(arena: Arena): void {
  for (const size of [42, 9]) arena.alloc(size);
}

function refuseTwice(arena: Arena): void {
  for (let time = 0; time < 2; time++) arena.tryXalloc(60, { align: 64, phase: 63 });
  const { start, size } = busyOf(arena)[0] as { start: number; size: number };
  arena.free(start, size);
  arena.tryXalloc(60, { align: 64, phase: 63 });
}

const OPERATIONS: readonly (readonly [string, (arenas: Arenas) => void])[] = [
  ['alloc with a rear remainder', (arenas) => arenas.open('own').alloc(3)],
  ['alloc with front and rear remainders', (arenas) => arenas.open('own').xalloc(3, { align: 16, phase: 5 })],
  [
    'alloc that takes all of a segment',
    (arenas) => arenas.open('own').alloc(busyOf(arenas.open('own'), 'free')[0]?.size ?? 1),
  ],
  ['exact fit', (arenas) => arenas.open('exact').alloc(4)],
  ['exact fit with front and rear remainders', (arenas) => arenas.open('exact').xalloc(3, { align: 16, phase: 5 })],
  ['exact fit in an arena that gets its trees for it', (arenas) => arenas.open('own').alloc(3, 'exact')],
  ['free of everything where trees are kept', (arenas) => arenas.open('exact').xfreeAll()],
  ['next fit', (arenas) => arenas.open('next').alloc(6)],
  ['next fit once around', (arenas) => roam(arenas.open('next'))],
  ['next fit in an arena that gets its tree for it', (arenas) => arenas.open('own').alloc(3, 'next')],
  ['next fit and free of everything', (arenas) => arenas.open('next').xfreeAll()],
  ['constrained request that is refused, and again', (arenas) => refuseTwice(arenas.open('own'))],
  ['alloc that imports', (arenas) => arenas.open('plain').alloc(4000)],
  ['alloc that imports twice', (arenas) => arenas.open('leaf').alloc(3000)],
  ['alloc that imports under constraints', (arenas) => arenas.open('leaf').xalloc(300, { align: 1024 })],
  ['alloc that fails', (arenas) => arenas.open('leaf').tryAlloc(1 << 20)],
  ['free of everything, one by one', (arenas) => arenas.open('own').xfreeAll()],
  ['free that releases spans', (arenas) => arenas.open('plain').xfreeAll()],
  ['free that releases through two levels', (arenas) => arenas.open('leaf').xfreeAll()],
  ['add', (arenas) => arenas.open('own').add(1000, 10)],
  [
    'remove',
    (arenas) => {
      const own = arenas.open('own');
      own.add(1000, 10);
      own.remove(1000);
    },
  ],
  ['tryReserve', (arenas) => arenas.open('own').tryReserve(220, 10)],
  ['rehash', (arenas) => arenas.open('own').rehash(64)],
  ['create and destroy', (arenas) => arenas.create('new', { size: 10 }).destroy()],
  ['create', (arenas) => arenas.create('new', { import: { from: arenas.open('heap') } })],
  ['trim', (arenas) => arenas.open('leaf').trim()],
  [
    'destroy of an arena with imported spans',
    (arenas) => {
      const arena = arenas.create('short', { import: { from: arenas.open('heap') } });
      arena.free(arena.alloc(100), 100);
      arena.destroy();
    },
  ],
  [
    'many small allocations, with refills and rehashes',
    (arenas) => {
      const own = arenas.open('own');
      for (let count = 0; count < 40; count++) own.alloc(1);
    },
  ],
];

describe('a death at every step', () => {
  it.each(OPERATIONS)('%s', (_title, operate) => {
    let deaths = 0;
    for (let steps = FIRST; ; steps += DEATH_STRIDE) {
      const { region, thread, callbacks } = testRegion();
      const { arenas, leaves } = populate(new Arenas(thread, callbacks));
      const victim = testThread(region);
      const theirs = new Arenas(victim, new Callbacks(region));
      const before = new Map(arenas.list().map((arena) => [arena.name, busyOf(arena)]));
      const lived = liveFor(steps, victim, () => operate(theirs));
      expect(takeOver(thread, victim.slot, [(_self, dead) => arenas.recover(dead)])).not.toBeNull();
      if (!lived) deaths++;
      // Sound, and what others had is still theirs.
      for (const { structure, problems } of arenas.check()) expect([structure, ...problems]).toEqual([structure]);
      expect(before.size).toBeLessThanOrEqual(arenas.list().length);
      // Nothing has leaked: everything can be freed, taken in one piece, and given back.
      for (const name of leaves) {
        const arena = arenas.open(name);
        arena.xfreeAll();
        arena.trim();
      }
      for (const name of ['new', 'short']) {
        if (!arenas.list().some((arena) => arena.name === name)) continue;
        arenas.open(name).xfreeAll();
        arenas.destroy(name);
      }
      arenas.open('middle').trim();
      expect([arenas.open('heap').size('allocated'), steps]).toEqual([0, steps]);
      const heap = arenas.open('heap');
      heap.free(heap.alloc(65536), 65536);
      for (const name of ['leaf', 'plain', 'middle', 'own', 'exact', 'next', 'heap']) arenas.destroy(name);
      const { tags, unusedTags, ownTags } = arenas.stats();
      expect(unusedTags + ownTags).toBe(tags);
      if (lived) break;
    }
    expect(deaths).toBeGreaterThan(0);
    console.log(`${_title}: ${deaths} places to die`);
  });

  it('leaves a single-arena operation undone or done, nothing between', () => {
    for (const [title, operate] of OPERATIONS.slice(0, 3)) {
      const states = new Set<string>();
      for (let steps = 0; ; steps++) {
        const { region, thread, callbacks } = testRegion();
        const { arenas } = populate(new Arenas(thread, callbacks));
        const victim = testThread(region);
        const lived = liveFor(steps, victim, () => operate(new Arenas(victim, new Callbacks(region))));
        takeOver(thread, victim.slot, [(_self, dead) => arenas.recover(dead)]);
        states.add(arenas.open('own').dump());
        if (lived) break;
      }
      expect([title, states.size]).toEqual([title, 2]);
    }
  });
});
