/**
 * Memory removal: taking frames offline while the system runs.
 *
 * PROBLEM     A bank, or a part of one, is to go: what is in it must go elsewhere first, and what cannot go must be named. A
 *             removal that fails half-way must leave no trace.
 * STRUCTURE   1 listeners are told: caches that pin frames let go of them
 *             2 frames are taken one by one: free ones, then what can be moved, then what can be given up; again and again
 *               until all are taken, the time is up, or the removal is cancelled
 *             3 the segments lose the range, and its frames become absent
 *             4 listeners are told how it ended
 *
 *               free, page, ... --2--> listTaking --3--> absent        cancelled, failed, died in 2:  listTaking --> free
 *
 * INVARIANTS  I1 until step 3 every frame taken goes back when this thread dies; from step 3 on every one becomes absent.
 * LOCKING     Frames one by one under the frames' lock; listeners and reclaimers run without it. Step 3 is one section.
 * COSTS       A move for each page. A pause of a few milliseconds between two rounds.
 * FAILURE     `EBUSY` names a frame that stayed, its use, and the slots that hold it, or says that nothing is free to move to and who
 *             has the rest of memory (removal-report.ts); `ECANCELED`, `EINVAL`.
 * REJECTED    Marking the segment against takes while it drains: whoever takes a frame of it in between is asked in the next
 *             round, as everybody else.
 * REFERENCES  illumos kphysm_delete (cage, collect, cancel); vm_seg.c, segkp and pagelock around it: pre_del, post_del.
 */

import { fail, failMisuse, requireInteger } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { CancelToken } from '../sync/cancel.ts';
import { faultPoint } from '../sync/fault.ts';
import { pause } from '../sync/pause.ts';
import type { FrameIndex } from './banks.ts';
import type { Evacuation } from './evacuation.ts';
import type { FrameCore } from './frame-core.ts';
import { FRAME_COUNTER } from './frame-counters.ts';
import { RunBuilder } from './frame-runs.ts';
import { FRAME_USE } from './frame-uses.ts';
import { requireWaitOptions } from './frame-waiting.ts';
import { ListHand } from './list-hand.ts';
import { failRemoval } from './removal-report.ts';

/** Pause between two rounds. */
const PAUSE_MS = 2;

/** How long a removal tries when it is not told. */
const REMOVAL_MS = 1000;

/** How long a removal may take. */
export interface RemovalOptions {
  /** Milliseconds for those who hold frames to let go of them. Default 1000. */
  readonly timeoutMs?: number;
  /** Ends the removal with `ECANCELED`, from any thread. */
  readonly cancel?: CancelToken;
}

/** Told, in the thread that changes memory and with no lock held, about memory that comes and goes. */
export interface MemoryListener {
  /** Frames have come online. */
  added?(first: FrameIndex, count: number): void;
  /** Frames are about to go: let go of them. What it throws is passed to `removed` and does not end the removal. */
  removing?(first: FrameIndex, count: number): void;
  /** The removal has ended: frames have gone, or, when `cancelled`, everything is as before. Undoes what `removing` did. */
  removed?(first: FrameIndex, count: number, cancelled: boolean, error: unknown): void;
}

/** Takes a range offline; see the file's header. */
export function removeMemory(
  core: FrameCore,
  evacuation: Evacuation,
  listeners: readonly MemoryListener[],
  press: () => void,
  first: FrameIndex,
  count: number,
  options: RemovalOptions,
): void {
  const { frames } = core.thread.region.geometry;
  requireWaitOptions('frames.offline', options);
  const { timeoutMs = REMOVAL_MS, cancel } = options;
  requireInteger('frames.offline', 'first', first, 0, frames - 1);
  requireInteger('frames.offline', 'count', count, 1, frames - first);
  if (!anyOnline(core, first, count)) failMisuse('frames.offline', { first, count }, 'none of these frames is online');
  cancel?.throwIfCancelled('frames.offline');
  // 1.
  const errors = listeners.map((listener) => attempt(() => listener.removing?.(first, count)));
  let gone = false;
  try {
    takeAndRetire(core, evacuation, press, first, count, timeoutMs, cancel);
    gone = true;
  } finally {
    evacuation.count(gone ? FRAME_COUNTER.removals : FRAME_COUNTER.removalsFailed);
    // 4.
    for (const [at, listener] of listeners.entries()) listener.removed?.(first, count, !gone, errors[at]);
  }
}

/** What an action throws, or undefined. */
function attempt(action: () => void): unknown {
  try {
    action();
    return undefined;
  } catch (error) {
    return error ?? new Error('a listener threw nothing');
  }
}

function takeAndRetire(
  core: FrameCore,
  evacuation: Evacuation,
  press: () => void,
  first: FrameIndex,
  count: number,
  timeoutMs: number,
  cancel: CancelToken | undefined,
): void {
  const { thread, mutex, segments } = core;
  const hand = new ListHand(core);
  const deadline = thread.clock.now() + timeoutMs;
  let carved = false;
  let pressed = false;
  hand.begin(first, count);
  try {
    // 2.
    for (;;) {
      cancel?.throwIfCancelled('frames.offline');
      const stays = takeRound(core, evacuation, first, count);
      if (stays < 0) break;
      // What others keep for later goes at once, and what is modified is written if it cannot go elsewhere.
      if (!pressed) {
        pressed = true;
        press();
        continue;
      }
      if (thread.clock.now() >= deadline) failRemoval(core, evacuation, first, count, stays);
      pause(thread, PAUSE_MS);
    }
    if (VERIFY) faultPoint(thread, 'phys.removal.taken');
    // 3.
    mutex.enter();
    carved = segments.canCarve(first, count);
    if (carved) {
      segments.carve(first, count);
      hand.leaveInSection();
      thread.commit();
      if (VERIFY) faultPoint(thread, 'phys.removal.leaving');
      hand.leave(first, count);
      core.queue.tellAll();
    }
    mutex.exit();
    if (!carved) fail('ENOMEM', 'frames.offline', { first, count }, 'no row is left for the rest of the segment');
  } finally {
    if (!carved) giveBack(core, hand, first, count);
  }
}

/** Takes what can be taken; a frame that stays, or -1. */
function takeRound(core: FrameCore, evacuation: Evacuation, first: FrameIndex, count: number): FrameIndex {
  let stays = -1;
  evacuation.takeFree(first, count, FRAME_USE.listTaking);
  for (let frame = first; frame < first + count; frame++) {
    const use = core.useOf(frame);
    if (use === FRAME_USE.absent && !core.source.has(frame)) continue;
    if (isTaken(core, frame)) continue;
    if (!evacuation.takeOne(frame, FRAME_USE.listTaking, true, first, count)) stays = frame;
  }
  return stays;
}

function isTaken(core: FrameCore, frame: FrameIndex): boolean {
  return core.useOf(frame) === FRAME_USE.listTaking && core.takerOf(frame) === core.thread.slot;
}

function giveBack(core: FrameCore, hand: ListHand, first: FrameIndex, count: number): void {
  const taken = new RunBuilder();
  for (let frame = first; frame < first + count; frame++) if (isTaken(core, frame)) taken.push(frame, 1);
  if (VERIFY) faultPoint(core.thread, 'phys.removal.cancelling');
  core.mutex.enter();
  hand.giveUp(taken.build().runs);
  core.mutex.exit();
}

function anyOnline(core: FrameCore, first: FrameIndex, count: number): boolean {
  for (let frame = first; frame < first + count; frame++) if (core.useOf(frame) !== FRAME_USE.absent) return true;
  return false;
}
