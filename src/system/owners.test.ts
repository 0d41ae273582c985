/** Owners as users have them: made, chosen by number or name in several threads, charged, refused at their limits. */

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

  it('are refused by bad names, numbers and limits, with nothing changed', () => {
    const vm = boot({ memory: '4 MiB', services: 'manual', slots: 4, owners: 2 });
    expect(() => vm.chargeTo('web')).toThrow(/ENOENT: chargeTo\(owner="web"\): no such owner/);
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
});
