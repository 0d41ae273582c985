/** How often one thread has each vnode open. */

import { fail } from '../base/errors.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import type { Opens } from './vnode-kinds.ts';

/** Counts by vnode, of those that are open. */
export class OpenCounts extends Map<VnodeIndex, Opens> {
  /** Counts one more open. */
  count(vnode: VnodeIndex, writable: boolean): void {
    const opens = this.get(vnode) ?? { all: 0, writers: 0 };
    opens.all++;
    if (writable) opens.writers++;
    this.set(vnode, opens);
  }

  /** The counts of a vnode. Throws `ESTALE` when this thread does not have it open. */
  require(vnode: VnodeIndex, call: string): Opens {
    return this.get(vnode) ?? fail('ESTALE', call, { vnode }, 'this thread does not have the vnode open');
  }
}
