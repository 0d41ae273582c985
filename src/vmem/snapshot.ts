/** What an arena looks like: its segments, free lists and totals, taken under its lock, and as text. */

import {
  ARENA_BUSY_TAGS,
  ARENA_SEGMENT_HEAD,
  ARENA_SIZE_IN_USE,
  ARENA_SIZE_TOTAL,
  ORDER_LANES,
  TAG_DOUBLE_SHIFT,
  TAG_KIND_AT,
  TAG_OWNER,
  TAG_SEGMENT_NEXT,
  TAG_SHIFT,
  TAG_SIZE,
  TAG_START,
} from '../layout/index.ts';
import { type Attachment, slotOfAttachment } from '../sync/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { listClass } from './free-lists.ts';
import { KIND_BUSY, TAG_KIND_NAME, type TagIndex } from './kinds.ts';

/** Kinds of segments as users see them. */
export type SegmentKind = 'static' | 'span' | 'free' | 'busy' | 'quarantined';

/** One boundary tag: a span, or a segment inside the span before it. */
export interface Segment {
  readonly kind: SegmentKind;
  readonly start: number;
  readonly size: number;
  /** Slot that allocated it, or -1. */
  readonly slot: number;
  /** Attachment that allocated it, or 0. */
  readonly attachment: Attachment;
}

/** An arena at one moment. */
export interface ArenaSnapshot {
  readonly name: string;
  readonly quantum: number;
  readonly size: number;
  readonly inUse: number;
  readonly allocations: number;
  /** In the order of the segment list: each span before its segments. */
  readonly segments: readonly Segment[];
  /** Order to its free segments, newest first; orders without any are left out. */
  readonly freeLists: ReadonlyMap<number, readonly Segment[]>;
}

/** One tag for users. */
export function describeTag(core: ArenaCore, tag: TagIndex): Segment {
  const { words, doubles } = core;
  const kind = words[(tag << TAG_SHIFT) + TAG_KIND_AT] as number;
  const owner = words[(tag << TAG_SHIFT) + TAG_OWNER] as number;
  const attachment = kind === KIND_BUSY && owner > 0 ? owner : 0;
  return {
    kind: (TAG_KIND_NAME[kind] ?? 'none') as SegmentKind,
    start: doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_START] as number,
    size: doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number,
    slot: slotOfAttachment(attachment),
    attachment,
  };
}

/** Takes a snapshot. Called without the lock. Linear in the number of tags, all of it under the lock. */
export function takeSnapshot(core: ArenaCore): ArenaSnapshot {
  core.enter();
  const snapshot = snapshotUnderLock(core);
  core.exit();
  return snapshot;
}

/** The same for whoever has the lock. */
export function snapshotUnderLock(core: ArenaCore): ArenaSnapshot {
  const { words, doubles, base, baseDouble } = core;
  const segments: Segment[] = [];
  const freeLists = new Map<number, Segment[]>();
  for (let tag = words[base + ARENA_SEGMENT_HEAD] as number; tag !== 0; ) {
    segments.push(describeTag(core, tag));
    tag = words[(tag << TAG_SHIFT) + TAG_SEGMENT_NEXT] as number;
  }
  for (let order = 0; order < ORDER_LANES; order++) {
    const list = listClass(core, order).map((tag) => describeTag(core, tag));
    if (list.length !== 0) freeLists.set(order, list);
  }
  return {
    name: core.name,
    quantum: core.quantum,
    size: doubles[baseDouble + ARENA_SIZE_TOTAL] as number,
    inUse: doubles[baseDouble + ARENA_SIZE_IN_USE] as number,
    allocations: words[base + ARENA_BUSY_TAGS] as number,
    segments,
    freeLists,
  };
}

/** A snapshot as text: totals, the segment list, the free lists. */
export function showSnapshot(snapshot: ArenaSnapshot): string {
  const { name, quantum, size, inUse, allocations } = snapshot;
  const lines = [
    `arena ${JSON.stringify(name)}: quantum ${quantum}, size ${size}, in use ${inUse}, allocations ${allocations}`,
  ];
  for (const { kind, start, size: length, slot } of snapshot.segments) {
    const indent = kind === 'static' || kind === 'span' ? '' : '  ';
    lines.push(`  ${indent}${kind} ${start} +${length}${slot >= 0 ? ` slot ${slot}` : ''}`);
  }
  for (const [order, list] of snapshot.freeLists) {
    lines.push(`  free list ${order}: ${list.map(({ start, size: length }) => `${start} +${length}`).join(', ')}`);
  }
  return lines.join('\n');
}
