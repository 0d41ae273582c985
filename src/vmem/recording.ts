/**
 * Recording: what an arena does, written down so that it can be run again.
 *
 * PROBLEM     A fault or a slow spot that shows only in a live program must be taken home: all operations on an arena, of
 *             all threads, in the order in which they happened.
 * STRUCTURE   A ring of entries in shared memory for each recording. Whoever changes the arena appends under its lock, in the
 *             same transaction; the thread that records reads from time to time (recorder.ts).
 *
 *               | read already ... | read -> ............ <- written | room ... |
 *
 *             What is written are the changes of the tag layer: a span that is imported is an `add`, one that goes back a
 *             `remove`, a range that leaves quarantine a `free`, one that goes there because its allocation shrinks the
 *             part of a `split`, a slab of a quantum cache an `xalloc`; an allocation bears
 *             the strategy that found it. So a replay needs neither sources, clocks nor threads.
 * INVARIANTS  I1 an entry is there if and only if its operation happened.   I2 written - read never exceeds the ring.
 *             I3 a closed recording has every operation up to where it was closed, and none after.
 * LOCKING     The arena's lock, for writing and reading.
 * COSTS       An arena that is not recorded: one word read under the lock. Else one or two entries of 64 bytes.
 * FAILURE     An operation that finds no room closes the recording; it and those after it are counted.
 * REJECTED    Overwriting the oldest: a trace without its beginning cannot be run. Waiting for room under the arena's lock.
 * REFERENCES  test/golden/vmem/README.md for the format.
 */

import { VERIFY } from '../base/index.ts';
import { TAG_DOUBLE_SHIFT, TAG_SIZE, TAG_START } from '../layout/index.ts';
import { faultPoint } from '../sync/index.ts';
import type { ArenaCore } from './arena-core.ts';
import type { Constraints } from './fit.ts';
import { STRATEGY_BEST, STRATEGY_NEXT, type TagIndex } from './kinds.ts';

/** What an entry stands for. */
export const RECORD_KIND = {
  alloc: 1,
  xalloc: 2,
  /** Behind an `xalloc`: the rest of its constraints. */
  more: 3,
  free: 4,
  add: 5,
  remove: 6,
  resize: 7,
  merge: 8,
  /** One allocation becomes two. */
  split: 9,
} as const;

/** Entries that one recording can hold. */
export function ringSize(core: ArenaCore): number {
  const { recording, recordEntry } = core.tables;
  return Math.floor(recordEntry.rowCount / recording.rowCount);
}

/** Row of a ring's entry. */
export function entryRow(core: ArenaCore, recording: number, number: number): number {
  const size = ringSize(core);
  return recording * size + (number % size);
}

/** The arena's recording if it has room for so many entries; else -1, and the operation counts as missed. */
function roomFor(core: ArenaCore, entries: number): number {
  const { recording: rows } = core.tables;
  const recording = (core.words[core.recordingAt] as number) - 1;
  const used = rows.written.get(recording) - rows.read.get(recording);
  if (rows.closed.get(recording) === 0 && used + entries <= ringSize(core)) return recording;
  closeRecording(core);
  return -1;
}

/** Ends the recording at this operation, for which there is no room, and counts it. */
function closeRecording(core: ArenaCore): void {
  const { recording: rows } = core.tables;
  const recording = (core.words[core.recordingAt] as number) - 1;
  core.journal.set(rows.closed, recording, 1);
  core.journal.setDouble(rows.missed, recording, rows.missed.get(recording) + 1);
}

/** Fills in an entry that nobody can reach yet. */
function fill(
  core: ArenaCore,
  row: number,
  kind: number,
  address: number,
  size: number,
  first: number,
  second: number,
): void {
  const { recordEntry: entries } = core.tables;
  entries.kind.put(row, kind);
  entries.slot.put(row, core.thread.slot);
  entries.address.put(row, address);
  entries.size.put(row, size);
  entries.first.put(row, first);
  entries.second.put(row, second);
}

function append(core: ArenaCore, kind: number, address: number, size: number, first: number): void {
  const { recording: rows } = core.tables;
  const recording = roomFor(core, 1);
  if (recording < 0) return;
  const written = rows.written.get(recording);
  fill(core, entryRow(core, recording, written), kind, address, size, first, 0);
  core.journal.setDouble(rows.written, recording, written + 1);
  if (VERIFY) faultPoint(core.thread, 'vmem.record.written');
}

/** An allocation, or for address -1 a request that no free segment could hold. `strategy` is the one that decided. */
export function recordAlloc(
  core: ArenaCore,
  address: number,
  size: number,
  strategy: number,
  constraints: Constraints | null,
): void {
  if (strategy === STRATEGY_NEXT && address >= 0) {
    // Where the cursor was when the recording began is in no trace: the place itself is written down.
    const place = { align: core.quantum, phase: 0, nocross: 0, min: address, max: address + size - 1 };
    recordAlloc(core, address, size, STRATEGY_BEST, place);
    return;
  }
  const { recording: rows, recordEntry: entries } = core.tables;
  const recording = roomFor(core, constraints === null ? 1 : 2);
  if (recording < 0) return;
  let written = rows.written.get(recording);
  const row = entryRow(core, recording, written++);
  entries.strategy.put(row, strategy);
  if (constraints === null) {
    fill(core, row, RECORD_KIND.alloc, address, size, 0, 0);
  } else {
    const { align, phase, nocross, min, max } = constraints;
    fill(core, row, RECORD_KIND.xalloc, address, size, align, phase);
    fill(core, entryRow(core, recording, written++), RECORD_KIND.more, address, nocross, min, max);
  }
  core.journal.setDouble(rows.written, recording, written);
}

/** A segment that becomes free: `tag` is still as it was allocated. */
export function recordFree(core: ArenaCore, tag: TagIndex): void {
  const start = core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_START] as number;
  append(core, RECORD_KIND.free, start, core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number, 0);
}

/** A span that comes or goes. */
export function recordSpan(core: ArenaCore, kind: 'add' | 'remove', start: number, size: number): void {
  append(core, RECORD_KIND[kind], start, size, 0);
}

/** An allocation that changed its size in place. */
export function recordResize(core: ArenaCore, address: number, size: number, newSize: number): void {
  append(core, RECORD_KIND.resize, address, size, newSize);
}

/** An allocation that became two, the first of `first`. */
export function recordSplit(core: ArenaCore, address: number, size: number, first: number): void {
  append(core, RECORD_KIND.split, address, size, first);
}

/** A span that was merged with the one in front of it. */
export function recordMerge(core: ArenaCore, start: number): void {
  append(core, RECORD_KIND.merge, start, 0, 0);
}
