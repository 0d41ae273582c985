/**
 * Telling a program that space in an arena runs low, so that it can free something.
 *
 * STRUCTURE   after an allocation    room at or below the threshold: told once, until there is more room again
 *             before a failure       told each time; the request then tries once more
 *
 *             Room is what can still be allocated: what is free, or for an arena that imports what its limit leaves; one
 *             that imports without a limit has room until its source has none.
 * LOCKING     The callback runs without any lock, with nothing in flight. What it allocates itself from the arena does not
 *             call it again.
 * COSTS       Arenas without a callback: one comparison for each allocation.
 * FAILURE     A thread that cannot have the callback goes without. An error that it throws is the request's: what was
 *             allocated is freed again.
 */

import { VmError } from '../base/index.ts';
import { ARENA_SIZE_IN_USE, ARENA_SIZE_TOTAL } from '../layout/index.ts';
import { compareExchange, load, store } from '../sync/index.ts';
import { allocate } from './allocate.ts';
import type { ArenaCore } from './arena-core.ts';
import { NO_IMPORTER } from './carve.ts';
import type { Constraints } from './fit.ts';
import { freeAddress } from './free.ts';
import { type ArenaIndex, COUNT_RECLAIMS, COUNT_RETRIES } from './kinds.ts';
import type { WaiterIndex } from './space-queue.ts';

/** What a reclaim callback is told. */
export interface SpaceShortage {
  /** Name of the arena. */
  readonly arena: string;
  /** What can still be allocated in all, perhaps in pieces. */
  readonly room: number;
  /** Size of the request. */
  readonly size: number;
  /** True when the request will fail unless something is freed; false when the threshold was reached. */
  readonly failing: boolean;
}

/** Frees something, or not. Runs in the thread whose request found space low, with no lock held. */
export type SpaceReclaimer = (shortage: SpaceShortage) => void;

/** Looks at the outcome of a request of an arena with a callback; returns the address that the request came to. */
export function heedSpace(
  core: ArenaCore,
  address: number,
  size: number,
  strategy: number,
  constraints: Constraints | null,
  importer: ArenaIndex,
  row: WaiterIndex,
): number {
  if (core.cores.reclaiming.has(core.row)) return address;
  if (address < 0) {
    if (!tell(core, size, true)) return -1;
    core.cores.reclaiming.add(core.row);
    try {
      return allocate(core, size, strategy, constraints, importer, row);
    } finally {
      core.cores.reclaiming.delete(core.row);
    }
  }
  if (importer === NO_IMPORTER && crossed(core)) {
    try {
      tell(core, size, false);
    } catch (error) {
      freeAddress(core, 'arena.alloc', address, size);
      throw error;
    }
  }
  return address;
}

/** What can still be allocated. A look without the lock: a hint. */
function roomOf(core: ArenaCore): number {
  const { doubles, baseDouble } = core;
  const inUse = doubles[baseDouble + ARENA_SIZE_IN_USE] as number;
  return (core.imports ? core.limit : (doubles[baseDouble + ARENA_SIZE_TOTAL] as number)) - inUse;
}

/** True for the one request that finds the threshold reached. */
function crossed(core: ArenaCore): boolean {
  const { lowAt, lowTold } = core.tables.arenaLife;
  const told = lowTold.address(core.row);
  if (roomOf(core) > lowAt.get(core.row)) {
    if (load(core.words, told) !== 0) store(core.words, told, 0);
    return false;
  }
  return compareExchange(core.words, told, 0, 1) === 0;
}

/** Calls back; false when this thread does not have the callback. */
function tell(core: ArenaCore, size: number, failing: boolean): boolean {
  let reclaimer: SpaceReclaimer;
  try {
    reclaimer = core.cores.callbacks.resolve<SpaceReclaimer>(core.lowCallback);
  } catch (error) {
    if (error instanceof VmError && error.code === 'ENOENT') return false;
    throw error;
  }
  core.cores.reclaiming.add(core.row);
  try {
    core.enter();
    core.count(COUNT_RECLAIMS);
    if (failing) core.count(COUNT_RETRIES);
    core.exit();
    reclaimer({ arena: core.name, room: roomOf(core), size, failing });
  } finally {
    core.cores.reclaiming.delete(core.row);
  }
  return true;
}
