/**
 * Fault points: named places in the code where a checked build can be made to fail or to stop.
 *
 * A test arms one point in the region's header. The thread that passes it then either parks there for ever, to be
 * terminated by the test, or is told to behave as if the operation at that place had failed. Release builds contain no
 * trace of the calls, which stand behind `if (VERIFY)`.
 */

import { failMisuse } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { Region } from '../layout/region.ts';
import { add, compareExchange, load, notify, store, wait } from './atomics.ts';
import type { Thread } from './thread.ts';

/** Every fault point: `room.operation.place`. The position in this list is its number. */
export const FAULT_POINTS = [
  'sync.mutex.recorded',
  'sync.mutex.taken',
  'sync.mutex.woken',
  'sync.mutex.released',
  'sync.condition.announced',
  'sync.condition.released',
  'sync.condition.woken',
  'sync.rwlock.shared',
  'sync.rwlock.sharedReleased',
  'sync.rwlock.owner',
  'sync.rwlock.exclusive',
  'sync.rwlock.downgraded',
  'vmem.alloc.locked',
  'vmem.alloc.carved',
  'vmem.alloc.busy',
  'vmem.alloc.committed',
  'vmem.free.locked',
  'vmem.free.coalesced',
  'vmem.free.released',
  'vmem.free.committed',
  'vmem.import.start',
  'vmem.import.received',
  'vmem.import.recorded',
  'vmem.add.linked',
  'vmem.rehash.step',
  'vmem.tags.refill',
  'vmem.tags.trim',
  'vmem.create.claimed',
  'vmem.destroy.started',
  'page.fill.claimed',
  'page.fill.reading',
  'page.fill.read',
  'page.evict.claimed',
  'page.evict.unhashed',
  'page.hit.held',
  'vnode.open.inserted',
  'vpm.map.partial',
  'vpm.map.mapped',
  'phys.run.partial',
  'phys.run.marked',
  'phys.list.taken',
  'phys.list.partial',
  'phys.list.marked',
  'phys.list.given',
  'phys.list.waiting',
  'phys.cache.taken',
  'phys.cache.filled',
  'phys.cache.put',
  'phys.cache.returned',
  'pmem.alloc.pooled',
  'pmem.alloc.large',
  'pmem.alloc.small',
  'pmem.alloc.gathered',
  'pmem.free.closing',
  'pmem.free.partial',
  'pmem.free.returning',
  'page.drop.unhashed',
  'vnode.read.short',
  'vnode.read.error',
  'vnode.recycle.dropped',
  'seg.insertCheck.refuse',
  'seg.insert.refuse',
  'seg.insert.charged',
  'seg.insert.linked',
  'seg.insert.committed',
  'seg.lookup.counted',
  'seg.release.counted',
  'seg.unlink.unchained',
  'seg.unlink.pending',
  'seg.reclaim.called',
  'seg.reclaim.dropped',
  'seg.reap.walking',
  'seg.merge.joined',
  'seg.disable.waiting',
  'page.modify.listed',
  'page.write.claimed',
  'page.write.refuse',
  'page.write.stored',
  'page.write.finished',
  'page.create.filled',
  'vmem.resize.changed',
  'vmem.split.linked',
  'vmem.asyncImport.wanted',
  'vmem.asyncImport.claimed',
  'vmem.asyncImport.answered',
  'vmem.asyncImport.finished',
  'vmem.merge.linked',
  'vmem.quarantine.entered',
  'vmem.charge.pledged',
  'vmem.charge.dropped',
  'vmem.record.written',
  'page.relocate.copied',
  'page.relocate.moved',
  'page.cache.listed',
  'page.cache.unlisted',
  'vnode.write.error',
  'vnode.write.full',
  'vnode.write.short',
  'vnode.sync.error',
  'vnode.truncate.error',
  'vnode.truncate.sized',
  'vnode.truncate.stored',
  'vnode.truncate.dropped',
  'vnode.extend.bounded',
  'vpm.write.filled',
  'vpm.write.copied',
  'vpm.cache.named',
  'vpm.cache.taken',
  'vpm.cache.contend',
  'vpm.cache.steal',
  'vpm.cache.created',
  'vpm.cache.unlisted',
  'vpm.cache.mapped',
  'vpm.cache.writing',
  'phys.compact.moved',
  'phys.removal.taken',
  'phys.removal.leaving',
  'phys.removal.cancelling',
  'pmem.move.claimed',
  'pmem.move.copied',
  'pmem.move.giving',
  'pmem.move.done',
  'vnode.io.serving',
  'seg.space.changed',
  'seg.space.linked',
  'seg.space.cut',
  'seg.driver.told',
  'seg.fork.sharing',
  'seg.fork.copied',
  'seg.anon.made',
  'seg.anon.spared',
  'seg.anon.stored',
  'seg.anon.dropping',
  'seg.write.entered',
  'seg.pin.locking',
  'seg.pin.locked',
  'seg.pin.cached',
  'seg.swap.writing',
  'seg.space.freed',
  'seg.device.made',
  'sync.locks.created',
  'sync.locks.removing',
  'sync.locks.waiting',
  'sync.locks.taken',
  'sync.locks.inside',
  'vmem.depot.full',
  'vmem.depot.empty',
  'vmem.depot.filled',
  'vmem.magazine.previous',
  'vmem.magazine.parked',
  'vmem.magazine.emptying',
  'vmem.magazine.drained',
  'vmem.depot.drained',
  'vmem.magazine.fresh',
  'vmem.magazine.given',
  'vmem.slab.added',
  'vmem.slab.removed',
  'vmem.magazine.popping',
  'vmem.magazine.pushing',
  'vmem.magazine.pushed',
  'vmem.slab.taken',
  'vmem.slab.returning',
  'vmem.queue.joining',
  'vmem.queue.joined',
  'vmem.queue.leaving',
  'vmem.queue.left',
  'vmem.queue.announcing',
  'vmem.queue.passing',
  'vmem.queue.telling',
  'vmem.queue.misfit',
  'vmem.queue.woken',
  'vmem.queue.cancelled',
  'vmem.tagArena.grow',
  'vmem.tagArena.carved',
  'vmem.tagArena.grown',
  'vmem.tagArena.shrink',
  'vmem.tagArena.closed',
] as const;

/** Name of one fault point. */
export type FaultPoint = (typeof FAULT_POINTS)[number];

/** What happens at an armed point. */
export const FAULT_ACTION = {
  /** The thread stops there for ever. */
  park: 1,
  /** `faultPoint` returns true once, and the caller fails. */
  fail: 2,
  /** Like `fail`, every time until disarmed. */
  failAlways: 3,
} as const;

/** Which passes an armed point lets through, and who is meant. */
export interface FaultOptions {
  /** Passes to let through first. */
  readonly skip?: number;
  /** Only this slot. */
  readonly slot?: number;
}

/** True when the caller must behave as if its operation had failed. Does not return where it parks. */
export function faultPoint(thread: Thread, point: FaultPoint): boolean {
  if (!VERIFY) return false;
  const { header } = thread.region.tables;
  const { words } = thread;
  const armed = load(words, header.faultArmed.address(0));
  if (armed === 0 || FAULT_POINTS[armed - 1] !== point) return false;
  const slot = load(words, header.faultSlot.address(0));
  if (slot !== 0 && slot !== thread.tag) return false;
  if (add(words, header.faultSkip.address(0), -1) > 0) return false;
  const action = load(words, header.faultAction.address(0));
  // Disarms by compare-and-swap: of several threads that arrive together only one is meant.
  if (action !== FAULT_ACTION.failAlways) {
    if (compareExchange(words, header.faultArmed.address(0), armed, 0) !== armed) return false;
  }
  add(words, header.faultHits.address(0), 1);
  if (action !== FAULT_ACTION.park) return true;
  const parked = header.faultParked.address(0);
  store(words, parked, thread.tag);
  notify(words, parked, Number.POSITIVE_INFINITY);
  for (;;) wait(words, parked, thread.tag, Number.POSITIVE_INFINITY);
}

/** Arms a point; see `FAULT_ACTION`. Verify builds only: throws `EINVAL` in a release build or for an unknown point. */
export function armFault(
  region: Region,
  point: FaultPoint,
  action: keyof typeof FAULT_ACTION,
  options: FaultOptions = {},
): void {
  const number = FAULT_POINTS.indexOf(point);
  if (number < 0) failMisuse('armFault', { point }, `known points: ${FAULT_POINTS.join(', ')}`);
  if (!VERIFY) failMisuse('armFault', { point }, 'fault points exist in verify builds only (node --conditions=verify)');
  const { header } = region.tables;
  const { words } = region;
  store(words, header.faultArmed.address(0), 0);
  store(words, header.faultHits.address(0), 0);
  store(words, header.faultParked.address(0), 0);
  store(words, header.faultSkip.address(0), options.skip ?? 0);
  store(words, header.faultSlot.address(0), options.slot === undefined ? 0 : options.slot + 1);
  store(words, header.faultAction.address(0), FAULT_ACTION[action]);
  store(words, header.faultArmed.address(0), number + 1);
}

/** Disarms whatever is armed; returns how often it fired. */
export function disarmFault(region: Region): number {
  const { header } = region.tables;
  store(region.words, header.faultArmed.address(0), 0);
  return load(region.words, header.faultHits.address(0));
}

/** The slot that is parked at the armed point, or -1; waits up to `timeoutMs` for one to arrive. */
export function waitForParked(region: Region, timeoutMs: number): number {
  const parked = region.tables.header.faultParked.address(0);
  if (load(region.words, parked) === 0) wait(region.words, parked, 0, timeoutMs);
  return load(region.words, parked) - 1;
}
