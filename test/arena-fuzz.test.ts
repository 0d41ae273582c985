/** Random operations on arenas and on the naive model, in lock-step: addresses, lists and totals must be the same. */

import { describe, expect, it } from 'vitest';
import { Prng } from '../src/base/index.ts';
import { createOwner, ownerUsage } from '../src/sync/index.ts';
import { TREE_SIZE } from '../src/vmem/free-index.ts';
import { type Arena, Arenas, type ConstraintOptions, type SpaceShortage } from '../src/vmem/index.ts';
import { ArenaModel, type ModelRequest, type ModelStrategy, plainRequest } from './models/arena-model.ts';
import { testRegion } from './support/region.ts';
import { testSeed } from './support/seed.ts';

interface Pair {
  readonly arena: Arena;
  readonly model: ArenaModel;
  /** What requests choose from. */
  readonly strategies: readonly ModelStrategy[];
  readonly quantaMax?: number;
}

function sameState({ arena, model }: Omit<Pair, 'strategies'>): void {
  const snapshot = arena.snapshot();
  const tags = (list: readonly { kind: string; start: number; size: number }[]) =>
    list.map(({ kind, start, size }) => `${kind} ${start} ${size}`);
  expect(tags(snapshot.segments)).toEqual(tags(model.segments));
  model.lists.forEach((list, order) => {
    expect(tags(snapshot.freeLists.get(order) ?? [])).toEqual(tags(list));
  });
  expect(snapshot.inUse).toBe(model.busy().reduce((sum, tag) => sum + tag.size, 0));
  expect(arena.check().problems).toEqual([]);
}

const SEED: readonly ModelStrategy[] = ['instant', 'best'];
const STRATEGIES: readonly ModelStrategy[] = ['instant', 'best', 'exact', 'next'];

/** A random request that keeps the rules of `xalloc`. */
function randomRequest(random: Prng, pair: Pair, base: number, span: number): ModelRequest {
  const { strategies, quantaMax = 40 } = pair;
  const { quantum } = pair.arena;
  const size = random.between(1, quantaMax * quantum);
  const rounded = Math.ceil(size / quantum) * quantum;
  const align = random.chance(0.6) ? quantum * 2 ** random.below(7) : 0;
  const phase = align > quantum && random.chance(0.4) ? quantum * random.below(align / quantum) : 0;
  let nocross = random.chance(0.5) ? quantum * 2 ** random.below(9) : 0;
  const crosses = Math.floor(phase / nocross) !== Math.floor((phase + rounded - 1) / nocross);
  if (nocross < rounded || crosses) nocross = 0;
  const limited = span > 0 && random.chance(0.4);
  const low = limited ? base + random.below(span) : 0;
  const high = limited ? low + random.below(span) : Number.MAX_SAFE_INTEGER;
  return { size, strategy: random.pick(strategies), align, phase, nocross, min: low, max: high };
}

function optionsOf({ size: _size, ...options }: ModelRequest): ConstraintOptions {
  return options;
}

function runOne(random: Prng, pair: Pair, base: number, span: number): void {
  const { arena, model, strategies, quantaMax = 60 } = pair;
  const busy = model.busy();
  const fill = busy.length === 0 ? 1 : random.below(100) / 100;
  if (fill < 0.45 && busy.length > 0) {
    const { start, size } = random.pick(busy);
    const asked = random.chance(0.1) ? size : size - random.below(arena.quantum);
    arena.free(start, asked);
    model.free(start);
  } else if (random.chance(0.5)) {
    const size = random.between(1, quantaMax * arena.quantum);
    const strategy = random.pick(strategies);
    expect(arena.tryAlloc(size, strategy)).toBe(model.alloc(plainRequest(size, strategy)));
  } else {
    const request = randomRequest(random, pair, base, span);
    const address = arena.tryXalloc(request.size, optionsOf(request));
    expect(address).toBe(model.alloc(request));
    // What nothing fits is refused again, by any strategy, until something comes that fits.
    if (address < 0 && model.source === null && model.busy().length > 0) {
      const strategy = random.pick(strategies);
      expect(arena.tryXalloc(request.size, { ...optionsOf(request), strategy })).toBe(-1);
      const freed = random.pick(model.busy());
      arena.free(freed.start, freed.size);
      model.free(freed.start);
      expect(arena.tryXalloc(request.size, optionsOf(request))).toBe(model.alloc(request));
    }
  }
  if (random.chance(0.002)) {
    arena.xfreeAll();
    model.freeAll();
  }
  if (random.chance(0.01)) arena.rehash(random.between(1, 500));
}

/** Removes a span if it has no allocations: what waits in it is let go then. */
function removeOne(random: Prng, { arena, model }: Pair): void {
  const spans = model.segments.filter((tag) => tag.kind === 'static');
  if (spans.length < 2) return;
  const span = random.pick(spans);
  const free = () => model.segments[model.segments.indexOf(span) + 1] as { kind: string; size: number };
  const whole = () => free().kind === 'free' && free().size === span.size;
  if (!whole() && !model.hasBusy(span)) model.releaseSpan(span);
  if (whole()) {
    arena.remove(span.start);
    model.remove(span);
  } else {
    expect(() => arena.remove(span.start)).toThrow(/EBUSY/);
  }
}

/** Everything is freed, and then all of it can be had in one piece per span. */
function endOracle({ arena, model }: Pair): void {
  arena.xfreeAll();
  model.freeAll();
  sameState({ arena, model });
  expect(arena.size('allocated')).toBe(0);
  const spans = model.segments.filter((tag) => tag.kind === 'static');
  for (const { size } of spans.toSorted((a, b) => b.size - a.size))
    expect(arena.tryAlloc(size)).toBeGreaterThanOrEqual(0);
  expect(arena.size('free')).toBe(0);
  arena.xfreeAll();
}

describe('arenas against the naive model', () => {
  const seed = testSeed('arena fuzz', 20260417);

  it.each([
    ['quantum 1', 1, 0, SEED],
    ['quantum 1, every strategy', 1, 0, STRATEGIES],
    ['quantum 1, exact', 1, 0, ['exact']],
    ['quantum 1, next', 1, 0, ['next']],
    ['quantum 16', 16, 4096, SEED],
    ['quantum 16, every strategy', 16, 4096, STRATEGIES],
    ['quantum 4096 above 2^31, every strategy', 4096, 2 ** 31 - 65536, STRATEGIES],
    ['quantum 64 below 2^53, every strategy', 64, 2 ** 53 - 2 ** 20, STRATEGIES],
  ] as const)('several spans, all constraints: %s', (_title, quantum, base, strategies) => {
    const random = new Prng(seed, quantum);
    const { thread, callbacks } = testRegion();
    const arena = new Arenas(thread, callbacks).create('fuzz', { quantum, strategy: strategies[0] });
    const model = new ArenaModel(quantum);
    const span = 600 * quantum;
    const pair = { arena, model, strategies };
    for (let step = 0; step < 4000; step++) {
      if (model.segments.length === 0 || (random.chance(0.01) && arena.size('all') < span)) {
        const start = base + random.below(span / quantum) * quantum;
        const size = Math.min(random.between(1, 200) * quantum, 2 ** 53 - quantum - start);
        if (model.overlaps(start, size)) expect(() => arena.add(start, size)).toThrow(/EINVAL.*overlaps the span/);
        else {
          arena.add(start, size);
          model.add(start, size);
        }
      }
      runOne(random, pair, base, span);
      if (step % 50 === 0) sameState(pair);
    }
    endOracle(pair);
  });

  it('wide sizes: best fit walks bins until trees pay, and finds the same with them', () => {
    const random = new Prng(seed, 4711);
    const { thread, callbacks } = testRegion();
    const arena = new Arenas(thread, callbacks).create('wide', { size: 2 ** 22, strategy: 'best' });
    const model = new ArenaModel(1);
    model.add(0, 2 ** 22);
    const pair: Pair = { arena, model, strategies: ['best', 'instant'], quantaMax: 20_000 };
    // Holes of one bin, each a little too small for what is asked next.
    const sizes = Array.from({ length: 300 }, () => random.between(4096, 4350));
    const addresses = sizes.map((size) => {
      expect(arena.alloc(size)).toBe(model.alloc(plainRequest(size, 'best')));
      const address = arena.alloc(1);
      expect(address).toBe(model.alloc(plainRequest(1, 'best')));
      return address;
    });
    for (const { start, size } of model.busy()) {
      if (size === 1) continue;
      arena.free(start, size);
      model.free(start);
    }
    expect(addresses).toHaveLength(300);
    for (let round = 0; round < 400; round++) {
      const size = random.between(4345, 4351);
      const address = arena.tryAlloc(size);
      expect(address).toBe(model.alloc(plainRequest(size, 'best')));
      arena.free(address, size);
      model.free(address);
    }
    for (let step = 0; step < 2000; step++) runOne(random, pair, 0, 0);
    expect(thread.region.tables.arenaIndex.trees.get(arena.index)).toBe(TREE_SIZE);
    sameState(pair);
    endOracle(pair);
  });

  it.each([
    ['no quarantine, quantum 1', 1, 0, 0, false],
    ['no quarantine, quantum 16', 16, 0, 0, false],
    ['quarantine of 5 frees', 1, 5, 0, false],
    ['quarantine of 5 frees, early', 1, 5, 0, true],
    ['quarantine of 50 frees, quantum 64', 64, 50, 0, true],
    ['quarantine of 60 ms', 1, 0, 60, false],
    ['quarantine of 60 ms, early', 1, 0, 60, true],
    ['quarantine of 10 frees and 40 ms, quantum 16', 16, 10, 40, false],
  ])('resize, merge, limit, charge, reserve, remove: %s', (_title, quantum, frees, ms, early) => {
    const random = new Prng(seed, quantum + frees + ms);
    const { region, thread, callbacks } = testRegion({}, true);
    createOwner(region, 'default');
    const life = frees + ms === 0 ? {} : { quarantine: { frees, ms, early } };
    const limit = 1000 * quantum;
    const arena = new Arenas(thread, callbacks).create('fuzz', { quantum, limit, charge: true, ...life });
    const model = new ArenaModel(quantum);
    model.quarantineFrees = frees;
    model.quarantineMs = ms;
    model.early = early;
    const pair: Pair = { arena, model, strategies: STRATEGIES };
    const total = () => model.segments.reduce((sum, tag) => sum + (tag.kind === 'static' ? tag.size : 0), 0);
    for (let step = 0; step < 4000; step++) {
      const what = random.below(100);
      const busy = model.busy();
      const passed = random.below(4);
      thread.clock.advance(passed);
      model.now += passed;
      if (model.segments.length === 0 || what < 3) {
        // Pieces of a grid, so that many touch.
        const start = 50 * quantum * random.below(30);
        const size = 50 * quantum * random.between(1, 3);
        if (model.overlaps(start, size)) expect(() => arena.add(start, size)).toThrow(/overlaps/);
        else if (total() + size > limit) expect(() => arena.add(start, size)).toThrow(/EDQUOT.*limit of all spans/);
        else {
          arena.add(start, size);
          model.add(start, size);
        }
      } else if (what < 4) {
        expect(arena.mergeSpans()).toBe(model.mergeSpans());
      } else if (what < 5) {
        expect(arena.releaseQuarantine()).toBe(model.releaseQuarantine());
      } else if (what < 30 && busy.length > 0) {
        const { start, size } = random.pick(busy);
        const wanted = random.between(1, 40 * quantum);
        expect(arena.tryResize(start, size, wanted)).toBe(model.resize(start, wanted));
      } else if (what < 40) {
        const start = quantum * random.below(1600);
        const size = quantum * random.between(1, 20);
        const place = { ...plainRequest(size, 'instant'), min: start, max: start + size - 1 };
        expect(arena.tryReserve(start, size)).toBe(model.alloc(place) >= 0);
      } else if (what < 42) {
        removeOne(random, pair);
      } else {
        runOne(random, pair, 0, 1600 * quantum);
      }
      if (step % 50 === 0) {
        sameState({ arena, model });
        const { used } = ownerUsage(region)[0]?.resources.arenaBytes ?? { used: -1 };
        expect(used).toBe(arena.size('allocated'));
      }
    }
    endOracle(pair);
    expect(ownerUsage(region)[0]?.resources.arenaBytes.used).toBe(0);
  });

  it('reclaim callbacks: told once below the threshold, each time before a failure', () => {
    const random = new Prng(seed, 8);
    const { thread, callbacks } = testRegion();
    const model = new ArenaModel(4);
    const [size, at] = [4096, 1000];
    const told: boolean[] = [];
    const reclaimer = ({ failing, room }: SpaceShortage) => {
      told.push(failing);
      expect(room).toBe(arena.size('free'));
      // Half of the times it frees something.
      const busy = model.busy();
      if (busy.length === 0 || random.chance(0.5)) return;
      const { start, size: length } = random.pick(busy);
      arena.free(start, length);
      model.free(start);
    };
    callbacks.register('reclaim', reclaimer);
    const options = { size, quantum: 4, reclaim: { callback: { export: 'reclaim' }, at } };
    const arena = new Arenas(thread, callbacks).create('low', options);
    model.add(0, size);
    let low = false;
    let calls = 0;
    for (let step = 0; step < 4000; step++) {
      const busy = model.busy();
      if (busy.length > 0 && random.chance(0.48)) {
        const { start, size: length } = random.pick(busy);
        arena.free(start, length);
        model.free(start);
        continue;
      }
      const request = randomRequest(random, { arena, model, strategies: STRATEGIES }, 0, size);
      const expected = model.alloc(request);
      const room = size - model.busy().reduce((sum, tag) => sum + tag.size, 0);
      const before = told.length;
      const got = arena.tryXalloc(request.size, optionsOf(request));
      if (expected >= 0) {
        expect([got, ...told.slice(before)]).toEqual(room <= at && !low ? [expected, false] : [expected]);
        low = room <= at;
      } else {
        // The callback came between two tries.
        expect([got, ...told.slice(before)]).toEqual([model.alloc(request), true]);
      }
      calls += told.length - before;
      if (step % 100 === 0) sameState({ arena, model });
    }
    expect(calls).toBeGreaterThan(100);
    expect(new Set(told)).toEqual(new Set([true, false]));
    endOracle({ arena, model, strategies: STRATEGIES });
  });

  it('imports: plain, large, rounded, limited, three levels, small sources', () => {
    const random = new Prng(seed, 77);
    const { thread, callbacks } = testRegion();
    const arenas = new Arenas(thread, callbacks);
    const heap: Pair = {
      arena: arenas.create('heap', { compat: 'seed', base: 65536, size: 40960, quantum: 64 }),
      model: new ArenaModel(64),
      strategies: STRATEGIES,
    };
    heap.model.add(65536, 40960);
    const child = (name: string, source: Pair, quantum: number, large: boolean, roundTo: number, limit = 0): Pair => {
      const model = new ArenaModel(quantum, source.model, large, roundTo);
      if (limit !== 0) model.limit = limit;
      const limits = limit === 0 ? {} : { limit };
      const options = { quantum, compat: 'seed', import: { from: source.arena, large, roundTo }, ...limits } as const;
      return { arena: arenas.create(name, options), model, strategies: STRATEGIES };
    };
    const middle = child('middle', heap, 32, false, 0);
    const pairs = [
      heap,
      middle,
      child('plain', heap, 16, false, 0),
      child('large', heap, 8, true, 0),
      child('rounded', heap, 32, false, 640),
      child('both', heap, 4, true, 1024),
      child('limited', heap, 16, false, 0, 3200),
      child('limited, large, rounded', heap, 16, true, 512, 8192),
      child('leaf', middle, 4, false, 0),
    ];
    const heapOwn: { start: number; size: number }[] = [];
    for (let step = 0; step < 6000; step++) {
      const pair = random.pick(pairs.slice(2));
      if (random.chance(0.03)) {
        // The heap's own allocations keep it short.
        const size = random.between(64, 4096);
        const start = heap.arena.tryAlloc(size);
        expect(start).toBe(heap.model.alloc(plainRequest(size, 'instant')));
        if (start >= 0) heapOwn.push({ start, size });
      }
      if (heapOwn.length > 5) {
        const [{ start, size }] = heapOwn.splice(random.below(heapOwn.length), 1) as [{ start: number; size: number }];
        heap.arena.free(start, size);
        heap.model.free(start);
      }
      runOne(random, pair, 0, 0); // no limits: with them the original imports until its source is empty
      if (step % 100 === 0) pairs.forEach(sameState);
    }
    for (const pair of pairs.slice(2)) endOracle(pair);
    for (const { start, size } of heapOwn) {
      heap.arena.free(start, size);
      heap.model.free(start);
    }
    expect(middle.arena.size('all')).toBe(0);
    endOracle(heap);
    // Children first: an arena that others import from stays.
    expect(() => heap.arena.destroy()).toThrow(/EBUSY.*imports from it/);
    for (const { arena } of pairs.toReversed()) arena.destroy();
    expect(arenas.list()).toEqual([]);
    const { tags, unusedTags, ownTags } = arenas.stats();
    expect(unusedTags + ownTags).toBe(tags);
  });
});
