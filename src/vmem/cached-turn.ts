/**
 * Cached sizes while requests wait for space in their arena.
 *
 * What magazines serve, no queue sees. So while somebody waits, objects are taken from slabs one by one, magazines are
 * emptied, those of other threads by the waiter, and the last object of a cache is kept for those who wait for one as the last
 * place of a plain size is (space-queue.ts I3).
 */

import { allocate } from './allocate.ts';
import type { ArenaCore } from './arena-core.ts';
import { NO_IMPORTER } from './carve.ts';
import type { QuantumCaches } from './quantum-caches.ts';
import { announceSpace, NO_WAITER, passWaiters, type WaiterIndex, waitersOf } from './space-queue.ts';

/** True when somebody waits for space in the arena: its magazines must not serve requests. One load when nobody waits. */
export function isWaitedFor(core: ArenaCore): boolean {
  return core.words[core.waitersAt] !== 0 && waitersOf(core) !== 0;
}

/**
 * Allocates a cached size (a multiple of the quantum) while somebody waits; `row` as for `allocate`. Returns the address
 * or -1. Called without a lock.
 */
export function allocateCachedInTurn(
  core: ArenaCore,
  caches: QuantumCaches,
  size: number,
  strategy: number,
  row: WaiterIndex,
): number {
  const emptied = row === NO_WAITER ? caches.drain() : caches.drainAll();
  const { cached, size: sizes } = core.tables.spaceWaiter;
  const wantsObject = (other: WaiterIndex) => cached.get(other) !== 0 && caches.isSameCache(sizes.get(other), size);
  let held = false;
  let address = caches.takeFromSlabs(size, (last, take) => {
    held = !passWaiters(core, size, row, (ahead) => (last ? ahead.filter(wantsObject) : []), take);
  });
  if (address < 0) {
    address = allocate(core, size, strategy, null, NO_IMPORTER, row);
    core.held ||= held && address < 0;
  }
  if (emptied) announceSpace(core);
  return address;
}

/** Puts what all threads have cached back, and tells who waits. Called without a lock. */
export function drainAllCaches(core: ArenaCore): void {
  if (core.caches?.drainAll() === true) announceSpace(core);
}

/** Puts what this thread and the depots have cached back, and tells who waits. Called without a lock. */
export function drainCaches(core: ArenaCore): void {
  if (core.caches?.drain() === true) announceSpace(core);
}
