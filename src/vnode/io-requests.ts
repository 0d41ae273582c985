/**
 * Requests to the I/O workers: how a thread waits for what only an event loop can bring, and an event loop for what blocks.
 *
 * PROBLEM     A thread that holds pages cannot await a promise; a main thread must not wait for a disk; and the thread that
 *             asks, or the one that answers, may end in the meantime.
 * STRUCTURE   Rows in shared memory, and a bell for each of three roles:
 *
 *               remote   runs asynchronous stores: HTTP, and users' own. Never waits for anything but its event loop.
 *               pages    fetches pages and syncs files for event loops. May wait for pages, and for address spaces.
 *               farPages does the same for vnodes of asynchronous stores. May wait for pages, and for the remote worker.
 *                        Several workers, so that vnodes do not wait for each other: far-turns.ts says whose turn it is.
 *
 *               free --claim--> claimed --post, bell--> posted --take--> running --copy--> copying --> done | failed --> free
 *                                                                         '-- the asker gives up --> abandoned --> free
 *
 * INVARIANTS  I1 a worker writes into the frames of a request only while it is copying, which its asker's end waits for.
 *             I2 a row that is abandoned is freed by its server, or with it.
 *             I3 the remote worker takes no page lock: who holds one may be waiting for it.
 *             I4 a row names its asker before it is posted; until then its state does.
 * LOCKING     A row belongs to its asker while claimed, done or failed, to its server in between; the state is changed by
 *             compare-and-swap.
 * COSTS       A round trip between two threads: some 20 us, and what is asked for.
 * FAILURE     `EIO` when the worker ends; it is started again with the next request. `ENOMEM` when all rows are taken by
 *             threads that wait; requests of event loops use half of the rows, and wait for one.
 * REJECTED    Message ports: a thread that is attached with a plain handle has none. One worker for all: it would wait for a
 *             page whose holder waits for it. One for all pages: a store that does not answer would hold files up.
 * REFERENCES  docs/glossary.md: I/O worker.
 */

import { fail, VmError, type VmErrorCode } from '../base/errors.ts';
import { ByteColumn } from '../layout/column.ts';
import { IO_LANES, IO_TEXT_BYTES } from '../layout/io-tables.ts';
import type { BoundTables, Region } from '../layout/region.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import { ALL_WAITERS, add, compareExchange, load, notify, store } from '../sync/atomics.ts';
import { sleepAsync } from '../sync/mutex-async.ts';
import { deadlineOf, remainingMs, sleepOn } from '../sync/sleep.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import { FarGates } from './far-gates.ts';
import { knownCode } from './file-facts.ts';

/** States of a row. One that a thread has claimed and not posted yet holds the negative of its slot + 1. */
export const IO_STATE = {
  free: 0,
  posted: 2,
  running: 3,
  copying: 4,
  done: 5,
  failed: 6,
  abandoned: 7,
} as const;

/** Which worker. */
export const IO_ROLE = { remote: 0, pages: 1, farPages: 2 } as const;

/** What is asked for. */
export const IO_OPERATION = {
  /** Bring pages of an asynchronous vnode into frames that the asker holds exclusively. */
  fill: 1,
  /** Give pages of an asynchronous vnode to its store. */
  write: 2,
  /** Size and version of what a text names: lanes 0-1 the size, 2-5 the version. */
  look: 3,
  /** Bring pages into memory; they are not held afterwards. */
  fetch: 4,
  /** Sync a vnode; `count` is 1 for data only. */
  sync: 5,
  /** Make durable what an asynchronous store took. */
  storeSync: 6,
  /** Cut an asynchronous store, or lengthen it; `first` is the size in GiB, `count` the bytes beyond. */
  storeTruncate: 7,
  /** Cut or lengthen a vnode; the size as above. */
  truncate: 8,
  /** Give the modified pages of a vnode to its store, as the last close of a writer does. */
  flush: 9,
  /** Write pages back, oldest first, while more are modified than the limits allow. */
  writeBehind: 10,
  /** Wait until nobody holds the lock of a vnode's size. */
  settle: 11,
  /** Bring pages that an address space shows, as a text of `seg/async-pins.ts` says; they are not held afterwards. */
  space: 12,
} as const;

/**
 * How long the end of an asker waits for a copy that was begun: the copier may have ended too. A copy takes microseconds, so
 * only a machine that lets a thread stand still for so long could let bytes into a frame that somebody else has by then.
 */
const COPY_MS = 5000;

/** How long one sleep of an asker lasts before it looks whether there is a keeper. */
const LOOK_MS = 100;

/** The same for one that waits for a row. */
const ROW_MS = 2;

/** Number of a row. */
export type IoRequest = number & { readonly __unit?: 'io request' };

/** What is asked, besides the text and the frames. */
export interface IoQuestion {
  readonly role: number;
  readonly operation: number;
  readonly vnode: VnodeIndex;
  readonly first: number;
  readonly count: number;
  readonly text?: string;
  /** For far pages: what stands for the server or provider behind the vnode. */
  readonly source?: number;
}

/** The lanes `first` and `count` of a question for a size. */
export function sizeWords(size: number): { readonly first: number; readonly count: number } {
  return { first: Math.floor(size / 2 ** 30), count: size % 2 ** 30 };
}

/** The requests as one thread makes and serves them. */
export class IoRequests {
  readonly #thread: Thread;
  readonly #request: BoundTables['ioRequest'];
  readonly #service: BoundTables['ioService'];
  readonly #vnode: BoundTables['vnode'];
  /** Settled when the last of this thread's requests that wait for a row has one. */
  #turn: Promise<void> = Promise.resolve();
  #waiting = 0;
  readonly #gates = new FarGates();

  constructor(thread: Thread) {
    const { tables } = thread.region;
    this.#thread = thread;
    this.#request = tables.ioRequest;
    this.#service = tables.ioService;
    this.#vnode = tables.vnode;
  }

  /** Asks and waits; lanes `at` to `at + count - 1` of `frames` go with the question. Throws what the worker met. */
  ask(question: IoQuestion, frames?: Int32Array, at = 0): Int32Array {
    this.#requireServed(question);
    const row = this.#claim(0);
    if (row < 0) fail('ENOMEM', 'io.ask', { requests: this.#request.rowCount }, 'too many requests are under way');
    this.#post(row, question, frames, at);
    const address = this.#request.state.address(row);
    for (;;) {
      const state = load(this.#thread.words, address);
      if (state === IO_STATE.done || state === IO_STATE.failed) break;
      sleepOn(this.#thread, address, state, LOOK_MS);
      this.#thread.clearWait();
      this.#requireKeeper(row);
    }
    return this.#take(row);
  }

  /**
   * Asks and awaits. An aborted signal gives the request up with `ECANCELED`. Any number may be under way: those that find
   * no row wait their turn, and so do those for far pages of a vnode that has some posted already.
   */
  askAsync(question: IoQuestion, signal?: AbortSignal): Promise<Int32Array> {
    if (question.role !== IO_ROLE.farPages) return this.#askAsync(question, signal);
    return this.#gates.pass(question.vnode, signal, () => this.#askAsync(question, signal));
  }

  async #askAsync(question: IoQuestion, signal?: AbortSignal): Promise<Int32Array> {
    if (signal?.aborted) this.#failAborted(signal);
    this.#requireServed(question);
    const claimed = this.#waiting === 0 ? this.#claim(this.#asyncRows) : -1;
    const row = claimed >= 0 ? claimed : await this.#awaitRow(question, signal);
    this.#post(row, question);
    const address = this.#request.state.address(row);
    for (;;) {
      const state = load(this.#thread.words, address);
      if (state === IO_STATE.done || state === IO_STATE.failed) break;
      if (signal?.aborted) {
        this.#abandon(row);
        this.#failAborted(signal);
      }
      await sleepAsync(this.#thread, address, state, LOOK_MS, signal);
      this.#requireKeeper(row);
    }
    return this.#take(row);
  }

  /** The next row that was posted for a role, now running; -1 when there is none. For the workers. */
  next(role: number): IoRequest {
    const { words, tag } = this.#thread;
    for (let row = 0; row < this.#request.rowCount; row++) {
      const address = this.#request.state.address(row);
      if (load(words, address) !== IO_STATE.posted || this.#request.role.get(row) !== role) continue;
      this.#request.server.put(row, tag);
      if (compareExchange(words, address, IO_STATE.posted, IO_STATE.running) === IO_STATE.posted) return row;
    }
    return -1;
  }

  /** Runs `copy` unless the asker has given up or ended: frames of the request may be written to then. */
  copying(row: IoRequest, copy: () => void): void {
    const { words } = this.#thread;
    const address = this.#request.state.address(row);
    if (compareExchange(words, address, IO_STATE.running, IO_STATE.copying) !== IO_STATE.running) return;
    copy();
    compareExchange(words, address, IO_STATE.copying, IO_STATE.running);
    notify(words, address, ALL_WAITERS);
  }

  /** Answers a row that this worker serves. */
  answer(row: IoRequest, error?: unknown): void {
    if (error !== undefined) this.#request.text.putText(row, describe(error));
    this.#settle(row, error === undefined ? IO_STATE.done : IO_STATE.failed);
  }

  /**
   * Fails everything that was asked of a role, whose worker has ended; or only what the worker with the tag `server` was
   * serving, when the role has others.
   */
  failAll(role: number, why: string, server = 0): void {
    const { words } = this.#thread;
    for (let row = 0; row < this.#request.rowCount; row++) {
      if (this.#request.role.get(row) !== role) continue;
      const state = load(words, this.#request.state.address(row));
      if (server !== 0 && (state === IO_STATE.posted || this.#request.server.get(row) !== server)) continue;
      if (state === IO_STATE.posted || state === IO_STATE.running || state === IO_STATE.copying) {
        this.#request.text.putText(row, fitting(`EIO ${why}`));
        this.#settle(row, IO_STATE.failed);
      } else if (state === IO_STATE.abandoned) {
        store(words, this.#request.state.address(row), IO_STATE.free);
      }
    }
  }

  /** True while requests of a role wait to be taken. */
  isAsked(role: number): boolean {
    for (let row = 0; row < this.#request.rowCount; row++) {
      const state = load(this.#thread.words, this.#request.state.address(row));
      if (state === IO_STATE.posted && this.#request.role.get(row) === role) return true;
    }
    return false;
  }

  /** Address of a role's bell, and what it shows. */
  bell(role: number): { readonly address: number; readonly rings: number } {
    const address = this.#service.bell.address(0, role);
    return { address, rings: load(this.#thread.words, address) };
  }

  #requireServed({ operation, text = '' }: IoQuestion): void {
    const keeper = load(this.#thread.words, this.#service.keeper.address(0));
    if (keeper === 0)
      fail('ENOTSUP', 'io.ask', { operation }, 'there are no I/O workers: services are manual, or ended');
    if (keeper === this.#thread.tag) {
      fail('EWOULDBLOCK', 'io.ask', { operation }, 'the thread that starts the I/O workers does not wait for them');
    }
    if (ByteColumn.sizeOf(text) >= IO_TEXT_BYTES) fail('EINVAL', 'io.ask', { text }, `at most ${IO_TEXT_BYTES} bytes`);
  }

  /** Writes a question into a row that was claimed, and rings. */
  #post(row: IoRequest, question: IoQuestion, frames?: Int32Array, at = 0): void {
    const { words, slot } = this.#thread;
    const { role, operation, vnode, first, count, text = '' } = question;
    const request = this.#request;
    request.slot.put(row, slot);
    request.role.put(row, role);
    request.operation.put(row, operation);
    request.vnode.put(row, vnode);
    request.generation.put(row, vnode >= 0 ? this.#vnode.generation.get(vnode) : 0);
    request.first.put(row, first);
    request.count.put(row, count);
    request.text.putText(row, text);
    if (role === IO_ROLE.farPages) {
      request.source.put(row, question.source ?? 0);
      request.ticket.put(row, add(words, this.#service.tickets.address(0), 1));
    }
    if (frames !== undefined) {
      for (let lane = 0; lane < Math.min(count, IO_LANES); lane++)
        request.lanes.putAt(row, lane, frames[at + lane] as number);
    }
    store(words, request.state.address(row), IO_STATE.posted);
    const bell = this.#service.bell.address(0, role);
    add(words, bell, 1);
    notify(words, bell, ALL_WAITERS);
  }

  /** First of the rows for asynchronous requests: the others are left to threads that wait, of which each needs one. */
  get #asyncRows(): number {
    return this.#request.rowCount >> 1;
  }

  /** A free row from `first` on; -1 when there is none. */
  #claim(first: number): IoRequest {
    const { words, tag } = this.#thread;
    for (let row = first; row < this.#request.rowCount; row++) {
      const address = this.#request.state.address(row);
      if (load(words, address) !== IO_STATE.free) continue;
      if (compareExchange(words, address, IO_STATE.free, -tag) === IO_STATE.free) return row;
    }
    return -1;
  }

  /** A row for an asynchronous request, one request of this thread after another. */
  async #awaitRow(question: IoQuestion, signal?: AbortSignal): Promise<IoRequest> {
    const { words } = this.#thread;
    const before = this.#turn;
    let passOn = () => {};
    this.#turn = new Promise<void>((resolve) => {
      passOn = resolve;
    });
    this.#waiting++;
    try {
      await (signal === undefined ? before : orAborted(before, signal));
      for (;;) {
        if (signal?.aborted) this.#failAborted(signal);
        this.#requireServed(question);
        const row = this.#claim(this.#asyncRows);
        if (row >= 0) return row;
        const address = this.#request.state.address(this.#asyncRows);
        await sleepAsync(this.#thread, address, load(words, address), ROW_MS, signal);
      }
    } finally {
      this.#waiting--;
      before.then(passOn);
    }
  }

  /** The answer of a row that is done, which is free then; throws that of one that failed. */
  #take(row: IoRequest): Int32Array {
    const { words } = this.#thread;
    const address = this.#request.state.address(row);
    const lanes = Int32Array.from({ length: IO_LANES }, (_, lane) => this.#request.lanes.at(row, lane));
    const text = load(words, address) === IO_STATE.failed ? this.#request.text.text(row) : '';
    store(words, address, IO_STATE.free);
    if (text === '') return lanes;
    const space = text.indexOf(' ');
    throw new VmError(text.slice(0, space) as VmErrorCode, text.slice(space + 1));
  }

  #settle(row: IoRequest, state: number): void {
    const { words } = this.#thread;
    const address = this.#request.state.address(row);
    for (;;) {
      const now = load(words, address);
      const next = now === IO_STATE.abandoned ? IO_STATE.free : state;
      if (compareExchange(words, address, now, next) === now) break;
    }
    notify(words, address, ALL_WAITERS);
  }

  #abandon(row: IoRequest): void {
    giveUp(this.#thread, row);
  }

  /** A system that shuts down has no keeper any more: nobody would ever answer. */
  #requireKeeper(row: IoRequest): void {
    if (load(this.#thread.words, this.#service.keeper.address(0)) !== 0) return;
    this.#abandon(row);
    fail('EIO', 'io.ask', { request: row }, 'the I/O workers have ended');
  }

  #failAborted(signal: AbortSignal): never {
    throw new VmError('ECANCELED', 'io.ask: the request was aborted', { cause: signal.reason });
  }
}

/** Settled with a promise that does not fail, or when a signal is aborted. */
function orAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const finish = () => {
      signal.removeEventListener('abort', finish);
      resolve();
    };
    signal.addEventListener('abort', finish);
    promise.then(finish);
  });
}

/** Gives a request up: a worker that has begun with it frees the row. */
function giveUp(thread: Thread, row: IoRequest): void {
  const { words, region } = thread;
  const address = region.tables.ioRequest.state.address(row);
  const deadline = deadlineOf(thread, COPY_MS);
  for (;;) {
    const state = load(words, address);
    if (state === IO_STATE.free || state === IO_STATE.abandoned) return;
    if (state === IO_STATE.copying && remainingMs(thread, deadline) > 0) {
      sleepOn(thread, address, state, 1);
      thread.clearWait();
      continue;
    }
    const next = state === IO_STATE.running || state === IO_STATE.copying ? IO_STATE.abandoned : IO_STATE.free;
    if (compareExchange(words, address, state, next) === state) return;
  }
}

/** Gives up what a dead slot has asked for. Before its pages are recovered: a worker may be copying into them. */
export function recoverIo(self: Thread, dead: SlotIndex): void {
  const { ioRequest } = self.region.tables;
  for (let row = 0; row < ioRequest.rowCount; row++) {
    const state = load(self.words, ioRequest.state.address(row));
    // Whose a row is says its state while it is claimed, and its slot from then on: before that it may name an earlier one.
    const isItsOwn = state < 0 ? state === -(dead + 1) : ioRequest.slot.get(row) === dead;
    if (state !== IO_STATE.free && isItsOwn) giveUp(self, row);
  }
}

/** Says which slot starts I/O workers when they are asked for something: at boot, before it is there. */
export function setIoKeeper(region: Region, slot: SlotIndex): void {
  store(region.words, region.tables.ioService.keeper.address(0), slot + 1);
}

function describe(error: unknown): string {
  const code = error instanceof VmError ? error.code : knownCode(error);
  const text = error instanceof Error ? error.message : String(error);
  const words = text.startsWith(`${code}: `) ? text.slice(code.length + 2) : text;
  return fitting(`${code} ${words}`);
}

/** What fits into a row of a text: characters may take up to three bytes each. */
function fitting(text: string): string {
  return text.slice(0, Math.floor((IO_TEXT_BYTES - 1) / 3));
}
