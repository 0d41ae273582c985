/**
 * A thread ends at every single step of what segments of devices, files and swapped memory do: mapped, remapped, brought in,
 * swapped out, written back. Nothing that they keep is lost, and every page holds what it held.
 *
 * By default every few steps, beginning anywhere; `PAGEWRIGHT_DEATHS=all` stops at all of them.
 */

import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Prng } from '../src/base/index.ts';
import type { AddressSpace } from '../src/seg/index.ts';
import { attach, type BootOptions, boot, type VirtualMemory } from '../src/system/index.ts';
import { dieAtEveryStep } from './support/deaths.ts';
import { Scratch } from './support/scratch.ts';
import { testSeed } from './support/seed.ts';
import { stampPage, versionOf } from './support/stamps.ts';

const PAGE = 4096;
const ALL = process.env.PAGEWRIGHT_DEATHS === 'all';
const SMALL: BootOptions = {
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
  ...{ addressSpaces: 4, segments: 32, arenas: 8, pagelock: { windowBuckets: 1024, wiredBuckets: 1024 } },
};

let scratch: Scratch;
let vm: VirtualMemory;
let other: VirtualMemory;
let as: AddressSpace;
let at: number;
/** A file that stops with the thread, or ''. */
let path: string;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => {
  other.detach();
  vm.detach();
  scratch.remove();
});

function start(options: Partial<BootOptions> = {}): void {
  path = '';
  vm = boot({ ...SMALL, ...options });
  other = attach(vm.handle());
  as = vm.addressSpace({ limit: 2 ** 30 });
}

const check = () => expect(vm.check().flatMap((report) => report.problems)).toEqual([]);

/** Dies at the steps of an operation on the space, as the other thread sees it. */
function die(operation: (there: AddressSpace) => void, verify: () => void, stride = 7): void {
  const first = ALL ? 0 : new Prng(testSeed('steps of deaths', 12)).below(stride);
  const { id } = as;
  const before = path === '' ? null : readFileSync(path);
  let stopped = before;
  const steps = dieAtEveryStep({
    ...{ region: vm.region, self: vm.thread, victim: other.thread, recoverers: vm.recoverers, beside: vm.banks.views },
    ...(ALL ? {} : { stride, first }),
    stopped: () => {
      if (path !== '') stopped = readFileSync(path);
    },
    operation: () => {
      if (before !== null) writeFileSync(path, before);
      operation(other.addressSpace(id));
    },
    verify: (step) => {
      if (stopped !== null) writeFileSync(path, stopped);
      try {
        // What a space keeps outside the region belongs to another run.
        as = vm.addressSpace(id);
        check();
        verify();
        endOracle();
      } catch (error) {
        throw new Error(`step ${step}: ${(error as Error).stack}`);
      }
    },
  });
  console.log(`${expect.getState().currentTestName}: ${steps} steps`);
  expect(steps).toBeGreaterThan(20);
}

/** Everything goes: no frame, row or page of swap is left, and all memory is one run. */
function endOracle(): void {
  for (const id of vm.spaces.list()) vm.addressSpace(id).destroy();
  for (const cookie of vm.pmem.cookies()) vm.pmem.free(cookie);
  vm.pmem.trim();
  vm.pagelock.reap();
  vm.vnodes.dropUnused();
  check();
  expect(vm.spaces.statistics()).toMatchObject({
    ...{ spaces: 0, segments: 0, maps: 0, nodes: 0, anons: 0, pins: 0, shadowLists: 0, reserved: 0 },
  });
  expect(vm.spaces.swap.use.used).toBe(0);
  const { deviceMap } = vm.region.tables;
  for (let row = 0; row < deviceMap.rowCount; row++) expect([row, deviceMap.claim.get(row)]).toEqual([row, 0]);
  const { free, total } = vm.frames.counts();
  expect(free).toBe(total);
  expect(vm.frames.takeRun(total)).toBe(0);
  vm.frames.giveRun(0, total);
}

describe('devices, when a thread ends at every step', () => {
  const [one, two] = [1, 2] as const;
  const cookies: ReturnType<VirtualMemory['pmem']['alloc']>[] = [];

  function startDevice(): void {
    start();
    cookies.length = 0;
    for (const fill of [one, two]) {
      const cookie = vm.pmem.alloc({ size: 4 * PAGE });
      for (const frame of vm.pmem.getPfns(cookie, 0, 4)) vm.banks.view(frame * PAGE, PAGE).fill(fill);
      cookies.push(cookie);
    }
    at = as.map({ size: 3 * PAGE, cookie: cookies[0] as (typeof cookies)[0], offset: PAGE });
  }

  /** Every page of the mapping shows the same cookie, and everybody can go on mapping. */
  function lookAtDevice(space: AddressSpace): number {
    const [first, ...others] = [0, 1, 2].map((page) => space.read(at + page * PAGE, 1)[0]);
    expect(others).toEqual([first, first]);
    const pin = space.pin(at + PAGE, PAGE, 'read');
    expect((pin.views[0] as Uint8Array)[0]).toBe(first);
    pin.release();
    const more = space.map({ size: PAGE, cookie: cookies[1] as (typeof cookies)[0] });
    expect(space.read(more, 1)[0]).toBe(two);
    space.unmap(more, PAGE);
    return first as number;
  }

  it('are mapped and unmapped', () => {
    startDevice();
    die(
      (there) => {
        const made = there.map({ size: 2 * PAGE, cookie: cookies[1] as (typeof cookies)[0], offset: PAGE });
        there.store(made, 0x02020202);
        there.unmap(made, 2 * PAGE);
      },
      () => expect(lookAtDevice(as)).toBe(one),
    );
  });

  it('are unmapped by parts, and go with the last', () => {
    startDevice();
    die(
      (there) => {
        there.unmap(at + PAGE, PAGE);
        there.unmap(at, 3 * PAGE);
      },
      () => {
        for (const { base, size } of as.segments())
          expect(as.read(base, size).every((byte) => byte === one)).toBe(true);
      },
    );
  });

  it('are remapped, in copies too', () => {
    startDevice();
    const { id } = as.fork();
    die(
      (there) => there.remap(at, { cookie: cookies[1] as (typeof cookies)[0] }),
      () => expect(lookAtDevice(as)).toBe(lookAtDevice(vm.addressSpace(id))),
    );
  });

  it('are copied by forks, and pinned', () => {
    startDevice();
    die(
      (there) => {
        const copy = there.fork();
        const pin = copy.pin(at, 2 * PAGE, 'write');
        pin.release();
        copy.destroy();
      },
      () => expect(lookAtDevice(as)).toBe(one),
    );
  });
});

describe('swapped memory, when a thread ends at every step', () => {
  const PAGES = 100;
  const bytes = new Uint8Array(PAGE);

  /** More anonymous memory than frames: the first pages are swapped out, the others are in memory, modified. */
  function startSwap(written: number): void {
    start({ anonymousPages: 256 });
    path = join(scratch.directory, 'swap');
    vm.spaces.swap.add(path, 144 * PAGE);
    at = as.map({ size: PAGES * PAGE });
    for (let page = 0; page < written; page++) {
      stampPage(bytes, page, page + 1);
      as.write(at + page * PAGE, bytes);
      // The victim's own descriptor, which is no part of what stops.
      if (page === 65) other.addressSpace(as.id).read(at, 1);
    }
    expect(vm.spaces.swap.use.used).toBeGreaterThan(10);
  }

  /** All pages hold what they must; those of `changed` that, or nothing yet. */
  function lookAtAll(space: AddressSpace, written: number, changed: ReadonlyMap<number, number>): void {
    for (let page = 0; page < PAGES; page++) {
      space.read(at + page * PAGE, bytes);
      const before = page < written ? page + 1 : 0;
      const version = versionOf(bytes, page);
      expect([page, version]).toEqual([page, version === changed.get(page) ? version : before]);
    }
  }

  function put(space: AddressSpace, page: number, version: number): void {
    stampPage(bytes, page, version);
    space.write(at + page * PAGE, bytes);
  }

  it('goes out to make room for new pages', () => {
    // Pages are swapped out several at a time: the page whose first write does that, once all others were modified.
    startSwap(70);
    let full = 70;
    for (const { used } = vm.spaces.swap.use; vm.spaces.swap.use.used === used; full++) put(as, full, 1);
    endOracle();
    for (const one of [other, vm]) one.detach();
    rmSync(path);
    startSwap(full - 1);
    const changed = new Map([full - 1, full].map((page) => [page, 1000 + page]));
    die(
      (there) => {
        const { used } = vm.spaces.swap.use;
        for (const [page, version] of changed) put(there, page, version);
        expect(vm.spaces.swap.use.used).toBeGreaterThan(used + 10);
      },
      () => lookAtAll(as, full - 1, changed),
      37,
    );
  });

  it('comes back to be read, and to be changed in a copy', () => {
    startSwap(70);
    const copy = as.fork();
    const { id } = copy;
    die(
      (there) => {
        there.read(at + 2 * PAGE, 1);
        put(there, 4, 5000);
      },
      () => {
        lookAtAll(as, 70, new Map([[4, 5000]]));
        lookAtAll(vm.addressSpace(id), 70, new Map());
      },
    );
  });

  it('goes with its pages of the swap file', () => {
    startSwap(70);
    die(
      (there) => {
        there.unmap(at, 3 * PAGE);
      },
      () => {
        for (let page = 3; page < PAGES; page++) {
          as.read(at + page * PAGE, bytes);
          expect([page, versionOf(bytes, page)]).toEqual([page, page < 70 ? page + 1 : 0]);
        }
      },
    );
  });
});

describe('mapped files, when a thread ends at every step', () => {
  const PAGES = 12;
  function startFile(): void {
    start();
    path = join(scratch.directory, 'mapped');
    writeFileSync(
      path,
      new Uint8Array(PAGES * PAGE).map((_, index) => 1 + Math.floor(index / PAGE)),
    );
    const file = vm.open(path, { mode: 'rw' });
    at = as.map({ size: PAGES * PAGE, file });
    as.map({ address: at + PAGES * PAGE, size: PAGES * PAGE, file, shared: true });
    file.close();
    // The victim's own descriptor.
    other.addressSpace(as.id).read(at, 1);
  }

  const all = (page: number, byte: number) =>
    expect([page, as.read(at + page * PAGE, PAGE).every((one) => one === byte)]).toEqual([page, true]);

  it('are read and copied privately', () => {
    startFile();
    die(
      (there) => {
        there.read(at + 3 * PAGE, 1);
        there.fill(at + 5 * PAGE, 77, PAGE);
      },
      () => {
        for (let page = 0; page < PAGES; page++) {
          if (page !== 5) all(page, page + 1);
          all(PAGES + page, page + 1);
        }
        all(5, as.read(at + 5 * PAGE, 1)[0] === 77 ? 77 : 6);
      },
    );
  });

  it('are written through a shared mapping, and synced', () => {
    startFile();
    die(
      (there) => {
        there.fill(at + (PAGES + 5) * PAGE, 77, PAGE);
        there.sync(at + (PAGES + 5) * PAGE, PAGE);
      },
      () => {
        for (let page = 0; page < PAGES; page++) if (page !== 5) all(PAGES + page, page + 1);
        const [byte] = as.read(at + (PAGES + 5) * PAGE, 1);
        all(PAGES + 5, byte === 77 ? 77 : 6);
        // Whoever syncs next writes what the dead one had stored.
        as.sync(at + PAGES * PAGE, PAGES * PAGE);
        expect(readFileSync(path)[5 * PAGE]).toBe(byte);
      },
    );
  });
});
