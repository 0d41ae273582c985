/**
 * A naive model of requests that wait in arenas that import from each other. It does not choose addresses: it says of each
 * grant whether it was allowed, and when all is still, that nobody waits who could be served. Every place is tried.
 */

import type { ConstraintOptions, Segment } from '../../src/vmem/index.ts';

/** A range of addresses. */
export interface Range {
  readonly start: number;
  readonly size: number;
}

/** An arena of the model: all have quantum 1. */
export interface ModelArena {
  readonly name: string;
  readonly parent: ModelArena | null;
  /** Most that all spans may be. */
  readonly limit: number;
  /** Spans that it has now. */
  spans(): readonly Range[];
  /** What the program has of it. */
  readonly busy: Set<Range>;
  readonly children: ModelArena[];
}

/** A request of the model. */
export interface ModelWaiter {
  readonly arena: ModelArena;
  readonly size: number;
  readonly constraints: ConstraintOptions;
  readonly ticket: number;
  /** Requests that do not wait, and deprived this one of its last place. */
  passed: number;
}

/** Spans of a snapshot. */
export function spansOf(segments: readonly Segment[]): Range[] {
  return segments.filter(({ kind }) => kind === 'span' || kind === 'static');
}

/** Class of a size: its number of bits. */
export function classOf(size: number): number {
  return 31 - Math.clz32(size);
}

function fits(
  address: number,
  size: number,
  { align = 1, phase = 0, nocross = 0, min = 0, max = Infinity }: ConstraintOptions,
): boolean {
  const last = address + size - 1;
  if ((address - phase) % align !== 0 || address < min || last > max) return false;
  return nocross === 0 || Math.floor(address / nocross) === Math.floor(last / nocross);
}

function overlap(a: Range, b: Range): boolean {
  return a.start < b.start + b.size && b.start < a.start + a.size;
}

/** What is left of ranges without others. */
function without(ranges: readonly Range[], taken: Iterable<Range>): Range[] {
  let left = [...ranges];
  for (const hole of taken) {
    left = left.flatMap((range) => {
      if (!overlap(range, hole)) return [range];
      const front = { start: range.start, size: hole.start - range.start };
      const end = hole.start + hole.size;
      const rear = { start: end, size: range.start + range.size - end };
      return [front, rear].filter(({ size }) => size > 0);
    });
  }
  return left;
}

/** True while somebody has something of a span. */
function inUse(arena: ModelArena, span: Range): boolean {
  if ([...arena.busy].some((range) => overlap(range, span))) return true;
  return arena.children.some((child) => child.spans().some((other) => overlap(other, span) && inUse(child, other)));
}

/** What an arena can give: what is free in it, and what importers have without need. */
function freeOf(arena: ModelArena): Range[] {
  const needed = arena.children.flatMap((child) => child.spans().filter((span) => inUse(child, span)));
  return without(arena.spans(), [...arena.busy, ...needed]);
}

function placeIn(ranges: readonly Range[], { size, constraints }: Pick<ModelWaiter, 'size' | 'constraints'>): number {
  for (const { start, size: room } of ranges) {
    for (let at = start; at + size <= start + room; at++) if (fits(at, size, constraints)) return at;
  }
  return -1;
}

/** A place for a request in its arena, or in one above from which it could be imported; -1 for none. */
export function placeOf(waiter: Pick<ModelWaiter, 'arena' | 'size' | 'constraints'>): number {
  let { arena } = waiter;
  for (;;) {
    const place = placeIn(freeOf(arena), waiter);
    if (place >= 0 || arena.parent === null) return place;
    const used = arena.spans().filter((span) => inUse(arena, span));
    if (used.reduce((sum, { size }) => sum + size, waiter.size) > arena.limit) return -1;
    arena = arena.parent;
  }
}

/** True for an address that keeps to the request, in a span of the arena, and that nobody else has. */
export function isLegal(
  { arena, size, constraints }: Pick<ModelWaiter, 'arena' | 'size' | 'constraints'>,
  start: number,
): boolean {
  const range = { start, size };
  const inside = arena.spans().some((span) => start >= span.start && start + size <= span.start + span.size);
  const taken = [...arena.busy].some((other) => overlap(other, range));
  return inside && !taken && fits(start, size, constraints);
}

/**
 * Earlier requests of the class that had a place in the arena before a range of it was taken, and have none now. A promise is
 * settled later than its request was served: what an importer got meanwhile, and nobody has yet, does not count as taken. Nor
 * do places in imported spans that nobody else has anything of: their source takes such spans back for others.
 */
export function deprivedBy(
  waiters: readonly ModelWaiter[],
  arena: ModelArena,
  taken: Range,
  ticket: number,
): ModelWaiter[] {
  const spans = arena.children.flatMap((child) => child.spans());
  const busyBefore = [...arena.busy].filter((range) => range !== taken);
  const isKept = (span: Range) =>
    arena.parent === null ||
    busyBefore.some((range) => overlap(range, span)) ||
    spans.some((range) => overlap(range, span));
  const before = without(arena.spans().filter(isKept), [...busyBefore, ...spans]);
  const now = freeOf(arena);
  return waiters.filter((other) => {
    if (other.arena !== arena || other.ticket >= ticket || classOf(other.size) !== classOf(taken.size)) return false;
    return placeIn(now, other) < 0 && placeIn(before, other) >= 0;
  });
}
