/**
 * Giving an allocation back to its arena.
 *
 * STRUCTURE   1 out of the hash, perhaps into quarantine   2 the free neighbour in front takes in the freed segment and the free
 *             one behind   3 or the free neighbour behind takes it in   4 an imported span that is one free segment again is
 *             kept, so that a load that comes and goes does not import each time; if that makes too many, the smallest one
 *             is removed and put in flight to its source (idle-spans.ts)
 * LOCKING     The arena's lock.
 * COSTS       At most two neighbours. A neighbour stays and the freed tag goes, because only the neighbour's own links lead away
 *             from what is at hand: taking the neighbour off the segment list would touch the tag behind it, a cache miss.
 */

import { assert, VERIFY } from '../base/index.ts';
import {
  ARENA_BUSY_TAGS,
  ARENA_CHANGES,
  ARENA_IDLE_HEAD,
  ARENA_SIZE_IN_USE,
  TAG_DOUBLE_SHIFT,
  TAG_KIND_AT,
  TAG_LINK_NEXT,
  TAG_SEGMENT_NEXT,
  TAG_SEGMENT_PREVIOUS,
  TAG_SHIFT,
  TAG_SIZE,
  TAG_START,
} from '../layout/index.ts';
import { faultPoint } from '../sync/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { dropCharge } from './charges.ts';
import { freeListInsert, freeListRemove } from './free-lists.ts';
import { idleInsert, idleRemove, idleSurplus, wholeSpanOf } from './idle-spans.ts';
import { COUNT_RELEASES, KIND_BUSY, KIND_FREE, type TagIndex } from './kinds.ts';
import { quarantineTag } from './quarantine.ts';
import { recordFree } from './recording.ts';
import { segmentJoin } from './segment-list.ts';
import { removeSpan, saveHeaderAndTag, saveTag } from './spans.ts';
import { putSpare } from './tag-pool.ts';
import { recordRelease } from './transfer.ts';

/** Frees the allocation that the word at `at` points to (see hashFind). True when a span was put in flight. */
export function freeTag(core: ArenaCore, at: number): boolean {
  if (!core.quarantines) return freeTagNow(core, at);
  const tag = core.words[at] as number;
  saveHeaderAndTag(core, tag);
  unbusyTag(core, at, tag);
  return quarantineTag(core, tag);
}

/** The same past the quarantine. */
export function freeTagNow(core: ArenaCore, at: number): boolean {
  const tag = core.words[at] as number;
  const heir = heirOf(core, tag);
  saveHeaderAndTag(core, heir);
  unbusyTag(core, at, tag);
  return joinTag(core, tag, heir);
}

/** Steps 2 to 4, for a tag of kind free in no list; its kind and the header are logged. True as for `freeTag`. */
export function settleTag(core: ArenaCore, tag: TagIndex): boolean {
  const heir = heirOf(core, tag);
  saveTag(core, heir);
  return joinTag(core, tag, heir);
}

/** The tag that a freed segment goes on as: its free neighbour's, the one in front first, or its own. */
function heirOf(core: ArenaCore, tag: TagIndex): TagIndex {
  const { words } = core;
  const record = tag << TAG_SHIFT;
  const next = words[record | TAG_SEGMENT_NEXT] as number;
  const previous = words[record | TAG_SEGMENT_PREVIOUS] as number;
  // Both kinds are read before either decides: far from each other, the two tags come from memory together.
  const nextKind = words[(next << TAG_SHIFT) | TAG_KIND_AT] as number;
  const previousKind = words[(previous << TAG_SHIFT) | TAG_KIND_AT] as number;
  if (previousKind === KIND_FREE) return previous;
  return nextKind === KIND_FREE && next !== 0 ? next : tag;
}

/** Step 1: of kind free and in no list, and its kind logged. The header is logged. */
function unbusyTag(core: ArenaCore, at: number, tag: TagIndex): void {
  const { words, doubles, base, baseDouble } = core;
  const record = tag << TAG_SHIFT;
  assert(words[record | TAG_KIND_AT] === KIND_BUSY, 'vmem/allocation-hash I1: a chained tag is busy');
  core.journal.log2(at, record | TAG_KIND_AT);
  words[at] = words[record | TAG_LINK_NEXT] as number;
  words[base + ARENA_BUSY_TAGS]!--;
  words[base + ARENA_CHANGES]!++;
  doubles[baseDouble + ARENA_SIZE_IN_USE]! -= doubles[(tag << TAG_DOUBLE_SHIFT) | TAG_SIZE] as number;
  words[record | TAG_KIND_AT] = KIND_FREE;
  if (core.charges) dropCharge(core, tag);
}

/** Steps 2 to 4; header and heir are logged. True as for `freeTag`. */
function joinTag(core: ArenaCore, tag: TagIndex, heir: TagIndex): boolean {
  const { words } = core;
  if (words[core.recordingAt] !== 0) recordFree(core, tag);
  if (heir !== tag) {
    const previous = words[(tag << TAG_SHIFT) | TAG_SEGMENT_PREVIOUS] as number;
    if (heir === previous) growForward(core, heir, tag);
    else growBackward(core, heir, tag, previous);
  }
  if (VERIFY) faultPoint(core.thread, 'vmem.free.coalesced');
  // 4.
  if (!core.releases) {
    freeListInsert(core, heir);
    return false;
  }
  const span = wholeSpanOf(core, heir);
  const surplus = span === 0 || core.seed ? span : surplusOf(core, span);
  if (span !== 0 && surplus === span) {
    releaseSpan(core, span, heir);
    return true;
  }
  if (span !== 0) idleInsert(core, span);
  freeListInsert(core, heir);
  if (surplus !== 0) releaseIdleSpan(core, surplus);
  return surplus !== 0;
}

/** Step 2: a free segment takes in the freed one behind it, and a free one behind that. It is logged, and in no list then. */
function growForward(core: ArenaCore, heir: TagIndex, tag: TagIndex): void {
  const { words, doubles } = core;
  const next = words[(tag << TAG_SHIFT) | TAG_SEGMENT_NEXT] as number;
  const sizeAt = (heir << TAG_DOUBLE_SHIFT) | TAG_SIZE;
  freeListRemove(core, heir);
  let size = (doubles[sizeAt] as number) + (doubles[(tag << TAG_DOUBLE_SHIFT) | TAG_SIZE] as number);
  let after = next;
  if (next !== 0 && words[(next << TAG_SHIFT) | TAG_KIND_AT] === KIND_FREE) {
    freeListRemove(core, next);
    size += doubles[(next << TAG_DOUBLE_SHIFT) | TAG_SIZE] as number;
    after = words[(next << TAG_SHIFT) | TAG_SEGMENT_NEXT] as number;
    putSpare(core, next);
  }
  doubles[sizeAt] = size;
  segmentJoin(core, heir, after);
  putSpare(core, tag);
}

/** Step 3: a free segment takes in the freed one in front of it. It is logged, and in no list then. */
function growBackward(core: ArenaCore, heir: TagIndex, tag: TagIndex, previous: TagIndex): void {
  const { doubles } = core;
  const heirAt = heir << TAG_DOUBLE_SHIFT;
  const tagAt = tag << TAG_DOUBLE_SHIFT;
  freeListRemove(core, heir);
  doubles[heirAt | TAG_START] = doubles[tagAt | TAG_START] as number;
  doubles[heirAt | TAG_SIZE]! += doubles[tagAt | TAG_SIZE] as number;
  segmentJoin(core, previous, heir);
  putSpare(core, tag);
}

function surplusOf(core: ArenaCore, span: TagIndex): TagIndex {
  return core.words[core.base + ARENA_IDLE_HEAD] !== 0 && core.canRelease ? idleSurplus(core, span) : 0;
}

/** Takes an idle span off its list and puts it in flight. The header is logged. */
export function releaseIdleSpan(core: ArenaCore, span: TagIndex): void {
  const segment = core.words[(span << TAG_SHIFT) | TAG_SEGMENT_NEXT] as number;
  idleRemove(core, span);
  freeListRemove(core, segment);
  saveTag(core, segment);
  releaseSpan(core, span, segment);
}

/** Removes an imported span with its one free segment, which is on no list, and puts it in flight. */
export function releaseSpan(core: ArenaCore, span: TagIndex, segment: TagIndex): void {
  const start = core.doubles[(span << TAG_DOUBLE_SHIFT) | TAG_START] as number;
  const size = core.doubles[(span << TAG_DOUBLE_SHIFT) | TAG_SIZE] as number;
  removeSpan(core, span, segment);
  recordRelease(core, start, size);
  core.count(COUNT_RELEASES);
  if (VERIFY) faultPoint(core.thread, 'vmem.free.released');
}
