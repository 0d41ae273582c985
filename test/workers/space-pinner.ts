/** Pins a range of a space, says so, and releases it when it is told, or cancels a token. Ends with `end`. */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import type { AddressSpaceId, SpacePin } from 'pagewright/seg';
import { type CancelHandle, CancelToken } from 'pagewright/sync';

/** What the worker is given. */
export interface SpacePinnerData {
  readonly space: AddressSpaceId;
  readonly address: number;
  readonly length: number;
}

/** What it is told: after how many milliseconds to release, or to cancel. */
export type SpacePinnerOrder =
  | { readonly pin: true }
  | { readonly releaseAfter: number }
  | { readonly end: true }
  | CancelOrder;

/** A token, and when to cancel it. */
export interface CancelOrder {
  readonly cancel: CancelHandle;
  readonly after: number;
}

if (parentPort !== null && workerData?.space !== undefined) {
  const port = parentPort;
  const vm = attach(workerData.vm);
  const { space, address, length } = workerData as SpacePinnerData;
  const as = vm.addressSpace(space);
  let pin: SpacePin | null = null;
  port.on('message', (order: SpacePinnerOrder) => {
    if ('pin' in order) {
      pin = as.pin(address, length, 'write');
      port.postMessage('pinned');
    } else if ('releaseAfter' in order) {
      setTimeout(() => {
        pin?.release();
        pin = null;
      }, order.releaseAfter);
    } else if ('cancel' in order) {
      setTimeout(() => CancelToken.from(vm.region, order.cancel).cancel(), order.after);
    } else {
      pin?.release();
      vm.detach();
      port.close();
    }
  });
  port.postMessage({ slot: vm.slot });
}
