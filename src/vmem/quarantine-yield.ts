/**
 * Whether letting go of the quarantine would serve a request.
 *
 * A range that waits is let go early only for a request that succeeds with it: what is free and what waits, side by side, is
 * one extent, and one of them must hold the request. An arena that gives spans back may also get a larger one for those that
 * only the quarantine keeps: then it is let go for sizes that the source could ever give.
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
import { KIND_FREE, KIND_QUARANTINED, KIND_SPAN_IMPORTED, type TagIndex } from './kinds.ts';

/** True when the request can be served without the quarantine but not with it. Under the lock; linear in what waits. */
export function quarantineServes(core: ArenaCore, size: number, constraints: Constraints | null): boolean {
  const { words } = core;
  let tag = core.tables.arenaLife.quarantineHead.get(core.row);
  const mayImport = core.releases && size <= reachOf(core);
  for (; tag !== 0; tag = words[(tag << TAG_SHIFT) + TAG_LINK_NEXT] as number) {
    const first = firstOfExtent(core, tag);
    if (first === 0) continue;
    const start = core.doubles[(first << TAG_DOUBLE_SHIFT) + TAG_START] as number;
    const extent = extentFrom(core, first);
    if (extent >= size && (constraints === null || fitSegment(start, extent, size, constraints) >= 0)) return true;
    if (mayImport && fillsSpan(core, first, extent)) return true;
  }
  return false;
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
