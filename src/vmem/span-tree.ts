/**
 * The spans of an arena by address: a treap.
 *
 * PROBLEM     A new span must not overlap another one, and an address must find its span, also with 10^4 spans.
 * STRUCTURE   A binary tree over span tags: `linkPrevious` is the left child, `linkNext` the right one, keys are first
 *             addresses. `stamp` is the priority, a hash of the address: parents have the higher one, so the shape does
 *             not depend on the order of coming.
 * INVARIANTS  I1 in-order addresses ascend and spans do not overlap.   I2 no child has a higher priority than its parent.
 * LOCKING     The arena's lock. The header and the span's own tag are logged by the caller, other tags here.
 * COSTS       Expected 2 ln n steps.
 * FAILURE     `spanOverlap` names the span that is in the way.
 * REJECTED    A balanced tree (more cases, more journal entries); a sorted list (linear).
 * REFERENCES  Seidel and Aragon 1996, randomized search trees.
 */

import {
  ARENA_SPAN_ROOT,
  TAG_DOUBLE_SHIFT,
  TAG_LINK_NEXT,
  TAG_LINK_PREVIOUS,
  TAG_SHIFT,
  TAG_SIZE,
  TAG_STAMP,
  TAG_START,
} from '../layout/index.ts';
import { hashOf } from './allocation-hash.ts';
import type { ArenaCore } from './arena-core.ts';
import type { TagIndex } from './kinds.ts';

function startOf(core: ArenaCore, tag: TagIndex): number {
  return core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_START] as number;
}

function sizeOf(core: ArenaCore, tag: TagIndex): number {
  return core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number;
}

/** The span with the highest first address that is not above `address`, or 0. */
export function spanAtOrBelow(core: ArenaCore, address: number): TagIndex {
  const { words, base } = core;
  let found = 0;
  for (let tag = words[base + ARENA_SPAN_ROOT] as number; tag !== 0; ) {
    if (startOf(core, tag) <= address) {
      found = tag;
      tag = words[(tag << TAG_SHIFT) + TAG_LINK_NEXT] as number;
    } else {
      tag = words[(tag << TAG_SHIFT) + TAG_LINK_PREVIOUS] as number;
    }
  }
  return found;
}

/** The span that contains an address, or 0. */
export function spanContaining(core: ArenaCore, address: number): TagIndex {
  const tag = spanAtOrBelow(core, address);
  return tag !== 0 && address - startOf(core, tag) < sizeOf(core, tag) ? tag : 0;
}

/** A span that shares an address with `[start, start + size)`, or 0. */
export function spanOverlap(core: ArenaCore, start: number, size: number): TagIndex {
  const tag = spanAtOrBelow(core, start + size - 1);
  return tag !== 0 && startOf(core, tag) + sizeOf(core, tag) > start ? tag : 0;
}

/** Puts a span tag into the tree. */
export function spanTreeInsert(core: ArenaCore, span: TagIndex): void {
  const { words, base, journal } = core;
  const start = startOf(core, span);
  const priority = hashOf(core, start) >>> 1;
  const record = span << TAG_SHIFT;
  words[record + TAG_STAMP] = priority;
  // 1. Down to the first tag with a lower priority: the new one takes its place.
  let at = base + ARENA_SPAN_ROOT;
  let tag = words[at] as number;
  while (tag !== 0 && (words[(tag << TAG_SHIFT) + TAG_STAMP] as number) >= priority) {
    at = (tag << TAG_SHIFT) + (startOf(core, tag) < start ? TAG_LINK_NEXT : TAG_LINK_PREVIOUS);
    tag = words[at] as number;
  }
  journal.log1(at);
  words[at] = span;
  // 2. What was below is split by the new address: the lower part left, the higher part right.
  let lowAt = record + TAG_LINK_PREVIOUS;
  let highAt = record + TAG_LINK_NEXT;
  while (tag !== 0) {
    const below = startOf(core, tag) < start;
    const childAt = (tag << TAG_SHIFT) + (below ? TAG_LINK_NEXT : TAG_LINK_PREVIOUS);
    journal.log1(below ? lowAt : highAt);
    words[below ? lowAt : highAt] = tag;
    if (below) lowAt = childAt;
    else highAt = childAt;
    tag = words[childAt] as number;
  }
  journal.log2(lowAt, highAt);
  words[lowAt] = 0;
  words[highAt] = 0;
}

/** Takes a span tag out of the tree. Its own links are left as they are. */
export function spanTreeRemove(core: ArenaCore, span: TagIndex): void {
  const { words, base, journal } = core;
  const start = startOf(core, span);
  let at = base + ARENA_SPAN_ROOT;
  for (let tag = words[at] as number; tag !== span; tag = words[at] as number) {
    at = (tag << TAG_SHIFT) + (startOf(core, tag) < start ? TAG_LINK_NEXT : TAG_LINK_PREVIOUS);
  }
  // The two subtrees are merged from the top: the higher priority goes first.
  let low = words[(span << TAG_SHIFT) + TAG_LINK_PREVIOUS] as number;
  let high = words[(span << TAG_SHIFT) + TAG_LINK_NEXT] as number;
  while (low !== 0 && high !== 0) {
    const lowFirst = words[(low << TAG_SHIFT) + TAG_STAMP]! >= words[(high << TAG_SHIFT) + TAG_STAMP]!;
    journal.log1(at);
    words[at] = lowFirst ? low : high;
    if (lowFirst) {
      at = (low << TAG_SHIFT) + TAG_LINK_NEXT;
      low = words[at] as number;
    } else {
      at = (high << TAG_SHIFT) + TAG_LINK_PREVIOUS;
      high = words[at] as number;
    }
  }
  journal.log1(at);
  words[at] = low === 0 ? high : low;
}
