/** Tables of the pagelock cache of `seg/`: its control row, hash buckets, entries, owners, pins, and what each slot has in flight. */

import { f64, i32, table } from './table.ts';

/** Lists of active buckets: two of the window, which the reaper walks in turn, and one of wired buckets. */
export const ACTIVE_LISTS = 3;

/** Lanes of a slot's counters. */
export const PAGELOCK_COUNTER_LANES = 16;

/** The cache itself: one row. */
export const pagelockTable = table('pagelock', 1, 'columns', {
  state: i32('c', 'PAGELOCK_STATE'),
  seedRules: i32('c', '1: the rules of the original source, 0: ours'),
  windowBuckets: i32('c', 'buckets of the window, a power of two; wired buckets follow them'),
  wiredBuckets: i32('c', 'buckets of wired entries, a power of two'),
  shrinkShift: i32('c', 'logarithm of the fraction that one reap may take'),
  stallThreshold: i32('c', 'fruitless attempts that a disable may repeat'),
  mergePages: i32('c', 'neighbours are merged up to this length in pages'),
  maxWindow: f64('c', 'most pages in the window; infinite without a limit'),
  purgePages: f64('c', 'most pages that one reap takes'),
  maxAgeTicks: f64('c', 'ticks that a referenced entry is safe from the reaper'),
  tickMs: f64('c', 'milliseconds of a tick'),
  reapMs: f64('c', 'milliseconds between two visits of the reaper'),
  availableAtBoot: f64('c', 'frames that were available at boot'),
  disabled: i32('A', 'disables that were not undone; changed under the lock too', { padded: true }),
  epoch: i32('A', 'age of released entries; changed under the lock too', { padded: true }),
  lock: i32('A', 'mutex', { padded: true }),
  lockedPages: i32('L', 'different pages of all entries; read without the lock as a hint'),
  windowPages: i32('L', 'different pages of entries that are not wired; read without the lock as a hint'),
  current: i32('L', 'list that a bucket joins: 0 or 1'),
  reaper: i32('L', 'slot + 1 that walks the other list, 0 nobody'),
  headNext: i32('L', 'first bucket of a list, bucket + 1', { lanes: ACTIVE_LISTS }),
  headPrevious: i32('L', 'last bucket of a list, bucket + 1', { lanes: ACTIVE_LISTS }),
  entryHead: i32('L', 'first entry given back, entry + 1'),
  entryFresh: i32('L', 'entries that were never used start here'),
  entryCount: i32('L', 'entries in use'),
  pinHead: i32('L', 'first pin given back, pin + 1'),
  pinFresh: i32('L', 'pins that were never used start here'),
  ownerHead: i32('L', 'first owner row given back, owner + 1'),
  ownerFresh: i32('L', 'owner rows that were never used start here'),
  orphanHead: i32('L', 'first entry whose thread died before its reclaim, entry + 1; read without the lock as a hint'),
  epochStart: f64('L', 'milliseconds at which the epoch began'),
  emptyBuckets: f64('L', 'empty buckets that walks of the reaper met'),
  fullBuckets: f64('L', 'buckets with entries that walks of the reaper met'),
  kicks: i32('A', 'kicks of the reaper', { padded: true }),
  suspended: i32('A', '1 while the reaper must rest'),
  drained: i32('A', 'times that pages left while the cache was disabled', { padded: true }),
});

/** Hash buckets: window first, then wired. Two words, since hits touch no more: eight buckets to a cache line. */
export const pagelockBucketTable = table('pagelockBucket', 'pagelockBuckets', 'records', {
  lock: i32('A', 'mutex'),
  head: i32('L', 'newest entry of the chain, entry + 1; read without the lock as a hint'),
});

/** Places of hash buckets on the lists of active buckets. */
export const pagelockBucketLinkTable = table('pagelockBucketLink', 'pagelockBuckets', 'records', {
  listed: i32('L', 'list of active buckets + 1, 0 none'),
  listNext: i32('L', 'bucket + 1, 0 the head; under the lock of the cache'),
  listPrevious: i32('L', 'bucket + 1, 0 the head; under the lock of the cache'),
});

/** Cached ranges: a record of one cache line. */
export const pagelockEntryTable = table('pagelockEntry', 'pagelockEntries', 'records', {
  address: f64('L', 'first address'),
  shadow: f64('L', 'opaque shadow list'),
  owner: i32('L', 'owner of the key + 1, 0 for an entry that is not in use'),
  pages: i32('L', 'length in pages'),
  writablePages: i32('L', 'pages from the first on that may be written'),
  active: i32('L', 'pins, unsigned'),
  flags: i32('L', 'ENTRY_FLAG bits; the driver lies above them'),
  lastUse: i32('L', 'tick or epoch of the last release'),
  bucket: i32('L', 'bucket of the chain'),
  chainNext: i32('L', 'older entry of the bucket, of the pending list or of the pool, entry + 1'),
  chainPrevious: i32('L', 'newer entry of the bucket, entry + 1'),
  ownerNext: i32('L', 'older entry of the owner, entry + 1'),
  ownerPrevious: i32('L', 'newer entry of the owner, entry + 1'),
  charge: i32('L', 'pages that its reclaim takes off the counts'),
});

/** Who ranges belong to: a segment or an anon map. */
export const pagelockOwnerTable = table('pagelockOwner', 'pagelockOwners', 'records', {
  tag: f64('c', 'number that stands for the owner in the hash of the original source'),
  lock: i32('A', 'mutex of the list'),
  state: i32('L', 'driver + 1, 0 for a row that is not in use; under the lock of the cache'),
  head: i32('L', 'newest entry, entry + 1; 0 in the pool'),
  count: i32('L', 'entries on the list'),
  classes: i32(
    'L',
    'bit k: entries of length class k; read without the lock as a hint. In the pool: the next row, + 1',
  ),
  claims: i32('L', 'entries whose reclaim has not ended; under the lock of the cache'),
});

/** Pins: who keeps which entry active. */
export const pagelockPinTable = table('pagelockPin', 'pagelockPins', 'records', {
  entry: i32('L', 'entry + 1, 0 for a pin that is not in use'),
  next: i32('L', 'next pin of the slot or of the pool that is not in use, pin + 1'),
  slot: i32('L', 'slot + 1 that the pin belongs to'),
  generation: i32('L', 'times that the row was pinned, as far as a handle has bits for it'),
});

/** What each slot has in flight. */
export const pagelockSlotTable = table('pagelockSlot', 'slots', 'columns', {
  pinHead: i32('W', 'first pin of this slot that is not in use, pin + 1', { padded: true }),
  pendingHead: i32('W', 'unlinked entries whose reclaim is due, newest first, entry + 1'),
  reserved: i32('W', 'entry + 1 that is charged for and not yet linked'),
  disables: i32('L', 'disables of this slot that were not undone; under the lock of the cache'),
  counters: f64('W', 'PAGELOCK_COUNTER values', { lanes: PAGELOCK_COUNTER_LANES, padded: true }),
});
