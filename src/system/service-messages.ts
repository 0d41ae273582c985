/** What service workers are started with, and the messages between threads, the monitor and the daemon. */

import type { MessagePort } from 'node:worker_threads';
import type { SlotIndex } from '../sync/index.ts';
import type { Handle } from './handle.ts';

/** What every service worker is started with. */
export interface ServiceData {
  readonly handle: Handle;
  /** The worker's slot, claimed by the thread that booted. */
  readonly slot: SlotIndex;
}

/** What the monitor is started with. */
export interface MonitorData extends ServiceData {
  /** Where to post a `RecoverRequest`. */
  readonly daemon: MessagePort;
}

/** What the daemon is started with. */
export interface DaemonData extends ServiceData {
  /** Where `RecoverRequest`s come from. */
  readonly monitor: MessagePort;
}

/** What an I/O worker is started with. */
export interface IoWorkerData extends ServiceData {
  /** A value of `IO_ROLE`. */
  readonly role: number;
}

/** Asks the monitor to watch a thread through the peer of its port. */
export interface WatchRequest {
  readonly watch: number;
  readonly port: MessagePort;
}

/** Asks the daemon to give back what a slot owned whose locks are free already. */
export interface RecoverRequest {
  readonly recover: number;
}

/** True for a `WatchRequest`. */
export function isWatchRequest(message: unknown): message is WatchRequest {
  return typeof message === 'object' && message !== null && typeof (message as WatchRequest).watch === 'number';
}

/** True for a `RecoverRequest`. */
export function isRecoverRequest(message: unknown): message is RecoverRequest {
  return typeof message === 'object' && message !== null && typeof (message as RecoverRequest).recover === 'number';
}
