/**
 * Drivers of users hear of every part of theirs that is gone: also when the thread dies that has unmapped it, at every step; from
 * the recovery, or from the next thread that has their name.
 *
 * By default every few steps, beginning anywhere; `PAGEWRIGHT_DEATHS=all` stops at all of them.
 */

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Prng } from '../src/base/index.ts';
import type { AddressSpace, SegmentDriver } from '../src/seg/index.ts';
import { attach, boot, type VirtualMemory } from '../src/system/index.ts';
import { dieAtEveryStep } from './support/deaths.ts';
import { testSeed } from './support/seed.ts';

const PAGE = 4096;
const PAGES = 8;
const STRIDE = process.env.PAGEWRIGHT_DEATHS === 'all' ? 1 : 5;

let vm: VirtualMemory;
let other: VirtualMemory;
let as: AddressSpace;
let at: number;
let base: number;
/** Pages that the driver was told of, one entry for each time; `dead`: by a thread that had ended before. */
let told: number[];
let dead: boolean;
let driver: SegmentDriver;

beforeEach(() => {
  vm = boot({
    ...{
      memory: '512 KiB',
      services: 'manual',
      clock: 'virtual',
      slots: 6,
      tags: 256,
      vnodes: 4,
      owners: 2,
      callbacks: 4,
    },
    ...{ addressSpaces: 4, segments: 16, arenas: 8, pagelock: { windowBuckets: 1024, wiredBuckets: 1024 } },
  });
  other = attach(vm.handle());
  base = vm.heap.alloc(PAGES * PAGE);
  told = [];
  dead = false;
  driver = {
    fault: ({ data }, offset) => data + offset,
    unmapped: ({ data }, offset, length) => {
      expect(data).toBe(base);
      for (let page = offset / PAGE; !dead && page < (offset + length) / PAGE; page++) told.push(page);
    },
  };
  other.callbacks.register('told', driver);
  as = other.addressSpace({ limit: 2 ** 30 });
  at = as.map({ size: PAGES * PAGE, driver: { export: 'told' }, data: base });
  as = vm.addressSpace(as.id);
});

afterEach(() => {
  expect(vm.poisoned).toBeNull();
  for (const one of [other, vm]) one.detach();
});

const problems = () => vm.check().flatMap((report) => report.problems);
const all = Array.from({ length: PAGES }, (_, page) => page);

const OPERATIONS: readonly (readonly [string, (there: AddressSpace) => void])[] = [
  ['unmaps all', (there) => there.unmap(at, PAGES * PAGE)],
  ['unmaps the beginning', (there) => there.unmap(at, 3 * PAGE)],
  ['unmaps the middle', (there) => there.unmap(at + 2 * PAGE, 3 * PAGE)],
  [
    'unmaps two parts at once',
    (there) => {
      there.unmap(at + 3 * PAGE, PAGE);
      there.unmap(at + PAGE, 5 * PAGE);
    },
  ],
  ['maps over it', (there) => void there.map({ address: at + PAGE, size: 2 * PAGE, replace: true })],
  ['destroys the space', (there) => there.destroy()],
];

/** A thread that has the name comes by. */
function comeBy(): void {
  const knower = attach(vm.handle());
  knower.callbacks.register('told', driver);
  knower.spaces.reap();
  knower.detach();
}

const isUsers = (page: number) => vm.spaces.list().length > 0 && as.lookup(at + page * PAGE)?.driver === 'user';

describe('a driver whose segment goes with a thread that ends at every step', () => {
  const cases = OPERATIONS.flatMap(([name, operation]) => [
    [name, 'the recovery', operation] as const,
    [name, 'whoever comes by', operation] as const,
  ]);

  it.each(cases)('that %s, is told by %s', (name, teller, operation) => {
    const isKnown = teller === 'the recovery';
    if (isKnown) vm.callbacks.register('told', driver);
    const { id } = as;
    const first = new Prng(testSeed('deaths of those who tell', 12)).below(STRIDE);
    let waited = 0;
    let twice = 0;
    const steps = dieAtEveryStep({
      ...{
        region: vm.region,
        self: vm.thread,
        victim: other.thread,
        recoverers: vm.recoverers,
        beside: vm.banks.views,
      },
      ...{ stride: STRIDE, first },
      stopped: () => {
        dead = true;
      },
      operation: () => {
        told = [];
        dead = false;
        operation(other.addressSpace(id));
        // The recovery comes next, and lives.
        dead = false;
      },
      verify: (step) => {
        expect(problems()).toEqual([]);
        const { untold } = vm.spaces.statistics();
        if (untold > 0) waited++;
        if (isKnown) expect([step, untold]).toEqual([step, 0]);
        else comeBy();
        if (vm.spaces.list().length > 0) as = vm.addressSpace(id);
        // Every part that is gone was told, once, or twice if the thread died that told it; and none that is there.
        for (const page of all) {
          const times = told.filter((one) => one === page).length;
          expect([step, page, times > 0]).toEqual([step, page, !isUsers(page)]);
          expect(times).toBeLessThanOrEqual(2);
          if (times === 2) twice++;
        }
        // All of it goes, and is told once more than now for what was left.
        const left = all.filter(isUsers);
        const before = told.length;
        for (const space of vm.spaces.list()) vm.addressSpace(space).destroy();
        comeBy();
        expect(told.slice(before).sort()).toEqual(left);
        expect(vm.spaces.statistics()).toMatchObject({ spaces: 0, segments: 0, untold: 0 });
        expect(problems()).toEqual([]);
      },
    });
    console.log(`${name}, ${teller}: ${steps} steps, due after ${waited}, told twice ${twice}`);
    expect(steps).toBeGreaterThan(20);
    expect(twice).toBeGreaterThan(0);
    if (isKnown) expect(waited).toBe(0);
    else expect(waited).toBeGreaterThan(0);
  });
});

describe('a driver', () => {
  it('may unmap more while it is told, and hears of that at once', () => {
    vm.callbacks.register('told', driver);
    const order: number[] = [];
    driver.unmapped = (_segment, offset) => {
      const page = offset / PAGE;
      order.push(page);
      if (page !== 0 && page !== 4) return;
      as.unmap(at + (page + 1) * PAGE, PAGE);
      expect(order.at(-1)).toBe(page + 1);
    };
    as.unmap(at + 3 * PAGE, PAGE);
    as.protect(at + 6 * PAGE, PAGE, 'read');
    as.unmap(at, PAGE);
    as.unmap(at + 4 * PAGE, PAGE);
    expect(order).toEqual([3, 0, 1, 4, 5]);
    // Several parts in the order of their addresses; what one throws keeps nothing from the others.
    driver.unmapped = (_segment, offset) => {
      order.push(offset / PAGE);
      throw new RangeError(`page ${offset / PAGE}`);
    };
    expect(() => as.unmap(at, PAGES * PAGE)).toThrow(/page 2/);
    expect(order.slice(5)).toEqual([2, 6, 7]);
    expect(problems()).toEqual([]);
    expect(vm.spaces.statistics()).toMatchObject({ segments: 0, untold: 0 });
    as.destroy();
  });

  it('is told of all when a space is destroyed, and what it threw first is thrown when the space is gone', () => {
    vm.callbacks.register('told', driver);
    as.unmap(at + 3 * PAGE, PAGE);
    const order: number[] = [];
    driver.unmapped = (_segment, offset) => {
      order.push(offset / PAGE);
      throw new RangeError(`page ${offset / PAGE}`);
    };
    expect(() => as.destroy()).toThrow(/page 0/);
    expect(order).toEqual([0, 4]);
    expect(() => as.destroy()).toThrow(/ESTALE/);
    expect(problems()).toEqual([]);
    expect(vm.spaces.statistics()).toMatchObject({ spaces: 0, segments: 0, untold: 0 });
  });

  it('is told without a row of the table, too', () => {
    vm.callbacks.register('told', driver);
    const filler = vm.addressSpace();
    const rows = vm.region.geometry.segments - vm.spaces.statistics().segments;
    for (let row = 0; row < rows; row++)
      expect(filler.allocSegment(2 ** 30 + 2 * row * PAGE, PAGE, true)).toBeGreaterThanOrEqual(0);
    expect(() => as.unmap(at + 2 * PAGE, PAGE)).toThrow(/ENOMEM/);
    expect(told).toEqual([]);
    as.unmap(at, PAGE);
    as.unmap(at + 7 * PAGE, PAGE);
    expect(told).toEqual([0, 7]);
    filler.destroy();
    as.destroy();
    expect(told.sort()).toEqual(all);
    expect(problems()).toEqual([]);
  });
});
