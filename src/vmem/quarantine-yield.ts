/**
 * Quarantine that is let go early, in arenas that were made with `early`, and where a program asks for it.
 *
 * A range that waits is let go early only for a request that succeeds with it: what is free and what waits, side by side, is
 * one extent, and one of them must hold the request. Of the extents that do, the one with the oldest range is taken, and its
 * ranges are let go, the oldest first, until the request fits. An arena that gives spans back may also get a larger one for
 * those that only the quarantine keeps: then all of such a span is let go, for sizes that the source could ever give.
 */

import {
  TAG_DOUBLE_SHIFT,
  TAG_KIND_AT,
  TAG_LINK_NEXT,
  TAG_SEGMENT_NEXT,
  TAG_SEGMENT_PREVIOUS,
  TAG_SHIFT,
  TAG_SIZE,
  TAG_START,
} from '../layout/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { type Constraints, fitSegment } from './fit.ts';
import { KIND_FREE, KIND_QUARANTINED, KIND_SPAN_IMPORTED, STRATEGY_BEST, type TagIndex } from './kinds.ts';
import { letGo } from './quarantine.ts';
import { findSegment } from './search.ts';

/**
 * Lets go what a request needs of the quarantine, and no more. False, with nothing changed, when it does not succeed with
 * it. Entered and left with the lock, with nothing logged; linear in what waits.
 */
export function leaveEarly(core: ArenaCore, size: number, constraints: Constraints | null): boolean {
  const { words, doubles } = core;
  const { quarantineHead } = core.tables.arenaLife;
  const nextOf = (tag: TagIndex) => words[(tag << TAG_SHIFT) + TAG_LINK_NEXT] as number;
  const mayImport = core.releases && size <= reachOf(core);
  // Each range of an extent that serves, and the extent's first tag.
  const serving = new Map<TagIndex, TagIndex>();
  for (let tag = quarantineHead.get(core.row); tag !== 0; tag = nextOf(tag)) {
    const first = firstOfExtent(core, tag);
    if (first === 0) continue;
    const start = doubles[(first << TAG_DOUBLE_SHIFT) + TAG_START] as number;
    const extent = extentFrom(core, first);
    const holds = extent >= size && (constraints === null || fitSegment(start, extent, size, constraints) >= 0);
    if (!holds && !(mayImport && fillsSpan(core, first, extent))) continue;
    for (const range of rangesOf(core, first, extent)) serving.set(range, first);
  }
  let chosen = 0;
  const ranges: TagIndex[] = [];
  for (let tag = quarantineHead.get(core.row); tag !== 0; tag = nextOf(tag)) {
    const first = serving.get(tag) ?? 0;
    if (chosen === 0) chosen = first;
    if (first !== 0 && first === chosen) ranges.push(tag);
  }
  for (const range of ranges) {
    // With the lock left in between anything may have happened: the request looks again.
    if (letGo(core, range) || findSegment(core, size, STRATEGY_BEST, constraints) !== 0) break;
  }
  return ranges.length > 0;
}

/**
 * Lets the ranges go that wait in the next `size` from a tag on. No span goes away with that: there is an allocation in it, or
 * it stays.
 */
export function leaveFrom(core: ArenaCore, tag: TagIndex, size: number): void {
  for (const range of rangesOf(core, tag, size)) letGo(core, range);
}

/** Ranges that wait in the next `size` from a tag on, in the order of addresses. */
function rangesOf(core: ArenaCore, tag: TagIndex, size: number): TagIndex[] {
  const ranges: TagIndex[] = [];
  let rest = size;
  for (let at = tag; rest > 0 && at !== 0; at = core.words[(at << TAG_SHIFT) + TAG_SEGMENT_NEXT] as number) {
    if (core.words[(at << TAG_SHIFT) + TAG_KIND_AT] === KIND_QUARANTINED) ranges.push(at);
    rest -= core.doubles[(at << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number;
  }
  return ranges;
}

/** Size of what is free or waits, from a tag on to the first that does neither. Under the lock. */
export function extentFrom(core: ArenaCore, tag: TagIndex): number {
  let size = 0;
  for (let at = tag; at !== 0 && isIdle(core, at); at = core.words[(at << TAG_SHIFT) + TAG_SEGMENT_NEXT] as number) {
    size += core.doubles[(at << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number;
  }
  return size;
}

function isIdle(core: ArenaCore, tag: TagIndex): boolean {
  const kind = core.words[(tag << TAG_SHIFT) + TAG_KIND_AT];
  return kind === KIND_FREE || kind === KIND_QUARANTINED;
}

/** First tag of the extent of a range that waits, or 0 when another one that waits stands in front of it. */
function firstOfExtent(core: ArenaCore, tag: TagIndex): TagIndex {
  const { words } = core;
  const kindOf = (at: TagIndex) => words[(at << TAG_SHIFT) + TAG_KIND_AT];
  const before = words[(tag << TAG_SHIFT) + TAG_SEGMENT_PREVIOUS] as number;
  if (kindOf(before) === KIND_QUARANTINED) return 0;
  if (kindOf(before) !== KIND_FREE) return tag;
  return kindOf(words[(before << TAG_SHIFT) + TAG_SEGMENT_PREVIOUS] as number) === KIND_QUARANTINED ? 0 : before;
}

/** True when an extent is all of an imported span. */
function fillsSpan(core: ArenaCore, first: TagIndex, extent: number): boolean {
  const span = core.words[(first << TAG_SHIFT) + TAG_SEGMENT_PREVIOUS] as number;
  if (core.words[(span << TAG_SHIFT) + TAG_KIND_AT] !== KIND_SPAN_IMPORTED) return false;
  return core.doubles[(span << TAG_DOUBLE_SHIFT) + TAG_SIZE] === extent;
}

/** The most that an arena's sources could ever give it in one piece; infinite for a function. A look. */
function reachOf(core: ArenaCore): number {
  let at = core;
  let reach = core.limit;
  while (at.importArena >= 0) {
    at = at.cores.at(at.importArena);
    reach = Math.min(reach, at.limit);
  }
  if (at.imports) return reach;
  return Math.min(reach, at.tables.arenaState.sizeTotal.get(at.row));
}
