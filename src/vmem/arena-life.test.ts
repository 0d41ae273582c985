/** What happens around allocations: growing, merging, limits, charges, and who is told when space runs low. */

import { describe, expect, it } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { Callbacks, chargeTo, createOwner, ownerUsage, takeOver } from '../sync/index.ts';
import { type Arena, type ArenaOptions, Arenas, type SpaceShortage } from './index.ts';

function makeArenas(virtualClock = false) {
  const { region, thread, callbacks } = testRegion({}, virtualClock);
  return { region, thread, callbacks, arenas: new Arenas(thread, callbacks) };
}

function segments(arena: Arena): string {
  return arena
    .snapshot()
    .segments.map(({ kind, start, size }) => `${kind} ${start}+${size}`)
    .join(', ');
}

function sound(arenas: Arenas): void {
  expect(arenas.check().flatMap(({ problems }) => problems)).toEqual([]);
}

describe('growing and shrinking in place', () => {
  it('takes from what is free behind it, and gives back', () => {
    const { arenas } = makeArenas();
    const arena = arenas.create('a', { size: 128, quantum: 4 });
    const first = arena.alloc(16);
    const second = arena.xalloc(16, { min: 64, max: 79 });
    expect(arena.tryResize(first, 16, 40)).toBe(true);
    expect(segments(arena)).toBe('static 0+128, busy 0+40, free 40+24, busy 64+16, free 80+48');
    expect(arena.tryResize(first, 40, 65)).toBe(false);
    expect(arena.tryResize(first, 38, 62)).toBe(true);
    expect(segments(arena)).toBe('static 0+128, busy 0+64, busy 64+16, free 80+48');
    expect(arena.tryResize(first, 64, 8)).toBe(true);
    expect(arena.tryResize(first, 8, 7)).toBe(true);
    arena.resize(second, 16, 4);
    expect(segments(arena)).toBe('static 0+128, busy 0+8, free 8+56, busy 64+4, free 68+60');
    expect(arena.size('allocated')).toBe(12);
    expect(() => arena.resize(first, 8, 80)).toThrow(
      /ENOMEM: arena.resize\(arena="a", address=0, size=8, newSize=80\)/,
    );
    expect(() => arena.resize(first, 16, 20)).toThrow(/EINVAL: arena.resize.*the allocation has size 8/);
    expect(() => arena.resize(4, 8, 20)).toThrow(/EINVAL.*no allocation starts/);
    expect(() => arena.resize(first, 8, 0)).toThrow(/newSize must be an integer above 0/);
    expect(() => arena.resize(first, 8, 12, { min: 0 } as object)).toThrow(
      /unknown option "min"; known options: nocross/,
    );
    sound(arenas);
    arena.free(first, 8);
    arena.free(second, 4);
    expect(arena.alloc(128)).toBe(0);
  });

  it('keeps the constraints that are given again, and stays in its span', () => {
    const { arenas } = makeArenas();
    const arena = arenas.create('a', { size: 64 });
    arena.add(64, 64);
    const address = arena.xalloc(16, { align: 32, phase: 16, max: 63 });
    expect(arena.tryResize(address, 16, 17, { nocross: 32 })).toBe(false);
    expect(arena.tryResize(address, 16, 32, { max: 46 })).toBe(false);
    expect(arena.tryResize(address, 16, 31, { max: 46 })).toBe(true);
    expect(arena.tryResize(address, 31, 48)).toBe(true);
    expect(arena.tryResize(address, 48, 49)).toBe(false);
    arena.mergeSpans();
    expect(arena.tryResize(address, 48, 112)).toBe(true);
    arena.xfree(address, 112);
    sound(arenas);
  });

  it('knows what a quantum cache gave', () => {
    const { arenas } = makeArenas();
    const arena = arenas.create('a', { size: 4096, quantumCacheMax: 16 });
    const cached = arena.alloc(14);
    expect(arena.tryResize(cached, 14, 16)).toBe(true);
    expect(arena.tryResize(cached, 16, 17)).toBe(false);
    expect(arena.tryResize(cached, 16, 4)).toBe(false);
    arena.free(cached, 16);
    const large = arena.alloc(100);
    expect(arena.tryResize(large, 100, 10)).toBe(true);
    arena.free(large, 10);
    arena.drain();
    expect(arena.size('allocated')).toBe(0);
    sound(arenas);
  });
});

describe('merging spans', () => {
  it('joins what touches, whatever the order of coming, and keeps allocations', () => {
    const { arenas } = makeArenas();
    const arena = arenas.create('a', { base: 100, size: 50 });
    for (const [start, size] of [
      [300, 10],
      [200, 100],
      [50, 50],
      [0, 40],
      [150, 20],
    ] as const)
      arena.add(start, size);
    const kept = arena.xalloc(10, { min: 145, max: 169 });
    expect(kept).toBe(150);
    expect(arena.tryAlloc(111)).toBe(-1);
    expect(() => arena.mergeSpans(200)).toThrow(/EINVAL: arena.mergeSpans\(arena="a", address=200\)/);
    expect(arena.mergeSpans(300)).toBe(1);
    expect(arena.mergeSpans()).toBe(2);
    expect(arena.mergeSpans()).toBe(0);
    sound(arenas);
    expect(segments(arena)).toBe(
      'static 200+110, free 200+110, static 50+120, free 50+100, busy 150+10, free 160+10, static 0+40, free 0+40',
    );
    expect(arena.alloc(100)).toBe(50);
    arena.free(50, 100);
    arena.free(kept, 10);
    expect(arena.alloc(120)).toBe(50);
    arena.free(50, 120);
    expect(() => arena.remove(150)).toThrow(/no span/);
    for (const start of [200, 50, 0]) arena.remove(start);
    expect(arena.size('all')).toBe(0);
    sound(arenas);
  });

  it('leaves imported spans as they came', () => {
    const { arenas } = makeArenas();
    const source = arenas.create('source', { size: 100 });
    const child = arenas.create('child', { import: { from: source } });
    const [one, two] = [child.alloc(10), child.alloc(10)];
    expect(child.mergeSpans()).toBe(0);
    child.free(one, 10);
    child.free(two, 10);
    child.trim();
    expect(source.size('allocated')).toBe(0);
  });
});

describe('limits', () => {
  it('refuse spans and imports beyond them', () => {
    const { arenas } = makeArenas();
    const source = arenas.create('source', { size: 1000 });
    const child = arenas.create('child', { limit: 100, import: { from: source, large: true } });
    child.add(5000, 20);
    expect(() => child.add(6000, 81)).toThrow(/EDQUOT: arena.add\(.*the limit of all spans is 100/);
    expect(child.alloc(60)).toBeGreaterThanOrEqual(0);
    expect(child.alloc(20)).toBeGreaterThanOrEqual(0);
    expect(child.tryAlloc(21)).toBe(-1);
    expect(child.alloc(20)).toBeGreaterThanOrEqual(0);
    expect(child.tryAlloc(1)).toBe(-1);
    expect(child.size('all')).toBe(100);
    expect(child.stats()).toMatchObject({ limit: 100 });
    expect(child.stats().counts.refusals).toBeGreaterThan(3);
    sound(arenas);
  });
});

describe('charges', () => {
  const used = (region: Parameters<typeof ownerUsage>[0]) =>
    ownerUsage(region).map(({ resources }) => resources.arenaBytes.used);

  it('go to the owner of the thread that allocates, and back to it whoever frees', () => {
    const { region, thread, arenas } = makeArenas();
    createOwner(region, 'default', { arenaBytes: 100 });
    const web = createOwner(region, 'web', { arenaBytes: 2 ** 40 });
    const arena = arenas.create('a', { size: 2 ** 41, charge: true });
    const other = testThread(region);
    chargeTo(other, web);
    const theirs = new Arenas(other, new Callbacks(region)).open('a');
    const mine = arena.alloc(60);
    const large = theirs.xalloc(2 ** 39, { min: 2 ** 40 });
    expect(used(region)).toEqual([60, 2 ** 39]);
    expect(arena.tryAlloc(41)).toBe(-1);
    expect(() => arena.alloc(41)).toThrow(
      /EDQUOT: arena.alloc\(arena="a", size=41, owner="default", used=60\).*is 100/,
    );
    expect(() => arena.alloc(2 ** 42)).toThrow(/E(NOMEM|DQUOT)/);
    expect(arena.tryResize(mine, 60, 101)).toBe(false);
    expect(arena.tryResize(mine, 60, 100)).toBe(true);
    expect(arena.tryResize(mine, 100, 30)).toBe(true);
    expect(used(region)).toEqual([30, 2 ** 39]);
    arena.free(large, 2 ** 39);
    theirs.free(mine, 30);
    expect(used(region)).toEqual([0, 0]);
    expect(ownerUsage(region)[0]?.resources.arenaBytes).toEqual({ used: 0, peak: 100, limit: 100 });
    expect(() => chargeTo(thread, 9)).toThrow(/EINVAL: chargeTo/);
    sound(arenas);
  });

  it('of a dead thread go back when its allocations are freed', () => {
    const { region, thread, arenas } = makeArenas();
    createOwner(region, 'default');
    const web = createOwner(region, 'web');
    const arena = arenas.create('a', { size: 100, charge: true, quarantine: { frees: 1 } });
    const victim = testThread(region);
    chargeTo(victim, web);
    const theirs = new Arenas(victim, new Callbacks(region)).open('a');
    for (const size of [10, 20, 30]) theirs.alloc(size);
    takeOver(thread, victim.slot, [(_self, dead) => arenas.recover(dead)]);
    expect(used(region)).toEqual([0, 60]);
    expect(arena.freeOf(victim.attachment)).toBe(3);
    expect(used(region)).toEqual([0, 0]);
    for (const size of [10, 20]) arena.alloc(size);
    arena.xfreeAll();
    expect(used(region)).toEqual([0, 0]);
  });
});

describe('a reclaim callback', () => {
  it('is told once at the threshold, and before every failure', () => {
    const { arenas, callbacks } = makeArenas();
    const told: SpaceShortage[] = [];
    const spare: number[] = [];
    callbacks.register('reclaim', (shortage: SpaceShortage) => {
      told.push(shortage);
      const address = shortage.failing ? spare.pop() : undefined;
      if (address !== undefined) arenas.open('a').free(address, 30);
      expect(arenas.open('a').tryAlloc(1000)).toBe(-1);
    });
    const arena = arenas.create('a', { size: 100, reclaim: { callback: { export: 'reclaim' }, at: 25 } });
    spare.push(arena.alloc(30), arena.alloc(30));
    expect(told).toEqual([]);
    const low = arena.alloc(20);
    expect(told).toEqual([{ arena: 'a', room: 20, size: 20, failing: false }]);
    arena.free(arena.alloc(10), 10);
    expect(told).toHaveLength(1);
    expect(arena.alloc(30)).toBe(30);
    expect(told[1]).toEqual({ arena: 'a', room: 20, size: 30, failing: true });
    expect(arena.tryAlloc(60)).toBe(-1);
    expect(told).toHaveLength(3);
    arena.free(low, 20);
    arena.free(arena.alloc(10), 10);
    expect(arena.alloc(15)).toBeGreaterThanOrEqual(0);
    expect(arena.stats().counts.reclaims).toBe(told.length);
    sound(arenas);
  });

  it('may be missing in a thread, and its errors undo the allocation', () => {
    const { region, arenas, callbacks } = makeArenas();
    callbacks.register('reclaim', () => {
      throw new Error('no');
    });
    const arena = arenas.create('a', { size: 100, reclaim: { callback: { export: 'reclaim' }, at: 50 } });
    expect(() => arena.alloc(60)).toThrow('no');
    expect(() => arena.alloc(101)).toThrow('no');
    expect(arena.size('allocated')).toBe(0);
    const other = new Arenas(testThread(region), new Callbacks(region)).open('a');
    expect(other.alloc(90)).toBe(0);
    expect(other.tryAlloc(90)).toBe(-1);
  });
});

describe('options of the life of an arena', () => {
  it.each<[ArenaOptions, RegExp]>([
    [{ limit: 0 }, /limit must be an integer from 1/],
    [{ size: 10, limit: 9 }, /the first span must not exceed the limit/],
    [{ quarantine: {} }, /say how many `frees`, `ms` or both/],
    [{ quarantine: { free: 1 } as object }, /unknown option "free"; known options: frees, ms, early/],
    [{ quarantine: { ms: 1, early: 1 as never } }, /quarantine.early must be true or false/],
    [{ quarantine: { ms: -1 } }, /quarantine.ms must be an integer/],
    [{ quarantine: 7 as never }, /quarantine must be an object/],
    [{ charge: 1 as unknown as boolean }, /charge must be true or false/],
    [{ charge: true, quantumCacheMax: 8 }, /not with quantum caches/],
    [{ quarantine: { frees: 1 }, quantumCacheMax: 8 }, /not with quantum caches/],
    [{ quarantine: { frees: 1 }, compat: 'seed' }, /the original has no quarantine/],
    [{ reclaim: {} as never }, /reclaim.callback must be \{ module, export \}/],
    [{ reclaim: { callback: { export: 'x' }, at: -1 } }, /reclaim.at must be an integer/],
    [{ reclaim: null as never }, /reclaim must be an object/],
  ])('%j is refused', (options, pattern) => {
    const { arenas } = makeArenas();
    expect(() => arenas.create('bad', options)).toThrow(pattern);
    expect(arenas.list()).toEqual([]);
  });
});

describe('splitting an allocation', () => {
  it('makes two of one, of the same thread and owner', () => {
    const { arenas, region, thread } = makeArenas();
    createOwner(region, 'default');
    const a = arenas.create('a', { base: 16, size: 64, quantum: 4, charge: true });
    const address = a.alloc(40);
    expect(() => a.split(address, 40, 40)).toThrow(/EINVAL: arena.split\(.*less than size/);
    expect(() => a.split(address, 40, 6)).toThrow(/EINVAL: arena.split\(.*whole quanta/);
    expect(() => a.split(address, 36, 8)).toThrow(/EINVAL: arena.split\(.*the allocation has size 40/);
    expect(() => a.split(address + 4, 36, 8)).toThrow(/EINVAL: arena.split/);
    a.split(address, 39, 8);
    expect(a.allocations().map(({ address: at, size, attachment }) => [at, size, attachment])).toEqual([
      [16, 8, thread.attachment],
      [24, 32, thread.attachment],
    ]);
    a.free(24, 32);
    expect(segments(a)).toBe('static 16+64, busy 16+8, free 24+56');
    expect(ownerUsage(region)[0]?.resources.arenaBytes.used).toBe(8);
    a.free(16, 8);
    expect(ownerUsage(region)[0]?.resources.arenaBytes.used).toBe(0);
    sound(arenas);
    expect(a.alloc(64)).toBe(16);
  });
});

describe('limits that forbid a request', () => {
  it('name themselves, at once where no wait could help', async () => {
    const { arenas, region } = makeArenas();
    createOwner(region, 'default', { arenaBytes: 50 });
    const a = arenas.create('a', { size: 100, charge: true });
    const first = a.alloc(20);
    expect(a.tryResize(first, 20, 60)).toBe(false);
    expect(() => a.resize(first, 20, 60)).toThrow(/EDQUOT: arena.resize\(.*used=20.*limit of arena bytes is 50/);
    expect(() => a.resize(first, 20, 110)).toThrow(/EDQUOT: arena.resize/);
    a.resize(first, 20, 40);
    expect(() => a.allocWait(51)).toThrow(/EDQUOT: arena.allocWait\(.*limit of arena bytes is 50/);
    await expect(a.allocAsync(51)).rejects.toThrow(/EDQUOT: arena.allocAsync/);
    expect(() => a.allocWait(20, { timeoutMs: 1 })).toThrow(
      /ETIMEDOUT.*; the owner "default" has 40 of its limit of 50/,
    );
    const limited = arenas.create('limited', { limit: 30, import: { from: arenas.create('source', { size: 100 }) } });
    expect(() => limited.allocWait(31)).toThrow(/EDQUOT: arena.allocWait\(.*limit of all spans is 30/);
    a.free(first, 40);
    sound(arenas);
  });

  it('keep the imported spans of others from being freed at once', () => {
    const { arenas } = makeArenas();
    const source = arenas.create('source', { size: 100 });
    const child = arenas.create('child', { import: { from: source } });
    const own = source.alloc(10);
    const theirs = child.alloc(10);
    expect(() => source.xfreeAll()).toThrow(/EBUSY: arena.xfreeAll\(.*the arena "child" has imported spans of it/);
    expect(source.size('allocated')).toBe(20);
    child.free(theirs, 10);
    child.trim();
    source.xfreeAll();
    expect(source.size('allocated')).toBe(0);
    expect(() => source.free(own, 10)).toThrow(/EINVAL/);
    sound(arenas);
  });
});
