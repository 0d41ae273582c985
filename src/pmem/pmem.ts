/**
 * Pmem: frames that stay where they are, for devices and for WebAssembly.
 *
 * PROBLEM     Native code, WebGPU staging and WASM memories hold on to physical frames. Locked frames all over memory would
 *             leave no large page whole, so they are gathered in few.
 * STRUCTURE   A cookie is a number of frames. They come from the pool first, then from large pages, then one by one:
 *
 *               cookie 3   |pool: rest of large page 7|large page 9, whole|large page 4, a part|   rest of 4 -> pool
 *
 *             With `contiguous` a cookie is one run of adjacent frames, and so one view.
 * INVARIANTS  I1 every cookie in use is live, or named by the slot that builds or frees it.
 * LOCKING     See cookie-work.ts.
 * COSTS       Of the runs that a cookie consists of; not of how many large pages there are.
 * FAILURE     `tryAlloc` null, `alloc` throws `ENOMEM` or `EDQUOT`; nothing is left behind. `EINVAL` for misuse, `ESTALE` for
 *             a cookie that was freed.
 * REJECTED    A view over frames that are not adjacent: there is no such thing in JavaScript.
 * REFERENCES  pmem.c of OpenSolaris b135; docs/differences.md.
 */

import { assert } from '../base/assert.ts';
import type { CheckReport } from '../base/check.ts';
import { fail, failMisuse, requireFunction, requireInteger } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import type {
  Banks,
  FrameAsyncOptions,
  FrameIndex,
  FrameRun,
  PageListPressure,
  PageLists,
  ServedRequest,
} from '../phys/index.ts';
import { Callbacks } from '../sync/callbacks.ts';
import { faultPoint } from '../sync/fault.ts';
import { ownerOf } from '../sync/owners.ts';
import { pause } from '../sync/pause.ts';
import { type Attachment, isAttached, type SlotIndex, type Thread } from '../sync/thread.ts';
import { checkCookies } from './check.ts';
import { isHeldUp } from './cookie-charges.ts';
import { CookieMoves } from './cookie-moves.ts';
import { CookieWork } from './cookie-work.ts';
import { COOKIE_STATE, type Cookie, type CookieIndex, type MoverFailure } from './kinds.ts';
import { checkPmemRequest, failPmemRequest, type PmemRequest, requireCookie, type TakeSmall } from './pmem-request.ts';
import { newReport, type PmemFaults, type PmemReport, requireFaults } from './report.ts';
import { SeedPool } from './residual-pool.ts';
import type { OrderedRun } from './run-chains.ts';
import type { PmemSnapshot, PmemStatistics } from './statistics.ts';

/** Pmem as one thread sees it. */
export class Pmem {
  readonly #thread: Thread;
  readonly #banks: Banks;
  readonly #lists: PageLists;
  readonly #work: CookieWork;
  readonly #row: BoundTables['pmemPool'];
  readonly #cookies: BoundTables['pmemCookie'];
  readonly #pageSize: number;
  readonly #moves: CookieMoves;
  readonly #callbacks: Callbacks;
  #last: PmemReport = newReport();
  #unload: ((run: OrderedRun) => void) | null = null;
  #pinners: ((cookie: Cookie) => SlotIndex[]) | null = null;

  constructor(thread: Thread, banks: Banks, lists: PageLists, callbacks: Callbacks = new Callbacks(thread.region)) {
    const { tables, geometry } = thread.region;
    this.#thread = thread;
    this.#banks = banks;
    this.#lists = lists;
    this.#work = new CookieWork(thread, lists);
    this.#callbacks = callbacks;
    this.#moves = new CookieMoves(thread, banks, lists, this.#work, callbacks);
    this.#row = tables.pmemPool;
    this.#cookies = tables.pmemCookie;
    this.#pageSize = geometry.pageSize;
    lists.onClaim(() => this.#claimed());
  }

  /** What this thread's last call did. */
  get lastReport(): PmemReport {
    return this.#last;
  }

  /** What a mover threw last in this thread, or why one could not be used; null if none ever did. See `CookieMover`. */
  get moverFailure(): MoverFailure | null {
    return this.#moves.failure;
  }

  /** Sets who takes the mappings of frames away by force before these are given back. Runs without a lock. */
  setUnload(unload: ((run: OrderedRun) => void) | null): void {
    if (unload !== null) requireFunction('pmem.setUnload', 'unload', unload);
    this.#unload = unload;
  }

  /** Sets who knows which slots have pinned mappings of a cookie, which is not freed then. Runs without a lock. */
  setPinners(pinners: ((cookie: Cookie) => SlotIndex[]) | null): void {
    if (pinners !== null) requireFunction('pmem.setPinners', 'pinners', pinners);
    this.#pinners = pinners;
  }

  /** Sets what fails, for tests and replays. */
  setFaults(faults: PmemFaults | null): void {
    if (faults !== null) requireFaults('pmem.setFaults', faults);
    this.#work.setFaults(faults);
  }

  /** Makes a cookie. Throws `EDQUOT` at the owner's limit of frames or locked frames, `ENOMEM` otherwise, with the reason. */
  alloc(request: PmemRequest): Cookie {
    const call = 'pmem.alloc';
    return this.#tryAlloc(request, call) ?? this.#failAlloc(request, call);
  }

  /**
   * Makes a cookie, waiting with the event loop free until that can be: within `timeoutMs`, unless `signal` or `cancel` ends the
   * wait. What it has not got as a whole it leaves to others meanwhile; at its owner's limit of frames it waits until that owner gives
   * some back. Throws `ETIMEDOUT`,
   * `ECANCELED`, and what `alloc` throws: that at once when no memory of this system could serve it.
   */
  async allocAsync(request: Omit<PmemRequest, 'wait'>, options: FrameAsyncOptions = {}): Promise<Cookie> {
    const call = 'pmem.allocAsync';
    checkPmemRequest(request, call, this.#callbacks);
    if ('wait' in request) failMisuse(call, { ...request }, 'how long to wait is said by the options');
    if (this.#work.seed) fail('ENOTSUP', call, { ...request }, 'the seed knows no asynchronous requests');
    return this.#lists.serveAsync(this.#served(request, call), options);
  }

  /**
   * Makes a cookie; null when it cannot be had: `lastReport.failure` says why. Throws `EINVAL`, `ENOENT` for an unknown mover, and what
   * ends a wait.
   */
  tryAlloc(request: PmemRequest): Cookie | null {
    return this.#tryAlloc(request, 'pmem.tryAlloc');
  }

  /**
   * Frees a cookie, from any thread. Its owner gets the charge back; the seed forgets it when another owner frees. Mappings of it
   * show nothing from then on. Throws `EBUSY` while one of them is pinned, with the slot that has the pin.
   */
  free(cookie: Cookie): void {
    requireCookie(cookie, 'pmem.free');
    const { mutex, seed } = this.#work;
    const { journal, slot } = this.#thread;
    const row = cookie.cookie;
    const { state } = this.#cookies;
    if (this.isLive(cookie)) this.#requireUnpinned(cookie);
    this.#enterUnmoving(cookie);
    try {
      journal.set(state, row, COOKIE_STATE.closing);
      journal.set(this.#thread.region.tables.pmemSlot.cookie, slot, row + 1);
    } finally {
      mutex.exit();
    }
    if (VERIFY) faultPoint(this.#thread, 'pmem.free.closing');
    // Nobody else touches the chain, nobody comes by new translations, and those that there are go: no pin is new after that.
    try {
      if (this.#unload !== null) this.#work.chains.list(this.#work.chainOf(row)).forEach(this.#unload);
      this.#requireUnpinned(cookie);
    } catch (error) {
      this.#work.reopen(slot);
      throw error;
    }
    mutex.enter();
    journal.set(state, row, COOKIE_STATE.freeing);
    mutex.exit();
    const report = newReport();
    this.#last = report;
    this.#work.release(row, report, !seed || this.#cookies.owner.get(row) === ownerOf(this.#thread));
  }

  /** Frees what a thread that has ended made and did not free. Throws `EBUSY` while it is attached. Returns cookies. */
  freeOf(maker: Attachment): number {
    requireInteger('pmem.freeOf', 'maker', maker, 1, Number.MAX_SAFE_INTEGER);
    if (maker !== this.#thread.attachment && isAttached(this.#thread.region, maker)) {
      fail('EBUSY', 'pmem.freeOf', { maker }, 'the thread is still attached');
    }
    const left = this.cookies().filter(({ cookie }) => this.#cookies.maker.get(cookie) === maker);
    for (const cookie of left) this.free(cookie);
    return left.length;
  }

  /** Frames `start` to `start + count - 1` of a cookie. Throws `EINVAL` for a range that it does not have. */
  getPfns(cookie: Cookie, start: number, count: number): FrameIndex[] {
    const { mutex, chains } = this.#work;
    mutex.enter();
    try {
      this.#require(cookie, 'pmem.getPfns');
      requireInteger('pmem.getPfns', 'start', start, 0, cookie.frames);
      requireInteger('pmem.getPfns', 'count', count, 0, cookie.frames - start);
      const frames: FrameIndex[] = [];
      let skip = start;
      let row = chains.headOf(this.#work.chainOf(cookie.cookie));
      for (; row >= 0 && frames.length < count; row = chains.after(row)) {
        const run = chains.run(row);
        const length = Math.abs(run.count);
        const direction = Math.sign(run.count);
        for (let at = Math.min(skip, length); at < length && frames.length < count; at++) {
          frames.push(run.first + direction * at);
        }
        skip = Math.max(0, skip - length);
      }
      assert(frames.length === count, 'pmem/cookie-work I1: a cookie has all of its frames');
      return frames;
    } finally {
      mutex.exit();
    }
  }

  /** True until the cookie is freed: a look without a lock. */
  isLive(given: Cookie): boolean {
    const { cookie, generation }: Partial<Cookie> = given ?? {};
    if (!Number.isInteger(cookie) || cookie === undefined) return false;
    const { state, generation: generations } = this.#cookies;
    return state.get(cookie) === COOKIE_STATE.live && generations.get(cookie) === generation;
  }

  /** True for a live cookie whose frames may move. */
  isMovable(cookie: Cookie): boolean {
    return this.isLive(cookie) && this.#cookies.mover.get(cookie.cookie) !== 0;
  }

  /** The owner of a cookie's charge. */
  ownerOf(cookie: Cookie): number {
    this.#require(cookie, 'pmem.ownerOf');
    return this.#cookies.owner.get(cookie.cookie);
  }

  /** The runs of a cookie in order. */
  runs(cookie: Cookie): OrderedRun[] {
    const { mutex, chains } = this.#work;
    mutex.enter();
    try {
      this.#require(cookie, 'pmem.runs');
      return chains.list(this.#work.chainOf(cookie.cookie));
    } finally {
      mutex.exit();
    }
  }

  /**
   * All bytes of a cookie, in one view; for WebAssembly, `bank` and `offset` of the memory to import. Throws `EFAULT` when
   * its frames are not adjacent: ask for `contiguous`.
   */
  view(cookie: Cookie): { readonly bytes: Uint8Array; readonly bank: number; readonly offset: number } {
    const runs = this.runs(cookie);
    const run = runs[0] as FrameRun;
    if (runs.length !== 1 || run.count < 0) fail('EFAULT', 'pmem.view', { ...cookie }, 'its frames are not adjacent');
    const address = run.first * this.#pageSize;
    return {
      bytes: this.#banks.view(address, run.count * this.#pageSize),
      bank: this.#banks.bankOfAddress(address),
      offset: this.#banks.offsetOfAddress(address),
    };
  }

  /** Gives wholly free large pages of the pool back to the system: for low memory. Returns frames. */
  trim(): number {
    const report = newReport();
    this.#work.mutex.enter();
    this.#work.trimTo(0, report);
    this.#work.mutex.exit();
    return report.freedLarge.length * this.#work.large.size;
  }

  /** The live cookies, whoever made them. For quiet points. */
  cookies(): Cookie[] {
    const { state, generation, frames } = this.#cookies;
    const found: Cookie[] = [];
    for (let row = 0; row < this.#row.cookieFresh.get(0); row++) {
      if (state.get(row) !== COOKIE_STATE.live) continue;
      found.push({ cookie: row, generation: generation.get(row), frames: frames.get(row) });
    }
    return found;
  }

  /** What pmem can do for those who wait for frames: give wholly free large pages of the pool back. */
  pressure(): PageListPressure {
    return {
      reclaimable: () => !this.#work.seed && this.#row.wholeFree.get(0) > 0,
      reclaim: () => void this.trim(),
      kick: () => {},
    };
  }

  /** Counts as they are now. */
  statistics(): PmemStatistics {
    return {
      cookies: this.#row.cookieCount.get(0),
      poolFrames: this.#row.poolFrames.get(0),
      largePages: this.#row.recordCount.get(0),
      reserved: this.#row.reserved.get(0),
    };
  }

  /** Sets how many frames are reserved, for a consumer of the same reservation that is not pmem. */
  reserveOther(frames: number): void {
    requireInteger('pmem.reserveOther', 'frames', frames, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
    const { mutex } = this.#work;
    mutex.enter();
    this.#thread.journal.setDouble(this.#row.reserved, 0, this.#row.reserved.get(0) + frames);
    mutex.exit();
  }

  /** Pool and large pages. For quiet points. */
  snapshot(): PmemSnapshot {
    const { pool, chains, large } = this.#work;
    const queue = pool instanceof SeedPool ? chains.list(pool.place) : [];
    return { ...this.statistics(), pool: queue, large: large.snapshot() };
  }

  /** Goes on where a dead slot ended; includes the recovery of the page lists. */
  recover(dead: SlotIndex): void {
    this.#moves.recover(dead);
    this.#work.recover(dead);
  }

  /** Checks chains, pool, large pages and accounting. For quiet points. */
  check(): CheckReport {
    return checkCookies(this.#thread.region, this.#work, this.#lists.outstanding);
  }

  /** Everything that pmem has from the page lists. */
  #claimed(): FrameRun[] {
    const { mutex, large, chains } = this.#work;
    const runs: FrameRun[] = [];
    mutex.enter();
    for (const [first] of large.snapshot()) runs.push({ first, count: large.size });
    for (let row: CookieIndex = 0; row < this.#row.cookieFresh.get(0); row++) {
      if (this.#cookies.state.get(row) === COOKIE_STATE.free) continue;
      for (const { first, count } of chains.list(this.#work.chainOf(row))) {
        runs.push({ first: count > 0 ? first : first + count + 1, count: Math.abs(count) });
      }
    }
    mutex.exit();
    return runs;
  }

  #requireUnpinned(cookie: Cookie): void {
    const [pinnedBy] = this.#pinners?.(cookie) ?? [];
    if (pinnedBy === undefined) return;
    fail('EBUSY', 'pmem.free', { ...cookie, pinnedBy }, 'a mapping of it is pinned: release the pin first');
  }

  /** Enters the lock when no frame of the cookie is on its way to another place. */
  #enterUnmoving(cookie: Cookie): void {
    const { mutex } = this.#work;
    for (;;) {
      mutex.enter();
      let mover: number;
      try {
        this.#require(cookie, 'pmem.free');
        mover = this.#cookies.moving.get(cookie.cookie);
      } catch (error) {
        mutex.exit();
        throw error;
      }
      if (mover === 0) return;
      mutex.exit();
      if (mover === this.#thread.tag) fail('EBUSY', 'pmem.free', { ...cookie }, 'its mover cannot free it');
      pause(this.#thread, 1);
    }
  }

  /** How one who waits makes a cookie. */
  #served(request: PmemRequest, call: string): ServedRequest<Cookie> {
    const frames = Math.ceil(request.size / this.#pageSize);
    const segments = request.contiguous === true ? 1 : Math.max(1, frames);
    const attempt = (waiter: boolean) => {
      const cookie = this.#make(request, (given) => this.#lists.tryTakeInTurn(given, waiter));
      const { failure } = this.#last;
      // More frames may become free, and the owner may give some back. Nothing else is waited for.
      if (cookie === null && failure !== 'frames' && !isHeldUp(this.#thread, failure, frames))
        this.#failAlloc(request, call);
      return cookie;
    };
    return { given: { size: Math.max(1, request.size), segments }, call, values: request, attempt };
  }

  #tryAlloc(request: PmemRequest, call: string): Cookie | null {
    checkPmemRequest(request, call, this.#callbacks);
    const { wait = false } = request;
    const cookie = this.#make(request, (given) =>
      this.#lists.tryTakeHeld({ ...given, wait }, !this.#work.seed, call, { ...request }),
    );
    const frames = Math.ceil(request.size / this.#pageSize);
    if (cookie !== null || wait === false || !isHeldUp(this.#thread, this.#last.failure, frames)) return cookie;
    return this.#lists.serve(this.#served(request, call), wait === true ? {} : wait);
  }

  /** Makes a cookie out of the pool, large pages, and what `takeSmall` takes. */
  #make({ size, contiguous = false, movable }: PmemRequest, takeSmall: TakeSmall): Cookie | null {
    const frames = Math.ceil(size / this.#pageSize);
    const report = newReport();
    this.#last = report;
    // Half of memory and more is refused, as in the seed, which would look for it for ever.
    if (frames === 0 || frames >= Math.floor(this.#thread.region.geometry.frames / 2)) report.failure = 'args';
    if (report.failure !== null) return null;
    const work = this.#work;
    const row = work.claim(frames, movable === undefined ? 0 : this.#callbacks.intern(movable) + 1, contiguous);
    if (row < 0) report.failure = 'tables';
    if (report.failure !== null) return null;
    try {
      report.failure = work.charge(row);
      if (report.failure === null) {
        const alone = contiguous || movable !== undefined;
        const gather = () =>
          alone
            ? work.gatherRuns(row, takeSmall, report, contiguous ? 1 : frames)
            : work.gather(row, takeSmall, report);
        report.failure = gather();
        // Large pages that nobody uses are no help to whoever wants frames that lie together or that move.
        const short = report.failure === 'frames' || report.failure === 'reservation';
        if (alone && short && this.trim() > 0) report.failure = gather();
      }
    } catch (error) {
      this.#abandon(row, report);
      throw error;
    }
    if (VERIFY) faultPoint(this.#thread, 'pmem.alloc.gathered');
    if (report.failure !== null) {
      this.#abandon(row, report);
      return null;
    }
    const cookie = { cookie: row, generation: this.#cookies.generation.get(row), frames };
    // Before it is live: from then on others move it, and its frames are whoever's that needed them.
    if (movable !== undefined) this.#moves.offer(row);
    work.finish(row);
    return cookie;
  }

  /** What was gathered in vain goes back; nobody is told, else two that wait would wake each other for ever. */
  #abandon(row: CookieIndex, report: PmemReport): void {
    this.#lists.frames.core.queue.withoutTelling(() => this.#work.abandon(row, report));
  }

  #failAlloc(request: PmemRequest, call: string): never {
    return failPmemRequest(this.#thread, call, request, this.#last.failure);
  }

  #require(given: Cookie, call: string): void {
    requireCookie(given, call);
    const { cookie, generation, frames } = given;
    if (cookie < 0 || cookie >= this.#cookies.rowCount) failMisuse(call, { cookie }, 'pass what alloc returned');
    const live = this.#cookies.state.get(cookie) === COOKIE_STATE.live;
    if (live && this.#cookies.generation.get(cookie) === generation && this.#cookies.frames.get(cookie) === frames)
      return;
    fail('ESTALE', call, { cookie, generation }, 'the cookie was freed');
  }
}
