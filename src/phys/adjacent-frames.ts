/**
 * Adjacent frames of a single-frame use: taken as a run, given back one by one or at once.
 *
 * A large page needs its frames side by side, yet each of them is a page's frame like any other. They are taken as a run, whose
 * record gives them back if the thread dies, and become single frames in one section, together with the end of that record.
 * Who moves a page out of the way of a run has such a record in use: it takes its few frames as single ones at once.
 */

import { assert } from '../base/assert.ts';
import type { Int32Column } from '../layout/column.ts';
import type { FrameIndex } from './banks.ts';
import type { FrameCore } from './frame-core.ts';
import { ANYWHERE, type RunHand } from './run-hand.ts';

/** Takes the lowest free run of `count` frames that leaves `reserve` frames; its first frame, or -1. */
export function takeFreeRun(core: FrameCore, runs: RunHand, count: number, reserve: number): FrameIndex {
  runs.settleOther();
  core.mutex.enter();
  const first = core.queue.mustYield(count) ? -1 : runs.takeFree(count, reserve, ANYWHERE);
  core.mutex.exit();
  return first;
}

/**
 * Takes up to 32 adjacent frames of one bank as single frames of a use, in one section, while this thread may have a run in hand:
 * the lowest that leave `reserve` frames. The first of them, or -1.
 */
export function takeAdjacentSingles(core: FrameCore, count: number, reserve: number, use: number): FrameIndex {
  const { frames, bankFrames } = core.thread.region.geometry;
  const shape = { count, alignment: 1, boundary: 0 };
  let first = -1;
  core.mutex.enter();
  const may = core.free - count >= reserve && !core.queue.mustYield(count);
  for (let bank = 0; may && bank < frames && first < 0; bank += bankFrames) {
    first = core.source.findRun(shape, bank, Math.min(bank + bankFrames, frames));
  }
  if (first >= 0) for (let frame = first; frame < first + count; frame++) core.take(frame, use);
  core.mutex.exit();
  return first;
}

/** Turns the run that was taken last, of at most 32 frames, into single frames of a use. */
export function singleOut(core: FrameCore, runs: RunHand, first: FrameIndex, count: number, use: number): void {
  core.mutex.enter();
  runs.settleInSection();
  for (let frame = first; frame < first + count; frame++) core.convert(frame, use);
  core.mutex.exit();
}

/** Gives up to 32 adjacent frames of a single-frame use back at once. `note`, a column by frame, gets its value in the same section. */
export function giveAdjacent(
  core: FrameCore,
  first: FrameIndex,
  count: number,
  use: number,
  note: Int32Column,
  value: number,
): void {
  core.mutex.enter();
  for (let frame = first; frame < first + count; frame++) {
    assert(core.useOf(frame) === use, 'phys/frames: a frame is given back by whoever uses it');
    core.thread.journal.set(note, frame, value);
    core.give(frame);
  }
  core.mutex.exit();
}
