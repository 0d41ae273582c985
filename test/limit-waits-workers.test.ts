/** Requests that wait at the limit of their owner, in real threads: those who would give way die with frames, or while giving them. */

import { once } from 'node:events';
import { boot, type VirtualMemory } from 'pagewright';
import type { PageList } from 'pagewright/phys';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { shutDownBalanced } from './support/balance.ts';
import { kill, nextMessage, parkAt, start, until, type Victim } from './support/chaos.ts';

const program = new URL('../build/test/workers/limit-holder.js', import.meta.url);
const PAGE = 4096;
const LIMIT = 40;

/** This thread, the daemon and the I/O worker. */
const SERVICES = 3;

let vm: VirtualMemory;

beforeEach(() => {
  vm = boot({ memory: '1 MiB', slots: 8 });
  vm.createOwner('small', { frames: LIMIT });
});

afterEach(() => shutDownBalanced(vm));

const waiting = () => vm.frames.core.queue.count;

/** A worker that has 30 frames, and one that blocks for 20. */
async function beginWorkers() {
  const worker = vm.spawn(program, { workerData: { owner: 'small', frames: 30, waits: false } });
  const [{ slot, attachment }] = (await nextMessage(worker)) as [{ slot: number; attachment: number }];
  const waiter = await start(vm, program, { owner: 'small', frames: 20, waits: true });
  const served = nextMessage(waiter.worker).then(([message]) => (message as { served: number }).served);
  // A test that ends this worker does not ask.
  served.catch(() => undefined);
  await until(() => waiting() === 1, 'it waits');
  return { holder: { worker, slot }, attachment, served, waiter };
}

/** The same, with a request of this thread for 16 behind them. */
async function begin() {
  const workers = await beginWorkers();
  vm.chargeTo('small');
  const mine = vm.pageLists.allocAsync({ size: 16 * PAGE, segments: 16 }, { timeoutMs: 60_000 });
  vm.chargeTo('default');
  await until(() => waiting() === 2, 'both wait');
  return { ...workers, mine };
}

async function end(waiter: Victim, mine: PageList): Promise<void> {
  vm.pageLists.free(mine);
  const left = once(waiter.worker, 'exit');
  waiter.worker.postMessage('free');
  await left;
  await until(() => vm.statistics().slots.length === SERVICES, 'the workers leave');
  expect(waiting()).toBe(0);
  const small = vm.statistics().owners.find(({ name }) => name === 'small');
  expect(small?.resources.frames).toMatchObject({ used: 0, limit: LIMIT });
  expect(small?.resources.frames.peak).toBeLessThanOrEqual(LIMIT);
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  vm.pageLists.free(vm.pageLists.alloc({ size: 256 * PAGE }));
}

it('go on when a thread dies that has begun to give frames back', async () => {
  // It stops with the lock of the frames: this thread, which ends it, must not wait for any meanwhile.
  const { holder, attachment, served, waiter } = await beginWorkers();
  const parked = parkAt(vm, 'phys.list.given', { slot: holder.slot });
  holder.worker.postMessage('free');
  await parked;
  await kill(vm, holder);
  expect(await served).toBe(20);
  vm.chargeTo('small');
  const mine = vm.pageLists.alloc({ size: 20 * PAGE });
  vm.chargeTo('default');
  await end(waiter, mine);
  expect(vm.pageLists.freeOf(attachment)).toBe(0);
});

it('go on when what a thread left behind is freed, and get no more than the limit together', async () => {
  const { holder, attachment, served, mine, waiter } = await begin();
  await kill(vm, holder);
  expect(waiting()).toBe(2);
  expect(vm.pageLists.freeOf(attachment)).toBe(30);
  expect(await served).toBe(20);
  vm.pageLists.free(await mine);
  vm.chargeTo('small');
  expect(() => vm.pageLists.alloc({ size: 21 * PAGE })).toThrow(/EDQUOT.*frames=21, owner="small", used=20/);
  const rest = vm.pageLists.alloc({ size: 20 * PAGE });
  vm.chargeTo('default');
  await end(waiter, rest);
});

it('go on when the limit is raised, and when one that waits before them dies', async () => {
  const { holder, mine, waiter } = await begin();
  const second = await start(vm, program, { owner: 'small', frames: 17, waits: true });
  const behind = nextMessage(second.worker).then(([message]) => (message as { served: number }).served);
  await until(() => waiting() === 3, 'three wait');
  await kill(vm, waiter);
  vm.setOwnerLimits('small', { frames: 63 });
  const list = await mine;
  expect(await behind).toBe(17);
  const small = () => vm.statistics().owners.find(({ name }) => name === 'small')?.resources.frames.used;
  expect(small()).toBe(63);
  vm.setOwnerLimits('small', { frames: LIMIT });
  const left = once(holder.worker, 'exit');
  holder.worker.postMessage('free');
  await left;
  expect(small()).toBe(33);
  vm.setOwnerLimits('small', { frames: 63 });
  vm.pageLists.free(list);
  second.worker.postMessage('free');
  await once(second.worker, 'exit');
  await until(() => vm.statistics().slots.length === SERVICES, 'the workers leave');
  expect(small()).toBe(0);
  expect(waiting()).toBe(0);
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  vm.pageLists.free(vm.pageLists.alloc({ size: 256 * PAGE }));
});

it('serve cookies, which wait among page lists, when whoever has the frames dies or gives them', async () => {
  const holder = await start(vm, program, { owner: 'small', frames: 15, waits: false, cookie: true });
  const other = await start(vm, program, { owner: 'small', frames: 20, waits: false });
  const waiter = await start(vm, program, { owner: 'small', frames: 12, waits: true, cookie: true });
  const served = nextMessage(waiter.worker).then(([message]) => (message as { served: number }).served);
  await until(() => waiting() === 1, 'it waits');
  vm.chargeTo('small');
  const mine = vm.pmem.allocAsync({ size: 9 * PAGE }, { timeoutMs: 60_000 });
  const list = vm.pageLists.allocAsync({ size: 8 * PAGE, segments: 8 }, { timeoutMs: 60_000 });
  vm.chargeTo('default');
  await until(() => waiting() === 3, 'all wait');
  // A cookie outlives its maker until it is freed for it.
  const { attachment } = holder as unknown as { attachment: number };
  await kill(vm, holder);
  expect(waiting()).toBe(3);
  vm.pmem.freeOf(attachment);
  expect(await served).toBe(12);
  const left = once(other.worker, 'exit');
  other.worker.postMessage('free');
  await left;
  vm.pmem.free(await mine);
  await end(waiter, await list);
});
