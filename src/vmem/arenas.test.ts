import { describe, expect, it } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { VmError } from '../base/index.ts';
import { armFault, Callbacks, disarmFault } from '../sync/index.ts';
import { type Arena, type ArenaOptions, Arenas, type SpanSource } from './index.ts';

function makeArenas(overrides = {}) {
  const { region, thread, callbacks } = testRegion(overrides);
  return { region, thread, callbacks, arenas: new Arenas(thread, callbacks) };
}

/** The call throws a VmError of this code and text, and the arena is as it was. */
function expectRefused(arena: Arena, call: () => unknown, pattern: RegExp): void {
  const before = arena.dump();
  expect(call).toThrow(pattern);
  expect(call).toThrow(VmError);
  expect(arena.dump()).toBe(before);
  expect(arena.check().problems).toEqual([]);
}

describe('the life of an arena', () => {
  it('is created in one thread and found by name in another one', () => {
    const { region, arenas } = makeArenas();
    const arena = arenas.create('ids', { base: 1, size: 1000 });
    const address = arena.alloc(10);
    const other = new Arenas(testThread(region), new Callbacks(region));
    other.open('ids').free(address, 10);
    expect(other.open(arena.index).size('allocated')).toBe(0);
    expect(other.list().map(({ name }) => name)).toEqual(['ids']);
    expect(() => other.open('none')).toThrow(/ENOENT: arenas.open\(arena="none"\): no such arena/);
    expect(() => other.open(999)).toThrow(/ENOENT/);
  });

  it('gives every tag and bucket back, and its handles are stale', () => {
    const { arenas } = makeArenas({ arenas: 4 });
    const { tags } = arenas.stats();
    for (let round = 0; round < 50; round++) {
      const arena = arenas.create(`round ${round}`, { size: 10_000 });
      const addresses = Array.from({ length: 1000 }, () => arena.alloc(7));
      expect(arena.stats().buckets).toBeGreaterThanOrEqual(512);
      for (const address of addresses) arena.free(address, 7);
      arena.destroy();
      expect(() => arena.tryAlloc(1)).toThrow(/ESTALE: arena "round \d+": the arena was destroyed/);
      expect(() => arena.destroy()).toThrow(/ESTALE/);
      expect(arenas.list()).toEqual([]);
    }
    expect(arenas.stats().unusedTags + arenas.stats().ownTags).toBe(tags);
  });

  it('is not destroyed with live allocations, and says how many', () => {
    const { arenas } = makeArenas();
    const arena = arenas.create('busy', { size: 100 });
    const [first, second] = [arena.alloc(1), arena.alloc(2)];
    expectRefused(arena, () => arena.destroy(), /EBUSY: arena\.destroy\(arena="busy"\): it has 2 live allocations/);
    arena.free(first, 1);
    expectRefused(arena, () => arenas.destroy('busy'), /it has 1 live allocation$/);
    arena.free(second, 2);
    arenas.destroy(arena);
    expect(() => arenas.open('busy')).toThrow(/ENOENT/);
  });

  it('leaves nothing behind when there are no rows, tags or buckets', () => {
    const { arenas } = makeArenas({ arenas: 2 });
    arenas.create('a');
    arenas.create('b');
    expect(() => arenas.create('c')).toThrow(/ENOMEM.*all 2 arenas are taken/);
    arenas.destroy('a');
    arenas.create('c');
    const tight = makeArenas({ tags: 2, tagBuckets: 48 });
    expect(() => tight.arenas.create('spans', { size: 10 })).toThrow(/ENOMEM.*no boundary tags or hash buckets/);
    expect(tight.arenas.list()).toEqual([]);
    tight.arenas.create('first');
    tight.arenas.create('second');
    expect(() => tight.arenas.create('third')).toThrow(/ENOMEM/);
    tight.arenas.destroy('first');
    tight.arenas.create('third');
  });
});

describe('what the caller must not do', () => {
  it.each<[ArenaOptions, RegExp]>([
    [{ quantum: 3 }, /quantum must be a power of two/],
    [{ quantum: 0 }, /quantum must be an integer from 1/],
    [{ quantum: 16, base: 8, size: 16 }, /base must be a multiple of the quantum/],
    [{ quantum: 16, size: 24 }, /size must be a multiple of the quantum/],
    [{ base: 2 ** 53 - 8, size: 16 }, /end below 2\^53/],
    [{ base: -1 }, /base must be an integer/],
    [{ size: 1.5 }, /size must be an integer/],
    [{ strategy: 'worst' as 'best' }, /strategy must be one of instant, best/],
    [{ compat: 'linux' as 'seed' }, /compat must be 'seed'/],
    [{ sise: 10 } as ArenaOptions, /unknown option "sise"; known options: base, size/],
    [{ import: { form: 1 } as unknown as { from: Arena } }, /unknown option "form"/],
    [{ import: { from: 7 as unknown as Arena } }, /import.from must be an Arena or/],
    [{ quantum: 16, import: { from: { export: 'x' }, roundTo: 8 } }, /roundTo must be a multiple of the quantum/],
  ])('create with %j', (options, pattern) => {
    const { arenas } = makeArenas();
    expect(() => arenas.create('bad', options)).toThrow(pattern);
    expect(arenas.list()).toEqual([]);
  });

  it('create with a bad name, a name in use, a coarser quantum than the source, a dead source', () => {
    const { arenas } = makeArenas();
    const source = arenas.create('source', { quantum: 16, size: 1024 });
    expect(() => arenas.create('')).toThrow(/a name has 1 to 63 bytes/);
    expect(() => arenas.create('source')).toThrow(/EEXIST: arenas.create\(name="source"\)/);
    expect(() => arenas.create('coarse', { quantum: 32, import: { from: source } })).toThrow(
      /not be larger than that of/,
    );
    source.destroy();
    expect(() => arenas.create('child', { import: { from: source } })).toThrow(/ESTALE.*was destroyed/);
    expect(arenas.list()).toEqual([]);
  });

  it('allocate, free and add with bad arguments', () => {
    const { arenas } = makeArenas();
    const arena = arenas.create('a', { base: 1024, size: 4096, quantum: 16 });
    const address = arena.alloc(40);
    const aligned = arena.xalloc(16, { align: 256, phase: 16 });
    arena.alloc(100);
    for (const size of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, '8' as unknown as number]) {
      expectRefused(arena, () => arena.alloc(size), /EINVAL: arena\.alloc\(.*size must be an integer above 0/);
    }
    expectRefused(arena, () => arena.alloc(2 ** 53 - 1), /must be below 2\^53/);
    expectRefused(arena, () => arena.alloc(16, 'worst' as 'best'), /strategy must be one of/);
    expectRefused(arena, () => arena.alloc(8192), /ENOMEM: arena\.alloc\(arena="a", size=8192\)/);
    expect(arena.tryAlloc(8192)).toBe(-1);
    expectRefused(arena, () => arena.free(address + 16, 40), /EINVAL.*no allocation starts at this address/);
    expectRefused(arena, () => arena.free(address, 50), /EINVAL.*the allocation has size 48/);
    expectRefused(arena, () => arena.free(address, 0), /EINVAL/);
    expectRefused(arena, () => arena.free(Number.NaN, 16), /EINVAL/);
    expectRefused(arena, () => arena.free(-1, 16), /EINVAL/);
    expectRefused(arena, () => arena.add(2048, 16), /EINVAL.*overlaps the span 1024, size 4096/);
    expectRefused(arena, () => arena.add(0, 1040), /overlaps the span/);
    expectRefused(arena, () => arena.add(0, 8192), /overlaps the span/);
    expectRefused(arena, () => arena.add(8, 16), /start must be an address that is a multiple/);
    expectRefused(arena, () => arena.add(0, 0), /size must be a multiple of the quantum, and not 0/);
    expectRefused(arena, () => arena.add(2 ** 53 - 16, 32), /end below 2\^53/);
    expectRefused(arena, () => arena.rehash(0), /integer from 1 to 2\^29/);
    expectRefused(arena, () => arena.size('busy' as 'all'), /kind must be one of all, free, allocated/);
    arena.xfree(aligned, 16);
    expectRefused(arena, () => arena.xfree(aligned, 16), /was it freed before/);
  });

  it.each([
    [{ align: 24 }, /align must be a power of two/],
    [{ align: 8 }, /align must be a power of two and a multiple of the quantum/],
    [{ nocross: 100 }, /nocross must be a power of two/],
    [{ nocross: 16 }, /nocross must not be less than the size/],
    [{ align: 64, phase: 64 }, /phase must be a multiple of the quantum below align/],
    [{ phase: 16 }, /phase must be a multiple/],
    [{ align: 64, phase: 8 }, /phase must be a multiple/],
    [{ align: 64, phase: 48, nocross: 64 }, /must not cross a multiple of nocross/],
    [{ min: 10, max: 9 }, /min must not be above max/],
    [{ min: -1 }, /min must be an address/],
    [{ max: 0.5 }, /max must be an address/],
    [{ alignment: 64 }, /unknown option; known options: align/],
  ])('xalloc with %j', (options: object, pattern) => {
    const { arenas } = makeArenas();
    const arena = arenas.create('a', { size: 4096, quantum: 16 });
    expectRefused(arena, () => arena.xalloc(32, options), pattern);
  });
});

describe('imports', () => {
  it('through functions: plain, changing the size, refusing, without release', () => {
    const { arenas, callbacks } = makeArenas();
    const live = new Map<number, number>();
    let next = 1 << 20;
    const source: SpanSource = {
      import(size) {
        if (live.size === 3) return -1;
        const taken = size < 100 ? 128 : size;
        live.set(next, taken);
        next += 4096;
        return { start: next - 4096, size: taken };
      },
      release: (start, size) => {
        expect(live.get(start)).toBe(size);
        live.delete(start);
      },
    };
    callbacks.register('source', source);
    const arena = arenas.create('f', { import: { from: { export: 'source' } } });
    const addresses = [arena.alloc(100), arena.alloc(128), arena.alloc(30), arena.alloc(30)];
    expect(live.size).toBe(3);
    expect(arena.tryAlloc(1000)).toBe(-1);
    expect(arena.check().problems).toEqual([]);
    for (const [index, size] of [100, 128, 30, 30].entries()) arena.free(addresses[index] as number, size);
    // Three spans are kept for the next requests.
    expect(live.size).toBe(3);
    arena.trim();
    expect(live.size).toBe(0);
    expect(arena.size('all')).toBe(0);
    callbacks.register('endless', { import: () => 0 });
    const kept = arenas.create('kept', { import: { from: { export: 'endless' }, large: true } });
    kept.free(kept.alloc(10), 10);
    expect(kept.size('all')).toBe(160);
    kept.destroy();
  });

  it('refuses what a function should not return, and gives back what is not in use', () => {
    const { arenas, callbacks } = makeArenas();
    const returned: number[] = [];
    let answer: unknown = 8;
    callbacks.register('bad', { import: () => answer, release: (start: number) => returned.push(start) });
    const arena = arenas.create('f', { quantum: 16, base: 0, size: 1024, import: { from: { export: 'bad' } } });
    arena.alloc(1024);
    expectRefused(arena, () => arena.alloc(16), /EINVAL: import function .*bad of arena "f"/);
    for (const start of [4096, 528, Number.NaN]) {
      answer = { start, size: 8 };
      expectRefused(arena, () => arena.alloc(16), /whole quanta that is large enough/);
    }
    answer = 512;
    expectRefused(arena, () => arena.alloc(16), /EINVAL: import\(.*overlaps a span/);
    for (const garbage of [undefined, null, 'x', {}, { start: 1024 }, { start: '0', size: 16 }, () => 0]) {
      answer = garbage;
      const pattern = /EINVAL: import function bad of arena "f"\(wanted=16, returned=.*must return -1, an address, or/;
      expectRefused(arena, () => arena.alloc(16), pattern);
    }
    expect(returned).toEqual([4096, 4096]); // not what is in use, nor what is no range
    callbacks.register('no functions', 7);
    const hollow = arenas.create('hollow', { import: { from: { export: 'no functions' } } });
    expectRefused(
      hollow,
      () => hollow.alloc(1),
      /import function no functions of arena "hollow"\(export=7\): must be an/,
    );
    expectRefused(arena, () => arena.xalloc(1, null as unknown as object), /options must be an object/);
    const missing = arenas.create('missing', { import: { from: { export: 'nowhere' } } });
    expectRefused(missing, () => missing.alloc(1), /ENOENT: callback "nowhere" was not registered in this thread/);
  });

  it('are released again when their span cannot be recorded', () => {
    const { region, arenas } = makeArenas();
    const source = arenas.create('source', { size: 4096, quantum: 16 });
    const child = arenas.create('child', { quantum: 16, import: { from: source } });
    armFault(region, 'vmem.tags.refill', 'failAlways');
    expect(child.tryAlloc(16)).toBe(-1);
    disarmFault(region);
    expect(source.size('allocated')).toBe(0);
    armFault(region, 'vmem.import.start', 'fail');
    expect(child.tryAlloc(16)).toBe(-1);
    disarmFault(region);
    expect(child.alloc(16)).toBe(0);
    expect(source.check().problems).toEqual([]);
  });

  it('do not drain the source for limits that it cannot satisfy', () => {
    const { arenas } = makeArenas();
    const source = arenas.create('source', { size: 4096, quantum: 16 });
    const child = arenas.create('child', { quantum: 16, import: { from: source } });
    expect(child.tryXalloc(16, { min: 1 << 20 })).toBe(-1);
    expect(source.size('free')).toBe(4096);
    expect(child.size('all')).toBe(0);
    const seed = arenas.create('seed', { quantum: 16, import: { from: source }, compat: 'seed' });
    expect(seed.tryXalloc(16, { min: 1 << 20 })).toBe(-1);
    expect(source.size('free')).toBe(0);
  });

  it('honour every constraint, also of a source with coarser quanta, and through two levels', () => {
    const { arenas } = makeArenas();
    const top = arenas.create('top', { base: 1 << 20, size: 1 << 20, quantum: 4096 });
    const middle = arenas.create('middle', { quantum: 256, import: { from: top } });
    const child = arenas.create('child', { quantum: 16, import: { from: middle } });
    const requests = [
      { align: 1024 },
      { align: 65536, phase: 256 },
      { align: 512, phase: 48 },
      { nocross: 64 },
      { align: 64, phase: 16, nocross: 256 },
      { min: (1 << 20) + 5000, max: (1 << 20) + 5100 },
      { min: (1 << 20) + 300_016 },
      { max: (1 << 20) + 20_000 },
      { align: 32768, min: (1 << 20) + 100_000, max: (1 << 20) + 140_000 },
    ];
    const addresses = requests.map((options) => {
      const address = child.xalloc(48, options);
      const {
        align = 16,
        phase = 0,
        nocross = 0,
        min = 0,
        max = 2 ** 53,
      } = { ...({} as object), ...options } as {
        align?: number;
        phase?: number;
        nocross?: number;
        min?: number;
        max?: number;
      };
      expect(address % align).toBe(phase);
      expect(address).toBeGreaterThanOrEqual(min);
      expect(address + 47).toBeLessThanOrEqual(max);
      if (nocross > 0) expect(Math.floor(address / nocross)).toBe(Math.floor((address + 47) / nocross));
      child.alloc(child.size('free') || 16); // leave nothing behind, so that the next request imports again
      return address;
    });
    expect(new Set(addresses).size).toBe(addresses.length);
    for (const { problems } of arenas.check()) expect(problems).toEqual([]);
    child.xfreeAll();
    for (const arena of [child, middle, top]) arena.destroy();
    const plain = makeArenas().arenas;
    const source = plain.create('source', { size: 1 << 16 });
    const seed = plain.create('seed', { import: { from: source }, compat: 'seed' });
    expect(seed.tryXalloc(16, { align: 64 })).toBe(-1);
  });

  it('ask for less when a large import fails', () => {
    const { arenas } = makeArenas();
    const source = arenas.create('source', { size: 960 });
    const child = arenas.create('child', { import: { from: source, large: true } });
    const seed = arenas.create('seed', { import: { from: source, large: true }, compat: 'seed' });
    expect(seed.tryAlloc(64)).toBe(-1);
    expect(child.alloc(64)).toBe(0);
    expect(source.size('allocated')).toBe(64);
  });

  it('keep an idle span, which goes back when the source needs it', () => {
    const { arenas } = makeArenas();
    const source = arenas.create('source', { size: 1024 });
    const middle = arenas.create('middle', { import: { from: source } });
    const child = arenas.create('child', { import: { from: middle } });
    for (let round = 0; round < 100; round++) child.free(child.alloc(512), 512);
    expect(source.stats().counts.allocations).toBe(1);
    expect(source.size('free')).toBe(512);
    expect(source.alloc(1024)).toBe(0);
    expect(child.size('all') + middle.size('all')).toBe(0);
    source.free(0, 1024);
    const seed = arenas.create('seed', { import: { from: source }, compat: 'seed' });
    for (let round = 0; round < 100; round++) seed.free(seed.alloc(512), 512);
    expect(source.stats().counts.allocations).toBe(102);
    child.free(child.alloc(16), 16);
    child.trim();
    middle.trim();
    expect(source.size('free')).toBe(1024);
  });
});

describe('the allocation hash', () => {
  it('follows the load in short steps, up and down, and keeps every allocation', () => {
    const { arenas } = makeArenas();
    const arena = arenas.create('h', { size: 1 << 20 });
    const live: number[] = [];
    for (let count = 0; count < 20_000; count++) {
      live.push(arena.alloc(3));
      const { buckets } = arena.stats();
      expect(buckets).toBeGreaterThanOrEqual(Math.min(16, live.length / 2));
    }
    expect(arena.check().problems).toEqual([]);
    while (live.length > 100) arena.free(live.pop() as number, 3);
    for (let step = 0; step < 20_000; step++) arena.free(arena.alloc(3), 3);
    expect(arena.stats().buckets).toBeLessThanOrEqual(1024);
    expect(arena.check().problems).toEqual([]);
    arena.rehash(5000);
    expect(arena.stats().buckets).toBe(8192);
    arena.rehash(4096);
    expect(arena.stats().buckets).toBe(4096);
    expect(arena.check().problems).toEqual([]);
  });

  it('goes on with long chains when no buckets are left', () => {
    const { arenas } = makeArenas({ tagBuckets: 64 });
    const arena = arenas.create('h', { size: 1 << 16 });
    const live = Array.from({ length: 2000 }, () => arena.alloc(2));
    expect(arena.check().problems).toEqual([]);
    for (const address of live) arena.free(address, 2);
    expect(arena.alloc(1 << 16)).toBe(0);
  });
});

describe('spans and places', () => {
  it('removes a span that is free, and reserves a place', () => {
    const { arenas } = makeArenas();
    const arena = arenas.create('s', { base: 64, size: 64, quantum: 16 });
    arena.add(1024, 128);
    expect(arena.tryReserve(1040, 32)).toBe(true);
    expect(arena.tryReserve(1056, 32)).toBe(false);
    expect(arena.tryReserve(4096, 32)).toBe(false);
    expectRefused(arena, () => arena.tryReserve(1041, 32), /start must be an address that is a multiple/);
    expectRefused(arena, () => arena.remove(1024), /EBUSY: arena\.remove\(arena="s", start=1024\): the span has live/);
    expectRefused(arena, () => arena.remove(1040), /EINVAL.*no span that/);
    expectRefused(arena, () => arena.remove(0), /EINVAL/);
    arena.xfree(1040, 32);
    arena.remove(1024);
    arena.remove(64);
    expect(arena.size('all')).toBe(0);
    expect(arena.check().problems).toEqual([]);
    arena.add(1024, 128);
    expect(arena.alloc(128)).toBe(1024);
  });
});

describe('what an arena says about itself', () => {
  it('counts what searches looked at in vain, by each strategy', () => {
    const { region, thread } = testRegion();
    const arenas = new Arenas(thread, new Callbacks(region));
    const arena = arenas.create('a', { size: 4096 });
    const passed = () => arena.stats().counts.passed;
    // Free segments of 66 quanta, which share a bin with those of 67, between allocations.
    for (let at = 0; at < 40; at++) arena.reserve(at * 67 + 66, 1);
    arena.reserve(40 * 67, 4096 - 40 * 67);
    const reserving = passed();
    arena.free(arena.alloc(33, 'best'), 33);
    arena.free(arena.alloc(16), 16);
    expect(passed()).toBe(reserving);
    expect(arena.tryAlloc(67, 'best')).toBe(-1);
    expect(passed() - reserving).toBe(40);
    // The newest of each of the classes that are large enough is looked at, then every segment.
    expect(arena.tryXalloc(4, { align: 2048, phase: 28, min: 1000 })).toBe(-1);
    expect(passed() - reserving).toBeGreaterThanOrEqual(40 + 40);
    const before = passed();
    // The same again: nothing has come since.
    expect(arena.tryXalloc(4, { align: 2048, phase: 28, min: 1000 })).toBe(-1);
    expect(passed() - before).toBeLessThan(3);
    for (const strategy of ['exact', 'next'] as const) {
      const start = passed();
      arena.free(arena.alloc(33, strategy), 33);
      expect([strategy, passed() > start, passed() - start < 40]).toEqual([strategy, true, true]);
    }
  });

  it('walks, dumps, finds addresses and counts', () => {
    const { arenas } = makeArenas();
    const arena = arenas.create('a', { base: 100, size: 100 });
    arena.add(300, 50);
    const first = arena.alloc(10);
    arena.alloc(5, 'best');
    const kinds: string[] = [];
    arena.walk(({ kind, start, size }) => kinds.push(`${kind} ${start} ${size}`));
    expect(kinds).toEqual([
      'static 100 100',
      'free 100 100',
      'static 300 50',
      'busy 300 10',
      'busy 310 5',
      'free 315 35',
    ]);
    expect(arena.dump()).toContain('arena "a": quantum 1, size 150, in use 15, allocations 2');
    expect(arena.whatis(first + 3)).toMatchObject({ kind: 'busy', start: 300, size: 10, offset: 3, slot: 0 });
    expect(arenas.whatis(349)).toMatchObject([{ arena: 'a', kind: 'free', offset: 34 }]);
    expect(arena.whatis(250)).toBeNull();
    expect(arena.roundupSize(7)).toBe(7);
    const { freeByOrder, largestFree, counts, fragmentation } = arena.stats();
    expect(freeByOrder).toEqual([0, 0, 0, 0, 0, 1, 1]);
    expect(largestFree).toBe(100);
    expect(counts.allocations).toBe(2);
    expect(fragmentation).toBeCloseTo(1 - 100 / 135);
    expect(arena.size('free')).toBe(135);
  });
});
