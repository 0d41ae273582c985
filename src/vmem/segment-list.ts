/**
 * The segment list of an arena: every boundary tag in use, in the order that coalescing needs.
 *
 * PROBLEM     A freed segment must find its neighbours at once, and must not be joined with those of another span.
 * STRUCTURE   span tag, its segments by address, the next span tag, its segments ...; spans in the order of their coming.
 *
 *               head -> [span 0..99] [busy 0..9] [free 10..99] [span 500..599] [free 500..599] <- tail
 *
 * INVARIANTS  I1 the segments behind a span tag cover the span without gap or overlap.   I2 links go both ways.
 *             I3 no two free segments are neighbours in one span.
 * LOCKING     The arena's lock. The tag itself is logged by the caller, neighbours and ends of the list here.
 * COSTS       Two neighbours a change.
 * FAILURE     A broken link is an `InvariantError`.
 * REJECTED    Spans in address order: the order of coming is what the search order of `xfreeAll` and the traces rest on;
 *             the tree of spans is there for addresses.
 * REFERENCES  Knuth, TAOCP 2.5, boundary tags.
 */

import { assert } from '../base/index.ts';
import {
  ARENA_SEGMENT_HEAD,
  ARENA_SEGMENT_TAIL,
  TAG_SEGMENT_NEXT,
  TAG_SEGMENT_PREVIOUS,
  TAG_SHIFT,
} from '../layout/index.ts';
import type { ArenaCore } from './arena-core.ts';
import type { TagIndex } from './kinds.ts';

/** Links a tag behind `previous`, or at the tail for 0. */
export function segmentInsertAfter(core: ArenaCore, tag: TagIndex, previous: TagIndex): void {
  const { words, journal, base } = core;
  const record = tag << TAG_SHIFT;
  const before = previous === 0 ? (words[base + ARENA_SEGMENT_TAIL] as number) : previous;
  const forwardAt = (before << TAG_SHIFT) | TAG_SEGMENT_NEXT;
  const after = before === 0 ? 0 : (words[forwardAt] as number);
  words[record | TAG_SEGMENT_PREVIOUS] = before;
  words[record | TAG_SEGMENT_NEXT] = after;
  if (after === 0) {
    journal.log1(base + ARENA_SEGMENT_TAIL);
    words[base + ARENA_SEGMENT_TAIL] = tag;
  } else {
    const backAt = (after << TAG_SHIFT) | TAG_SEGMENT_PREVIOUS;
    assert(words[backAt] === before, 'vmem/segment-list I2: the successor points back');
    journal.log1(backAt);
    words[backAt] = tag;
  }
  if (before === 0) {
    journal.log1(base + ARENA_SEGMENT_HEAD);
    words[base + ARENA_SEGMENT_HEAD] = tag;
  } else {
    journal.log1(forwardAt);
    words[forwardAt] = tag;
  }
}

/** Links a tag in front of one that is not the head: a segment always has its span in front. */
export function segmentInsertBefore(core: ArenaCore, tag: TagIndex, next: TagIndex): void {
  const { words, journal } = core;
  const record = tag << TAG_SHIFT;
  const backAt = (next << TAG_SHIFT) | TAG_SEGMENT_PREVIOUS;
  const previous = words[backAt] as number;
  const forwardAt = (previous << TAG_SHIFT) | TAG_SEGMENT_NEXT;
  assert(previous !== 0 && words[forwardAt] === next, 'vmem/segment-list I2: the predecessor points here');
  journal.log2(backAt, forwardAt);
  words[record | TAG_SEGMENT_PREVIOUS] = previous;
  words[record | TAG_SEGMENT_NEXT] = next;
  words[forwardAt] = tag;
  words[backAt] = tag;
}

/** Takes off the list whatever lies between two tags; 0 for `next` is the end. The links of what lay there stay. */
export function segmentJoin(core: ArenaCore, previous: TagIndex, next: TagIndex): void {
  const { words, journal, base } = core;
  const forwardAt = (previous << TAG_SHIFT) | TAG_SEGMENT_NEXT;
  const backAt = next === 0 ? base + ARENA_SEGMENT_TAIL : (next << TAG_SHIFT) | TAG_SEGMENT_PREVIOUS;
  journal.log2(forwardAt, backAt);
  words[forwardAt] = next;
  words[backAt] = previous;
}

/** Takes a tag off the list. Its own links are left as they are. */
export function segmentRemove(core: ArenaCore, tag: TagIndex): void {
  const { words, journal, base } = core;
  const record = tag << TAG_SHIFT;
  const previous = words[record | TAG_SEGMENT_PREVIOUS] as number;
  const next = words[record | TAG_SEGMENT_NEXT] as number;
  const forwardAt = (previous << TAG_SHIFT) | TAG_SEGMENT_NEXT;
  const backAt = (next << TAG_SHIFT) | TAG_SEGMENT_PREVIOUS;
  assert(previous === 0 || words[forwardAt] === tag, 'vmem/segment-list I2: the predecessor points here');
  assert(next === 0 || words[backAt] === tag, 'vmem/segment-list I2: the successor points back');
  if (previous === 0) {
    journal.log1(base + ARENA_SEGMENT_HEAD);
    words[base + ARENA_SEGMENT_HEAD] = next;
  } else {
    journal.log1(forwardAt);
    words[forwardAt] = next;
  }
  if (next === 0) {
    journal.log1(base + ARENA_SEGMENT_TAIL);
    words[base + ARENA_SEGMENT_TAIL] = previous;
  } else {
    journal.log1(backAt);
    words[backAt] = previous;
  }
}
