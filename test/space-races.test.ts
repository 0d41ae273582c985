/** What another thread does between two steps of a change of an address space. */

import { afterEach, describe, expect, it } from 'vitest';
import { type AddressSpace, type PagelockCache, PIN } from '../src/seg/index.ts';
import { setSeam } from '../src/sync/index.ts';
import { attach, boot, type VirtualMemory } from '../src/system/index.ts';
import { testPagelock } from '../test/support/pagelock.ts';

const PAGE = 4096;
const booted: VirtualMemory[] = [];

afterEach(() => {
  setSeam(undefined);
  const [vm, ...others] = booted.splice(0) as [VirtualMemory, ...VirtualMemory[]] | [];
  for (const other of others) other.detach();
  if (vm === undefined) return;
  for (const id of vm.spaces.list()) vm.addressSpace(id).destroy();
  for (const cookie of vm.pmem.cookies()) vm.pmem.free(cookie);
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  expect(vm.spaces.statistics()).toMatchObject({ spaces: 0, segments: 0, maps: 0, anons: 0, pins: 0, reserved: 0 });
  vm.detach();
});

/** A space with two pinned and released segments, as two threads see it. */
function twice(): { vm: VirtualMemory; as: AddressSpace; other: AddressSpace; at: number } {
  const vm = boot({ memory: '2 MiB', slots: 6, services: 'manual' });
  const second = attach(vm.handle());
  booted.push(vm, second);
  const as = vm.addressSpace();
  const other = second.addressSpace(as.id);
  const at = as.map({ size: 4 * PAGE });
  as.map({ address: at + 4 * PAGE, size: 4 * PAGE });
  for (const from of [at, at + 4 * PAGE]) {
    as.store(from, 7);
    as.pin(from, PAGE, 'write').release();
  }
  return { vm, as, other, at };
}

/** Runs `act` right before the next purge: after its owners were listed, while no lock is held. */
function beforePurge(cache: PagelockCache, act: () => void): { ran: boolean } {
  const done = { ran: false };
  const purge = cache.purgeIfKnown.bind(cache);
  cache.purgeIfKnown = (owner) => {
    if (!done.ran) {
      done.ran = true;
      act();
    }
    return purge(owner);
  };
  return done;
}

describe('owners in the pagelock cache that go between the listing and the purge', () => {
  it('do not disturb a fork, which shows what is left', () => {
    const { vm, as, other, at } = twice();
    const kept = as.pin(at, PAGE, 'read');
    const gone = as.pin(at + 4 * PAGE, PAGE, 'read');
    const done = beforePurge(vm.pagelock, () => {
      gone.release();
      other.unmap(at + 4 * PAGE, 4 * PAGE);
    });
    const copy = as.fork();
    expect(done.ran).toBe(true);
    expect(copy.load(at)).toBe(7);
    expect(copy.lookup(at + 4 * PAGE)).toBeNull();
    kept.release();
  });

  it('do not disturb unmapping, protecting and destroying', () => {
    for (const change of [
      (as: AddressSpace, at: number) => as.unmap(at, 8 * PAGE),
      (as: AddressSpace, at: number) => as.protect(at, 4 * PAGE, 'read'),
      (as: AddressSpace) => as.destroy(),
    ]) {
      const { vm, as, other, at } = twice();
      const done = beforePurge(vm.pagelock, () => {
        if (change.length === 2) other.unmap(at, 4 * PAGE);
        other.map({ address: at, size: 4 * PAGE, replace: true });
        other.pin(at, PAGE, 'write').release();
      });
      change(as, at);
      expect(done.ran).toBe(true);
      if (as.size > 0) expect(() => as.store(at, 1)).toThrow(/EFAULT/);
    }
  });

  it('do not disturb a remap that another thread makes needless', () => {
    const { vm, as, other } = twice();
    const cookie = vm.pmem.alloc({ size: 4 * PAGE });
    const at = as.map({ size: 4 * PAGE, cookie });
    as.pin(at, PAGE, 'read').release();
    const done = beforePurge(vm.pagelock, () => other.unmap(at, 4 * PAGE));
    expect(() => as.remap(at, { cookie, offset: 0 })).toThrow(/EFAULT.*nothing is mapped/);
    expect(done.ran).toBe(true);
  });

  it('leave a purge that has begun nothing to walk, whatever the row is used for next', () => {
    for (const again of [0, 2]) {
      const { cache, owner, attach: join, taken, newShadow } = testPagelock();
      const other = join().cache;
      // Rows given back are linked to each other; those links are not entries.
      const [first, second, third] = [owner(), owner(), owner()];
      for (const gone of [second, first]) cache.destroyOwner(gone);
      const victim = owner();
      expect(victim).toBe(first);
      for (const from of [0, 4, 8]) cache.release(cache.insert(third, from * PAGE, PAGE, newShadow(), PIN.read));
      let ran = false;
      setSeam(() => {
        setSeam(undefined);
        ran = true;
        other.retireOwner(victim, () => {});
        for (let count = 0; count < again; count++) other.createOwner({ driver: { export: 'test driver' } });
      });
      expect(cache.purgeIfKnown(victim)).toBe(0);
      expect(ran).toBe(true);
      expect(taken()).toEqual([]);
      expect(cache.check().problems).toEqual([]);
      if (again === 0) expect(cache.purgeIfKnown(victim)).toBe(0);
      else cache.destroyOwner(victim);
      expect(cache.purge(third)).toBe(0);
      expect(taken()).toHaveLength(3);
    }
  });
});
