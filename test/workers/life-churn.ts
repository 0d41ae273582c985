/** Allocates, resizes, merges and frees in an arena that charges and is recorded, and in one with a quarantine; marks its units. */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng } from 'pagewright/base';
import { add, compareExchange, load, store, wait } from 'pagewright/sync';
import type { Arena } from 'pagewright/vmem';

const { seed, cookies, stop, pace } = workerData as {
  seed: number;
  cookies: Int32Array;
  stop: Int32Array;
  /** Operations done by all workers, and how many they may do. */
  pace: Int32Array;
};
const vm = attach(workerData.vm);
const random = new Prng(seed, vm.attachment);
const arenas = [vm.arena('life'), vm.arena('slow')];
const live: [number, number, Arena][] = [];
parentPort?.postMessage({ slot: vm.slot });

function mark(start: number, end: number): void {
  for (let unit = start; unit < end; unit++) {
    const other = compareExchange(cookies, unit, 0, vm.slot + 1);
    if (other !== 0) throw new Error(`unit ${unit} of slot ${other - 1} was given to ${vm.slot}, seed ${seed}`);
  }
}

function clear(start: number, end: number): void {
  for (let unit = start; unit < end; unit++) {
    if (load(cookies, unit) !== vm.slot + 1) throw new Error(`unit ${unit} of slot ${vm.slot} was lost, seed ${seed}`);
    store(cookies, unit, 0);
  }
}

function quietly(refusable: () => void): void {
  try {
    refusable();
  } catch (error) {
    if ((error as { code?: string }).code === undefined) throw error;
  }
}

function resize(entry: [number, number, Arena]): void {
  const [start, size, arena] = entry;
  const wanted = random.between(1, 60);
  // Shrinking gives units to others at once: they are cleared before.
  if (wanted < size) clear(start + wanted, start + size);
  const done = arena.tryResize(start, size, wanted);
  if (done && wanted > size) mark(start + size, start + wanted);
  else if (!done && wanted < size) mark(start + wanted, start + size);
  if (done) entry[1] = wanted;
}

while (load(stop, 0) === 0) {
  if (add(pace, 0, 1) >= load(pace, 1)) wait(pace, 1, load(pace, 1), 10);
  const arena = random.pick(arenas);
  if (live.length < 40 && random.chance(0.5)) {
    const size = random.between(1, 40);
    const start = arena.tryAlloc(size);
    if (start < 0) continue;
    mark(start, start + size);
    live.push([start, size, arena]);
  } else if (live.length > 0 && random.chance(0.5)) {
    resize(random.pick(live));
  } else if (live.length > 0) {
    const [[start, size, owner]] = live.splice(random.below(live.length), 1) as [[number, number, Arena]];
    clear(start, start + size);
    owner.free(start, size);
  }
  // Two pieces that touch come, become one, and go: unless another worker has allocations there, or did the same.
  if (random.chance(0.03)) {
    const piece = 9216 + 24 * random.below(200);
    quietly(() => arenas[0]?.add(piece, 8));
    quietly(() => arenas[0]?.add(piece + 8, 8));
    arenas[0]?.mergeSpans();
    quietly(() => arenas[0]?.remove(piece));
  }
}
for (const [start, size, arena] of live) {
  clear(start, start + size);
  arena.free(start, size);
}
vm.detach();
parentPort?.postMessage({ done: true });
