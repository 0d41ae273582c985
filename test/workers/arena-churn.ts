/**
 * Uses the same arenas as the other workers as fast as it can: plain and constrained allocations, imports and releases,
 * bursts that make the hash and the reserve grow and shrink, arenas that come and go. Each unit that it has is marked in a
 * table of cookies that all workers share: a unit with two owners is seen at once.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng } from 'pagewright/base';
import { add, compareExchange, load, store, wait } from 'pagewright/sync';
import type { Arena } from 'pagewright/vmem';

const { seed, cookies, stop, pace } = workerData as {
  seed: number;
  cookies: Int32Array;
  stop: Int32Array;
  /** Operations done by all workers, and how many they may do; without it as many as they can. */
  pace?: Int32Array;
};
const vm = attach(workerData.vm);
const random = new Prng(seed, vm.attachment);
const arenas = ['heap', 'plain', 'large', 'leaf'].map((name) => vm.arena(name));
const live: { arena: Arena; start: number; size: number }[] = [];
parentPort?.postMessage({ slot: vm.slot, attachment: vm.attachment });

function take(arena: Arena): void {
  const size = random.between(1, random.chance(0.05) ? 900 : 40);
  const start = random.chance(0.2)
    ? arena.tryXalloc(size, { align: 2 ** random.between(0, 8), min: random.below(20_000) })
    : arena.tryAlloc(size, random.chance(0.3) ? 'best' : 'instant');
  if (start < 0) return;
  for (let unit = start; unit < start + size; unit++) {
    const other = compareExchange(cookies, unit, 0, vm.slot + 1);
    if (other !== 0)
      throw new Error(`unit ${unit} belongs to slot ${other - 1} and was given to ${vm.slot}, seed ${seed}`);
  }
  live.push({ arena, start, size });
}

function give(index: number): void {
  const [{ arena, start, size }] = live.splice(index, 1) as [(typeof live)[0]];
  for (let unit = start; unit < start + size; unit++) {
    const owner = load(cookies, unit);
    if (owner !== vm.slot + 1) throw new Error(`unit ${unit} of slot ${vm.slot} has cookie ${owner}, seed ${seed}`);
    store(cookies, unit, 0);
  }
  arena.free(start, size);
}

function createAndDestroy(): void {
  const name = `short ${vm.attachment} ${random.next()}`;
  const arena = vm.createArena(name, { import: { from: arenas[0] as Arena } });
  const start = arena.tryAlloc(10);
  if (start >= 0) arena.free(start, 10);
  arena.destroy();
}

let operations = 0;
for (; load(stop, 0) === 0; operations++) {
  if (pace !== undefined && add(pace, 0, 1) >= load(pace, 1)) wait(pace, 1, load(pace, 1), 10);
  const most = (operations >>> 11) % 2 === 0 ? 30 : 350;
  if (live.length < most && random.chance(0.6)) take(random.pick(arenas));
  else if (live.length > 0) give(random.below(live.length));
  while (live.length > most + 50) give(live.length - 1);
  if (random.chance(0.01)) createAndDestroy();
  if (random.chance(0.01)) random.pick(arenas).trim();
  if (random.chance(0.002)) arenas[0]?.rehash(random.between(1, 2000));
}
while (live.length > 0) give(live.length - 1);
const contended = vm.region.tables.slot.contended.get(vm.slot);
vm.detach();
parentPort?.postMessage({ operations, contended });
