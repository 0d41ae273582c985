/** Address spaces while memory comes and goes. */

import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { attach, type BootOptions, boot, type VirtualMemory } from '../src/system/index.ts';
import { Scratch } from './support/scratch.ts';

const PAGE = 4096;
const MIB = 256;
let vm: VirtualMemory | undefined;

afterEach(() => {
  if (vm === undefined) return;
  for (const id of vm.spaces.list()) vm.addressSpace(id).destroy();
  for (const cookie of vm.pmem.cookies()) vm.pmem.free(cookie);
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  expect(vm.spaces.statistics()).toMatchObject({ spaces: 0, segments: 0, maps: 0, anons: 0, pins: 0, reserved: 0 });
  vm.detach();
  vm = undefined;
});

function start(options: BootOptions): VirtualMemory {
  vm = boot({ services: 'manual', slots: 6, bankSize: '1 MiB', ...options });
  return vm;
}

describe('what can be reserved', () => {
  it('follows memory that comes, goes, and stays after all, beside the pages of swap', () => {
    const scratch = new Scratch();
    const vm = start({ memory: '2 MiB', memoryMax: '6 MiB' });
    const there = attach(vm.handle());
    const most = () => {
      expect(there.spaces.statistics().reserveMax).toBe(vm.spaces.statistics().reserveMax);
      return vm.spaces.statistics().reserveMax;
    };
    // A few frames for each slot stay for faults.
    const kept = 2 * MIB - most();
    expect(kept).toBeLessThan(MIB / 8);
    const as = vm.addressSpace();
    expect(() => as.map({ size: 4 * MIB * PAGE })).toThrow(/ENOMEM.*reserveMax=\d+/);
    vm.frames.online(2 * MIB, 3 * MIB);
    expect(most()).toBe(5 * MIB - kept);
    const at = as.map({ size: 4 * MIB * PAGE });
    for (let page = 0; page < 4 * MIB; page += MIB / 2) as.store(at + page * PAGE, page);
    vm.spaces.swap.add(join(scratch.directory, 'swap'), '1 MiB');
    expect(most()).toBe(6 * MIB - kept);
    there.frames.offline(4 * MIB, MIB);
    expect(most()).toBe(5 * MIB - kept);
    expect(() => as.map({ size: (MIB - kept + 1) * PAGE })).toThrow(/ENOMEM/);
    as.map({ size: (MIB - kept) * PAGE });
    // A removal that fails leaves it as it was.
    const pin = as.pin(at, PAGE, 'write');
    const frame = (pin.pieces[0]?.bank as number) * MIB;
    expect(() => vm.frames.offline(frame, MIB, { timeoutMs: 10 })).toThrow(/EBUSY/);
    expect(most()).toBe(5 * MIB - kept);
    pin.release();
    for (let page = 0; page < 4 * MIB; page += MIB / 2) expect(as.load(at + page * PAGE)).toBe(page);
    there.detach();
    scratch.remove();
  });
});

describe('a removal that fails', () => {
  it('names the cookie whose frame stays, and who has a mapping of it pinned', () => {
    const vm = start({ memory: '4 MiB' });
    vm.pmem.alloc({ size: PAGE });
    const cookie = vm.pmem.alloc({ size: 4 * PAGE });
    const frame = vm.pmem.getPfns(cookie, 2, 1)[0] as number;
    const refused = () => {
      try {
        vm.frames.offline(frame, 1, { timeoutMs: 5 });
      } catch (error) {
        return String(error);
      }
      return 'it went';
    };
    expect(refused()).toMatch(/EBUSY(?!.*BySlots).*use="list".*cookie=1\)/);
    const there = attach(vm.handle());
    const as = there.addressSpace();
    const at = as.map({ size: 2 * PAGE, cookie, offset: 2 * PAGE });
    const pin = as.pin(at, PAGE, 'read');
    expect(refused()).toMatch(new RegExp(`cookie=1, pinnedBySlots="${there.thread.slot}"`));
    pin.release();
    vm.pmem.free(cookie);
    vm.pmem.trim();
    vm.frames.offline(frame, 1);
    // A frame that is no cookie's is not said to be one.
    const run = vm.frames.takeRun(2);
    expect(() => vm.frames.offline(run, 1, { timeoutMs: 5 })).toThrow(/EBUSY(?!.*cookie)/);
    vm.frames.giveRun(run, 2);
    vm.frames.online(frame, 1);
    there.detach();
  });
});
