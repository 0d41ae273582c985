/**
 * One thread's window onto one arena: views, constants and addresses, no state.
 *
 * PROBLEM     Every part of an arena needs the same columns, and hot code needs them as plain words.
 * STRUCTURE   `words` and `doubles` are the whole region. The arena's working state is a record at `base` (words) and
 *             `baseDouble`; a tag is a record too, see layout/vmem-tables.ts:
 *
 *               words[base + ARENA_BUSY_TAGS]        words[(tag << TAG_SHIFT) + TAG_KIND_AT]
 *               doubles[baseDouble + ARENA_SIZE_IN_USE]
 *
 *             The files beside this one hold the operations, one concept each, as functions of a core.
 * INVARIANTS  I1 a core is good for one generation of its row: every operation compares it under the lock.
 *             I2 whatever can be reached is logged in the journal before it is changed. A tag that came from the reserve
 *                in the same section is not reachable: an undo puts it back there, whatever its fields hold.
 * LOCKING     `enter` and `exit` take and leave the arena's lock; everything else in this room says what it expects.
 * COSTS       Made once per arena and thread.
 * FAILURE     `ESTALE` for a handle whose arena was destroyed.
 * REJECTED    Accessor objects per column: each access costs three dependent loads more, and hot functions run out of
 *             inlining budget.
 * REFERENCES  docs/locking.md: rank `arena`.
 */

import { VmError } from '../base/index.ts';
import type { BoundTables, WordAddress } from '../layout/index.ts';
import { ARENA_BUSY_TAGS, ARENA_MAPS_STALE, ARENA_SIZE_TOTAL, INDEX_TREES } from '../layout/index.ts';
import { type Journal, mutexEnter, mutexExit, RANK, type Thread } from '../sync/index.ts';
import type { ArenaCores } from './arena-cores.ts';
import { ArenaSlabs } from './arena-slabs.ts';
import type { FreeTrees } from './free-index.ts';
import { rebuildMaps } from './free-lists.ts';
import {
  type ArenaIndex,
  FLAG_ASYNC_IMPORT,
  FLAG_CHARGE,
  FLAG_COMPAT_SEED,
  FLAG_EARLY,
  FLAG_KEEP_SPANS,
  FLAG_QUARANTINE,
  isSystemName,
  REFUSED_BY,
  STRATEGY_INSTANT,
} from './kinds.ts';
import { hasQuantumCaches, QuantumCaches } from './quantum-caches.ts';
import { asyncSourceOf } from './span-service.ts';

const ARENA_RANK = RANK.arena;

/** See the file's header. */
export class ArenaCore {
  /** The cores of this thread's other arenas. */
  readonly cores: ArenaCores;
  readonly thread: Thread;
  readonly journal: Journal;
  readonly tables: BoundTables;
  readonly words: Int32Array;
  readonly doubles: Float64Array;
  /** The arena's row. */
  readonly row: ArenaIndex;
  /** Word address of the arena's state record. */
  readonly base: WordAddress;
  /** Double index of the same record. */
  readonly baseDouble: number;
  /** Word address of the arena's index; see free-index.ts. */
  readonly indexAt: WordAddress;
  /** Double index of the same record. */
  readonly indexDouble: number;
  /** The trees of this thread. */
  readonly trees: FreeTrees;
  /** Word address of the first bucket of the region. */
  readonly bucketsAt: WordAddress;
  /** The arena's mutex. */
  readonly lockAddress: WordAddress;
  /** Where the row's generation lies. */
  readonly generationAddress: WordAddress;
  /** Where the number of requests that wait for space lies: of all arenas. */
  readonly waitersAt: WordAddress;
  /** Generation that this core is good for. */
  readonly generation: number;
  readonly name: string;
  /** One of the system's own, for which some boundary tags are kept. */
  readonly system: boolean;
  /** Smallest unit of allocation, a power of two. */
  readonly quantum: number;
  /** 1 / quantum, exact. */
  readonly inverseQuantum: number;
  /** STRATEGY of calls that name none. */
  readonly strategy: number;
  /** ARENA_FLAG bits. */
  readonly flags: number;
  /** Row of the arena that spans come from, or -1. */
  readonly importArena: ArenaIndex;
  /** Callback that spans come from, or -1. */
  readonly importCallback: number;
  /** Imported spans go back to their source. */
  readonly releases: boolean;
  /** Imports are rounded up to a multiple of this; 0 not at all. */
  readonly importUnit: number;
  /** Spans come from a function that returns a promise: see span-service.ts. */
  readonly asyncImports: boolean;
  /** Most that all spans together may be; infinite without a limit. */
  readonly limit: number;
  /** Freed ranges wait before they are used again. */
  readonly quarantines: boolean;
  /** They wait no longer when a request would fail otherwise. */
  readonly quarantinesUntilNeeded: boolean;
  /** Allocations are charged to owners. */
  readonly charges: boolean;
  /** Callback that is told when space runs low, or -1. */
  readonly lowCallback: number;
  /** Where the word lies that says whether operations are recorded. */
  readonly recordingAt: WordAddress;
  /** The caches of small sizes, or null. */
  readonly caches: QuantumCaches | null;
  /** Segments that the search under way has looked at: search.ts counts them at its end. */
  looked = 0;
  /** True when the last request of this thread that failed was refused space that is kept for one that waits. */
  held = false;
  /** REFUSED_BY limit the last request of this thread failed: noted under the lock, for the limit may have room again. */
  refusedBy: number = REFUSED_BY.none;

  /** @param generation the one to be bound to: that of a row that is ready or about to be. */
  constructor(cores: ArenaCores, row: ArenaIndex, generation: number) {
    const { thread } = cores;
    this.cores = cores;
    const { tables } = thread.region;
    const { arena, arenaState } = tables;
    this.thread = thread;
    this.journal = thread.journal;
    this.tables = tables;
    this.words = thread.region.words;
    this.doubles = thread.region.doubles;
    // `| 0`: a boxed double in one of these would turn every sum of hot code into arithmetic on doubles.
    this.row = row | 0;
    this.base = (arenaState.busyTags.address(row) - ARENA_BUSY_TAGS) | 0;
    this.baseDouble = (arenaState.sizeTotal.base + row * arenaState.sizeTotal.stride - ARENA_SIZE_TOTAL) | 0;
    this.indexAt = (tables.arenaIndex.trees.address(row) - INDEX_TREES) | 0;
    this.indexDouble = this.indexAt >> 1;
    this.trees = cores.trees;
    this.bucketsAt = tables.bucket.head.address(0) | 0;
    this.lockAddress = arena.lock.address(row) | 0;
    this.generationAddress = arena.generation.address(row) | 0;
    this.waitersAt = tables.spaceQueue.count.address(0) | 0;
    this.generation = generation;
    this.name = arena.name.text(row);
    this.system = isSystemName(this.name);
    this.quantum = arena.quantum.get(row);
    this.inverseQuantum = 1 / this.quantum;
    this.strategy = arena.strategy.get(row) || STRATEGY_INSTANT;
    this.flags = arena.flags.get(row);
    this.importArena = arena.importArena.get(row) - 1;
    this.importCallback = arena.importCallback.get(row) - 1;
    const importing = this.importArena >= 0 || this.importCallback >= 0;
    this.releases = importing && (this.flags & FLAG_KEEP_SPANS) === 0;
    this.importUnit = arena.importUnit.get(row);
    const { arenaLife: life } = tables;
    this.limit = life.limit.get(row) || Number.POSITIVE_INFINITY;
    this.asyncImports = (this.flags & FLAG_ASYNC_IMPORT) !== 0;
    this.quarantines = (this.flags & FLAG_QUARANTINE) !== 0;
    this.quarantinesUntilNeeded = (this.flags & FLAG_EARLY) !== 0;
    this.charges = (this.flags & FLAG_CHARGE) !== 0;
    this.lowCallback = life.lowCallback.get(row) - 1;
    this.recordingAt = life.recording.address(row) | 0;
    this.caches = hasQuantumCaches(thread.region, row)
      ? new QuantumCaches(
          thread,
          row,
          this.quantum,
          new ArenaSlabs(this),
          () => this.words[this.generationAddress] === generation,
        )
      : null;
  }

  /** True when spans can be had from a source. */
  get imports(): boolean {
    return this.importArena >= 0 || this.importCallback >= 0;
  }

  /** True when this thread can give spans back: it need not have the functions of an asynchronous source. */
  get canRelease(): boolean {
    return !this.asyncImports || asyncSourceOf(this) !== null;
  }

  /** True when the arena behaves like the original source wherever the two differ. */
  get seed(): boolean {
    return (this.flags & FLAG_COMPAT_SEED) !== 0;
  }

  /** Takes the lock. Throws `ESTALE`, without the lock, when the arena was destroyed. */
  enter(): void {
    mutexEnter(this.thread, this.lockAddress, ARENA_RANK);
    if (this.words[this.generationAddress] !== this.generation) {
      this.exit();
      this.failStale();
    }
    if (this.words[this.base + ARENA_MAPS_STALE] !== 0) rebuildMaps(this);
  }

  /** Takes the lock whatever the generation: for destroying and recovering. */
  enterAnyway(): void {
    mutexEnter(this.thread, this.lockAddress, ARENA_RANK);
    if (this.words[this.base + ARENA_MAPS_STALE] !== 0) rebuildMaps(this);
  }

  /** Gives the lock back and commits. */
  exit(): void {
    mutexExit(this.thread, this.lockAddress);
  }

  /** True while the arena that this core was made for exists. Only certain under the lock. */
  get current(): boolean {
    if (this.thread.ended) this.thread.failEnded();
    return this.words[this.generationAddress] === this.generation;
  }

  /** Adds to a statistic. Under the lock; not logged, see ARENA_COUNTER. */
  count(counter: number, amount = 1): void {
    const index = this.baseDouble + counter;
    this.doubles[index] = (this.doubles[index] as number) + amount;
  }

  /** Throws `ESTALE`. */
  failStale(): never {
    throw new VmError('ESTALE', `arena ${JSON.stringify(this.name)}: the arena was destroyed`);
  }
}
