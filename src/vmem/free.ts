/** Freeing by address: checks, the section, and what follows it. */

import { ADDRESS_MAX, fail, failMisuse, VERIFY } from '../base/index.ts';
import { TAG_DOUBLE_SHIFT, TAG_SIZE } from '../layout/index.ts';
import { faultPoint, redeemPledge } from '../sync/index.ts';
import { careForArena } from './allocate.ts';
import { hashFind } from './allocation-hash.ts';
import type { ArenaCore } from './arena-core.ts';
import type { TagIndex } from './kinds.ts';
import { freeTag } from './release.ts';
import { describeTag } from './snapshot.ts';
import { announceSpace } from './space-queue.ts';
import { returnInFlight } from './transfer.ts';

/** A size rounded up to the quantum. Throws `EINVAL` for what is no size. */
export function roundSize(core: ArenaCore, call: string, size: number): number {
  if (!Number.isSafeInteger(size) || size <= 0) {
    failSize(core, call, size);
  }
  const rounded = Math.ceil(size * core.inverseQuantum) * core.quantum;
  if (rounded > ADDRESS_MAX) {
    failMisuse(call, { size, quantum: core.quantum }, 'size, rounded up to the quantum, must be below 2^53');
  }
  return rounded;
}

/** Throws `EINVAL` for what is no size. */
export function failSize(core: ArenaCore, call: string, size: number): never {
  failMisuse(call, { arena: core.name, size }, 'size must be an integer above 0');
}

/** Frees an allocation of this size. Throws `EINVAL`, with nothing changed, when there is none. */
export function freeAddress(core: ArenaCore, call: string, address: number, size: number): void {
  const rounded = roundSize(core, call, size);
  core.enter();
  if (VERIFY) faultPoint(core.thread, 'vmem.free.locked');
  careForArena(core);
  const at = findAllocation(core, call, address, size, rounded);
  const inFlight = freeTag(core, at);
  core.exit();
  if (core.charges) {
    if (VERIFY) faultPoint(core.thread, 'vmem.charge.dropped');
    redeemPledge(core.thread);
  }
  announceSpace(core);
  if (VERIFY) faultPoint(core.thread, 'vmem.free.committed');
  if (inFlight) returnInFlight(core.cores, core.thread.slot);
}

/** The word that points to an allocation's tag; see `hashFind`. Leaves the lock and throws `EINVAL` when it is not there. */
export function findAllocation(core: ArenaCore, call: string, address: number, size: number, rounded: number): number {
  const at = hashFind(core, address);
  if (at < 0) failNotAllocated(core, call, address, size);
  const tag = core.words[at] as number;
  if (core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] !== rounded) failWrongSize(core, call, tag, size);
  return at;
}

function failNotAllocated(core: ArenaCore, call: string, address: number, size: number): never {
  core.exit();
  fail(
    'EINVAL',
    call,
    { arena: core.name, address, size },
    'no allocation starts at this address; was it freed before?',
  );
}

function failWrongSize(core: ArenaCore, call: string, tag: TagIndex, size: number): never {
  const { start, size: actual } = describeTag(core, tag);
  core.exit();
  fail('EINVAL', call, { arena: core.name, address: start, size }, `the allocation has size ${actual}`);
}
