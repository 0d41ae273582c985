/** Claiming a slot for a thread that attaches. */

import type { Region } from '../layout/index.ts';
import { claimSlot, type SlotIndex, UNWATCHED } from '../sync/index.ts';
import type { Watch } from './handle.ts';
import { keepPort, kernelThreadId, kernelThreadStart } from './watch.ts';

/** Claims a slot for the calling thread. A thread without a port is claimed by its kernel thread id where possible. */
export function claimForThread(region: Region, watch: Watch | undefined): SlotIndex {
  const { slot: slots } = region.tables;
  if (watch !== undefined) {
    keepPort(watch.port);
    return claimSlot(region, watch.id);
  }
  const threadId = kernelThreadId();
  const slot = claimSlot(region, threadId > 0 ? -threadId : UNWATCHED);
  slots.threadId.put(slot, threadId);
  slots.threadStart.put(slot, threadId > 0 ? kernelThreadStart(threadId) : 0);
  return slot;
}
