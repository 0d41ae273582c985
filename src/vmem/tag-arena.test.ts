/** Boundary tags that come from an arena whose own tags are among them: growing, shrinking, the ceiling, deaths. */

import { describe, expect, it } from 'vitest';
import { dieAtEveryStep } from '../../test/support/deaths.ts';
import { testRegion, testThread } from '../../test/support/region.ts';
import { testSeed } from '../../test/support/seed.ts';
import { Prng } from '../base/index.ts';
import type { Geometry } from '../layout/index.ts';
import { armFault, Callbacks, disarmFault } from '../sync/index.ts';
import { type Arena, Arenas } from './index.ts';

/** 32 chunks of 32 rows. */
const TAGS = 1024;
const ROWS = 32;

function makeArenas(overrides: Partial<Geometry> = {}) {
  const made = testRegion({ tags: TAGS, tagBuckets: 4 * TAGS, ...overrides });
  return { ...made, arenas: new Arenas(made.thread, made.callbacks) };
}

/** Numbers of the arena of tags. */
function tagArena(arenas: Arenas) {
  const found = arenas.stats().arenas.at(-1);
  expect(found?.name).toBe('vm.tags');
  return found as NonNullable<typeof found>;
}

function expectSound(arenas: Arenas): void {
  expect(arenas.check().flatMap(({ problems }) => problems)).toEqual([]);
}

/** Makes as many allocations of 1 as there is room for; returns how many. */
function fill(arena: Arena, most = Number.POSITIVE_INFINITY): number[] {
  const got: number[] = [];
  while (got.length < most) {
    const address = arena.tryAlloc(1);
    if (address < 0) break;
    got.push(address);
  }
  return got;
}

/** Ends all arenas: nothing is in use then but what the arena of tags has for itself. */
function endOracle(arenas: Arenas): void {
  for (const arena of arenas.list()) {
    arena.xfreeAll();
    arena.destroy();
  }
  expectSound(arenas);
  const { tags, unusedTags, ownTags } = arenas.stats();
  expect(unusedTags + ownTags).toBe(tags);
}

describe('the arena of boundary tags', () => {
  it('gives chunks out when the pool is empty, and takes back those that are all free', () => {
    const { arenas } = makeArenas();
    const arena = arenas.create('ids', { size: 2 ** 20 });
    const before = tagArena(arenas);
    expect(before).toMatchObject({ quantum: ROWS, size: TAGS - ROWS, spans: 1 });
    const got = fill(arena, 600);
    const full = tagArena(arenas);
    expect(full.inUse).toBeGreaterThanOrEqual(600 - ROWS);
    expect(full.allocations).toBe(full.inUse / ROWS);
    expectSound(arenas);
    for (const address of got) arena.free(address, 1);
    arena.trim();
    const after = tagArena(arenas);
    expect(after.inUse).toBeLessThan(full.inUse / 2);
    expect(after.counts.frees).toBeGreaterThan(0);
    expectSound(arenas);
    expect(fill(arena, 600)).toEqual(got);
    endOracle(arenas);
  });

  it('keeps a chunk, so that a load that comes and goes moves none', () => {
    const { arenas } = makeArenas();
    const arena = arenas.create('ids', { size: 2 ** 20 });
    fill(arena, 300);
    let moves = -1;
    for (let round = 0; round < 20; round++) {
      const more = fill(arena, 20);
      for (const address of more) arena.free(address, 1);
      arena.trim();
      const { allocations } = tagArena(arenas).counts;
      if (round > 1) expect(allocations).toBe(moves);
      moves = allocations;
    }
    endOracle(arenas);
  });

  it('fills its own reserve from what it gives out', () => {
    const { arenas } = makeArenas({ tags: 16384, tagBuckets: 32768 });
    const arena = arenas.create('ids', { size: 2 ** 20 });
    const own = arenas.stats().ownTags;
    const got = fill(arena, 15_000);
    expect(got.length).toBe(15_000);
    expect(arenas.stats().ownTags).toBeGreaterThanOrEqual(own);
    expect(tagArena(arenas).spareTags).toBeGreaterThanOrEqual(4);
    expectSound(arenas);
    // Chunks come back in an order that is not that of their going: their tags are in pieces.
    for (const address of got.filter((_address, index) => index % 2 === 0)) arena.free(address, 1);
    for (const address of got.filter((_address, index) => index % 2 === 1)) arena.free(address, 1);
    endOracle(arenas);
    // What is left are the chunks that have tags of the arena of tags itself, or are kept.
    expect(tagArena(arenas).allocations).toBeLessThanOrEqual(4);
  });

  it('stops programs at the ceiling, not the system, and serves them again after frees', () => {
    const { arenas } = makeArenas();
    const system = arenas.createForSystem('vm.own', { size: 4096 });
    const greedy = arenas.create('greedy', { size: 2 ** 20 });
    const other = arenas.create('other', { size: 4096 });
    const first = other.alloc(1);
    const got = fill(greedy);
    expect(() => greedy.alloc(1)).toThrow(/^ENOMEM: .* no boundary tags are left; boot with more `tags`$/);
    fill(other);
    expect(() => other.alloc(1)).toThrow(/no boundary tags are left/);
    const held = Array.from({ length: 20 }, () => system.alloc(64));
    for (const address of held) system.free(address, 64);
    expectSound(arenas);
    for (const address of got) greedy.free(address, 1);
    greedy.trim();
    expect(other.alloc(1)).toBeGreaterThan(first);
    expect(greedy.alloc(2 ** 20)).toBe(0);
    endOracle(arenas);
  });

  it('lets allocations shrink at the ceiling, and keeps half of the tags of the system even then', () => {
    const { arenas } = makeArenas();
    const greedy = arenas.create('greedy', { size: 2 ** 20 });
    const kept = arenas.create('kept', { size: 2 ** 20, quarantine: { frees: 2 ** 20 } });
    const large = Array.from({ length: 40 }, () => greedy.alloc(100));
    const late = Array.from({ length: 4 }, () => kept.alloc(100));
    fill(greedy);
    fill(kept);
    const before = arenas.stats().unusedTags;
    expect(before).toBeGreaterThanOrEqual(TAGS / 32);
    // The last one's neighbour is an allocation of `fill`, as the others' are allocations.
    const spare = greedy.stats().spareTags + kept.stats().spareTags;
    const shrunk = large.filter((address) => greedy.tryResize(address, 100, 60));
    expect(shrunk.length).toBeGreaterThanOrEqual(TAGS / 64 - 2);
    expect(shrunk.length).toBeLessThan(large.length);
    expect(arenas.stats().unusedTags).toBeGreaterThanOrEqual(TAGS / 64);
    expect(before - arenas.stats().unusedTags).toBe(shrunk.length - spare);
    // What joins what the shrinking left needs none; what goes into quarantine, or stands alone, does.
    const size = (address: number) => (shrunk.includes(address) ? 60 : 100);
    for (const address of shrunk) greedy.resize(address, 60, 50);
    for (const address of shrunk) greedy.resize(address, 50, 60);
    const refused = large.find((address) => size(address) === 100) as number;
    const used = greedy.stats().inUse;
    expect(() => greedy.resize(refused, 100, 99)).toThrow(/^ENOMEM: arena\.resize\(.*what it would leave needs one/);
    expect(() => kept.resize(late[0] as number, 100, 99)).toThrow(/^ENOMEM: arena\.resize\(.*needs one/);
    expect(greedy.stats().inUse).toBe(used);
    expectSound(arenas);
    // The system still has its half.
    const system = arenas.createForSystem('vm.own', { size: 4096 });
    const held = Array.from({ length: 6 }, () => system.alloc(64));
    for (const address of held) system.free(address, 64);
    for (const address of large) greedy.free(address, size(address));
    for (const address of late) kept.free(address, 100);
    endOracle(arenas);
  });

  it('has requests that wait served by tags that another arena gives back', async () => {
    const { arenas } = makeArenas();
    const greedy = arenas.create('greedy', { size: 2 ** 20 });
    const other = arenas.create('other', { size: 4096 });
    const got = fill(greedy);
    fill(other);
    let served = -1;
    const waiting = other.allocAsync(1).then((address) => {
      served = address;
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(served).toBe(-1);
    for (const address of got) greedy.free(address, 1);
    greedy.trim();
    await waiting;
    expect(served).toBeGreaterThanOrEqual(0);
    endOracle(arenas);
  });

  it('is not for programs', () => {
    const { arenas } = makeArenas();
    const arena = arenas.create('ids', { size: 100 });
    expect(() => arenas.open('vm.tags')).toThrow(/^ENOTSUP: arenas.open\(arena="vm.tags"\): boundary tags/);
    expect(() => arenas.open(32)).toThrow(/^ENOTSUP: arenas.open\(arena=32\)/);
    expect(() => arenas.destroy('vm.tags')).toThrow(/^ENOTSUP/);
    expect(arenas.has('vm.tags')).toBe(true);
    expect(arenas.list()).toEqual([arena]);
    expect(arenas.whatis(ROWS).map((report) => report.arena)).toEqual(['ids']);
  });

  it('fails the operation, and nothing else, when no chunk can be had', () => {
    const { region, arenas } = makeArenas();
    const arena = arenas.create('ids', { size: 2 ** 20 });
    armFault(region, 'vmem.tagArena.grow', 'failAlways');
    const got = fill(arena);
    expect(got.length).toBeLessThan(ROWS);
    expectSound(arenas);
    disarmFault(region);
    expect(fill(arena, 500).length).toBe(500);
    armFault(region, 'vmem.tagArena.shrink', 'failAlways');
    arena.xfreeAll();
    arena.trim();
    const { inUse } = tagArena(arenas);
    disarmFault(region);
    expectSound(arenas);
    fill(arena, 10);
    arena.trim();
    expect(tagArena(arenas).inUse).toBeLessThan(inUse);
    endOracle(arenas);
  });
});

describe('the arena of boundary tags against a count', () => {
  const seed = testSeed('tag arena', 20261121);

  it.each([
    ['16 rows a chunk', 512],
    ['32 rows a chunk', 1024],
    ['64 rows a chunk', 2048],
  ])('several arenas that grow and shrink: %s', (_title, tags) => {
    const random = new Prng(seed, tags);
    const { arenas } = makeArenas({ tags, tagBuckets: 4 * tags });
    const live = new Map<Arena, number[]>();
    for (const name of ['a', 'b', 'c']) live.set(arenas.create(name, { size: 2 ** 16 }), []);
    for (let step = 0; step < 120; step++) {
      const [arena, addresses] = random.pick([...live]);
      if (random.chance(0.5)) {
        // Ascending from the lowest free unit: each allocation takes one tag, the rest of the span has one.
        const wanted = random.between(1, tags / 3);
        for (const address of fill(arena, wanted)) addresses.push(address);
      } else {
        for (let frees = random.between(1, tags / 2); frees > 0 && addresses.length > 0; frees--) {
          arena.free(addresses.splice(random.below(addresses.length), 1)[0] as number, 1);
        }
        if (random.chance(0.3)) arena.xfreeAll();
        if (random.chance(0.5)) arena.trim();
        addresses.length = arena.size('allocated') === 0 ? 0 : addresses.length;
      }
      if (step % 10 !== 0) continue;
      expectSound(arenas);
      // Every tag is counted once: those in use, those in reserves, those of the arena of tags, those that are left.
      const stats = arenas.stats();
      let counted = stats.unusedTags + stats.ownTags;
      for (const each of live.keys()) counted += each.snapshot().segments.length + each.stats().spareTags;
      expect(counted).toBe(stats.tags);
    }
    const { counts } = tagArena(arenas);
    console.log(`${tags} tags: ${counts.allocations} chunks given out, ${counts.frees} taken back`);
    expect(counts.allocations).toBeGreaterThan(8);
    expect(counts.frees).toBeGreaterThan(0);
    endOracle(arenas);
  });
});

describe('a death at every step', () => {
  const small = { tags: 256, tagBuckets: 256, slots: 3, frames: 16, bankFrames: 16, slabs: 16, magazines: 16 };
  const stride = process.env.PAGEWRIGHT_EXPLORE === 'large' ? 1 : 2;
  const first = testSeed('tag arena deaths', 20261122) % stride;

  /** Dies at each step of an operation of another thread; what it left is sound, and all of it can be had again. */
  function die(prepare: (arenas: Arenas) => void, operate: (arenas: Arenas) => void): number {
    const { region, thread, callbacks } = testRegion({ ...small, journalLanes: 1024, recordEntries: 8 });
    const arenas = new Arenas(thread, callbacks);
    prepare(arenas);
    const victim = testThread(region);
    const theirs = new Arenas(victim, new Callbacks(region));
    return dieAtEveryStep({
      region,
      self: thread,
      victim,
      recoverers: [(_self, dead) => arenas.recover(dead)],
      operation: () => operate(theirs),
      stride,
      first,
      verify: () => {
        expectSound(arenas);
        const made = arenas.list().map(({ name }) => arenas.open(name));
        for (const arena of made) arena.xfreeAll();
        for (const arena of made) arena.trim();
        const fresh = arenas.create('fresh', { size: 2 ** 16 });
        // 256 tags, 8 of them for the system, and at most one of a chunk for the arena of tags, and its reserve.
        expect(fill(fresh, 190).length).toBe(190);
        endOracle(arenas);
      },
    });
  }

  /** Uses the arena's reserve up, and the pool: the next allocation brings a chunk. */
  function drain(arena: Arena): void {
    while (arena.stats().spareTags > 1) arena.alloc(1);
  }

  it('of a refill that brings a chunk', () => {
    let before = 0;
    const steps = die(
      (arenas) => {
        fill(arenas.create('ids', { size: 2 ** 16 }), 70);
        drain(arenas.open('ids'));
        before = tagArena(arenas).allocations;
      },
      (arenas) => {
        fill(arenas.open('ids'), 3);
        expect(tagArena(arenas).allocations).toBe(before + 1);
      },
    );
    console.log(`refill: ${steps} places to die`);
    expect(steps).toBeGreaterThan(20);
  });

  it('of a refill that fills the reserve of the arena of tags, too', () => {
    let before = 0;
    const steps = die(
      (arenas) => {
        const arena = arenas.create('ids', { size: 2 ** 16 });
        for (let spare = 9; spare > 4; spare = tagArena(arenas).spareTags) fill(arena, 1);
        drain(arena);
        before = tagArena(arenas).spareTags;
      },
      (arenas) => {
        fill(arenas.open('ids'), 3);
        expect(tagArena(arenas).spareTags).toBeGreaterThan(before);
      },
    );
    console.log(`refill of both: ${steps} places to die`);
    expect(steps).toBeGreaterThan(20);
  });

  it('of an allocation that shrinks with a tag that is kept for the system', () => {
    const steps = die(
      (arenas) => {
        const arena = arenas.create('ids', { size: 2 ** 16 });
        expect([arena.alloc(100), arena.alloc(100)]).toEqual([0, 100]);
        fill(arena);
        while (arena.tryXalloc(1, { align: 64 }) >= 0);
        expect(arena.stats().spareTags).toBe(0);
      },
      (arenas) => {
        const before = arenas.stats().unusedTags;
        arenas.open('ids').resize(0, 100, 50);
        expect(arenas.stats().unusedTags).toBe(before - 1);
      },
    );
    console.log(`shrink at the ceiling: ${steps} places to die`);
    expect(steps).toBeGreaterThan(20);
  });

  it('of a trim that gives chunks back', () => {
    const steps = die(
      (arenas) => fill(arenas.create('ids', { size: 2 ** 16 }), 150) && arenas.open('ids').xfreeAll(),
      (arenas) => arenas.open('ids').trim(),
    );
    console.log(`trim: ${steps} places to die`);
    expect(steps).toBeGreaterThan(30);
  });

  it('of the first arena of all, which brings the arena of tags', () => {
    const steps = die(
      () => {},
      (arenas) => void arenas.create('first', { size: 100 }),
    );
    console.log(`first arena: ${steps} places to die`);
    expect(steps).toBeGreaterThan(20);
  });
});
