/**
 * Adding spans to an arena and taking them away.
 *
 * A span that comes is two tags: one for the span, behind the tail of the segment list, and one for the free segment
 * that covers it. It goes away only when that segment is whole again.
 */

import { ADDRESS_MAX, fail, failMisuse, VERIFY } from '../base/index.ts';
import {
  ARENA_CHANGES,
  ARENA_HEADER,
  ARENA_SEGMENT_HEAD,
  ARENA_SIZE_TOTAL,
  ARENA_SIZE_TOTAL_WORD,
  ARENA_SPAN_COUNT,
  TAG_ARENA,
  TAG_DOUBLE_SHIFT,
  TAG_KIND_AT,
  TAG_SEGMENT_NEXT,
  TAG_SHIFT,
  TAG_SIZE,
  TAG_START,
} from '../layout/index.ts';
import { faultPoint } from '../sync/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { freeListInsert, freeListRemove } from './free-lists.ts';
import { KIND_FREE, KIND_SPAN_IMPORTED, KIND_SPAN_STATIC, type TagIndex } from './kinds.ts';
import { extentFrom, leaveFrom } from './quarantine-yield.ts';
import { recordSpan } from './recording.ts';
import { segmentInsertAfter, segmentRemove } from './segment-list.ts';
import { announceSpace } from './space-queue.ts';
import { spanContaining, spanOverlap, spanTreeInsert, spanTreeRemove } from './span-tree.ts';
import { putSpare, takeSpare } from './tag-pool.ts';

/**
 * Logs the words of the arena that most operations change; see ARENA_HEADER. What free lists keep without logging may be
 * changed from here on: an undo marks it as stale.
 */
export function saveHeader(core: ArenaCore): void {
  core.journal.log7Marking(core.base + ARENA_HEADER);
}

/** `saveHeader` and `saveTag` at once. */
export function saveHeaderAndTag(core: ArenaCore, tag: TagIndex): void {
  core.journal.log7MarkingAnd8(core.base + ARENA_HEADER, tag << TAG_SHIFT);
}

/** Logs the fields of a tag that its functions change: all up to `stamp`; the links of the segment list are logged there. */
export function saveTag(core: ArenaCore, tag: TagIndex): void {
  core.journal.log8(tag << TAG_SHIFT);
}

/** Throws `EINVAL` unless `[start, start + size)` is a range of whole quanta inside the addresses. */
export function requireRange(core: ArenaCore, call: string, start: number, size: number): void {
  const { quantum } = core;
  if (!Number.isSafeInteger(start) || start < 0 || start % quantum !== 0) {
    failMisuse(call, { start, quantum }, 'start must be an address that is a multiple of the quantum');
  }
  if (!Number.isSafeInteger(size) || size <= 0 || size % quantum !== 0) {
    failMisuse(call, { size, quantum }, 'size must be a multiple of the quantum, and not 0');
  }
  if (start > ADDRESS_MAX - size) {
    failMisuse(call, { start, size }, `the range must end below 2^53`);
  }
}

/** Throws `EINVAL` when the range shares addresses with a span. Under the lock. */
export function requireNoOverlap(core: ArenaCore, call: string, start: number, size: number): void {
  const other = spanOverlap(core, start, size);
  if (other === 0) return;
  const spanStart = core.doubles[(other << TAG_DOUBLE_SHIFT) | TAG_START];
  const spanSize = core.doubles[(other << TAG_DOUBLE_SHIFT) | TAG_SIZE];
  core.exit();
  fail('EINVAL', call, { arena: core.name, start, size }, `overlaps the span ${spanStart}, size ${spanSize}`);
}

/**
 * True when a span has a part of the range, as far as a look without the lock can tell: for a thread that has detached, and can
 * take no locks. Linear in the tags of the arena.
 */
export function seemsSpanned(core: ArenaCore, start: number, size: number): boolean {
  const { words, doubles, base, tables } = core;
  if (words[core.generationAddress] !== core.generation) return false;
  let tag = words[base + ARENA_SEGMENT_HEAD] as number;
  for (let left = tables.tag.rowCount; tag !== 0 && left > 0; left--) {
    const kind = words[(tag << TAG_SHIFT) | TAG_KIND_AT];
    const spanStart = doubles[(tag << TAG_DOUBLE_SHIFT) | TAG_START] as number;
    const spanEnd = spanStart + (doubles[(tag << TAG_DOUBLE_SHIFT) | TAG_SIZE] as number);
    const isSpan = kind === KIND_SPAN_STATIC || kind === KIND_SPAN_IMPORTED;
    if (isSpan && spanStart < start + size && start < spanEnd) return true;
    tag = words[(tag << TAG_SHIFT) | TAG_SEGMENT_NEXT] as number;
  }
  return false;
}

/** Brings in a checked span of the given kind; returns its tag. Under the lock, with two tags in the reserve. */
export function insertSpan(core: ArenaCore, start: number, size: number, kind: number): TagIndex {
  const { words, doubles, base, baseDouble } = core;
  saveHeader(core);
  saveSpanTotals(core);
  const span = freshTag(core, start, size, kind);
  segmentInsertAfter(core, span, 0);
  const free = freshTag(core, start, size, KIND_FREE);
  segmentInsertAfter(core, free, span);
  if (VERIFY) faultPoint(core.thread, 'vmem.add.linked');
  spanTreeInsert(core, span);
  freeListInsert(core, free);
  words[base + ARENA_SPAN_COUNT]!++;
  words[base + ARENA_CHANGES]!++;
  doubles[baseDouble + ARENA_SIZE_TOTAL]! += size;
  if (words[core.recordingAt] !== 0) recordSpan(core, 'add', start, size);
  return span;
}

/** Takes away a span whose one free segment, in no list, is `segment`. Under the lock; header and segment are logged. */
export function removeSpan(core: ArenaCore, span: TagIndex, segment: TagIndex): void {
  const { words, doubles, base, baseDouble } = core;
  saveSpanTotals(core);
  const start = doubles[(span << TAG_DOUBLE_SHIFT) | TAG_START] as number;
  const size = doubles[(span << TAG_DOUBLE_SHIFT) | TAG_SIZE] as number;
  if (words[core.recordingAt] !== 0) recordSpan(core, 'remove', start, size);
  doubles[baseDouble + ARENA_SIZE_TOTAL]! -= size;
  words[base + ARENA_SPAN_COUNT]!--;
  words[base + ARENA_CHANGES]!++;
  spanTreeRemove(core, span);
  segmentRemove(core, segment);
  segmentRemove(core, span);
  putSpare(core, segment);
  putSpare(core, span);
}

/** A tag from the reserve with its first fields set. The header is logged. */
export function freshTag(core: ArenaCore, start: number, size: number, kind: number): TagIndex {
  const { words, doubles } = core;
  const tag = takeSpare(core);
  doubles[(tag << TAG_DOUBLE_SHIFT) | TAG_START] = start;
  doubles[(tag << TAG_DOUBLE_SHIFT) | TAG_SIZE] = size;
  words[(tag << TAG_SHIFT) | TAG_KIND_AT] = kind;
  words[(tag << TAG_SHIFT) | TAG_ARENA] = core.row + 1;
  return tag;
}

/** Logs what only spans change. */
function saveSpanTotals(core: ArenaCore): void {
  core.journal.logRange(core.base + ARENA_SIZE_TOTAL_WORD, 2);
  core.journal.log1(core.base + ARENA_SPAN_COUNT);
}

/** Takes a static span away that is free. Throws `EINVAL` when there is none at `start`, `EBUSY` with allocations in it. */
export function removeStaticSpan(core: ArenaCore, start: number): void {
  const { words, doubles } = core;
  core.enter();
  const span = spanContaining(core, start);
  const found =
    span !== 0 &&
    doubles[(span << TAG_DOUBLE_SHIFT) | TAG_START] === start &&
    words[(span << TAG_SHIFT) | TAG_KIND_AT] === KIND_SPAN_STATIC;
  let whole = found && isWhole(core, span);
  const segmentOf = words[(span << TAG_SHIFT) + TAG_SEGMENT_NEXT] as number;
  const spanSize = doubles[(span << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number;
  if (found && !whole && core.quarantines && extentFrom(core, segmentOf) === spanSize) {
    leaveFrom(core, segmentOf, spanSize);
    whole = isWhole(core, span);
  }
  if (!whole) {
    core.exit();
    if (found) announceSpace(core);
    const values = { arena: core.name, start };
    if (!found) failMisuse('arena.remove', values, 'no span that `add` or `create` brought starts at this address');
    fail('EBUSY', 'arena.remove', values, 'the span has live allocations');
  }
  const segment = words[(span << TAG_SHIFT) | TAG_SEGMENT_NEXT] as number;
  saveHeader(core);
  freeListRemove(core, segment);
  saveTag(core, segment);
  removeSpan(core, span, segment);
  core.exit();
  // The limit of all spans leaves room for an import now.
  announceSpace(core);
}

/** True when all of a span is one free segment. */
function isWhole(core: ArenaCore, span: TagIndex): boolean {
  const { words, doubles } = core;
  const segment = words[(span << TAG_SHIFT) | TAG_SEGMENT_NEXT] as number;
  if (words[(segment << TAG_SHIFT) | TAG_KIND_AT] !== KIND_FREE) return false;
  return doubles[(segment << TAG_DOUBLE_SHIFT) | TAG_SIZE] === doubles[(span << TAG_DOUBLE_SHIFT) | TAG_SIZE];
}
