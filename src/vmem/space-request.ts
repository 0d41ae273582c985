/** What `allocWait` and `allocAsync` ask of an arena, with checked arguments. */

import { allocate } from './allocate.ts';
import type { ArenaCore } from './arena-core.ts';
import { requireOptions } from './arguments.ts';
import { allocateCachedInTurn, drainAllCaches, isWaitedFor } from './cached-turn.ts';
import { NO_IMPORTER } from './carve.ts';
import { failIfNeverAllowed, quotaInTheWay } from './charges.ts';
import { tagsInTheWay } from './exhausted.ts';
import { type ConstraintOptions, checkConstraints } from './fit.ts';
import { roundSize } from './free.ts';
import { strategyCode } from './kinds.ts';
import { quarantineInTheWay, quarantineQuietMs } from './quarantine.ts';
import { NO_WAITER } from './space-queue.ts';
import { failIfImportFailed, importFailures, importInTheWay, importQuietMs, requestSpan } from './span-service.ts';
import type { SpaceRequest } from './waiting.ts';

/** Checks the arguments of a call that waits; `waitOptions` are those beside constraints. Throws `EINVAL`. */
export function spaceRequest(
  core: ArenaCore,
  call: string,
  size: number,
  options: ConstraintOptions,
  waitOptions: readonly string[],
): SpaceRequest {
  requireOptions(call, options);
  const rounded = roundSize(core, call, size);
  const constraints = checkConstraints(call, options, rounded, core.quantum, waitOptions);
  const strategy = strategyCode(call, options.strategy, core.strategy);
  const { caches } = core;
  const cached = constraints === null && options.strategy === undefined && rounded <= (caches?.maxUnits ?? 0);
  return {
    call,
    core,
    size: rounded,
    constraints,
    cached,
    attempt: (row) => {
      if (cached && caches !== null && core.current) {
        if (row !== NO_WAITER || isWaitedFor(core)) return allocateCachedInTurn(core, caches, rounded, strategy, row);
        const address = caches.tryAlloc(rounded);
        if (address >= 0) return address;
      }
      const found = allocate(core, rounded, strategy, constraints, NO_IMPORTER, row);
      if (found >= 0 || caches === null) return found;
      drainAllCaches(core);
      return allocate(core, rounded, strategy, constraints, NO_IMPORTER, row);
    },
    press: () => core.cores.press(core, rounded),
    seek: (here) => requestSpan(core, rounded, constraints, here),
    failures: () => importFailures(core),
    failIfNeverAllowed: () => failIfNeverAllowed(core, call, rounded),
    limits: () =>
      `${quotaInTheWay(core, rounded)}${tagsInTheWay(core, rounded)}${quarantineInTheWay(core)}${importInTheWay(core)}`,
    quietMs: () => Math.min(quarantineQuietMs(core), importQuietMs(core, rounded, constraints)),
    failIfImportFailed: (noted) => failIfImportFailed(core, call, rounded, noted),
  };
}
