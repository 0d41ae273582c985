/** Waits for one lock with a cancel token and says how the wait ended. */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { VmError } from 'pagewright/base';
import type { CancelHandle } from 'pagewright/sync';

const { kind, handle } = workerData as { kind: string; handle: CancelHandle };
const vm = attach(workerData.vm);
const token = vm.locks.cancelToken(handle);
const mutex = vm.locks.mutex('mutex');

function wait(): void {
  if (kind === 'mutex') {
    mutex.enterWithin(60_000, token);
  } else if (kind === 'condition') {
    const condition = vm.locks.condition('condition');
    mutex.enter();
    try {
      for (;;) condition.wait(mutex, undefined, token);
    } finally {
      mutex.exit();
    }
  } else {
    vm.locks.rwlock('rwlock').enterShared(undefined, token);
  }
}

parentPort?.postMessage({ slot: vm.slot });
let ended = 'entered';
try {
  wait();
} catch (error) {
  ended = error instanceof VmError ? error.code : String(error);
}
parentPort?.postMessage({ ended, heldCount: vm.thread.heldCount });
