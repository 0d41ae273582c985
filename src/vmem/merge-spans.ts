/**
 * Merging static spans that touch.
 *
 * PROBLEM     Spans that were added one after another lie side by side, and a request that needs parts of both fails: free
 *             segments are joined within a span only.
 * STRUCTURE   [span 0..49][busy 0..9][free 10..49] ... [span 50..99][free 50..69][busy 70..99]
 *             [span 0..99][busy 0..9][free 10..69][busy 70..99] ...
 *
 *             1 the second span leaves the tree, the first one grows   2 the segments of the second follow those of the first
 *             3 free segments that meet are joined
 * INVARIANTS  I1 allocations keep their addresses, and every segment stays in a span that covers it.
 * LOCKING     The arena's lock, for all pairs; each pair is committed by itself.
 * COSTS       Linear in the number of tags. For quiet moments.
 * FAILURE     `EINVAL` for an address where no static span starts that touches one in front of it.
 * REJECTED    Merging whenever a span is added: `remove` takes away what `add` brought, unless somebody asked otherwise.
 *             Merging imported spans: they go back as they came.
 * REFERENCES  Weakness of the source: adjacent spans stay apart for ever; docs/differences.md.
 */

import { failMisuse, VERIFY } from '../base/index.ts';
import {
  ARENA_CHANGES,
  ARENA_SEGMENT_HEAD,
  ARENA_SEGMENT_TAIL,
  ARENA_SPAN_COUNT,
  TAG_DOUBLE_SHIFT,
  TAG_KIND_AT,
  TAG_SEGMENT_NEXT,
  TAG_SEGMENT_PREVIOUS,
  TAG_SHIFT,
  TAG_SIZE,
  TAG_START,
} from '../layout/index.ts';
import { faultPoint } from '../sync/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { freeListInsert, freeListRemove } from './free-lists.ts';
import { COUNT_MERGES, KIND_FREE, KIND_SPAN_IMPORTED, KIND_SPAN_STATIC, type TagIndex } from './kinds.ts';
import { recordMerge } from './recording.ts';
import { segmentRemove } from './segment-list.ts';
import { announceSpace } from './space-queue.ts';
import { spanTreeRemove } from './span-tree.ts';
import { saveHeader, saveTag } from './spans.ts';
import { putSpare } from './tag-pool.ts';

/** Merges every static span with the one that it touches, or only the one at `address`. Returns how many were merged. */
export function mergeSpans(core: ArenaCore, address: number | undefined): number {
  core.enter();
  const spans = staticSpans(core);
  let merged = 0;
  let first = spans[0] ?? 0;
  for (const second of spans.slice(1)) {
    const start = startOf(core, second);
    if (startOf(core, first) + sizeOf(core, first) === start && (address === undefined || address === start)) {
      mergePair(core, first, second);
      core.thread.commit();
      merged++;
    } else {
      first = second;
    }
  }
  core.exit();
  if (merged > 0) announceSpace(core);
  else if (address !== undefined) {
    const rule = 'no span that `add` or `create` brought starts here and touches another one';
    failMisuse('arena.mergeSpans', { arena: core.name, address }, rule);
  }
  return merged;
}

function startOf(core: ArenaCore, tag: TagIndex): number {
  return core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_START] as number;
}

function sizeOf(core: ArenaCore, tag: TagIndex): number {
  return core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number;
}

function kindOf(core: ArenaCore, tag: TagIndex): number {
  return core.words[(tag << TAG_SHIFT) + TAG_KIND_AT] as number;
}

function nextOf(core: ArenaCore, tag: TagIndex): TagIndex {
  return core.words[(tag << TAG_SHIFT) + TAG_SEGMENT_NEXT] as number;
}

/** Static spans by address. */
function staticSpans(core: ArenaCore): TagIndex[] {
  const spans: TagIndex[] = [];
  for (let tag = core.words[core.base + ARENA_SEGMENT_HEAD] as number; tag !== 0; tag = nextOf(core, tag)) {
    if (kindOf(core, tag) === KIND_SPAN_STATIC) spans.push(tag);
  }
  return spans.sort((a, b) => startOf(core, a) - startOf(core, b));
}

/** The last segment of a span. */
function lastSegment(core: ArenaCore, span: TagIndex): TagIndex {
  let tag = nextOf(core, span);
  for (let next = nextOf(core, tag); next !== 0; next = nextOf(core, tag)) {
    const kind = kindOf(core, next);
    if (kind === KIND_SPAN_STATIC || kind === KIND_SPAN_IMPORTED) break;
    tag = next;
  }
  return tag;
}

/** Makes `after` the successor of `before` in the segment list; 0 stands for its ends. Logged. */
function link(core: ArenaCore, before: TagIndex, after: TagIndex): void {
  const { words, journal, base } = core;
  const forwardAt = before === 0 ? base + ARENA_SEGMENT_HEAD : (before << TAG_SHIFT) + TAG_SEGMENT_NEXT;
  const backAt = after === 0 ? base + ARENA_SEGMENT_TAIL : (after << TAG_SHIFT) + TAG_SEGMENT_PREVIOUS;
  journal.log2(forwardAt, backAt);
  words[forwardAt] = after;
  words[backAt] = before;
}

function mergePair(core: ArenaCore, first: TagIndex, second: TagIndex): void {
  const { words, doubles, journal, base } = core;
  const start = startOf(core, second);
  // 1.
  saveHeader(core);
  saveTag(core, first);
  saveTag(core, second);
  journal.log1(base + ARENA_SPAN_COUNT);
  spanTreeRemove(core, second);
  doubles[(first << TAG_DOUBLE_SHIFT) + TAG_SIZE]! += sizeOf(core, second);
  words[base + ARENA_SPAN_COUNT]!--;
  words[base + ARENA_CHANGES]!++;
  // 2.
  const front = lastSegment(core, first);
  const rear = nextOf(core, second);
  const last = lastSegment(core, second);
  if (nextOf(core, front) !== second) {
    const before = words[(second << TAG_SHIFT) + TAG_SEGMENT_PREVIOUS] as number;
    link(core, before, nextOf(core, last));
    link(core, last, nextOf(core, front));
  }
  link(core, front, rear);
  putSpare(core, second);
  if (VERIFY) faultPoint(core.thread, 'vmem.merge.linked');
  // 3.
  if (kindOf(core, front) === KIND_FREE && kindOf(core, rear) === KIND_FREE) {
    freeListRemove(core, rear);
    freeListRemove(core, front);
    saveTag(core, front);
    segmentRemove(core, rear);
    doubles[(front << TAG_DOUBLE_SHIFT) + TAG_SIZE]! += sizeOf(core, rear);
    putSpare(core, rear);
    freeListInsert(core, front);
  }
  core.count(COUNT_MERGES);
  if (words[core.recordingAt] !== 0) recordMerge(core, start);
}
