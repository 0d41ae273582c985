/**
 * What a thread has in flight between an arena and its source.
 *
 * PROBLEM     A range on its way from one arena to another belongs to neither, and the thread that carries it may be
 *             terminated between the two locks.
 * STRUCTURE   One row per slot, changed inside the sections of the arenas that it connects:
 *
 *               import    source's section: allocate, row := range      arena's section: new span, row := empty
 *               release   arena's section: remove span, row := range    source's section: free, row := empty (or := the
 *                         span of the source's own source, which this emptied)
 *
 * INVARIANTS  I1 a range in a row is allocated in the arena that the row names, and in no span.
 *             I2 a slot has at most one range in flight.
 * LOCKING     The row belongs to its slot, stores are logged in the section that they belong to.
 * COSTS       Four logged stores each way.
 * FAILURE     A source that is a function cannot take part in a section. What it returned is recorded right afterwards; a
 *             death inside the function, or between it and the record, is the function's to handle. A release is called at
 *             most once: the row says so before the call. A source with `recorded` and `releasing` can handle all of it.
 * REJECTED    Holding both locks: the source's search would be under the arena's lock, and functions may not run there.
 * REFERENCES  docs/locking.md: imports.
 */

import { assert } from '../base/index.ts';
import { TAG_DOUBLE_SHIFT, TAG_SIZE } from '../layout/index.ts';
import type { SlotIndex } from '../sync/index.ts';
import { hashFind } from './allocation-hash.ts';
import type { ArenaCore } from './arena-core.ts';
import type { ArenaCores } from './arena-cores.ts';
import type { Constraints } from './fit.ts';
import { freeTag } from './release.ts';
import { shareIdle } from './share-idle.ts';
import { announceSpace } from './space-queue.ts';

/** A source of spans that is no arena. Both functions run without any lock of an arena. */
export interface SpanSource {
  /**
   * A range of at least `size`: its first address, or address and size, or -1 when there is none. A request hands
   * on its own size, `needed`, and constraints if it has some: any range that has a place for it will do, one that has none
   * goes back at once. With `compat: 'seed'` only `size` is handed on.
   */
  import(
    size: number,
    constraints?: Constraints,
    needed?: number,
  ): number | { readonly start: number; readonly size: number };
  /** Takes a range back. Without this function imported spans are kept. */
  release?(start: number, size: number): void;
  /**
   * For a source that takes back by itself what a dead thread had imported but not recorded, or released but not given
   * back: runs in the arena's section that makes an imported range a span. What it stores through the journal happens
   * together with that or not at all. Must not take locks.
   */
  recorded?(): void;
  /** The same for a release: runs in the section that removes a span. Recovery then leaves the range to the source. */
  releasing?(start: number, size: number): void;
}

/** A source of spans that answers later: for arenas with `import: { from, async: true }`. Runs without any lock. */
export interface AsyncSpanSource {
  /**
   * Resolves to what `SpanSource.import` returns. After an answer of -1, or one that has no place for the request, it is asked
   * again later: after 1 ms, then after twice as long each time, up to a second. May be asked again for the same request when
   * the thread that ran it died.
   * Rejecting ends the waits of all who share the request.
   */
  importAsync(
    size: number,
    constraints?: Constraints,
    needed?: number,
  ): Promise<number | { readonly start: number; readonly size: number }>;
  /** Takes a range back; called by threads that have the functions. Without it imported spans are kept. */
  release?(start: number, size: number): void;
}

/** Records an allocation that was made for the arena that imports it. In the section of the source. */
export function recordImport(source: ArenaCore, start: number, size: number): void {
  const { journal, thread } = source;
  const { transfer } = source.tables;
  journal.set(transfer.arena, thread.slot, source.row + 1);
  journal.setDouble(transfer.start, thread.slot, start);
  journal.setDouble(transfer.size, thread.slot, size);
}

/** Records a span that was removed and must go back to its source. In the section of the arena that had it. */
export function recordRelease(core: ArenaCore, start: number, size: number): void {
  const { journal, thread } = core;
  const { transfer } = core.tables;
  journal.setDouble(transfer.start, thread.slot, start);
  journal.setDouble(transfer.size, thread.slot, size);
  if (core.importArena >= 0) journal.set(transfer.arena, thread.slot, core.importArena + 1);
  else {
    journal.set(transfer.callback, thread.slot, core.importCallback + 1);
    if (!core.asyncImports) spanSource(core.cores, core).releasing?.(start, size);
  }
}

/** Records what a function returned, without a lock. */
export function recordFunctionImport(core: ArenaCore, start: number, size: number): void {
  const { transfer } = core.tables;
  const { slot } = core.thread;
  transfer.start.put(slot, start);
  transfer.size.put(slot, size);
  transfer.callback.put(slot, core.importCallback + 1);
}

/** Empties this slot's row in the section that made its range a span. */
export function clearTransfer(core: ArenaCore): void {
  const { transfer } = core.tables;
  core.journal.set(transfer.arena, core.thread.slot, 0);
  core.journal.set(transfer.callback, core.thread.slot, 0);
}

/** Gives back what a slot has in flight, and what that sets free further up. Called without a lock. */
export function returnInFlight(cores: ArenaCores, from: SlotIndex): void {
  const { thread } = cores;
  const { transfer } = thread.region.tables;
  const freed: ArenaCore[] = [];
  for (let slot = from; transfer.arena.get(slot) !== 0; slot = thread.slot) {
    const source = cores.at(transfer.arena.get(slot) - 1);
    source.enterAnyway();
    const at = hashFind(source, transfer.start.get(slot));
    assert(at >= 0, 'vmem/transfer I1: a range in flight is allocated in its source');
    const tag = source.words[at] as number;
    const size = source.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number;
    const wanted = transfer.size.get(slot);
    assert(size >= wanted && size - wanted < source.quantum, 'vmem/transfer I1: the range has the size of its tag');
    thread.journal.set(transfer.arena, slot, 0);
    freeTag(source, at);
    source.exit();
    announceSpace(source);
    if (source.words[source.waitersAt] !== 0) freed.push(source);
    if (slot !== thread.slot) break;
  }
  if (from !== thread.slot && transfer.arena.get(thread.slot) !== 0) returnInFlight(cores, thread.slot);
  for (const slot of from === thread.slot ? [from] : [from, thread.slot]) releaseToFunction(cores, slot);
  // What a death left is told to all who wait: they take back what is idle.
  if (from === thread.slot) for (const source of freed) shareIdle(source);
}

/** Calls the release function for what a slot has in flight to one. */
function releaseToFunction(cores: ArenaCores, slot: SlotIndex): void {
  const { transfer } = cores.thread.region.tables;
  const callback = transfer.callback.get(slot) - 1;
  if (callback < 0) return;
  transfer.callback.put(slot, 0);
  const source = cores.callbacks.resolve<SpanSource>(callback);
  if (slot !== cores.thread.slot && source.releasing !== undefined) return;
  source.release?.(transfer.start.get(slot), transfer.size.get(slot));
}

/** The functions that an arena imports through. Throws `ENOENT` when this thread cannot have them. */
export function spanSource(cores: ArenaCores, core: ArenaCore): SpanSource {
  return cores.callbacks.resolve<SpanSource>(core.importCallback);
}
