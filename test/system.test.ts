import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { adopted, attach, boot, shutDown, type VirtualMemory } from 'pagewright';
import { Mutex } from 'pagewright/sync';
import { afterEach, describe, expect, it } from 'vitest';

const counter = new URL('../build/test/workers/counter.js', import.meta.url);
const open: VirtualMemory[] = [];

function bootSmall(): VirtualMemory {
  const vm = boot({ memory: '1 MiB', slots: 8, arenas: 4, tags: 256 });
  open.push(vm);
  return vm;
}

async function until(condition: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 2000; i++) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`timed out: ${what}`);
}

afterEach(async () => {
  for (const vm of open.splice(0)) await shutDown(vm);
});

describe('boot and attach', () => {
  it('lets two workers count under one mutex without losing a step, and they contend', async () => {
    const vm = bootSmall();
    const rounds = 200_000;
    const workers = [0, 1].map(() => vm.spawn(counter, { workerData: { rounds, dieHolding: false, parties: 2 } }));
    const results = await Promise.all(workers.map((worker) => once(worker, 'message')));
    const { arena } = vm.region.tables;
    expect(arena.busyTags.get(0)).toBe(2 * rounds);
    expect(arena.busyTagsPeak.get(0)).toBe(2 * rounds);
    const contended = results.reduce((sum, [result]) => sum + result.contended, 0);
    expect(contended).toBeGreaterThan(0);
    console.log(`contended entries: ${contended} of ${2 * rounds}`);
    await Promise.all(workers.map((worker) => worker.terminate()));
  });

  it('undoes what a terminated holder had half done, and frees its lock and slot', async () => {
    const vm = bootSmall();
    const worker = vm.spawn(counter, { workerData: { rounds: 1000, dieHolding: true, parties: 1 } });
    await once(worker, 'message');
    const mutex = new Mutex(vm.thread, vm.region.tables.arena.lock.address(0), 900);
    expect(mutex.tryEnter()).toBe(false);
    worker.terminate();
    mutex.enter(); // blocks this thread until the monitor has taken over
    const { arena } = vm.region.tables;
    expect(arena.busyTags.get(0)).toBe(999);
    expect(arena.busyTagsPeak.get(0)).toBe(999);
    mutex.exit();
    await until(() => vm.statistics().slots.length === 2, 'the slot is free again');
  });

  it('attaches with a plain handle and notices the end of that thread too', async () => {
    const vm = bootSmall();
    const worker = new Worker(counter, { workerData: { rounds: 10, dieHolding: true, parties: 1, vm: vm.handle() } });
    await once(worker, 'message');
    expect(vm.statistics().slots.some((slot) => slot.watchedBy === 'thread id')).toBe(process.platform === 'linux');
    await worker.terminate();
    await until(() => vm.statistics().slots.every((slot) => slot.watchedBy === 'port'), 'the slot is free again');
    expect(vm.region.tables.arena.busyTags.get(0)).toBe(9);
  });

  it('refuses what is no handle', () => {
    expect(() => attach(null)).toThrow(/EINVAL: attach: expected a handle .* got null/);
    expect(() => attach({ pagewright: 'handle', region: new ArrayBuffer(8), memories: [] })).toThrow(
      /no SharedArrayBuffer/,
    );
    const foreign = new SharedArrayBuffer(1 << 16);
    expect(() => attach({ pagewright: 'handle', region: foreign, memories: [] })).toThrow(/magic/);
    expect(() => attach({ pagewright: 'handle', region: new SharedArrayBuffer(64), memories: [] })).toThrow(
      /too small/,
    );
    expect(adopted).toBeTypeOf('function');
  });
});
