/** Random operations on arenas and on the naive model, in lock-step: addresses, lists and totals must be the same. */

import { describe, expect, it } from 'vitest';
import { Prng } from '../src/base/index.ts';
import { type Arena, Arenas, type ConstraintOptions } from '../src/vmem/index.ts';
import { ArenaModel, type ModelRequest, plainRequest } from './models/arena-model.ts';
import { testRegion } from './support/region.ts';
import { testSeed } from './support/seed.ts';

interface Pair {
  readonly arena: Arena;
  readonly model: ArenaModel;
}

function sameState({ arena, model }: Pair): void {
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

/** A random request that keeps the rules of `xalloc`. */
function randomRequest(random: Prng, quantum: number, base: number, span: number): ModelRequest {
  const size = random.between(1, 40 * quantum);
  const rounded = Math.ceil(size / quantum) * quantum;
  const align = random.chance(0.6) ? quantum * 2 ** random.below(7) : 0;
  const phase = align > quantum && random.chance(0.4) ? quantum * random.below(align / quantum) : 0;
  let nocross = random.chance(0.5) ? quantum * 2 ** random.below(9) : 0;
  const crosses = Math.floor(phase / nocross) !== Math.floor((phase + rounded - 1) / nocross);
  if (nocross < rounded || crosses) nocross = 0;
  const limited = span > 0 && random.chance(0.4);
  const low = limited ? base + random.below(span) : 0;
  const high = limited ? low + random.below(span) : Number.MAX_SAFE_INTEGER;
  return { size, best: random.chance(0.4), align, phase, nocross, min: low, max: high };
}

function optionsOf({ best, align, phase, nocross, min, max }: ModelRequest): ConstraintOptions {
  return { strategy: best ? 'best' : 'instant', align, phase, nocross, min, max };
}

function runOne(random: Prng, pair: Pair, base: number, span: number): void {
  const { arena, model } = pair;
  const busy = model.busy();
  const fill = busy.length === 0 ? 1 : random.below(100) / 100;
  if (fill < 0.45 && busy.length > 0) {
    const { start, size } = random.pick(busy);
    const asked = random.chance(0.1) ? size : size - random.below(arena.quantum);
    arena.free(start, asked);
    model.free(start);
  } else if (random.chance(0.5)) {
    const size = random.between(1, 60 * arena.quantum);
    const best = random.chance(0.5);
    expect(arena.tryAlloc(size, best ? 'best' : 'instant')).toBe(model.alloc(plainRequest(size, best)));
  } else {
    const request = randomRequest(random, arena.quantum, base, span);
    expect(arena.tryXalloc(request.size, optionsOf(request))).toBe(model.alloc(request));
  }
  if (random.chance(0.002)) {
    arena.xfreeAll();
    model.freeAll();
  }
  if (random.chance(0.01)) arena.rehash(random.between(1, 500));
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
    ['quantum 1', 1, 0],
    ['quantum 16', 16, 4096],
    ['quantum 4096 above 2^31', 4096, 2 ** 31 - 65536],
    ['quantum 64 below 2^53', 64, 2 ** 53 - 2 ** 20],
  ])('several spans, all constraints: %s', (_title, quantum, base) => {
    const random = new Prng(seed, quantum);
    const { thread, callbacks } = testRegion();
    const arena = new Arenas(thread, callbacks).create('fuzz', { quantum });
    const model = new ArenaModel(quantum);
    const span = 600 * quantum;
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
      runOne(random, { arena, model }, base, span);
      if (step % 50 === 0) sameState({ arena, model });
    }
    endOracle({ arena, model });
  });

  it('imports: plain, large, rounded, three levels, small sources', () => {
    const random = new Prng(seed, 77);
    const { thread, callbacks } = testRegion();
    const arenas = new Arenas(thread, callbacks);
    const heap: Pair = {
      arena: arenas.create('heap', { compat: 'seed', base: 65536, size: 40960, quantum: 64 }),
      model: new ArenaModel(64),
    };
    heap.model.add(65536, 40960);
    const child = (name: string, source: Pair, quantum: number, large: boolean, roundTo: number): Pair => ({
      arena: arenas.create(name, { quantum, compat: 'seed', import: { from: source.arena, large, roundTo } }),
      model: new ArenaModel(quantum, source.model, large, roundTo),
    });
    const middle = child('middle', heap, 32, false, 0);
    const pairs = [
      heap,
      middle,
      child('plain', heap, 16, false, 0),
      child('large', heap, 8, true, 0),
      child('rounded', heap, 32, false, 640),
      child('both', heap, 4, true, 1024),
      child('leaf', middle, 4, false, 0),
    ];
    const heapOwn: { start: number; size: number }[] = [];
    for (let step = 0; step < 6000; step++) {
      const pair = random.pick(pairs.slice(2));
      if (random.chance(0.03)) {
        // The heap's own allocations keep it short.
        const size = random.between(64, 4096);
        const start = heap.arena.tryAlloc(size);
        expect(start).toBe(heap.model.alloc(plainRequest(size, false)));
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
    const { tags, unusedTags } = arenas.stats();
    expect(unusedTags).toBe(tags);
  });
});
