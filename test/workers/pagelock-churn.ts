/**
 * Pins and releases random ranges as fast as it can, and looks whether what it has pinned is still there. Now and then it
 * purges, reaps, and disables the cache.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng } from 'pagewright/base';
import { PIN } from 'pagewright/seg';
import { load } from 'pagewright/sync';
import { newShadow, SHADOW, stateOf, tallyDriver } from '../support/tally.ts';

const { seed, tally, stop, owners, disables } = workerData as {
  seed: number;
  tally: Int32Array;
  stop: Int32Array;
  owners: number[];
  disables: boolean;
};
const PAGE = 4096;
const PINS_MAX = 48;
const SPACE_PAGES = 128;

const vm = attach(workerData.vm);
vm.callbacks.register('tally', tallyDriver(tally));
const cache = vm.pagelock;
const random = new Prng(seed, vm.attachment);
const pins: number[] = [];
parentPort?.postMessage({ slot: vm.slot });

function requireLive(pin: number, where: string): void {
  const shadow = cache.shadowOf(pin);
  const state = stateOf(tally, shadow);
  if (state !== SHADOW.live) throw new Error(`${where}: pinned shadow list ${shadow} has state ${state}, seed ${seed}`);
}

function take(): void {
  const owner = random.pick(owners);
  const address = random.below(SPACE_PAGES) * PAGE;
  const length = random.between(1, 8) * PAGE;
  const flags = (random.chance(0.3) ? PIN.write : PIN.read) | (random.chance(0.1) ? PIN.wired : 0);
  let pin = cache.lookup(owner, address, length, flags);
  if (pin < 0 && cache.insertCheck(length, flags)) {
    const shadow = newShadow(tally);
    pin = cache.insert(owner, address, length, shadow, flags);
    if (pin < 0) cache.inactive(owner, address, length, pin, shadow, flags);
  }
  if (pin < 0) return;
  requireLive(pin, 'pinned');
  pins.push(pin);
}

function give(): void {
  const at = random.below(pins.length);
  const pin = pins[at] as number;
  pins[at] = pins[pins.length - 1] as number;
  pins.pop();
  requireLive(pin, 'released');
  cache.release(pin);
}

let operations = 0;
while (load(stop, 0) === 0) {
  const action = random.below(1000);
  if (action < 480 && pins.length < PINS_MAX) take();
  else if (action < 980 && pins.length > 0) give();
  else if (action < 988) cache.purge(random.pick(owners));
  else if (action < 996) cache.reap();
  else if (action === 996 && disables && random.chance(0.1)) {
    cache.disable(2);
    cache.enable();
  }
  operations++;
}
for (const pin of pins) cache.release(pin);
const contended = vm.region.tables.slot.contended.get(vm.slot);
vm.detach();
parentPort?.postMessage({ operations, contended });
