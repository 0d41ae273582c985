/**
 * Who has what: the allocations of an arena by the thread that made them.
 *
 * A thread that ends keeps its allocations, because others may be using them. Whoever knows that they are not can list
 * and free them by the attachment that they bear.
 */

import { fail } from '../base/index.ts';
import { type Attachment, isAttached } from '../sync/index.ts';
import type { Arena } from './arena.ts';
import type { ArenaCore } from './arena-core.ts';
import { requireAttachment } from './arguments.ts';
import { takeSnapshot } from './snapshot.ts';

/** One live allocation. */
export interface Allocation {
  readonly address: number;
  /** Size rounded up to the quantum, or to the object size of the cache that it came from. */
  readonly size: number;
  readonly attachment: Attachment;
  /** Whether it came from a quantum cache. */
  readonly cached: boolean;
}

/** Live allocations, of one attachment or of all. Linear in the number of tags and cached objects. */
export function listAllocations(core: ArenaCore, attachment?: Attachment): Allocation[] {
  const list: Allocation[] = [];
  for (const { start, size, attachment: owner } of takeSnapshot(core).segments) {
    if (owner === 0 || (attachment !== undefined && owner !== attachment)) continue;
    list.push({ address: start, size, attachment: owner, cached: false });
  }
  core.caches?.forEachAllocated((address, size, owner) => {
    if (attachment === undefined || owner === attachment) list.push({ address, size, attachment: owner, cached: true });
  });
  return list;
}

/** Frees what an attachment that has ended still has. Returns how many allocations that were. */
export function freeAllocationsOf(arena: Arena, core: ArenaCore, attachment: Attachment): number {
  requireAttachment(core, 'arena.freeOf', attachment);
  if (isAttached(core.thread.region, attachment)) {
    fail('EBUSY', 'arena.freeOf', { arena: core.name, attachment }, 'that thread is still attached');
  }
  const list = listAllocations(core, attachment);
  for (const { address, size, cached } of list) {
    if (cached) arena.free(address, size);
    else arena.xfree(address, size);
  }
  return list.length;
}
