/** Where anonymous pages come from when they are not in memory, and go to when memory is short. */

import { fail } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { PageStore, VnodeIndex } from '../page/index.ts';
import type { Banks } from '../phys/index.ts';
import { faultPoint } from '../sync/index.ts';
import type { VnodeStore } from '../vnode/index.ts';
import type { SpaceCore } from './space-core.ts';
import type { SwapFile } from './swap-file.ts';

/** The store of anonymous memory: zeros, or swap. */
export class AnonStore implements VnodeStore, PageStore {
  private readonly swap: SwapFile;
  private readonly core: SpaceCore;
  private readonly banks: Banks;

  constructor(core: SpaceCore, banks: Banks, swap: SwapFile) {
    this.core = core;
    this.banks = banks;
    this.swap = swap;
  }

  fill(_vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): number {
    const { anons } = this.core;
    const { pageSize } = this.banks;
    let bytes = 0;
    for (let page = 0; page < count; page++) {
      const frame = frames[at + page] as number;
      const swapped = anons.swap.get(index + page) - 1;
      if (swapped >= 0) {
        this.swap.read(swapped, frame);
        bytes += pageSize;
        continue;
      }
      const offset = this.banks.offsetOf(frame);
      (this.banks.views[this.banks.bankOf(frame)] as Uint8Array).fill(0, offset, offset + pageSize);
    }
    return bytes;
  }

  write(_vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): void {
    const { swap } = this;
    if (VERIFY && faultPoint(this.core.thread, 'seg.swap.writing')) {
      fail('EIO', 'swap.write', { anon: index }, 'injected');
    }
    for (let page = 0; page < count; page++) {
      swap.write(index + page, frames[at + page] as number);
    }
  }

  sync(): void {}

  truncate(vnode: VnodeIndex): void {
    fail('EINVAL', 'truncate', { vnode }, 'anonymous memory has no size');
  }
}
