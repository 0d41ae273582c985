/** Uses an owner in every way that looks whether there is one, while others try to remove it in vain. */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { add, load } from 'pagewright/sync';

const { rounds, stop } = workerData as { rounds: Int32Array; stop: Int32Array };
const vm = attach(workerData.vm);
const as = vm.addressSpace({});
as.map({ size: 3 * 4096 });
parentPort?.postMessage({ slot: vm.slot });

for (let round = 0; load(stop, 0) === 0; round++) {
  vm.frames.reserveFor('busy', 1 + (round % 3));
  if (!vm.frames.core.reservations.list().some(({ name }) => name === 'busy'))
    throw new Error('no reservation is listed');
  vm.chargeTo('busy');
  const { owner } = vm;
  as.changeOwner(owner);
  const before = vm.statistics().owners[owner]?.resources.frames.used as number;
  const list = vm.pageLists.alloc({ size: 2 * 4096 });
  const cookie = vm.pmem.alloc({ size: 4096 });
  const used = vm.statistics().owners[owner]?.resources.frames.used as number;
  if (used !== before + 3) throw new Error(`${used - before} frames are charged, not 3`);
  vm.pmem.free(cookie);
  vm.pageLists.free(list);
  vm.chargeTo(0);
  as.changeOwner(0);
  add(rounds, 0, 1);
}
as.destroy();
vm.detach();
parentPort?.postMessage('done');
