/**
 * Page lists: frames that are contiguous, aligned, inside a window, or simply many.
 *
 * PROBLEM     Devices, WebAssembly memories and large buffers need frames that meet constraints, all of them or none, and
 *             whoever asks may wait until there are some, but not for what can never be.
 * STRUCTURE   request -> read and checked -> search under the lock -> list of runs
 *                                               | nothing, and the caller waits
 *                                               v
 *                              pages are given up where a run could be   |   the pagedaemon frees frames
 *                                               '------- search again, until the time is up ------'
 *
 *             Every frame of a list has use list. Lists are given back whole or in parts, in any order.
 * INVARIANTS  I1 frames of use list are those of lists that were given out and not given back: the outstanding count.
 * LOCKING     The frames' lock for every search; nothing is held while frames are reclaimed.
 * COSTS       A run of a length that exists nowhere is refused by one comparison. See run-tree.ts and bench/phys.ts.
 * FAILURE     `tryAlloc` null; `alloc` throws `EDQUOT` at the owner's limit of frames, for who waits only if the request is
 *             itself above the limit, `ENOMEM`, `ETIMEDOUT`, `ECANCELED`; `EINVAL` for what breaks a rule, and for a request to
 *             wait for what no memory of this system could serve.
 * REJECTED    Keeping frames while waiting for more: two that wait could then hold what the other needs.
 * REFERENCES  uvm_pglist.c 1.89; docs/differences.md for what differs from it.
 */

import type { CheckReport } from '../base/check.ts';
import { fail, failMisuse, requireInteger, requireObject } from '../base/errors.ts';
import { type Attachment, isAttached, type SlotIndex, type Thread } from '../sync/thread.ts';
import type { FrameIndex } from './banks.ts';
import { FitSearch } from './fit-search.ts';
import type { FrameCore } from './frame-core.ts';
import { type FrameRun, type PageList, RunBuilder, singleRun } from './frame-runs.ts';
import { type FrameSnapshot, takeSnapshot } from './frame-snapshot.ts';
import { FRAME_USE } from './frame-uses.ts';
import {
  type FrameAsyncOptions,
  type FrameDemand,
  type FrameWaitOptions,
  requireWaitOptions,
  waitForFrames,
  waitForFramesAsync,
} from './frame-waiting.ts';
import type { Frames } from './frames.ts';
import { ListHand } from './list-hand.ts';
import {
  type FrameRequest,
  LIST_CALL,
  type PageListRequest,
  readRequest,
  type ServedRequest,
} from './page-list-request.ts';
import type { PageListPressure } from './pressure.ts';
import { RunAssembly } from './run-assembly.ts';
import { SeedPageLists } from './seed-page-lists.ts';

/** How page lists behave. */
export interface PageListOptions {
  /** `'seed'`: exactly as `uvm_pglist.c`, with what it misses. */
  readonly compat?: 'seed';
}

/** Page lists as one thread sees them. */
export class PageLists {
  readonly #thread: Thread;
  readonly #frames: Frames;
  readonly #core: FrameCore;
  readonly #hand: ListHand;
  readonly #search: FitSearch;
  readonly #assembly: RunAssembly;
  readonly #seed: SeedPageLists | null;
  readonly #claims: (() => readonly FrameRun[])[] = [];
  #pressure: PageListPressure | null = null;
  /** The last search ended at the owner's limit. */
  #overLimit = false;

  constructor(frames: Frames, options: PageListOptions = {}) {
    const { core } = frames;
    this.#thread = core.thread;
    this.#frames = frames;
    this.#core = core;
    this.#hand = new ListHand(core);
    this.#search = new FitSearch(core);
    this.#assembly = new RunAssembly(core, this.#hand, frames.evacuation);
    if (options.compat !== undefined && options.compat !== 'seed') {
      failMisuse('new PageLists', { compat: options.compat }, "compat must be 'seed' or left out");
    }
    this.#seed = options.compat === 'seed' ? new SeedPageLists(core, this.#hand) : null;
  }

  /** Who frees frames for those who wait. */
  setPressure(pressure: PageListPressure): void {
    this.#pressure = pressure;
  }

  /** Sets how many frames are kept for the pagedaemon, and for the system and the pagedaemon. */
  setReserves(pagedaemonReserve: number, kernelReserve: number): void {
    this.#frames.watermarks.set({ pagedaemonReserve, kernelReserve });
  }

  /** The frames that the lists are made of. */
  get frames(): Frames {
    return this.#frames;
  }

  /** Says of frames of lists that were given out whether `relocate` may be asked for them; their owner calls it. */
  setMovable(first: FrameIndex, count: number, movable: boolean): void {
    this.#core.stamp(first, count, movable ? FRAME_USE.movable : FRAME_USE.list);
  }

  /** Under the frames' lock, with nothing logged: first of `count` adjacent free frames, which stay free, or -1. */
  findFree(count: number): FrameIndex {
    const high = this.#thread.region.geometry.frames;
    return this.#search.oneRun({ count, low: 0, high, alignment: 1, boundary: 0, segments: 1, wait: null });
  }

  /** Frames in lists. */
  get outstanding(): number {
    return this.#core.countOf(FRAME_USE.list);
  }

  /**
   * Takes a page list. Throws `ENOMEM` when the request cannot be served now, or in time, `EDQUOT` at the owner's limit of
   * frames. See `PageListRequest`.
   */
  alloc(request: PageListRequest): PageList {
    const list = this.tryAlloc(request);
    if (list !== null) return list;
    if (this.#overLimit) this.#failLimit(request);
    return fail('ENOMEM', 'pageList.alloc', { ...request, free: this.#core.free }, 'no such frames are free');
  }

  /**
   * Like `alloc`, but waits until the request can be served, blocking this thread, also at the owner's limit of frames. Throws
   * at once when that can never be, `EINVAL`, or `EDQUOT` above the limit; `ETIMEDOUT`, `ECANCELED`, and `ENOMEM` when too many
   * wait already.
   */
  allocWait(request: PageListRequest, options: FrameWaitOptions = {}): PageList {
    const call = 'pageList.allocWait';
    requireWaitOptions(call, options);
    requireObject(call, 'request', request);
    return this.#alloc({ ...request, wait: options }, false, call, request) as PageList;
  }

  /** Like `allocWait`, but leaves the event loop free; `signal` aborts, and so does `cancel`. */
  async allocAsync(request: PageListRequest, options: FrameAsyncOptions = {}): Promise<PageList> {
    const { pageSize, frames } = this.#thread.region.geometry;
    const call = 'pageList.allocAsync';
    const demand = this.#demand(readRequest(request, pageSize, frames, call), false, call, request);
    return waitForFramesAsync(demand, options);
  }

  /** Takes a page list; null when the request cannot be served now. A request that waits throws instead. */
  tryAlloc(given: PageListRequest): PageList | null {
    if (this.#seed !== null) return this.#seed.tryAlloc(given, this.#pressure);
    return this.#alloc(given, false);
  }

  /**
   * Like `tryAlloc`, for rooms that write down what they take: until `settle` is called, which must come before any other
   * call here, the frames go back when this thread dies.
   */
  tryTakeHeld(given: PageListRequest, mayAsk = false, call = LIST_CALL, values: object = given): PageList | null {
    return this.#alloc(given, true, call, values) ?? (mayAsk ? this.#assembleNow(given) : null);
  }

  /**
   * Like `tryTakeHeld`, as one who waits tries: what is in the way is moved or given up, the last pages too. `waiter` says that
   * it is its turn. The waiting is the caller's: see `serveAsync`.
   */
  tryTakeInTurn(given: PageListRequest, waiter: boolean): PageList | null {
    const { pageSize, frames } = this.#thread.region.geometry;
    const request = readRequest(given, pageSize, frames);
    return this.#takeNow(request, true, waiter) ?? this.#assemble(request, true);
  }

  /**
   * Waits, with the event loop free, until `attempt` serves a request that is at most `given`. For rooms that take in several steps, and
   * charge this thread's owner themselves: while its limit is in the way, others go before it, and nobody is asked for frames.
   */
  async serveAsync<Found>(served: ServedRequest<Found>, options: FrameAsyncOptions): Promise<Found> {
    return waitForFramesAsync(this.#served(served), options);
  }

  /** The same, blocking the thread. */
  serve<Found>(served: ServedRequest<Found>, options: FrameWaitOptions): Found {
    return waitForFrames(this.#served(served), options);
  }

  #served<Found>({ given, call, values, attempt }: ServedRequest<Found>): FrameDemand<Found> {
    const { pageSize, frames } = this.#thread.region.geometry;
    const { charges } = this.#core;
    const demand = this.#demand(readRequest(given, pageSize, frames), true, call, values);
    const owner = charges.ownerNow();
    const press = () => (owner < 0 || charges.allows(owner, demand.count)) && demand.press();
    return { ...demand, owner, attempt, press };
  }

  /** Says that a list taken by `tryTakeHeld` is written down. */
  settle(list: PageList): void {
    this.#hand.settle(list.runs);
  }

  /** Gives a list taken by `tryTakeHeld` back instead of settling it. */
  giveUp(list: PageList): void {
    this.settle(list);
    this.free(list);
  }

  /** What a dead slot held: stage, first frame and count of its record. For recovery by rooms above, before `recover`. */
  heldBy(dead: SlotIndex): { readonly stage: number; readonly first: FrameIndex; readonly count: number } {
    return this.#hand.recordOf(dead);
  }

  /** Says that the run that a dead slot held is written down. */
  settleFor(dead: SlotIndex): void {
    this.#hand.forget(dead);
  }

  /**
   * Gives a list back, or any part of one. Throws `EINVAL`, with nothing changed, for frames that are in no list. When this
   * thread dies before `certain` is called the list stands, from then on it is given back.
   */
  free(list: PageList, certain?: () => void): void {
    requireObject('pageList.free', 'list', list);
    this.#core.mutex.enter();
    try {
      this.#hand.give(list, certain);
    } finally {
      this.#core.mutex.exit();
    }
  }

  /** Who has frames of lists written down elsewhere: they are not found by who took them. Called without frames' locks. */
  onClaim(claimed: () => readonly FrameRun[]): void {
    this.#claims.push(claimed);
  }

  /** What a thread took, alone or in lists, and nobody gave back, as one list. Looks at every frame. */
  listOf(taker: Attachment): PageList {
    requireInteger('pageList.listOf', 'taker', taker, 1, Number.MAX_SAFE_INTEGER);
    const claimed = this.#claims.flatMap((claim) => claim());
    this.#core.mutex.enter();
    const list = this.#listOf(taker, claimed);
    this.#core.mutex.exit();
    return list;
  }

  /** Frees what a thread that has ended took. Throws `EBUSY` while it is attached. Returns frames. */
  freeOf(taker: Attachment): number {
    requireInteger('pageList.freeOf', 'taker', taker, 1, Number.MAX_SAFE_INTEGER);
    if (isAttached(this.#thread.region, taker)) fail('EBUSY', 'pageList.freeOf', { taker }, 'the thread is attached');
    // Claims first: what they leave out was not in any list of a thread that has ended, or is free by now.
    const claimed = this.#claims.flatMap((claim) => claim());
    this.#core.mutex.enter();
    try {
      const list = this.#listOf(taker, claimed);
      if (list.frameCount > 0) this.#hand.give(list);
      return list.frameCount;
    } finally {
      this.#core.mutex.exit();
    }
  }

  /** Takes a single frame, in the order of the page source; -1 when there is none above the reserves. */
  tryTakeFrame(): FrameIndex {
    const { watermarks } = this.#frames;
    const core = this.#core;
    core.mutex.enter();
    // The original keeps the kernel's reserve in each class of memory by itself.
    const seedReserve = this.#seed === null ? 0 : watermarks.kernelReserve;
    const before = this.#begin(false);
    const may =
      this.#seed !== null || (core.free > this.#frames.reserve && this.#mayOvertake(1) && core.charges.fits(1));
    const frame = may ? core.takeNext(FRAME_USE.list, seedReserve) : -1;
    core.charges.end(before);
    core.mutex.exit();
    watermarks.kickIfLow();
    return frame;
  }

  /** Gives a single frame back. Throws `EINVAL` for one that is in no list. */
  giveFrame(frame: FrameIndex): void {
    this.#core.mutex.enter();
    const { frames } = this.#thread.region.geometry;
    const known = Number.isInteger(frame) && frame >= 0 && frame < frames && this.#core.useOf(frame) === FRAME_USE.list;
    if (known) this.#core.give(frame);
    this.#core.mutex.exit();
    if (!known) failMisuse('pageList.giveFrame', { frame }, 'the frame is in no page list');
  }

  /** Finishes or undoes what a dead slot was doing. */
  recover(dead: SlotIndex): void {
    this.#hand.recover(dead);
  }

  /** What is free and where searches of the seed start. For quiet points. */
  snapshot(): FrameSnapshot {
    return takeSnapshot(this.#core);
  }

  /** Checks uses, counts, source and segments. For quiet points. */
  check(): CheckReport {
    return this.#core.check();
  }

  #listOf(taker: Attachment, claimed: readonly FrameRun[]): PageList {
    const left = new RunBuilder();
    const others = new Set<FrameIndex>();
    for (const { first, count } of claimed) for (let at = 0; at < count; at++) others.add(first + at);
    for (const { first, count } of this.#core.takenBy(taker, FRAME_USE.list)) {
      for (let frame = first; frame < first + count; frame++) if (!others.has(frame)) left.push(frame, 1);
    }
    return left.build();
  }

  #alloc(given: PageListRequest, held: boolean, call = LIST_CALL, values: object = given): PageList | null {
    const { pageSize, frames } = this.#thread.region.geometry;
    const request = readRequest(given, pageSize, frames, call);
    if (request.wait !== null) return waitForFrames(this.#demand(request, held, call, values), request.wait);
    let list = this.#takeNow(request, held, false);
    if (list === null && this.#frames.caches.drain()) list = this.#takeNow(request, held, false);
    // Too few frames, rather than none that suit: others may have some to spare.
    const isShort = list === null && !this.#overLimit && this.#core.free - request.count < this.#frames.reserve;
    if (isShort && !held && this.#seed === null && this.#frames.press()) list = this.#takeNow(request, held, false);
    if (list === null || FitSearch.isSimple(request)) this.#pressure?.kick();
    this.#frames.watermarks.kickIfLow();
    return list;
  }

  #demand(request: FrameRequest, held: boolean, call: string, values: object): FrameDemand<PageList> {
    const frames = this.#frames;
    return {
      call,
      core: this.#core,
      count: request.count,
      owner: this.#charges(held) ? this.#core.charges.ownerNow() : -1,
      values: { ...values },
      possible: () => {
        const { absent, total } = this.#core.counts();
        return request.count <= total - absent - frames.systemReserve && this.#search.isPossible(request);
      },
      attempt: (waiter) => {
        const list = this.#takeNow(request, held, waiter) ?? (this.#overLimit ? null : this.#assemble(request, held));
        // Who may have so much waits until others of its owner have less.
        if (list === null && this.#overLimit) this.#core.charges.requireAllowable(call, request.count);
        return list;
      },
      press: () => {
        if (this.#overLimit) return false;
        frames.watermarks.kick();
        if (!this.#pressure?.reclaimable()) return frames.press();
        this.#pressure.reclaim();
        return true;
      },
    };
  }

  /** One search. */
  #takeNow(request: FrameRequest, held: boolean, waiter: boolean): PageList | null {
    const { mutex, charges } = this.#core;
    mutex.enter();
    let list: PageList | null = null;
    const before = this.#begin(held);
    this.#overLimit = !charges.fits(request.count);
    // A request leaves the reserves as they are.
    const most = this.#core.free - this.#frames.reserve;
    if (!this.#overLimit && request.count <= most && (waiter || this.#mayOvertake(request.count))) {
      const first = FitSearch.isSimple(request) && request.count > 1 ? -1 : this.#search.oneRun(request);
      if (first >= 0) {
        this.#hand.takeRun(first, request.count, held);
        list = singleRun(first, request.count);
      } else if (request.segments > 1) {
        list = this.#takeRuns(request, held);
      }
    }
    charges.end(before);
    mutex.exit();
    return list;
  }

  /** Under the lock: true for what is promised, which those who wait cannot have, or when nobody waits for too long. */
  #mayOvertake(frames: number): boolean {
    const { reservations, charges, queue } = this.#core;
    return reservations.covers(charges.owner, frames) || !queue.mustYield(frames, charges.owner);
  }

  #takeRuns(request: FrameRequest, held: boolean): PageList | null {
    const runs = FitSearch.isSimple(request) ? this.#search.anyFrames(request) : this.#search.fewRuns(request);
    if (runs === null) return null;
    this.#hand.begin();
    for (const { first, count } of runs) this.#hand.take(first, count);
    if (!held) this.#hand.settle(runs);
    return { runs, frameCount: request.count };
  }

  /** Takes the frames of a request out of free ones and of others that are moved or given up. */
  #assemble(request: FrameRequest, held: boolean): PageList | null {
    if (!this.#frames.evacuation.any) return null;
    const { charges } = this.#core;
    return this.#frames.room.within(() => {
      const before = this.#begin(held, true);
      const simple = FitSearch.isSimple(request);
      const may = this.#core.free >= this.#frames.reserve;
      const list = !may ? null : simple ? this.#assembly.any(request) : this.#assembly.run(request);
      charges.end(before);
      // Others of the owner may have reached the limit meanwhile.
      this.#overLimit = list !== null && this.#charges(held) && !this.#assembly.charge(list);
      if (list !== null && this.#overLimit) {
        this.#assembly.giveUp(list);
        return null;
      }
      if (list !== null && !held) this.#hand.settle(list.runs);
      return list;
    });
  }

  /** For who does not wait: frames of pages, but for the last ones, unless others wait for them. */
  #assembleNow(given: PageListRequest): PageList | null {
    const { pageSize, frames } = this.#thread.region.geometry;
    const request = readRequest(given, pageSize, frames);
    const { mutex, queue } = this.#core;
    mutex.enter();
    const yields = queue.mustYield(request.count);
    mutex.exit();
    if (yields || this.#overLimit) return null;
    const { room } = this.#frames;
    return room.sparing(() => room.writing(() => this.#assemble(request, true)));
  }

  /** True when what is taken is charged to this thread's owner: rooms that write down what they take charge it themselves. */
  #charges(held: boolean): boolean {
    return this.#seed === null && !held;
  }

  /** From now on frames are taken for this thread's owner, or for nobody; returns what `end` of the charges needs. */
  #begin(held: boolean, later = false): number {
    const { charges } = this.#core;
    return charges.begin(this.#charges(held) ? charges.ownerNow() : -1, later);
  }

  #failLimit(request: PageListRequest): never {
    const { pageSize } = this.#thread.region.geometry;
    return this.#core.charges.fail('pageList.alloc', Math.ceil(request.size / pageSize));
  }
}
