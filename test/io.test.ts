/** What goes through the I/O workers: asynchronous forms, resources behind HTTP, users' own vnodes; and their ends. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { armFault, disarmFault } from 'pagewright/sync';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { blockUntilAllFree } from './support/all-free.ts';
import { until } from './support/chaos.ts';
import { Origin } from './support/origin.ts';
import { matches, pattern, Scratch } from './support/scratch.ts';
import type { OriginSettings } from './workers/http-origin.ts';

const build = (name: string) => new URL(`../build/test/workers/${name}.js`, import.meta.url);

let scratch: Scratch;
let vm: VirtualMemory;
let origin: Origin;
let address = '';

beforeAll(async () => {
  origin = await Origin.start();
  address = `http://127.0.0.1:${origin.port}`;
});

afterAll(() => origin.end());

beforeEach(() => {
  scratch = new Scratch();
  vm = boot({ memory: '1 MiB', bankSize: '256 KiB', slots: 8 });
});

afterEach(async () => {
  disarmFault(vm.region);
  await shutDown(vm);
  scratch.remove();
});

const set = (settings: Partial<OriginSettings>) => origin.set(settings);

function nothingLeft(): void {
  blockUntilAllFree(vm);
  expect(vm.vnodes.dropUnused()).toBe(0);
  vm.heap.trim();
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  expect(vm.statistics().frames.free).toBe(vm.region.geometry.frames);
  const { state } = vm.region.tables.ioRequest;
  for (let row = 0; row < vm.region.tables.ioRequest.rowCount; row++) expect(state.get(row)).toBe(0);
}

describe('asynchronous forms', () => {
  it('read, write and sync without blocking, also ten times the memory', async () => {
    const path = scratch.file('big', 10_000_000, 4);
    const file = vm.open(path, { mode: 'rw' });
    expect(await file.readAsync(123_456, 400_000)).toEqual(pattern(4, 123_456, 400_000));
    expect((await file.readAsync(9_999_990, 400)).length).toBe(10);
    const parts = await Promise.all([1, 2, 3, 4].map((n) => file.readAsync(n * 1_000_000, 5000)));
    for (const [n, part] of parts.entries()) expect(matches(part, 4, (n + 1) * 1_000_000)).toBe(true);
    expect(await file.writeAsync(5_000_001, pattern(5, 0, 10_000))).toBe(10_000);
    await file.syncAsync();
    await file.datasyncAsync();
    const real = readFileSync(path);
    expect(matches(real.subarray(5_000_001, 5_010_001), 5, 0)).toBe(true);
    expect(matches(real.subarray(0, 5_000_001), 4, 0)).toBe(true);
    let at = 0;
    for await (const bytes of vm.open(path)) at += bytes.length;
    expect(at).toBe(10_000_000);
    file.close();
    vm.vnodes.closeAll();
    nothingLeft();
  });

  it('stream in both directions, and stop when they are told to', async () => {
    const from = vm.open(scratch.file('from', 300_000, 6));
    const path = join(scratch.directory, 'to');
    const to = vm.open(path, { mode: 'rw', create: true });
    await pipeline(from.readable({ start: 1000, chunkBytes: 7777 }), to.writable());
    expect(matches(readFileSync(path), 6, 1000)).toBe(true);
    expect(readFileSync(path).length).toBe(299_000);
    const controller = new AbortController();
    controller.abort(new Error('enough'));
    await expect(from.readAsync(0, 10, { signal: controller.signal })).rejects.toThrow(/ECANCELED/);
    await expect(pipeline(from.readable({ signal: controller.signal }), to.writable())).rejects.toThrow(/ECANCELED/);
    expect(() => from.writable()).toThrow(/EACCES/);
    await expect(from.syncAsync()).rejects.toThrow(/EACCES/);
    from.close();
    to.close();
    nothingLeft();
  });
});

describe('a resource behind HTTP', () => {
  it('is read by ranges of one version, once for all who want a page, through failures', async () => {
    await set({ size: 200_000, seed: 8, failures: 2 });
    const file = vm.openRemote(`${address}/a`);
    expect(file.size).toBe(200_000);
    await set({ size: 200_000, seed: 8, breaks: 1, delayMs: 20 });
    const reads = Array.from({ length: 6 }, () => file.readAsync(5000, 3000));
    for (const bytes of await Promise.all(reads)) expect(matches(bytes, 8, 5000)).toBe(true);
    expect(file.read(0, 200_000)).toEqual(pattern(8, 0, 200_000));
    const mapping = file.map(10_000, 100);
    expect(matches(mapping.views()[0] as Uint8Array, 8, 10_000)).toBe(true);
    mapping.release();
    // Two pages in one range, tried twice; then two ranges up to the end, of 32 pages at most.
    await until(() => origin.requests > 2, 'the server has counted');
    expect(origin.requests).toBeLessThanOrEqual(2 + 3);
    expect(() => file.map(0, 10, 'write')).toThrow(/EACCES/);
    file.close();
    nothingLeft();
  });

  it('is looked at again by revalidate, waiting or not, which turns to the version that it has now', async () => {
    await set({ size: 100_000, seed: 5, tag: '"a"' });
    const file = vm.openRemote(`${address}/again`);
    const other = vm.openRemote(`${address}/again`);
    file.read(0, 10);
    expect(file.isChanged()).toBe(false);
    expect(file.revalidate()).toBe(false);
    expect(await file.revalidateAsync()).toBe(false);
    await set({ size: 120_000, seed: 6, tag: '"b"' });
    expect(file.isChanged()).toBe(true);
    expect(file.read(0, 10)).toEqual(pattern(5, 0, 10));
    expect(() => file.read(99_000, 10)).toThrow(/ESTALE/);
    const before = file.vnode;
    expect(await file.revalidateAsync()).toBe(true);
    expect(file.vnode).not.toBe(before);
    expect(file.size).toBe(120_000);
    expect(await file.readAsync(99_000, 50_000)).toEqual(pattern(6, 99_000, 21_000));
    // Who does not look again goes on with what is in memory, and comes to the same pages when it does.
    expect(other.read(0, 10)).toEqual(pattern(5, 0, 10));
    expect(other.revalidate()).toBe(true);
    expect(other.vnode).toBe(file.vnode);
    // So slow that the answer cannot come before the abort.
    await set({ size: 120_000, seed: 7, tag: '"c"', delayMs: 400 });
    const controller = new AbortController();
    const given = file.revalidateAsync({ signal: controller.signal });
    controller.abort();
    await expect(given).rejects.toThrow(/ECANCELED/);
    expect(file.revalidate()).toBe(true);
    expect(file.read(0, 5)).toEqual(pattern(7, 0, 5));
    await set({ size: 120_000, seed: 7, tag: '"c"', failures: 1000 });
    expect(() => file.revalidate()).toThrow(/EIO.*503/);
    expect(file.read(0, 5)).toEqual(pattern(7, 0, 5));
    for (const each of [file, other]) each.close();
    await until(() => {
      const { state } = vm.region.tables.ioRequest;
      for (let row = 0; row < vm.region.tables.ioRequest.rowCount; row++) if (state.get(row) !== 0) return false;
      return true;
    }, 'what was given up is served');
    nothingLeft();
  });

  it('that changes is an error, never a mixture; the next open sees the new one', async () => {
    await set({ size: 100_000, seed: 1 });
    const file = await vm.openRemoteAsync(`${address}/b`);
    expect(matches(file.read(0, 4096), 1, 0)).toBe(true);
    await set({ size: 100_000, seed: 2, tag: '"2"' });
    expect(() => file.read(50_000, 10)).toThrow(/ESTALE.*changed/);
    expect(matches(file.read(0, 4096), 1, 0)).toBe(true);
    const fresh = vm.openRemote(`${address}/b`);
    expect(fresh.vnode).not.toBe(file.vnode);
    expect(matches(fresh.read(0, 100_000), 2, 0)).toBe(true);
    file.close();
    fresh.close();
    nothingLeft();
  });

  it('of a server without ranges is read all the same; what is not there is said so', async () => {
    await set({ size: 30_000, seed: 3, noRanges: true });
    const file = vm.openRemote(`${address}/c`);
    expect(matches(file.read(10_000, 9999), 3, 10_000)).toBe(true);
    const large = vm.openRemote(`${address}/c2`, { pageSize: 16_384 });
    expect(large.stat().pageSize).toBe(16_384);
    using mapping = large.map(16_384, 10_000);
    expect(mapping.pieces.length).toBe(1);
    expect(matches(mapping.views()[0] as Uint8Array, 3, 16_384)).toBe(true);
    mapping.release();
    expect(() => vm.openRemote(`${address}/c2`, { pageSize: 4096 })).toThrow(/EINVAL.*pageSize/);
    await expect(vm.openRemoteAsync(`${address}/c2`, { pageSize: 5000 })).rejects.toThrow(/EINVAL.*power of two/);
    expect((await vm.openRemoteAsync(`${address}/c2`, { pageSize: 16_384 })).vnode).toBe(large.vnode);
    vm.vnodes.closeAll();
    expect(() => vm.openRemote(`${address}/missing`)).toThrow(/ENOENT/);
    expect(() => vm.openRemote('ftp://127.0.0.1/x')).toThrow(/EINVAL.*http/);
    expect(() => vm.openRemote('http://127.0.0.1:1/x')).toThrow(/EIO.*4 times/);
    nothingLeft();
  });
});

describe("users' own vnodes", () => {
  const module = build('page-provider');

  it('bring pages where they are needed, or in the I/O worker', async () => {
    for (const name of ['plain', 'slow']) {
      const file = vm.openProvided({ provider: { module, export: name }, name: 'abc' });
      expect(file.size).toBe(50_000);
      const expected = Uint8Array.from({ length: 50_000 }, (_, i) => (i * 3 + 3) & 255);
      expect(file.read(0, 60_000)).toEqual(expected);
      expect(await file.readAsync(49_000, 5000)).toEqual(expected.subarray(49_000));
      const broken = vm.openProvided({ provider: { module, export: name }, name: 'broken' });
      expect(() => broken.read(0, 10)).toThrow(/EIO.*broken/);
      broken.close();
      file.close();
    }
    expect(() => vm.openProvided({ provider: { module, export: 'plain' }, name: 'x', mode: 'rw' })).toThrow(
      /no putPage/,
    );
    nothingLeft();
  });

  it('take pages back, and say when they cannot', async () => {
    const provider = { module, export: 'slow' };
    const file = vm.openProvided({ provider, name: 'xyz', mode: 'rw' });
    file.write(4000, pattern(9, 0, 9000));
    await file.syncAsync();
    file.close();
    expect(vm.vnodes.dropUnused()).toBe(0);
    const again = vm.openProvided({ provider, name: 'xyz' });
    expect(matches(again.read(4000, 9000), 9, 0)).toBe(true);
    again.close();
    const full = vm.openProvided({ provider, name: 'full', mode: 'rw' });
    full.write(0, pattern(9, 0, 10));
    expect(() => full.sync()).toThrow(/EIO.*full/);
    expect(vm.pages.modifiedOf(full.vnode)).toBe(1);
    vm.pages.invalidate(full.vnode, 0);
    full.close();
    nothingLeft();
  });
});

describe("what is cut off a user's own vnode", () => {
  for (const name of ['keeper', 'slowKeeper', 'cutter', 'slowCutter']) {
    for (const pageSize of [4096, 16_384]) {
      it(`does not come back with ${name} and pages of ${pageSize} bytes`, () => {
        const provider = { module: build('page-provider'), export: name };
        const file = vm.openProvided({ provider, name: `cut ${pageSize}`, mode: 'rw', pageSize });
        for (const [kept, next] of [
          [100, 40_000],
          [0, 40_000],
          [16_384, 30_000],
          [20_000, 20_001],
        ] as const) {
          file.write(0, new Uint8Array(40_000).fill(65));
          file.sync();
          vm.pages.drop(file.vnode, 16);
          file.truncate(kept);
          file.truncate(next);
          const expected = new Uint8Array(next).fill(65, 0, kept);
          expect(Buffer.compare(file.read(0, 50_000), expected), `${kept} at once`).toBe(0);
          file.sync();
          vm.pages.drop(file.vnode, 16);
          expect(Buffer.compare(file.read(0, 50_000), expected), `${kept} afterwards`).toBe(0);
        }
        file.close();
        nothingLeft();
      });
    }
  }
});

describe('a memory vnode', () => {
  it("has pages of 16 KiB if it is told, as users' own have", () => {
    const file = vm.openMemory('large', { pageSize: 16_384 });
    file.write(10_000, pattern(3, 0, 50_000));
    using mapping = file.map(16_384, 16_384);
    expect(mapping.pieces.length).toBe(1);
    expect(matches(mapping.views()[0] as Uint8Array, 3, 6384)).toBe(true);
    expect(() => vm.openMemory('large', { pageSize: 8192 })).toThrow(/EINVAL.*same pageSize/);
    expect(() => vm.openMemory('other', { pageSize: 1000 })).toThrow(/EINVAL.*power of two/);
    mapping.release();
    file.close();
    for (const name of ['plain', 'slow']) {
      const own = vm.openProvided({
        provider: { module: build('page-provider'), export: name },
        name: 'x',
        pageSize: 8192,
      });
      using piece = own.map(8192, 8192);
      expect(piece.pieces.length).toBe(1);
      const expected = Uint8Array.from({ length: 8192 }, (_, i) => ((8192 + i) * 3 + 1) & 255);
      expect(Buffer.compare(piece.views()[0] as Uint8Array, expected)).toBe(0);
      piece.release();
      own.close();
    }
    nothingLeft();
  });

  it('is shared by name, keeps its bytes while it is open, and gives all back', () => {
    const file = vm.openMemory('scratch');
    file.write(100_000, pattern(2, 0, 5000));
    const again = vm.openMemory('scratch');
    expect(again.size).toBe(105_000);
    expect(again.read(0, 100_000).every((byte) => byte === 0)).toBe(true);
    expect(matches(again.read(100_000, 5000), 2, 0)).toBe(true);
    // Files push clean pages out, but not these.
    const big = vm.open(scratch.file('big', 3_000_000, 1));
    for (let at = 0; at < 3_000_000; at += 4096) big.read(at, 10);
    expect(matches(again.read(100_000, 5000), 2, 0)).toBe(true);
    file.sync();
    again.truncate(0);
    expect(file.size).toBe(0);
    for (const one of [file, again, big]) one.close();
    nothingLeft();
  });
});

describe('a provider that is wrong', () => {
  const open = (name: string, mode: 'r' | 'rw' = 'r') =>
    vm.openProvided({ provider: { module: build('page-provider'), export: name }, name: 'x', mode, size: 0 });

  for (const name of ['crammed', 'slowCrammed']) {
    it(`is heard with its code: ${name}`, () => {
      const file = open(name, 'rw');
      file.write(0, pattern(1, 0, 4096));
      expect(() => file.sync()).toThrow(/ENOSPC.*not a byte more/);
      expect(() => file.close()).toThrow();
    });
  }

  it('is refused when it is opened, by module and export', async () => {
    const module = build('page-provider');
    const asked = (name: string) => () => vm.openProvided({ provider: { module, export: name }, name: 'x' });
    for (const name of ['five', 'getless', 'sizeless']) {
      expect(asked(name)).toThrow(new RegExp(`EINVAL: openProvided.*page-provider.*"${name}".*no provider`));
    }
    expect(asked('sizeThrows')).toThrow(/EIO: openProvided.*"sizeThrows".*nobody asks for size/);
    expect(() => vm.openProvided({ name: 'x' } as never)).toThrow(/EINVAL: openProvided.*module and an export/);
    expect(() => vm.openProvided(null as never)).toThrow(/EINVAL: openProvided/);
    await expect(vm.openProvidedAsync(null as never)).rejects.toThrow(/EINVAL: openProvidedAsync/);
    await expect(vm.openRemoteAsync(address, null as never)).rejects.toThrow(/EINVAL: openRemoteAsync/);
    await expect(vm.openAsync('x', null as never)).rejects.toThrow(/EINVAL: openAsync/);
    expect(() => vm.open('x', null as never)).toThrow(/EINVAL: open/);
    nothingLeft();
  });
});

describe('a vnode whose store does not answer', () => {
  it('holds no asynchronous form of a file up', async () => {
    const provider = { module: build('page-provider'), export: 'silent' };
    const silent = vm.openProvided({ provider, name: 'x' });
    const path = scratch.file('a', 100_000, 3);
    const file = await vm.openAsync(path, { mode: 'rw' });
    await expect(silent.readAsync(0, 10, { signal: AbortSignal.timeout(300) })).rejects.toThrow(/ECANCELED/);
    expect(await file.readAsync(50_000, 100)).toEqual(pattern(3, 50_000, 100));
    await file.writeAsync(70_001, pattern(4, 0, 10));
    await file.syncAsync();
    expect(matches(readFileSync(path).subarray(70_001, 70_011), 4, 0)).toBe(true);
    (await file.mapAsync(90_000, 10)).release();
    await file.truncateAsync(80_000);
    expect(file.size).toBe(80_000);
    await file.closeAsync();
  });
});

describe('an I/O worker that ends', () => {
  it('says why in what it fails: the error that nobody caught, or its exit code', async () => {
    const provider = { module: build('page-provider'), export: 'fatal' };
    const thrown = vm.openProvided({ provider, name: 'throw' });
    expect(() => thrown.read(0, 10)).toThrow(/EIO.*remote I\/O worker has ended: nobody asks for this/);
    const exits = vm.openProvided({ provider, name: 'exit' });
    await expect(exits.readAsync(0, 10)).rejects.toThrow(/EIO: file\.readAsync.*has ended: exit code 7/);
    thrown.close();
    exits.close();
    nothingLeft();
  });

  it('fails what was asked of it with EIO, and the next request starts another', async () => {
    await set({ size: 100_000, seed: 1 });
    const file = vm.openRemote(`${address}/d`);
    const starts = () => [0, 1, 2].map((role) => vm.region.tables.ioService.starts.at(0, role));
    expect(starts()).toEqual([1, 0, 0]);
    armFault(vm.region, 'vnode.io.serving', 'fail');
    expect(() => file.read(0, 10)).toThrow(/EIO.*remote I\/O worker has ended: exit code 1/);
    expect(vm.pages.held).toBe(0);
    expect(matches(file.read(0, 50_000), 1, 0)).toBe(true);
    armFault(vm.region, 'vnode.io.serving', 'fail');
    await expect(file.readAsync(60_000, 10)).rejects.toThrow(/EIO.*far pages I\/O worker has ended/);
    expect(matches(await file.readAsync(60_000, 100), 1, 60_000)).toBe(true);
    expect(starts()).toEqual([2, 0, 2]);
    file.close();
    nothingLeft();
  });
});
