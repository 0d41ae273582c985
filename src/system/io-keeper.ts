/**
 * The keeper of the I/O workers: starts each of them when it is first asked for something, and again when it has ended.
 *
 * It runs in the daemon, so that also a main thread that blocks gets its answers. When a worker ends, what was asked of it
 * fails with `EIO`, its slot is recovered, and the next request starts another one.
 */

import { Worker } from 'node:worker_threads';
import { claimSlot, newWatchId, sleepAsync } from '../sync/index.ts';
import { IO_ROLE } from '../vnode/index.ts';
import type { IoWorkerData } from './service-messages.ts';
import type { VirtualMemory } from './virtual-memory.ts';

const LOOK_MS = 1000;

/** What the workers are called. */
const NAMES = { remote: 'remote', pages: 'pages', farPages: 'far pages' } as const;

/** Keeps the workers; the promise settles when the system has ended. */
export async function keepIoWorkers(vm: VirtualMemory): Promise<void> {
  await Promise.all([keep(vm, 'remote'), keep(vm, 'pages'), keep(vm, 'farPages')]);
}

async function keep(vm: VirtualMemory, name: keyof typeof IO_ROLE): Promise<void> {
  const role = IO_ROLE[name];
  let isRunning = false;
  for (;;) {
    const { address, rings } = vm.io.bell(role);
    if (!isRunning && vm.io.isAsked(role)) {
      isRunning = true;
      start(vm, name, () => {
        isRunning = false;
      });
    }
    await sleepAsync(vm.thread, address, rings, LOOK_MS);
  }
}

function start(vm: VirtualMemory, name: keyof typeof IO_ROLE, onEnd: () => void): void {
  const role = IO_ROLE[name];
  const { ioService } = vm.region.tables;
  let data: IoWorkerData;
  try {
    data = { handle: vm.handle(), slot: claimSlot(vm.region, newWatchId(vm.region)), role };
  } catch (error) {
    vm.io.failAll(role, `the I/O worker cannot be started: ${error instanceof Error ? error.message : String(error)}`);
    onEnd();
    return;
  }
  const worker = new Worker(new URL('./io-worker.js', import.meta.url), {
    workerData: data,
    name: `pagewright-io-${name}`,
  });
  ioService.worker.putAt(0, role, data.slot + 1);
  ioService.starts.putAt(0, role, ioService.starts.at(0, role) + 1);
  let reason = '';
  worker.on('error', (error) => {
    // The exit follows, and what was asked fails then.
    reason = error instanceof Error ? error.message : String(error);
  });
  worker.once('exit', (code) => {
    ioService.worker.putAt(0, role, 0);
    if (vm.poisoned === null) {
      vm.recover(data.slot);
      const why = reason === '' ? `exit code ${code}` : reason;
      vm.io.failAll(role, `the ${NAMES[name]} I/O worker has ended: ${why}`);
    }
    onEnd();
  });
}
