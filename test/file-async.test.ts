/** The asynchronous forms of files: right, and without holding the event loop up. */

import { readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { Prng } from 'pagewright/base';
import { armFault, disarmFault } from 'pagewright/sync';
import type { File } from 'pagewright/vpm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { blockUntilAllFree } from './support/all-free.ts';
import { until } from './support/chaos.ts';
import { pattern, Scratch } from './support/scratch.ts';
import { testSeed } from './support/seed.ts';
import { holdOf } from './workers/page-provider.ts';

const module = new URL('../build/test/workers/page-provider.js', import.meta.url);

let scratch: Scratch;
let vm: VirtualMemory;

beforeEach(() => {
  scratch = new Scratch();
  vm = boot({ memory: '1 MiB', bankSize: '256 KiB', slots: 8, dirtyLimit: '128 KiB' });
});

afterEach(async () => {
  disarmFault(vm.region);
  await shutDown(vm);
  scratch.remove();
});

function nothingLeft(): void {
  blockUntilAllFree(vm);
  expect(vm.pages.held).toBe(0);
  expect(vm.vnodes.dropUnused()).toBe(0);
  vm.heap.trim();
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  expect(vm.statistics().frames.free).toBe(vm.region.geometry.frames);
  const { ioRequest } = vm.region.tables;
  for (let row = 0; row < ioRequest.rowCount; row++) expect(ioRequest.state.get(row)).toBe(0);
}

/** The path that a slow vnode is named after. */
const slowName = (name: string) => join(scratch.directory, name);

/** Has the I/O worker wait with everything for slow vnodes of a name; ends with the function that is returned. */
function hold(name: string): () => void {
  writeFileSync(holdOf(slowName(name)), '');
  return () => rmSync(holdOf(slowName(name)), { force: true });
}

/** Runs something that needs a slow vnode, which goes on after the event loop has turned a few times, and not before. */
async function turning<Result>(name: string, what: string, action: () => Promise<Result>): Promise<Result> {
  const letGo = hold(name);
  let turns = 0;
  const timer = setInterval(() => {
    if (++turns > 3) letGo();
  }, 1);
  try {
    const result = await action();
    expect(turns, what).toBeGreaterThan(3);
    return result;
  } finally {
    clearInterval(timer);
    letGo();
  }
}

function openSlow(name: string): File {
  return vm.openProvided({ provider: { module, export: 'laggard' }, name: slowName(name), mode: 'rw', size: 40_000 });
}

/** Resolves when somebody changes the size of a file. */
async function untilLocked(file: File): Promise<void> {
  const lock = vm.vnodes.sizes.lock(file.vnode);
  await until(() => {
    if (!lock.tryEnterShared()) return true;
    lock.exitShared();
    return false;
  }, 'the size is locked');
}

/** Writes everything back and forgets it. */
async function forget(file: File): Promise<void> {
  await file.syncAsync();
  vm.pages.drop(file.vnode, 100);
}

describe('asynchronous forms', () => {
  it('leave the event loop free while a slow vnode is read, mapped, written, cut, synced and closed', async () => {
    const file = openSlow('slow forms');
    await turning('slow forms', 'writevAsync', () => file.writevAsync(100, [pattern(1, 0, 30), pattern(1, 30, 9000)]));
    expect(file.read(100, 9030)).toEqual(pattern(1, 0, 9030));
    await turning('slow forms', 'syncAsync', () => file.syncAsync());
    await turning('slow forms', 'barrierAsync', async () => {
      file.write(0, pattern(1, 0, 10));
      await file.barrierAsync();
    });
    await forget(file);
    const targets = [new Uint8Array(3000), new Uint16Array(2000), new Uint8Array(50_000)];
    expect(await turning('slow forms', 'readvAsync', () => file.readvAsync(100, targets))).toBe(39_900);
    const bytes = targets.map(({ buffer }) => Buffer.from(buffer));
    expect(Buffer.concat(bytes).subarray(0, 9030)).toEqual(Buffer.from(pattern(1, 0, 9030)));
    await forget(file);
    const mapping = await turning('slow forms', 'mapAsync', () => file.mapAsync(4000, 5000, 'write'));
    expect(Buffer.concat(mapping.views())).toEqual(Buffer.from(pattern(1, 3900, 5000)));
    for (const view of mapping.views()) view.fill(7);
    mapping.release();
    await forget(file);
    expect(await turning('slow forms', 'appendAsync', () => file.appendAsync(pattern(2, 0, 100)))).toBe(40_000);
    expect(await file.readAsync(39_999, 200)).toHaveLength(101);
    await turning('slow forms', 'truncateAsync', () => file.truncateAsync(20_001));
    expect(file.size).toBe(20_001);
    await file.truncateAsync(30_000);
    expect(await file.readAsync(20_000, 20_000)).toEqual(file.read(20_000, 10_000));
    expect(file.read(20_001, 9_999).every((byte) => byte === 0)).toBe(true);
    expect(file.read(4000, 5000).every((byte) => byte === 7)).toBe(true);
    file.write(0, pattern(3, 0, 9000));
    await turning('slow forms', 'closeAsync', () => file.closeAsync());
    await file.closeAsync();
    expect(() => file.read(0, 1)).toThrow(/ESTALE/);
    const again = openSlow('slow forms');
    expect(await again.readAsync(0, 9000)).toEqual(pattern(3, 0, 9000));
    again.close();
    nothingLeft();
  });

  it('wait in the I/O worker for who changes the size, and for the limit of modified pages', async () => {
    const file = openSlow('slow lock');
    file.write(0, pattern(1, 0, 40_000));
    // Cutting takes until it may, and has the lock of the size meanwhile.
    const letCut = hold('slow lock');
    const cut = file.truncateAsync(10_000);
    await untilLocked(file);
    const offset = await turning('slow lock', 'appendAsync', () => file.appendAsync(pattern(2, 0, 5000)));
    expect(offset).toBe(10_000);
    await cut;
    letCut();
    const both = Buffer.concat([pattern(1, 0, 10_000), pattern(2, 0, 5000)]);
    expect(Buffer.compare(file.read(0, 20_000), both)).toBe(0);
    const letLengthen = hold('slow lock');
    const lengthened = file.truncateAsync(40_000);
    await untilLocked(file);
    await turning('slow lock', 'writeAsync', () => file.writeAsync(20_000, pattern(3, 0, 30_000)));
    await lengthened;
    letLengthen();
    expect(file.read(20_000, 40_000)).toEqual(pattern(3, 0, 30_000));
    await file.closeAsync();
    // More than may be modified: the rest is written back by the worker.
    const big = openSlow('slow limit');
    const before = vm.statistics().pages.behindPages;
    for (let at = 0; at < 40_960; at += 4096) await big.writeAsync(at, pattern(4, at, 4096));
    const other = vm.open(scratch.file('other', 110_000), { mode: 'rw' });
    const mapping = other.map(0, 110_000, 'write');
    await turning('slow limit', 'writeAsync over the limit', () => big.writeAsync(100, pattern(5, 0, 100)));
    expect(vm.statistics().pages.behindPages).toBeGreaterThan(before);
    expect(await big.readAsync(100, 100)).toEqual(pattern(5, 0, 100));
    mapping.release();
    await big.closeAsync();
    other.close();
    nothingLeft();
  });

  it('may be under way in any number, from any task', async () => {
    const random = new Prng(testSeed('many asynchronous calls', 3));
    const path = scratch.file('many', 600_000, 7);
    const file = await vm.openAsync(path, { mode: 'rw' });
    const reads = Array.from({ length: 400 }, async () => {
      const offset = random.below(590_000);
      const length = random.below(9000);
      return Buffer.compare(await file.readAsync(offset, length), pattern(7, offset, length));
    });
    expect((await Promise.all(reads)).every((difference) => difference === 0)).toBe(true);
    // Each writes a stripe of its own; appends never overlap.
    const writes = Array.from({ length: 200 }, (_, at) => file.writeAsync(at * 3000, pattern(8, at * 3000, 3000)));
    const appends = Array.from({ length: 100 }, (_, at) => file.appendAsync(Buffer.alloc(500 + at, at)));
    const maps = Array.from({ length: 50 }, () => file.mapAsync(random.below(590_000), 100));
    await Promise.all(writes);
    for (const mapping of await Promise.all(maps)) mapping.release();
    const offsets = await Promise.all(appends);
    for (const [at, offset] of offsets.entries()) {
      expect(file.read(offset, 500 + at).every((byte) => byte === at)).toBe(true);
    }
    expect(file.size).toBe(600_000 + 100 * 500 + 4950);
    expect(file.read(0, 600_000)).toEqual(pattern(8, 0, 600_000));
    await Promise.all(Array.from({ length: 20 }, () => file.syncAsync()));
    expect(Buffer.compare(readFileSync(path), file.read(0, 700_000))).toBe(0);
    await file.closeAsync();
    nothingLeft();
  });

  it('say which call failed, and end when they are told to', async () => {
    const path = scratch.file('a', 10_000, 1);
    const file = await vm.openAsync(path);
    const signal = AbortSignal.abort(new Error('enough'));
    const one = new Uint8Array(1);
    const calls: [string, (options?: { signal: AbortSignal }) => Promise<unknown>, boolean][] = [
      ['readAsync', (options) => file.readAsync(0, 1, options), false],
      ['readvAsync', (options) => file.readvAsync(0, [one], options), false],
      ['mapAsync', (options) => file.mapAsync(0, 1, 'read', options), false],
      ['writeAsync', (options) => file.writeAsync(0, one, options), true],
      ['writevAsync', (options) => file.writevAsync(0, [one], options), true],
      ['appendAsync', (options) => file.appendAsync(one, options), true],
      ['truncateAsync', (options) => file.truncateAsync(0, options), true],
      ['barrierAsync', (options) => file.barrierAsync(options), true],
      ['closeAsync', (options) => file.closeAsync(options), false],
    ];
    for (const [name, call, writes] of calls) {
      if (writes) await expect(call(), name).rejects.toThrow(new RegExp(`EACCES: file\\.${name}`));
      else await expect(call({ signal }), name).rejects.toThrow(new RegExp(`ECANCELED: file\\.${name}`));
      const wrong = { signol: signal } as unknown as { signal: AbortSignal };
      if (!writes) await expect(call(wrong), name).rejects.toThrow(new RegExp(`EINVAL: file\\.${name}: .*signol`));
    }
    await expect(file.mapAsync(9_999, 2)).rejects.toThrow(/EFAULT: file\.mapAsync/);
    await expect(file.mapAsync(0, 10, 'write')).rejects.toThrow(/EACCES: file\.mapAsync/);
    await expect(file.readvAsync(-1, [one])).rejects.toThrow(/EINVAL: file\.readvAsync/);
    await expect(file.readvAsync(0, one as unknown as Uint8Array[])).rejects.toThrow(/EINVAL: file\.readvAsync/);
    await file.closeAsync();
    for (const [name, call] of calls.slice(0, -1)) {
      await expect(call(), name).rejects.toThrow(new RegExp(`ESTALE: file\\.${name}`));
    }
    const slow = openSlow('aborted');
    const letGo = hold('aborted');
    const controller = new AbortController();
    const waiting = [
      slow.mapAsync(0, 100, 'read', { signal: controller.signal }),
      slow.truncateAsync(500, { signal: controller.signal }),
      slow.appendAsync(one, { signal: controller.signal }),
    ];
    setTimeout(() => controller.abort(), 10);
    for (const result of await Promise.allSettled(waiting)) {
      expect(result).toMatchObject({ status: 'rejected', reason: { code: 'ECANCELED' } });
    }
    letGo();
    await slow.truncateAsync(700);
    expect(slow.size).toBe(700);
    await slow.closeAsync();
    nothingLeft();
  });

  it('fail with EIO when the worker ends, lose nothing, and find another one next time', async () => {
    const path = scratch.file('a', 100_000, 1);
    const file = await vm.openAsync(path, { mode: 'rw' });
    file.write(50_000, pattern(2, 0, 5000));
    const dies = () => armFault(vm.region, 'vnode.io.serving', 'fail');
    for (const [name, call] of [
      ['mapAsync', () => file.mapAsync(0, 100)],
      ['readvAsync', () => file.readvAsync(20_000, [new Uint8Array(100)])],
      ['truncateAsync', () => file.truncateAsync(90_000)],
      ['barrierAsync', () => file.barrierAsync()],
    ] as const) {
      dies();
      await expect(call(), name).rejects.toThrow(new RegExp(`EIO: file\\.${name}.*pages I/O worker has ended`));
    }
    expect(file.size).toBe(100_000);
    await file.truncateAsync(90_000);
    expect(await file.appendAsync(pattern(3, 0, 10))).toBe(90_000);
    dies();
    // Closing writes back what the worker did not.
    await file.closeAsync();
    disarmFault(vm.region);
    const expected = Buffer.concat([pattern(1, 0, 90_000), pattern(3, 0, 10)]);
    expected.set(pattern(2, 0, 5000), 50_000);
    expect(Buffer.compare(readFileSync(path), expected)).toBe(0);
    nothingLeft();
  });

  it('report a failure of writing back once to every opener, and keep the pages', async () => {
    const path = scratch.file('a', 10_000, 1);
    const file = await vm.openAsync(path, { mode: 'rw' });
    const other = await vm.openAsync(path, { mode: 'rw' });
    file.write(0, pattern(2, 0, 9000));
    armFault(vm.region, 'vnode.write.full', 'failAlways');
    await expect(file.barrierAsync()).rejects.toThrow(/ENOSPC: file\.barrierAsync/);
    disarmFault(vm.region);
    await file.barrierAsync();
    expect(readFileSync(path).subarray(0, 9000)).toEqual(Buffer.from(pattern(2, 0, 9000)));
    await expect(other.closeAsync()).rejects.toThrow(/ENOSPC: file\.closeAsync/);
    await file.closeAsync();
    nothingLeft();
  });
});

describe("users' own vnodes that can be looked at", () => {
  for (const name of ['versioned', 'slowVersioned']) {
    it(`turn to what they are now when they are revalidated: ${name}`, async () => {
      const path = scratch.file('own', 30_000, 1);
      const change = (version: string, size: number, seed: number) => {
        writeFileSync(path, pattern(seed, 0, size));
        writeFileSync(`${path}.version`, version);
      };
      change('1', 30_000, 1);
      const options = { provider: { module, export: name }, name: path };
      const file = vm.openProvided(options);
      const other = await vm.openProvidedAsync(options);
      expect([file.size, other.vnode]).toEqual([30_000, file.vnode]);
      expect(file.read(0, 5000)).toEqual(pattern(1, 0, 5000));
      expect([file.isChanged(), file.revalidate(), await file.revalidateAsync()]).toEqual([false, false, false]);
      change('2', 30_000, 2);
      expect(file.isChanged()).toBe(true);
      expect(file.read(0, 5000)).toEqual(pattern(1, 0, 5000));
      if (name === 'versioned') expect(await file.revalidateAsync()).toBe(true);
      else expect(await turning('own', 'revalidateAsync', () => file.revalidateAsync())).toBe(true);
      expect(file.read(0, 30_000)).toEqual(pattern(2, 0, 30_000));
      expect(other.vnode).not.toBe(file.vnode);
      expect(other.read(0, 5000)).toEqual(pattern(1, 0, 5000));
      // Who opens it now sees the new one, whatever others still see; also when only the size is another.
      expect((await vm.openProvidedAsync(options)).vnode).toBe(file.vnode);
      change('2', 20_000, 2);
      expect(other.revalidate()).toBe(true);
      expect([other.size, file.size]).toEqual([20_000, 30_000]);
      // What we write makes another version, which is ours.
      const writer = vm.openProvided({ ...options, mode: 'rw' });
      writer.write(100, pattern(3, 0, 10_000));
      await writer.syncAsync();
      writer.truncate(15_000);
      const { vnode } = writer;
      await writer.closeAsync();
      const again = vm.openProvided(options);
      expect([again.vnode, again.isChanged(), again.size]).toEqual([vnode, false, 15_000]);
      // While somebody has it open for writing it stays one vnode.
      const last = vm.openProvided({ ...options, mode: 'rw' });
      last.write(0, pattern(4, 0, 100));
      change('9', 25_000, 5);
      expect(last.isChanged()).toBe(false);
      expect(name === 'versioned' ? last.revalidate() : await last.revalidateAsync()).toBe(true);
      expect([last.vnode, last.size]).toEqual([vnode, 25_000]);
      expect(last.read(0, 100)).toEqual(pattern(4, 0, 100));
      expect(last.read(4096, 20_000)).toEqual(pattern(5, 4096, 20_000)); // The first page is ours as a whole.
      vm.vnodes.closeAll();
      nothingLeft();
    });
  }

  it('are refused when they say nonsense, and change only through us when they say nothing', async () => {
    const path = scratch.file('own', 100);
    const options = { provider: { module, export: 'nonsense' }, name: path };
    expect(() => vm.openProvided(options)).toThrow(/EINVAL: openProvided\(name=.*provider\.look\(size=-1\)/);
    await expect(vm.openProvidedAsync({ ...options, signal: AbortSignal.abort() })).rejects.toThrow(/ECANCELED/);
    const file = vm.openProvided({ ...options, size: 100 });
    expect(() => file.revalidate()).toThrow(/EINVAL: file\.revalidate.*provider\.look/);
    file.close();
    const plain = vm.openProvided({ provider: { module, export: 'cutter' }, name: 'x', mode: 'rw' });
    plain.write(0, pattern(1, 0, 100));
    expect([plain.isChanged(), plain.revalidate(), await plain.revalidateAsync()]).toEqual([false, false, false]);
    expect(plain.read(0, 100)).toEqual(pattern(1, 0, 100));
    plain.close();
    nothingLeft();
  });
});

describe('openAsync', () => {
  it('opens, makes and cuts files like open, and refuses what it refuses', async () => {
    const path = join(scratch.directory, 'new');
    const file = await vm.openAsync(path, { mode: 'rw', create: true, exclusive: true, pageSize: 8192 });
    file.write(0, pattern(1, 0, 20_000));
    await file.syncAsync();
    expect(vm.open(path).vnode).toBe(file.vnode);
    await expect(vm.openAsync(path, { mode: 'rw', create: true, exclusive: true })).rejects.toThrow(
      /EEXIST: openAsync/,
    );
    await expect(vm.openAsync(`${path}2`)).rejects.toThrow(/ENOENT: openAsync/);
    await expect(vm.openAsync(scratch.directory)).rejects.toThrow(/EINVAL: openAsync.*regular/);
    await expect(vm.openAsync('')).rejects.toThrow(/EINVAL: openAsync/);
    await expect(vm.openAsync(path, { mode: 'x' as 'r' })).rejects.toThrow(/EINVAL: openAsync.*mode/);
    await expect(vm.openAsync(path, { pageSize: 4096 })).rejects.toThrow(/EINVAL: openAsync.*pageSize/);
    await expect(vm.openAsync(path, { signal: AbortSignal.abort() })).rejects.toThrow(/ECANCELED: openAsync/);
    await expect(vm.openAsync(path, { block: '' })).rejects.toThrow(/EINVAL: openAsync/);
    const late = new AbortController();
    const opening = vm.openAsync(path, { signal: late.signal });
    late.abort();
    await expect(opening).rejects.toThrow(/ECANCELED: openAsync/);
    const block = await vm.openAsync('disk0', { block: path });
    expect([block.vnode, block.stat().path]).toEqual([file.vnode, 'disk0']);
    symlinkSync(path, `${path}-link`);
    const cut = await vm.openAsync(`${path}-link`, { mode: 'rw', truncate: true });
    expect([cut.vnode, cut.size, file.size]).toEqual([file.vnode, 0, 0]);
    expect(readFileSync(path).length).toBe(0);
    for (const one of [block, cut, file]) await one.closeAsync();
    vm.vnodes.closeAll();
    nothingLeft();
  });

  it('leaves nothing open when the cut that belongs to it fails', async () => {
    const path = scratch.file('a', 10_000, 1);
    armFault(vm.region, 'vnode.truncate.error', 'fail');
    await expect(vm.openAsync(path, { mode: 'rw', truncate: true })).rejects.toThrow(/EIO: openAsync/);
    disarmFault(vm.region);
    writeFileSync(path, 'other');
    const file = vm.open(path);
    expect(Buffer.from(file.read(0, 10)).toString()).toBe('other');
    file.close();
    nothingLeft();
  });
});
