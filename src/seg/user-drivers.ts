/**
 * Drivers of users: who is told what, when segments go or are copied.
 *
 * PROBLEM     What a driver gives to a segment it must get back: when the segment goes, when a copy does not come about, and when
 *             the thread dies that was about to say so.
 * STRUCTURE   unmap      the segment is cut, and a row, the segment's own when all of it goes, says which part is gone, in the same
 *                        transaction; then `unmapped` is called for the part, and the row goes
 *             destroy    `unmapped` is called for each segment of the space, which nobody else sees, and then the segment goes: a
 *                        recovery begins with those that are left
 *             fork       `fork` of each driver is asked before the instant, and a row says so before it is, and then what it
 *                        answered; the row goes in the transaction that makes the segment of the copy, or when `unmapped` was
 *                        called because there is no copy in the end
 *             Rows of parts that are gone are in the list of the slot that has cut them out. A recovery tells their drivers, or,
 *             when its thread has not registered the name of one, hands the row on to the list of all:
 *
 *               spaceSlot.due --> row --> row            spaceControl.due --> row --> row
 *               told by the slot or its recovery         told by whoever has the name, and comes by
 *
 *             Rows of forks are in a list of their own, `spaceSlot.asked`: a recovery puts those that are left among the parts that
 *             are gone. Of one that was not answered yet, it tells `forkLost`.
 * INVARIANTS  I1 what `fork` gave is in a segment of the copy, or `unmapped` or `forkLost` is called for it.
 *             I2 a row with `gone` is in one list, and no part is gone without such a row before its driver was told, but when the
 *                table had no row left.
 * LOCKING     The lock of the spaces for rows and lists; none is held while drivers run.
 * COSTS       Theirs.
 * FAILURE     `ENOMEM` from a fork without a row for each question. What drivers throw when they are told is thrown when all were told. A recovery swallows it. A driver is told twice of
 *             a part when the thread dies that was telling it.
 * REJECTED    Waking a thread that has the name: nobody knows who has, and it may be busy for as long as it likes.
 * REFERENCES  segment-driver.ts.
 */

import { failMisuse } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { Int32Column } from '../layout/column.ts';
import { type Callbacks, faultPoint, type SlotIndex } from '../sync/index.ts';
import type { SegmentDriver, SegmentView } from './segment-driver.ts';
import type { SpaceCore } from './space-core.ts';
import { FORK_ROW, SEGMENT_DRIVER, type SegmentIndex, type SpaceIndex } from './space-kinds.ts';

/** What a driver sees of a copy that did not come about. */
const OF_NO_COPY = { space: -1, segment: -1 } as const;

/** A part of a segment of a driver of users that was unmapped. */
export interface UserPart {
  readonly view: SegmentView;
  readonly callback: number;
  readonly offset: number;
  readonly length: number;
  /** Of a fork that the driver was answering when the thread died; else none. */
  readonly ticket?: number;
}

/** What a driver has answered for the copy of a segment. */
export interface ForkAnswer {
  readonly view: SegmentView;
  readonly callback: number;
  readonly data: number;
  /** The row that says so, -1 when the driver was not asked. */
  readonly row: SegmentIndex;
}

/** A segment whose driver is to be asked. */
export type ForkQuestion = Omit<ForkAnswer, 'data' | 'row'>;

/** Drivers of users as one thread calls them. */
export class UserDrivers {
  private readonly core: SpaceCore;
  private readonly callbacks: Callbacks;
  /** Rows that this thread is telling of just now: a driver may come back here. */
  private readonly telling = new Set<SegmentIndex>();

  constructor(core: SpaceCore, callbacks: Callbacks) {
    this.core = core;
    this.callbacks = callbacks;
  }

  /** What a driver sees of a segment. */
  viewOf(space: SpaceIndex, segment: SegmentIndex): SegmentView {
    const { base, size, backing, start } = this.core.segments;
    const range = { base: base.get(segment), size: size.get(segment), start: start.get(segment) };
    return { space, segment, ...range, data: backing.get(segment) };
  }

  /** The part `[from, to)` of a segment, if its driver is a user's; else null. */
  partOf(space: SpaceIndex, segment: SegmentIndex, from: number, to: number): UserPart | null {
    const { driver, callback } = this.core.segments;
    if (driver.get(segment) !== SEGMENT_DRIVER.user) return null;
    const view = this.viewOf(space, segment);
    return { view, callback: callback.get(segment) - 1, offset: view.start + from - view.base, length: to - from };
  }

  /** Says that these parts are unmapped, and those in the list of this slot. Throws the first error when all were told. */
  tellDue(parts: readonly UserPart[]): void {
    const failures: unknown[] = [];
    for (const part of parts) this.call(part, failures);
    this.tellList(this.core.thread.slot, failures);
    this.tellCommon();
    if (failures.length > 0) throw failures[0];
  }

  /** Says what is in the list of a slot: a dead one's, or that of a thread that takes a space apart. Never throws. */
  tellQuietly(slot: SlotIndex): void {
    this.tellList(slot, []);
  }

  /** Takes over what no thread has told that came by, as far as this thread can. */
  tellCommon(): void {
    const { core } = this;
    const { control, segments, slots, thread } = core;
    if (control.due.get(0) === 0) return;
    for (const row of this.rowsOf(control.due, 0)) {
      // Another thread may be faster: then the row is another part's, or nobody's.
      const callback = segments.callback.get(row) - 1;
      if (callback < 0 || !this.isKnown(callback)) continue;
      core.lock.enter();
      if (segments.callback.get(row) === callback + 1 && this.unlink(control.due, 0, row)) {
        thread.journal.set(control.untold, 0, control.untold.get(0) - 1);
        this.link(slots.due, thread.slot, row);
      }
      core.lock.exit();
    }
    this.tellQuietly(thread.slot);
  }

  /**
   * Says that all of a segment is unmapped; what its driver throws goes to `failures`. False when this thread cannot load the
   * driver.
   */
  tellGoing(space: SpaceIndex, segment: SegmentIndex, failures: unknown[]): boolean {
    const { base, size } = this.core.segments;
    const start = base.get(segment);
    const part = this.partOf(space, segment, start, start + size.get(segment));
    if (part === null) return true;
    if (!this.isKnown(part.callback)) return false;
    this.call(part, failures);
    return true;
  }

  /** Rows that are gone, in all lists: for checks at quiet points. */
  check(problems: string[]): number {
    const { control, segments, slots, thread, segmentPool } = this.core;
    const common = this.rowsOf(control.due, 0);
    const listed = new Set(common);
    for (let slot = 0; slot < thread.region.geometry.slots; slot++) {
      for (const row of this.rowsOf(slots.due, slot)) listed.add(row);
      for (const row of this.rowsOf(slots.asked, slot)) listed.add(row);
    }
    if (common.length !== control.untold.get(0))
      problems.push('seg/user-drivers: parts that are due are counted wrong');
    let gone = 0;
    for (let row = 0; row < segmentPool.walkEnd; row++) if (segments.gone.get(row) !== 0) gone++;
    if (gone !== listed.size) problems.push(`seg/user-drivers I2: ${gone} parts are gone, ${listed.size} are in lists`);
    return gone;
  }

  /** Tells the drivers of a list, the first part that was cut out first; a driver may unmap more meanwhile. */
  private tellList(slot: SlotIndex, failures: unknown[]): void {
    const { core, telling } = this;
    const { control, segments, segmentPool, slots, thread } = core;
    if (slots.due.get(slot) === 0) return;
    const rows = this.rowsOf(slots.due, slot).reverse();
    const mine = rows.filter((row) => !telling.has(row));
    for (const row of mine) telling.add(row);
    for (const row of mine) {
      const part = this.partGone(row);
      const isKnown = this.isKnown(part.callback);
      if (isKnown) this.call(part, failures);
      if (VERIFY) faultPoint(thread, 'seg.driver.told');
      core.lock.enter();
      this.unlink(slots.due, slot, row);
      if (isKnown) {
        thread.journal.set(segments.gone, row, 0);
        thread.journal.set(segments.callback, row, 0);
        segmentPool.give(row);
      } else {
        this.link(control.due, 0, row);
        thread.journal.set(control.untold, 0, control.untold.get(0) + 1);
      }
      core.lock.exit();
      telling.delete(row);
    }
  }

  private call({ view, callback, offset, length, ticket }: UserPart, failures: unknown[]): void {
    try {
      if (ticket === undefined) this.driver(callback).unmapped?.(view, offset, length);
      else this.driver(callback).forkLost?.(view, ticket);
    } catch (error) {
      failures.push(error);
    }
  }

  private isKnown(callback: number): boolean {
    try {
      return this.driver(callback) !== undefined;
    } catch {
      return false;
    }
  }

  /** What the driver sees of a part that a row says is gone. */
  private partGone(row: SegmentIndex): UserPart {
    const { gone, roomStart, roomEnd, callback } = this.core.segments;
    const kind = gone.get(row);
    const view = { ...this.viewOf(kind - 1, row), ...(kind < 0 ? OF_NO_COPY : {}) };
    const from = roomStart.get(row);
    return {
      ...(kind === FORK_ROW.asked ? { ticket: this.ticketOf(row) } : {}),
      view,
      callback: callback.get(row) - 1,
      offset: view.start + from - view.base,
      length: roomEnd.get(row) - from,
    };
  }

  private rowsOf(head: Int32Column, at: number): SegmentIndex[] {
    const { core } = this;
    const rows: SegmentIndex[] = [];
    core.lock.enter();
    for (let link = head.get(at); link !== 0; link = core.segments.left.get(link - 1)) rows.push(link - 1);
    core.lock.exit();
    return rows;
  }

  /** Journaled, under the lock. */
  private link(head: Int32Column, at: number, row: SegmentIndex): void {
    const { segments, thread } = this.core;
    thread.journal.set(segments.left, row, head.get(at));
    thread.journal.set(head, at, row + 1);
  }

  /** Journaled, under the lock; false when the row is not in the list. */
  private unlink(head: Int32Column, at: number, row: SegmentIndex): boolean {
    const { left } = this.core.segments;
    const { journal } = this.core.thread;
    if (head.get(at) === row + 1) {
      journal.set(head, at, left.get(row));
      return true;
    }
    for (let link = head.get(at); link !== 0; link = left.get(link - 1)) {
      if (left.get(link - 1) !== row + 1) continue;
      journal.set(left, link - 1, left.get(row));
      return true;
    }
    return false;
  }

  /** Asks the drivers of segments what their copies are to be; when one throws, what the others gave goes back. */
  askForks(asked: readonly ForkQuestion[]): Map<SegmentIndex, ForkAnswer> {
    const answers = new Map<SegmentIndex, ForkAnswer>();
    try {
      for (const question of asked) answers.set(question.view.segment, this.askFork(question));
    } catch (error) {
      this.takeBack(answers.values());
      throw error;
    }
    return answers;
  }

  /** Tells drivers that copies do not come about: `unmapped` of all of a segment that has no number. */
  takeBack(answers: Iterable<ForkAnswer>): void {
    for (const { view, callback, data, row } of answers) {
      try {
        this.driver(callback).unmapped?.({ ...view, ...OF_NO_COPY, data }, view.start, view.size);
      } catch {
        // The error that ended the fork is the one that is thrown.
      }
      this.drop(row);
    }
  }

  /** Journaled, under the lock, in the transaction that gives the segment of the copy what was answered. */
  settleAnswer({ row }: Pick<ForkAnswer, 'row'>): void {
    const { segments, segmentPool, slots, thread } = this.core;
    if (row < 0) return;
    this.unlink(slots.asked, thread.slot, row);
    thread.journal.set(segments.gone, row, 0);
    thread.journal.set(segments.callback, row, 0);
    segmentPool.give(row);
  }

  /** What a dead slot had asked drivers for copies is gone: its list of parts has it from here on. */
  recoverAsked(dead: SlotIndex): void {
    const { core } = this;
    for (const row of this.rowsOf(core.slots.asked, dead)) {
      core.lock.enter();
      this.unlink(core.slots.asked, dead, row);
      this.link(core.slots.due, dead, row);
      core.lock.exit();
    }
  }

  private askFork({ view, callback }: ForkQuestion): ForkAnswer {
    const driver = this.driver(callback);
    if (driver.fork === undefined) return { view, callback, data: view.data, row: -1 };
    const { core } = this;
    const { segments, thread } = core;
    const row = this.noteAsked(view, callback);
    try {
      const data = driver.fork(view, this.ticketOf(row));
      if (!Number.isFinite(data)) failMisuse('driver.fork', { data }, 'a driver returns the number of the copy');
      core.lock.enter();
      thread.journal.setDouble(segments.backing, row, data);
      thread.journal.set(segments.gone, row, FORK_ROW.answered);
      core.lock.exit();
      return { view, callback, data, row };
    } catch (error) {
      this.drop(row);
      throw error;
    }
  }

  /** A row which says that a driver is answering. */
  private noteAsked(view: SegmentView, callback: number): SegmentIndex {
    const { core } = this;
    const { segments, segmentPool, slots, thread } = core;
    const { journal } = thread;
    core.lock.enter();
    const row = segmentPool.take();
    if (row < 0) {
      core.lock.exit();
      return core.failFull('as.fork', 'segments');
    }
    journal.set(segments.space, row, 0);
    journal.set(segments.generation, row, segments.generation.get(row) + 1);
    journal.set(segments.callback, row, callback + 1);
    journal.setDouble(segments.backing, row, view.data);
    journal.setDouble(segments.start, row, view.start);
    journal.setDouble(segments.base, row, view.base);
    journal.setDouble(segments.size, row, view.size);
    journal.setDouble(segments.roomStart, row, view.base);
    journal.setDouble(segments.roomEnd, row, view.base + view.size);
    journal.set(segments.gone, row, FORK_ROW.asked);
    this.link(slots.asked, thread.slot, row);
    core.lock.exit();
    return row;
  }

  private drop(row: SegmentIndex): void {
    if (row < 0) return;
    const { lock } = this.core;
    lock.enter();
    this.settleAnswer({ row });
    lock.exit();
  }

  /** The number by which a driver knows one question. */
  private ticketOf(row: SegmentIndex): number {
    const { generation, rowCount } = this.core.segments;
    return generation.get(row) * rowCount + row;
  }

  private driver(callback: number): SegmentDriver {
    return this.callbacks.resolve<SegmentDriver>(callback);
  }
}
