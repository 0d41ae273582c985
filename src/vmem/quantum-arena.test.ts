import { describe, expect, it } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { Prng } from '../base/prng.ts';
import { Callbacks } from '../sync/index.ts';
import { Arenas } from './arenas.ts';

function setUp() {
  const { region, thread, callbacks } = testRegion();
  return { region, thread, arenas: new Arenas(thread, callbacks) };
}

/** Free everything, check, and allocate the whole in one piece. */
function endOracle(arenas: Arenas, name: string, size: number): void {
  const arena = arenas.open(name);
  arena.drain();
  expect(arena.check().problems).toEqual([]);
  expect(arena.size('allocated')).toBe(0);
  expect(arena.stats().freeSegments).toBe(1);
  const whole = arena.xalloc(size);
  arena.xfree(whole, size);
}

describe('an arena with quantum caches', () => {
  it('serves small sizes from slabs and leaves the tags alone', () => {
    const { arenas } = setUp();
    const arena = arenas.create('ids', { base: 4096, size: 65536, quantum: 8, quantumCacheMax: 64 });
    const before = arena.stats().counts.allocations;
    const live: number[] = [];
    for (let i = 0; i < 1000; i++) live.push(arena.alloc(24));
    for (const address of live) arena.free(address, 24);
    for (let i = 0; i < 10_000; i++) arena.free(arena.alloc(1 + (i % 64)), 1 + (i % 64));
    const { counts, quantumCaches } = arena.stats();
    expect(counts.allocations - before).toBeLessThan(150);
    expect(quantumCaches.map((cache) => cache.objectSize)).toEqual([8, 16, 24, 32, 40, 48, 64]);
    expect(live.every((address) => address % 8 === 0 && address >= 4096)).toBe(true);
    endOracle(arenas, 'ids', 65536);
  });

  it('uses the space that slabs leave, and gives back what is cached before it fails', () => {
    const { arenas } = setUp();
    const arena = arenas.create('small', { size: 100, quantumCacheMax: 4 });
    const got: number[] = [];
    for (let address = arena.tryAlloc(1); address >= 0; address = arena.tryAlloc(1)) got.push(address);
    expect(new Set(got).size).toBe(100);
    for (const address of got) arena.free(address, 1);
    expect(arena.alloc(100)).toBe(0);
    arena.free(0, 100);
    endOracle(arenas, 'small', 100);
  });

  it('refuses misuse and changes nothing', () => {
    const { arenas } = setUp();
    const arena = arenas.create('strict', { size: 4096, quantum: 4, quantumCacheMax: 16 });
    const address = arena.alloc(12);
    expect(() => arena.free(address + 4, 12)).toThrow(/EINVAL: arena.free/);
    expect(() => arena.free(address, 8)).toThrow(/EINVAL: arena.free.*an object of size 12 of/);
    expect(() => arena.xfree(address, 12)).toThrow(/EINVAL: arena.xfree/);
    expect(() => arena.alloc(2.5)).toThrow(/size=2.5.*integer above 0/);
    expect(() => arena.free(address, 0)).toThrow(/size=0.*integer above 0/);
    expect(() => arena.xfreeAll()).toThrow(/EINVAL: arena.xfreeAll.*quantum caches/);
    expect(() => arena.destroy()).toThrow(/EBUSY: arena.destroy.*live allocations of cached sizes: 1/);
    arena.free(address, 12);
    expect(() => arena.free(address, 12)).toThrow(/the object is free already/);
    arena.destroy();
    expect(() => arena.alloc(4)).toThrow(/ESTALE/);
    expect(() => arena.free(address, 4)).toThrow(/ESTALE/);
    expect(() => arenas.create('bad', { quantum: 8, quantumCacheMax: 12 })).toThrow(/multiple of the quantum/);
    const rows = Array.from({ length: 5 }, (_, i) => i);
    expect(() => rows.map((i) => arenas.create(`many-${i}`, { size: 64, quantumCacheMax: 16 }))).toThrow(/ENOMEM/);
    const names = arenas.list().map((each) => each.name);
    expect(names).toEqual(['many-0']);
    arenas.destroy('many-0');
    expect(arenas.list()).toEqual([]);
  });

  it('takes slabs through imports and gives every span back', () => {
    const { arenas } = setUp();
    const parent = arenas.create('parent', { size: 1 << 20, quantum: 64 });
    const child = arenas.create('child', { quantum: 16, quantumCacheMax: 256, import: { from: parent } });
    const random = new Prng(7);
    const live: [number, number][] = [];
    for (let step = 0; step < 5000; step++) {
      if (random.chance(0.55)) {
        const size = random.between(1, 400);
        live.push([child.alloc(size), size]);
      } else if (live.length > 0) {
        const [address, size] = live.splice(random.below(live.length), 1)[0] as [number, number];
        child.free(address, size);
      }
    }
    for (const [address, size] of live) child.free(address, size);
    child.trim();
    expect(child.check().problems).toEqual([]);
    expect(parent.size('allocated')).toBe(0);
    child.destroy();
    endOracle(arenas, 'parent', 1 << 20);
  });

  it('takes back what an idle thread has cached before a request fails, also one of the arena it imports from', () => {
    const { arenas, region } = setUp();
    const parent = arenas.create('parent', { size: 1 << 12 });
    const arena = arenas.create('heap', { quantumCacheMax: 16, import: { from: parent } });
    const idle = testThread(region);
    const theirs = new Arenas(idle, new Callbacks(region)).open('heap');
    const fill = () => {
      const got: number[] = [];
      for (let address = theirs.tryAlloc(3); address >= 0; address = theirs.tryAlloc(3)) got.push(address);
      for (const address of got) theirs.free(address, 3);
      return got.length;
    };
    const all = fill();
    expect(all).toBeGreaterThan(1000);
    // As many objects for another thread, a whole span, and the whole source.
    const mine: number[] = [];
    for (let address = arena.tryAlloc(3); address >= 0; address = arena.tryAlloc(3)) mine.push(address);
    expect(mine.length).toBe(all);
    for (const address of mine) arena.free(address, 3);
    arena.free(arena.alloc(1 << 11), 1 << 11);
    expect(fill()).toBe(all);
    expect(parent.alloc(1 << 12)).toBe(0);
    parent.free(0, 1 << 12);
    expect(fill()).toBe(all);
    expect(arenas.check().flatMap(({ problems }) => problems)).toEqual([]);
    // Its magazines stay parked when the arena goes; they come back when the thread leaves.
    arena.destroy();
    const { magazineSlot, magazine, slabPool } = region.tables;
    const lanes = Array.from({ length: region.geometry.quantumCaches }, (_, row) => row);
    expect(lanes.some((row) => magazineSlot.parked.at(idle.slot, row) !== 0)).toBe(true);
    arenas.recover(idle.slot);
    expect(lanes.some((row) => magazineSlot.parked.at(idle.slot, row) !== 0)).toBe(false);
    let free = magazine.rowCount - slabPool.magazineFresh.get(0);
    for (let at = slabPool.magazineHead.get(0); at !== 0; at = magazine.next.get(at - 1)) free++;
    expect(free).toBe(magazine.rowCount);
    endOracle(arenas, 'parent', 1 << 12);
  });

  it('is destroyed under a thread that has cached objects of it, not under one that is freeing', () => {
    const { arenas, region } = setUp();
    const arena = arenas.create('heap', { size: 1 << 12, quantumCacheMax: 16 });
    const other = testThread(region);
    const theirs = new Arenas(other, new Callbacks(region)).open('heap');
    theirs.free(theirs.alloc(3), 3);
    const { pending } = region.tables.magazineSlot;
    pending.putAt(other.slot, 2, 1);
    expect(() => arena.destroy()).toThrow(new RegExp(`EBUSY: arena.destroy.*slot ${other.slot} is using it`));
    pending.putAt(other.slot, 2, 0);
    arena.free(arena.alloc(3), 3);
    expect(arena.check().problems).toEqual([]);
    theirs.free(theirs.alloc(3), 3);
    const plain = arena.alloc(100);
    expect(() => arena.destroy()).toThrow(/EBUSY.*1 live allocation/);
    arena.free(plain, 100);
    arena.destroy();
    expect(() => theirs.alloc(3)).toThrow(/ESTALE/);
    const again = arenas.create('heap', { size: 1 << 12, quantumCacheMax: 16 });
    again.free(again.alloc(3), 3);
    endOracle(arenas, 'heap', 1 << 12);
  });

  it('gives back what a dead slot had cached, and keeps what it had allocated', () => {
    const { arenas, region } = setUp();
    const arena = arenas.create('heap', { size: 1 << 16, quantumCacheMax: 16 });
    const dead = testThread(region);
    const theirs = new Arenas(dead, new Callbacks(region)).open('heap');
    const kept = theirs.alloc(5);
    for (let i = 0; i < 100; i++) theirs.free(theirs.alloc(1 + (i % 16)), 1 + (i % 16));
    arenas.recover(dead.slot);
    expect(arena.check().problems).toEqual([]);
    expect(() => arena.destroy()).toThrow(/EBUSY.*live allocations of cached sizes: 1/);
    arena.free(kept, 5);
    endOracle(arenas, 'heap', 1 << 16);
  });

  it('says of an address which object it lies in, and who has it', () => {
    const { arenas, thread } = setUp();
    const arena = arenas.create('ids', { base: 4096, size: 65536, quantum: 8, quantumCacheMax: 64 });
    const address = arena.alloc(20);
    const object = { address, size: 24, attachment: thread.attachment };
    expect(arena.whatis(address + 23)).toMatchObject({ kind: 'busy', object });
    arena.free(address, 20);
    expect(arena.whatis(address + 23)?.object).toEqual({ ...object, attachment: 0 });
    const large = arena.alloc(200);
    expect(arena.whatis(large)).not.toHaveProperty('object');
    expect(arenas.whatis(address)).toMatchObject([{ arena: 'ids', object: { address } }]);
  });
});
