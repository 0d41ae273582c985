/**
 * Why a request found no space: the error that says what to change. The limit that refused it was noted under the lock;
 * everything else is only a look, for others go on meanwhile.
 */

import { fail } from '../base/index.ts';
import { ARENA_SIZE_IN_USE, ARENA_SIZE_TOTAL } from '../layout/index.ts';
import { ownerOf } from '../sync/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { failIfOverQuota } from './charges.ts';
import { asksFor, exceedsLimit } from './import.ts';
import { REFUSED_BY } from './kinds.ts';
import { quarantineInTheWay } from './quarantine.ts';
import { lacksTags } from './tag-pool.ts';

/** Rule of a call that needs a boundary tag when there is none. */
export const NO_TAGS = 'no boundary tags are left; boot with more `tags`';

/** Rule of a request that others were before. */
const HELD = 'the space that could hold it is kept for a request that waits';

/** What is said where a source that answers later may have more. */
const LATER = '; only `allocAsync` and `allocWait` ask its asynchronous source';

/**
 * Throws for a request that found no space, the first that holds: `EDQUOT` when the owner may not have that much or the arena
 * may not import that much, `ENOMEM` when boundary tags are used up, `ENOMEM` with the given rule, or when space is kept for
 * requests that wait.
 */
export function failExhausted(
  core: ArenaCore,
  call: string,
  size: number,
  rule = 'no free segment can hold it',
  values: Readonly<Record<string, unknown>> = { arena: core.name, size },
): never {
  const { refusedBy } = core;
  if (core.charges) {
    failIfOverQuota(core, call, size, ownerOf(core.thread), values, refusedBy === REFUSED_BY.owner);
  }
  const rounded = Math.ceil(size * core.inverseQuantum) * core.quantum;
  const isOver = core.imports && exceedsLimit(core, Math.min(...asksFor(core, rounded, null)));
  if (isOver || refusedBy === REFUSED_BY.arena) {
    fail('EDQUOT', call, values, `${rule}, and the limit of all spans is ${core.limit}`);
  }
  const waits = quarantineInTheWay(core);
  if (tagsInTheWay(core, rounded) !== '') fail('ENOMEM', call, values, NO_TAGS);
  if (isHeld(core)) fail('ENOMEM', call, values, HELD);
  fail('ENOMEM', call, values, `${rule}${waits}${importsLater(core) ? LATER : ''}`);
}

/** That boundary tags may be why a request of this size is not served, as the end of a sentence; '' when they are not. A look. */
export function tagsInTheWay(core: ArenaCore, size: number): string {
  const total = core.doubles[core.baseDouble + ARENA_SIZE_TOTAL] as number;
  const free = total - (core.doubles[core.baseDouble + ARENA_SIZE_IN_USE] as number);
  if (!lacksTags(core) || (!core.imports && free < size)) return '';
  return `; ${NO_TAGS}`;
}

/** True when the arena, or one above, has a source that answers later. */
function importsLater(core: ArenaCore): boolean {
  let at = core;
  while (!at.asyncImports && at.importArena >= 0) at = at.cores.at(at.importArena);
  return at.asyncImports;
}

/** True when the request found space, in the arena or above, that is kept for another one. */
export function isHeld(core: ArenaCore): boolean {
  let at = core;
  while (!at.held && at.importArena >= 0) at = at.cores.at(at.importArena);
  return at.held;
}
