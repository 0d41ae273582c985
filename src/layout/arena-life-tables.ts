/** Tables of `vmem/` for what happens around an arena's allocations: limits, quarantine, charges, asynchronous imports, recording. */

import { bytes, f64, i32, table } from './table.ts';

/** One row per arena, beside `arena` and `arenaState`: what only some arenas use. */
export const arenaLifeTable = table('arenaLife', 'arenas', 'columns', {
  limit: f64('c', 'most that all spans together may be, 0 no limit'),
  quarantineFrees: f64('c', 'later frees that a freed range waits for'),
  quarantineMs: f64('c', 'milliseconds that a freed range waits'),
  lowAt: f64('c', 'room at or below which the reclaim callback is told, -1 only when a request would fail'),
  lowCallback: i32('c', 'callback + 1 that is told when space runs low, 0 none'),
  lowTold: i32('A', '1 from when the callback was told until there is room again'),
  quarantineHead: i32('L', 'tag that has waited longest'),
  quarantineTail: i32('L', 'tag freed last'),
  quarantineCount: i32('L', 'tags that wait'),
  quarantineSize: f64('L', 'sum of their sizes'),
  recording: i32('L', 'recording + 1 that operations are written to, 0 none'),
});

/** Bytes of arenas that owners are charged for: one row per owner. */
export const ownerLedgerTable = table('ownerLedger', 'owners', 'columns', {
  lock: i32('A', 'mutex', { padded: true }),
  used: f64('L', 'charged to the owner'),
  peak: f64('L', 'highest charge seen'),
});

/** What a slot has charged without an allocation to show for it, or freed without giving the charge back. */
export const ownerPledgeTable = table('ownerPledge', 'slots', 'columns', {
  owner: i32('W', 'owner + 1 whose charge must go down by the amount, 0 none', { padded: true }),
  amount: f64('W', 'the amount'),
});

/** Kinds of requests for which an arena remembers that its asynchronous source had nothing. */
export const PAUSED_KINDS = 8;

/** One row per arena: the import that requests of an arena with an asynchronous source wait for. */
export const spanRequestTable = table('spanRequest', 'arenas', 'columns', {
  state: i32('A', 'SPAN_REQUEST', { padded: true }),
  runner: i32('L', 'slot + 1 that runs the import'),
  constrained: i32('L', '1 when the constraints below hold'),
  failures: i32('A', 'imports that failed with an error, wrapping'),
  size: f64('L', 'what is wanted'),
  align: f64('L', 'constraint'),
  phase: f64('L', 'constraint'),
  nocross: f64('L', 'constraint'),
  min: f64('L', 'constraint'),
  max: f64('L', 'constraint'),
  errorText: bytes('L', 'what the last failure said', 256),
  timeoutMs: f64('c', 'most that an import may take, 0 no limit'),
  deadline: f64('L', 'when the import that is running has taken too long'),
  run: i32('L', 'imports that were begun, wrapping: tells one that was given up from the next'),
  misses: i32('L', 'per kind of request that brought nothing: answers in a row, 0 none', { lanes: PAUSED_KINDS }),
  missedAt: f64('L', 'spans that the arena had given back at the last of them', { lanes: PAUSED_KINDS }),
  retryAt: f64('L', 'when the source may be asked for the kind again', { lanes: PAUSED_KINDS }),
  missedSize: f64('L', 'size of the kind', { lanes: PAUSED_KINDS }),
  missedAlign: f64('L', 'its constraint, 0 for a kind without constraints', { lanes: PAUSED_KINDS }),
  missedPhase: f64('L', 'its constraint', { lanes: PAUSED_KINDS }),
  missedNocross: f64('L', 'its constraint', { lanes: PAUSED_KINDS }),
  missedMin: f64('L', 'its constraint', { lanes: PAUSED_KINDS }),
  missedMax: f64('L', 'its constraint', { lanes: PAUSED_KINDS }),
});

/** What threads that run asynchronous imports sleep on: one row. */
export const spanServiceTable = table('spanService', 1, 'columns', {
  wanted: i32('A', 'changes with every request', { padded: true }),
});

/** Recordings that are under way, one row each. */
export const recordingTable = table('recording', 'recordings', 'columns', {
  slot: i32('A', 'slot + 1 of the thread that reads the recording, 0 for a row that is not in use', { padded: true }),
  arena: i32('L', 'arena + 1 that is recorded'),
  closed: i32('L', '1 from when an operation found no room'),
  written: f64('L', 'entries written so far'),
  read: f64('L', 'entries read so far'),
  missed: f64('L', 'operations that found no room'),
});

/** Entries of the rings: each recording has an equal share of the rows. */
export const recordEntryTable = table('recordEntry', 'recordEntries', 'records', {
  address: f64('L', 'first address, -1 for a request that failed'),
  size: f64('L', 'size; of a continuation nocross'),
  first: f64('L', 'align, or the new size; of a continuation min'),
  second: f64('L', 'phase; of a continuation max'),
  kind: i32('L', 'RECORD_KIND'),
  strategy: i32('L', 'STRATEGY that found the segment'),
  slot: i32('L', 'slot of the thread'),
});
