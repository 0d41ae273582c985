/** Tables of address spaces in `seg/`: spaces, segments, anon maps and what they consist of, shadow lists, what each slot is doing. */

import { bytes, f64, i32, table } from './table.ts';

/** Entries of a node of an anon map: a chunk of so many pages, or so many nodes. */
export const ANON_FANOUT = 64;

/** Words of a space that say when its translations have changed: each stands for a part of its pages. */
export const TRANSLATION_LANES = 32;

/** Lanes of the counters of advice. */
export const ADVICE_LANES = 8;

/** Everything that spaces share: one row. */
export const spaceControlTable = table('spaceControl', 1, 'columns', {
  anonVnode: i32('c', 'vnode + 1 whose pages are anonymous memory'),
  lockSlot: i32('c', 'slot + 1 whose bits in page locks stand for shadow lists'),
  lock: i32('A', 'mutex', { padded: true }),
  drained: i32('A', 'condition: a shadow list was given back', { lanes: 'lockLanes', padded: true }),
  spaceFree: i32('L', 'first free row of a space, space + 1', { padded: true }),
  spaceFresh: i32('L', 'rows from here on were never used'),
  spaceCount: i32('L', 'spaces in use'),
  segmentFree: i32('L', 'first free row of a segment, segment + 1'),
  segmentFresh: i32('L', 'rows from here on were never used'),
  segmentCount: i32('L', 'segments in use'),
  mapFree: i32('L', 'first free row of an anon map, map + 1'),
  mapFresh: i32('L', 'rows from here on were never used'),
  mapCount: i32('L', 'anon maps in use'),
  nodeFree: i32('L', 'first free node, node + 1'),
  nodeFresh: i32('L', 'nodes from here on were never used'),
  nodeCount: i32('L', 'nodes that are not free'),
  anonFree: i32('L', 'first free anon, anon + 1'),
  anonFresh: i32('L', 'anons from here on were never used'),
  anonCount: i32('L', 'anons that are not free'),
  shadowFree: i32('L', 'first free shadow list, list + 1'),
  shadowFresh: i32('L', 'lists from here on were never used'),
  shadowCount: i32('L', 'shadow lists in use'),
  pinFree: i32('L', 'first free pin, pin + 1'),
  pinFresh: i32('L', 'rows from here on were never used'),
  pinCount: i32('L', 'pins in use'),
  dyingNodes: i32('L', 'first node without references, node + 1'),
  dyingAnons: i32('L', 'first anon without references, anon + 1'),
  reserved: f64('L', 'pages of swap that segments have reserved'),
  swapPages: f64('L', 'pages of swap: so many may be reserved beside those of memory that is online'),
  advice: f64('L', 'ADVICE_COUNTER values', { lanes: ADVICE_LANES }),
  untold: i32('L', 'parts in the list `due`'),
  due: i32('L', 'first part that is gone, and whose driver no thread has told that could load it, segment + 1'),
});

/** One row per address space. */
export const addressSpaceTable = table('addressSpace', 'addressSpaces', 'columns', {
  lock: i32('A', 'readers/writer lock', { lanes: 'lockLanes', padded: true }),
  translations: i32('A', 'changes of translations, by part', { lanes: TRANSLATION_LANES, padded: true }),
  state: i32('L', 'SPACE_STATE'),
  generation: i32('L', 'times that the row was given back'),
  next: i32('L', 'next free row, space + 1'),
  root: i32('L', 'root of the tree of segments, segment + 1'),
  segments: i32('L', 'segments'),
  flags: i32('L', 'SPACE_FLAG bits'),
  owner: i32('L', 'owner that is charged for reserved swap'),
  arena: i32('L', 'arena of its free room, arena + 1; 0: to be made when room is asked for'),
  arenaGeneration: i32('L', 'generation of that arena'),
  base: f64('L', 'lowest address'),
  limit: f64('L', 'address behind the highest one'),
  userLimit: f64('L', 'segments end here unless the space is that of the kernel'),
  holeStart: f64('L', 'first address that cannot be mapped'),
  holeEnd: f64('L', 'address behind the hole'),
  size: f64('L', 'bytes in segments'),
});

/** Segments: a record of two cache lines. */
export const segmentTable = table('segment', 'segments', 'records', {
  base: f64('L', 'first address'),
  size: f64('L', 'bytes'),
  roomStart: f64('L', 'first address of its room: guard gaps included'),
  roomEnd: f64('L', 'address behind its room'),
  backing: f64('L', 'first page of the vnode or device map, first physical address, or number of a driver of users'),
  space: i32('L', 'space + 1, 0 for a row that is not in use'),
  left: i32('L', 'left child, segment + 1; next free row'),
  right: i32('L', 'right child, segment + 1'),
  driver: i32('L', 'SEGMENT_DRIVER, 0 before there is one'),
  protection: i32('L', 'PROTECTION bits'),
  maxProtection: i32('L', 'PROTECTION bits that it can have'),
  flags: i32('L', 'SEGMENT_FLAG bits'),
  sizeCode: i32('L', 'page size code'),
  advice: i32('L', 'ADVICE'),
  map: i32('L', 'anon map + 1'),
  mapPage: i32('L', 'page of the anon map that the first page of the segment is'),
  vnode: i32('L', 'vnode + 1'),
  vnodeGeneration: i32('L', 'generation of the vnode'),
  reserved: i32('L', 'pages of swap reserved by a private mapping'),
  cacheOwner: i32('L', 'owner of ranges in the pagelock cache + 1'),
  deviceMap: i32('L', 'device map + 1'),
  callback: i32('L', 'callback + 1 of a driver of users'),
  generation: i32('L', 'times that the row was taken'),
  start: f64('L', 'bytes of the mapping that lay before: more than 0 after a cut'),
  gone: i32(
    'L',
    'space + 1 that the room of this row was cut out of, until its driver was told; linked by `left`; or FORK_ROW',
  ),
});

/** Anon maps: pages of anonymous memory by index, seen through any number of segments. */
export const anonMapTable = table('anonMap', 'anonMaps', 'records', {
  state: i32('L', 'ANON_MAP_STATE'),
  refs: i32('L', 'segments and handles that name it'),
  root: i32('L', 'root node, node + 1'),
  levels: i32('L', 'levels of nodes'),
  pages: i32('L', 'length in pages'),
  flags: i32('L', 'ANON_MAP_FLAG bits'),
  reserved: i32('L', 'pages of swap reserved by a shared map'),
  owner: i32('L', 'owner charged for them'),
  cacheOwner: i32('L', 'owner of ranges in the pagelock cache + 1'),
  softLocks: i32('L', 'shadow lists that name it'),
  generation: i32('L', 'times that the row was taken'),
  next: i32('L', 'next free row, map + 1'),
});

/** Nodes of anon maps; a node of level 0 is a chunk of anons. Anon maps share nodes. */
export const anonNodeTable = table('anonNode', 'anonNodes', 'columns', {
  entries: i32('L', 'nodes of the level below, or anons; + 1', { lanes: ANON_FANOUT }),
  refs: i32('L', 'nodes and anon maps that point here'),
  level: i32('L', '0: its entries are anons'),
  next: i32('L', 'next free or dying node, node + 1'),
});

/** Anonymous pages. The page's identity is the vnode of anonymous memory and this row. */
export const anonTable = table('anon', 'anons', 'records', {
  refs: i32('L', 'chunks that point here; 0 or less: minus the next free or dying anon + 1'),
  swap: i32('L', 'page of the swap store + 1, 0 none'),
});

/** Ranges whose pages are locked: what the pagelock cache calls a shadow list. */
export const shadowListTable = table('shadowList', 'shadowLists', 'records', {
  state: i32('L', 'SHADOW_STATE'),
  slot: i32('L', 'slot + 1 that builds or holds it; without meaning when it is cached'),
  generation: i32('L', 'times that the row was taken'),
  write: i32('L', '1: its pages are marked as modified when they are unlocked'),
  map: i32('L', 'anon map + 1'),
  vnode: i32('L', 'vnode + 1'),
  segment: i32('L', 'segment + 1, when there is no anon map'),
  first: i32('L', 'first page of the anon map or the vnode'),
  pages: i32('L', 'pages'),
  locked: i32('L', 'pages from the first on that are locked'),
  cacheOwner: i32('L', 'owner in the pagelock cache + 1'),
  next: i32('L', 'next free row, list + 1'),
});

/** Pins of ranges of spaces: what unmapping has to wait for. */
export const spacePinTable = table('spacePin', 'shadowLists', 'records', {
  start: f64('L', 'first address'),
  end: f64('L', 'address behind the range'),
  space: i32('L', 'space + 1, 0 for a row that is not in use'),
  slot: i32('L', 'slot that has the pin'),
  next: i32('L', 'next free row, pin + 1'),
});

/** How many shadow lists lock a frame. */
export const frameLockTable = table('frameLock', 'frames', 'columns', {
  count: i32('L', 'shadow lists'),
});

/** What each slot is doing. */
export const spaceSlotTable = table('spaceSlot', 'slots', 'columns', {
  section: i32('A', 'space + 1 that the slot is writing into; SECTION_AWAITED when somebody sleeps', { padded: true }),
  making: i32('L', 'anon + 1 that no chunk points to yet', { padded: true }),
  dropping: i32('L', 'first anon + 1 whose page is being dropped'),
  visiting: i32('W', 'anon + 1 that the slot has found and is about to hold, which must not be freed meanwhile'),
  changing: i32('W', 'space + 1 whose segments and arena are being changed'),
  makingMap: i32('L', 'anon map + 1 of shared memory that is being made'),
  clearMap: i32('L', 'anon map + 1 of which pages must still be taken away'),
  clearFrom: i32('L', 'first page of them'),
  clearTo: i32('L', 'page behind them'),
  unsettled: i32('L', 'space + 1 that the slot is making or taking apart'),
  locking: i32('W', '1 while the slot locks or unlocks pages for shadow lists'),
  segmentOwner: i32(
    'L',
    'owner + 1 in the pagelock cache of a segment that the slot has given up, or is about to give one',
  ),
  mapOwner: i32('L', 'owner + 1 in the pagelock cache of an anon map whose last name the slot has given up'),
  due: i32('L', 'first part that the slot has cut out, and whose driver it is to tell, segment + 1'),
  spare: i32('L', 'anon + 1 that the slot makes its next page with, 0 none; only the slot itself takes it'),
  asked: i32('L', 'first row of what a driver was asked for a copy that is being made, segment + 1; linked by `left`'),
});

/** Where anonymous pages go when memory is short: one row. */
export const swapTable = table('swap', 1, 'columns', {
  lock: i32('A', 'mutex', { padded: true }),
  ready: i32('A', '1 once there is a file'),
  pages: i32('c', 'pages of the file'),
  used: i32('L', 'pages in use'),
  hint: i32('L', 'no page is free in the words below this one'),
  path: bytes('c', 'the file', 512),
});

/** Which pages of the swap file are in use. */
export const swapMapTable = table('swapMap', 'swapWords', 'columns', {
  used: i32('L', 'bit set: the page is in use'),
});
