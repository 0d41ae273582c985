/**
 * Allocating from an arena.
 *
 * STRUCTURE   1 tags and hash are made ready   2 search; what is kept for requests that wait counts as not found
 *             3 nothing found: import a span, or take back what importers keep idle, and search again, `instant` as `best`
 *             4 carve: the front of the chosen segment stays free, the allocation is its
 *             low part behind that, the rest stays free; remainders go to the heads of their lists, front first
 * LOCKING     The arena's lock, left and taken again while a source is asked for a span.
 * COSTS       Unconstrained, instant: about ten tags' worth of words, whatever the number of allocations.
 * FAILURE     -1, with nothing changed.
 * REFERENCES  Bonwick and Adams 2001, section 4; docs/differences.md.
 */

import { assert, VERIFY } from '../base/index.ts';
import {
  ARENA_BUSY_TAGS,
  ARENA_BUSY_TAGS_PEAK,
  ARENA_CHANGES,
  ARENA_IDLE_HEAD,
  ARENA_SIZE_IN_USE,
  ARENA_SPARE_COUNT,
  TAG_DOUBLE_SHIFT,
  TAG_KIND_AT,
  TAG_OWNER,
  TAG_SHIFT,
  TAG_SIZE,
  TAG_START,
} from '../layout/index.ts';
import { faultPoint, redeemPledge } from '../sync/index.ts';
import { hashInsert, hashNeedsCare, maintainHash } from './allocation-hash.ts';
import type { ArenaCore } from './arena-core.ts';
import { chargeAhead, noteCharge } from './charges.ts';
import { type Constraints, fitSegment } from './fit.ts';
import { freeListInsert, freeListRemove } from './free-lists.ts';
import { idleRemove, wholeSpanOf } from './idle-spans.ts';
import {
  type ArenaIndex,
  COUNT_ALLOCATIONS,
  COUNT_FAILURES,
  COUNT_SEARCHES,
  KIND_BUSY,
  KIND_FREE,
  STRATEGY_BEST,
  STRATEGY_INSTANT,
  STRATEGY_NEXT,
  type TagIndex,
} from './kinds.ts';
import { heedSpace } from './low-space.ts';
import { makeSpace } from './make-space.ts';
import { recordAlloc } from './recording.ts';
import { findSegment } from './search.ts';
import { moveCursor, nextPlace } from './search-trees.ts';
import { segmentInsertBefore } from './segment-list.ts';
import { announceTaken, NO_WAITER, noteBarred, type WaiterIndex } from './space-queue.ts';
import { takeTurn } from './space-turn.ts';
import { freshTag, saveHeaderAndTag } from './spans.ts';
import { RESERVE_MAX, refillReserve, TAGS_PER_OPERATION, trimReserve } from './tag-pool.ts';
import { recordImport } from './transfer.ts';

/** Importer of an allocation that a user asked for. */
export const NO_IMPORTER = -1;

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
  if (charged && !chargeAhead(core, size)) return -1;
  const address = carve(core, segment, size, strategy, constraints, importer);
  if (charged && address < 0) redeemPledge(core.thread);
  if (address >= 0 && core.words[core.recordingAt] !== 0) recordAlloc(core, address, size, strategy, constraints);
  return address;
}

/** Makes an allocation out of a free segment that holds it. Returns its address, or -1 when there are too few tags. */
function carve(
  core: ArenaCore,
  segment: TagIndex,
  size: number,
  strategy: number,
  constraints: Constraints | null,
  importer: ArenaIndex,
): number {
  const { words, doubles, base, baseDouble } = core;
  const startAt = (segment << TAG_DOUBLE_SHIFT) | TAG_START;
  const sizeAt = (segment << TAG_DOUBLE_SHIFT) | TAG_SIZE;
  const start = doubles[startAt] as number;
  const segmentSize = doubles[sizeAt] as number;
  let address = start;
  if (strategy === STRATEGY_NEXT) address = nextPlace(core, segment, size, constraints, true);
  else if (constraints !== null) address = fitSegment(start, segmentSize, size, constraints);
  const front = address - start;
  const rear = segmentSize - front - size;
  assert(front >= 0 && rear >= 0, 'vmem/allocate: the chosen segment holds the request');
  if ((words[base + ARENA_SPARE_COUNT] as number) < (front > 0 ? 1 : 0) + (rear > 0 ? 1 : 0)) return -1;
  saveHeaderAndTag(core, segment);
  if (words[base + ARENA_IDLE_HEAD] !== 0) leaveIdle(core, segment);
  freeListRemove(core, segment);
  if (front > 0) {
    const frontTag = freshTag(core, start, front, KIND_FREE);
    doubles[startAt] = address;
    doubles[sizeAt] = segmentSize - front;
    freeListInsert(core, frontTag);
    segmentInsertBefore(core, frontTag, segment);
  }
  if (VERIFY) faultPoint(core.thread, 'vmem.alloc.carved');
  let busy = segment;
  if (rear > 0) {
    busy = freshTag(core, address, size, KIND_BUSY);
    doubles[startAt] = address + size;
    doubles[sizeAt] = rear;
    freeListInsert(core, segment);
    segmentInsertBefore(core, busy, segment);
  } else {
    words[(segment << TAG_SHIFT) | TAG_KIND_AT] = KIND_BUSY;
  }
  if (core.charges) noteCharge(core, busy, importer === NO_IMPORTER);
  words[(busy << TAG_SHIFT) | TAG_OWNER] = importer === NO_IMPORTER ? core.thread.attachment : -1 - importer;
  hashInsert(core, busy);
  const busyTags = (words[base + ARENA_BUSY_TAGS] as number) + 1;
  words[base + ARENA_BUSY_TAGS] = busyTags;
  if (busyTags > (words[base + ARENA_BUSY_TAGS_PEAK] as number)) words[base + ARENA_BUSY_TAGS_PEAK] = busyTags;
  words[base + ARENA_CHANGES]!++;
  doubles[baseDouble + ARENA_SIZE_IN_USE]! += size;
  core.count(COUNT_ALLOCATIONS);
  if (strategy === STRATEGY_NEXT) moveCursor(core, address + size);
  if (VERIFY) faultPoint(core.thread, 'vmem.alloc.busy');
  if (importer !== NO_IMPORTER) recordImport(core, address, size);
  return address;
}

/** A span that an allocation is made from is idle no longer. */
function leaveIdle(core: ArenaCore, segment: TagIndex): void {
  const span = wholeSpanOf(core, segment);
  if (span !== 0) idleRemove(core, span);
}
