/**
 * Cached sizes while requests wait for space in their arena.
 *
 * What magazines serve, no queue sees. So while somebody waits, objects are taken from slabs one by one, magazines are
 * emptied, those of other threads by the waiter, and requests that do not wait are counted as those of plain sizes are
 * (space-queue.ts I3).
 */

import { allocate, NO_IMPORTER } from './allocate.ts';
import type { ArenaCore } from './arena-core.ts';
import { COUNT_FAILURES } from './kinds.ts';
import type { QuantumCaches } from './quantum-caches.ts';
import { announceSpace, mustYield, waitersOf } from './space-queue.ts';

/** True when somebody waits for space in the arena: its magazines must not serve requests. One load when nobody waits. */
export function isWaitedFor(core: ArenaCore): boolean {
  return core.words[core.waitersAt] !== 0 && waitersOf(core) !== 0;
}

/**
 * Allocates a cached size (a multiple of the quantum) while somebody waits; `waiter` as for `allocate`. Returns the address
 * or -1. Called without a lock.
 */
export function allocateCachedInTurn(
  core: ArenaCore,
  caches: QuantumCaches,
  size: number,
  strategy: number,
  waiter: boolean,
): number {
  const refused = !waiter && mustYield(core, size);
  const emptied = waiter ? caches.drainAll() : caches.drain();
  let address = -1;
  if (refused) {
    core.enter();
    core.count(COUNT_FAILURES);
    core.exit();
  } else {
    address = caches.takeFromSlabs(size);
    // It was counted above.
    if (address < 0) address = allocate(core, size, strategy, null, NO_IMPORTER, true);
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
