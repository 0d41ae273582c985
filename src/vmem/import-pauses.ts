/**
 * Pauses of asynchronous imports.
 *
 * PROBLEM     A source that has nothing for a request must not be asked for it again and again, whoever asks; requests that it
 *             may well have something for must not wait for that, however many others wait in vain.
 * STRUCTURE   Eight kinds of requests that brought nothing are remembered per arena: size, constraints, how often in a row,
 *             and until when the source is not asked: 1 ms, then twice as long each time, up to a second.
 *
 *               request   | pauses with a kind that is not larger and has the same constraints, or none: the longest pause
 *                         | when eight others are paused, until half of the pause that ends first is over; what comes of it
 *                         | takes the place, and doubles the pause, of that kind
 *
 *             All pauses are over when an import helped, and when the arena has given a span back.
 * INVARIANTS  I1 `misses` is 0 for a kind that says nothing.
 * LOCKING     The arena's lock to change; looks are without it.
 * COSTS       A look at four kinds where a request that waits found nothing.
 * FAILURE     None: a pause that is forgotten asks once more.
 * REJECTED    One pause for all constrained requests: those for a window of addresses that the source does not have kept
 *             all others from being asked. A pause per waiting request: who asks again with a short time limit has none.
 * REFERENCES  span-service.ts.
 */

import { PAUSED_KINDS } from '../layout/index.ts';
import type { ArenaCore } from './arena-core.ts';
import type { Constraints } from './fit.ts';
import { COUNT_RELEASES } from './kinds.ts';

/** Longest and first pause; it doubles. */
const PAUSE_MAX_MS = 1000;
const PAUSE_MS = 1;

const NO_KIND = -1;

/** Milliseconds for which the source is not asked for a request. */
export function pauseOf(core: ArenaCore, size: number, constraints: Constraints | null): number {
  const { missedSize } = core.tables.spanRequest;
  let longest = 0;
  for (let kind = 0; kind < PAUSED_KINDS; kind++) {
    const covers = isPlain(core, kind) || isOf(core, kind, constraints);
    if (covers && size >= missedSize.at(core.row, kind)) longest = Math.max(longest, pauseLeft(core, kind));
  }
  if (longest > 0 || findKind(core, constraints) !== NO_KIND) return longest;
  // A new kind comes before the one whose place it takes.
  const first = firstOver(core);
  return Math.max(0, pauseLeft(core, first) - pauseAfter(core.tables.spanRequest.misses.at(core.row, first)) / 2);
}

/** Length of the pause after so many answers in a row that brought nothing. */
function pauseAfter(misses: number): number {
  return Math.min(PAUSE_MAX_MS, PAUSE_MS * 2 ** (misses - 1));
}

/** Milliseconds for which a kind pauses still. */
function pauseLeft(core: ArenaCore, kind: number): number {
  if (!holds(core, kind)) return 0;
  return Math.max(0, core.tables.spanRequest.retryAt.at(core.row, kind) - core.thread.clock.now());
}

/** How often in a row a request brought nothing. */
export function missesOf(core: ArenaCore, constraints: Constraints | null): number {
  const kind = findKind(core, constraints);
  return kind === NO_KIND ? 0 : core.tables.spanRequest.misses.at(core.row, kind);
}

/** An answer to a request brought nothing: it pauses. Under the lock. */
export function noteMiss(core: ArenaCore, size: number, constraints: Constraints | null): void {
  const { journal, row } = core;
  const request = core.tables.spanRequest;
  const { misses, retryAt } = request;
  let kind = findKind(core, constraints);
  const known = kind !== NO_KIND;
  if (!known) kind = firstOver(core);
  const count = (holds(core, kind) ? misses.at(row, kind) : 0) + 1;
  if (!known || size < request.missedSize.at(row, kind)) journal.setDoubleAt(request.missedSize, row, kind, size);
  journal.setAt(misses, row, kind, Math.min(count, 2 ** 30));
  journal.setDoubleAt(request.missedAt, row, kind, releasesOf(core));
  journal.setDoubleAt(retryAt, row, kind, core.thread.clock.now() + pauseAfter(count));
  const { missedAlign, missedPhase, missedNocross, missedMin, missedMax } = request;
  journal.setDoubleAt(missedAlign, row, kind, constraints?.align ?? 0);
  journal.setDoubleAt(missedPhase, row, kind, constraints?.phase ?? 0);
  journal.setDoubleAt(missedNocross, row, kind, constraints?.nocross ?? 0);
  journal.setDoubleAt(missedMin, row, kind, constraints?.min ?? 0);
  journal.setDoubleAt(missedMax, row, kind, constraints?.max ?? 0);
}

/** An import helped. Under the lock. */
export function endPauses(core: ArenaCore): void {
  const { misses } = core.tables.spanRequest;
  for (let kind = 0; kind < PAUSED_KINDS; kind++) core.journal.setAt(misses, core.row, kind, 0);
}

function releasesOf(core: ArenaCore): number {
  return core.doubles[core.baseDouble + COUNT_RELEASES] as number;
}

/** True for a kind that says something still. */
function holds(core: ArenaCore, kind: number): boolean {
  const { misses, missedAt } = core.tables.spanRequest;
  return misses.at(core.row, kind) !== 0 && missedAt.at(core.row, kind) === releasesOf(core);
}

function isPlain(core: ArenaCore, kind: number): boolean {
  return core.tables.spanRequest.missedAlign.at(core.row, kind) === 0;
}

/** True for a kind that has just these constraints. */
function isOf(core: ArenaCore, kind: number, constraints: Constraints | null): boolean {
  const { missedAlign, missedPhase, missedNocross, missedMin, missedMax } = core.tables.spanRequest;
  const { row } = core;
  if (constraints === null) return isPlain(core, kind);
  return (
    missedAlign.at(row, kind) === constraints.align &&
    missedPhase.at(row, kind) === constraints.phase &&
    missedNocross.at(row, kind) === constraints.nocross &&
    missedMin.at(row, kind) === constraints.min &&
    missedMax.at(row, kind) === constraints.max
  );
}

/** The kind with these constraints, whatever its size, or none. */
function findKind(core: ArenaCore, constraints: Constraints | null): number {
  for (let kind = 0; kind < PAUSED_KINDS; kind++) {
    if (holds(core, kind) && isOf(core, kind, constraints)) return kind;
  }
  return NO_KIND;
}

/** A kind that says nothing, or the one whose pause ends first. */
function firstOver(core: ArenaCore): number {
  const { retryAt } = core.tables.spanRequest;
  let first = 0;
  for (let kind = 0; kind < PAUSED_KINDS; kind++) {
    if (!holds(core, kind)) return kind;
    if (retryAt.at(core.row, kind) < retryAt.at(core.row, first)) first = kind;
  }
  return first;
}
