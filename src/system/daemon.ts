/**
 * The daemon worker: gives back what dead threads owned, and reaps the pagelock cache.
 *
 * PROBLEM     Recovering what a thread owned takes locks, which may take time and may belong to other threads that die just
 *             then. The monitor must stay free to notice those.
 * STRUCTURE   monitor: locks of the dead thread are free  ->  message  ->  recoverers of the rooms  ->  the slot is free
 *             once a second, and when kicked           ->  pagelock.reap
 *             an arena wants a span of a remote source ->  its import function, if it is in a module
 * INVARIANTS  I1 slots are recovered one after another, in the order in which their threads were found dead.
 * LOCKING     Has a slot of its own for what recoverers lock.
 * COSTS       What the rooms own; see their recoverers.
 * FAILURE     An error of a recoverer poisons the region and ends the daemon.
 * REJECTED    Doing it in the monitor: a lock of a second dead thread would never become free.
 * REFERENCES  sync/takeover.ts, steps 5 and 6.
 */

import { workerData } from 'node:worker_threads';
import { attachService } from './boot.ts';
import { type DaemonData, isRecoverRequest } from './service-messages.ts';

const data = workerData as DaemonData;
const vm = attachService(data);
data.monitor.on('message', (message: unknown) => {
  if (isRecoverRequest(message)) vm.finishRecovery(message.recover);
});

/** The reaper's loop. It ends with the system, or at once when the cache is off. */
async function reapForEver(): Promise<void> {
  try {
    while (await vm.pagelock.reapWhenKickedAsync());
  } catch (error) {
    if (vm.poisoned === null) throw error;
  }
}

/** Runs import functions that return promises for threads that cannot. It ends with the system. */
async function serveImports(): Promise<void> {
  try {
    await vm.arenas.serveImports();
  } catch (error) {
    if (vm.poisoned === null) throw error;
  }
}

void reapForEver();
void serveImports();
