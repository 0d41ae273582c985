/**
 * Watching threads: how the monitor learns that one has ended.
 *
 * PROBLEM     `terminate()` gives a thread no chance to say goodbye.
 * STRUCTURE   A message port that only the thread holds: when the thread ends in any way, its peer in the monitor closes.
 *             A thread that attached without a port is looked for under /proc/self/task (Linux). Elsewhere it is
 *             reported as unwatched.
 * INVARIANTS  I1 a port stays referenced while its thread lives, so that only the end of the thread closes it.
 * LOCKING     None; the claim of the slot carries the watch id.
 * COSTS       Nothing while nothing happens; looking at /proc costs some microseconds per thread and beat.
 * FAILURE     A thread id that was reused is told apart by its start time.
 * REJECTED    The `exit` event of the Worker object: it comes to the thread that made the worker, which may be blocked.
 * REFERENCES  proc(5), /proc/pid/task/tid/stat field 22.
 */

import { readFileSync, readlinkSync } from 'node:fs';
import type { MessagePort } from 'node:worker_threads';

/** Ports of this thread, kept from being collected: a collected port would look like a dead thread. */
const livePorts = new Set<MessagePort>();

/** Keeps a port open for as long as the thread lives, without holding its event loop. */
export function keepPort(port: MessagePort): void {
  livePorts.add(port);
  port.unref();
}

/** The kernel's number of the calling thread, or 0 where it cannot be found. */
export function kernelThreadId(): number {
  try {
    const id = Number(readlinkSync('/proc/thread-self').split('/').pop());
    return Number.isSafeInteger(id) ? id : 0;
  } catch {
    return 0;
  }
}

/** Start time of a thread of this process in clock ticks, or -1 when it does not exist. */
export function kernelThreadStart(threadId: number): number {
  try {
    const stat = readFileSync(`/proc/self/task/${threadId}/stat`, 'latin1');
    // Field 2 is a name in parentheses that may hold anything; fields 3 and on follow the last parenthesis.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return Number(fields[19]);
  } catch {
    return -1;
  }
}
