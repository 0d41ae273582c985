/**
 * Fork: a copy of a space as it is at one instant.
 *
 * PROBLEM     A program wants all of a large memory as it is now, without stopping the threads that write, and at a price that
 *             does not grow with the memory.
 * STRUCTURE   1 purge idle ranges from the pagelock cache, ask drivers of users   2 a row for the copy, which only this slot sees
 *             3 take the space exclusively, count the change, wait until nobody writes: this is the instant
 *             4 for each segment a row; private anon maps by a reference to their root, the others by a reference to the map
 *             5 pages that are pinned are copied: the pin keeps the original   6 give the space back; the copy is live
 *
 *             Threads that write meanwhile find that their translations are old, and wait for the space; afterwards they copy each
 *             page before their first store into it.
 * INVARIANTS  I1 what the copy shows is what the space showed between steps 3 and 4.
 *             I2 after step 5 no pinned page is seen through two maps.
 * LOCKING     The space exclusively from 3 to 6. Nobody else knows the copy before the end.
 * COSTS       A few microseconds a segment, a copy for each pinned page; nothing for each page else.
 * FAILURE     `ENOMEM`, with the copy gone. A death in the middle: recovery takes the copy apart.
 * REJECTED    Copying the tables of pages; write protection by signals, which JavaScript has not.
 * REFERENCES  illumos as_dup, segvn_dup; Linux get_user_pages and fork (PageAnonExclusive) for pinned pages.
 */

import { fail } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { Pages } from '../page/index.ts';
import { faultPoint } from '../sync/index.ts';
import type { SpaceAccess } from './space-access.ts';
import type { ChangeParts } from './space-changes.ts';
import { ANON_MAP_FLAG, type AnonMapIndex, type SegmentIndex, SPACE_STATE, type SpaceIndex } from './space-kinds.ts';
import type { ForkAnswer, ForkQuestion } from './user-drivers.ts';

/** What a fork needs beside. */
export interface ForkRooms {
  readonly pages: Pages;
}

/** Forks of one thread. */
export class SpaceFork {
  private readonly parts: ChangeParts;
  private readonly rooms: ForkRooms;

  constructor(parts: ChangeParts, rooms: ForkRooms) {
    this.parts = parts;
    this.rooms = rooms;
  }

  /** The row of a live copy. `takeApart` is called with its row when it cannot be finished. */
  fork(space: SpaceIndex, access: SpaceAccess, takeApart: (child: SpaceIndex) => void): SpaceIndex {
    const { core, sections, segments, drivers } = this.parts;
    const lock = core.lockOf(space);
    // 1.
    this.purge(space);
    const answers = this.askDrivers(space, access);
    // 2.
    let child: SpaceIndex = -1;
    // 3.
    let forked = false;
    try {
      child = this.createRow(space);
      lock.enterExclusive();
      try {
        access.requireLive('as.fork');
        sections.changeAll(space);
        if (VERIFY) faultPoint(core.thread, 'seg.fork.sharing');
        // 4.
        const maps = new Map<AnonMapIndex, AnonMapIndex>();
        for (const segment of segments.tree.list(space)) this.copySegment(space, segment, child, maps, answers);
        // 5.
        for (const [map, copy] of maps) this.copyPinned(child, map, copy);
        if (VERIFY) faultPoint(core.thread, 'seg.fork.copied');
      } finally {
        // 6.
        lock.exitExclusive();
      }
      this.publish(child);
      forked = true;
    } finally {
      if (!forked) {
        // Those that the copy has already are told with its segments.
        drivers.takeBack(answers.values());
        if (child >= 0) takeApart(child);
      } else if (answers.size > 0) drivers.takeBack(answers.values());
    }
    return child;
  }

  private purge(space: SpaceIndex): void {
    const { core, segments, pagelock } = this.parts;
    const lock = core.lockOf(space);
    const owners = new Set<number>();
    lock.enterShared();
    for (const segment of segments.tree.list(space)) {
      const map = core.segments.map.get(segment) - 1;
      const isPrivate = map >= 0 && (core.maps.flags.get(map) & ANON_MAP_FLAG.shared) === 0;
      if (isPrivate && core.maps.softLocks.get(map) > 0) owners.add(core.maps.cacheOwner.get(map) - 1);
    }
    lock.exitShared();
    for (const owner of owners) if (owner >= 0) pagelock.purgeIfKnown(owner);
  }

  /** What `data` of each segment of a driver of users is in the copy. */
  private askDrivers(space: SpaceIndex, access: SpaceAccess): Map<SegmentIndex, ForkAnswer> {
    const { core, segments, drivers } = this.parts;
    const lock = core.lockOf(space);
    const asked: ForkQuestion[] = [];
    lock.enterShared();
    try {
      access.requireLive('as.fork');
      for (const segment of segments.tree.list(space)) {
        const part = drivers.partOf(space, segment, 0, 0);
        if (part !== null) asked.push({ view: part.view, callback: part.callback });
      }
    } finally {
      lock.exitShared();
    }
    return drivers.askForks(asked);
  }

  private createRow(space: SpaceIndex): SpaceIndex {
    const { core } = this.parts;
    const { spaces, spacePool, slots, thread } = core;
    const { journal } = thread;
    core.lock.enter();
    const child = spacePool.take();
    if (child < 0) {
      core.lock.exit();
      return core.failFull('as.fork', 'addressSpaces');
    }
    journal.set(slots.unsettled, thread.slot, child + 1);
    journal.set(spaces.state, child, SPACE_STATE.unsettled);
    journal.set(spaces.root, child, 0);
    journal.set(spaces.segments, child, 0);
    journal.set(spaces.flags, child, spaces.flags.get(space));
    journal.set(spaces.owner, child, spaces.owner.get(space));
    journal.set(spaces.arena, child, 0);
    for (const column of [spaces.base, spaces.limit, spaces.userLimit, spaces.holeStart, spaces.holeEnd]) {
      journal.setDouble(column, child, column.get(space));
    }
    journal.setDouble(spaces.size, child, 0);
    core.lock.exit();
    return child;
  }

  /** Step 4 for one segment. */
  private copySegment(
    space: SpaceIndex,
    segment: SegmentIndex,
    child: SpaceIndex,
    maps: Map<AnonMapIndex, AnonMapIndex>,
    answers: Map<SegmentIndex, ForkAnswer>,
  ): void {
    const { core, segments } = this.parts;
    const rows = core.segments;
    const { thread } = core;
    const map = rows.map.get(segment) - 1;
    const base = rows.base.get(segment);
    const answer = this.answerFor(segment, answers);
    const copy = segments.attach(child, base, rows.size.get(segment), 0, {
      open: () => {},
      fill: (row) => {
        segments.copyFields(segment, row);
        if (answer !== null) {
          thread.journal.setDouble(rows.backing, row, answer.data);
          this.parts.drivers.settleAnswer(answer);
        }
        const reserved = rows.reserved.get(segment);
        if (reserved > 0 && !core.tryReserve(core.spaces.owner.get(space), reserved))
          core.failReserve('as.fork', reserved);
        if (map >= 0) thread.journal.set(rows.map, row, this.copyMap(map, maps) + 1);
      },
    });
    // From here on it is the segment's.
    if (answer !== null) answers.delete(segment);
    const copied = rows.map.get(copy) - 1;
    if (map >= 0 && copied !== map) maps.set(map, copied);
  }

  /**
   * What the driver has answered for a segment, or null for one that is no user's. Throws `EBUSY` for one that came, went or
   * was cut since its driver was asked.
   */
  private answerFor(segment: SegmentIndex, answers: ReadonlyMap<SegmentIndex, ForkAnswer>): ForkAnswer | null {
    const { core, drivers } = this.parts;
    const space = core.segments.space.get(segment) - 1;
    const part = drivers.partOf(space, segment, 0, 0);
    if (part === null) return null;
    const answer = answers.get(segment);
    const { view } = part;
    const fields = ['base', 'size', 'start', 'data'] as const;
    if (answer !== undefined && fields.every((field) => answer.view[field] === view[field])) return answer;
    return fail('EBUSY', 'as.fork', { space, segment }, 'the segment changed while its driver was asked');
  }

  /** The map that the copy of a segment names: the same, a copy made before, or a new copy. One reference is the segment's. */
  private copyMap(map: AnonMapIndex, known: ReadonlyMap<AnonMapIndex, AnonMapIndex>): AnonMapIndex {
    const { core, anon } = this.parts;
    const made = (core.maps.flags.get(map) & ANON_MAP_FLAG.shared) !== 0 ? map : known.get(map);
    if (made !== undefined) {
      core.retainMap(made);
      return made;
    }
    const copy = anon.maps.share(map);
    return copy < 0 ? core.failFull('as.fork', 'anonMaps') : copy;
  }

  /** Step 5: the copy gets its own pages where the original's are pinned. */
  private copyPinned(child: SpaceIndex, map: AnonMapIndex, copy: AnonMapIndex): void {
    const { core, shadows, anon } = this.parts;
    if (core.maps.softLocks.get(map) === 0) return;
    for (const { first, pages } of shadows.rangesOf(map)) {
      for (let page = first; page < first + pages; page++) {
        core.lock.enter();
        const pinned = anon.maps.find(copy, page);
        const shared = pinned >= 0 && !anon.maps.exclusive;
        let frame = shared ? anon.holdOrVisit(pinned) : -1;
        core.lock.exit();
        // Another list may have had the page too.
        if (!shared) continue;
        if (frame < 0) frame = anon.bring(pinned);
        try {
          const made = anon.replace(child, copy, page, pinned, frame, page);
          if (made >= 0) this.rooms.pages.release(made);
        } finally {
          this.rooms.pages.release(frame);
        }
      }
    }
  }

  /** Step 6. */
  private publish(child: SpaceIndex): void {
    const { core } = this.parts;
    const { spaces, slots, thread } = core;
    core.lock.enter();
    thread.journal.set(spaces.state, child, SPACE_STATE.live);
    thread.journal.set(slots.unsettled, thread.slot, 0);
    core.lock.exit();
  }
}
