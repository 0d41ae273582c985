/** Tables of the mapping cache of `vpm/`: its control row, free lists, entries, what it knows of each frame and of each slot. */

import { f64, i32, table } from './table.ts';

/** Lanes of a slot's counters. */
export const MAPPING_COUNTER_LANES = 24;

/** The cache itself: one row. */
export const mappingCacheTable = table('mappingCache', 1, 'columns', {
  state: i32('c', 'MAPPING_STATE'),
  waitLock: i32('A', 'mutex of those who wait for an entry', { padded: true }),
  released: i32('A', 'condition: an entry was released', { lanes: 'lockLanes', padded: true }),
  wanting: i32('A', 'bit per slot that waits for an entry', { lanes: 'slotLanes', padded: true }),
  shortage: i32('A', 'mutex of the one request that may keep entries while it waits for more', { padded: true }),
  cleanLock: i32('A', 'mutex of the list of clean pages', { padded: true }),
  cleanHead: i32('L', 'clean page that leaves next, frame + 1'),
  cleanTail: i32('L', 'clean page that came last, frame + 1'),
  cleanCount: i32('L', 'pages on the list'),
});

/** Free lists of entries: entry e belongs to list e modulo the number of lists. */
export const mappingListTable = table('mappingList', 'mappingLists', 'columns', {
  lock: i32('A', 'mutex', { padded: true }),
  allocate: i32('L', 'queue that entries are taken from: 0 or 1; the other one takes what is released', {
    padded: true,
  }),
  head: i32('L', 'first entry of each queue, entry + 1', { lanes: 2 }),
  tail: i32('L', 'last entry of each queue, entry + 1', { lanes: 2 }),
});

/** Entries: which page each of them remembers. */
export const mappingEntryTable = table('mappingEntry', 'mappingEntries', 'records', {
  holders: i32('L', 'bit per slot that has the entry in use', { lanes: 'slotLanes' }),
  frame: i32('L', 'frame of the page, frame + 1, 0 none yet'),
  vnode: i32('L', 'vnode of the page'),
  index: i32('L', 'offset of the page in its vnode in pages'),
  queue: i32('L', 'queue of its list + 1, 0 while it is in use'),
  next: i32('L', 'next entry of the queue, entry + 1'),
  previous: i32('L', 'entry before it in the queue, entry + 1'),
});

/** What the cache knows of each frame. */
export const mappingFrameTable = table('mappingFrame', 'mappingFrames', 'records', {
  entry: i32('A', 'entry that the page has, entry + 1; right only if the entry names the page too'),
  clean: i32('L', '1 while it is on the list of clean pages'),
  next: i32('L', 'next clean page, frame + 1'),
  previous: i32('L', 'clean page before it, frame + 1'),
});

/** What each slot did with entries. */
export const mappingSlotTable = table('mappingSlot', 'slots', 'columns', {
  rotor: i32('W', 'list that the next miss begins with, modulo the number of lists', { padded: true }),
  counters: f64('W', 'MAPPING_COUNTER values', { lanes: MAPPING_COUNTER_LANES, padded: true }),
});
