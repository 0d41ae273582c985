/** Tables of the region itself and of `sync/`: header, slots, journals, owners, callbacks. */

import { GEOMETRY_KEYS } from './geometry.ts';
import { bytes, f64, i32, table } from './table.ts';

/** Cancel tokens that one slot can have in use at a time. */
export const CANCEL_LANES = 64;

/** The region's header: always at offset 0, so that a thread can read it before it knows the geometry. */
export const headerTable = table('header', 1, 'columns', {
  magic: i32('c', 'MAGIC of region.ts'),
  version: i32('c', 'LAYOUT_VERSION of region.ts'),
  flavour: i32('c', '1 release, 2 verify'),
  layoutHash: i32('c', 'hash of all places'),
  geometry: i32('c', 'capacities in the order of GEOMETRY_KEYS', { lanes: GEOMETRY_KEYS.length }),
  /** Options that are no capacities, decided at boot. */
  spinLimit: i32('c', 'polls of a held mutex before waiting'),
  clockMode: i32('c', '0 real, 1 virtual'),
  virtualTime: f64('A', 'milliseconds, when the clock is virtual'),
  nextWatch: i32('A', 'last watch id given out'),
  poison: i32('A', '0 sound, 1 poisoned, 2 shut down', { padded: true }),
  poisonText: bytes('A', 'why the region was poisoned', 512),
  heartbeat: i32('A', 'beats of the monitor', { padded: true }),
  /** Fault points of verify builds: see sync/fault.ts. */
  faultArmed: i32('A', 'fault point + 1, 0 none', { padded: true }),
  faultAction: i32('A', 'FAULT_ACTION'),
  faultSkip: i32('A', 'passes to let through first'),
  faultSlot: i32('A', 'slot + 1, 0 any'),
  faultHits: i32('A', 'times that the armed point fired'),
  faultParked: i32('A', 'slot + 1 of the parked thread'),
});

/** One row for each thread that can be attached at a time. */
export const slotTable = table('slot', 'slots', 'columns', {
  claim: i32('A', '0 free, watch id of the thread that holds the slot, or RECOVERING', { padded: true }),
  waitAddress: i32('W', 'word address + 1 that the slot waits on, 0 none', { padded: true }),
  waitToken: i32('A', 'cancel token + 1 that can end the wait, 0 none'),
  generation: i32('A', 'times that the slot was released'),
  threadId: i32('W', 'Linux thread id, 0 unknown'),
  threadStart: f64('W', 'start time of the thread in clock ticks, 0 unknown'),
  owner: i32('W', 'owner that the slot charges'),
  held: i32('W', 'HELD_LANE: count of held-lock records, then the records', { lanes: 'heldLanes', padded: true }),
  /** Statistics: each slot counts for itself. */
  contended: f64('W', 'mutex entries that did not succeed at once'),
  slept: f64('W', 'waits in the operating system'),
  recovered: f64('A', 'times that a takeover cleaned up after this slot'),
  ownerAfter: i32(
    'W',
    'owner + 1 that the slot charges by itself, while it serves a request that another one is charged for',
  ),
});

/** Cancel tokens: each slot makes its own, any thread may cancel them. */
export const cancelTable = table('cancel', 'slots', 'columns', {
  state: i32('A', 'bit 0 in use, bit 1 cancelled, generation above', { lanes: CANCEL_LANES, padded: true }),
  inUse: i32('W', 'tokens of the slot that are in use'),
});

/** The undo journal of each slot. */
export const journalTable = table('journal', 'slots', 'columns', {
  entries: i32('W', 'length in words, then the entries of sync/journal.ts', { lanes: 'journalLanes', padded: true }),
});

/** Owners: who is charged for what, and up to which limit. */
export const ownerTable = table('owner', 'owners', 'columns', {
  state: i32('A', 'OWNER_STATE'),
  limit: f64('L', 'limit of a resource, by OWNER_RESOURCE', { lanes: 8 }),
  used: i32('A', 'charged units of a resource; from lane 4 on those charged under a lock', { lanes: 8 }),
  peak: i32('A', 'highest charge seen', { lanes: 8 }),
  name: bytes('c', 'name', 64),
  generation: i32('A', 'owners that have had the row before'),
});

/** Functions known to all threads as (module URL, export name). */
export const callbackTable = table('callback', 'callbacks', 'columns', {
  state: i32('A', '0 free, 1 being written, 2 ready'),
  module: bytes('c', 'module URL, empty for a registered name', 1024),
  exportName: bytes('c', 'export name', 128),
});
