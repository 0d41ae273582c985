/**
 * Whose turn it is among the requests for pages of asynchronous vnodes, which several workers serve.
 *
 * PROBLEM     A worker waits for the store whose pages it brings. A store that does not answer must hold up its own vnodes,
 *             not those of others; and requests of one vnode must be carried out in the order in which they came.
 * STRUCTURE   posted rows by ticket -> the first whose vnode has no row under way, and whose source (a provider, a server) has
 *             fewer workers than half of all -> running
 * INVARIANTS  I1 one row of a vnode is under way at a time.   I2 a source has at most `sourceMax` of the workers.
 * LOCKING     A word that holds the tag of the worker which chooses, for some loads. The keeper clears it when its worker ends.
 * COSTS       Two looks at the rows, some 60 words.
 * FAILURE     None: who finds nothing sleeps.
 * REJECTED    One worker that awaits all of them: it holds frames meanwhile, and another task of the same thread that comes to
 *             want such a frame would wait for itself. Workers tied to vnodes: an idle one beside a queue.
 * REFERENCES  io-requests.ts.
 */

import type { BoundTables } from '../layout/region.ts';
import { ALL_WAITERS, compareExchange, load, notify } from '../sync/atomics.ts';
import { sleepOn } from '../sync/sleep.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import { IO_ROLE, IO_STATE, type IoRequest } from './io-requests.ts';

/** Most workers that bring pages of asynchronous vnodes. */
const FAR_WORKERS_MAX = 4;

/** Slots for each such worker, in systems that have few. */
const SLOTS_PER_WORKER = 8;

/** How long one sleep of a worker lasts that wants to choose while another does. */
const CHOICE_MS = 1;

/** Most of these workers in a system of so many slots, unless all of them are stuck: then twice as many. */
export function farWorkersMax(slots: number): number {
  return Math.max(2, Math.min(FAR_WORKERS_MAX, Math.floor(slots / SLOTS_PER_WORKER)));
}

/** What is known about the rows at one moment. */
interface Rows {
  /** Those that may be taken, the oldest first, one for each vnode. */
  readonly ready: IoRequest[];
  /** How many are being served. */
  readonly underWay: number;
}

/** The turns as one worker, or the keeper of all of them, sees them. */
export class FarTurns {
  readonly #thread: Thread;
  readonly #request: BoundTables['ioRequest'];
  readonly #service: BoundTables['ioService'];
  /** Workers that one source may have. */
  readonly #sourceMax: number;

  constructor(thread: Thread) {
    this.#thread = thread;
    this.#request = thread.region.tables.ioRequest;
    this.#service = thread.region.tables.ioService;
    this.#sourceMax = farWorkersMax(thread.region.geometry.slots) >> 1;
  }

  /** The row whose turn it is, now running; -1 when there is none. For the workers. */
  next(): IoRequest {
    const { words, tag } = this.#thread;
    this.#enter();
    try {
      for (const row of this.#rows().ready) {
        this.#request.server.put(row, tag);
        const address = this.#request.state.address(row);
        if (compareExchange(words, address, IO_STATE.posted, IO_STATE.running) === IO_STATE.posted) return row;
      }
      return -1;
    } finally {
      this.#exit(tag);
    }
  }

  /** True when there is more to do than so many workers take up: for the keeper. */
  wants(workers: number): boolean {
    const { ready, underWay } = this.#rows();
    return ready.length + underWay > workers;
  }

  /** What is under way, in words that differ whenever a request has been begun or answered in between. */
  get underWay(): string {
    const { rowCount, state, role, ticket } = this.#request;
    let rows = '';
    for (let row = 0; row < rowCount; row++) {
      if (load(this.#thread.words, state.address(row)) < IO_STATE.running) continue;
      if (role.get(row) === IO_ROLE.farPages) rows += `${row}:${ticket.get(row)} `;
    }
    return rows;
  }

  /** Lets others choose when the worker of a slot has ended: for the keeper, before the slot has another worker. */
  release(slot: SlotIndex): void {
    this.#exit(slot + 1);
  }

  /** Rows that may be taken as things stand; exact for who has entered. */
  #rows(): Rows {
    const request = this.#request;
    const posted: IoRequest[] = [];
    const vnodes = new Set<number>();
    const sources = new Map<number, number>();
    for (let row = 0; row < request.rowCount; row++) {
      const state = load(this.#thread.words, request.state.address(row));
      if (request.role.get(row) !== IO_ROLE.farPages) continue;
      if (state === IO_STATE.posted) posted.push(row);
      else if (state === IO_STATE.running || state === IO_STATE.copying || state === IO_STATE.abandoned) {
        vnodes.add(request.vnode.get(row));
        this.#count(sources, row);
      }
    }
    const underWay = [...sources.values()].reduce((sum, count) => sum + count, 0);
    const ready: IoRequest[] = [];
    // Tickets are compared modulo 2^32.
    posted.sort((a, b) => (request.ticket.get(a) - request.ticket.get(b)) | 0);
    for (const row of posted) {
      const vnode = request.vnode.get(row);
      if (vnodes.has(vnode) || (sources.get(request.source.get(row)) ?? 0) >= this.#sourceMax) continue;
      vnodes.add(vnode);
      this.#count(sources, row);
      ready.push(row);
    }
    return { ready, underWay };
  }

  #count(sources: Map<number, number>, row: IoRequest): void {
    const source = this.#request.source.get(row);
    sources.set(source, (sources.get(source) ?? 0) + 1);
  }

  #enter(): void {
    const { words, tag } = this.#thread;
    const address = this.#service.choosing.address(0);
    for (;;) {
      const holder = compareExchange(words, address, 0, tag);
      if (holder === 0) return;
      sleepOn(this.#thread, address, holder, CHOICE_MS);
      this.#thread.clearWait();
    }
  }

  #exit(tag: number): void {
    const { words } = this.#thread;
    const address = this.#service.choosing.address(0);
    if (compareExchange(words, address, tag, 0) === tag) notify(words, address, ALL_WAITERS);
  }
}
