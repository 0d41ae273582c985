/** What a request does that found no free segment, before it fails. */

import type { ArenaCore } from './arena-core.ts';
import type { Constraints } from './fit.ts';
import { importSpan, reclaimIdle } from './import.ts';
import { COUNT_RETRIES } from './kinds.ts';
import { leaveQuarantine } from './quarantine.ts';
import { leaveEarly } from './quarantine-yield.ts';

/**
 * 1 what has been in quarantine long enough   2 a span of the source   3 what importers keep idle   4 with `early`, what
 * serves the request of the quarantine. True when something came: the search is worth another attempt. Entered and left with
 * the lock; leaves it in between.
 */
export function makeSpace(
  core: ArenaCore,
  size: number,
  strategy: number,
  constraints: Constraints | null,
  attempt: number,
): boolean {
  const came =
    (core.quarantines && leaveQuarantine(core, false) > 0) ||
    importSpan(core, size, strategy, constraints, attempt) ||
    reclaimIdle(core, size, attempt) ||
    (core.quarantinesUntilNeeded && leaveEarly(core, size, constraints));
  if (came) core.count(COUNT_RETRIES);
  return came;
}
