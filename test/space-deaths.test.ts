/**
 * A thread ends at every single step of every operation on an address space. What the takeover leaves must be sound, every other
 * thread must be able to go on, what the space showed before must still be there where the operation did not change it, and in
 * the end everything goes back.
 */

import { describe, expect, it } from 'vitest';
import type { AddressSpace } from '../src/seg/index.ts';
import { attach, boot, type VirtualMemory } from '../src/system/index.ts';
import { dieAtEveryStep } from './support/deaths.ts';

const PAGE = 4096;
const SMALL = {
  memory: '1 MiB',
  services: 'manual',
  clock: 'virtual',
  slots: 6,
  tags: 512,
  vnodes: 4,
  owners: 2,
  callbacks: 8,
  addressSpaces: 6,
  segments: 32,
  arenas: 10,
  pagelock: { windowBuckets: 1024, wiredBuckets: 1024 },
} as const;

interface World {
  readonly vm: VirtualMemory;
  readonly as: AddressSpace;
  readonly at: number;
  /** A copy that somebody else made before. */
  readonly copy: AddressSpace;
}

const OPERATIONS: readonly (readonly [string, (world: World) => void])[] = [
  ['maps and unmaps', ({ as }) => as.unmap(as.map({ size: 3 * PAGE, guard: PAGE }), 3 * PAGE)],
  ['touches new pages', ({ as, at }) => as.fill(at + 6 * PAGE, 7, 2 * PAGE)],
  ['writes into a page that a copy shows too', ({ as, at }) => as.write(at + PAGE, Uint8Array.of(9, 9))],
  ['unmaps the middle', ({ as, at }) => as.unmap(at + 6 * PAGE, PAGE)],
  ['unmaps the end', ({ as, at }) => as.unmap(at + 7 * PAGE, PAGE)],
  ['protects a part', ({ as, at }) => as.protect(at + 6 * PAGE, PAGE, 'read')],
  ['joins what it has cut', ({ as, at }) => cutAndJoin(as, at)],
  ['gives pages up', ({ as, at }) => as.advise(at + 6 * PAGE, 2 * PAGE, 'free')],
  ['forks', ({ as }) => as.fork().destroy()],
  ['pins and releases', ({ as, at }) => as.pin(at + PAGE, 2 * PAGE, 'write').release()],
  ['makes and unmakes shared memory', ({ vm }) => vm.sharedMemory({ size: 2 * PAGE, wired: true }).release()],
  ['makes and destroys a space', ({ vm }) => makeSpace(vm)],
];

/** Operations of many steps, which take a minute together: `PAGEWRIGHT_DEATHS=all` runs them too. */
const LONG = ['makes and unmakes shared memory', 'makes and destroys a space', 'unmaps the middle', 'maps and unmaps'];
const ALL = process.env.PAGEWRIGHT_DEATHS === 'all';

function cutAndJoin(as: AddressSpace, at: number): void {
  as.advise(at + 6 * PAGE, PAGE, 'random');
  as.advise(at + 6 * PAGE, PAGE, 'normal');
}

function makeSpace(vm: VirtualMemory): void {
  const as = vm.addressSpace();
  const at = as.map({ size: 2 * PAGE });
  as.write(at, Uint8Array.of(1));
  as.destroy();
}

/** Boots, and fills five pages of a mapping of eight; a copy shows the same. */
function setUp(): World & { readonly other: VirtualMemory } {
  const vm = boot(SMALL);
  const as = vm.addressSpace({ limit: 2 ** 30 });
  const at = as.map({ size: 8 * PAGE });
  for (let page = 0; page < 5; page++) as.fill(at + page * PAGE, page + 1, PAGE);
  const copy = as.fork();
  const other = attach(vm.handle());
  return { vm, as, at, copy, other };
}

/** The space and its copy show what they did, and can be used: pages 0 and 2 to 4 are never written by an operation. */
function verify({ vm, as, at, copy }: World): void {
  const problems = vm.check().flatMap((report) => report.problems);
  expect(problems).toEqual([]);
  for (const page of [0, 2, 3, 4]) {
    expect(as.read(at + page * PAGE, 1)[0]).toBe(page + 1);
    expect(copy.read(at + page * PAGE, PAGE).every((byte) => byte === page + 1)).toBe(true);
  }
  expect(copy.read(at + PAGE, 2)).toEqual(Uint8Array.of(2, 2));
  // Everybody can go on: lock, copy before a write, map, unmap.
  const pin = as.pin(at + 3 * PAGE, PAGE, 'write');
  (pin.views[0] as Uint8Array)[5] = 77;
  expect(as.read(at + 3 * PAGE + 5, 1)[0]).toBe(77);
  pin.release();
  expect(copy.read(at + 3 * PAGE + 5, 1)[0]).toBe(4);
  as.unmap(as.map({ size: PAGE }), PAGE);
  // Room and segments agree, however they were cut: page by page, all of it can go and be taken again.
  for (let page = 7; page >= 0; page -= 2) as.unmap(at + page * PAGE, PAGE);
  as.map({ address: at + 7 * PAGE, size: PAGE });
  // And everything goes back.
  for (const id of vm.spaces.list()) vm.addressSpace(id).destroy();
  for (const id of vm.spaces.shared.list()) vm.sharedMemory(id).release();
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  expect(vm.spaces.statistics()).toMatchObject({
    spaces: 0,
    segments: 0,
    maps: 0,
    nodes: 0,
    anons: 0,
    pins: 0,
    reserved: 0,
  });
  const { free, total } = vm.frames.counts();
  expect(free).toBe(total);
}

describe('a thread that ends at every step', () => {
  for (const [name, operation] of OPERATIONS.filter(([name]) => ALL || !LONG.includes(name))) {
    it(`while it ${name} leaves a sound space`, () => {
      const world = setUp();
      const { vm, other, at } = world;
      const banks = vm.banks.views.map((bank) => Uint8Array.from(bank));
      const ids = { as: world.as.id, copy: world.copy.id };
      const steps = dieAtEveryStep({
        region: vm.region,
        self: vm.thread,
        victim: other.thread,
        recoverers: vm.recoverers,
        operation: () => {
          for (const [bank, bytes] of banks.entries()) vm.banks.views[bank]?.set(bytes);
          operation({ vm: other, as: other.addressSpace(ids.as), at, copy: world.copy });
        },
        verify: () => {
          verify({ vm, as: vm.addressSpace(ids.as), at, copy: vm.addressSpace(ids.copy) });
        },
      });
      console.log(`${name}: ${steps} steps`);
      expect(steps).toBeGreaterThan(20);
    });
  }
});
