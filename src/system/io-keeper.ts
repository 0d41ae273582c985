/**
 * The keeper of the I/O workers: starts each of them when it is first asked for something, and again when it has ended; more
 * of those for pages of asynchronous vnodes when all of them are busy, as many as far-turns.ts allows, and up to twice as many
 * when none of them has got on for a while although others could be served.
 *
 * It runs in the daemon, so that also a main thread that blocks gets its answers. When a worker ends, what was asked of it
 * fails with `EIO`, its slot is recovered, and the next request starts another one.
 */

import { Worker } from 'node:worker_threads';
import { claimSlot, newWatchId, sleepAsync } from '../sync/index.ts';
import { FarTurns, farWorkersMax, forgetLate, IO_ROLE } from '../vnode/index.ts';
import type { IoWorkerData } from './service-messages.ts';
import type { VirtualMemory } from './virtual-memory.ts';

const LOOK_MS = 1000;

/** When no request was begun or answered for so long, those that are under way may never be. */
const STUCK_MS = 1000;

/** What the workers are called. */
const NAMES = { remote: 'remote', pages: 'pages', farPages: 'far pages' } as const;

/** What a role's workers come from, and how many there are. */
interface Role {
  readonly vm: VirtualMemory;
  readonly name: keyof typeof IO_ROLE;
  readonly turns: FarTurns;
  workers: number;
  /** What was under way when it was last looked at, and since when. */
  underWay: string;
  since: number;
}

/** Keeps the workers; the promise settles when the system has ended. */
export async function keepIoWorkers(vm: VirtualMemory): Promise<void> {
  await Promise.all([keep(vm, 'remote'), keep(vm, 'pages'), keep(vm, 'farPages')]);
}

async function keep(vm: VirtualMemory, name: keyof typeof IO_ROLE): Promise<void> {
  const role: Role = { vm, name, turns: new FarTurns(vm.thread), workers: 0, underWay: '', since: 0 };
  for (;;) {
    const { address, rings } = vm.io.bell(IO_ROLE[name]);
    while (lacks(role) && start(role));
    await sleepAsync(vm.thread, address, rings, LOOK_MS);
  }
}

/** True when another worker would have something to do. */
function lacks(role: Role): boolean {
  const { vm, name, turns, workers } = role;
  if (workers === 0) return vm.io.isAsked(IO_ROLE[name]);
  if (name !== 'farPages') return false;
  const most = farWorkersMax(vm.region.geometry.slots) * (isStuck(role) ? 2 : 1);
  return workers < most && turns.wants(workers);
}

/** True when nothing was begun or answered for a while. */
function isStuck(role: Role): boolean {
  const { vm, turns } = role;
  const now = vm.thread.clock.now();
  const { underWay } = turns;
  if (underWay !== role.underWay) role.since = now;
  role.underWay = underWay;
  return underWay !== '' && now - role.since >= STUCK_MS;
}

/** Starts a worker; false when there can be no further one. */
function start(kept: Role): boolean {
  const { vm, name } = kept;
  const role = IO_ROLE[name];
  const { ioService } = vm.region.tables;
  let data: IoWorkerData;
  try {
    data = { handle: vm.handle(), slot: claimSlot(vm.region, newWatchId(vm.region)), role };
  } catch (error) {
    // Those that there are go on.
    if (kept.workers > 0) return false;
    vm.io.failAll(role, `the I/O worker cannot be started: ${error instanceof Error ? error.message : String(error)}`);
    return false;
  }
  const worker = new Worker(new URL('./io-worker.js', import.meta.url), {
    workerData: data,
    name: `pagewright-io-${name}`,
  });
  kept.workers++;
  ioService.worker.putAt(0, role, data.slot + 1);
  ioService.starts.putAt(0, role, ioService.starts.at(0, role) + 1);
  let reason = '';
  worker.on('error', (error) => {
    // The exit follows, and what was asked fails then.
    reason = error instanceof Error ? error.message : String(error);
  });
  worker.once('exit', (code) => {
    kept.workers--;
    if (kept.workers === 0) ioService.worker.putAt(0, role, 0);
    if (vm.poisoned !== null) return;
    kept.turns.release(data.slot);
    if (name === 'remote') forgetLate(vm.region);
    vm.recover(data.slot);
    const why = reason === '' ? `exit code ${code}` : reason;
    const server = kept.workers === 0 ? 0 : data.slot + 1;
    vm.io.failAll(role, `the ${NAMES[name]} I/O worker has ended: ${why}`, server);
  });
  return true;
}
