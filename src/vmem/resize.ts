/**
 * Growing and shrinking an allocation in place.
 *
 * PROBLEM     An allocation should become larger or smaller without its address changing, or stay as it is.
 * STRUCTURE   grow      [busy 0..9][free 10..99]  ->  [busy 0..29][free 30..99]      the head of the free segment behind it
 *             shrink    [busy 0..29][free 30..99] ->  [busy 0..9][free 10..99]       joined with a free segment behind it, or
 *                       [busy 0..29][busy 30..99] ->  [busy 0..9][free 10..29][busy 30..99]
 *
 *             The remainder goes to the head of its list, as after an allocation or a free.
 * INVARIANTS  I1 the address stays, so alignment and phase do. `nocross` and `max` hold if they are given again.
 *             I2 an allocation never grows beyond its span.
 * LOCKING     The arena's lock.
 * COSTS       One neighbour.
 * FAILURE     False, with nothing changed: what follows is taken, or the owner's limit is reached, or there is no tag for the
 *             remainder: what joins a free segment needs none, what does not may have one of those kept for the system
 *             (tag-pool.ts). A request that grows does not import, wait, or heed those that wait.
 *             What a quantum cache gave has the size of its cache's objects: true up to that, else false.
 * REJECTED    Growing downwards, and moving: both change the address, which is the caller's to tell others.
 * REFERENCES  FreeBSD uma and jemalloc xallocx: in place or not at all.
 */

import {
  ADDRESS_MAX,
  crosses,
  fail,
  failMisuse,
  isPowerOfTwo,
  rejectUnknownOptions,
  requireInteger,
  VERIFY,
} from '../base/index.ts';
import {
  ARENA_CHANGES,
  ARENA_SIZE_IN_USE,
  ARENA_SPARE_COUNT,
  TAG_DOUBLE_SHIFT,
  TAG_KIND_AT,
  TAG_SEGMENT_NEXT,
  TAG_SHIFT,
  TAG_SIZE,
  TAG_START,
} from '../layout/index.ts';
import { faultPoint, pledgeBack, redeemPledge, settlePledge, tryPledge } from '../sync/index.ts';
import { careForArena } from './allocate.ts';
import type { ArenaCore } from './arena-core.ts';
import { requireAddress, requireOptions } from './arguments.ts';
import { chargedOwner, failIfOverQuota } from './charges.ts';
import { NO_TAGS } from './exhausted.ts';
import { findAllocation, roundSize } from './free.ts';
import { freeListInsert, freeListRemove } from './free-lists.ts';
import { COUNT_REFUSALS, COUNT_RESIZES, KIND_FREE, REFUSED_BY, type TagIndex } from './kinds.ts';
import { quarantineInTheWay, quarantineTag } from './quarantine.ts';
import { extentFrom, leaveFrom } from './quarantine-yield.ts';
import { recordResize, recordSplit } from './recording.ts';
import { segmentInsertAfter, segmentRemove } from './segment-list.ts';
import { shareIdle } from './share-idle.ts';
import { announceSpace, announceTaken, NO_WAITER } from './space-queue.ts';
import { freshTag, saveHeader, saveTag } from './spans.ts';
import { refillReserve } from './tag-arena.ts';
import { putSpare } from './tag-pool.ts';
import { returnInFlight } from './transfer.ts';

/** Constraints that growth must not break. */
export interface ResizeOptions {
  /** The range does not contain a multiple of this power of two except as its first address. */
  readonly nocross?: number;
  /** Highest address, included. */
  readonly max?: number;
}

/** See the file's header. Throws `EINVAL` for what is no allocation of `size`. */
export function resizeInPlace(
  core: ArenaCore,
  call: string,
  address: number,
  size: number,
  newSize: number,
  options: ResizeOptions,
): boolean {
  const before = roundSize(core, call, size);
  const after = roundSize(core, call, newSize, 'newSize');
  requireAddress(core, call, address);
  if (!mayReach(call, address, after, options)) return false;
  if (core.caches !== null && before <= core.caches.maxUnits) {
    const cached = core.caches.resize(address, before, after);
    if (cached !== null) return cached;
  }
  core.enter();
  core.refusedBy = REFUSED_BY.none;
  careForArena(core);
  let at = findAllocation(core, call, address, size, before);
  let tag = core.words[at] as number;
  if (after > before && core.quarantinesUntilNeeded && onlyQuarantineHolds(core, tag, after - before)) {
    leaveFrom(core, follower(core, tag), after - before);
    at = findAllocation(core, call, address, size, before);
    tag = core.words[at] as number;
  }
  let done = after === before;
  let inFlight = false;
  if (after > before) {
    done = grow(core, tag, after - before);
  } else if (after < before && hasTagToShrink(core, tag)) {
    done = true;
    inFlight = shrink(core, tag, before - after);
  }
  if (done && after !== before) {
    core.words[core.base + ARENA_CHANGES]!++;
    core.count(COUNT_RESIZES);
    // What goes into quarantine was recorded as the part of a split.
    if (core.words[core.recordingAt] !== 0 && (after > before || !core.quarantines)) {
      recordResize(core, address, before, after);
    }
    if (VERIFY) faultPoint(core.thread, 'vmem.resize.changed');
  }
  core.exit();
  if (core.charges) redeemPledge(core.thread);
  if (after < before) announceSpace(core);
  else if (done) announceTaken(core, NO_WAITER);
  if (inFlight) returnInFlight(core.cores, core.thread.slot);
  if (after < before) shareIdle(core);
  return done;
}

/** False when the range would break a constraint that the caller gives again. */
function mayReach(call: string, address: number, size: number, options: ResizeOptions): boolean {
  requireOptions(call, options);
  rejectUnknownOptions(call, options, ['nocross', 'max']);
  const { nocross = 0, max = ADDRESS_MAX } = options;
  if (nocross !== 0 && !isPowerOfTwo(nocross)) failMisuse(call, { nocross }, 'nocross must be a power of two');
  requireInteger(call, 'max', max, 0, ADDRESS_MAX);
  const last = address + size - 1;
  return last <= max && (nocross === 0 || !crosses(address, last, nocross));
}

function follower(core: ArenaCore, tag: TagIndex): TagIndex {
  return core.words[(tag << TAG_SHIFT) + TAG_SEGMENT_NEXT] as number;
}

/** True when an allocation can grow without the quarantine but not with it. */
function onlyQuarantineHolds(core: ArenaCore, tag: TagIndex, more: number): boolean {
  const next = follower(core, tag);
  const free =
    followerKind(core, tag) === KIND_FREE ? (core.doubles[(next << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number) : 0;
  return free < more && extentFrom(core, next) >= more;
}

function followerKind(core: ArenaCore, tag: TagIndex): number {
  const next = follower(core, tag);
  return next === 0 ? 0 : (core.words[(next << TAG_SHIFT) + TAG_KIND_AT] as number);
}

/** Says why an allocation could not be resized, and throws. A look, after it could not. */
export function failResize(
  core: ArenaCore,
  address: number,
  size: number,
  newSize: number,
  options: ResizeOptions,
): never {
  const call = 'arena.resize';
  const values = { arena: core.name, address, size, newSize };
  const before = roundSize(core, call, size);
  const after = roundSize(core, call, newSize, 'newSize');
  if (!mayReach(call, address, after, options)) {
    fail('ENOMEM', call, { ...values, ...options }, 'it would reach beyond `max`, or cross a multiple of `nocross`');
  }
  const object = core.caches !== null && before <= core.caches.maxUnits ? core.caches.sizeOf(address) : -1;
  if (object >= 0) {
    failMisuse(call, values, `an object of size ${object} of the quantum caches starts here, and keeps its size`);
  }
  const more = after - before;
  const refused = core.refusedBy === REFUSED_BY.owner;
  if (core.charges && more > 0) {
    core.enter();
    const at = findAllocation(core, call, address, size, before);
    const owner = chargedOwner(core, core.words[at] as number);
    core.exit();
    if (owner >= 0) failIfOverQuota(core, call, more, owner, values, refused);
  }
  if (more < 0) fail('ENOMEM', call, values, `${NO_TAGS}: what it would leave needs one, unless it joins free space`);
  return fail('ENOMEM', call, values, `what follows it cannot be had${quarantineInTheWay(core)}`);
}

/** Takes `more` from the free segment behind an allocation. */
function grow(core: ArenaCore, tag: TagIndex, more: number): boolean {
  const { words, doubles, baseDouble, thread } = core;
  const next = words[(tag << TAG_SHIFT) + TAG_SEGMENT_NEXT] as number;
  const nextSizeAt = (next << TAG_DOUBLE_SHIFT) + TAG_SIZE;
  if (followerKind(core, tag) !== KIND_FREE || (doubles[nextSizeAt] as number) < more) return false;
  const owner = core.charges ? chargedOwner(core, tag) : -1;
  if (owner >= 0 && !tryPledge(thread, owner, more)) {
    core.count(COUNT_REFUSALS);
    core.refusedBy = REFUSED_BY.owner;
    return false;
  }
  saveHeader(core);
  freeListRemove(core, next);
  saveTag(core, next);
  saveTag(core, tag);
  if (doubles[nextSizeAt] === more) {
    segmentRemove(core, next);
    putSpare(core, next);
  } else {
    doubles[(next << TAG_DOUBLE_SHIFT) + TAG_START]! += more;
    doubles[nextSizeAt]! -= more;
    freeListInsert(core, next);
  }
  doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE]! += more;
  doubles[baseDouble + ARENA_SIZE_IN_USE]! += more;
  if (owner >= 0) settlePledge(thread);
  return true;
}

/** True when what an allocation leaves goes to the free segment behind it. */
function joinsFollower(core: ArenaCore, tag: TagIndex): boolean {
  return !core.quarantines && followerKind(core, tag) === KIND_FREE;
}

/** True when an allocation can shrink: it needs no tag, or there is one in the reserve now. Nothing is logged yet. */
function hasTagToShrink(core: ArenaCore, tag: TagIndex): boolean {
  if (joinsFollower(core, tag) || (core.words[core.base + ARENA_SPARE_COUNT] as number) > 0) return true;
  return refillReserve(core, 1, true);
}

/** Frees the last `less` of an allocation; see `hasTagToShrink`. True when a span was put in flight. */
function shrink(core: ArenaCore, tag: TagIndex, less: number): boolean {
  const { words, doubles, baseDouble, thread } = core;
  const next = words[(tag << TAG_SHIFT) + TAG_SEGMENT_NEXT] as number;
  const sizeAt = (tag << TAG_DOUBLE_SHIFT) + TAG_SIZE;
  const joins = joinsFollower(core, tag);
  saveHeader(core);
  saveTag(core, tag);
  doubles[sizeAt]! -= less;
  doubles[baseDouble + ARENA_SIZE_IN_USE]! -= less;
  const owner = core.charges ? chargedOwner(core, tag) : -1;
  if (owner >= 0) pledgeBack(thread, owner, less);
  if (joins) {
    freeListRemove(core, next);
    saveTag(core, next);
    doubles[(next << TAG_DOUBLE_SHIFT) + TAG_START]! -= less;
    doubles[(next << TAG_DOUBLE_SHIFT) + TAG_SIZE]! += less;
    freeListInsert(core, next);
    return false;
  }
  const end = (doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_START] as number) + (doubles[sizeAt] as number);
  const rest = freshTag(core, end, less, KIND_FREE);
  segmentInsertAfter(core, rest, tag);
  if (core.quarantines) {
    const kept = doubles[sizeAt] as number;
    if (words[core.recordingAt] !== 0) recordSplit(core, end - kept, kept + less, kept);
    return quarantineTag(core, rest);
  }
  freeListInsert(core, rest);
  return false;
}
