/** Asynchronous vnodes beside each other: one that does not answer holds up nobody else, and no longer than it may. */

import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Origin } from './support/origin.ts';
import { matches } from './support/scratch.ts';

const build = (name: string) => new URL(`../build/test/workers/${name}.js`, import.meta.url);
const module = build('page-provider');

let vm: VirtualMemory;

beforeEach(() => {
  vm = boot({ memory: '1 MiB', bankSize: '256 KiB', slots: 16 });
});

afterEach(async () => {
  await shutDown(vm);
});

const open = (exported: string, name: string, mode: 'r' | 'rw' = 'r') =>
  vm.openProvided({ provider: { module, export: exported }, name, mode });

/** What `slow` and `keeper` hold before anybody has written. */
const expected = (name: string, offset: number, length: number) =>
  Uint8Array.from({ length }, (_, i) => ((offset + i) * 3 + name.length) & 255);

describe('a vnode whose provider never answers', () => {
  it('holds up no other vnode, however much is asked of it and of its provider', async () => {
    const silent = ['a', 'b', 'c', 'd', 'e'].map((name) => open('silent', name));
    const stop = new AbortController();
    const given = silent.flatMap((file) =>
      Array.from({ length: 40 }, (_, n) => file.readAsync(n * 1000, 10, { signal: stop.signal }).catch(String)),
    );
    const others = ['x', 'yy', 'zzz'].map((name) => ({ name, file: open('slow', name) }));
    for (let round = 0; round < 4; round++) {
      const reads = others.map(({ file }) => file.readAsync(round * 9000, 5000));
      for (const [i, bytes] of (await Promise.all(reads)).entries()) {
        expect(bytes).toEqual(expected(others[i]?.name as string, round * 9000, 5000));
      }
    }
    // A thread that waits gets its own, too.
    expect(others[0]?.file.read(40_000, 3000)).toEqual(expected('x', 40_000, 3000));
    expect(vm.region.tables.ioService.starts.at(0, 2)).toBe(2);
    stop.abort();
    for (const outcome of await Promise.all(given)) expect(outcome).toMatch(/ECANCELED/);
  });

  it('holds up nobody together with another one that never answers, nor with two', async () => {
    const stop = new AbortController();
    const given = ['silent', 'silentToo', 'silentAsWell'].flatMap((exported) =>
      ['a', 'b'].map((name) => open(exported, name).readAsync(0, 10, { signal: stop.signal }).catch(String)),
    );
    const file = open('slow', 'x');
    for (let round = 0; round < 4; round++) {
      expect(await file.readAsync(round * 9000, 5000)).toEqual(expected('x', round * 9000, 5000));
    }
    stop.abort();
    for (const outcome of await Promise.all(given)) expect(outcome).toMatch(/ECANCELED/);
  });

  it('does not keep what is written to another from its provider', async () => {
    const silent = open('silent', 'w');
    silent.readAsync(0, 10).catch(() => undefined);
    const file = open('slowKeeper', 'written', 'rw');
    await file.writeAsync(0, new Uint8Array(20_000).fill(7));
    await file.syncAsync();
    await file.truncateAsync(5000);
    await file.closeAsync();
    expect(vm.vnodes.dropUnused()).toBe(1);
    const again = vm.openProvided({ provider: { module, export: 'slowKeeper' }, name: 'written', size: 20_000 });
    expect(await again.readAsync(0, 5000)).toEqual(new Uint8Array(5000).fill(7));
    expect(await again.readAsync(5000, 15_000)).toEqual(new Uint8Array(15_000));
  });
});

describe('requests of one asynchronous vnode', () => {
  it('are carried out in order', async () => {
    const files = ['p', 'q'].map((name) => open('laggard', name, 'rw'));
    await Promise.all(files.flatMap((file) => [3000, 30_000, 0, 12_345].map((size) => file.truncateAsync(size))));
    for (const file of files) expect(file.size).toBe(12_345);
    for (const file of files) file.close();
  });
});

describe('resources of a server that never answers', () => {
  it('hold up no resource of another', async () => {
    const origins = [await Origin.start(), await Origin.start()] as const;
    try {
      const plain = { size: 100_000, seed: 3 };
      const addresses = origins.map(({ port }) => `http://127.0.0.1:${port}`);
      await Promise.all(origins.map((origin) => origin.set(plain)));
      const slow = await Promise.all(['1', '2', '3', '4'].map((name) => vm.openRemoteAsync(`${addresses[0]}/${name}`)));
      const quick = await vm.openRemoteAsync(`${addresses[1]}/a`);
      await origins[0].set({ ...plain, delayMs: 600_000 });
      for (const file of slow) file.readAsync(50_000, 10).catch(() => undefined);
      for (let at = 0; at < 90_000; at += 30_000) {
        expect(matches(await quick.readAsync(at, 8000), 3, at)).toBe(true);
      }
    } finally {
      for (const origin of origins) await origin.end();
    }
  });
});
