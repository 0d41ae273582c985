/** Waits for one lock with a cancel token and says how the wait ended. */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { VmError } from 'pagewright/base';
import { type CancelHandle, CancelToken, Condition, Mutex, RANK, RwLock } from 'pagewright/sync';

const { kind, handle } = workerData as { kind: string; handle: CancelHandle };
const vm = attach(workerData.vm);
const { arena } = vm.region.tables;
// A row that no arena uses.
const row = arena.rowCount - 1;
const token = CancelToken.from(vm.region, handle);
const mutex = new Mutex(vm.thread, arena.lock.address(row), RANK.user);

function wait(): void {
  if (kind === 'mutex') {
    mutex.enterWithin(60_000, token);
  } else if (kind === 'condition') {
    const condition = new Condition(vm.thread, arena.space.address(row));
    mutex.enter();
    try {
      for (;;) condition.wait(mutex, undefined, token);
    } finally {
      mutex.exit();
    }
  } else {
    new RwLock(vm.thread, arena.space.address(row - 1), RANK.user).enterShared(undefined, token);
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
