/** What boot writes down for address spaces, once. */

import { assert } from '../base/assert.ts';
import type { Region } from '../layout/region.ts';
import { VNODE_KIND } from '../vnode/index.ts';

/**
 * Sets the last vnode aside for anonymous memory, and the bit behind that of the last slot, in page locks and vnodes, for
 * shadow lists and mappings: no thread has it.
 */
export function createSpaces(region: Region): void {
  const { spaceControl, vnode, vnodePool } = region.tables;
  vnodePool.reserved.put(0, 1);
  vnode.kind.put(vnode.rowCount - 1, VNODE_KIND.anon);
  spaceControl.anonVnode.put(0, vnode.rowCount);
  const { slots, slotLanes } = region.geometry;
  assert(slots < 32 * slotLanes, 'seg/create-spaces: words of bits have one more than there are slots');
  spaceControl.lockSlot.put(0, slots + 1);
}
