/**
 * The monitor: a service worker that notices threads that have ended, and frees what others may be waiting for.
 *
 * PROBLEM     Locks and half-done work of a dead thread must be undone within milliseconds, also while the main thread is
 *             blocked, by code that no user can block.
 * STRUCTURE   A worker that runs nothing else and never waits for a lock:
 *
 *               port of a thread closes  ->  its slots are found by watch id  ->  releaseDead  ->  told to the daemon
 *               every beat               ->  heartbeat + 1; threads known by kernel thread id are looked for
 *
 * INVARIANTS  I1 nothing here blocks: a lock that the recovery of one thread waits for may belong to the next one that dies.
 * LOCKING     None.
 * COSTS       A beat every 100 ms. A death is seen after 0.2 to 3 ms through a port, within a beat otherwise.
 * FAILURE     If the monitor ends, sleepers find its heartbeat silent and stop with `EPOISONED`.
 * REJECTED    Recovery by whoever meets the dead owner: it would need the code of every room and may be a waiter itself.
 * REFERENCES  docs/locking.md, takeover; daemon.ts for what follows.
 */

import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import {
  add,
  findSlotsByWatch,
  load,
  poisonRegion,
  RECOVERING,
  releaseDead,
  type SlotIndex,
  UNWATCHED,
} from '../sync/index.ts';
import { attachService } from './boot.ts';
import { isWatchRequest, type MonitorData, type RecoverRequest } from './service-messages.ts';
import type { VirtualMemory } from './virtual-memory.ts';
import { kernelThreadStart } from './watch.ts';

const BEAT_MS = 100;

/** Ports whose closing means that a thread has ended. */
const watched = new Set<MessagePort>();

function watchPort(vm: VirtualMemory, watchId: number, port: MessagePort): void {
  watched.add(port);
  port.on('message', (message: unknown) => receive(vm, message));
  port.on('close', () => {
    watched.delete(port);
    for (const slot of findSlotsByWatch(vm.region, watchId)) release(vm, slot, watchId);
  });
}

function receive(vm: VirtualMemory, message: unknown): void {
  if (isWatchRequest(message)) watchPort(vm, message.watch, message.port);
}

function release(vm: VirtualMemory, slot: SlotIndex, watchId: number): void {
  try {
    if (releaseDead(vm.thread, slot, watchId) === null) return;
    const request: RecoverRequest = { recover: slot };
    data.daemon.postMessage(request);
  } catch (error) {
    poisonRegion(vm.region, `the monitor failed: ${error instanceof Error ? error.message : String(error)}`);
    throw error;
  }
}

function beat(vm: VirtualMemory): void {
  const { region } = vm;
  const { header, slot: slots } = region.tables;
  add(region.words, header.heartbeat.address(0), 1);
  for (let slot = 0; slot < slots.rowCount; slot++) {
    const claim = load(region.words, slots.claim.address(slot));
    if (claim >= 0 || claim === UNWATCHED || claim === RECOVERING) continue;
    const start = kernelThreadStart(-claim);
    const known = slots.threadStart.get(slot);
    if (start < 0 || (known !== 0 && start !== known)) release(vm, slot, claim);
  }
}

const data = workerData as MonitorData;
const vm = attachService(data);
parentPort?.on('message', (message: unknown) => receive(vm, message));
beat(vm);
setInterval(() => beat(vm), BEAT_MS);
