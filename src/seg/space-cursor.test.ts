import { describe, expect, it } from 'vitest';
import { dieAtEveryStep } from '../../test/support/deaths.ts';
import { Prng } from '../base/index.ts';
import { attach, boot } from '../system/index.ts';

const PAGE = 4096;

function setUp() {
  const vm = boot({ memory: '1 MiB', services: 'manual', slots: 4, clock: 'virtual' });
  const other = attach(vm.handle());
  const as = vm.addressSpace();
  const at = as.map({ size: 32 * PAGE });
  return { vm, other, as, at, there: other.addressSpace(as.id) };
}

/** Everything goes: all frames are free. */
function end({ vm, other }: ReturnType<typeof setUp>): void {
  for (const id of vm.spaces.list()) vm.addressSpace(id).destroy();
  vm.spaces.reap();
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  const { free, total } = vm.frames.counts();
  expect(free).toBe(total);
  other.detach();
  vm.detach();
}

describe('a cursor', () => {
  it('shows and changes what the space has, in every thread', () => {
    const world = setUp();
    const { as, there, at } = world;
    const random = new Prng(3);
    const words = new Int32Array((32 * PAGE) / 4);
    const mine = as.cursor({ pages: 8 });
    const theirs = there.cursor({ pages: 4 });
    for (let step = 0; step < 4000; step++) {
      const word = random.below(words.length);
      const cursor = random.chance(0.5) ? mine : theirs;
      const old = words[word] as number;
      if (random.chance(0.5)) expect(cursor.load(at + word * 4)).toBe(old);
      else if (random.chance(0.3)) {
        expect(cursor.add(at + word * 4, 5)).toBe(old);
        words[word] = old + 5;
      } else if (random.chance(0.4)) {
        expect(cursor.compareAndSwap(at + word * 4, old, step)).toBe(old);
        words[word] = step;
      } else {
        cursor.store(at + word * 4, -step);
        words[word] = -step;
      }
    }
    expect(as.read(at, 32 * PAGE)).toEqual(new Uint8Array(words.buffer));
    mine.release();
    expect(() => mine.release()).toThrow(/EINVAL/);
    expect(() => mine.load(at)).toThrow(/EINVAL/);
    theirs.release();
    end(world);
  });

  it('follows forks, protections and unmappings by other threads', () => {
    const world = setUp();
    const { vm, as, there, at } = world;
    const cursor = as.cursor();
    cursor.store(at, 1);
    const copy = there.fork();
    cursor.store(at, 2);
    expect(vm.addressSpace(copy.id).load(at)).toBe(1);
    expect(there.load(at)).toBe(2);
    there.protect(at, PAGE, 'read');
    expect(cursor.load(at)).toBe(2);
    expect(() => cursor.store(at, 3)).toThrow(/EFAULT/);
    there.unmap(at, PAGE);
    expect(() => cursor.load(at)).toThrow(/EFAULT/);
    expect(() => cursor.load(at + PAGE + 2)).toThrow(/EINVAL/);
    expect(() => cursor.store(at + PAGE + 2, 1)).toThrow(/EINVAL/);
    expect(() => as.cursor({ pages: 3 })).toThrow(/EINVAL/);
    // What is nowhere yet reads as zeros.
    expect(cursor.load(at + 9 * PAGE)).toBe(0);
    there.destroy();
    expect(() => cursor.load(at + 9 * PAGE)).toThrow(/ESTALE/);
    cursor.release();
    end(world);
  });

  it('keeps pages from being freed until it lets them go, and lets them go at a detach', () => {
    const world = setUp();
    const { vm, other, as, there, at } = world;
    const before = vm.frames.counts().free;
    there.cursor().store(at, 7);
    as.destroy();
    expect(vm.frames.counts().free).toBeLessThan(before);
    other.detach();
    vm.spaces.reap();
    expect(vm.frames.counts().free).toBe(vm.frames.counts().total);
    vm.detach();
  });

  it('reaches frames without identity, and files', () => {
    const vm = boot({ memory: '1 MiB', services: 'manual' });
    const as = vm.addressSpace();
    const heap = vm.heap.alloc(2 * PAGE);
    const at = as.map({ size: 2 * PAGE, physical: heap });
    const file = vm.openMemory('of words');
    file.truncate(2 * PAGE);
    const shared = as.map({ size: 2 * PAGE, file, shared: true });
    {
      using cursor = as.cursor({ pages: 2 });
      for (const base of [at, shared]) {
        cursor.store(base + PAGE, 17);
        expect(cursor.add(base + PAGE, 1)).toBe(17);
        expect(cursor.load(base + PAGE)).toBe(18);
        expect(cursor.compareAndSwap(base + PAGE, 18, 4)).toBe(18);
      }
    }
    expect(new Int32Array(vm.banks.view(heap + PAGE, 4).slice().buffer)[0]).toBe(4);
    expect(file.read(PAGE, 4)).toEqual(Uint8Array.of(4, 0, 0, 0));
    as.destroy();
    vm.heap.free(heap, 2 * PAGE);
    file.close();
    expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
    vm.detach();
  });

  it('leaves a sound space when its thread ends at any step', () => {
    const world = setUp();
    const { vm, other, at } = world;
    world.as.store(at + PAGE, 5);
    const { id } = world.as;
    const steps = dieAtEveryStep({
      region: vm.region,
      self: vm.thread,
      victim: other.thread,
      recoverers: vm.recoverers,
      operation: () => {
        const cursor = other.addressSpace(id).cursor({ pages: 1 });
        cursor.store(at + PAGE, 6);
        cursor.add(at + 2 * PAGE, 1);
        cursor.load(at + PAGE);
        cursor.release();
      },
      verify: () => {
        const as = vm.addressSpace(id);
        expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
        expect([5, 6]).toContain(as.load(at + PAGE));
        as.store(at + PAGE, 9);
        as.fork().destroy();
        as.destroy();
        vm.spaces.reap();
        expect(vm.frames.counts().free).toBe(vm.frames.counts().total);
      },
    });
    console.log(`a cursor: ${steps} steps`);
    expect(steps).toBeGreaterThan(20);
  });
});
