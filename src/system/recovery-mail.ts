/**
 * Recovery mail: what the monitor asks the daemon to recover, served as messages come or at once.
 *
 * The daemon's loops may run for long in one turn of its event loop. What a dead thread holds, frames and pages among it,
 * may be just what they look for, so they serve the mail that has come meanwhile before they begin and between their rounds.
 */

import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import type { SlotIndex } from '../sync/index.ts';
import { isRecoverRequest } from './service-messages.ts';

/** The daemon's end of the monitor's port. */
export class RecoveryMail {
  readonly #port: MessagePort;
  readonly #recover: (slot: SlotIndex) => void;

  constructor(port: MessagePort, recover: (slot: SlotIndex) => void) {
    this.#port = port;
    this.#recover = recover;
    port.on('message', (message: unknown) => this.#serve(message));
  }

  /** Serves what has come and was not yet delivered, in its order. Returns messages. */
  serveNow(): number {
    let served = 0;
    for (let next = receiveMessageOnPort(this.#port); next !== undefined; next = receiveMessageOnPort(this.#port)) {
      this.#serve(next.message);
      served++;
    }
    return served;
  }

  #serve(message: unknown): void {
    if (isRecoverRequest(message)) this.#recover(message.recover);
  }
}
