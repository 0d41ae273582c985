import { describe, expect, it } from 'vitest';
import { dieAtEveryStep } from '../../test/support/deaths.ts';
import { attach, boot } from '../system/index.ts';

const PAGE = 4096;

function setUp() {
  const vm = boot({ memory: '2 MiB', services: 'manual', slots: 4, clock: 'virtual' });
  const as = vm.addressSpace();
  const at = as.map({ size: 16 * PAGE });
  as.fill(at, 1, 16 * PAGE);
  return { vm, as, at };
}

function end({ vm }: ReturnType<typeof setUp>): void {
  for (const id of vm.spaces.list()) vm.addressSpace(id).destroy();
  vm.spaces.reap();
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  expect(vm.spaces.statistics()).toMatchObject({ shadowLists: 0, pins: 0, anons: 0 });
  expect(vm.frames.counts().free).toBe(vm.frames.counts().total);
  expect(vm.pagelock.statistics()).toMatchObject({ entries: 0, lockedPages: 0 });
}

describe('lists of pages that lie side by side', () => {
  it('become one when their pins are released, and one pin then finds all of it', () => {
    const world = setUp();
    const { vm, as, at } = world;
    as.pin(at + 4 * PAGE, 2 * PAGE, 'read').release();
    as.pin(at + 6 * PAGE, PAGE, 'write').release();
    as.pin(at + 2 * PAGE, 2 * PAGE, 'read').release();
    expect(vm.spaces.statistics().shadowLists).toBe(1);
    // A hole between them keeps them apart.
    as.pin(at + 8 * PAGE, PAGE, 'read').release();
    expect(vm.spaces.statistics().shadowLists).toBe(2);
    const { counters } = vm.pagelock.statistics();
    expect(counters.merges).toBe(2);
    const pin = as.pin(at + 3 * PAGE, 4 * PAGE, 'write');
    expect(vm.pagelock.statistics().counters).toMatchObject({ hits: counters.hits + 1, inserts: counters.inserts });
    for (const view of pin.views) view.fill(8);
    expect([2, 3, 6, 7].map((page) => as.read(at + page * PAGE, 1)[0])).toEqual([1, 8, 8, 1]);
    // A copy keeps what was there before the pin stores; the pin goes on in the space.
    const copy = as.fork();
    (pin.views[0] as Uint8Array).fill(9);
    expect([as.read(at + 3 * PAGE, 1)[0], copy.read(at + 3 * PAGE, 1)[0]]).toEqual([9, 8]);
    pin.release();
    copy.destroy();
    expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
    end(world);
    vm.detach();
  });

  it('are all unlocked once when a thread ends at any step of it', () => {
    const world = setUp();
    const { vm, as, at } = world;
    const other = attach(vm.handle());
    as.pin(at + PAGE, 2 * PAGE, 'write').release();
    const { id } = as;
    const steps = dieAtEveryStep({
      region: vm.region,
      self: vm.thread,
      victim: other.thread,
      recoverers: vm.recoverers,
      operation: () =>
        other
          .addressSpace(id)
          .pin(at + 3 * PAGE, PAGE, 'read')
          .release(),
      verify: () => {
        expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
        const space = vm.addressSpace(id);
        space.pin(at, 6 * PAGE, 'write').release();
        space.unmap(at + 2 * PAGE, 2 * PAGE);
        end({ ...world, as: space });
      },
    });
    console.log(`joining lists: ${steps} steps`);
    expect(steps).toBeGreaterThan(50);
  });
});
