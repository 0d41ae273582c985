/**
 * Giving an allocation back to its arena.
 *
 * STRUCTURE   1 out of the hash, perhaps into quarantine   2 join the free neighbour behind   3 join the free neighbour in front   4 an imported span
 *             that is one free segment again is kept, so that a load that comes and goes does not import each time; if
 *             that makes too many, the smallest one is removed and put in flight to its source (idle-spans.ts)
 * LOCKING     The arena's lock.
 * COSTS       At most two neighbours.
 */

import { assert, VERIFY } from '../base/index.ts';
import {
  ARENA_BUSY_TAGS,
  ARENA_CHANGES,
  ARENA_IDLE_HEAD,
  ARENA_SIZE_IN_USE,
  TAG_DOUBLE_SHIFT,
  TAG_KIND_AT,
  TAG_SEGMENT_NEXT,
  TAG_SEGMENT_PREVIOUS,
  TAG_SHIFT,
  TAG_SIZE,
  TAG_START,
} from '../layout/index.ts';
import { faultPoint } from '../sync/index.ts';
import { hashRemove } from './allocation-hash.ts';
import type { ArenaCore } from './arena-core.ts';
import { dropCharge } from './charges.ts';
import { freeListInsert, freeListRemove } from './free-lists.ts';
import { idleInsert, idleRemove, idleSurplus, wholeSpanOf } from './idle-spans.ts';
import { COUNT_RELEASES, KIND_BUSY, KIND_FREE, type TagIndex } from './kinds.ts';
import { quarantineTag } from './quarantine.ts';
import { recordFree } from './recording.ts';
import { segmentRemove } from './segment-list.ts';
import { removeSpan, saveHeader, saveTag } from './spans.ts';
import { putSpare } from './tag-pool.ts';
import { recordRelease } from './transfer.ts';

/** Frees the allocation that the word at `at` points to (see hashFind). True when a span was put in flight. */
export function freeTag(core: ArenaCore, at: number): boolean {
  const tag = unbusyTag(core, at);
  return core.quarantines ? quarantineTag(core, tag) : settleTag(core, tag);
}

/** The same past the quarantine. */
export function freeTagNow(core: ArenaCore, at: number): boolean {
  return settleTag(core, unbusyTag(core, at));
}

/** Step 1: the tag, logged, of kind free and in no list. */
function unbusyTag(core: ArenaCore, at: number): TagIndex {
  const { words, doubles, base, baseDouble } = core;
  // 1.
  const tag = words[at] as number;
  const record = tag << TAG_SHIFT;
  const sizeAt = (tag << TAG_DOUBLE_SHIFT) + TAG_SIZE;
  assert(words[record + TAG_KIND_AT] === KIND_BUSY, 'vmem/allocation-hash I1: a chained tag is busy');
  saveHeader(core);
  hashRemove(core, at);
  saveTag(core, tag);
  words[base + ARENA_BUSY_TAGS]!--;
  words[base + ARENA_CHANGES]!++;
  doubles[baseDouble + ARENA_SIZE_IN_USE]! -= doubles[sizeAt] as number;
  words[record + TAG_KIND_AT] = KIND_FREE;
  if (core.charges) dropCharge(core, tag);
  return tag;
}

/** Steps 2 to 4, for a tag of kind free that is logged and in no list; the header is logged. True as for `freeTag`. */
export function settleTag(core: ArenaCore, tag: TagIndex): boolean {
  const { words, doubles } = core;
  const record = tag << TAG_SHIFT;
  if (words[core.recordingAt] !== 0) recordFree(core, tag);
  // 2.
  const next = words[record + TAG_SEGMENT_NEXT] as number;
  if (next !== 0 && words[(next << TAG_SHIFT) + TAG_KIND_AT] === KIND_FREE) absorb(core, tag, next);
  // 3.
  const previous = words[record + TAG_SEGMENT_PREVIOUS] as number;
  if (words[(previous << TAG_SHIFT) + TAG_KIND_AT] === KIND_FREE) {
    doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_START] = doubles[(previous << TAG_DOUBLE_SHIFT) + TAG_START] as number;
    absorb(core, tag, previous);
  }
  if (VERIFY) faultPoint(core.thread, 'vmem.free.coalesced');
  // 4.
  const span = core.releases ? wholeSpanOf(core, tag) : 0;
  const surplus = span === 0 || core.seed ? span : surplusOf(core, span);
  if (span !== 0 && surplus === span) {
    releaseSpan(core, span, tag);
    return true;
  }
  if (span !== 0) idleInsert(core, span);
  freeListInsert(core, tag);
  if (surplus !== 0) releaseIdleSpan(core, surplus);
  return surplus !== 0;
}

function surplusOf(core: ArenaCore, span: TagIndex): TagIndex {
  return core.words[core.base + ARENA_IDLE_HEAD] !== 0 && core.canRelease ? idleSurplus(core, span) : 0;
}

/** Joins a free neighbour with the segment that is being freed. */
function absorb(core: ArenaCore, tag: TagIndex, neighbour: TagIndex): void {
  const { doubles } = core;
  freeListRemove(core, neighbour);
  segmentRemove(core, neighbour);
  doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE]! += doubles[(neighbour << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number;
  putSpare(core, neighbour);
}

/** Takes an idle span off its list and puts it in flight. The header is logged. */
export function releaseIdleSpan(core: ArenaCore, span: TagIndex): void {
  const segment = core.words[(span << TAG_SHIFT) + TAG_SEGMENT_NEXT] as number;
  idleRemove(core, span);
  freeListRemove(core, segment);
  saveTag(core, segment);
  releaseSpan(core, span, segment);
}

/** Removes an imported span with its one free segment, which is on no list, and puts it in flight. */
export function releaseSpan(core: ArenaCore, span: TagIndex, segment: TagIndex): void {
  const start = core.doubles[(span << TAG_DOUBLE_SHIFT) + TAG_START] as number;
  const size = core.doubles[(span << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number;
  removeSpan(core, span, segment);
  recordRelease(core, start, size);
  core.count(COUNT_RELEASES);
  if (VERIFY) faultPoint(core.thread, 'vmem.free.released');
}
