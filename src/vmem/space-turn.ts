/**
 * Whether a request may take the segment that it found, or whether earlier ones that wait would lose their place by it.
 *
 * PROBLEM     A request that waits is to be served before later ones once space fits it, although it may be slow to come
 *             for it; but space that does not serve it is anybody's.
 * STRUCTURE   For each waiting request of the class that came earlier:
 *
 *               1 does it have a place?  The newest free segment that fits. What was found not to fit is remembered by
 *                 stamp: only segments that came since are looked at.
 *               2 does the place lie apart from what the later request wants, or is there another one that does?
 *
 *             When some have no other place, the later request takes one between the places of all of them, if there is one.
 *             Else it would deprive them, and space-queue.ts counts.
 * INVARIANTS  I1 no free segment with a stamp below `misfitStamp` fits a row with `misfit`.
 * LOCKING     The arena's lock, under which nothing is logged, and within it the queue's. What is remembered is not journaled: it
 *             is true of what the section found, which is what an undo comes back to, stamps included.
 * COSTS       Only while others of the class wait. A waiter that nothing fits: one look at every segment that is large enough,
 *             later at new ones alone. Looking for another place is linear in what is large enough.
 * FAILURE     None: null says that the request may not take anything.
 * REJECTED    Taking, searching for the waiter, and undoing what deprives it: three logged changes for a question. Keeping the
 *             place of each waiter until it comes: large requests would hold what others could use for a moment.
 * REFERENCES  space-queue.ts I3; refused.ts, for stamps.
 */

import { VERIFY } from '../base/verify.ts';
import { ARENA_STAMP_NEXT, TAG_DOUBLE_SHIFT, TAG_SHIFT, TAG_SIZE, TAG_STAMP, TAG_START } from '../layout/index.ts';
import { faultPoint } from '../sync/fault.ts';
import type { ArenaCore } from './arena-core.ts';
import { type Constraints, fitSegment } from './fit.ts';
import { isNewer } from './free-lists.ts';
import { COUNT_ALLOCATIONS, STRATEGY_BEST, STRATEGY_NEXT, type TagIndex } from './kinds.ts';
import { nextPlace } from './search-trees.ts';
import { constraintsOf, passWaiters, type WaiterIndex } from './space-queue.ts';
import { visitLarge } from './visit-free.ts';

/** Allocations after which stamps might come round. */
const ALLOCATIONS_MAX = 2 ** 28;

/** What a request takes. */
export interface Turn {
  readonly segment: TagIndex;
  readonly strategy: number;
  readonly constraints: Constraints | null;
}

/** The place of a request that waits. */
interface Place {
  readonly row: WaiterIndex;
  readonly start: number;
  readonly size: number;
}

/**
 * What a request that found a segment may take: that, another place, or null for nothing. `row` is its row in the queue, if it
 * waits. To be called while somebody waits for space in any arena.
 */
export function takeTurn(
  core: ArenaCore,
  segment: TagIndex,
  size: number,
  strategy: number,
  constraints: Constraints | null,
  row: WaiterIndex,
): Turn | null {
  let turn: Turn = { segment, strategy, constraints };
  const allowed = passWaiters(core, size, row, (ahead) => {
    const start = placeIn(core, segment, size, strategy, constraints);
    const places = ahead.map((other) => placeOf(core, other)).filter((place) => place !== null);
    const deprived = places.filter((place) => overlaps(place, start, size) && !hasOther(core, place, start, size));
    if (deprived.length === 0) return [];
    const between = findBetween(core, size, constraints, places);
    if (between === null) return deprived.map((place) => place.row);
    turn = between;
    return [];
  });
  return allowed ? turn : null;
}

/** Where a request is placed in `[start, start + room)`, or -1. */
function fitIn(start: number, room: number, size: number, constraints: Constraints | null): number {
  if (room < size) return -1;
  return constraints === null ? start : fitSegment(start, room, size, constraints);
}

/** Where `allocate` would place a request in the segment that it found. */
function placeIn(
  core: ArenaCore,
  segment: TagIndex,
  size: number,
  strategy: number,
  constraints: Constraints | null,
): number {
  if (strategy === STRATEGY_NEXT) return nextPlace(core, segment, size, constraints, true);
  const start = core.doubles[(segment << TAG_DOUBLE_SHIFT) + TAG_START] as number;
  return fitIn(start, core.doubles[(segment << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number, size, constraints);
}

/** Question 1. Null also for a request that an object of its cache serves, which no segment is needed for. */
function placeOf(core: ArenaCore, row: WaiterIndex): Place | null {
  const { cached, misfit, misfitStamp, misfitAt, size: sizes } = core.tables.spaceWaiter;
  const size = sizes.get(row);
  if (cached.get(row) !== 0 && core.caches !== null && core.caches.hasObjects(size)) return null;
  const constraints = constraintsOf(core, row);
  const allocations = core.doubles[core.baseDouble + COUNT_ALLOCATIONS] as number;
  const known = misfit.get(row) !== 0 && allocations - misfitAt.get(row) <= ALLOCATIONS_MAX;
  const last = misfitStamp.get(row) - 1;
  let place = -1;
  const found = visitLarge(core, size, known ? (stamp) => !isNewer(stamp, last) : null, (start, room) => {
    place = fitIn(start, room, size, constraints);
    return place >= 0;
  });
  if (found !== 0) return { row, start: place, size };
  misfit.put(row, 0);
  misfitStamp.put(row, core.words[core.base + ARENA_STAMP_NEXT] as number);
  if (VERIFY) faultPoint(core.thread, 'vmem.queue.misfit');
  misfitAt.put(row, allocations);
  misfit.put(row, 1);
  return null;
}

/** Broken I1 of the requests that wait for space in an arena. Under its lock. */
export function checkMisfits(core: ArenaCore): string[] {
  const { slot, arena, generation, misfit, misfitStamp, misfitAt, size: sizes, rowCount } = core.tables.spaceWaiter;
  const { looked } = core;
  const problems: string[] = [];
  for (let row = 0; row < rowCount; row++) {
    if (slot.get(row) === 0 || arena.get(row) !== core.row + 1 || generation.get(row) !== core.generation) continue;
    const allocations = core.doubles[core.baseDouble + COUNT_ALLOCATIONS] as number;
    if (misfit.get(row) === 0 || allocations - misfitAt.get(row) > ALLOCATIONS_MAX) continue;
    const size = sizes.get(row);
    const last = misfitStamp.get(row) - 1;
    const constraints = constraintsOf(core, row);
    const found = visitLarge(core, size, null, (start, room, tag) => {
      const stamp = core.words[(tag << TAG_SHIFT) + TAG_STAMP] as number;
      return !isNewer(stamp, last) && fitIn(start, room, size, constraints) >= 0;
    });
    if (found !== 0) problems.push(`vmem/space-turn I1: tag ${found} fits request ${row}, which counts as a misfit`);
  }
  core.looked = looked;
  return problems;
}

function overlaps(place: Place, start: number, size: number): boolean {
  return place.start < start + size && start < place.start + place.size;
}

/** Question 2: true when a waiting request also has a place apart from `[start, start + taken)`. */
function hasOther(core: ArenaCore, { row, size }: Place, start: number, taken: number): boolean {
  const constraints = constraintsOf(core, row);
  const end = start + taken;
  const found = visitLarge(core, size, null, (from, room) => {
    const to = from + room;
    if (to <= start || from >= end) return fitIn(from, room, size, constraints) >= 0;
    return fitIn(from, start - from, size, constraints) >= 0 || fitIn(end, to - end, size, constraints) >= 0;
  });
  return found !== 0;
}

/** A place for a request in free segments apart from places that others wait for. */
function findBetween(
  core: ArenaCore,
  size: number,
  constraints: Constraints | null,
  places: readonly Place[],
): Turn | null {
  const kept = [...places].sort((a, b) => a.start - b.start);
  let address = -1;
  const segment = visitLarge(core, size, null, (from, room) => {
    const to = from + room;
    let at = from;
    for (const place of kept) {
      if (place.start + place.size <= at || place.start >= to) continue;
      address = fitIn(at, place.start - at, size, constraints);
      if (address >= 0) return true;
      at = place.start + place.size;
    }
    address = fitIn(at, to - at, size, constraints);
    return address >= 0;
  });
  if (segment === 0) return null;
  const place = { align: core.quantum, phase: 0, nocross: 0, min: address, max: address + size - 1 };
  return { segment, strategy: STRATEGY_BEST, constraints: place };
}
