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
    const { swap } = this.core.anons;
    let bytes = 0;
    for (let done = 0; done < count; ) {
      const page = swap.get(index + done) - 1;
      if (page < 0) {
        this.banks.zeroFrame(frames[at + done] as number);
        done++;
        continue;
      }
      let run = 1;
      while (done + run < count && swap.get(index + done + run) - 1 === page + run) run++;
      this.swap.read(page, frames, at + done, run);
      bytes += run * this.banks.pageSize;
      done += run;
    }
    return bytes;
  }

  write(_vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): void {
    if (VERIFY && faultPoint(this.core.thread, 'seg.swap.writing')) {
      fail('EIO', 'swap.write', { anon: index }, 'injected');
    }
    this.swap.write(index, frames, at, count);
  }

  sync(): void {}

  truncate(vnode: VnodeIndex): void {
    fail('EINVAL', 'truncate', { vnode }, 'anonymous memory has no size');
  }
}
