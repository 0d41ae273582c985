/**
 * Cutting an allocation out of a free segment: the front of the segment stays free, the allocation is its low part behind
 * that, the rest stays free; remainders go to the heads of their lists, front first.
 */

import { assert, VERIFY } from '../base/index.ts';
import {
  ARENA_BUSY_TAGS,
  ARENA_BUSY_TAGS_PEAK,
  ARENA_CHANGES,
  ARENA_IDLE_HEAD,
  ARENA_SIZE_IN_USE,
  ARENA_SPARE_COUNT,
  TAG_DOUBLE_SHIFT,
  TAG_KIND_AT,
  TAG_OWNER,
  TAG_SHIFT,
  TAG_SIZE,
  TAG_START,
} from '../layout/index.ts';
import { faultPoint } from '../sync/index.ts';
import { hashInsert } from './allocation-hash.ts';
import type { ArenaCore } from './arena-core.ts';
import { noteCharge } from './charges.ts';
import { type Constraints, fitSegment } from './fit.ts';
import { freeListInsert, freeListRemove } from './free-lists.ts';
import { idleRemove, wholeSpanOf } from './idle-spans.ts';
import { type ArenaIndex, COUNT_ALLOCATIONS, KIND_BUSY, KIND_FREE, STRATEGY_NEXT, type TagIndex } from './kinds.ts';
import { moveCursor, nextPlace } from './search-trees.ts';
import { segmentInsertBefore } from './segment-list.ts';
import { freshTag, saveHeaderAndTag } from './spans.ts';
import { recordImport } from './transfer.ts';

/** Importer of an allocation that a user asked for. */
export const NO_IMPORTER = -1;

/** Makes an allocation out of a free segment that holds it. Returns its address, or -1 when there are too few tags. */
export function carve(
  core: ArenaCore,
  segment: TagIndex,
  size: number,
  strategy: number,
  constraints: Constraints | null,
  importer: ArenaIndex,
): number {
  const { words, doubles, base, baseDouble } = core;
  const startAt = (segment << TAG_DOUBLE_SHIFT) | TAG_START;
  const sizeAt = (segment << TAG_DOUBLE_SHIFT) | TAG_SIZE;
  const start = doubles[startAt] as number;
  const segmentSize = doubles[sizeAt] as number;
  let address = start;
  if (strategy === STRATEGY_NEXT) address = nextPlace(core, segment, size, constraints, true);
  else if (constraints !== null) address = fitSegment(start, segmentSize, size, constraints);
  const front = address - start;
  const rear = segmentSize - front - size;
  assert(front >= 0 && rear >= 0, 'vmem/carve: the chosen segment holds the request');
  if ((words[base + ARENA_SPARE_COUNT] as number) < (front > 0 ? 1 : 0) + (rear > 0 ? 1 : 0)) return -1;
  saveHeaderAndTag(core, segment);
  if (words[base + ARENA_IDLE_HEAD] !== 0) leaveIdle(core, segment);
  freeListRemove(core, segment);
  if (front > 0) {
    const frontTag = freshTag(core, start, front, KIND_FREE);
    doubles[startAt] = address;
    doubles[sizeAt] = segmentSize - front;
    freeListInsert(core, frontTag);
    segmentInsertBefore(core, frontTag, segment);
  }
  if (VERIFY) faultPoint(core.thread, 'vmem.alloc.carved');
  let busy = segment;
  if (rear > 0) {
    busy = freshTag(core, address, size, KIND_BUSY);
    doubles[startAt] = address + size;
    doubles[sizeAt] = rear;
    freeListInsert(core, segment);
    segmentInsertBefore(core, busy, segment);
  } else {
    words[(segment << TAG_SHIFT) | TAG_KIND_AT] = KIND_BUSY;
  }
  if (core.charges) noteCharge(core, busy, importer === NO_IMPORTER);
  words[(busy << TAG_SHIFT) | TAG_OWNER] = importer === NO_IMPORTER ? core.thread.attachment : -1 - importer;
  hashInsert(core, busy);
  const busyTags = (words[base + ARENA_BUSY_TAGS] as number) + 1;
  words[base + ARENA_BUSY_TAGS] = busyTags;
  if (busyTags > (words[base + ARENA_BUSY_TAGS_PEAK] as number)) words[base + ARENA_BUSY_TAGS_PEAK] = busyTags;
  words[base + ARENA_CHANGES]!++;
  doubles[baseDouble + ARENA_SIZE_IN_USE]! += size;
  core.count(COUNT_ALLOCATIONS);
  if (strategy === STRATEGY_NEXT) moveCursor(core, address + size);
  if (VERIFY) faultPoint(core.thread, 'vmem.alloc.busy');
  if (importer !== NO_IMPORTER) recordImport(core, address, size);
  return address;
}

/** A span that an allocation is made from is idle no longer. */
function leaveIdle(core: ArenaCore, segment: TagIndex): void {
  const span = wholeSpanOf(core, segment);
  if (span !== 0) idleRemove(core, span);
}
