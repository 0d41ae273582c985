/**
 * Chaos: workers that are terminated, at a labelled place or at any time, and what must be true afterwards.
 *
 * A worker program posts `{ slot }` when it is attached and under way. `parkAt` makes the next worker that passes a fault
 * point stop there for ever; `kill` terminates a worker and waits until its slot is recovered. Both poll, so that the main
 * thread's event loop goes on. Everything works through the region: no worker needs to help.
 *
 * A worker that throws fails its test: whoever waits with `until` or `nextMessage` hears of it at once, others when the test ends.
 */

import type { once } from 'node:events';
import type { Worker } from 'node:worker_threads';
import type { VirtualMemory } from 'pagewright';
import { armFault, disarmFault, type FaultOptions, type FaultPoint, load } from 'pagewright/sync';
import { afterEach } from 'vitest';
import { takeFailures, until, workerFailed } from './until.ts';

export { until } from './until.ts';

/** A worker and the slot that it has. */
export interface Victim {
  readonly worker: Worker;
  readonly slot: number;
}

afterEach(() => {
  const [failure] = takeFailures();
  if (failure !== undefined) throw failure;
});

/** Makes what a worker throws a failure of the test that runs. */
export function watch(worker: Worker): Worker {
  worker.on('error', (error) => workerFailed(error as Error));
  return worker;
}

/** What a worker posts next, in the form of `once`; rejects when it throws, or ends and has said nothing. */
export function nextMessage(worker: Worker): ReturnType<typeof once> {
  const answered = new Promise<unknown[]>((resolve, reject) => {
    worker.once('message', (message) => resolve([message]));
    worker.once('error', reject);
    worker.once('exit', (code) => reject(new Error(`a worker ended with code ${code} and has said nothing`)));
  });
  // Who has terminated the worker need not look.
  answered.catch(() => undefined);
  return answered;
}

/** Starts a worker and waits for its `{ slot }`, with what else it posts. Errors that it has before that reject here. */
export async function start<Said extends object = object>(
  vm: VirtualMemory,
  url: URL,
  workerData: Record<string, unknown>,
): Promise<Victim & Said> {
  const worker = watch(vm.spawn(url, { workerData }));
  const [message] = (await nextMessage(worker)) as [Said & { slot?: number }];
  if (typeof message.slot !== 'number') throw new Error(`chaos: the worker posted ${JSON.stringify(message)}, no slot`);
  return { ...message, worker, slot: message.slot };
}

/** Arms a fault point and waits until a worker is parked there; returns its slot. */
export async function parkAt(vm: VirtualMemory, point: FaultPoint, options: FaultOptions = {}): Promise<number> {
  const parked = vm.region.tables.header.faultParked.address(0);
  armFault(vm.region, point, 'park', options);
  try {
    await until(() => load(vm.region.words, parked) !== 0, `nobody came to ${point}`);
  } finally {
    disarmFault(vm.region);
  }
  return load(vm.region.words, parked) - 1;
}

/** Terminates a worker and waits until its slot is recovered. Returns the milliseconds that the recovery took. */
export async function kill(vm: VirtualMemory, victim: Victim): Promise<number> {
  const { claim, generation } = vm.region.tables.slot;
  const stay = load(vm.region.words, generation.address(victim.slot));
  const held = load(vm.region.words, claim.address(victim.slot));
  await victim.worker.terminate();
  const from = performance.now();
  const over = () =>
    load(vm.region.words, claim.address(victim.slot)) !== held ||
    load(vm.region.words, generation.address(victim.slot)) !== stay;
  const free = () => load(vm.region.words, generation.address(victim.slot)) !== stay;
  await until(over, `slot ${victim.slot} is not taken over`);
  await until(free, `slot ${victim.slot} is not recovered`);
  return performance.now() - from;
}

/** Parks one of the workers at a fault point, terminates it there, and waits for its recovery. Returns which one. */
export async function killAt(
  vm: VirtualMemory,
  point: FaultPoint,
  victims: readonly Victim[],
  options: FaultOptions = {},
): Promise<Victim> {
  const slot = await parkAt(vm, point, options);
  const victim = victims.find((candidate) => candidate.slot === slot);
  if (victim === undefined) throw new Error(`chaos: slot ${slot}, parked at ${point}, is none of the workers`);
  await kill(vm, victim);
  return victim;
}
