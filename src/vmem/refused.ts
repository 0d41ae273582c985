/**
 * The constrained request that was refused last.
 *
 * PROBLEM     That no free segment fits a constrained request is known only when every one that is large enough was looked at;
 *             whoever asks again and again, or waits and tries whenever something is freed, pays for all of them each time.
 * STRUCTURE   The request, and the stamp that the next free segment was going to get. The same request is refused again
 *             unless a segment that has come since fits it: bins have the newest first, so those are found at once. Taking
 *             segments away makes nothing fit.
 * INVARIANTS  I1 no segment with an older stamp fits the request that is remembered.
 * LOCKING     The arena's lock. Not logged: `refusedSet` is 0 while the rest is written.
 * COSTS       A failing request looks at every segment that is large enough once; again only at those that are new. One
 *             request per arena is remembered.
 * FAILURE     None. When stamps may have come round since, the request is looked at afresh.
 * REJECTED    An index by alignment: one for each alignment and phase that may be asked for.
 * REFERENCES  free-lists.ts, for stamps.
 */

import { ARENA_STAMP_NEXT } from '../layout/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { type Constraints, fitSegment } from './fit.ts';
import { isNewer } from './free-lists.ts';
import { COUNT_ALLOCATIONS } from './kinds.ts';
import { visitLarge } from './visit-free.ts';

/** Allocations after which stamps might come round: each makes at most two, and its free one. */
const ALLOCATIONS_MAX = 2 ** 28;

/** What is remembered beside the size, in the order of its lanes. */
const FIELDS = ['align', 'phase', 'nocross', 'min', 'max'] as const;

/** Remembers that no free segment fits a request. */
export function noteRefused(core: ArenaCore, size: number, constraints: Constraints): void {
  const { row } = core;
  const { refused, refusedAt, refusedSet, refusedStamp } = core.tables.arenaIndex;
  refusedSet.put(row, 0);
  refused.putAt(row, 0, size);
  FIELDS.forEach((field, index) => {
    refused.putAt(row, 1 + index, constraints[field]);
  });
  refusedAt.put(row, core.doubles[core.baseDouble + COUNT_ALLOCATIONS] as number);
  refusedStamp.put(row, core.words[core.base + ARENA_STAMP_NEXT] as number);
  refusedSet.put(row, 1);
}

/** True when the request is the one remembered, and still nothing fits it. */
export function refusedBefore(core: ArenaCore, size: number, constraints: Constraints): boolean {
  const { row } = core;
  const { refused, refusedAt, refusedSet, refusedStamp } = core.tables.arenaIndex;
  if (refusedSet.get(row) === 0 || refused.at(row, 0) !== size) return false;
  if (FIELDS.some((field, index) => refused.at(row, 1 + index) !== constraints[field])) return false;
  const since = (core.doubles[core.baseDouble + COUNT_ALLOCATIONS] as number) - refusedAt.get(row);
  if (since > ALLOCATIONS_MAX || newFits(core, size, constraints)) return false;
  refusedStamp.put(row, core.words[core.base + ARENA_STAMP_NEXT] as number);
  return true;
}

/** True when a segment fits that came after the refusal. */
function newFits(core: ArenaCore, size: number, constraints: Constraints): boolean {
  const last = core.tables.arenaIndex.refusedStamp.get(core.row) - 1;
  const found = visitLarge(
    core,
    size,
    (stamp) => !isNewer(stamp, last),
    (start, segmentSize) => fitSegment(start, segmentSize, size, constraints) >= 0,
  );
  return found !== 0;
}
