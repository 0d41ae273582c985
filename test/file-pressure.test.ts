/** Files when memory or disks are short: the cache gives way and comes back, and what a disk refuses stays and is told. */

import { closeSync, openSync, readFileSync, truncateSync, writeSync } from 'node:fs';
import { boot, type VirtualMemory } from 'pagewright';
import { Prng } from 'pagewright/base';
import { armFault, disarmFault, type FaultPoint } from 'pagewright/sync';
import type { File } from 'pagewright/vpm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { blockUntilAllFree } from './support/all-free.ts';
import { shutDownBalanced } from './support/balance.ts';
import { until } from './support/chaos.ts';
import { matches, pattern, Scratch } from './support/scratch.ts';
import { testSeed } from './support/seed.ts';

const PAGE = 4096;
const GIGABYTES = 3 * 2 ** 30;

let scratch: Scratch;
let vm: VirtualMemory;

beforeEach(() => {
  scratch = new Scratch();
});

/** Nothing is open, and all frames are free. */
afterEach(async () => {
  disarmFault(vm.region);
  try {
    blockUntilAllFree(vm);
    expect(vm.vnodes.dropUnused()).toBe(0);
    vm.heap.trim();
    expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
    expect(vm.statistics().frames.free).toBe(vm.region.geometry.frames);
  } finally {
    await shutDownBalanced(vm);
    scratch.remove();
  }
});

/** A file of gigabytes, most of it holes; every 8 MiB a page of its own. */
function bigFile(): { path: string; places: number[] } {
  const path = scratch.file('big', 0);
  truncateSync(path, GIGABYTES);
  const places = Array.from({ length: GIGABYTES / 2 ** 23 }, (_, i) => i * 2 ** 23);
  const descriptor = openSync(path, 'r+');
  for (const at of places) writeSync(descriptor, pattern(5, at, PAGE), 0, PAGE, at);
  closeSync(descriptor);
  return { path, places };
}

describe('the cache of files', () => {
  it('gives frames to arenas and contiguous memory, and takes them back afterwards', () => {
    vm = boot({ memory: '1 MiB', bankSize: '1 MiB', slots: 8 });
    const random = new Prng(testSeed('a cache under pressure', 2));
    const { path, places } = bigFile();
    const file = vm.open(path);
    const pagesNow = () => vm.statistics().frames.page;
    const readAll = () => {
      for (let i = 0; i < 500; i++) {
        const at = random.pick(places);
        expect(matches(file.read(at, 100), 5, at)).toBe(true);
      }
    };
    readAll();
    const most = pagesNow();
    expect(most).toBeGreaterThan(200);
    // Three quarters of the memory go elsewhere, in one run and in pieces.
    const run = vm.frames.takeRun(64);
    const pieces = Array.from({ length: 8 }, () => vm.heap.alloc(16 * PAGE));
    const least = pagesNow();
    expect(least).toBeLessThan(70);
    readAll();
    expect(pagesNow()).toBeLessThan(70);
    vm.frames.giveRun(run, 64);
    for (const piece of pieces) vm.heap.free(piece, 16 * PAGE);
    vm.heap.trim();
    readAll();
    expect(pagesNow()).toBeGreaterThan(200);
    console.log(`pages in memory: ${most}, ${least} under pressure, ${pagesNow()} afterwards, of 256`);
    file.close();
  });

  it('works in 64 frames on a file of gigabytes, with writers and mappings', () => {
    vm = boot({ memory: '256 KiB', bankSize: '64 KiB', slots: 8 });
    const random = new Prng(testSeed('64 frames', 8));
    const { path, places } = bigFile();
    const file = vm.open(path, { mode: 'rw' });
    const written = new Set<number>();
    for (let i = 0; i < 600; i++) {
      const at = random.pick(places);
      if (random.chance(0.3)) {
        file.write(at, pattern(6, at, PAGE));
        written.add(at);
      }
      const mapping = file.map(at + 10, PAGE - 10);
      expect(matches(mapping.views()[0] as Uint8Array, written.has(at) ? 6 : 5, at + 10)).toBe(true);
      mapping.release();
    }
    file.sync();
    file.close();
    const plain = vm.open(path);
    for (const at of places) expect(matches(plain.read(at, PAGE), written.has(at) ? 6 : 5, at)).toBe(true);
    plain.close();
  });
});

describe('a disk that refuses pages while they are written back for their frames', () => {
  for (const [point, code] of [
    ['vnode.write.error', 'EIO'],
    ['vnode.write.full', 'ENOSPC'],
  ] as [FaultPoint, string][]) {
    it(`(${code}) loses nothing, and every opener hears of it once`, async () => {
      vm = boot({ memory: '256 KiB', bankSize: '64 KiB', slots: 8 });
      const path = scratch.file('a', 400_000, 1);
      const openers = [0, 1, 2].map(() => vm.open(path, { mode: 'rw' }));
      const [first, second, third] = openers as [File, File, File];
      armFault(vm.region, point, 'failAlways');
      // More pages than there are frames: some must be written back for others to come.
      let done = 0;
      expect(() => {
        while (done < 400_000) done += first.write(done, pattern(2, done, PAGE));
      }).toThrow(/ENOMEM|EIO|ENOSPC/);
      await until(() => vm.vnodes.errors.count(first.vnode) > 0, 'writing back has failed');
      expect(vm.pages.modifiedOf(first.vnode)).toBe(done / PAGE);
      expect(done).toBeGreaterThan(20 * PAGE);
      disarmFault(vm.region);
      const rule = new RegExp(`${code}.*since this opener last looked`);
      expect(() => first.sync()).toThrow(rule);
      const real = readFileSync(path);
      expect([matches(real.subarray(0, done), 2, 0), matches(real.subarray(done), 1, done)]).toEqual([true, true]);
      first.sync();
      await expect(second.syncAsync()).rejects.toThrow(rule);
      await second.syncAsync();
      expect(() => third.close()).toThrow(rule);
      const late = vm.open(path, { mode: 'rw' });
      late.sync();
      for (const one of [first, second, late]) one.close();
    });
  }
});
