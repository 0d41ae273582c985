/** Arenas that import from each other, against the naive model in lock-step; and loads that come and go. */

import { describe, expect, it } from 'vitest';
import { Prng } from '../src/base/index.ts';
import { type Arena, type ArenaOptions, Arenas } from '../src/vmem/index.ts';
import { type ModelRequest, type ModelStrategy, plainRequest } from './models/arena-model.ts';
import { ImportModel, type ModelFunction } from './models/import-model.ts';
import { testRegion } from './support/region.ts';
import { testSeed } from './support/seed.ts';

interface Pair {
  readonly name: string;
  readonly arena: Arena;
  readonly model: ImportModel;
  /** What constrained requests are aligned to at least; 0: there are none. */
  readonly alignLeast: number;
}

type Shape = Omit<ArenaOptions, 'import'> & { readonly large?: boolean; readonly roundTo?: number };

const STRATEGIES: readonly ModelStrategy[] = ['instant', 'best', 'exact', 'next'];
/** Idle spans that an arena may keep. */
const KEPT = 4;

const show = (list: readonly { kind: string; start: number; size: number }[]) =>
  list.map(({ kind, start, size }) => `${kind} ${start} ${size}`);

function sameState({ name, arena, model }: Pair): void {
  const { segments, freeLists } = arena.snapshot();
  expect(show(segments), name).toEqual(show(model.segments));
  model.lists.forEach((list, order) => {
    expect(show(freeLists.get(order) ?? []), name).toEqual(show(list));
  });
  const { imports, releases } = arena.stats().counts;
  expect({ imports, releases }, name).toEqual({ imports: model.imports, releases: model.releases });
  expect(arena.check().problems, name).toEqual([]);
  // What it keeps without need is bounded, whatever the model says.
  const idle = segments.filter((tag, at) => tag.kind === 'span' && segments[at + 1]?.size === tag.size);
  const free = idle.filter((span) => segments[segments.indexOf(span) + 1]?.kind === 'free');
  expect(free.length, name).toBeLessThanOrEqual(KEPT);
}

/** A finite range behind functions: the lowest that is free, in multiples of 256. */
function functionSource(callbackSide: boolean, log: string[]): ModelFunction {
  const taken = new Set<number>();
  const note = (text: string) => log.push(`${callbackSide ? 'arena' : 'model'} ${text}`);
  return {
    import(size) {
      const blocks = Math.ceil(size / 256);
      for (let first = 0; first + blocks <= 64; first++) {
        const wanted = Array.from({ length: blocks }, (_, at) => first + at);
        if (wanted.some((block) => taken.has(block))) continue;
        for (const block of wanted) taken.add(block);
        note(`takes ${size} at ${first}`);
        return 2 ** 40 + first * 256;
      }
      return -1;
    },
    release(start, size) {
      const first = (start - 2 ** 40) / 256;
      for (let at = 0; at < Math.ceil(size / 256); at++) taken.delete(first + at);
      note(`gets ${size} at ${first}`);
    },
  };
}

function makeTree(seed: number, log: string[]) {
  const random = new Prng(seed, 5);
  const { thread, callbacks } = testRegion();
  const arenas = new Arenas(thread, callbacks);
  const heapModel = new ImportModel({ quantum: 64, strategy: 'best' });
  heapModel.add(65536, 40960);
  const heap: Pair = {
    name: 'heap',
    arena: arenas.create('heap', { base: 65536, size: 40960, quantum: 64, strategy: 'best' }),
    model: heapModel,
    alignLeast: 64,
  };
  const child = (name: string, source: Pair, quantum: number, { large = false, roundTo = 0, ...shape }: Shape = {}) => {
    const importing = { from: source.arena, large, roundTo };
    const { limit, strategy } = shape;
    const limits = { ...(limit === undefined ? {} : { limit }), ...(strategy === undefined ? {} : { strategy }) };
    return {
      name,
      arena: arenas.create(name, { quantum, ...shape, import: importing }),
      model: new ImportModel({ quantum, source: source.model, large, roundTo, ...limits }),
      // Below it the ranges that a source is asked for are several kinds: src/vmem/import.test.ts tries every address.
      alignLeast: Math.max(source.model.quantum, source.alignLeast),
    };
  };
  callbacks.register('blocks', functionSource(true, log));
  const leased: Pair = {
    name: 'function',
    arena: arenas.create('function', { quantum: 8, import: { from: { export: 'blocks' }, roundTo: 256 } }),
    model: new ImportModel({ quantum: 8, from: functionSource(false, log), roundTo: 256 }),
    alignLeast: 0,
  };
  const middle = child('middle', heap, 32, { strategy: random.pick(STRATEGIES) });
  const leased2 = { ...child('leaf of function', leased, 4), alignLeast: 0 };
  const pairs: Pair[] = [
    heap,
    leased,
    middle,
    child('plain', heap, 16),
    child('large', heap, 8, { large: true }),
    child('rounded', heap, 32, { roundTo: 640 }),
    child('both', heap, 4, { large: true, roundTo: 1024 }),
    child('limited', heap, 16, { limit: 3200 }),
    child('limited, large, rounded', heap, 16, { large: true, roundTo: 512, limit: 5000 }),
    child('leaf', middle, 4),
    child('leaf, rounded', middle, 8, { roundTo: 96, strategy: 'exact' }),
    leased2,
  ];
  return { arenas, pairs, heap, middle, leased };
}

/** A random request that keeps the rules of `xalloc`. */
function constrained(random: Prng, { arena, alignLeast }: Pair): ModelRequest {
  const { quantum } = arena;
  const size = random.between(1, 40 * quantum);
  const rounded = Math.ceil(size / quantum) * quantum;
  const align = alignLeast * 2 ** random.below(6);
  const phase = align > quantum && random.chance(0.4) ? quantum * random.below(align / quantum) : 0;
  let nocross = random.chance(0.4) ? quantum * 2 ** random.below(9) : 0;
  const crosses = Math.floor(phase / nocross) !== Math.floor((phase + rounded - 1) / nocross);
  if (nocross < rounded || crosses) nocross = 0;
  const limited = random.chance(0.4);
  const min = limited ? 65536 + random.below(40960) : 0;
  const max = limited ? min + random.below(40960) : Number.MAX_SAFE_INTEGER;
  return { size, strategy: random.pick(STRATEGIES), align, phase, nocross, min, max };
}

function step(random: Prng, pair: Pair): string {
  const { arena, model, alignLeast } = pair;
  const busy = model.busy();
  const what = random.below(100);
  if (busy.length > 0 && what < 44) {
    const { start, size } = random.pick(busy);
    arena.free(start, size);
    model.free(start);
    return 'free';
  }
  if (what < 46) {
    arena.trim();
    model.trim();
    return 'trim';
  }
  if (busy.length > 0 && what < 52) {
    const { start, size } = random.pick(busy);
    const wanted = random.between(1, 50 * arena.quantum);
    expect(arena.tryResize(start, size, wanted), pair.name).toBe(model.resize(start, wanted));
    return 'resize';
  }
  if (alignLeast !== 0 && random.chance(0.4)) {
    const request = constrained(random, pair);
    const { size, ...options } = request;
    const expected = model.alloc(request);
    expect(arena.tryXalloc(size, options), `${pair.name} ${JSON.stringify(request)}`).toBe(expected);
    return expected < 0 ? 'refused' : 'constrained';
  }
  const size = random.between(1, 60 * arena.quantum);
  const strategy = random.pick(STRATEGIES);
  const expected = model.alloc(plainRequest(size, strategy));
  expect(arena.tryAlloc(size, strategy), `${pair.name} ${size} ${strategy}`).toBe(expected);
  return expected < 0 ? 'refused' : 'plain';
}

describe('imports against the naive model', () => {
  const seed = testSeed('import fuzz', 20261122);

  it.each([0, 1, 2])('every address, list, import and release of a tree of arenas: run %d', (run) => {
    const log: string[] = [];
    const random = new Prng(seed, run);
    const { arenas, pairs, heap, middle, leased } = makeTree(seed + run, log);
    const own: { start: number; size: number }[] = [];
    const done: Record<string, number> = { heap: 0 };
    for (let count = 0; count < 4000; count++) {
      const pair = random.pick(pairs.filter((candidate) => ![heap, middle, leased].includes(candidate)));
      // The sources' own allocations keep them short.
      if (random.chance(0.04)) {
        const size = random.between(64, 6144);
        const start = heap.arena.tryAlloc(size);
        expect(start).toBe(heap.model.alloc(plainRequest(size, 'best')));
        if (start >= 0) own.push({ start, size });
        done.heap = (done.heap ?? 0) + 1;
      }
      if (own.length > random.between(2, 7)) {
        const [{ start, size }] = own.splice(random.below(own.length), 1) as [{ start: number; size: number }];
        heap.arena.free(start, size);
        heap.model.free(start);
      }
      const before = heap.model.busy().reduce((sum, { size }) => sum + size, 0);
      const what = step(random, pair);
      done[what] = (done[what] ?? 0) + 1;
      // A request that failed has taken nothing from the source, and of one in between no more than that keeps idle.
      const direct = pair.model.parent === heap.model;
      if (what === 'refused' && direct) expect(heap.arena.size('allocated')).toBeLessThanOrEqual(before);
      if (count % 40 === 0) pairs.forEach(sameState);
    }
    const of = (side: string) => log.filter((line) => line.startsWith(side)).map((line) => line.slice(side.length));
    expect(of('arena')).toEqual(of('model'));
    const imports = pairs.reduce((sum, { model }) => sum + model.imports, 0);
    console.log(`import fuzz ${run}: ${JSON.stringify({ ...done, imports, functions: log.length / 2 })}`);
    for (const kind of ['free', 'trim', 'resize', 'constrained', 'plain', 'refused']) {
      expect(done[kind] ?? 0, kind).toBeGreaterThan(30);
    }
    expect(imports).toBeGreaterThan(300);
    for (const { start, size } of own) {
      heap.arena.free(start, size);
      heap.model.free(start);
    }
    // Importers of importers first; then nothing is left in the sources.
    for (const pair of pairs.toReversed()) {
      pair.arena.xfreeAll();
      pair.model.freeAll();
      sameState(pair);
      pair.arena.trim();
      pair.model.trim();
      sameState(pair);
    }
    expect(heap.arena.alloc(40960)).toBe(65536);
    heap.arena.free(65536, 40960);
    for (const { arena } of pairs.toReversed()) arena.destroy();
    expect(arenas.list()).toEqual([]);
    const { tags, unusedTags, ownTags } = arenas.stats();
    expect(unusedTags + ownTags).toBe(tags);
  });

  it('a load that comes and goes ends with spans that serve it: no import, no release any more', () => {
    const random = new Prng(seed, 99);
    const { thread, callbacks } = testRegion();
    const arenas = new Arenas(thread, callbacks);
    const source = arenas.create('source', { size: 2 ** 24, quantum: 64 });
    let flaps = 0;
    for (let load = 0; load < 60; load++) {
      const large = random.chance(0.3);
      const child = arenas.create('child', { quantum: 8, import: { from: source, large } });
      const sizes = Array.from({ length: random.between(1, KEPT) }, () => random.between(1, 2000));
      const strategy = random.pick(STRATEGIES);
      let settled = child.stats().counts;
      for (let round = 0; round < 30; round++) {
        if (round === 20) settled = child.stats().counts;
        const live = sizes.map((size) => ({ at: child.alloc(size, strategy), size }));
        while (live.length > 0) {
          const [{ at, size }] = live.splice(random.below(live.length), 1) as [{ at: number; size: number }];
          child.free(at, size);
        }
      }
      const { imports, releases } = child.stats().counts;
      expect({ imports, releases }, sizes.join()).toEqual({ imports: settled.imports, releases: settled.releases });
      expect(imports, sizes.join()).toBeLessThanOrEqual(4 * KEPT);
      flaps += imports;
      child.destroy();
      expect(source.size('allocated')).toBe(0);
    }
    expect(flaps).toBeGreaterThan(60);
  });
});
