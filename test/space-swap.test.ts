/** Anonymous memory several times as large as memory: what is swapped out comes back byte for byte. */

import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Prng, type VmError } from '../src/base/index.ts';
import { armFault, disarmFault } from '../src/sync/index.ts';
import { attach, boot } from '../src/system/index.ts';
import { Scratch } from './support/scratch.ts';
import { testSeed } from './support/seed.ts';
import { stampPage, versionOf } from './support/stamps.ts';

const PAGE = 4096;
const PAGES = 600;

describe('anonymous memory and swap', () => {
  it('comes back byte for byte in every thread and through forks, while memory is short', () => {
    const random = new Prng(testSeed('swap', 815));
    const scratch = new Scratch();
    const vm = boot({ memory: '1 MiB', services: 'manual', slots: 6, addressSpaces: 4, anonymousPages: 1400 });
    const other = attach(vm.handle());
    expect(() => vm.addressSpace().map({ size: PAGES * PAGE })).toThrow(/ENOMEM.*reserve/);
    vm.spaces.swap.add(join(scratch.directory, 'swap'), '5 MiB');
    expect(() => vm.spaces.swap.add(join(scratch.directory, 'again'), '5 MiB')).toThrow(/EEXIST/);
    const as = vm.addressSpace();
    const at = as.map({ size: PAGES * PAGE });
    const there = other.addressSpace(as.id);
    const stamps = new Int32Array(PAGES);
    const bytes = new Uint8Array(PAGE);
    const stamp = (page: number, value: number) => {
      for (let word = 0; word < PAGE; word += 4) new DataView(bytes.buffer).setInt32(word, value * 31 + word + page);
      stamps[page] = value;
    };
    const look = (space: typeof as, page: number, value: number) => {
      const found = new DataView(space.read(at + page * PAGE, PAGE).buffer);
      for (let word = 0; word < PAGE; word += 4) {
        const wanted = value === 0 ? 0 : (value * 31 + word + page) | 0;
        if (found.getInt32(word) !== wanted)
          throw new Error(`page ${page} holds ${found.getInt32(word)}, not ${wanted}`);
      }
    };
    for (let page = 0; page < PAGES; page++) {
      stamp(page, page + 1);
      as.write(at + page * PAGE, bytes);
    }
    expect(vm.spaces.swap.use.used).toBeGreaterThan(300);
    const copy = vm.spaces.open(as.fork().id);
    const before = stamps.slice();
    const pin = as.pin(at + 7 * PAGE, PAGE, 'write');
    for (let step = 0; step < 1500; step++) {
      const page = random.below(PAGES);
      const space = random.chance(0.5) ? as : there;
      if (page !== 7 && random.chance(0.4) && vm.spaces.statistics().anons < 1000) {
        stamp(page, step + 5000);
        space.write(at + page * PAGE, bytes);
      } else look(space, page, stamps[page] as number);
      if (step % 3 === 0) look(copy, page, before[page] as number);
    }
    armFault(vm.region, 'seg.swap.writing', 'fail', { skip: 3 });
    for (let page = 0; page < PAGES; page++) look(there, page, stamps[page] as number);
    disarmFault(vm.region);
    expect(Uint8Array.prototype.slice.call(pin.views[0])).toEqual(as.read(at + 7 * PAGE, PAGE));
    pin.release();
    expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
    for (const id of vm.spaces.list()) vm.addressSpace(id).destroy();
    expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
    expect(vm.spaces.swap.use.used).toBe(0);
    expect(vm.spaces.statistics()).toMatchObject({ spaces: 0, anons: 0, nodes: 0, reserved: 0 });
    const { free, total } = vm.frames.counts();
    expect(free).toBe(total);
    expect(vm.frames.takeRun(total)).toBe(0);
    vm.frames.giveRun(0, total);
    other.detach();
    vm.detach();
    scratch.remove();
  });

  it('loses nothing when the swap file is full, or cannot be written', () => {
    const random = new Prng(testSeed('swap that fails', 816));
    const scratch = new Scratch();
    const vm = boot({ memory: '1 MiB', services: 'manual', slots: 6, addressSpaces: 4, anonymousPages: 1400 });
    vm.spaces.swap.add(join(scratch.directory, 'swap'), 40 * PAGE);
    const as = vm.addressSpace();
    const at = as.map({ size: PAGES * PAGE, reserve: false });
    const versions = new Int32Array(PAGES);
    const bytes = new Uint8Array(PAGE);
    // Where every frame is modified and swap is full, nothing can be brought in: that is said, and nothing else is shown.
    const look = (isFull: boolean): number => {
      let refused = 0;
      for (let page = 0; page < PAGES; page++) {
        if (versions[page] === 0) continue;
        try {
          expect([page, versionOf(as.read(at + page * PAGE, PAGE), page)]).toEqual([page, versions[page]]);
        } catch (error) {
          if (!isFull || (error as VmError).code !== 'ENOMEM') throw error;
          refused++;
        }
      }
      return refused;
    };
    // Until neither memory nor swap has room: what could not be written was not, and the rest is there.
    const fill = (from: number): number => {
      for (let page = from; page < PAGES; page++) {
        stampPage(bytes, page, page + 1);
        try {
          as.write(at + page * PAGE, bytes);
        } catch (error) {
          expect((error as VmError).code).toMatch(/ENOMEM|ENOSPC|EIO/);
          return page;
        }
        versions[page] = page + 1;
      }
      return PAGES;
    };
    const full = fill(0);
    expect(full).toBeGreaterThan(150);
    expect(full).toBeLessThan(PAGES);
    expect(vm.spaces.swap.use).toEqual({ pages: 40, used: 40 });
    expect(look(true)).toBeLessThanOrEqual(40);
    expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
    // Room again: then it goes on.
    as.unmap(at, 100 * PAGE);
    versions.fill(0, 0, 100);
    expect(look(false)).toBe(0);
    expect(fill(full)).toBeGreaterThan(full + 50);
    expect(look(true)).toBeLessThanOrEqual(40);
    // No write succeeds for a while; what is swapped already comes back, what cannot go stays.
    as.unmap(at + 100 * PAGE, 60 * PAGE);
    versions.fill(0, 100, 160);
    armFault(vm.region, 'seg.swap.writing', 'failAlways');
    for (let step = 0; step < 300; step++) {
      const page = 160 + random.below(PAGES - 160);
      try {
        if (versions[page] !== 0)
          expect([page, versionOf(as.read(at + page * PAGE, PAGE), page)]).toEqual([page, versions[page]]);
        stampPage(bytes, page, step + 10_000);
        as.write(at + page * PAGE, bytes);
        versions[page] = step + 10_000;
      } catch (error) {
        expect((error as VmError).code).toMatch(/ENOMEM|EIO/);
      }
    }
    expect(disarmFault(vm.region)).toBeGreaterThan(0);
    look(true);
    as.unmap(at + 160 * PAGE, 60 * PAGE);
    versions.fill(0, 160, 220);
    expect(look(false)).toBe(0);
    expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
    as.destroy();
    expect(vm.spaces.swap.use.used).toBe(0);
    const { free, total } = vm.frames.counts();
    expect(free).toBe(total);
    vm.detach();
    scratch.remove();
  });
});
