/**
 * Stores that only an event loop can serve, as other threads see them: every call goes to the remote I/O worker.
 *
 * The thread that fills a page holds its frame and waits; the worker brings the bytes into private memory and copies them
 * into the frame in one go, unless the thread has ended meanwhile. So all who want the page wait for one request.
 */

import { fail } from '../base/errors.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import { IO_OPERATION, IO_ROLE, type IoRequests, sizeWords } from './io-requests.ts';
import type { VnodeStore } from './vnode-store.ts';

/** The store of vnodes behind the remote worker. */
export class AsyncStore implements VnodeStore {
  readonly #requests: IoRequests;
  readonly #writable: boolean;

  constructor(requests: IoRequests, writable: boolean) {
    this.#requests = requests;
    this.#writable = writable;
  }

  fill(vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): number {
    const question = { role: IO_ROLE.remote, operation: IO_OPERATION.fill, vnode, first: index, count };
    return this.#requests.ask(question, frames, at)[0] as number;
  }

  write(vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): void {
    if (!this.#writable) fail('ENOTSUP', 'vnodes.write', { vnode }, 'this kind of vnode cannot be written');
    const question = { role: IO_ROLE.remote, operation: IO_OPERATION.write, vnode, first: index, count };
    this.#requests.ask(question, frames, at);
  }

  sync(vnode: VnodeIndex, dataOnly: boolean): void {
    if (!this.#writable) return;
    const count = dataOnly ? 1 : 0;
    this.#requests.ask({ role: IO_ROLE.remote, operation: IO_OPERATION.storeSync, vnode, first: 0, count });
  }

  truncate(vnode: VnodeIndex, size: number): void {
    if (!this.#writable) fail('ENOTSUP', 'vnodes.truncate', { vnode, size }, 'this kind of vnode has a fixed size');
    const question = { role: IO_ROLE.remote, operation: IO_OPERATION.storeTruncate, vnode };
    this.#requests.ask({ ...question, ...sizeWords(size) });
  }
}
