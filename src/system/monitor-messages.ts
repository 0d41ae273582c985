/** Messages between threads and the monitor. */

import type { MessagePort } from 'node:worker_threads';
import type { Handle } from './handle.ts';

/** What the monitor is started with. */
export interface MonitorData {
  readonly handle: Handle;
  /** Watch id of the monitor's own slot. */
  readonly watchId: number;
}

/** Asks the monitor to watch a thread through the peer of its port. */
export interface WatchRequest {
  readonly watch: number;
  readonly port: MessagePort;
}

/** True for a `WatchRequest`. */
export function isWatchRequest(message: unknown): message is WatchRequest {
  return typeof message === 'object' && message !== null && typeof (message as WatchRequest).watch === 'number';
}
