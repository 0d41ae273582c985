/**
 * The pagedaemon: frees frames before they are gone, in the order in which they are missed least.
 *
 * PROBLEM     Memory lies about in many places that could do without it. Somebody must get it back in time, from the one that
 *             loses least first, without holding up anybody, and without working for ever when nothing can be had.
 * STRUCTURE   kick (phys/watermarks)  ->  rounds until freeTarget is reached  ->  sleep
 *
 *               a round   1 take the kick back   2 how many frames are missing: none, done
 *                         3 each reclaimer in ascending order of priority, until they are there:
 *
 *               100 heap      idle spans of the heap
 *               200 pmem      whole large pages of its pool
 *               300 pagelock  ranges that nobody has asked for lately
 *               500 pages     clean pages that the replacement policy lets go (a page that was used lately gets a second
 *                             chance, one that is held is passed over); if that is not enough, or more than half of the
 *                             pages are modified: the pages that were modified first are written back, to be dropped later
 *
 *             A round that gained nothing is followed by a pause, which doubles up to half a second.
 * INVARIANTS  I1 one thread at a time does a round.   I2 a round frees at most `ROUND_FRAMES` frames of pages and writes at
 *             most `ROUND_WRITES`, so that the thread that does it soon turns to other things.
 * LOCKING     None while a reclaimer runs: the claim of a round is a word that a recoverer clears. Nothing here waits for page
 *             locks, since the daemon worker also recovers those of dead threads.
 * COSTS       A round that has nothing to do: a few loads.
 * FAILURE     What a store refuses stays modified; how often, and what it said last, is in `statistics()`.
 * REJECTED    A list of frames of each kind with one hand: the kinds are not comparable, and a heap span costs nothing.
 * REFERENCES  uvm_pdaemon.c; illumos os/vm_pageout.c; kmem_reap.
 */

import { fail, failMisuse, VmError } from '../base/errors.ts';
import type { BoundTables } from '../layout/region.ts';
import type { PageStore, Pages } from '../page/index.ts';
import type { Frames } from '../phys/index.ts';
import { compareExchange, type SlotIndex, store, type Thread } from '../sync/index.ts';

/** Most frames of pages that one round frees. */
export const ROUND_FRAMES = 128;

/** Most modified pages that one round writes back. */
export const ROUND_WRITES = 64;

/** Lanes of the counters. */
export const PAGEDAEMON_COUNTER = {
  /** Rounds that found frames missing. */
  rounds: 0,
  /** Frames freed by all of them. */
  freed: 1,
  /** Modified pages that they wrote back. */
  written: 2,
  /** Rounds that freed and wrote nothing. */
  fruitless: 3,
  /** Rounds in which a store refused modified pages. */
  refused: 4,
  /** Frames freed by each kind of reclaimer. */
  heap: 5,
  pmem: 6,
  pagelock: 7,
  pages: 8,
  others: 9,
} as const;

/** Somebody who can give frames back. */
export interface Reclaimer {
  /** Unique in this thread. */
  readonly name: string;
  /** Lower ones are asked first. */
  readonly priority: number;
  /**
   * Gives back about so many frames, if it can. Called with no lock held; must not wait for long, nor for page locks. A
   * `VmError` that it throws is noted, and the next one asked.
   */
  reclaim(frames: number): void;
}

/** What one round came to. */
export interface RoundReport {
  /** Frames that were missing when it began; 0 or less: nothing to do. */
  readonly missing: number;
  /** Frames that are free now and were not before. Others may have taken or freed some meanwhile. */
  readonly freed: number;
  /** Modified pages written back. */
  readonly written: number;
  /** Frames by reclaimer, for those that were asked. */
  readonly by: Readonly<Record<string, number>>;
}

/** Numbers about all rounds of all threads. */
export interface PagedaemonStatistics extends Readonly<Record<keyof typeof PAGEDAEMON_COUNTER, number>> {
  /** What the store said when it last refused a modified page; empty if it never did. */
  readonly failure: string;
}

/** Priority of the page cache. */
const PAGES_PRIORITY = 500;

const NOTHING: RoundReport = { missing: 0, freed: 0, written: 0, by: {} };

/** The pagedaemon as one thread sees it: any thread may do a round. */
export class Pagedaemon {
  readonly #thread: Thread;
  readonly #frames: Frames;
  readonly #pages: Pages;
  readonly #store: PageStore;
  readonly #row: BoundTables['pagedaemon'];
  #reclaimers: readonly Reclaimer[] = [];

  constructor(thread: Thread, frames: Frames, pages: Pages, pageStore: PageStore) {
    this.#thread = thread;
    this.#frames = frames;
    this.#pages = pages;
    this.#store = pageStore;
    this.#row = thread.region.tables.pagedaemon;
    this.register({ name: 'pages', priority: PAGES_PRIORITY, reclaim: (wanted) => this.#reclaimPages(wanted) });
  }

  /** Adds a reclaimer to this thread's; returns how to take it back. Throws `EINVAL` for a name that is taken. */
  register(reclaimer: Reclaimer): () => void {
    const { name, priority } = reclaimer;
    if (typeof name !== 'string' || typeof reclaimer.reclaim !== 'function') {
      failMisuse('pagedaemon.register', { name }, 'a reclaimer has a name and a function `reclaim`');
    }
    if (!Number.isFinite(priority)) failMisuse('pagedaemon.register', { name, priority }, 'a priority is a number');
    if (this.#reclaimers.some((other) => other.name === name)) {
      fail('EINVAL', 'pagedaemon.register', { name }, 'a reclaimer of this name is registered');
    }
    this.#reclaimers = [...this.#reclaimers, reclaimer].sort((a, b) => a.priority - b.priority);
    return () => {
      this.#reclaimers = this.#reclaimers.filter((other) => other !== reclaimer);
    };
  }

  /** Names of the reclaimers in the order in which they are asked. */
  get order(): readonly string[] {
    return this.#reclaimers.map((reclaimer) => reclaimer.name);
  }

  /** Asks all that come before the page cache, whatever the marks say: for who has found no frame and takes pages itself. */
  giveSpares(): void {
    const { region } = this.#thread;
    for (const { priority, reclaim } of this.#reclaimers) {
      if (priority < PAGES_PRIORITY) reclaim(region.geometry.frames);
    }
  }

  /** One round; see the file's header. Null when another thread is doing one: the kick is left to it. */
  step(): RoundReport | null {
    const { words, tag } = this.#thread;
    const busy = this.#row.busy.address(0);
    if (compareExchange(words, busy, 0, tag) !== 0) return null;
    try {
      return this.#round();
    } finally {
      store(words, busy, 0);
    }
  }

  /** Numbers about all rounds. */
  statistics(): PagedaemonStatistics {
    const counts = {} as Record<keyof typeof PAGEDAEMON_COUNTER, number>;
    for (const [name, lane] of Object.entries(PAGEDAEMON_COUNTER)) {
      counts[name as keyof typeof PAGEDAEMON_COUNTER] = this.#row.counters.at(0, lane);
    }
    return { ...counts, failure: this.#row.failure.text(0) };
  }

  #round(): RoundReport {
    const { watermarks } = this.#frames;
    // 1.
    watermarks.takeKick();
    // 2.
    const { missing } = watermarks;
    if (missing <= 0) return { ...NOTHING, missing };
    const failure = this.#pages.lastWriteFailure;
    const before = this.#free;
    const wroteBefore = this.#written;
    const by: Record<string, number> = {};
    // 3.
    for (const { name, reclaim } of this.#reclaimers) {
      if (watermarks.missing <= 0) break;
      const from = this.#free;
      try {
        reclaim(watermarks.missing);
      } catch (error) {
        if (!(error instanceof VmError)) throw error;
        this.#noteFailure(`${name}: ${error.message}`);
      }
      by[name] = Math.max(0, this.#free - from);
      this.#count((PAGEDAEMON_COUNTER as Record<string, number>)[name] ?? PAGEDAEMON_COUNTER.others, by[name]);
    }
    const report = {
      missing,
      freed: Math.max(0, this.#free - before),
      written: this.#written - wroteBefore,
      by,
    };
    this.#noteRound(report, this.#pages.lastWriteFailure !== failure);
    return report;
  }

  #noteRound({ freed, written }: RoundReport, refused: boolean): void {
    this.#count(PAGEDAEMON_COUNTER.rounds, 1);
    this.#count(PAGEDAEMON_COUNTER.freed, freed);
    this.#count(PAGEDAEMON_COUNTER.written, written);
    if (freed === 0 && written === 0) this.#count(PAGEDAEMON_COUNTER.fruitless, 1);
    if (!refused) return;
    this.#count(PAGEDAEMON_COUNTER.refused, 1);
    const { vnode, index, error } = this.#pages.lastWriteFailure ?? { vnode: -1, index: -1, error: '' };
    this.#noteFailure(`vnode ${vnode}, page ${index}: ${error instanceof Error ? error.message : String(error)}`);
  }

  #noteFailure(text: string): void {
    this.#row.failure.putText(0, shorten(text, this.#row.failure.lanes));
  }

  /** What the page cache gives: see the file's header. */
  #reclaimPages(wanted: number): void {
    const max = Math.min(wanted, ROUND_FRAMES);
    const freed = this.#pages.freeSome(max);
    const { modified } = this.#pages;
    if (modified === 0 || (freed === max && 2 * modified <= this.#frames.counts().page)) return;
    this.#pages.writeOldest(ROUND_WRITES, this.#store);
    if (freed < max) this.#pages.freeSome(max - freed);
  }

  get #free(): number {
    return this.#frames.core.free;
  }

  /** Pages that this thread has written back. */
  get #written(): number {
    return this.#pages.writtenHere;
  }

  #count(lane: number, amount: number): void {
    const { counters } = this.#row;
    counters.putAt(0, lane, counters.at(0, lane) + amount);
  }
}

/** Ends the round of a thread that has ended. */
export function recoverPagedaemon(self: Thread, dead: SlotIndex): void {
  compareExchange(self.words, self.region.tables.pagedaemon.busy.address(0), dead + 1, 0);
}

/** The longest beginning of a text that fits so many bytes. */
function shorten(text: string, bytes: number): string {
  let short = text;
  while (new TextEncoder().encode(short).length > bytes) short = short.slice(0, -1);
  return short;
}
