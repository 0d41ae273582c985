/**
 * Boot and attach: how a system comes to be, and how threads join it.
 *
 * `boot` makes the region and the banks, claims slots for the calling thread and the service workers, and starts those. It belongs on the
 * main thread: the service workers end with the thread that booted, and its end poisons the region.
 */

import { basename } from 'node:path';
import { MessageChannel, parentPort, type Transferable, Worker } from 'node:worker_threads';
import { VmError } from '../base/index.ts';
import { Region } from '../layout/index.ts';
import { Banks } from '../phys/banks.ts';
import { createPagelock, createSpaces } from '../seg/index.ts';
import { claimSlot, createOwner, newWatchId, poisonRegion, refusePoisoned, shutDownRegion } from '../sync/index.ts';
import { setIoKeeper } from '../vnode/index.ts';
import { createMappingCache } from '../vpm/index.ts';
import { claimForThread } from './claim.ts';
import { type Handle, unwrapHandle } from './handle.ts';
import { HEAP, heapOptions } from './heap.ts';
import { type BootOptions, type BootPlan, planBoot } from './options.ts';
import type { DaemonData, MonitorData, ServiceData } from './service-messages.ts';
import { VirtualMemory } from './virtual-memory.ts';
import { workerArguments } from './worker-arguments.ts';

const services = new WeakMap<VirtualMemory, Worker[]>();

/**
 * Makes a system and attaches the calling thread to it. Throws `EINVAL` for a bad option and `ENOMEM` when the memory
 * cannot be had. The service workers do not keep the process alive.
 *
 * ```ts
 * const vm = boot({ memory: '64 MiB' });
 * const arena = vm.createArena('ids', { base: 1, size: 1000 });
 * ```
 */
export function boot(options: BootOptions): VirtualMemory {
  const plan = planBoot(options);
  const { geometry } = plan;
  const region = Region.create(geometry, plan.settings);
  const banks = Banks.create(geometry.frames, geometry.bankFrames, geometry.pageSize);
  createOwner(region, 'default', plan.limits);
  region.tables.frameOrder.source.put(0, plan.frameOrder);
  region.tables.physSegments.bigFirst.put(0, plan.bigFirst ? 1 : 0);
  createPagelock(region, plan.pagelock);
  region.tables.policy.kind.put(0, plan.replacement);
  region.tables.pageClock.modifiedMax.put(0, plan.modifiedMax);
  createMappingCache(region, plan.mappingState);
  const { pmemPool } = region.tables;
  pmemPool.largeFrames.put(0, plan.pmem.largeFrames);
  pmemPool.reserveLimit.put(0, plan.pmem.reserveLimit);
  pmemPool.keepLarge.put(0, plan.pmem.keepLarge);
  pmemPool.seed.put(0, plan.pmem.seed ? 1 : 0);
  createSpaces(region);
  const slot = claimSlot(region, newWatchId(region));
  if (plan.services === 'manual') return begin(new VirtualMemory(region, banks, slot, null), plan);
  const handle: Handle = { pagewright: 'handle', region: region.buffer, memories: banks.memories };
  const { port1, port2 } = new MessageChannel();
  const monitorData: MonitorData = { handle, slot: claimSlot(region, newWatchId(region)), daemon: port1 };
  const daemonData: DaemonData = { handle, slot: claimSlot(region, newWatchId(region)), monitor: port2 };
  setIoKeeper(region, daemonData.slot);
  const monitor = startService(region, new URL('./monitor.js', import.meta.url), monitorData, port1);
  const daemon = startService(region, new URL('./daemon.js', import.meta.url), daemonData, port2);
  const vm = begin(new VirtualMemory(region, banks, slot, monitor), plan);
  const onExit = () => poisonRegion(region, 'the thread that booted the system has ended');
  process.once('exit', onExit);
  vm.onDetach(() => process.off('exit', onExit));
  services.set(vm, [monitor, daemon]);
  return vm;
}

/** Starts a service worker, whose end poisons the region. It does not keep the process alive. */
function startService(region: Region, url: URL, data: ServiceData, port: Transferable): Worker {
  const name = basename(url.pathname, '.js');
  const worker = new Worker(url, {
    workerData: data,
    transferList: [port],
    name: `pagewright-${name}`,
    execArgv: workerArguments(),
  });
  worker.unref();
  worker.once('error', (error) => poisonRegion(region, `the ${name} failed: ${error.message}`));
  worker.once('exit', () => poisonRegion(region, `the ${name} has ended`));
  return worker;
}

/** Brings the memory online and makes the heap. */
function begin(vm: VirtualMemory, plan: BootPlan): VirtualMemory {
  for (const segment of plan.segments) vm.frames.addSegment(segment);
  vm.frames.watermarks.set(plan.marks);
  vm.arenas.createForSystem(HEAP, heapOptions(plan.onlineFrames, plan.geometry.pageSize));
  return vm;
}

/**
 * Attaches the calling thread to a system. Takes what `vm.handle()` returned, `workerData.vm` of a spawned worker, or
 * the message that `vm.adopt` posted. Throws `EINVAL` for anything else and for a region of another version or build
 * flavour, `EPOISONED` for a region that has stopped, `ENOMEM` when all slots are taken.
 */
export function attach(given: unknown): VirtualMemory {
  const handle = unwrapHandle(given);
  const region = Region.attach(handle.region);
  refusePoisoned(region, 'attach');
  requireBanks(region, handle);
  const slot = claimForThread(region, handle.watch);
  return new VirtualMemory(region, banksOf(region, handle), slot, handle.watch?.port ?? null);
}

/** Waits for the message that `vm.adopt(thisWorker)` posts, and attaches. Other messages are left to other listeners. */
export function adopted(): Promise<VirtualMemory> {
  return new Promise((resolve, reject) => {
    const listener = (message: unknown) => {
      if (typeof message !== 'object' || message === null) return;
      if ((message as { pagewright?: unknown }).pagewright !== 'adopt') return;
      parentPort?.off('message', listener);
      try {
        resolve(attach(message));
      } catch (error) {
        reject(error);
      }
    };
    parentPort?.on('message', listener);
  });
}

/** Attaches the thread of a service worker to the slot that was claimed for it. */
export function attachService({ handle, slot }: ServiceData): VirtualMemory {
  const region = Region.attach(handle.region);
  return new VirtualMemory(region, banksOf(region, handle), slot, null);
}

/**
 * Ends a system: stops the service workers and poisons the region, so that threads that are still attached stop with
 * `EPOISONED`. Call it in the thread that booted, when the other threads have detached.
 */
export async function shutDown(vm: VirtualMemory): Promise<void> {
  vm.detach();
  const workers = services.get(vm) ?? [];
  services.delete(vm);
  shutDownRegion(vm.region);
  await Promise.all(workers.map((worker) => worker.terminate()));
}

/** Throws `EINVAL` unless the handle's memories are those of the region. */
function requireBanks(region: Region, handle: Handle): void {
  const { frames, bankFrames, pageSize } = region.geometry;
  const banks = Math.ceil(frames / bankFrames);
  const sizes = handle.memories.map((memory) => memory.buffer.byteLength);
  const fits = sizes.every(
    (sizeBytes, bank) => sizeBytes >= Math.min(bankFrames, frames - bank * bankFrames) * pageSize,
  );
  if (sizes.length === banks && fits) return;
  throw new VmError(
    'EINVAL',
    `attach: the handle holds ${sizes.length} memories, but not the ${banks} banks of its region`,
  );
}

function banksOf(region: Region, handle: Handle): Banks {
  const { frames, bankFrames, pageSize } = region.geometry;
  return new Banks(handle.memories, frames, bankFrames, pageSize);
}
