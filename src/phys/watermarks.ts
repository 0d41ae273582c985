/**
 * Watermarks: how many frames are kept for whom, and when the pagedaemon works.
 *
 * PROBLEM     When the last frame is gone, whoever could free some may need one itself; and a daemon that begins only then
 *             comes too late for everybody who must not wait.
 * STRUCTURE   Marks over the number of free frames, and a word that the pagedaemon sleeps on:
 *
 *               0        pagedaemonReserve   + kernelReserve   freeMin   freeTarget   desiredFree   lotsFree
 *               |------------------|----------------|-------------|-----------|------------|-----------|--- free
 *                 the pagedaemon     + the system      everybody    it stops    caches of    nobody keeps
 *                 only                                              here        slots grow   less
 *                                                 below freeMin it is kicked
 *
 *               kicked   0 -> 1 by whoever takes a frame below freeMin; 1 -> 0 by the pagedaemon, before it looks at the marks
 *
 * INVARIANTS  I1 the marks ascend in this order, but for the reserves, which only must not be above freeMin when that is set.
 *             I2 a kick after the pagedaemon's look is found by its next wait.
 * LOCKING     Marks change under the frames' lock; reading them without it gives old or new ones. The kick is atomic.
 * COSTS       A take pays for two loads.
 * FAILURE     `EINVAL` for marks that do not ascend.
 * REJECTED    Kicking through messages: the pagedaemon may be any thread, or none.
 * REFERENCES  uvm_pdaemon.c (freemin of at least four pages, freetarg above it, reserves); illumos vm_page.c (minfree, desfree, lotsfree).
 */

import { failMisuse, rejectUnknownOptions, requireInteger, requireObject } from '../base/errors.ts';
import type { BoundTables } from '../layout/region.ts';
import { ALL_WAITERS, compareExchange, load, notify, store, waitAsync } from '../sync/atomics.ts';
import { Mutex } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import { sleepOn } from '../sync/sleep.ts';
import type { Thread } from '../sync/thread.ts';
import { FrameReservations } from './frame-reservations.ts';
import { FRAME_USE } from './frame-uses.ts';

/** What a thread may take: `user` leaves both reserves alone, `system` that of the pagedaemon, `pagedaemon` none. */
export type FramePrivilege = 'user' | 'system' | 'pagedaemon';

/** Throws `EINVAL` for what is no privilege. */
export function requirePrivilege(privilege: FramePrivilege): void {
  if (privilege === 'user' || privilege === 'system' || privilege === 'pagedaemon') return;
  failMisuse('frames.withPrivilege', { privilege }, "privilege must be 'user', 'system' or 'pagedaemon'");
}

/** The marks, in frames. */
export interface FrameMarks {
  /** Frames that only the pagedaemon may take. */
  readonly pagedaemonReserve: number;
  /** Frames above those that only the system and the pagedaemon may take. */
  readonly kernelReserve: number;
  /** Below this many free frames the pagedaemon works. */
  readonly freeMin: number;
  /** It stops at this many. */
  readonly freeTarget: number;
  /** Below this many nobody should take frames ahead of need. */
  readonly desiredFree: number;
  /** At this many there is no shortage of any kind. */
  readonly lotsFree: number;
}

/** The marks and the kick as one thread sees them. */
export class Watermarks {
  readonly #thread: Thread;
  readonly #mutex: Mutex;
  readonly #row: BoundTables['frameReserve'];
  readonly #counts: BoundTables['framePool']['counts'];
  readonly #kicked: number;
  readonly #reservations: FrameReservations;

  constructor(thread: Thread) {
    const { tables } = thread.region;
    this.#thread = thread;
    this.#mutex = new Mutex(thread, tables.framePool.lock.address(0), RANK.frames);
    this.#row = tables.frameReserve;
    this.#counts = tables.framePool.counts;
    this.#reservations = new FrameReservations(thread);
    this.#kicked = tables.frameReserve.kicked.address(0);
  }

  /** The marks as they are now. */
  read(): FrameMarks {
    const { pagedaemon, kernel, freeMin, freeTarget, desiredFree, lotsFree } = this.#row;
    return {
      pagedaemonReserve: pagedaemon.get(0),
      kernelReserve: kernel.get(0),
      freeMin: freeMin.get(0),
      freeTarget: freeTarget.get(0),
      desiredFree: desiredFree.get(0),
      lotsFree: lotsFree.get(0),
    };
  }

  /** Changes some marks. Throws `EINVAL`, with nothing changed, when they would not ascend. */
  set(changes: Partial<FrameMarks>): void {
    const { journal, region } = this.#thread;
    const before = this.read();
    requireObject('watermarks.set', 'changes', changes);
    rejectUnknownOptions('watermarks.set', changes, Object.keys(before) as (keyof FrameMarks)[]);
    const marks = { ...before, ...changes };
    for (const [name, frames] of Object.entries(marks)) {
      requireInteger('watermarks.set', name, frames, 0, region.geometry.frames);
    }
    const { freeMin, freeTarget, desiredFree, lotsFree } = marks;
    const reserves = marks.pagedaemonReserve + marks.kernelReserve;
    if (
      (freeMin > 0 && reserves > freeMin) ||
      freeMin > freeTarget ||
      freeTarget > desiredFree ||
      desiredFree > lotsFree
    ) {
      failMisuse('watermarks.set', { ...marks }, 'reserves, freeMin, freeTarget, desiredFree and lotsFree ascend');
    }
    const row = this.#row;
    this.#mutex.enter();
    journal.set(row.pagedaemon, 0, marks.pagedaemonReserve);
    journal.set(row.kernel, 0, marks.kernelReserve);
    journal.set(row.freeMin, 0, freeMin);
    journal.set(row.freeTarget, 0, freeTarget);
    journal.set(row.desiredFree, 0, desiredFree);
    journal.set(row.lotsFree, 0, lotsFree);
    this.#mutex.exit();
  }

  /** Frames that only the pagedaemon may take. */
  get pagedaemonReserve(): number {
    return this.#row.pagedaemon.get(0);
  }

  /** Frames above those that only the system and the pagedaemon may take. */
  get kernelReserve(): number {
    return this.#row.kernel.get(0);
  }

  /** Free frames that a thread leaves to the system and the pagedaemon. */
  reserveFor(privilege: FramePrivilege): number {
    if (privilege === 'pagedaemon') return 0;
    return privilege === 'system' ? this.pagedaemonReserve : this.pagedaemonReserve + this.kernelReserve;
  }

  /** True when the pagedaemon should work. */
  get isLow(): boolean {
    return this.#free < this.#row.freeMin.get(0);
  }

  /** True when nobody should take frames ahead of need. */
  get isScarce(): boolean {
    return this.#free < this.#row.desiredFree.get(0);
  }

  /** Frames that the pagedaemon has to free before it may stop; 0 or less: none. */
  get missing(): number {
    return this.#row.freeTarget.get(0) - this.#free;
  }

  /** Kicks the pagedaemon when frames are low; cheap when they are not, or when it was kicked already. Never waits. */
  kickIfLow(): void {
    if (this.isLow) this.kick();
  }

  /** Kicks the pagedaemon. Never waits. */
  kick(): void {
    const { words } = this.#thread;
    if (load(words, this.#kicked) !== 0 || compareExchange(words, this.#kicked, 0, 1) !== 0) return;
    notify(words, this.#kicked, ALL_WAITERS);
  }

  /** For the pagedaemon: takes the kick back and says whether there was one. Called before it looks at the marks. */
  takeKick(): boolean {
    const { words } = this.#thread;
    const kicked = load(words, this.#kicked) !== 0;
    store(words, this.#kicked, 0);
    return kicked;
  }

  /** For the pagedaemon: waits for a kick, at most `timeoutMs`; false when none came. The thread is blocked. */
  waitForKick(timeoutMs: number): boolean {
    sleepOn(this.#thread, this.#kicked, 0, timeoutMs);
    this.#thread.clearWait();
    return load(this.#thread.words, this.#kicked) !== 0;
  }

  /** Like `waitForKick`, but leaves the event loop free. */
  async waitForKickAsync(timeoutMs: number): Promise<boolean> {
    const { words } = this.#thread;
    await waitAsync(words, this.#kicked, 0, timeoutMs);
    this.#thread.checkPoison();
    return load(words, this.#kicked) !== 0;
  }

  /** Broken invariants, for `check()`. */
  problems(): string[] {
    const { freeMin, freeTarget, desiredFree, lotsFree } = this.read();
    if (freeMin <= freeTarget && freeTarget <= desiredFree && desiredFree <= lotsFree) return [];
    return [`phys/watermarks I1: ${freeMin} ${freeTarget} ${desiredFree} ${lotsFree}`];
  }

  /** Free frames that are not kept for an owner. */
  get #free(): number {
    return this.#counts.at(0, FRAME_USE.free) - this.#reservations.others();
  }
}

/** Memories from this many frames on have marks. In smaller ones any mark would be a large part of what pages have. */
const MARKED_FRAMES = 64;

/** `freeMin` is at least so many frames, */
const FREE_MIN = 4;

/** but at most such a part of a small memory. */
const FREE_MIN_PART = 32;

/**
 * Marks for a memory of so many frames, with reserves of none: what the pagedaemon does takes no frames of its own. They keep
 * no frame from anybody; the pagedaemon takes from pages what they ask for.
 */
export function defaultMarks(frames: number): FrameMarks {
  const least = frames < MARKED_FRAMES ? 0 : Math.min(FREE_MIN, Math.floor(frames / FREE_MIN_PART));
  const freeMin = Math.max(least, Math.floor(frames / 256));
  const freeTarget = freeMin === 0 ? 0 : Math.max(freeMin + 1, Math.floor((freeMin * 4) / 3));
  const lotsFree = Math.floor(frames / 64);
  return {
    pagedaemonReserve: 0,
    kernelReserve: 0,
    freeMin,
    freeTarget,
    desiredFree: Math.max(freeTarget, Math.floor(lotsFree / 2)),
    lotsFree: Math.max(freeTarget, lotsFree),
  };
}
