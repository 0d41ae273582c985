/**
 * Imported spans without any allocation.
 *
 * PROBLEM     A load that comes and goes must not import and release a span each time, and a span that was imported for a
 *             request whose thread died must not be lost.
 * STRUCTURE   A list through `binPrevious` and `binNext` of the span tags. A span is on it from its import to the first
 *             allocation from it, and again when its last allocation is freed. A free keeps at most `IDLE_SPANS_MAX` (4) of
 *             them: of more, the smallest goes back to the source at once, of equal ones the one that came first. So loads
 *             of several sizes settle on spans that are large enough for each of them.
 * INVARIANTS  I1 the list holds imported spans, each with one free segment.   I2 it is empty in arenas that release at once
 *             (`compat: 'seed'`).
 * LOCKING     The arena's lock. The header is logged by the caller.
 * COSTS       Three tags a change, and a look at those listed for a span that becomes idle; an arena that does not import
 *             pays one comparison.
 * FAILURE     A broken link is an `InvariantError`.
 * REJECTED    Keeping whichever came first: a small one makes every large one come and go. A time limit for idle
 *             spans: the source takes them back when it needs them.
 * REFERENCES  docs/differences.md: imports.
 */

import { assert } from '../base/index.ts';
import {
  ARENA_IDLE_HEAD,
  TAG_BIN_NEXT,
  TAG_BIN_PREVIOUS,
  TAG_DOUBLE_SHIFT,
  TAG_KIND_AT,
  TAG_SEGMENT_PREVIOUS,
  TAG_SHIFT,
  TAG_SIZE,
} from '../layout/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { KIND_SPAN_IMPORTED, type TagIndex } from './kinds.ts';

/** Idle spans that an arena keeps when another one becomes idle. */
export const IDLE_SPANS_MAX = 4;

/** The imported span that a free segment is all of, or 0. */
export function wholeSpanOf(core: ArenaCore, segment: TagIndex): TagIndex {
  const { words, doubles } = core;
  const span = words[(segment << TAG_SHIFT) + TAG_SEGMENT_PREVIOUS] as number;
  const imported = words[(span << TAG_SHIFT) + TAG_KIND_AT] === KIND_SPAN_IMPORTED;
  const spanSize = doubles[(span << TAG_DOUBLE_SHIFT) + TAG_SIZE];
  return imported && spanSize === doubles[(segment << TAG_DOUBLE_SHIFT) + TAG_SIZE] ? span : 0;
}

/** Which span goes back when this one becomes idle: it itself, a listed one, or 0 for none. */
export function idleSurplus(core: ArenaCore, span: TagIndex): TagIndex {
  const { words, doubles, base } = core;
  let count = 1;
  let smallest = span;
  for (let tag = words[base + ARENA_IDLE_HEAD] as number; tag !== 0; count++) {
    const smallestSize = doubles[(smallest << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number;
    if ((doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number) <= smallestSize) smallest = tag;
    tag = words[(tag << TAG_SHIFT) + TAG_BIN_NEXT] as number;
  }
  return count > IDLE_SPANS_MAX ? smallest : 0;
}

/** Puts a span on the list. */
export function idleInsert(core: ArenaCore, span: TagIndex): void {
  const { words, journal, base } = core;
  const record = span << TAG_SHIFT;
  const head = words[base + ARENA_IDLE_HEAD] as number;
  journal.log2(record + TAG_BIN_PREVIOUS, record + TAG_BIN_NEXT);
  words[record + TAG_BIN_PREVIOUS] = 0;
  words[record + TAG_BIN_NEXT] = head;
  if (head !== 0) {
    const backAt = (head << TAG_SHIFT) + TAG_BIN_PREVIOUS;
    journal.log1(backAt);
    words[backAt] = span;
  }
  words[base + ARENA_IDLE_HEAD] = span;
}

/** Takes a span off the list. */
export function idleRemove(core: ArenaCore, span: TagIndex): void {
  const { words, journal, base } = core;
  const record = span << TAG_SHIFT;
  const previous = words[record + TAG_BIN_PREVIOUS] as number;
  const next = words[record + TAG_BIN_NEXT] as number;
  if (next !== 0) {
    const backAt = (next << TAG_SHIFT) + TAG_BIN_PREVIOUS;
    assert(words[backAt] === span, 'vmem/idle-spans: the successor points back');
    journal.log1(backAt);
    words[backAt] = previous;
  }
  if (previous === 0) {
    assert(words[base + ARENA_IDLE_HEAD] === span, 'vmem/idle-spans: a span without predecessor is the head');
    words[base + ARENA_IDLE_HEAD] = next;
  } else {
    const forwardAt = (previous << TAG_SHIFT) + TAG_BIN_NEXT;
    journal.log1(forwardAt);
    words[forwardAt] = next;
  }
}
