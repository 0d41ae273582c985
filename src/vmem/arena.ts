/**
 * One arena, as a thread uses it.
 *
 * A general resource allocator: it hands out ranges of integers that may be addresses, offsets, identifiers or ports, and
 * never looks at what they stand for. Any number of threads may use the same arena at once.
 */

import { type CheckReport, fail, failMisuse } from '../base/index.ts';
import {
  ARENA_SIZE_IN_USE,
  ARENA_SIZE_TOTAL,
  ARENA_SPARE_COUNT,
  TAG_DOUBLE_SHIFT,
  TAG_SEGMENT_NEXT,
  TAG_SHIFT,
  TAG_SIZE,
  TAG_START,
} from '../layout/index.ts';
import type { Attachment } from '../sync/index.ts';
import { allocate, careForArena } from './allocate.ts';
import { rehashTo } from './allocation-hash.ts';
import { type Allocation, freeAllocationsOf, listAllocations } from './allocations.ts';
import type { ArenaCore } from './arena-core.ts';
import { failAddress, requireAddress, requireAttachment, requireFunction } from './arguments.ts';
import { allocateCachedInTurn, drainAllCaches, drainCaches, isWaitedFor } from './cached-turn.ts';
import { NO_IMPORTER } from './carve.ts';
import { checkArena } from './check.ts';
import { failExhausted, NO_TAGS } from './exhausted.ts';
import { type ConstraintOptions, type Constraints, checkConstraints } from './fit.ts';
import { failSize, freeAddress, roundSize } from './free.ts';
import { freeAll } from './free-all.ts';
import { isOverLimit, releaseIdle } from './import.ts';
import { type ArenaIndex, KIND_SPAN_STATIC, STRATEGY_NAME, type Strategy, strategyCode } from './kinds.ts';
import { destroyArena, requireNotHeap } from './lifecycle.ts';
import { mergeSpans } from './merge-spans.ts';
import type { CachedObject } from './quantum-cache.ts';
import { leaveQuarantine } from './quarantine.ts';
import { ArenaRecording, type RecordOptions } from './recorder.ts';
import { failResize, type ResizeOptions, resizeInPlace } from './resize.ts';
import { announceFreed } from './share-idle.ts';
import { type ArenaSnapshot, describeTag, type Segment, showSnapshot, takeSnapshot } from './snapshot.ts';
import { NO_WAITER } from './space-queue.ts';
import { spaceRequest } from './space-request.ts';
import { spanContaining } from './span-tree.ts';
import { insertSpan, removeStaticSpan, requireNoOverlap, requireRange } from './spans.ts';
import { splitAllocation } from './split.ts';
import { type ArenaStatistics, readStatistics } from './statistics.ts';
import { refillReserve, trimReserve } from './tag-arena.ts';
import { TAGS_PER_OPERATION } from './tag-pool.ts';
import { type AllocAsyncOptions, type AllocWaitOptions, allocateAsync, allocateWait } from './waiting.ts';

/** What an address is in an arena. */
export interface AddressReport extends Segment {
  readonly arena: string;
  /** Distance of the address from the segment's start. */
  readonly offset: number;
  /** The object of a quantum cache that the address lies in; its attachment is 0 when nobody has it. */
  readonly object?: CachedObject;
}

/** See the file's header. Made by `Arenas`; good until the arena is destroyed, `ESTALE` afterwards. */
export class Arena {
  readonly #core: ArenaCore;

  /** For `Arenas`. */
  constructor(core: ArenaCore) {
    this.#core = core;
  }

  /** Its name. */
  get name(): string {
    return this.#core.name;
  }

  /** Its row. */
  get index(): ArenaIndex {
    return this.#core.row;
  }

  /** How often its row was used before: tells it from earlier and later arenas in the same row. */
  get generation(): number {
    return this.#core.generation;
  }

  /** Smallest unit of allocation. */
  get quantum(): number {
    return this.#core.quantum;
  }

  /** How free segments are chosen when a call does not say. */
  get strategy(): Strategy {
    return STRATEGY_NAME[this.#core.strategy] ?? 'instant';
  }

  /** Allocates `size`, rounded up to the quantum. Returns the address, or -1 when no free segment can hold it. */
  tryAlloc(size: number, strategy?: Strategy): number {
    return this.#alloc('arena.tryAlloc', size, strategy);
  }

  /** Like `tryAlloc`, but throws `ENOMEM`, or `EDQUOT` at the limit of the arena or of the owner. */
  alloc(size: number, strategy?: Strategy): number {
    const address = this.#alloc('arena.alloc', size, strategy);
    if (address < 0) failExhausted(this.#core, 'arena.alloc', size);
    return address;
  }

  /** Allocates `size` under constraints; see `ConstraintOptions`. Returns the address or -1. */
  tryXalloc(size: number, options: ConstraintOptions = {}): number {
    return this.#xalloc('arena.tryXalloc', size, options);
  }

  /** Like `tryXalloc`, but throws as `alloc` does. */
  xalloc(size: number, options: ConstraintOptions = {}): number {
    const address = this.#xalloc('arena.xalloc', size, options);
    if (address < 0) failExhausted(this.#core, 'arena.xalloc', size);
    return address;
  }

  /**
   * Allocates like `tryAlloc` or, with constraints, `tryXalloc`; blocks the thread while there is no space. Free it with
   * `free`, or with `xfree` when there were constraints. Requests of one size class are served in the order in which they
   * came. Throws `ETIMEDOUT`, `ECANCELED`, `ENOMEM` when too many wait, `ESTALE` when the arena is destroyed meanwhile.
   */
  allocWait(size: number, options: AllocWaitOptions = {}): number {
    return allocateWait(spaceRequest(this.#core, 'arena.allocWait', size, options, ['timeoutMs', 'cancel']), options);
  }

  /** Like `allocWait`, but leaves the event loop free; `signal` and `cancel` end the wait with `ECANCELED`. */
  async allocAsync(size: number, options: AllocAsyncOptions = {}): Promise<number> {
    return await allocateAsync(
      spaceRequest(this.#core, 'arena.allocAsync', size, options, ['timeoutMs', 'signal', 'cancel']),
      options,
    );
  }

  /**
   * Frees what `alloc` returned; `size` is what was asked for, or the same rounded up. Throws `EINVAL` for an address where
   * no allocation starts and for a wrong size, and changes nothing. What a quantum cache gave has the size of the cache's
   * objects: any size that the same cache serves is accepted for it.
   */
  free(address: number, size: number): void {
    const { caches } = this.#core;
    if (caches !== null && Number.isSafeInteger(size) && size <= caches.maxUnits) {
      if (size <= 0) failSize(this.#core, 'arena.free', size);
      if (!Number.isSafeInteger(address) || address < 0) failAddress(this.#core.name, 'arena.free', address);
      if (!this.#core.current) this.#core.failStale();
      if (caches.free(address, size)) {
        if (this.#core.words[this.#core.waitersAt] !== 0) drainCaches(this.#core);
        return;
      }
    }
    freeAddress(this.#core, 'arena.free', address, size);
  }

  /** Frees what `xalloc` returned; see `free`. */
  xfree(address: number, size: number): void {
    freeAddress(this.#core, 'arena.xfree', address, size);
  }

  /**
   * Puts what this thread and the depots of the quantum caches hold but nobody uses back into the arena. Done by itself when
   * a thread detaches. What other threads have cached as well comes back before an allocation fails, and with `trim`.
   */
  drain(): void {
    const core = this.#core;
    if (!core.current) core.failStale();
    drainCaches(core);
  }

  /**
   * Frees every allocation, in the order of the segment list. Linear in the number of tags. Throws `EINVAL` for an arena
   * with quantum caches, whose objects it could not tell apart, `EBUSY` while another arena has spans of this one.
   */
  xfreeAll(): void {
    requireNotHeap(this.#core, 'arena.xfreeAll');
    freeAll(this.#core);
  }

  /** Gives back what the arena keeps for later: cached objects, an idle imported span, boundary tags. */
  trim(): void {
    if (!this.#core.current) this.#core.failStale();
    drainAllCaches(this.#core);
    releaseIdle(this.#core);
    this.#core.enter();
    trimReserve(this.#core, TAGS_PER_OPERATION);
    this.#core.exit();
  }

  /**
   * Adds a span; idle ones go back if the limit is in the way. Throws `EINVAL` when it overlaps another one, `ENOMEM` without a
   * boundary tag.
   */
  add(start: number, size: number): void {
    const core = this.#core;
    requireRange(core, 'arena.add', start, size);
    requireNotHeap(core, 'arena.add');
    if (core.limit !== Number.POSITIVE_INFINITY && this.size('all') + size > core.limit) releaseIdle(core);
    core.enter();
    requireNoOverlap(core, 'arena.add', start, size);
    if (isOverLimit(core, size)) {
      core.exit();
      fail('EDQUOT', 'arena.add', { arena: core.name, start, size }, `the limit of all spans is ${core.limit}`);
    }
    careForArena(core);
    const spare = core.words[core.base + ARENA_SPARE_COUNT] as number;
    if (spare < TAGS_PER_OPERATION && !refillReserve(core, TAGS_PER_OPERATION)) {
      core.exit();
      fail('ENOMEM', 'arena.add', { arena: core.name, start, size }, NO_TAGS);
    }
    insertSpan(core, start, size, KIND_SPAN_STATIC);
    core.exit();
    announceFreed(core);
  }

  /** Takes a span away that `add` or `create` brought. Throws `EBUSY` while it has allocations, `EINVAL` for no such span. */
  remove(start: number): void {
    requireAddress(this.#core, 'arena.remove', start);
    requireNotHeap(this.#core, 'arena.remove');
    removeStaticSpan(this.#core, start);
  }

  /** Allocates exactly `[address, address + size)`, whole quanta. False when any of it is taken or in no span. */
  tryReserve(address: number, size: number): boolean {
    return this.#reserve('arena.tryReserve', address, size);
  }

  /** Like `tryReserve`, but throws as `alloc` does. */
  reserve(address: number, size: number): void {
    if (this.#reserve('arena.reserve', address, size)) return;
    const values = { arena: this.#core.name, address, size };
    failExhausted(this.#core, 'arena.reserve', size, 'some of it is taken, or in no span', values);
  }

  /**
   * Makes an allocation larger or smaller where it is: `size` is what it has, `newSize` what it shall have and what it is
   * freed with. False, with nothing changed, when what follows it in its span is taken; see resize.ts. Alignment and phase
   * stay; give `nocross` and `max` again if they must hold. Throws `EINVAL` as `free` does.
   */
  tryResize(address: number, size: number, newSize: number, options: ResizeOptions = {}): boolean {
    return resizeInPlace(this.#core, 'arena.tryResize', address, size, newSize, options);
  }

  /**
   * Like `tryResize`, but throws `ENOMEM`, `EDQUOT` at the limit of the allocation's owner, or `EINVAL` for an object of a
   * quantum cache, which keeps the size of its cache.
   */
  resize(address: number, size: number, newSize: number, options: ResizeOptions = {}): void {
    if (resizeInPlace(this.#core, 'arena.resize', address, size, newSize, options)) return;
    failResize(this.#core, address, size, newSize, options);
  }

  /**
   * Makes two allocations of one, which are freed by themselves: the first has `firstSize`, whole quanta. `size` is what it
   * has. Throws `EINVAL` as `free` does, `ENOMEM` without a boundary tag.
   */
  split(address: number, size: number, firstSize: number): void {
    splitAllocation(this.#core, address, size, firstSize);
  }

  /**
   * Joins static spans that touch, so that free segments on both sides become one: all of them, or only the span that starts
   * at `address` with the one in front of it. Returns how many were joined. They are removed as one from then on.
   */
  mergeSpans(address?: number): number {
    if (address !== undefined) requireAddress(this.#core, 'arena.mergeSpans', address);
    return mergeSpans(this.#core, address);
  }

  /** Lets all freed ranges that wait in quarantine be used again. Returns how many. */
  releaseQuarantine(): number {
    const core = this.#core;
    core.enter();
    const count = core.quarantines ? leaveQuarantine(core, true) : 0;
    core.exit();
    if (count > 0) announceFreed(core);
    return count;
  }

  /** Begins to record every operation of every thread on this arena, as a trace that `pagewright replay` runs. */
  record(options: RecordOptions = {}): ArenaRecording {
    return new ArenaRecording(this.#core, options);
  }

  /** Makes the allocation hash fit for so many allocations now instead of step by step. Changes nothing else. */
  rehash(allocations: number): void {
    if (!Number.isSafeInteger(allocations) || allocations < 1 || allocations > 2 ** 29) {
      failMisuse('arena.rehash', { allocations }, 'must be an integer from 1 to 2^29');
    }
    rehashTo(this.#core, allocations);
  }

  /** Sum of all spans, of what is free, or of what is allocated. Throws `EINVAL` for another kind. */
  size(kind: 'all' | 'free' | 'allocated'): number {
    const { doubles, baseDouble } = this.#core;
    if (kind !== 'all' && kind !== 'free' && kind !== 'allocated') {
      failMisuse('arena.size', { kind }, 'kind must be one of all, free, allocated');
    }
    this.#core.enter();
    const total = doubles[baseDouble + ARENA_SIZE_TOTAL] as number;
    const inUse = doubles[baseDouble + ARENA_SIZE_IN_USE] as number;
    this.#core.exit();
    if (kind === 'all') return total;
    return kind === 'free' ? total - inUse : inUse;
  }

  /** The smallest multiple of the quantum that is not below `size`. */
  roundupSize(size: number): number {
    return roundSize(this.#core, 'arena.roundupSize', size);
  }

  /** Calls back for every span and segment, in the order of the segment list, as they were at one moment. */
  walk(callback: (segment: Segment) => void): void {
    requireFunction('arena.walk', 'callback', callback);
    for (const segment of this.snapshot().segments) callback(segment);
  }

  /** Everything about the arena at one moment. */
  snapshot(): ArenaSnapshot {
    return takeSnapshot(this.#core);
  }

  /** The same as text. */
  dump(): string {
    return showSnapshot(this.snapshot());
  }

  /** The segment, and the cached object, that an address lies in, or null. Linear in the segments of one span. */
  whatis(address: number): AddressReport | null {
    const core = this.#core;
    requireAddress(core, 'arena.whatis', address);
    core.enter();
    const span = spanContaining(core, address);
    let found: AddressReport | null = null;
    for (let tag = span; tag !== 0 && found === null; ) {
      tag = core.words[(tag << TAG_SHIFT) + TAG_SEGMENT_NEXT] as number;
      const start = core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_START] as number;
      const size = core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number;
      if (address >= start && address - start < size) {
        found = { arena: core.name, ...describeTag(core, tag), offset: address - start };
      }
    }
    core.exit();
    const object = found === null ? null : (core.caches?.describe(address) ?? null);
    return found === null || object === null ? found : { ...found, object };
  }

  /** Checks every invariant. */
  check(): CheckReport {
    const report = checkArena(this.#core);
    const { caches } = this.#core;
    if (caches === null) return report;
    const problems = [...report.problems];
    const objects = caches.check(problems);
    return { structure: report.structure, checked: report.checked + objects, problems };
  }

  /** Live allocations, of one attachment (`vm.attachment`) or of all. Linear in the number of tags. */
  allocations(attachment?: Attachment): Allocation[] {
    if (attachment !== undefined) requireAttachment(this.#core, 'arena.allocations', attachment);
    return listAllocations(this.#core, attachment);
  }

  /**
   * Frees what a thread that has ended still has; returns how many allocations that were. Throws `EBUSY` while the thread
   * is attached. Nobody else may be using what it had.
   */
  freeOf(attachment: Attachment): number {
    return freeAllocationsOf(this, this.#core, attachment);
  }

  #alloc(call: string, size: number, strategy: Strategy | undefined): number {
    const core = this.#core;
    const { caches } = core;
    if (caches !== null && strategy === undefined && Number.isSafeInteger(size) && size <= caches.maxUnits) {
      if (size <= 0) failSize(core, call, size);
      if (!core.current) core.failStale();
      if (isWaitedFor(core)) {
        return allocateCachedInTurn(core, caches, roundSize(core, call, size), core.strategy, NO_WAITER);
      }
      const cached = caches.tryAlloc(size);
      if (cached >= 0) return cached;
    }
    const rounded = roundSize(core, call, size);
    const code = strategyCode(call, strategy, core.strategy);
    const address = allocate(core, rounded, code, null, NO_IMPORTER);
    if (address >= 0 || caches === null) return address;
    return allocateDrained(core, rounded, code, null, strategy === undefined && rounded <= caches.maxUnits);
  }

  #xalloc(call: string, size: number, options: ConstraintOptions): number {
    const core = this.#core;
    const rounded = roundSize(core, call, size);
    const constraints = checkConstraints(call, options, rounded, core.quantum);
    const strategy = strategyCode(call, options.strategy, core.strategy);
    const address = allocate(core, rounded, strategy, constraints, NO_IMPORTER);
    return address >= 0 || core.caches === null ? address : allocateDrained(core, rounded, strategy, constraints);
  }

  #reserve(call: string, address: number, size: number): boolean {
    requireRange(this.#core, call, address, size);
    return this.#xalloc(call, size, { min: address, max: address + size - 1 }) >= 0;
  }

  /** Counts and sizes. */
  stats(): ArenaStatistics {
    return readStatistics(this.#core);
  }

  /** Ends the arena: spans go back to their source. Throws `EBUSY` while it has allocations, and changes nothing. */
  destroy(): void {
    destroyArena(this.#core);
  }
}

/** Tries once more after the caches of all threads gave back what nobody uses; `cached`: an object will do. */
function allocateDrained(
  core: ArenaCore,
  size: number,
  strategy: number,
  constraints: Constraints | null,
  cached = false,
): number {
  drainAllCaches(core);
  const object = cached ? (core.caches?.takeFromSlabs(size) ?? -1) : -1;
  return object >= 0 ? object : allocate(core, size, strategy, constraints, NO_IMPORTER);
}
