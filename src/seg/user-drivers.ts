/**
 * Drivers of users: who is told what, when segments go or are copied.
 *
 * PROBLEM     What a driver gives to a segment it must get back: when the segment goes, when a copy does not come about, and when
 *             the thread dies that was about to say so.
 * STRUCTURE   unmap      the segment is cut, then `unmapped` is called for the part
 *             destroy    `unmapped` is called for each segment of the space, which nobody else sees, and then the segment goes: a
 *                        recovery begins with those that are left
 *             fork       `fork` of each driver is asked before the instant; when there is no copy in the end, `unmapped` is called
 *                        for what was answered
 * INVARIANTS  I1 what `fork` gave is in a segment of the copy, or `unmapped` is called for it, while the thread lives.
 * LOCKING     None is held while drivers run.
 * COSTS       Theirs.
 * FAILURE     What drivers throw when they are told is thrown when all were told. A recovery swallows it, and counts drivers
 *             that it cannot call: those registered by name in other threads.
 * REJECTED    A list of calls due in shared memory: drivers would still be told twice when a thread dies in the middle of one.
 * REFERENCES  segment-driver.ts.
 */

import { failMisuse, VmError } from '../base/errors.ts';
import type { Callbacks } from '../sync/index.ts';
import type { SegmentDriver, SegmentView } from './segment-driver.ts';
import type { SpaceCore } from './space-core.ts';
import { SEGMENT_DRIVER, type SegmentIndex, type SpaceIndex } from './space-kinds.ts';

/** A part of a segment of a driver of users that was unmapped. */
export interface UserPart {
  readonly view: SegmentView;
  readonly callback: number;
  readonly offset: number;
  readonly length: number;
}

/** What a driver has answered for the copy of a segment. */
export interface ForkAnswer {
  readonly view: SegmentView;
  readonly callback: number;
  readonly data: number;
}

/** Drivers of users as one thread calls them. */
export class UserDrivers {
  private readonly core: SpaceCore;
  private readonly callbacks: Callbacks;

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

  /** Says that parts are unmapped. Throws the first error when all were told. */
  tell(parts: readonly UserPart[]): void {
    let failure: { readonly error: unknown } | null = null;
    for (const { view, callback, offset, length } of parts) {
      try {
        this.driver(callback).unmapped?.(view, offset, length);
      } catch (error) {
        failure ??= { error };
      }
    }
    if (failure !== null) throw failure.error;
  }

  /** Says that all of a segment is unmapped; never throws. A driver that this thread cannot load is counted. */
  tellGoing(space: SpaceIndex, segment: SegmentIndex): void {
    const { base, size } = this.core.segments;
    const start = base.get(segment);
    const part = this.partOf(space, segment, start, start + size.get(segment));
    if (part === null) return;
    try {
      this.tell([part]);
    } catch (error) {
      if (error instanceof VmError && error.code === 'ENOENT') this.countUntold();
    }
  }

  /** Asks the drivers of segments what their copies are to be; when one throws, what the others gave goes back. */
  askForks(asked: readonly Omit<ForkAnswer, 'data'>[]): Map<SegmentIndex, ForkAnswer> {
    const answers = new Map<SegmentIndex, ForkAnswer>();
    try {
      for (const { view, callback } of asked) {
        const { fork } = this.driver(callback);
        const data = fork === undefined ? view.data : fork.call(this.driver(callback), view);
        if (!Number.isFinite(data)) failMisuse('driver.fork', { data }, 'a driver returns the number of the copy');
        answers.set(view.segment, { view, callback, data });
      }
    } catch (error) {
      this.takeBack(answers.values());
      throw error;
    }
    return answers;
  }

  /** Tells drivers that copies do not come about: `unmapped` of all of a segment that has no number. */
  takeBack(answers: Iterable<ForkAnswer>): void {
    for (const { view, callback, data } of answers) {
      try {
        this.driver(callback).unmapped?.({ ...view, space: -1, segment: -1, data }, view.start, view.size);
      } catch {
        // The error that ended the fork is the one that is thrown.
      }
    }
  }

  private driver(callback: number): SegmentDriver {
    return this.callbacks.resolve<SegmentDriver>(callback);
  }

  private countUntold(): void {
    const { core } = this;
    const { untold } = core.control;
    core.lock.enter();
    core.thread.journal.set(untold, 0, untold.get(0) + 1);
    core.lock.exit();
  }
}
