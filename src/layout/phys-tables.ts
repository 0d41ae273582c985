/** Tables of constrained page lists: physical segments, ordered free lists, summaries of free runs, reserves. */

import type { GeometryKey } from './geometry.ts';
import { f64, i32, table } from './table.ts';

/** Frames that one node of the lowest level of the run tree stands for. */
export const RUN_LEAF_FRAMES = 256;

/** Children of every other node of the run tree. */
export const RUN_FANOUT = 8;

/** Nodes of each level of the run tree, lowest level first; the last level has one. */
export function runLevels(frames: number): number[] {
  const levels = [Math.max(1, Math.ceil(frames / RUN_LEAF_FRAMES))];
  while ((levels[levels.length - 1] as number) > 1) {
    levels.push(Math.ceil((levels[levels.length - 1] as number) / RUN_FANOUT));
  }
  return levels;
}

/** How frames are given out one at a time: the value of `frameOrder.source`. */
export const FRAME_ORDER = {
  /** The lowest frame first. */
  lowest: 0,
  /** The frame that was given back last comes first, by class and colour. */
  lastIn: 1,
  /** The frame that was given back first comes first, by class and colour. */
  firstIn: 2,
} as const;

/** The capacities that follow from frames, classes and colours; links are needed for ordered lists only. */
export function physGeometry(frames: number, ordered: boolean): Record<DerivedKey, number> {
  const levels = runLevels(frames);
  const dirtyWords = Math.ceil((levels[0] as number) / 32);
  return {
    runNodes: levels.reduce((sum, nodes) => sum + nodes, 0),
    runDirtyWords: dirtyWords,
    runDirtyGroups: Math.ceil(dirtyWords / 32),
    linkFrames: ordered ? frames : 0,
  };
}

type DerivedKey = Extract<GeometryKey, 'runNodes' | 'runDirtyWords' | 'runDirtyGroups' | 'linkFrames'>;

/** Summaries of the map of free frames, level after level: see phys/run-tree.ts. */
export const runNodeTable = table('runNode', 'runNodes', 'records', {
  prefix: i32('L', 'free frames at the start'),
  suffix: i32('L', 'free frames at the end'),
  longest: i32('L', 'longest run of free frames inside'),
  free: i32('L', 'free frames; kept in the two lowest levels only'),
});

/** Nodes of the lowest level whose part of the map has changed: bit b of word w stands for node 32 w + b. */
export const runDirtyTable = table('runDirty', 'runDirtyWords', 'columns', {
  nodes: i32('L', 'bit set: the node and those above it are out of date'),
});

/** Summary of the changed nodes. */
export const runDirtyGroupTable = table('runDirtyGroup', 'runDirtyGroups', 'columns', {
  words: i32('L', 'bit set: the word of runDirty is not 0'),
});

/** One row per physical segment, in the order in which they were added. */
export const physSegmentTable = table('physSegment', 'physSegments', 'columns', {
  start: i32('L', 'first frame'),
  end: i32('L', 'frame behind the last one; 0 in a row that was never used'),
  availableStart: i32('L', 'first frame that can be free'),
  availableEnd: i32('L', 'frame behind the last one that can be free'),
  freeList: i32('L', 'class of its frames: lower ones are used first'),
  hint: i32('L', 'frames from availableStart to where the next seed search starts'),
  walk: i32('L', 'row of the segment that is searched at this position'),
});

/** The physical segments as a whole: one row. */
export const physSegmentsTable = table('physSegments', 1, 'columns', {
  count: i32('L', 'rows in use'),
  generation: i32('A', 'times that a segment was added'),
  bigFirst: i32('c', '1 when segments are ordered by size, largest first'),
});

/** How single frames are ordered: one row. */
export const frameOrderTable = table('frameOrder', 1, 'columns', {
  source: i32('c', 'FRAME_ORDER'),
});

/** Ordered free lists: one row per class and colour, class * colours + colour. */
export const frameListTable = table('frameList', 'frameLists', 'columns', {
  head: i32('L', 'frame that comes next, frame + 1'),
  tail: i32('L', 'frame that comes last, frame + 1'),
  count: i32('L', 'frames on the list'),
});

/** Links of the ordered free lists. */
export const frameLinkTable = table('frameLink', 'linkFrames', 'columns', {
  next: i32('L', 'frame + 1'),
  previous: i32('L', 'frame + 1'),
});

/** Reserves and what waits for frames: one row. */
export const frameReserveTable = table('frameReserve', 1, 'columns', {
  aggressive: i32('A', 'mutex of the one request that may mark its way through memory', { padded: true }),
  pagedaemon: i32('L', 'frames that only the pagedaemon may take'),
  kernel: i32('L', 'frames that only the system and the pagedaemon may take'),
  freeMin: i32('L', 'below this many free frames the pagedaemon works'),
  freeTarget: i32('L', 'it stops at this many'),
  desiredFree: i32('L', 'below this many nobody takes frames ahead of need'),
  lotsFree: i32('L', 'at this many there is no shortage'),
  kicked: i32('A', '1 since the pagedaemon was kicked, 0 since it looked', { padded: true }),
  promised: i32('L', 'frames promised to owners in all', { padded: true }),
});

/** What a slot's page list call would leave unfinished, and its counters. */
export const pageListSlotTable = table('pageListSlot', 'slots', 'columns', {
  stage: i32('W', 'LIST_STAGE', { padded: true }),
  first: i32('W', 'no frame of the call lies below this one'),
  count: i32('W', 'nor at or above first + count'),
  colour: i32('W', 'colour that the next single frame is looked for in'),
  counters: f64('W', 'PAGE_LIST_COUNTER values', { lanes: 16 }),
});

/** One row per request that waits for frames: see phys/frame-queue.ts. */
export const frameWaiterTable = table('frameWaiter', 'frameWaiters', 'columns', {
  slot: i32('L', 'slot + 1 of the thread that waits, 0 free'),
  order: i32('L', 'class: power of two of the frames asked for'),
  overtaken: i32('L', 'requests of its class served since nothing fitted it'),
  ticket: f64('L', 'who came first'),
  state: i32('A', 'WAITER_STATE'),
  owner: i32('L', 'owner + 1 that is charged for what is asked for, 0 nobody'),
  frames: i32('L', 'frames asked for'),
});

/** The queue of those requests: one row. */
export const frameQueueTable = table('frameQueue', 1, 'columns', {
  count: i32('L', 'rows in use', { padded: true }),
  served: f64('L', 'requests that waited and were served'),
  ticketNext: f64('L', 'ticket of the next one'),
});

/** Free frames that a slot keeps for itself: see phys/slot-caches.ts. */
export const frameCacheTable = table('frameCache', 'slots', 'columns', {
  lock: i32('A', 'mutex', { padded: true }),
  count: i32('L', 'frames on the stack'),
  frames: i32('L', 'the stack', { lanes: 'frameCacheLanes' }),
});

/** Who wants those frames back: one row. */
export const frameCachePauseTable = table('frameCachePause', 1, 'columns', {
  slots: i32('A', 'bit per slot that wants all free frames in the source', { lanes: 'slotLanes', padded: true }),
});

/** What is promised to each owner: see phys/frame-reservations.ts. */
export const frameReservationTable = table('frameReservation', 'owners', 'columns', {
  frames: i32('L', 'frames that are kept for the owner, or that it has in page lists'),
});
