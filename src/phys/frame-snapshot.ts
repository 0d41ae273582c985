/** Pictures of what is free, for replays and dumps. */

import type { FrameIndex } from './banks.ts';
import type { FrameCore } from './frame-core.ts';
import { FrameLists } from './frame-lists.ts';
import type { FrameRun } from './frame-runs.ts';

/** Frames of each list that a snapshot shows. */
const HEADS = 4;

/** What is free. */
export interface FrameSnapshot {
  readonly free: number;
  /** Hint of each segment: frames from the first available one to where the seed's search starts. */
  readonly hints: readonly number[];
  /** Runs of free frames, ascending, never across segments. */
  readonly freeRuns: readonly FrameRun[];
  /** The frames that come next, by class and colour; empty when the lowest frame always comes next. */
  readonly heads: readonly (readonly (readonly FrameIndex[])[])[];
}

/** Takes a snapshot. */
export function takeSnapshot(core: FrameCore): FrameSnapshot {
  const { frameClasses, frameColours } = core.thread.region.geometry;
  const { rows, count } = core.segments;
  const order = Array.from({ length: count }, (_, row) => row);
  order.sort((a, b) => rows.start.get(a) - rows.start.get(b));
  const { source } = core;
  return {
    free: core.free,
    hints: Array.from({ length: count }, (_, row) => rows.hint.get(row)),
    freeRuns: order.flatMap((row) => runsOf(core, rows.availableStart.get(row), rows.availableEnd.get(row))),
    heads:
      source instanceof FrameLists
        ? Array.from({ length: frameClasses }, (_, freeList) =>
            Array.from({ length: frameColours }, (_, colour) => source.first(freeList, colour, HEADS)),
          )
        : [],
  };
}

function runsOf(core: FrameCore, low: FrameIndex, high: FrameIndex): FrameRun[] {
  const runs: FrameRun[] = [];
  for (let at = low; ; ) {
    const first = core.source.nextFree(at, high);
    if (first < 0) return runs;
    at = first;
    while (at < high && core.source.has(at)) at++;
    runs.push({ first, count: at - first });
  }
}
