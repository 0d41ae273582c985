/** Bytes that are stored through pins reach the files that they belong to; calls with senseless arguments change nothing. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { boot, shutDown, type VirtualMemory } from 'pagewright';
import type { AddressSpace } from 'pagewright/seg';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const PAGE = 4096;

let vm: VirtualMemory;
let as: AddressSpace;
let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'space-writes-'));
  path = join(folder, 'file');
  writeFileSync(path, new Uint8Array(4 * PAGE));
  vm = boot({ memory: '4 MiB', services: 'manual' });
  as = vm.addressSpace();
});

afterEach(() => {
  expect(vm.poisoned).toBe(null);
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  shutDown(vm);
  rmSync(folder, { recursive: true });
});

const onDisk = (at = 0) => readFileSync(path)[at];

describe('what is stored through a pin for writing', () => {
  function pinned(access: 'read' | 'write' = 'write') {
    const file = vm.open(path, { mode: 'rw' });
    const at = as.map({ size: 4 * PAGE, file, shared: true });
    as.pin(at, 2 * PAGE, access).release();
    as.sync(at, 4 * PAGE);
    return { file, at };
  }

  it.each(['read', 'write'] as const)('is synced behind a hit of a range cached for %s', (access) => {
    const { file, at } = pinned(access);
    const pin = as.pin(at, PAGE, 'write');
    expect(vm.pagelock.statistics().counters.hits).toBe(1);
    pin.views[0]?.fill(2);
    pin.release();
    as.sync(at, PAGE);
    expect(onDisk()).toBe(2);
    const again = as.pin(at + PAGE, PAGE, 'write');
    again.views[0]?.fill(3);
    again.release();
    file.sync();
    expect(onDisk(PAGE)).toBe(3);
    as.destroy();
    file.close();
  });

  it('is synced by every sync while it is pinned, and by none when nothing is', () => {
    const { file, at } = pinned();
    const pin = as.pin(at, PAGE, 'write');
    for (let round = 10; round < 14; round++) {
      pin.views[0]?.fill(round);
      if (round % 2 === 0) as.sync(at, 4 * PAGE);
      else file.sync();
      expect(onDisk()).toBe(round);
    }
    pin.views[0]?.fill(20);
    pin.release();
    file.sync();
    expect(onDisk()).toBe(20);
    const written = vm.pages.writtenHere;
    file.sync();
    expect(vm.pages.writtenHere).toBe(written);
    as.destroy();
    file.close();
  });

  it.each([
    ['destroy', 'close'],
    ['unmap', 'close'],
    ['close', 'destroy'],
    ['close', 'unmap'],
    ['close', 'sync', 'destroy'],
  ])('is in the file after %s, %s', (...steps) => {
    const { file, at } = pinned();
    const pin = as.pin(at, PAGE, 'write');
    pin.views[0]?.fill(7);
    pin.release();
    for (const step of steps) {
      if (step === 'destroy') as.destroy();
      else if (step === 'unmap') as.unmap(at, 4 * PAGE);
      else if (step === 'sync') as.sync(at, PAGE);
      else file.close();
    }
    expect(onDisk()).toBe(7);
  });
});

describe('a part of a mapping that is unmapped beside others', () => {
  it('is written when its file is closed, and the rest stays', () => {
    const file = vm.open(path, { mode: 'rw' });
    const at = as.map({ size: 4 * PAGE, file, shared: true });
    as.fill(at, 9, 4 * PAGE);
    file.close();
    as.fill(at, 8, 4 * PAGE);
    as.unmap(at + PAGE, PAGE);
    expect([onDisk(0), onDisk(PAGE), onDisk(2 * PAGE)]).toEqual([9, 8, 9]);
    as.unmap(at, 4 * PAGE);
    expect([onDisk(0), onDisk(2 * PAGE)]).toEqual([8, 8]);
  });
});

describe('a range without a byte', () => {
  it('is refused by all calls that take ranges, and nothing changes', () => {
    const at = as.map({ size: 4 * PAGE });
    const before = as.dump();
    for (const where of [at, at + PAGE, at + 100 * PAGE]) {
      expect(() => as.unmap(where, 0)).toThrow(/EINVAL: as.unmap/);
      expect(() => as.protect(where, 0, 'read')).toThrow(/EINVAL: as.protect/);
      expect(() => as.advise(where, 0, 'willNeed')).toThrow(/EINVAL: as.advise/);
      expect(() => as.sync(where, 0)).toThrow(/EINVAL: as.sync/);
    }
    expect(as.dump()).toBe(before);
    as.unmap(at, 4 * PAGE);
  });
});

describe('what is refused before anything changes', () => {
  it('is a mapping of more pages than are counted, also without a reservation', () => {
    for (const size of [2 ** 43, 2 ** 43 - 2 ** 20]) {
      expect(() => as.map({ size, reserve: false })).toThrow(/EINVAL: as.map.*pages/);
      expect(() => as.map({ size, file: vm.open(path), shared: true })).toThrow(/EINVAL: as.map.*pages/);
    }
    const at = as.map({ size: 2 ** 42, reserve: false });
    as.store(at + 2 ** 42 - 4, 5);
    expect(as.load(at + 2 ** 42 - 4)).toBe(5);
    as.unmap(at, 2 ** 42);
  });

  it('is an owner that does not exist', () => {
    as.map({ size: PAGE });
    const before = vm.spaces.statistics();
    for (const owner of ['x', -1, Number.NaN, 1.5, 1e9, undefined, null]) {
      expect(() => as.changeOwner(owner as number)).toThrow(/EINVAL: as.changeOwner/);
    }
    expect(() => as.changeOwner(vm.region.tables.owner.rowCount - 1)).toThrow(/ENOENT: as.changeOwner/);
    expect(vm.spaces.statistics()).toEqual(before);
    as.map({ size: 2 * PAGE });
    as.destroy();
  });
});
