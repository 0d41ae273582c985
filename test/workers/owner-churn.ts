/** Turns to an owner that others make and remove, allocates for it, and turns away; also makes and removes owners itself. */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng } from 'pagewright/base';
import { add, load } from 'pagewright/sync';

const { seed, counts, stop } = workerData as { seed: number; counts: Int32Array; stop: Int32Array };
const vm = attach(workerData.vm);
const random = new Prng(seed, vm.attachment);
const arena = vm.arena('ids');
parentPort?.postMessage({ slot: vm.slot });

/** Counts what went well in lane 0 and 2, and what was refused in 1 and 3; other errors are errors. */
function attempt(lane: number, allowed: readonly string[], action: () => void): boolean {
  try {
    action();
    add(counts, lane, 1);
    return true;
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === undefined || !allowed.includes(code)) throw error;
    add(counts, lane + 1, 1);
    return false;
  }
}

while (load(stop, 0) === 0) {
  const name = `owner ${random.below(2)}`;
  const choice = random.below(10);
  if (choice < 3) {
    if (random.chance(0.5)) attempt(2, ['EEXIST', 'ENOMEM'], () => vm.createOwner(name, { arenaBytes: 30 }));
    else attempt(2, ['EBUSY', 'ENOENT'], () => vm.removeOwner(name));
  } else if (choice < 5) {
    attempt(2, ['ENOENT'], () => vm.setOwnerLimits(name, { arenaBytes: random.between(1, 60) }));
  } else if (attempt(0, ['ENOENT', 'EINVAL'], () => vm.chargeTo(name))) {
    // Whoever is charged stays: nobody removes it now.
    const before = vm.owner;
    const address = arena.tryAlloc(random.between(1, 20));
    const usage = vm.statistics().owners;
    if (!usage.some((owner) => owner.name === name))
      throw new Error(`${name} went under slot ${vm.slot}, seed ${seed}`);
    if (vm.owner !== before) throw new Error(`slot ${vm.slot} charges ${vm.owner}, not ${before}`);
    const mine = address < 0 ? undefined : arena.allocations(vm.attachment)[0];
    if (address >= 0 && mine === undefined) throw new Error('an allocation is not listed');
    if (mine !== undefined) arena.free(mine.address, mine.size);
    vm.chargeTo(0);
  }
}
vm.detach();
parentPort?.postMessage('done');
