/** Where anonymous pages come from when they are not in memory, and go to when memory is short. */

import { fail } from '../base/errors.ts';
import type { PageStore, VnodeIndex } from '../page/index.ts';
import type { Banks } from '../phys/index.ts';
import type { VnodeStore } from '../vnode/index.ts';
import type { SpaceCore } from './space-core.ts';

/** A store of pages by number: the swap. */
export interface SwapStore {
  /** Fills frames with pages of the store, one at a time. */
  read(page: number, frame: number): void;
  /** Takes pages; returns nothing. Throws when it cannot. */
  write(page: number, frame: number): void;
  /** A free page, noted for the anon; throws `ENOSPC`. */
  take(anon: number): number;
  /** Frees a page. */
  free(page: number): void;
}

/** The store of anonymous memory: zeros, or swap. */
export class AnonStore implements VnodeStore, PageStore {
  /** Set once there is swap. */
  swap: SwapStore | null = null;
  private readonly core: SpaceCore;
  private readonly banks: Banks;

  constructor(core: SpaceCore, banks: Banks) {
    this.core = core;
    this.banks = banks;
  }

  fill(_vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): number {
    const { anons } = this.core;
    const { pageSize } = this.banks;
    let bytes = 0;
    for (let page = 0; page < count; page++) {
      const frame = frames[at + page] as number;
      const swapped = anons.swap.get(index + page) - 1;
      if (swapped >= 0) {
        this.requireSwap('fill', index + page).read(swapped, frame);
        bytes += pageSize;
        continue;
      }
      const offset = this.banks.offsetOf(frame);
      (this.banks.views[this.banks.bankOf(frame)] as Uint8Array).fill(0, offset, offset + pageSize);
    }
    return bytes;
  }

  write(_vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): void {
    const swap = this.requireSwap('write', index);
    const { anons } = this.core;
    for (let page = 0; page < count; page++) {
      const anon = index + page;
      const known = anons.swap.get(anon) - 1;
      swap.write(known >= 0 ? known : swap.take(anon), frames[at + page] as number);
    }
  }

  sync(): void {}

  truncate(vnode: VnodeIndex): void {
    fail('EINVAL', 'truncate', { vnode }, 'anonymous memory has no size');
  }

  private requireSwap(call: string, anon: number): SwapStore {
    return this.swap ?? fail('ENOSPC', call, { anon }, 'there is no swap: add some with `vm.addSwap`');
  }
}
