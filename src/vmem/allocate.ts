/**
 * Allocating from an arena.
 *
 * STRUCTURE   1 tags and hash are made ready   2 search; what is kept for requests that wait counts as not found
 *             3 nothing found: import a span, or take back what importers keep idle, and search again, `instant` as `best`
 *             4 the allocation is cut out of it: carve.ts
 * LOCKING     The arena's lock, left and taken again while a source is asked for a span.
 * COSTS       Unconstrained, instant: about ten tags' worth of words, whatever the number of allocations.
 * FAILURE     -1, with nothing changed.
 * REFERENCES  Bonwick and Adams 2001, section 4; docs/differences.md.
 */

import { VERIFY } from '../base/index.ts';
import { ARENA_CHANGES, ARENA_SPARE_COUNT } from '../layout/index.ts';
import { faultPoint, redeemPledge } from '../sync/index.ts';
import { hashNeedsCare, maintainHash } from './allocation-hash.ts';
import type { ArenaCore } from './arena-core.ts';
import { carve, NO_IMPORTER } from './carve.ts';
import { chargeAhead } from './charges.ts';
import type { Constraints } from './fit.ts';
import {
  type ArenaIndex,
  COUNT_FAILURES,
  COUNT_SEARCHES,
  REFUSED_BY,
  STRATEGY_BEST,
  STRATEGY_INSTANT,
  type TagIndex,
} from './kinds.ts';
import { heedSpace } from './low-space.ts';
import { makeSpace } from './make-space.ts';
import { recordAlloc } from './recording.ts';
import { findSegment } from './search.ts';
import { announceTaken, NO_WAITER, noteBarred, type WaiterIndex } from './space-queue.ts';
import { takeTurn } from './space-turn.ts';
import { refillReserve, trimReserve } from './tag-arena.ts';
import { RESERVE_MAX, TAGS_PER_OPERATION } from './tag-pool.ts';

/**
 * Allocates `size` (a multiple of the quantum). Returns the address or -1. An allocation that is made for an arena which
 * imports it names that arena, and is in flight when this returns. `row` is that of a request that waits.
 */
export function allocate(
  core: ArenaCore,
  size: number,
  strategy: number,
  constraints: Constraints | null,
  importer: ArenaIndex,
  row: WaiterIndex = NO_WAITER,
): number {
  const { words } = core;
  core.enter();
  core.refusedBy = REFUSED_BY.none;
  if (VERIFY) faultPoint(core.thread, 'vmem.alloc.locked');
  let chosen = strategy;
  let address = -1;
  let last = false;
  let held = false;
  let barred = false;
  for (let attempt = 0; ; attempt++) {
    careForArena(core);
    core.count(COUNT_SEARCHES);
    const tag = findSegment(core, size, chosen, constraints);
    const waited = tag !== 0 && words[core.waitersAt] !== 0;
    const turn = waited ? takeTurn(core, tag, size, chosen, constraints, row) : null;
    held = waited && turn === null;
    if (tag !== 0 && !held) {
      address =
        turn === null
          ? take(core, tag, size, chosen, constraints, importer)
          : take(core, turn.segment, size, turn.strategy, turn.constraints, importer);
      barred = address < 0;
      break;
    }
    if (chosen === STRATEGY_INSTANT) chosen = STRATEGY_BEST;
    const changes = words[core.base + ARENA_CHANGES] as number;
    if (last || !makeSpace(core, size, strategy, constraints, attempt)) {
      // Others may have freed while the lock was let go: a failure is what the last look under the lock says.
      if (!last && words[core.base + ARENA_CHANGES] !== changes) {
        last = true;
        continue;
      }
      if (words[core.recordingAt] !== 0) recordAlloc(core, -1, size, chosen, constraints);
      break;
    }
  }
  core.held = held;
  let freed = address >= 0;
  if (address < 0) {
    core.count(COUNT_FAILURES);
    if (row !== NO_WAITER) freed = noteBarred(core, row, barred);
  }
  core.exit();
  if (freed) announceTaken(core, row);
  if (VERIFY) faultPoint(core.thread, 'vmem.alloc.committed');
  if (core.lowCallback >= 0 && importer !== core.row) {
    return heedSpace(core, address, size, strategy, constraints, importer, row);
  }
  return address;
}

/** Keeps the reserve and the hash in shape. At the start of a section, which has logged nothing. */
export function careForArena(core: ArenaCore): void {
  const spareCount = core.words[core.base + ARENA_SPARE_COUNT] as number;
  if (spareCount < TAGS_PER_OPERATION) refillReserve(core, TAGS_PER_OPERATION);
  else if (spareCount > RESERVE_MAX) trimReserve(core);
  if (hashNeedsCare(core)) maintainHash(core);
}

/** Charges, carves and records. Returns the address, or -1 when the charge or tags are in the way. */
function take(
  core: ArenaCore,
  segment: TagIndex,
  size: number,
  strategy: number,
  constraints: Constraints | null,
  importer: ArenaIndex,
): number {
  const charged = core.charges && importer === NO_IMPORTER;
  if (charged && !chargeAhead(core, size)) {
    core.refusedBy = REFUSED_BY.owner;
    return -1;
  }
  core.refusedBy = REFUSED_BY.none;
  const address = carve(core, segment, size, strategy, constraints, importer);
  if (charged && address < 0) redeemPledge(core.thread);
  if (address >= 0 && core.words[core.recordingAt] !== 0) recordAlloc(core, address, size, strategy, constraints);
  return address;
}
