/**
 * Advice and syncing: what is done with a range without changing what is mapped.
 *
 * PROBLEM     Programs know what they will use, what they need no more, and what must be durable.
 * STRUCTURE   willNeed   every page of the range is faulted in
 *             dontNeed   modified pages of shared files are written back
 *             free       private anonymous pages go, as if they were unmapped and mapped again; pages that are pinned stay
 *             normal, random, sequential   remembered in the segment, which is cut at the ends of the range
 * INVARIANTS  I1 counters of advice only grow.
 * LOCKING     `free` and what is remembered: the space exclusively; the others shared, page by page.
 * COSTS       Of the pages in the range.
 * FAILURE     `EFAULT` for a gap, `EIO` from writing back.
 * REJECTED    `free` page by page beside writers: they would have to be told of each.
 * REFERENCES  madvise and msync; illumos segvn_advise, segadvstat.
 */

import { fail } from '../base/errors.ts';
import type { SegmentDriver } from './segment-driver.ts';
import type { SpaceAccess } from './space-access.ts';
import type { SpaceChanges } from './space-changes.ts';
import {
  ADVICE,
  ADVICE_COUNTER,
  type Advice,
  ANON_MAP_FLAG,
  SEGMENT_DRIVER,
  SEGMENT_FLAG,
  type SegmentIndex,
  type SpaceIndex,
} from './space-kinds.ts';
import type { SpaceParts } from './spaces.ts';

/** A part of a shared mapping of a file, or of a segment of a driver of users. */
interface StoredPart {
  readonly vnode: number;
  readonly first: number;
  readonly pages: number;
  readonly user: (() => void) | null;
}

/** Advice to one space, by one thread. */
export class SpaceAdvice {
  private readonly parts: SpaceParts;
  private readonly space: SpaceIndex;
  private readonly access: SpaceAccess;
  private readonly changes: SpaceChanges;

  constructor(parts: SpaceParts, space: SpaceIndex, access: SpaceAccess, changes: SpaceChanges) {
    this.parts = parts;
    this.space = space;
    this.access = access;
    this.changes = changes;
  }

  /** See the file's header. */
  advise(start: number, end: number, advice: Advice): void {
    const { core, rooms } = this.parts;
    if (!Object.hasOwn(ADVICE, advice)) {
      fail('EINVAL', 'as.advise', { advice }, `one of ${Object.keys(ADVICE).join(', ')}`);
    }
    if (advice === 'willNeed') {
      for (let at = start; at < end; at += core.pageSize) this.access.touch(at, 'as.advise');
      this.count(ADVICE_COUNTER.willNeed, core.pagesOf(end - start));
    } else if (advice === 'dontNeed') {
      const parts = this.storedParts('as.advise', start, end, null);
      for (const { vnode, first, pages } of parts) {
        if (vnode >= 0) rooms.pages.writeBack(vnode, first, pages, rooms.vnodes);
      }
      this.count(ADVICE_COUNTER.dontNeed, core.pagesOf(end - start));
    } else if (advice === 'free') {
      this.free(start, end);
    } else {
      this.remember(start, end, advice);
    }
    const told = this.storedParts('as.advise', start, end, (driver, view, offset, length) =>
      driver.advise?.(view, offset, length, advice),
    );
    for (const { user } of told) user?.();
  }

  /** Writes shared mappings of files back and makes that durable. */
  sync(start: number, end: number): void {
    const { rooms } = this.parts;
    const parts = this.storedParts('as.sync', start, end, (driver, view, offset, length) =>
      driver.sync?.(view, offset, length),
    );
    for (const { vnode, first, pages, user } of parts) {
      if (user !== null) user();
      if (vnode < 0) continue;
      rooms.pages.writeBack(vnode, first, pages, rooms.vnodes);
      rooms.vnodes.sync(vnode, true);
    }
  }

  /**
   * Before a range is unmapped, which the caller holds exclusively: writes back what no open file would write when it is closed.
   * Returns what went wrong; the pages stay modified then.
   */
  writeLast(start: number, end: number): unknown {
    const { core, rooms, segments } = this.parts;
    const rows = core.segments;
    let failure: unknown;
    for (let segment = segments.tree.firstIn(this.space, start, end); segment >= 0; ) {
      const base = rows.base.get(segment);
      const from = Math.max(start, base);
      const until = Math.min(end, base + rows.size.get(segment));
      const vnode = (rows.flags.get(segment) & SEGMENT_FLAG.shared) === 0 ? -1 : rows.vnode.get(segment) - 1;
      if (vnode >= 0 && rooms.pages.modifiedOf(vnode) > 0 && !this.hasWriter(vnode)) {
        try {
          rooms.pages.writeBack(vnode, segments.backingAt(segment, from), core.pagesOf(until - from), rooms.vnodes);
        } catch (error) {
          failure ??= error;
        }
      }
      segment = segments.tree.firstIn(this.space, base + rows.size.get(segment), end);
    }
    return failure;
  }

  /** True when a thread has the file open for writing. */
  private hasWriter(vnode: number): boolean {
    const { core } = this.parts;
    const { writers } = core.thread.region.tables.vnode;
    const ours = core.lockSlot >>> 5;
    for (let lane = 0; lane < core.thread.region.geometry.slotLanes; lane++) {
      const bits = writers.at(vnode, lane);
      if ((lane === ours ? bits & ~(1 << (core.lockSlot & 31)) : bits) !== 0) return true;
    }
    return false;
  }

  private free(start: number, end: number): void {
    const { core, anon, shadows, sections } = this.parts;
    const rows = core.segments;
    this.changes.beginShape('as.advise');
    let hits = 0;
    let misses = 0;
    try {
      this.requireAll('as.advise', start, end);
      sections.changeAll(this.space);
      for (let at = start; at < end; ) {
        const segment = this.require('as.advise', at);
        const until = Math.min(end, rows.base.get(segment) + rows.size.get(segment));
        const map = rows.map.get(segment) - 1;
        const isPrivate = map >= 0 && (core.maps.flags.get(map) & ANON_MAP_FLAG.shared) === 0;
        for (let where = at; isPrivate && where < until; where += core.pageSize) {
          const page = core.mapPageOf(segment, where);
          if (anon.maps.nextUsed(map, page, page + 1) !== page) continue;
          if (shadows.isLocked(map, -1, page, page + 1)) misses++;
          else {
            anon.clear(map, page, page + 1);
            hits++;
          }
        }
        at = until;
      }
    } finally {
      this.changes.end();
    }
    this.count(ADVICE_COUNTER.freeHit, hits);
    this.count(ADVICE_COUNTER.freeMiss, misses);
    anon.reap();
  }

  private remember(start: number, end: number, advice: Advice): void {
    const { core } = this.parts;
    const rows = core.segments;
    this.changes.beginShape('as.advise');
    try {
      this.requireAll('as.advise', start, end);
      for (let at = start; at < end; ) {
        const segment =
          rows.advice.get(this.require('as.advise', at)) === ADVICE[advice] ? -1 : this.changes.isolate(at, end);
        const found = segment < 0 ? this.require('as.advise', at) : segment;
        if (segment >= 0) {
          core.lock.enter();
          core.thread.journal.set(rows.advice, segment, ADVICE[advice]);
          core.lock.exit();
        }
        at = rows.base.get(found) + rows.size.get(found);
      }
      this.changes.joinRange(start, end);
    } finally {
      this.changes.end();
    }
  }

  /** The parts of a range that have a store of their own: collected while the space is held, used without it. */
  private storedParts(
    call: string,
    start: number,
    end: number,
    tell:
      | ((
          driver: SegmentDriver,
          view: ReturnType<SpaceParts['faults']['viewOf']>,
          offset: number,
          length: number,
        ) => void)
      | null,
  ): StoredPart[] {
    const { core, faults, rooms } = this.parts;
    const rows = core.segments;
    const lock = core.lockOf(this.space);
    const parts: StoredPart[] = [];
    lock.enterShared();
    try {
      this.access.requireLive(call);
      for (let at = start; at < end; ) {
        const segment = this.require(call, at);
        const base = rows.base.get(segment);
        const until = Math.min(end, base + rows.size.get(segment));
        const isShared = (rows.flags.get(segment) & SEGMENT_FLAG.shared) !== 0;
        const vnode = isShared ? rows.vnode.get(segment) - 1 : -1;
        const offset = at - base;
        let user: (() => void) | null = null;
        if (tell !== null && rows.driver.get(segment) === SEGMENT_DRIVER.user) {
          const driver = rooms.callbacks.resolve<SegmentDriver>(rows.callback.get(segment) - 1);
          const view = faults.viewOf(segment);
          const length = until - at;
          user = () => tell(driver, view, view.start + offset, length);
        }
        const first = rows.backing.get(segment) + offset / core.pageSize;
        parts.push({ vnode, first, pages: (until - at) / core.pageSize, user });
        at = until;
      }
    } finally {
      lock.exitShared();
    }
    return parts;
  }

  private require(call: string, address: number): SegmentIndex {
    const segment = this.parts.segments.tree.find(this.space, address);
    return segment < 0 ? fail('EFAULT', call, { address }, 'nothing is mapped at this address') : segment;
  }

  /** Before anything changes: throws for a gap in the range. The caller holds the space. */
  private requireAll(call: string, start: number, end: number): void {
    const rows = this.parts.core.segments;
    for (let at = start; at < end; ) {
      const segment = this.require(call, at);
      at = rows.base.get(segment) + rows.size.get(segment);
    }
  }

  private count(lane: number, amount: number): void {
    if (amount === 0) return;
    const { core } = this.parts;
    const { advice } = core.control;
    core.lock.enter();
    core.thread.journal.logRange((advice.base + lane) * 2, 2);
    advice.putAt(0, lane, advice.at(0, lane) + amount);
    core.lock.exit();
  }
}
