/** Freeing by address: checks, the section, and what follows it. */

import { ADDRESS_MAX, fail, failMisuse, VERIFY } from '../base/index.ts';
import { TAG_DOUBLE_SHIFT, TAG_OWNER, TAG_SHIFT, TAG_SIZE } from '../layout/index.ts';
import { faultPoint, redeemPledge } from '../sync/index.ts';
import { careForArena } from './allocate.ts';
import { hashFind } from './allocation-hash.ts';
import type { ArenaCore } from './arena-core.ts';
import { requireAddress } from './arguments.ts';
import type { TagIndex } from './kinds.ts';
import { freeTag } from './release.ts';
import { shareIdle } from './share-idle.ts';
import { describeTag } from './snapshot.ts';
import { announceSpace } from './space-queue.ts';
import { returnInFlight } from './transfer.ts';

/** A size rounded up to the quantum. Throws `EINVAL`, calling it `name`, for what is no size. */
export function roundSize(core: ArenaCore, call: string, size: number, name = 'size'): number {
  if (!Number.isSafeInteger(size) || size <= 0) failSize(core, call, size, name);
  const rounded = Math.ceil(size * core.inverseQuantum) * core.quantum;
  if (rounded > ADDRESS_MAX) {
    failMisuse(call, { [name]: size, quantum: core.quantum }, `${name}, rounded up to the quantum, must be below 2^53`);
  }
  return rounded;
}

/** Throws `EINVAL` for what is no size. */
export function failSize(core: ArenaCore, call: string, size: number, name = 'size'): never {
  failMisuse(call, { arena: core.name, [name]: size }, `${name} must be an integer above 0`);
}

/** Frees an allocation of this size. Throws `EINVAL`, with nothing changed, when there is none. */
export function freeAddress(core: ArenaCore, call: string, address: number, size: number): void {
  const rounded = roundSize(core, call, size);
  requireAddress(core, call, address);
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
  shareIdle(core);
}

/** The word that points to an allocation's tag; see `hashFind`. Leaves the lock and throws `EINVAL` when it is not there. */
export function findAllocation(core: ArenaCore, call: string, address: number, size: number, rounded: number): number {
  const at = hashFind(core, address);
  if (at < 0) failNotAllocated(core, call, address, size);
  const tag = core.words[at] as number;
  if ((core.words[(tag << TAG_SHIFT) | TAG_OWNER] as number) < 0) failNotUsers(core, call, tag, size);
  if (core.doubles[(tag << TAG_DOUBLE_SHIFT) | TAG_SIZE] !== rounded) failWrongSize(core, call, tag, size);
  return at;
}

function failNotAllocated(core: ArenaCore, call: string, address: number, size: number): never {
  core.exit();
  const values = { arena: core.name, address, size };
  failIfCached(core, call, values);
  fail('EINVAL', call, values, 'no allocation starts at this address; was it freed before?');
}

/** What an importer or the quantum caches took is not the user's to free: live allocations are made from it. */
function failNotUsers(core: ArenaCore, call: string, tag: TagIndex, size: number): never {
  const { start: address } = describeTag(core, tag);
  const importer = -1 - (core.words[(tag << TAG_SHIFT) | TAG_OWNER] as number);
  core.exit();
  const values = { arena: core.name, address, size };
  failIfCached(core, call, values);
  if (importer === core.row) failMisuse(call, values, 'a slab of the quantum caches starts at this address');
  const name = core.tables.arena.name.text(importer);
  failMisuse(call, values, `a span that the arena ${JSON.stringify(name)} imported starts at this address`);
}

/** Throws when a user has an object of a quantum cache at the address: why it was not found. Without the lock. */
function failIfCached(core: ArenaCore, call: string, values: { readonly address: number }): void {
  const actual = core.caches?.sizeOf(values.address) ?? -1;
  if (actual < 0) return;
  const how = call === 'arena.xfree' ? '; free it with `free`' : '';
  failMisuse(call, values, `an object of size ${actual} of the quantum caches starts at this address${how}`);
}

function failWrongSize(core: ArenaCore, call: string, tag: TagIndex, size: number): never {
  const { start, size: actual } = describeTag(core, tag);
  core.exit();
  fail('EINVAL', call, { arena: core.name, address: start, size }, `the allocation has size ${actual}`);
}
