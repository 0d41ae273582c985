/** Vnodes without a store: their pages begin as zeros and stay in memory until the vnode goes. */

import { fail } from '../base/errors.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import type { Banks } from '../phys/banks.ts';
import { zeroFrames } from './frame-io.ts';
import type { VnodeStore } from './vnode-store.ts';

/** The store of memory vnodes. */
export class MemoryStore implements VnodeStore {
  readonly #banks: Banks;

  constructor(banks: Banks) {
    this.#banks = banks;
  }

  fill(_vnode: VnodeIndex, _index: number, frames: Int32Array, at: number, count: number): number {
    zeroFrames(this.#banks, frames, at, count, 0);
    return 0;
  }

  write(vnode: VnodeIndex, index: number): void {
    fail('ENOTSUP', 'vnodes.write', { vnode, index }, 'a memory vnode has nowhere to write its pages to');
  }

  sync(): void {
    // There is nothing that could be made durable.
  }

  truncate(): void {
    // What is behind the end are pages, and they are dropped.
  }
}
