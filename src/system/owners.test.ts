/** Owners as users have them: made, chosen by number or name in several threads, charged, refused at their limits. */

import { setTimeout as pause } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { attach, boot } from './index.ts';

describe('owners of a system', () => {
  it('are made in one thread, charged by several, and refused at their limits', () => {
    const vm = boot({ memory: '4 MiB', services: 'manual', slots: 4 });
    const other = attach(vm.handle());
    const web = vm.createOwner('web', { arenaBytes: 100 });
    expect([vm.owner, other.owner]).toEqual([0, 0]);
    vm.chargeTo(web);
    other.chargeTo('web');
    expect([vm.owner, other.owner]).toEqual([web, web]);
    const arena = vm.createArena('ids', { size: 1000, charge: true });
    const mine = arena.alloc(60);
    const used = () => vm.statistics().owners.map(({ name, resources }) => [name, resources.arenaBytes.used]);
    expect(() => other.arena('ids').alloc(41)).toThrow(/EDQUOT: arena.alloc\(.*owner="web", used=60/);
    const theirs = other.arena('ids').alloc(40);
    expect(used()).toEqual([
      ['default', 0],
      ['web', 100],
    ]);
    // Whoever frees, and whomever they charge now: it goes back to who was charged.
    vm.chargeTo(0);
    expect(arena.tryAlloc(500)).toBeGreaterThanOrEqual(0);
    arena.free(theirs, 40);
    expect(used()).toEqual([
      ['default', 500],
      ['web', 60],
    ]);
    other.arena('ids').free(mine, 60);
    expect(used()[1]).toEqual(['web', 0]);
    expect(vm.check().flatMap(({ problems }) => problems)).toEqual([]);
    other.detach();
    vm.detach();
  });

  it('keep what was pinned for them when the thread turns to another, whose limit counts at once', () => {
    const vm = boot({ memory: '4 MiB', services: 'manual', slots: 4 });
    const used = () => vm.statistics().owners.map(({ resources }) => resources.lockedFrames.used);
    const as = vm.addressSpace();
    const at = as.map({ size: 64 * 4096 });
    const pin = as.pin(at, 3 * 4096, 'read');
    vm.createOwner('small', { lockedFrames: 2 });
    vm.chargeTo('small');
    expect(used()).toEqual([3, 0]);
    expect(() => as.pin(at, 40 * 4096, 'read')).toThrow(/EDQUOT: as.pin\(owner="small", frames=40, .*limit.* is 2/);
    const other = as.pin(at, 2 * 4096, 'read');
    expect(used()).toEqual([3, 2]);
    pin.release();
    expect(used()).toEqual([0, 2]);
    vm.chargeTo('default');
    other.release();
    expect(used()).toEqual([0, 0]);
    as.destroy();
    vm.detach();
  });

  it('are charged for what was asked for while the thread charged them, also if it is served later', async () => {
    const vm = boot({ memory: '4 MiB', services: 'manual', slots: 4 });
    const names = ['a', 'b'];
    for (const name of names) vm.createOwner(name, { arenaBytes: 100 });
    const arena = vm.createArena('ids', { size: 150, charge: true });
    const all = arena.alloc(150);
    const frames = vm.pageLists.alloc({ size: vm.frames.counts().free * 4096, segments: 1024 });
    const wait = { timeoutMs: 100_000 };
    const asked = names.map((name) => {
      vm.chargeTo(name);
      const list = vm.pageLists.allocAsync({ size: 3 * 4096, segments: 3 }, wait);
      return Promise.all([arena.allocAsync(60, wait), list, vm.pmem.allocAsync({ size: 5 * 4096 }, wait)]);
    });
    vm.chargeTo('default');
    // Whose owner is gone by then is not served.
    vm.createOwner('c');
    vm.chargeTo('c');
    const orphan = expect(arena.allocAsync(10, wait)).rejects.toThrow(
      /^EINVAL: arena.allocAsync\(owner=3\): the owner .* was removed/,
    );
    vm.chargeTo('default');
    vm.removeOwner('c');
    arena.free(all, 150);
    vm.pageLists.free(frames);
    const served = await Promise.all(asked);
    await orphan;
    const used = () =>
      vm.statistics().owners.map(({ name, resources: { arenaBytes, frames, lockedFrames } }) => {
        return [name, arenaBytes.used, frames.used, lockedFrames.used];
      });
    expect(used()).toEqual([
      ['default', 0, 0, 0],
      ['a', 60, 8, 5],
      ['b', 60, 8, 5],
    ]);
    expect(vm.owner).toBe(0);
    for (const [address, list, cookie] of served) {
      arena.free(address, 60);
      vm.pageLists.free(list);
      vm.pmem.free(cookie);
    }
    expect(used().flatMap(([, ...amounts]) => amounts)).toEqual(Array(9).fill(0));
    expect(vm.check().flatMap(({ problems }) => problems)).toEqual([]);
    vm.detach();
  });

  it('are refused by bad names, numbers and limits, with nothing changed', () => {
    const vm = boot({ memory: '4 MiB', services: 'manual', slots: 4, owners: 2 });
    expect(() => vm.chargeTo('web')).toThrow(/ENOENT: chargeTo\(owner="web"\): no such owner/);
    for (const name of ['', undefined, null, 5, {}, true, 'a'.repeat(64)]) {
      expect(() => vm.createOwner(name as never)).toThrow(/^EINVAL: createOwner\(name=.*a text of 1 to 63 bytes/);
    }
    for (const number of [1, -1, 0.5, 99]) expect(() => vm.chargeTo(number)).toThrow(/EINVAL: chargeTo/);
    expect(() => vm.createOwner('a', { pages: 1 } as never)).toThrow(/EINVAL: createOwner/);
    expect(() => vm.createOwner('default')).toThrow(/EEXIST/);
    expect(vm.createOwner('a')).toBe(1);
    expect(() => vm.createOwner('b')).toThrow(/ENOMEM: createOwner.*`owners`/);
    expect(vm.owner).toBe(0);
    vm.detach();
    expect(() => vm.createOwner('c')).toThrow(/ESTALE/);
    expect(() => vm.chargeTo(0)).toThrow(/ESTALE/);
  });

  it('get other limits while threads wait for them, and go when nothing names them any more', async () => {
    const vm = boot({ memory: '4 MiB', services: 'manual', slots: 4 });
    const other = attach(vm.handle());
    const web = vm.createOwner('web', { arenaBytes: 100 });
    const arena = vm.createArena('ids', { size: 1000, charge: true });
    vm.chargeTo('web');
    const first = arena.alloc(90);
    const waiting = arena.allocAsync(50, { timeoutMs: 100_000 });
    await pause(20);
    other.setOwnerLimits('web', { arenaBytes: 140 });
    const second = await waiting;
    other.setOwnerLimits(web, { arenaBytes: 50 });
    expect(() => arena.alloc(1)).toThrow(/^EDQUOT: .*used=140\): the owner's limit of arena bytes is 50/);
    arena.free(second, 50);
    expect(() => other.removeOwner('web')).toThrow(/^EBUSY: removeOwner\(owner="web", arenaBytes=90, slots="0"\)/);
    vm.chargeTo('default');
    arena.free(first, 90);
    const as = vm.addressSpace();
    as.changeOwner(web);
    vm.frames.reserveFor('web', 3);
    const named = /^EBUSY: .*usedBy="address space 0, a reservation of 3 frames"/;
    expect(() => other.removeOwner('web')).toThrow(named);
    as.changeOwner(0);
    vm.frames.reserveFor('web', 0);
    other.removeOwner('web');
    expect(() => as.changeOwner(web)).toThrow(/^ENOENT/);
    expect(() => vm.frames.reserveFor(web, 1)).toThrow(/no such owner/);
    expect(() => vm.setOwnerLimits('web', {})).toThrow(/^ENOENT: setOwnerLimits/);
    as.destroy();
    expect(vm.check().flatMap(({ problems }) => problems)).toEqual([]);
    other.detach();
    vm.detach();
    expect(() => vm.removeOwner(web)).toThrow(/ESTALE/);
  });
});
