/**
 * Window search: where a run can be made with the least to move.
 *
 * A window of the request's length slides over the stretches. In it frames are free, in use by somebody who can be asked, or
 * in the way; the window with the fewest frames to ask for is chosen, the lowest among equals:
 *
 *     |free|page|free|free|list|page|free|free|page|free|
 *      \____ 1 page ____/       \____ 2 pages ____/
 */

import { crosses } from '../base/exact.ts';
import type { FrameIndex } from './banks.ts';
import type { Evacuation } from './evacuation.ts';
import type { FrameCore } from './frame-core.ts';
import type { RunShape } from './run-tree.ts';

/** Shape and place of the run. */
export interface WindowRequest extends RunShape {
  readonly low: FrameIndex;
  /** Frame behind the last one allowed. */
  readonly high: FrameIndex;
}

/** First frame of the best window, or -1. Looks without the lock, at every frame of the range. */
export function bestWindow(
  core: FrameCore,
  evacuation: Evacuation,
  request: WindowRequest,
  inTheWay: ReadonlySet<FrameIndex>,
): FrameIndex {
  const { count, alignment, boundary } = request;
  const { source } = core;
  let best = -1;
  let bestAsked = count + 1;
  for (const stretch of core.segments.joined()) {
    const low = Math.max(stretch.low, request.low);
    const high = Math.min(stretch.high, request.high);
    let obstacle = low - 1;
    let asked = 0;
    for (let frame = low; frame < high; frame++) {
      // What leaves the window on the left is free or was counted: an obstacle would have emptied the window.
      const left = frame - count;
      if (left > obstacle && !source.has(left)) asked--;
      if (!source.has(frame)) {
        if (inTheWay.has(frame) || evacuation.of(core.useOf(frame)) === null) {
          obstacle = frame;
          asked = 0;
          continue;
        }
        asked++;
      }
      const first = left + 1;
      if (first <= obstacle || asked >= bestAsked || first % alignment !== 0) continue;
      if (boundary !== 0 && crosses(first, frame, boundary)) continue;
      best = first;
      bestAsked = asked;
    }
  }
  return best;
}
