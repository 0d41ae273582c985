/** Segments by themselves: where they may lie, what they reserve, who is charged, what is advised, and who waits for pins. */

import { afterEach, describe, expect, it } from 'vitest';
import { attach, boot, type VirtualMemory } from '../src/system/index.ts';

const PAGE = 4096;
const booted: VirtualMemory[] = [];

function start(options: Partial<Parameters<typeof boot>[0]> = {}): VirtualMemory {
  const vm = boot({ memory: '2 MiB', slots: 6, services: 'manual', ...options });
  booted.push(vm);
  return vm;
}

/** Everything goes, and nothing is left of it. */
afterEach(() => {
  for (const vm of booted.splice(0)) {
    for (const id of vm.spaces.list()) vm.addressSpace(id).destroy();
    for (const id of vm.spaces.shared.list()) vm.sharedMemory(id).release();
    expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
    expect(vm.spaces.statistics()).toMatchObject({ spaces: 0, segments: 0, maps: 0, anons: 0, reserved: 0 });
    const { free, total } = vm.frames.counts();
    expect(free).toBe(total);
    expect(vm.frames.takeRun(total)).toBe(0);
    vm.frames.giveRun(0, total);
    vm.detach();
  }
});

describe('segments without a driver', () => {
  it('are rounded to pages, and refused outside the space, in its hole, above the user limit and on others', () => {
    const vm = start();
    const limits = { base: 16 * PAGE, limit: 100 * PAGE, userLimit: 80 * PAGE, hole: [40 * PAGE, 50 * PAGE] } as const;
    const as = vm.addressSpace(limits);
    const one = as.allocSegment(20 * PAGE + 5, PAGE);
    expect(as.lookup(20 * PAGE)).toMatchObject({ segment: one, driver: 'none', base: 20 * PAGE, size: 2 * PAGE });
    expect(as.lookup(22 * PAGE)).toBeNull();
    for (const [base, size] of [
      [15, 2],
      [99, 2],
      [39, 2],
      [49, 2],
      [45, 1],
      [79, 2],
      [21, 4],
      [18, 3],
      [20, 1],
      [30, 0],
    ] as const) {
      expect(as.allocSegment(base * PAGE, size * PAGE)).toBe(-1);
    }
    expect(as.allocSegment(39 * PAGE, PAGE)).toBeGreaterThanOrEqual(0);
    expect(as.allocSegment(50 * PAGE, PAGE)).toBeGreaterThanOrEqual(0);
    expect(as.allocSegment(79 * PAGE, PAGE)).toBeGreaterThanOrEqual(0);
    // Attached statically, only overlaps are looked at.
    expect(as.allocSegment(45 * PAGE, PAGE, true)).toBeGreaterThanOrEqual(0);
    expect(as.allocSegment(90 * PAGE, PAGE, true)).toBeGreaterThanOrEqual(0);
    expect(as.allocSegment(20 * PAGE, PAGE, true)).toBe(-1);
    expect(() => as.read(20 * PAGE, 1)).toThrow(/EFAULT/);
    expect(() => as.pin(20 * PAGE, 1, 'read')).toThrow(/EFAULT|ENOTSUP/);
    // A mapping keeps out of their way, and they go like others.
    expect(() => as.map({ size: PAGE, address: 21 * PAGE })).toThrow(/EEXIST/);
    for (let page = 0; page < 20; page++) as.map({ size: PAGE, max: 60 * PAGE });
    expect(as.segments().filter(({ driver }) => driver === 'none')).toHaveLength(6);
    as.unmap(20 * PAGE, PAGE);
    expect(as.lookup(21 * PAGE)).toMatchObject({ segment: one, size: PAGE });
    as.unmap(0, 100 * PAGE);
    expect(as.segments()).toEqual([]);
    // The kernel's own space has no user limit.
    const kernel = vm.addressSpace({ ...limits, kernel: true });
    expect(kernel.allocSegment(79 * PAGE, 2 * PAGE)).toBeGreaterThanOrEqual(0);
    expect(() => as.inherit(0, PAGE)).toThrow(/ENOTSUP/);
  });
});

describe('places', () => {
  it('are aligned, inside limits, away from neighbours by their guard gaps, and outside the hole', () => {
    const vm = start();
    const as = vm.addressSpace({ base: PAGE, limit: 512 * PAGE, hole: [200 * PAGE, 300 * PAGE] });
    const large = as.map({ size: 16 * PAGE, pageSizeCode: 4 });
    expect(large % (16 * PAGE)).toBe(0);
    expect(as.lookup(large)?.pageSizeCode).toBe(4);
    expect(() => as.map({ size: 3 * PAGE, pageSizeCode: 4 })).toThrow(/EINVAL.*size must be a multiple/);
    expect(() => as.map({ size: 16 * PAGE, pageSizeCode: 4, address: 33 * PAGE })).toThrow(/EINVAL.*address must be/);
    // A cut inside a large page leaves small ones; at its end it does not.
    as.unmap(large + 8 * PAGE, 8 * PAGE);
    const pair = as.map({ size: 32 * PAGE, pageSizeCode: 4 });
    as.unmap(pair + 16 * PAGE, 16 * PAGE);
    expect(as.lookup(pair)?.pageSizeCode).toBe(4);
    as.protect(pair + 3 * PAGE, PAGE, 'read');
    expect([0, 3, 4].map((page) => as.lookup(pair + page * PAGE)?.pageSizeCode)).toEqual([0, 0, 0]);
    const guarded = as.map({ size: PAGE, guard: 3 * PAGE });
    for (const page of [-3, -1, 1, 3]) {
      expect(() => as.map({ size: PAGE, address: guarded + page * PAGE })).toThrow(/EEXIST/);
    }
    as.map({ size: PAGE, address: guarded + 4 * PAGE });
    const aligned = as.map({ size: PAGE, align: 64 * PAGE, guard: PAGE });
    expect(aligned % (64 * PAGE)).toBe(0);
    const placed = as.map({ size: 2 * PAGE, min: 400 * PAGE, max: 402 * PAGE - 1 });
    expect(placed).toBe(400 * PAGE);
    expect(() => as.map({ size: 2 * PAGE, min: 400 * PAGE, max: 402 * PAGE - 1 })).toThrow(/ENOMEM.*no such room/);
    expect(() => as.map({ size: PAGE, min: 210 * PAGE, max: 280 * PAGE })).toThrow(/ENOMEM/);
    expect(() => as.map({ size: PAGE, address: 250 * PAGE })).toThrow(/EEXIST/);
    expect(() => as.map({ size: PAGE, address: 600 * PAGE })).toThrow(/EINVAL.*inside the space/);
    expect(() => as.map({ size: PAGE, align: 3 * PAGE })).toThrow(/EINVAL.*power of two/);
    expect(() => as.map({ size: PAGE, sise: 1 } as never)).toThrow(/EINVAL.*sise/);
    // What is given up can be had again, guard gaps too.
    as.unmap(guarded, PAGE);
    as.map({ size: 7 * PAGE, address: guarded - 3 * PAGE });
  });
});

describe('reservations', () => {
  it('are charged to the owner of the space, and can change hands unless they are shared', () => {
    const vm = start();
    const [one, two] = [vm.createOwner('one', { swap: 20 }), vm.createOwner('two', { swap: 6 })];
    const swapOf = (name: string) => vm.statistics().owners.find((owner) => owner.name === name)?.resources.swap.used;
    vm.chargeTo(one);
    const as = vm.addressSpace();
    const at = as.map({ size: 8 * PAGE });
    expect([swapOf('one'), swapOf('two')]).toEqual([8, 0]);
    as.map({ size: 50 * PAGE, reserve: false });
    as.map({ size: 5 * PAGE, protection: 'read' });
    expect(swapOf('one')).toBe(8);
    expect(() => as.map({ size: 13 * PAGE })).toThrow(/ENOMEM.*limit of the owner/);
    expect(() => as.changeOwner(two)).toThrow(/ENOMEM/);
    expect([swapOf('one'), swapOf('two')]).toEqual([8, 0]);
    as.unmap(at, 3 * PAGE);
    as.changeOwner(two);
    expect([swapOf('one'), swapOf('two')]).toEqual([0, 5]);
    expect(() => as.fork()).toThrow(/ENOMEM/);
    expect(vm.spaces.list()).toHaveLength(1);
    as.changeOwner(one);
    const copy = as.fork();
    expect(swapOf('one')).toBe(10);
    copy.destroy();
    // What others share is charged for all of them.
    for (const options of [
      { size: PAGE, shared: true },
      { size: PAGE, memory: vm.sharedMemory({ size: PAGE, wired: true }) },
    ]) {
      const shared = as.map(options);
      expect(() => as.changeOwner(two)).toThrow(/EBUSY.*shared/);
      as.unmap(shared, PAGE);
    }
    as.changeOwner(two);
    expect(swapOf('two')).toBe(5);
    vm.chargeTo('default');
    as.destroy();
    expect([swapOf('one'), swapOf('two')]).toEqual([1, 0]);
  });
});

describe('advice', () => {
  it('is counted by pages, gives up what nobody has pinned, and is remembered by segment', () => {
    const vm = start();
    const as = vm.addressSpace();
    const at = as.map({ size: 10 * PAGE });
    as.fill(at, 1, 6 * PAGE);
    const pin = as.pin(at + 2 * PAGE, PAGE, 'read');
    as.advise(at, 10 * PAGE, 'free');
    expect(vm.spaces.statistics()).toMatchObject({ freeHits: 5, freeMisses: 1, anons: 1 });
    expect([0, 2, 5].map((page) => as.read(at + page * PAGE, 1)[0])).toEqual([0, 1, 0]);
    pin.release();
    as.advise(at, 4 * PAGE, 'willNeed');
    as.advise(at, 3 * PAGE, 'dontNeed');
    expect(vm.spaces.statistics()).toMatchObject({ willNeed: 4, dontNeed: 3 });
    as.advise(at + 4 * PAGE, 2 * PAGE, 'random');
    expect(as.segments().map(({ advice, size }) => [advice, size / PAGE])).toEqual([
      ['normal', 4],
      ['random', 2],
      ['normal', 4],
    ]);
    as.advise(at, 10 * PAGE, 'sequential');
    expect(as.segments().every(({ advice }) => advice === 'sequential')).toBe(true);
    expect(() => as.advise(at, 11 * PAGE, 'willNeed')).toThrow(/EFAULT/);
    expect(() => as.advise(at, PAGE, 'often' as never)).toThrow(/EINVAL.*normal, random/);
  });
});

describe('unmapping and protecting what is pinned', () => {
  it('says who has the pin, waits as long as it is told, and goes on when it is released', () => {
    const vm = start();
    const other = attach(vm.handle());
    const as = vm.addressSpace();
    const at = as.map({ size: 4 * PAGE });
    const pin = other.addressSpace(as.id).pin(at + PAGE, PAGE, 'write');
    const calls: ((timeoutMs?: number) => void)[] = [
      (timeoutMs) => as.unmap(at, 4 * PAGE, { ...(timeoutMs === undefined ? {} : { timeoutMs }) }),
      (timeoutMs) => as.protect(at, 2 * PAGE, 'read', { ...(timeoutMs === undefined ? {} : { timeoutMs }) }),
      (timeoutMs) => as.destroy({ ...(timeoutMs === undefined ? {} : { timeoutMs }) }),
    ];
    for (const call of calls) {
      expect(() => call()).toThrow(new RegExp(`EBUSY.*pinnedBy=${other.slot}`));
      const began = performance.now();
      expect(() => call(30)).toThrow(/ETIMEDOUT/);
      expect(performance.now() - began).toBeGreaterThan(25);
    }
    // Beside it everything goes.
    as.unmap(at + 2 * PAGE, 2 * PAGE, { timeoutMs: 60_000 });
    pin.release();
    as.protect(at, 2 * PAGE, 'read');
    as.unmap(at, 2 * PAGE);
    expect(as.segments()).toEqual([]);
    other.detach();
  });
});
