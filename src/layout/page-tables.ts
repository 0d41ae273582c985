/** Tables of `phys/`, `page/`, `vnode/` and `vpm/`: frames, page identities, vnodes, and what each slot has in hand. */

import type { GeometryKey } from './geometry.ts';
import { bytes, f64, i32, table } from './table.ts';

/** Bits in one word of the map of free frames. */
export const MAP_WORD_BITS = 32;

/** Bytes of text in one cell of the path heap: with its link a cell fills a cache line. */
export const PATH_CELL_BYTES = 60;

/** The capacities that follow from the number of frames and of vnodes. */
export function pageGeometry(frames: number, pathBytes: number): Record<DerivedKey, number> {
  const frameWords = Math.ceil(frames / MAP_WORD_BITS);
  return {
    frameWords,
    frameGroups: Math.ceil(frameWords / MAP_WORD_BITS),
    pathCells: Math.ceil(pathBytes / PATH_CELL_BYTES),
  };
}

type DerivedKey = Extract<GeometryKey, 'frameWords' | 'frameGroups' | 'pathCells'>;

/** One row per frame: what it is used for. */
export const frameTable = table('frame', 'frames', 'columns', {
  use: i32('L', 'FRAME_USE in bits 0-7; of the thread that took the frame slot + 1 in 8-15, generation in 16-30'),
});

/** Map of free frames: bit b of word w stands for frame 32 w + b. */
export const frameMapTable = table('frameMap', 'frameWords', 'columns', {
  free: i32('L', 'bit set: the frame is free'),
});

/** Summary of the map: bit b of group g stands for word 32 g + b. */
export const frameGroupTable = table('frameGroup', 'frameGroups', 'columns', {
  free: i32('L', 'bit set: the word has a free frame'),
});

/** The lock of the frames and their counts: one row. */
export const framePoolTable = table('framePool', 1, 'columns', {
  lock: i32('A', 'mutex', { padded: true }),
  counts: i32('L', 'frames by FRAME_USE', { lanes: 8, padded: true }),
  lowestGroup: i32('L', 'no group below this one has a free frame'),
  treeStale: i32(
    'L',
    '1 while a search brings the run tree up to date: after a death nodes may differ from their children',
  ),
});

/** The run of frames that a thread is taking or giving back: what its death would leave unfinished. */
export const frameHandTable = table('frameHand', 'slots', 'columns', {
  stage: i32('W', 'HAND_STAGE', { padded: true }),
  first: i32('W', 'first frame of the run'),
  count: i32('W', 'frames in the run'),
});

/** One record per frame: the identity and state of the page in it. With up to 31 slots a record is half a cache line. */
export const pageTable = table('page', 'frames', 'records', {
  lock: i32('A', 'readers/writer lock: the word, then bits of holders by slot', { lanes: 'lockLanes' }),
  vnode: i32('P', 'vnode + 1, 0 no identity'),
  index: i32('P', 'offset in the vnode in pages'),
  next: i32('L', 'next frame of the hash chain, frame + 1'),
  state: i32('P', 'PAGE_STATE, or PAGE_STATE.inHand + slot + 1'),
  referenced: i32('A', '1 since the page was last used, cleared by the clock: a hint'),
  modified: i32('A', 'MODIFIED bits: differs from its backing store, and who is writing it there; 0 clean'),
});

/** Buckets of the page hash. */
export const pageBucketTable = table('pageBucket', 'pageBuckets', 'columns', {
  head: i32('L', 'first frame of the chain, frame + 1'),
});

/** Locks of the page hash: bucket b is guarded by stripe b modulo the number of stripes. */
export const pageStripeTable = table('pageStripe', 'pageStripes', 'columns', {
  lock: i32('A', 'mutex', { padded: true }),
});

/** The replacement clock: one row. */
export const pageClockTable = table('pageClock', 1, 'columns', {
  hand: i32('A', 'frames that the hand has passed, modulo 2^32', { padded: true }),
  shortage: i32('A', 'mutex of the one thread that may keep pages while it waits for more', { padded: true }),
  moves: i32('A', 'identities that have moved from frame to frame, modulo 2^32', { padded: true }),
  modifiedMax: i32('c', 'frames that may be modified before writers write back, 0 no limit'),
});

/** What each slot did with pages. */
export const pageSlotTable = table('pageSlot', 'slots', 'columns', {
  counters: f64('W', 'PAGE_COUNTER values', { lanes: 32, padded: true }),
});

/** One row per vnode: a file as it was when its size and times were last looked at. */
export const vnodeTable = table('vnode', 'vnodes', 'columns', {
  state: i32('L', 'VNODE_STATE'),
  kind: i32('L', 'VNODE_KIND'),
  generation: i32('L', 'times that the row was recycled'),
  identity: i32('L', 'device low, device high, inode low, inode high', { lanes: 4 }),
  stamp: i32('L', 'time of modification low, high, time of change low, high, in nanoseconds', { lanes: 4 }),
  size: f64('L', 'bytes'),
  sizePeak: f64('L', 'bytes behind which neither a page nor the file holds anything but zeros'),
  openers: i32('L', 'bit per slot that has the vnode open', { lanes: 'slotLanes' }),
  chainNext: i32('L', 'next vnode of the hash chain or of the free rows, vnode + 1'),
  path: i32('L', 'first cell of the path, cell + 1'),
  pathLength: i32('L', 'bytes of the path'),
  lock: i32('A', 'readers/writer lock of size and contents: who changes the size holds it alone', {
    lanes: 'lockLanes',
  }),
  diskSize: f64('A', 'bytes that the file has had in its file system, at least, since it was looked at'),
  writers: i32('L', 'bit per slot that has the vnode open for writing', { lanes: 'slotLanes' }),
  errorCount: i32('A', 'failures of writing back'),
  errorCode: i32('A', 'WRITE_ERRORS position + 1 of the last failure'),
  detail: i32('L', 'what the kind of the vnode keeps here'),
  lsnDurable: f64('A', 'how far the log of the pages is durable'),
  lsnOffset: i32('L', 'byte offset of the LSN in a page + 1, 0 none'),
  pagePeak: f64('L', 'largest size since the row was taken: no page lies beyond it'),
  written: i32('A', '1 when we have written to the file since its stamp was taken'),
  pageShift: i32('L', 'a page of the vnode has 1 << pageShift frames'),
  modifiedMax: i32('A', 'frames that may be modified before writers write back, 0 no limit'),
  allocates: i32('A', '1: the file gets its blocks when it becomes longer'),
  scans: i32('A', 'how often somebody has begun to read it from end to end: a hint'),
  timeoutMs: i32('A', 'how long an asynchronous store may take to bring or to take pages, or to look, 0 no limit'),
  lateWrites: i32('A', 'writes that were given up and that the store has not answered'),
  cuts: i32('A', 'cuts begun and ended, modulo 2^32: odd while the store is asked for one'),
  cutRange: f64('L', 'of that cut: the size that it is to have, the size before', { lanes: 2 }),
  keptBehind: i32('L', '1: pages behind the end were held when it was cut, and may be held still'),
});

/** Buckets of the vnode hash. */
export const vnodeBucketTable = table('vnodeBucket', 'vnodeBuckets', 'columns', {
  head: i32('L', 'first vnode of the chain, vnode + 1'),
});

/** The lock of the vnodes, and what is free: one row. */
export const vnodePoolTable = table('vnodePool', 1, 'columns', {
  lock: i32('A', 'mutex', { padded: true }),
  freeHead: i32('L', 'first free row, vnode + 1'),
  freshRow: i32('L', 'rows from here on were never used'),
  rowsInUse: i32('L', 'rows with a vnode'),
  recycleHand: i32('L', 'next row to look at for recycling'),
  cellHead: i32('L', 'first free cell, cell + 1'),
  freshCell: i32('L', 'cells from here on were never used'),
  cellsInUse: i32('L', 'cells that hold text'),
  reserved: i32('c', 'rows at the end that never stand for files'),
});

/** The path heap: cells of text linked to chains. */
export const pathCellTable = table('pathCell', 'pathCells', 'records', {
  next: i32('L', 'next cell of the path or of the free cells, cell + 1'),
  text: bytes('L', 'UTF-8', PATH_CELL_BYTES),
});

/** What each slot's mappings are charged for. */
export const mapSlotTable = table('mapSlot', 'slots', 'columns', {
  owner: i32('W', 'owner that was charged last', { padded: true }),
  prepaid: i32('W', 'frames charged, by owner', { lanes: 'owners' }),
  pinned: i32('W', 'frames that mappings of the slot hold, by owner', { lanes: 'owners' }),
});

/** Links of the lists of pages. A page is on one list at most. Rows of pages that were on none are never touched. */
export const pageLinkTable = table('pageLink', 'frames', 'records', {
  next: i32('L', 'next frame of the list, frame + 1, 0 the last or none'),
  previous: i32('L', 'previous frame of the list, frame + 1, or a value of PAGE_UNLINKED or PAGE_FIRST'),
});

/** Modified pages of each vnode, those first that were modified first. */
export const pageDirtyTable = table('pageDirty', 'vnodes', 'columns', {
  head: i32('L', 'first frame, frame + 1'),
  tail: i32('L', 'last frame, frame + 1'),
  count: i32('L', 'pages on the list'),
  changes: i32('L', 'times that the contents changed behind those who read past the pages, modulo 2^32'),
});

/** Locks of the lists of modified pages: vnode v is guarded by stripe v modulo the number of stripes. */
export const pageDirtyStripeTable = table('pageDirtyStripe', 'pageStripes', 'columns', {
  lock: i32('A', 'mutex', { padded: true }),
  count: i32('L', 'modified pages of all vnodes of the stripe', { padded: true }),
});

/** The cache list: one row. */
export const pageCacheListTable = table('pageCacheList', 1, 'columns', {
  lock: i32('A', 'mutex', { padded: true }),
  head: i32('L', 'first frame, frame + 1'),
  tail: i32('L', 'last frame, frame + 1'),
  count: i32('L', 'pages on the list'),
});

/** The pagedaemon: one row. */
export const pagedaemonTable = table('pagedaemon', 1, 'columns', {
  busy: i32('A', 'slot + 1 of the thread that does a round, 0 nobody', { padded: true }),
  counters: f64('A', 'PAGEDAEMON_COUNTER values, stored by who does a round', { lanes: 16, padded: true }),
  failure: bytes('A', 'what the store said when it last refused a modified page', 256),
});
