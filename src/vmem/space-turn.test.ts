/** What later requests may have while earlier ones wait, and who is told. */

import { describe, expect, it } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { within } from '../../test/support/turns.ts';
import { PATIENCE_MS } from '../../test/support/until.ts';
import { chargeTo, createOwner } from '../sync/index.ts';
import { Arenas } from './arenas.ts';

function setUp() {
  const { region, thread, callbacks } = testRegion();
  return { region, thread, callbacks, arenas: new Arenas(thread, callbacks) };
}

const tick = (ms = 5) => new Promise((resolve) => setTimeout(resolve, ms));

describe('requests beside those that wait', () => {
  it('go on when nothing fits the one that waits, plain, cached, imported or waiting themselves', async () => {
    const { arenas } = setUp();
    const ports = arenas.create('ports', { size: 4096 });
    ports.reserve(80, 1);
    const odd = ports.allocAsync(1, { min: 80, max: 80 });
    const child = arenas.create('child', { import: { from: ports } });
    const cached = arenas.create('cached', { size: 4096, quantumCacheMax: 16 });
    cached.reserve(80, 16);
    const oddCached = cached.allocAsync(16, { min: 80, max: 95 });
    await tick();
    for (let i = 0; i < 1000; i++) ports.alloc(1);
    for (let i = 0; i < 1000; i++) child.alloc(1);
    for (let i = 0; i < 200; i++) cached.alloc(16);
    const live: number[] = [];
    for (let address = ports.tryAlloc(1); address >= 0; address = ports.tryAlloc(1)) live.push(address);
    const behind = ports.allocAsync(1);
    await tick();
    ports.free(live[5] as number, 1);
    expect(await within(behind)).toBe(live[5]);
    ports.xfree(80, 1);
    expect(await within(odd)).toBe(80);
    cached.xfree(80, 16);
    expect(await within(oddCached)).toBe(80);
    expect(arenas.check().flatMap((report) => report.problems)).toEqual([]);
  });

  it('look at few segments for one that nothing fits', async () => {
    const { arenas } = setUp();
    const arena = arenas.create('a', { size: 8192, strategy: 'best' });
    const pieces = Array.from({ length: 1024 }, () => arena.alloc(8));
    for (let i = 0; i < 1024; i += 2) arena.free(pieces[i] as number, 8);
    const odd = arena.allocAsync(8, { min: 8, max: 15 });
    await tick();
    const before = arena.stats().counts.passed;
    for (let i = 0; i < 400; i++) arena.free(arena.alloc(8), 8);
    expect(arena.stats().counts.passed - before).toBeLessThan(5000);
    arena.free(pieces[1] as number, 8);
    expect(await within(odd)).toBe(8);
  });

  it('serve a smaller one of the class behind a larger one that no hole holds', async () => {
    const { arenas } = setUp();
    const arena = arenas.create('a', { size: 100 });
    const pieces = Array.from({ length: 10 }, () => arena.alloc(10));
    const large = arena.allocAsync(15);
    await tick();
    const small = arena.allocAsync(8);
    await tick();
    arena.free(pieces[4] as number, 10);
    expect(await within(small)).toBe(40);
    arena.free(pieces[5] as number, 10);
    arena.free(40, 8);
    expect(await within(large)).toBe(40);
  });

  it('have what leaves a place for those that wait, also while those do not come for it', async () => {
    const { arenas, region, callbacks } = setUp();
    const arena = arenas.create('a', { size: 64 });
    arena.alloc(64);
    const first = arena.allocAsync(8, { min: 0, max: 7 });
    const second = arena.allocAsync(8);
    // The event loop serves neither yet: another thread waits in between.
    arena.free(0, 64);
    const theirs = new Arenas(testThread(region), callbacks).open('a');
    const got = [theirs.allocWait(8, { timeoutMs: PATIENCE_MS }), theirs.allocWait(12, { timeoutMs: PATIENCE_MS })];
    while (true) {
      const address = arena.tryAlloc(8);
      if (address < 0) break;
      got.push(address);
    }
    // Each of the two was passed once for every slot at most, and nobody took its last place after that.
    expect(got.length).toBeGreaterThan(4);
    for (const address of got) arena.free(address, address === got[1] ? 12 : 8);
    expect(await within(first)).toBe(0);
    arena.free(await within(second), 8);
    arena.free(0, 8);
    expect(arena.xalloc(64)).toBe(0);
  });

  it('are refused the last place in the end, and told why', async () => {
    const { arenas, region } = setUp();
    const arena = arenas.create('a', { size: 16 });
    const child = arenas.create('child', { import: { from: arena } });
    arena.alloc(16);
    const waiting = arena.allocAsync(16);
    arena.free(0, 16);
    for (let pass = 0; pass < region.geometry.slots; pass++) arena.free(arena.alloc(16), 16);
    expect(() => arena.alloc(16)).toThrow(/ENOMEM: arena.alloc.*kept for a request that waits/);
    expect(() => child.alloc(16)).toThrow(/ENOMEM: arena.alloc.*kept for a request that waits/);
    // Another class, and what is free apart from it.
    expect(arena.alloc(4)).toBe(0);
    arena.free(0, 4);
    arena.add(32, 16);
    expect(arena.alloc(16)).toBeGreaterThanOrEqual(0);
    expect(arena.tryAlloc(16)).toBe(-1);
    expect(await within(waiting)).toBeGreaterThanOrEqual(0);
    expect(() => arena.alloc(16)).toThrow(/no free segment can hold it/);
  });

  it('keep nothing for one that a limit keeps from its place', async () => {
    const { region, thread, callbacks } = testRegion();
    const arenas = new Arenas(thread, callbacks);
    createOwner(region, 'default');
    const other = testThread(region);
    chargeTo(other, createOwner(region, 'tenant', { arenaBytes: 8 }));
    const arena = arenas.create('a', { size: 16, charge: true });
    const theirs = new Arenas(other, callbacks).open('a');
    theirs.alloc(8);
    const waiting = theirs.allocAsync(8, { timeoutMs: 60 }).catch(String);
    await tick(20);
    for (let pass = 0; pass < 3 * region.geometry.slots; pass++) arena.free(arena.alloc(8), 8);
    expect(await waiting).toMatch(/ETIMEDOUT/);
  });

  it('get idle spans of siblings and importers at once', async () => {
    const { arenas } = setUp();
    const source = arenas.create('source', { size: 128 });
    const middle = arenas.create('middle', { import: { from: source } });
    const one = arenas.create('one', { import: { from: middle } });
    const two = arenas.create('two', { import: { from: source } });
    for (const from of [two, source, middle]) {
      const all = one.alloc(128);
      const waiting = from.allocAsync(64);
      await tick();
      one.free(all, 128);
      const address = await within(waiting);
      from.free(address, 64);
      from.trim();
    }
    one.trim();
    middle.trim();
    expect(source.size('allocated')).toBe(0);
    expect(arenas.check().flatMap((report) => report.problems)).toEqual([]);
  });
});
