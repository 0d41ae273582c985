/**
 * Remapping: a device map, and every segment that shows it, shows something else.
 *
 * PROBLEM     A device map belongs to several segments, of several spaces when one was forked; no access may go through an old
 *             translation once the new frames are shown, and nothing may move under a pin.
 * STRUCTURE   1 take the space of the call exclusively, without pins in the segment: space-changes.ts
 *             2 try to take the other spaces that show the map; if one is taken, or has a pin there, let go of all, wait, start again
 *             3 under the map's lock, all checks passed: count the change in each of them, wait for stores; then the map changes
 *
 *             Faults read the map under its lock (faults.ts), and their count before that: so what a fault has read before step 3
 *             is found to be old.
 * LOCKING     The spaces, then the device map. Only the first space is waited for.
 * COSTS       A look at every segment of the system.
 * FAILURE     `EINVAL` when the map cannot show that, `EBUSY` or `ETIMEDOUT` for pins; nothing has changed then.
 * REFERENCES  illumos devmap_devmem_remap, and its use in fork.
 */

import { fail } from '../base/errors.ts';
import { CACHING, type Cookie } from '../pmem/index.ts';
import { deadlineOf, load, type RwLock, remainingMs, requireTimeout, sleepOn } from '../sync/index.ts';
import type { SpaceChanges } from './space-changes.ts';
import { SEGMENT_DRIVER, type SegmentIndex, type SpaceIndex } from './space-kinds.ts';
import type { SpaceParts } from './spaces.ts';

/** What a segment of a device is to show. */
export interface RemapOptions {
  /** The cookie whose frames are shown from `offset` on. */
  readonly cookie: Cookie;
  /**
   * Byte offset in the cookie, a multiple of the page size, of what the mapping shows at its beginning, as for `map`; parts that
   * were cut off keep their place in it. For a mapping of a `deviceMap`: where the device map begins. Default 0.
   */
  readonly offset?: number;
  /** Milliseconds to wait for pins. Default 0: `EBUSY`. */
  readonly timeoutMs?: number;
}

const CALL = 'as.remap';

/** How long step 2 waits before it starts again. */
const PAUSE_MS = 1;

/** Shows another part of a cookie, or another cookie, in the device segment at an address. */
export function remapDevice(
  parts: SpaceParts,
  space: SpaceIndex,
  changes: SpaceChanges,
  address: number,
  { cookie, offset = 0, timeoutMs = 0 }: RemapOptions,
): void {
  const { core, segments, sections, rooms } = parts;
  const rows = core.segments;
  if (!(Number.isSafeInteger(offset) && offset >= 0 && offset % core.pageSize === 0)) {
    fail('EINVAL', CALL, { offset }, `the offset is a multiple of the page size, ${core.pageSize}`);
  }
  requireTimeout(CALL, timeoutMs);
  const deadline = deadlineOf(core.thread, timeoutMs);
  const length = cookie.frames * core.pageSize - offset;
  for (;;) {
    // 1.
    const [segment, start, size] = find(parts, space, address);
    purgeOthers(parts, rows.deviceMap.get(segment) - 1);
    const left = timeoutMs === 0 ? 0 : Math.max(remainingMs(core.thread, deadline), 1);
    changes.begin(CALL, start, start + size, left);
    const held: RwLock[] = [];
    try {
      if (segments.tree.find(space, address) !== segment || rows.base.get(segment) !== start) continue;
      if (rows.driver.get(segment) !== SEGMENT_DRIVER.device) {
        fail('ENOTSUP', CALL, { address, segment }, 'only segments of devices can be remapped');
      }
      const map = rows.deviceMap.get(segment) - 1;
      // 2.
      const others = spacesOf(parts, space, map);
      const isFree = [...others].every(([other, pieces]) => tryHold(parts, other, pieces, changes, held));
      if (isFree) {
        const end = Math.max(...[...others.values()].flat().map((piece) => endOf(parts, piece)));
        if (end > length) fail('EINVAL', CALL, { offset, length, end }, 'the cookie ends before what is mapped');
        // 3.
        const request = { cookie, offset, length, maxProtection: 7, flags: CACHING.uncached };
        const done = rooms.deviceMaps.remap(map, request, () => {
          for (const other of others.keys()) sections.changeAll(other);
        });
        if (!done)
          fail('EINVAL', CALL, { map, offset }, 'the device map cannot be remapped to this: see DeviceMaps.remap');
        return;
      }
    } finally {
      for (const lock of held) lock.exitExclusive();
      changes.end();
    }
    if (timeoutMs === 0) fail('EBUSY', CALL, { address }, 'another space that shows the device map is in use there');
    if (remainingMs(core.thread, deadline) <= 0) fail('ETIMEDOUT', CALL, { address }, 'another space shows it still');
    const word = core.control.drained.address(0);
    sleepOn(core.thread, word, load(core.thread.words, word), PAUSE_MS);
    core.thread.clearWait();
  }
}

/** The segment at an address, its first address and its size. */
function find({ core, segments }: SpaceParts, space: SpaceIndex, address: number): [SegmentIndex, number, number] {
  const lock = core.lockOf(space);
  lock.enterShared();
  const segment = segments.tree.find(space, address);
  const place = segment < 0 ? [0, 0] : [core.segments.base.get(segment), core.segments.size.get(segment)];
  lock.exitShared();
  if (segment < 0) fail('EFAULT', CALL, { address }, 'nothing is mapped at this address');
  return [segment, place[0] as number, place[1] as number];
}

/** Lets go of idle ranges that the pagelock cache has of the segments that show a device map. */
function purgeOthers({ core, pagelock }: SpaceParts, map: number): void {
  const { segments: rows, segmentPool } = core;
  for (let segment = 0; segment < segmentPool.walkEnd; segment++) {
    const owner = rows.cacheOwner.get(segment) - 1;
    if (rows.space.get(segment) === 0 || rows.deviceMap.get(segment) !== map + 1 || owner < 0) continue;
    pagelock.purgeIfKnown(owner);
  }
}

/** The spaces that show a device map, and their segments that do; `first`, which is held, without any. */
function spacesOf(parts: SpaceParts, first: SpaceIndex, map: number): Map<SpaceIndex, SegmentIndex[]> {
  const { segments: rows, segmentPool } = parts.core;
  const found = new Map<SpaceIndex, SegmentIndex[]>([[first, []]]);
  for (let segment = 0; segment < segmentPool.walkEnd; segment++) {
    const space = rows.space.get(segment) - 1;
    if (space < 0 || rows.deviceMap.get(segment) !== map + 1) continue;
    found.set(space, [...(found.get(space) ?? []), segment]);
  }
  return found;
}

/** Bytes of its device map up to the end of a segment. */
function endOf({ core }: SpaceParts, segment: SegmentIndex): number {
  const { backing, size } = core.segments;
  return backing.get(segment) * core.pageSize + size.get(segment);
}

/** Takes another space if nobody has it, and nothing of the segments is pinned there. */
function tryHold(
  parts: SpaceParts,
  space: SpaceIndex,
  pieces: readonly SegmentIndex[],
  changes: SpaceChanges,
  held: RwLock[],
): boolean {
  const { core, shadows } = parts;
  const { base, size } = core.segments;
  if (space !== changes.space) {
    const lock = core.lockOf(space);
    if (!lock.tryEnterExclusive()) return false;
    held.push(lock);
  }
  return pieces.every((segment) => {
    const start = base.get(segment);
    const isPinned = changes.pinIn(start, start + size.get(segment), space) >= 0;
    return !isPinned && !shadows.isLocked(-1, segment, 0, Number.MAX_SAFE_INTEGER);
  });
}
