import { describe, expect, it } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { Prng } from '../base/prng.ts';
import { Callbacks, type Thread } from '../sync/index.ts';
import { Arenas } from './arenas.ts';
import type { SlabSource } from './quantum-cache.ts';
import {
  CACHED_QUANTA_MAX_SEED,
  cacheSizes,
  createQuantumCaches,
  QuantumCaches,
  removeQuantumCaches,
  slabSizeFor,
  slabSizeOfCache,
} from './quantum-caches.ts';

/** An endless source that counts what it has given out. */
class CountingSource implements SlabSource {
  readonly live = new Map<number, number>();
  limit = Number.POSITIVE_INFINITY;
  #free: number[] = [];
  #next = 0;

  takeSlab(size: number): number {
    if (this.live.size >= this.limit) return -1;
    const base = this.#free.pop() ?? this.#next++ * size;
    this.live.set(base, size);
    return base;
  }
  settleSlab(): void {}
  recordReturn(): void {}
  returnSlab(base: number, size: number): void {
    expect(this.live.get(base)).toBe(size);
    this.live.delete(base);
    this.#free.push(base);
  }
}

function setUp(quantum = 1, max = 16) {
  const { region, thread } = testRegion({ slabs: 512, quantumCaches: 32 });
  createQuantumCaches(region, 3, quantum, max);
  const source = new CountingSource();
  const attach = (as: Thread) => new QuantumCaches(as, 3, quantum, source);
  return { region, thread, source, attach, caches: attach(thread) };
}

function expectSound(caches: QuantumCaches): void {
  const problems: string[] = [];
  caches.check(problems);
  expect(problems).toEqual([]);
}

describe('sizes of caches', () => {
  it('follows the rules of the source: slabs above three times the largest, groups of equal items per slab', () => {
    expect(slabSizeFor(16)).toBe(64);
    expect(slabSizeFor(21)).toBe(64);
    expect(slabSizeFor(22)).toBe(128);
    expect(cacheSizes(1, 16)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16]);
    expect(cacheSizes(4096, 3 * 4096)).toEqual([4096, 2 * 4096, 3 * 4096]);
  });

  it('clamps the range to 64 quanta, as the source to 16, and gives every size a cache that is large enough', () => {
    const { region } = testRegion({ quantumCaches: 64 });
    expect(createQuantumCaches(region, 4, 8, 4096)).toBe(512);
    expect(createQuantumCaches(region, 5, 8, 4096, CACHED_QUANTA_MAX_SEED)).toBe(128);
    expect(createQuantumCaches(region, 6, 8, 64)).toBe(64);
    const { thread, attach } = setUp();
    expect(attach(thread).maxUnits).toBe(16);
  });

  it('makes slabs no larger than their objects have states for', () => {
    for (const [objectSize, slabSize] of [
      [1, 64],
      [2, 128],
      [3, 128],
      [4, 256],
      [64, 256],
    ] as const) {
      expect([objectSize, slabSizeOfCache(objectSize, 256)]).toEqual([objectSize, slabSize]);
    }
  });

  it('serves every size up to 64 quanta, apart and whole again', () => {
    const { region, thread } = testRegion({ quantumCaches: 64, slabs: 1024 });
    const arena = new Arenas(thread, new Callbacks(region)).create('wide', {
      size: 2 ** 20,
      quantum: 16,
      quantumCacheMax: 64 * 16,
    });
    const live = Array.from({ length: 640 }, (_, index) => ({ size: 16 * (1 + (index % 64)), address: 0 }));
    for (const block of live) block.address = arena.alloc(block.size);
    const sorted = live.toSorted((a, b) => a.address - b.address);
    for (let at = 1; at < sorted.length; at++) {
      const before = sorted[at - 1] as { size: number; address: number };
      expect((sorted[at] as { address: number }).address).toBeGreaterThanOrEqual(before.address + before.size);
    }
    expect(arena.check().problems).toEqual([]);
    const { quantumCaches, allocations } = arena.stats();
    expect(quantumCaches.reduce((sum, { slabs }) => sum + slabs, 0)).toBe(allocations);
    for (const { address, size } of live) arena.free(address, size);
    arena.drain();
    expect(arena.check().problems).toEqual([]);
    expect(arena.alloc(2 ** 20)).toBe(0);
    const seed = new Arenas(thread, new Callbacks(region)).create('seed', { quantumCacheMax: 64, compat: 'seed' });
    expect(seed.stats().quantumCaches.at(-1)?.objectSize).toBe(16);
  });

  it('says when rows run out and leaves nothing behind', () => {
    const { region } = testRegion({ quantumCaches: 4 });
    expect(() => createQuantumCaches(region, 1, 1, 16)).toThrow(
      /ENOMEM: arenas.create\(quantumCacheMax=16\): all 4 rows/,
    );
    expect(createQuantumCaches(region, 1, 1, 4)).toBe(4);
    region.tables.magazineSlot.hits.putAt(0, 0, 7);
    removeQuantumCaches(region, 1);
    expect(createQuantumCaches(region, 2, 1, 4)).toBe(4);
    // A row counts for its arena only.
    expect(region.tables.magazineSlot.hits.at(0, 0)).toBe(0);
  });
});

describe('allocating and freeing through caches', () => {
  it('gives every object once, aligned and apart, against a model in lock-step', () => {
    const seed = Number(process.env.PAGEWRIGHT_SEED ?? 20261121);
    console.log(`quantum cache model: seed ${seed}`);
    const { caches, source, attach, region } = setUp(16, 256);
    const views = [caches, attach(testThread(region)), attach(testThread(region))];
    const random = new Prng(seed);
    const live: { address: number; size: number }[] = [];
    const taken = new Set<number>();
    let allocations = 0;
    for (let step = 0; step < 60_000; step++) {
      const view = random.pick(views);
      if (live.length < 3000 && random.chance(live.length < 50 || (step >> 12) % 2 === 0 ? 0.6 : 0.4)) {
        const size = random.between(1, 256);
        const address = view.tryAlloc(size);
        expect(address).toBeGreaterThanOrEqual(0);
        allocations++;
        for (let unit = address; unit < address + size; unit += 16) {
          if (taken.has(unit)) throw new Error(`seed ${seed} step ${step}: unit ${unit} given twice`);
          taken.add(unit);
        }
        live.push({ address, size });
      } else if (live.length > 0) {
        const at = random.below(live.length);
        const { address, size } = live[at] as { address: number; size: number };
        live[at] = live[live.length - 1] as { address: number; size: number };
        live.pop();
        expect(view.free(address, size)).toBe(true);
        for (let unit = address; unit < address + size; unit += 16) taken.delete(unit);
      }
      if (step % 5000 === 0) expectSound(caches);
    }
    let listed = 0;
    caches.forEachAllocated(() => listed++);
    expect(listed).toBe(live.length);
    for (const { address, size } of live) random.pick(views).free(address, size);
    const counts = caches.statistics();
    const sum = (key: 'hits' | 'misses' | 'freeMisses') => counts.reduce((total, cache) => total + cache[key], 0);
    expect(sum('hits') + sum('misses')).toBe(allocations);
    expect(sum('hits')).toBeGreaterThan(allocations * 0.8);
    expect(sum('freeMisses')).toBeGreaterThan(0);
    expect(sum('freeMisses')).toBeLessThan(allocations * 0.2);
    for (const view of views) view.drain();
    expectSound(caches);
    expect(source.live.size).toBe(0);
    expect(caches.statistics().every((cache) => cache.slabs === 0 && cache.freeObjects === 0)).toBe(true);
  });

  it('catches a double free, an address inside an object, and leaves foreign addresses to others', () => {
    const { caches } = setUp(16, 256);
    const first = caches.tryAlloc(16);
    const second = caches.tryAlloc(16);
    caches.free(first, 16);
    expect(() => caches.free(first, 16)).toThrow(
      /EINVAL: arena.free\(address=\d+, size=16\): the object is free already/,
    );
    expect(() => caches.free(second + 8, 16)).toThrow(/no allocation of this size starts here/);
    expect(caches.free(1e9, 16)).toBe(false);
    const third = caches.tryAlloc(256);
    expect(caches.free(third, 16)).toBe(false);
    expectSound(caches);
    caches.free(second, 16);
    caches.free(third, 256);
  });

  it('returns -1 when the source has no more, and goes on when something was freed', () => {
    const { caches, source } = setUp(1, 4);
    source.limit = 2;
    const got: number[] = [];
    for (let address = caches.tryAlloc(4); address >= 0; address = caches.tryAlloc(4)) got.push(address);
    expect(got.length).toBe(8);
    // Both slabs of four were taken by a miss; so is the request that found nothing.
    expect(caches.statistics().at(-1)).toMatchObject({ hits: 6, misses: 3, freeMisses: 0 });
    expect(caches.tryAlloc(4)).toBe(-1);
    expect(caches.statistics().at(-1)).toMatchObject({ hits: 6, misses: 4 });
    caches.free(got[3] as number, 4);
    expect(caches.tryAlloc(4)).toBe(got[3]);
    for (const address of got) caches.free(address, 4);
    caches.drain();
    expect(source.live.size).toBe(0);
  });

  it('works without any magazine to be had', () => {
    const { region, thread } = testRegion({ magazines: 0 });
    createQuantumCaches(region, 3, 1, 4);
    const source = new CountingSource();
    const caches = new QuantumCaches(thread, 3, 1, source);
    const got = Array.from({ length: 40 }, () => caches.tryAlloc(2));
    expect(new Set(got).size).toBe(40);
    for (const address of got) caches.free(address, 2);
    expectSound(caches);
    caches.drain();
    expect(source.live.size).toBe(0);
  });

  it('gives back what a slot had cached, at whatever point it stopped', () => {
    const { caches, source, attach, region, thread } = setUp(1, 4);
    const dead = testThread(region);
    const view = attach(dead);
    const kept = view.tryAlloc(1);
    const freed = view.tryAlloc(1);
    const { magazineSlot, slab } = region.tables;
    // Stopped between taking an object's state and storing it in the magazine.
    const row = Array.from({ length: region.geometry.quantumCaches }, (_, i) => i).find(
      (i) => magazineSlot.loaded.at(dead.slot, i) !== 0,
    ) as number;
    magazineSlot.pending.putAt(dead.slot, row, freed + 1);
    slab.object.putAt(0, freed, -2 - dead.slot);
    caches.recoverSlot(dead.slot);
    expectSound(caches);
    const listed: number[] = [];
    caches.forEachAllocated((address, _size, owner) => {
      expect(owner).toBe(dead.attachment);
      listed.push(address);
    });
    expect(listed).toEqual([kept]);
    caches.free(kept, 1);
    caches.drain();
    expect(source.live.size).toBe(0);
    expect(thread.heldCount).toBe(0);
  });
});
