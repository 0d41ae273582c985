/** Pins of more than memory can hold at once fail before anything is brought, and those that only look like it do not fail. */

import { boot, shutDown, type VirtualMemory } from 'pagewright';
import type { AddressSpace } from 'pagewright/seg';
import { afterEach, expect, it } from 'vitest';
import { Scratch } from './support/scratch.ts';

const PAGE = 4096;
const FRAMES = 256;
const BYTES = FRAMES * PAGE;

let vm: VirtualMemory;
let as: AddressSpace;

/** Memory of 256 frames in which nobody could be waited for: a pin that waits would be the end of this thread's turn. */
function start(memoryMax = BYTES): void {
  vm = boot({ memory: BYTES, memoryMax, services: 'manual', anonymousPages: 1024 });
  as = vm.addressSpace();
}

/** Both kinds of pins say this; nothing has come, nothing is left. */
async function expectRefused(address: number, length: number, rule: RegExp): Promise<void> {
  const { anons } = vm.spaces.statistics();
  const { page } = vm.frames.counts();
  for (const access of ['read', 'write'] as const) {
    expect(() => as.pin(address, length, access)).toThrow(new RegExp(rule.source.replace('CALL', 'as\\.pin')));
    const awaited = as.pinAsync(address, length, access);
    await expect(awaited).rejects.toThrow(new RegExp(rule.source.replace('CALL', 'as\\.pinAsync')));
  }
  expect(vm.spaces.statistics()).toMatchObject({ anons, pins: 0, shadowLists: 0 });
  expect(vm.frames.counts().page).toBe(page);
  expect(vm.statistics().pages.shortages).toBe(0);
}

/** All can be had in one piece. */
function expectAllFree(): void {
  as.destroy();
  vm.pagelock.reap();
  vm.spaces.reap();
  vm.vnodes.closeAll();
  vm.vnodes.dropUnused();
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  const { online } = vm.frames.core;
  vm.frames.giveRun(vm.frames.takeRun(online), online);
}

afterEach(() => shutDown(vm));

it('are refused over several segments, with what was asked for and what can be had', async () => {
  start();
  const at = as.map({ size: 100 * PAGE, reserve: false });
  for (const page of [100, 200, 300]) as.map({ address: at + page * PAGE, size: 100 * PAGE, reserve: false });
  expect(as.segments()).toHaveLength(4);
  await expectRefused(
    at + 7,
    300 * PAGE,
    new RegExp(`^ENOMEM: CALL\\(address=${at + 7}, length=${300 * PAGE}, needed=${301 * PAGE}, pinnable=${BYTES}\\)`),
  );
  expectAllFree();
});

it('are refused with what is wrong with the range, if anything is', async () => {
  start();
  const at = as.map({ size: 400 * PAGE, reserve: false });
  as.unmap(at + 300 * PAGE, PAGE);
  await expectRefused(at, 400 * PAGE, /^EFAULT: CALL\(address=.*nothing is mapped/);
  as.map({ address: at + 300 * PAGE, size: PAGE, protection: 'none', reserve: false });
  await expectRefused(at, 400 * PAGE, /^EFAULT: CALL\(address=.*does not allow/);
  expectAllFree();
});

it('leave to the system what is kept for it', async () => {
  start();
  vm.frames.watermarks.set({ kernelReserve: 6, freeMin: 10, freeTarget: 12, desiredFree: 14, lotsFree: 16 });
  const at = as.map({ size: 200 * PAGE, reserve: false });
  as.map({ address: at + 200 * PAGE, size: 100 * PAGE, reserve: false });
  await expectRefused(at, 251 * PAGE, new RegExp(`^ENOMEM: CALL\\(.*pinnable=${250 * PAGE}\\)`));
  vm.frames.watermarks.set({ kernelReserve: 0 });
  expectAllFree();
});

it('come when the range shows pages several times, or frames that are not its own', () => {
  start();
  const scratch = new Scratch();
  const memory = vm.sharedMemory({ size: 60 * PAGE });
  const file = vm.open(scratch.file('data', 60 * PAGE, 3), { mode: 'r' });
  const view = { file, shared: true, protection: 'read', maxProtection: 'read' } as const;
  const cookie = vm.pmem.alloc({ size: 20 * PAGE });
  const at = as.map({ size: 60 * PAGE, memory, address: 2 ** 30 });
  as.map({ address: at + 60 * PAGE, size: 40 * PAGE, memory, offset: 20 * PAGE });
  as.map({ address: at + 100 * PAGE, size: 60 * PAGE, ...view });
  as.map({ address: at + 160 * PAGE, size: 40 * PAGE, ...view, offset: 20 * PAGE });
  for (let copy = 0; copy < 5; copy++) as.map({ address: at + (200 + copy * 20) * PAGE, size: 20 * PAGE, cookie });
  const pin = as.pin(at, 300 * PAGE, 'read');
  expect(pin.views.reduce((sum, { length }) => sum + length, 0)).toBe(300 * PAGE);
  expect(vm.frames.counts().page).toBe(120);
  pin.release();
  as.destroy();
  vm.pmem.free(cookie);
  memory.release();
  file.close();
  as = vm.addressSpace();
  expectAllFree();
  scratch.remove();
});

it('come once there is more memory', async () => {
  start(2 * BYTES);
  const at = as.map({ size: 200 * PAGE, reserve: false });
  as.map({ address: at + 200 * PAGE, size: 100 * PAGE, reserve: false });
  await expectRefused(at, 300 * PAGE, new RegExp(`^ENOMEM: CALL\\(.*needed=${300 * PAGE}, pinnable=${BYTES}\\)`));
  vm.frames.online(FRAMES, FRAMES);
  as.pin(at, 300 * PAGE, 'write').release();
  expectAllFree();
});
