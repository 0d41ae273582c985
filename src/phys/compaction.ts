/**
 * Compaction: moving what can be moved to low frames, so that high ones become long runs.
 *
 * PROBLEM     Frames that come and go leave holes that no large run fits in, long before anybody asks for one.
 * STRUCTURE   Two fingers:
 *
 *               |free|page|free|list|page|free|page|page|
 *                 ^ lowest free                       ^ highest frame that may move: it is moved to the lowest free one
 *
 *             They end where they meet. What is pinned or is not movable stays where it is.
 * INVARIANTS  I1 a frame that was emptied has use listTaking until it is free: a death gives it back.
 * LOCKING     None between two moves: others work on.
 * COSTS       A move each; a look at every frame above the lowest free one.
 * FAILURE     Fewer moves than wished: what moved and what did not is counted.
 * REJECTED    Emptying window by window: the same frames would be moved again and again.
 * REFERENCES  Linux mm/compaction.c (migrate and free scanners).
 */

import { rejectUnknownOptions, requireInteger, requireObject } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import { faultPoint } from '../sync/fault.ts';
import type { FrameIndex } from './banks.ts';
import type { Evacuation } from './evacuation.ts';
import type { FrameCore } from './frame-core.ts';
import { FRAME_COUNTER } from './frame-counters.ts';
import { FRAME_USE } from './frame-uses.ts';
import { ListHand } from './list-hand.ts';

/** How far to go. */
export interface CompactionOptions {
  /** End as soon as a run of so many free frames exists. Default: when nothing is left to move. */
  readonly run?: number;
  /** Most frames to move. Default: no limit. */
  readonly moves?: number;
}

/** What a compaction came to. */
export interface CompactionReport {
  readonly moved: number;
  /** Frames whose users did not move them. */
  readonly failed: number;
  /** Longest run of free frames before and after. */
  readonly longestBefore: number;
  readonly longestAfter: number;
}

/** Moves frames together, from this thread. */
export function compactFrames(
  core: FrameCore,
  evacuation: Evacuation,
  options: CompactionOptions = {},
): CompactionReport {
  requireObject('frames.compact', 'options', options);
  rejectUnknownOptions('frames.compact', options, ['run', 'moves']);
  const { frames } = core.thread.region.geometry;
  const { run = frames + 1, moves = Number.MAX_SAFE_INTEGER } = options;
  requireInteger('frames.compact', 'run', run, 1, Number.MAX_SAFE_INTEGER);
  requireInteger('frames.compact', 'moves', moves, 0, Number.MAX_SAFE_INTEGER);
  evacuation.count(FRAME_COUNTER.compactions);
  const hand = new ListHand(core);
  const longestBefore = longestRun(core);
  let longestAfter = longestBefore;
  let moved = 0;
  let failed = 0;
  let lookAgainAt = run - longestBefore;
  core.lowestFirst = true;
  hand.begin();
  try {
    for (let frame = frames - 1; frame > 0 && moved < moves && longestAfter < run; frame--) {
      if (core.source.has(frame) || evacuation.of(core.useOf(frame))?.relocate === undefined) continue;
      if (!hasFreeBelow(core, frame)) break;
      if (!evacuation.takeOne(frame, FRAME_USE.listTaking, false)) {
        failed++;
        continue;
      }
      moved++;
      if (VERIFY) faultPoint(core.thread, 'phys.compact.moved');
      core.mutex.enter();
      hand.giveOne(frame);
      core.mutex.exit();
      // A run cannot have grown by more frames than were emptied: the tree is asked when it may be long enough.
      if (moved < lookAgainAt) continue;
      longestAfter = longestRun(core);
      lookAgainAt = moved + Math.max(1, Math.min(64, run - longestAfter));
    }
  } finally {
    core.lowestFirst = false;
    hand.end();
  }
  return { moved, failed, longestBefore, longestAfter: longestRun(core) };
}

function hasFreeBelow(core: FrameCore, frame: FrameIndex): boolean {
  core.mutex.enter();
  const lowest = core.source.nextFree(0, frame);
  core.mutex.exit();
  return lowest >= 0;
}

function longestRun(core: FrameCore): number {
  core.mutex.enter();
  core.map.tree.refresh();
  const longest = core.map.tree.longest();
  core.mutex.exit();
  return longest;
}
