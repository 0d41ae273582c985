/**
 * The daemon worker: gives back what dead threads owned, reaps the pagelock cache, and is the pagedaemon.
 *
 * PROBLEM     Recovering what a thread owned takes locks, which may take time and may belong to other threads that die just
 *             then. The monitor must stay free to notice those.
 * STRUCTURE   monitor: locks of the dead thread are free  ->  message  ->  recoverers of the rooms  ->  the slot is free
 *             once a second, and when kicked           ->  pagelock.reap
 *             an arena wants a span of a remote source ->  its import function, if it is in a module
 *             when frames are short                    ->  rounds of the pagedaemon, recoveries before each of them
 *             somebody asks for I/O that it cannot do ->  an I/O worker, see io-keeper.ts
 * INVARIANTS  I1 slots are recovered one after another, in the order in which their threads were found dead.
 * LOCKING     Has a slot of its own for what recoverers lock.
 * COSTS       What the rooms own; see their recoverers.
 * FAILURE     An error of a recoverer poisons the region and ends the daemon.
 * REJECTED    Doing it in the monitor: a lock of a second dead thread would never become free.
 * REFERENCES  sync/takeover.ts, steps 5 and 6.
 */

import { setImmediate as nextTurn, setTimeout as sleepMs } from 'node:timers/promises';
import { workerData } from 'node:worker_threads';
import { attachService } from './boot.ts';
import { keepIoWorkers } from './io-keeper.ts';
import { RecoveryMail } from './recovery-mail.ts';
import type { DaemonData } from './service-messages.ts';

/** How long the pagedaemon waits for a kick before it looks by itself. */
const KICK_WAIT_MS = 1000;

/** Longest pause after rounds that gained nothing. */
const PAUSE_MS_MAX = 500;

const data = workerData as DaemonData;
const vm = attachService(data);
const mail = new RecoveryMail(data.monitor, (slot) => vm.finishRecovery(slot));

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

/** The pagedaemon's loop: ends with the system. */
async function pageForEver(): Promise<void> {
  try {
    for (let pauseMs = 0; ; ) {
      if (pauseMs > 0) await sleepMs(pauseMs);
      else await vm.frames.watermarks.waitForKickAsync(KICK_WAIT_MS);
      for (;;) {
        // What a dead thread holds may be what is missing.
        mail.serveNow();
        const report = vm.pagedaemon.step();
        const gained = report !== null && report.freed + report.written > 0;
        const isDone = report !== null && report.missing <= 0;
        pauseMs = isDone || gained ? 0 : Math.min(PAUSE_MS_MAX, 2 * pauseMs + 1);
        await nextTurn();
        if (isDone || !gained) break;
      }
      vm.thread.checkPoison();
    }
  } catch (error) {
    if (vm.poisoned === null) throw error;
  }
}

/** Keeps the I/O workers. It ends with the system. */
async function keepIo(): Promise<void> {
  try {
    await keepIoWorkers(vm);
  } catch (error) {
    if (vm.poisoned === null) throw error;
  }
}

void keepIo();
void reapForEver();
void serveImports();
void pageForEver();
