/** Segments without a driver, as the original allocates them. */

import { failMisuse, requireInteger } from '../base/index.ts';
import type { Arena } from '../vmem/index.ts';
import type { AddressSpaceId } from './address-space.ts';
import type { SpaceAccess } from './space-access.ts';
import { booleanOf } from './space-arguments.ts';
import { SEGMENT_FLAG, type SegmentIndex } from './space-kinds.ts';
import type { SpaceParts } from './spaces.ts';

/** `as.allocSegment`. */
export function allocPlain(
  parts: SpaceParts,
  { space, generation }: AddressSpaceId,
  access: SpaceAccess,
  base: number,
  size: number,
  isStatic: boolean,
): SegmentIndex {
  const { core, room, segments } = parts;
  const call = 'as.allocSegment';
  requireInteger(call, 'base', base, -Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
  requireInteger(call, 'size', size, 0, Number.MAX_SAFE_INTEGER);
  const isWhole = size > 0 && base >= 0 && base % core.pageSize === 0 && size % core.pageSize === 0;
  if (booleanOf(call, 'isStatic', isStatic, false) && !(isWhole && Number.isSafeInteger(base + size)))
    failMisuse(call, { base, size }, 'a static segment has whole pages');
  const arena = room.open(call, space, generation);
  const lock = core.lockOf(space);
  lock.enterExclusive();
  try {
    access.requireLive(call);
    room.begin(space, arena);
    const segment = isStatic ? segments.attach(space, base, size) : segments.alloc(space, base, size);
    if (segment >= 0) takeRoom(parts, arena, segment);
    room.end();
    return segment;
  } finally {
    lock.exitExclusive();
  }
}

/** The room of a segment; one that overlaps what the arena knows goes without. */
function takeRoom({ core, room }: SpaceParts, arena: Arena, segment: SegmentIndex): void {
  const { segments } = core;
  const base = segments.base.get(segment);
  if (room.reserve(arena, base, base + segments.size.get(segment))) return;
  core.lock.enter();
  core.thread.journal.set(segments.flags, segment, segments.flags.get(segment) | SEGMENT_FLAG.noRoom);
  core.lock.exit();
}
