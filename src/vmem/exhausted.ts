/** Why a request found no space: the error that says what to change. Only a look, for others go on meanwhile. */

import { fail } from '../base/index.ts';
import { ARENA_SIZE_IN_USE, ARENA_SIZE_TOTAL, ARENA_SPARE_COUNT } from '../layout/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { failIfOverQuota } from './charges.ts';
import { asksFor } from './import.ts';
import { quarantineInTheWay } from './quarantine.ts';
import { TAGS_PER_OPERATION, tagPoolUse } from './tag-pool.ts';

/** Rule of a call that needs a boundary tag when there is none. */
export const NO_TAGS = 'no boundary tags are left; boot with more `tags`';

/**
 * Throws for a request that found no space, the first that holds: `EDQUOT` when the owner may not have that much or the arena
 * may not import that much, `ENOMEM` when boundary tags are used up, `ENOMEM` with the given rule.
 */
export function failExhausted(
  core: ArenaCore,
  call: string,
  size: number,
  rule = 'no free segment can hold it',
  values: Readonly<Record<string, unknown>> = { arena: core.name, size },
): never {
  if (core.charges) failIfOverQuota(core, call, size);
  const rounded = Math.ceil(size * core.inverseQuantum) * core.quantum;
  const total = core.doubles[core.baseDouble + ARENA_SIZE_TOTAL] as number;
  const free = total - (core.doubles[core.baseDouble + ARENA_SIZE_IN_USE] as number);
  const spare = core.words[core.base + ARENA_SPARE_COUNT] as number;
  if (core.imports && total + Math.min(...asksFor(core, rounded, null)) > core.limit) {
    fail('EDQUOT', call, values, `${rule}, and the limit of all spans is ${core.limit}`);
  }
  const waits = quarantineInTheWay(core);
  const short = spare < TAGS_PER_OPERATION && tagPoolUse(core.thread).unused === 0;
  fail('ENOMEM', call, values, short && (core.imports || free >= rounded) ? NO_TAGS : `${rule}${waits}`);
}
