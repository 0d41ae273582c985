/** Pins a page of a space, says so, and releases it when the word is not 0 any more, or a while later. */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import type { AddressSpaceId } from 'pagewright/seg';
import { wait } from 'pagewright/sync';

const { space, address, stop, afterMs } = workerData as {
  space: AddressSpaceId;
  address: number;
  stop: Int32Array;
  afterMs: number;
};
const vm = attach(workerData.vm);
const pin = vm.addressSpace(space).pin(address, 4096, 'write');
(pin.views[0] as Uint8Array)[0] = 77;
parentPort?.postMessage({ slot: vm.slot });
// The other thread blocks: it cannot post messages meanwhile.
setImmediate(() => {
  wait(stop, 0, 0, afterMs);
  pin.release();
  vm.detach();
});
