/** Imports: constrained ones against a search through all places, and spans that loads of several sizes keep. */

import { describe, expect, it } from 'vitest';
import { testRegion } from '../../test/support/region.ts';
import { testSeed } from '../../test/support/seed.ts';
import { alignUp, Prng } from '../base/index.ts';
import { Callbacks } from '../sync/index.ts';
import { type Arena, Arenas, type ConstraintOptions } from './index.ts';

function makeArenas(): Arenas {
  const { region, thread } = testRegion();
  return new Arenas(thread, new Callbacks(region));
}

/** True for a place that keeps to the constraints. */
function keeps(address: number, size: number, options: ConstraintOptions): boolean {
  const { align = 1, phase = 0, nocross = 0, min = 0, max = Number.MAX_SAFE_INTEGER } = options;
  const last = address + size - 1;
  const crossed = nocross !== 0 && Math.floor(address / nocross) !== Math.floor(last / nocross);
  return (address - phase) % align === 0 && address >= min && last <= max && !crossed;
}

/** A place in one free segment of one of the arenas, or -1: every address is tried. */
function anyPlace(arenas: readonly Arena[], size: number, quantum: number, options: ConstraintOptions): number {
  for (const arena of arenas) {
    for (const segment of arena.snapshot().segments) {
      if (segment.kind !== 'free') continue;
      const end = segment.start + segment.size;
      for (let at = alignUp(segment.start, quantum); at + size <= end; at += quantum) {
        if (keeps(at, size, options)) return at;
      }
    }
  }
  return -1;
}

function someConstraints(random: Prng, size: number, quantum: number, end: number): ConstraintOptions {
  const align = random.below(2) === 0 ? quantum * 2 ** random.below(6) : quantum;
  const phase = random.below(2) === 0 ? quantum * random.below(align / quantum) : 0;
  const nocross = quantum * 2 ** random.below(7);
  const allowed = nocross >= size && Math.floor(phase / nocross) === Math.floor((phase + size - 1) / nocross);
  const min = random.below(3) === 0 ? random.below(end) : 0;
  return {
    align,
    phase,
    ...(allowed && random.below(3) === 0 ? { nocross } : {}),
    min,
    ...(random.below(3) === 0 ? { max: min + random.below(end) } : {}),
  };
}

describe('constrained imports', () => {
  it.each<[number, number, number, number, number, ConstraintOptions, number]>([
    [4, 1, 408, 24, 2, { align: 2, phase: 1, min: 414 }, 417],
    [4, 1, 408, 8, 2, { align: 2, phase: 1, min: 413 }, 413],
    [8, 4, 288, 88, 32, { align: 128, phase: 76 }, 332],
    [8, 1, 96, 8, 3, { min: 101 }, 101],
    [8, 1, 96, 8, 3, { max: 98 }, 96],
    [8, 1, 96, 16, 4, { min: 102, max: 105 }, 102],
  ])('quantum %d for %d, segment %d +%d: %d under %o at %d', (unit, quantum, base, size, wanted, options, at) => {
    const arenas = makeArenas();
    const source = arenas.create('source', { base, size, quantum: unit });
    const child = arenas.create('child', { quantum, import: { from: source } });
    expect(child.tryXalloc(wanted, options)).toBe(at);
  });

  it('find a place whenever a free segment of the arena or its source has one', () => {
    const seed = testSeed('constrained imports', 20261121);
    const random = new Prng(seed);
    const arenas = makeArenas();
    const outcomes = { placed: 0, impossible: 0, coarse: 0, rounded: 0, unrounded: 0 };
    const rounding = (of: number) => (random.below(2) === 0 ? {} : { roundTo: of * random.between(2, 8) });
    for (let round = 0; round < 120; round++) {
      const rootUnit = 2 ** random.below(6);
      const unit = Math.max(1, rootUnit / 2 ** random.below(3));
      const quantum = Math.max(1, unit / 2 ** random.below(5));
      const base = random.below(20) * rootUnit;
      const size = random.between(20, 120) * rootUnit;
      // The source gets its space from the root, or has it when the root is of its quantum.
      const root = arenas.create('root', { base, size, quantum: rootUnit });
      const chained = rootUnit > unit || random.below(3) === 0;
      const source = chained
        ? arenas.create('source', { quantum: unit, import: { from: root, ...rounding(unit) } })
        : root;
      const wish = rounding(quantum);
      const child = arenas.create('child', {
        quantum,
        import: { from: source, large: random.below(2) === 0, ...wish },
      });
      const live = new Map<number, number>();
      for (let step = 0; step < 60; step++) {
        if (random.below(3) === 0) {
          const address = random.pick([...live.keys(), -1]);
          if (address >= 0) child.xfree(address, live.get(address) as number);
          live.delete(address);
          continue;
        }
        const wanted = alignUp(random.between(1, 10 * quantum), quantum);
        const options = someConstraints(random, wanted, quantum, base + size);
        const address = child.tryXalloc(wanted, options);
        const what = `${JSON.stringify({ round, step, unit, quantum, wanted, ...options, address })}`;
        if (address < 0) {
          expect(anyPlace([child, source, root], wanted, quantum, options), what).toBe(-1);
          outcomes.impossible++;
          continue;
        }
        expect(keeps(address, wanted, options) && address >= base && address + wanted <= base + size, what).toBe(true);
        const overlaps = [...live].some(([other, length]) => address < other + length && other < address + wanted);
        expect(overlaps, what).toBe(false);
        live.set(address, wanted);
        outcomes.placed++;
        if (unit > quantum) outcomes.coarse++;
      }
      for (const segment of child.snapshot().segments) {
        if (wish.roundTo === undefined || segment.kind !== 'span') continue;
        if (segment.size % wish.roundTo === 0) outcomes.rounded++;
        else outcomes.unrounded++;
      }
      for (const arena of [child, source, root]) expect(arena.check().problems).toEqual([]);
      for (const [address, length] of live) child.xfree(address, length);
      child.trim();
      source.trim();
      expect(root.size('allocated')).toBe(0);
      expect(root.alloc(size)).toBe(base);
      root.free(base, size);
      child.destroy();
      if (chained) source.destroy();
      root.destroy();
    }
    console.log(`constrained imports: ${JSON.stringify(outcomes)}`);
    expect(Math.min(...Object.values(outcomes))).toBeGreaterThan(40);
  });
});

describe('sizes that are rounded up', () => {
  it('are had while the source has them, then the size itself', () => {
    const arenas = makeArenas();
    const source = arenas.create('source', { size: 600 });
    const child = arenas.create('child', { import: { from: source, roundTo: 256 } });
    child.alloc(200);
    child.alloc(200);
    expect(source.size('allocated')).toBe(512);
    expect(child.tryAlloc(100)).toBe(-1);
    expect(child.tryXalloc(80, { align: 16, min: 513 })).toBe(-1);
    expect(child.tryXalloc(64, { align: 16, phase: 2 })).toBe(514);
    expect([child.alloc(56), child.alloc(56)].toSorted((a, b) => a - b)).toEqual([200, 456]);
    expect(child.tryAlloc(21)).toBe(578);
    expect(source.size('allocated')).toBe(512 + 64 + 21);
    const seed = arenas.create('seed', { import: { from: source, roundTo: 256 }, compat: 'seed' });
    expect(seed.tryAlloc(2)).toBe(-1);
  });

  it('have room for any place when a function does not look at constraints', () => {
    const { region, thread } = testRegion();
    const callbacks = new Callbacks(region);
    const arenas = new Arenas(thread, callbacks);
    for (const quantum of [1, 16, 4096]) {
      let next = quantum;
      let calls = 0;
      const source = {
        import(size: number) {
          calls++;
          next += size;
          return next - size;
        },
        release() {},
      };
      callbacks.register(`bump ${quantum}`, source);
      const arena = arenas.create(`a ${quantum}`, { quantum, import: { from: { export: `bump ${quantum}` } } });
      for (const [size, options] of [
        [1, { align: 8 }],
        [3, { align: 64, phase: 5 }],
        [8, { nocross: 8 }],
        [20, { align: 16, nocross: 32 }],
        [7, { align: 4, phase: 1, nocross: 8 }],
      ] as const) {
        const before = calls;
        const scaled = Object.fromEntries(Object.entries(options).map(([key, value]) => [key, value * quantum]));
        const address = arena.xalloc(size * quantum, scaled);
        expect(keeps(address, size * quantum, scaled)).toBe(true);
        expect(calls - before).toBeLessThanOrEqual(3);
        next += quantum;
      }
      expect(arena.check().problems).toEqual([]);
    }
  });

  it('stay whole multiples for functions', () => {
    const { region, thread } = testRegion();
    const callbacks = new Callbacks(region);
    const asked: number[] = [];
    callbacks.register('none', {
      import: (size: number) => {
        asked.push(size);
        return -1;
      },
    });
    const child = new Arenas(thread, callbacks).create('child', { import: { from: { export: 'none' }, roundTo: 64 } });
    expect(child.tryAlloc(10)).toBe(-1);
    expect(child.tryXalloc(10, { align: 16, min: 100 })).toBe(-1);
    expect(asked.length).toBeGreaterThan(1);
    expect(asked.filter((size) => size % 64 !== 0)).toEqual([]);
  });
});

describe('what a source gives', () => {
  it('is a span in whole quanta of the source, except for the original and where the limit forbids it', () => {
    const arenas = makeArenas();
    const source = arenas.create('source', { size: 64 * 4096, quantum: 4096 });
    const child = arenas.create('child', { quantum: 8, import: { from: source } });
    for (let piece = 0; piece < 39; piece++) child.alloc(100);
    expect([child.stats().spans, source.size('allocated')]).toEqual([1, 4096]);
    const seed = arenas.create('seed', { quantum: 8, import: { from: source }, compat: 'seed' });
    for (let piece = 0; piece < 3; piece++) seed.alloc(100);
    expect([seed.stats().spans, seed.size('all')]).toEqual([3, 3 * 104]);
    const limited = arenas.create('limited', { quantum: 8, limit: 5000, import: { from: source } });
    expect(limited.tryAlloc(100)).toBeGreaterThanOrEqual(0);
    expect(limited.tryAlloc(4000)).toBe(-1);
    expect(limited.tryAlloc(904)).toBeGreaterThanOrEqual(0);
    expect(limited.tryAlloc(3200)).toBe(-1);
    expect([limited.size('all'), limited.stats().spans]).toEqual([4096, 1]);
  });

  it('and keeps idle goes back when its limit would refuse a request for it', async () => {
    const arenas = makeArenas();
    const source = arenas.create('source', { size: 1000 });
    const child = arenas.create('child', { limit: 100, import: { from: source } });
    const middle = arenas.create('middle', { limit: 120, import: { from: source } });
    const leaf = arenas.create('leaf', { import: { from: middle } });
    for (const arena of [child, leaf]) {
      for (const size of [60, 80, 40, 100]) arena.free(arena.alloc(size), size);
      arena.free(arena.alloc(30), 30);
      const address = await arena.allocAsync(90, { align: 2, timeoutMs: 60_000 });
      expect(arena.tryAlloc(50)).toBe(-1);
      arena.xfree(address, 90);
      expect(arena.check().problems).toEqual([]);
    }
    expect(() => child.add(5000, 101)).toThrow(/EDQUOT: arena.add/);
    child.add(5000, 50);
    expect(child.size('all')).toBe(50);
    expect(middle.size('all')).toBeLessThanOrEqual(120);
    expect(child.size('all')).toBeLessThanOrEqual(100);
  });
});

describe('loads of several sizes', () => {
  it.each<[string, number[], boolean]>([
    ['two in turn', [10, 5000], false],
    ['two in turn, the large one first', [5000, 10], false],
    ['three in turn', [700, 10, 5000], false],
    ['two at a time', [10, 5000], true],
    ['three at a time', [700, 10, 5000], true],
  ])('import a handful of spans: %s', (_title, sizes, together) => {
    const arenas = makeArenas();
    const source = arenas.create('source', { size: 1 << 20 });
    const child = arenas.create('child', { import: { from: source } });
    for (let round = 0; round < 1000; round++) {
      const live: [number, number][] = [];
      for (const size of sizes) {
        live.push([child.alloc(size), size]);
        if (!together) child.free(...(live.pop() as [number, number]));
      }
      for (const [address, size] of live) child.free(address, size);
    }
    const { imports, releases } = child.stats().counts;
    expect(imports).toBeLessThanOrEqual(8);
    expect(releases).toBeLessThanOrEqual(8);
    expect(child.check().problems).toEqual([]);
    child.trim();
    expect(source.size('allocated')).toBe(0);
  });

  it('keep the four largest idle spans, which pressure, trim and destroy take', () => {
    const arenas = makeArenas();
    const source = arenas.create('source', { size: 4096 });
    const child = arenas.create('child', { import: { from: source } });
    const fill = () => {
      const sizes = [64, 256, 16, 128, 32, 512, 8];
      const live = sizes.map((size): [number, number] => [child.alloc(size), size]);
      for (const [address, size] of live) child.free(address, size);
    };
    fill();
    expect(source.size('allocated')).toBe(512 + 256 + 128 + 64);
    expect(source.alloc(4096)).toBe(0);
    expect(child.size('all')).toBe(0);
    source.free(0, 4096);
    fill();
    child.trim();
    expect(source.size('allocated')).toBe(0);
    fill();
    child.destroy();
    expect(source.size('allocated')).toBe(0);
    const seed = arenas.create('seed', { import: { from: source }, compat: 'seed' });
    for (let round = 0; round < 10; round++) seed.free(seed.alloc(64), 64);
    expect(seed.stats().counts).toMatchObject({ imports: 10, releases: 10 });
  });
});
