/** The interface of segment drivers of users: how a program serves faults of a range by itself. */

import type { SegmentIndex, SpaceIndex } from './space-kinds.ts';

/** A segment as a driver of users sees it. */
export interface SegmentView {
  readonly space: SpaceIndex;
  readonly segment: SegmentIndex;
  /** First address. */
  readonly base: number;
  /** Bytes. */
  readonly size: number;
  /** What `map` was given, also for a part of what it mapped. */
  readonly data: number;
  /**
   * Bytes of the mapping that lay before the segment: 0, until a part is unmapped, or a part is protected or advised, which
   * cuts the mapping into segments. All offsets count from the beginning of the mapping, so that they go on meaning the same.
   */
  readonly start: number;
}

/**
 * A driver of users. Named in `map` by a callback reference, because a fault may come from any thread: a module's export, or a
 * name that every thread registers with `vm.callbacks.register`. Prefer modules: the daemon, which goes on with what a dead
 * thread was unmapping or destroying, has registered no names. Such a driver is told later, by the next thread that has its name and
 * maps with a driver, unmaps, destroys a space or calls `vm.spaces.reap()`; `vm.spaces.statistics().untold` says how many parts wait.
 *
 * Its functions run with no lock held, several at a time for one segment; by the time they return, the segment may be gone. A
 * thread can die in the middle of them. Segments of such drivers cannot be pinned: `as.pin` throws `ENOTSUP`, because the driver
 * alone knows how long its pages stay. Pin, or hold, what is behind them instead.
 */
export interface SegmentDriver {
  /**
   * The physical address of the page at an offset of the mapping: memory that stays where it is until `unmapped` was
   * called for it, for example of `vm.heap` or a pmem cookie. Called at each first access of a thread, and again after changes:
   * the same offset must give the same page. Throws what the access shall throw.
   */
  fault(segment: SegmentView, offset: number, write: boolean): number;
  /**
   * A part of the mapping has been unmapped: nobody reaches its pages any more. Called once for each part; twice, when the thread
   * dies that is calling it: it must bear that. Only a thread that dies in `as.unmap` while all `segments` are taken calls it never.
   */
  unmapped?(segment: SegmentView, offset: number, length: number): void;
  /** Bytes that were stored shall become durable. */
  sync?(segment: SegmentView, offset: number, length: number): void;
  /** Advice by the names of `ADVICE`. */
  advise?(segment: SegmentView, offset: number, length: number, advice: string): void;
  /**
   * A fork is made: the value that `data` has in the copy. Without this function the copy shows the same pages. Called before the
   * instant that the fork shows, once for each segment; offsets in the copy begin at `start`, as in the original. When there is no
   * copy in the end, `unmapped` is called for all of a segment with this `data`, whose `space` and `segment` are -1 if the copy never
   * had it; also when the thread dies that makes the copy. `ticket` is a number of this question alone: see `forkLost`.
   */
  fork?(segment: SegmentView, ticket: number): number;
  /**
   * The thread died that had asked `fork` with this ticket, before it could write the answer down: what the driver made for it, if
   * anything, nobody will ask for. Called like `unmapped`. A driver that writes its tickets down where they survive a thread, before
   * or with what it makes, loses nothing.
   */
  forkLost?(segment: SegmentView, ticket: number): void;
}
