/**
 * What drivers of users make for a copy of a space belongs to the copy, or is given back: also when the thread dies that makes the
 * copy, at every step; by the recovery, or by the next thread that has their name.
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
const STRIDE = process.env.PAGEWRIGHT_DEATHS === 'all' ? 1 : 4;
const THINGS = 32;

let vm: VirtualMemory;
let other: VirtualMemory;
let as: AddressSpace;
let at: number;
let heap: number;
/** What the driver has made: 1 while it is there; and for which ticket. Survives threads, and stops with them. */
let things: Float64Array;
/** What was told of: a copy that never came about, and questions whose answer was lost. */
let lost: number;
let unmade: number;
let driver: SegmentDriver;

const isThere = (thing: number) => things[2 * thing] === 1;
const live = () => Array.from({ length: THINGS }, (_, thing) => thing).filter(isThere);

function make(ticket: number): number {
  const thing = Array.from({ length: THINGS }, (_, at) => at).find((at) => !isThere(at)) as number;
  things[2 * thing] = 1;
  things[2 * thing + 1] = ticket;
  return thing;
}

beforeEach(() => {
  vm = boot({
    ...{
      memory: '256 KiB',
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
  heap = vm.heap.alloc(PAGE);
  things = new Float64Array(2 * THINGS);
  lost = 0;
  unmade = 0;
  driver = {
    fault: () => heap,
    fork: (_view, ticket) => make(ticket),
    unmapped: ({ space, data }) => {
      if (space < 0) unmade++;
      things[2 * data] = 0;
    },
    forkLost: ({ space, data }, ticket) => {
      expect([space, isThere(data)]).toEqual([-1, true]);
      lost++;
      for (const thing of live()) if (things[2 * thing + 1] === ticket) things[2 * thing] = 0;
    },
  };
  other.callbacks.register('copied', driver);
  as = other.addressSpace({ limit: 2 ** 30 });
  at = as.map({ size: 2 * PAGE, driver: { export: 'copied' }, data: make(-1) });
  as.map({ size: PAGE, driver: { export: 'copied' }, data: make(-2) });
  as.fill(as.map({ size: PAGE }), 1, PAGE);
  as = vm.addressSpace(as.id);
});

afterEach(() => {
  other.detach();
  vm.detach();
});

const check = () => expect(vm.check().flatMap((report) => report.problems)).toEqual([]);

function dieWhileForking(operation: () => void, verify: () => void): void {
  const first = STRIDE === 1 ? 0 : new Prng(testSeed('steps of deaths in forks', 14)).below(STRIDE);
  const steps = dieAtEveryStep({
    ...{ region: vm.region, self: vm.thread, victim: other.thread, recoverers: vm.recoverers, stride: STRIDE, first },
    beside: [...vm.banks.views, new Uint8Array(things.buffer)],
    operation,
    verify: (step) => {
      try {
        verify();
        check();
      } catch (error) {
        throw new Error(`step ${step}: ${(error as Error).stack}`);
      }
    },
  });
  console.log(`${expect.getState().currentTestName}: ${steps} steps; lost ${lost}, unmade ${unmade}`);
  expect(steps).toBeGreaterThan(20);
  expect(lost).toBeGreaterThan(0);
  expect(unmade).toBeGreaterThan(0);
}

/** Each thing is that of a segment, and nothing else is left. */
function lookAtThings(): void {
  expect(vm.spaces.statistics().untold).toBe(0);
  const shown = vm.spaces.list().flatMap((id) => vm.addressSpace(id).segments());
  expect(live()).toHaveLength(shown.filter(({ driver }) => driver === 'user').length);
  for (const id of vm.spaces.list()) vm.addressSpace(id).destroy();
  expect(live()).toEqual([]);
  expect(vm.spaces.statistics()).toMatchObject({ spaces: 0, segments: 0, maps: 0, nodes: 0, anons: 0, reserved: 0 });
}

describe('answers of drivers to forks', () => {
  it('are given back when the thread dies at any step, by the recovery', () => {
    vm.callbacks.register('copied', driver);
    dieWhileForking(() => void other.addressSpace(as.id).fork(), lookAtThings);
  });

  it('and by the next thread that has the name, when the recovery has not', () => {
    dieWhileForking(
      () => void other.addressSpace(as.id).fork(),
      () => {
        const next = attach(vm.handle());
        next.callbacks.register('copied', driver);
        next.spaces.reap();
        expect(vm.spaces.statistics().untold).toBe(0);
        for (const id of next.spaces.list()) next.addressSpace(id).destroy();
        expect(live()).toEqual([]);
        next.detach();
        expect(vm.spaces.statistics()).toMatchObject({
          spaces: 0,
          segments: 0,
          maps: 0,
          nodes: 0,
          anons: 0,
          reserved: 0,
        });
      },
    );
  });

  it('go back when another driver refuses, and with nothing left when there is no row to write them down', () => {
    vm.callbacks.register('copied', driver);
    const refusing: SegmentDriver = {
      fault: () => heap,
      fork: () => {
        throw new Error('no copies');
      },
    };
    vm.callbacks.register('refusing', refusing);
    const last = as.map({ address: at + 2 ** 20, size: PAGE, driver: { export: 'refusing' } });
    expect(() => as.fork()).toThrow(/no copies/);
    expect([live().length, unmade, lost]).toEqual([2, 2, 0]);
    check();
    as.unmap(last, PAGE);
    // A driver that forks while it answers has its own questions.
    const { fork } = driver;
    let inner: AddressSpace | null = null;
    driver.fork = (_view, ticket) => {
      driver.fork = fork as NonNullable<SegmentDriver['fork']>;
      inner = as.fork();
      return make(ticket);
    };
    const copy = as.fork();
    expect(live()).toHaveLength(6);
    (inner as unknown as AddressSpace).destroy();
    copy.destroy();
    expect(live()).toHaveLength(2);
    // Rows that are all taken.
    while (vm.spaces.statistics().segments < 16) as.map({ size: PAGE });
    expect(() => as.fork()).toThrow(/ENOMEM: as\.fork.*segments/);
    expect(live()).toHaveLength(2);
    check();
    as.destroy();
    expect(live()).toEqual([]);
  });
});
