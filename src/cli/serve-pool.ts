/**
 * The workers of `serve`, and the pages that they hold for answers that are on their way.
 *
 * PROBLEM     Slow clients hold pages for as long as they take to read them; a worker may end with pages in its hands.
 * STRUCTURE   Each answer belongs to one worker, which opens its file and pins one range of it after another:
 *
 *               open -> opened -> pin -> pinned -> the socket takes the bytes out of the banks -> unpin -> pin ... -> close
 *
 *             Pins that would leave too few pages for others wait, in order, until some are given back; but not for long:
 *             clients that take nothing must not stop the others. Who has waited gets copies of a few pages.
 * INVARIANTS  I1 pages on their way are at most the budget, and those of one copy.
 *             I2 an answer has at most one range pinned.
 * LOCKING     None here: everything happens on the main thread.
 * COSTS       Two messages for up to 128 KiB.
 * FAILURE     When a worker ends, its answers fail, and another worker is started.
 * REJECTED    Pinning on the main thread: a page that is missing would block it.
 * REFERENCES  docs/glossary.md: hold.
 */

import type { Worker } from 'node:worker_threads';
import type { VirtualMemory } from '../system/index.ts';
import type { ServedFile, ServeReply, ServeRequest } from './serve-messages.ts';

/** Most pages of one range. */
const PIN_PAGES_MAX = 32;

/** Pages of a copy. */
const COPY_PAGES_MAX = 8;

/** How long an answer waits for pages that others have pinned. */
const PATIENCE_MS = 100;

/** Pause before another worker is started when one could not be. */
const RESTART_MS = 1000;

/** An error of a worker, with the code of what went wrong. */
export class ServeError extends Error {
  readonly code: string;

  constructor(code: string, text: string) {
    super(text);
    this.code = code;
  }
}

interface Member {
  readonly worker: Worker;
  answers: number;
  /** It answers nothing any more. */
  hasEnded: boolean;
}

/** One answer that is on its way. */
export class Answer {
  readonly #pool: ServePool;
  readonly #member: Member;
  readonly #id: number;
  #pinned = 0;
  /** It has waited in vain, and does not wait again until pages can be had. */
  #hasWaited = false;
  #closed = false;

  /** For `ServePool.open`. */
  constructor(pool: ServePool, member: Member, id: number) {
    this.#pool = pool;
    this.#member = member;
    this.#id = id;
  }

  /**
   * Bytes from `offset` on, at most up to `end`: views of pinned pages, which are good until `unpin`, or copies. Throws what
   * the worker met.
   */
  async pin(offset: number, end: number): Promise<Uint8Array[]> {
    const pages = this.#pagesOf(offset, end, PIN_PAGES_MAX);
    if (!(await this.#pool.reserve(pages, this.#hasWaited ? 0 : PATIENCE_MS))) {
      this.#hasWaited = true;
      return this.#pool.inTurn(() => this.#copy(offset, end));
    }
    this.#hasWaited = false;
    this.#pinned = pages;
    return this.#views(offset, end, PIN_PAGES_MAX);
  }

  async #copy(offset: number, end: number): Promise<Uint8Array[]> {
    try {
      return (await this.#views(offset, end, COPY_PAGES_MAX)).map((view) => Uint8Array.from(view));
    } finally {
      this.#pool.tell(this.#member, { kind: 'unpin', id: this.#id });
    }
  }

  async #views(offset: number, end: number, pagesMax: number): Promise<Uint8Array[]> {
    const { pageSize, views } = this.#pool.vm.banks;
    const first = Math.floor(offset / pageSize);
    const length = Math.min(end, (first + pagesMax) * pageSize) - offset;
    const { pieces } = (await this.#pool.ask(this.#member, { kind: 'pin', id: this.#id, offset, length })) as {
      pieces: Float64Array;
    };
    const found: Uint8Array[] = [];
    for (let at = 0; at < pieces.length; at += 3) {
      const [bank, from, bytes] = pieces.subarray(at, at + 3) as unknown as [number, number, number];
      found.push((views[bank] as Uint8Array).subarray(from, from + bytes));
    }
    return found;
  }

  #pagesOf(offset: number, end: number, pagesMax: number): number {
    const { pageSize } = this.#pool.vm.banks;
    return Math.min(pagesMax, Math.floor((end - 1) / pageSize) - Math.floor(offset / pageSize) + 1);
  }

  /** The bytes that were pinned last are sent. */
  unpin(): void {
    if (this.#pinned === 0) return;
    this.#pool.giveBack(this.#pinned);
    this.#pinned = 0;
    if (!this.#closed) this.#pool.tell(this.#member, { kind: 'unpin', id: this.#id });
  }

  /** The answer is over. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.unpin();
    this.#member.answers--;
    this.#pool.tell(this.#member, { kind: 'close', id: this.#id });
  }
}

/** The workers. */
export class ServePool {
  readonly vm: VirtualMemory;
  readonly #url: URL;
  readonly #members: Member[] = [];
  readonly #asked = new Map<
    number,
    { member: Member; resolve: (reply: ServeReply) => void; reject: (e: Error) => void }
  >();
  readonly #waiting: { pages: number; resolve: (pinned: boolean) => void }[] = [];
  /** The copy that was begun last. */
  #lastCopy: Promise<unknown> = Promise.resolve();
  #budget: number;
  #nextId = 1;
  #ending = false;
  /** Workers that ended and were replaced. */
  restarts = 0;

  constructor(vm: VirtualMemory, url: URL) {
    this.vm = vm;
    this.#url = url;
    this.#budget = Math.max(PIN_PAGES_MAX, Math.floor(vm.banks.frameCount / 2));
  }

  /** Workers that run. */
  get size(): number {
    return this.#members.length;
  }

  /** Starts workers; resolves when all are ready. */
  async start(count: number): Promise<void> {
    await Promise.all(Array.from({ length: count }, () => this.#add()));
  }

  /** Opens a file for an answer, in the worker that has the fewest. Rejects with `ServeError`. */
  async open(path: string): Promise<{ answer: Answer; file: ServedFile }> {
    const member = this.#members.reduce<Member | null>((a, b) => (a === null || b.answers < a.answers ? b : a), null);
    if (member === null) throw new ServeError('EBUSY', 'no worker runs');
    const id = this.#nextId++;
    member.answers++;
    const answer = new Answer(this, member, id);
    try {
      const reply = await this.ask(member, { kind: 'open', id, path });
      return { answer, file: (reply as { file: ServedFile }).file };
    } catch (error) {
      answer.close();
      throw error;
    }
  }

  /** Sends a request that is answered. */
  ask(member: Member, request: ServeRequest): Promise<ServeReply> {
    if (member.hasEnded) return Promise.reject(new ServeError('EIO', 'the worker ended'));
    return new Promise((resolve, reject) => {
      this.#asked.set(request.id, { member, resolve, reject });
      member.worker.postMessage(request);
    });
  }

  /** Sends a request that is not answered. */
  tell(member: Member, request: ServeRequest): void {
    member.worker.postMessage(request);
  }

  /** Waits until so many pages may be pinned; false when others keep theirs too long. */
  reserve(pages: number, patienceMs: number): Promise<boolean> {
    if (this.#waiting.length === 0 && this.#budget >= pages) {
      this.#budget -= pages;
      return Promise.resolve(true);
    }
    if (patienceMs === 0) return Promise.resolve(false);
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#waiting.splice(this.#waiting.indexOf(waiter), 1);
        resolve(false);
        this.giveBack(0);
      }, patienceMs);
      const waiter = {
        pages,
        resolve: (pinned: boolean) => {
          clearTimeout(timer);
          resolve(pinned);
        },
      };
      this.#waiting.push(waiter);
    });
  }

  /** Pages are pinned no longer. */
  giveBack(pages: number): void {
    this.#budget += pages;
    for (let next = this.#waiting[0]; next !== undefined && next.pages <= this.#budget; next = this.#waiting[0]) {
      this.#waiting.shift();
      this.#budget -= next.pages;
      next.resolve(true);
    }
  }

  /** One after another. */
  inTurn<Result>(action: () => Promise<Result>): Promise<Result> {
    const result = this.#lastCopy.then(action);
    this.#lastCopy = result.catch(() => undefined);
    return result;
  }

  /** Ends the workers. */
  async end(): Promise<void> {
    this.#ending = true;
    await Promise.all(this.#members.map(({ worker }) => worker.terminate()));
  }

  #add(): Promise<void> {
    return new Promise((resolve, reject) => {
      const member: Member = { worker: this.vm.spawn(this.#url), answers: 0, hasEnded: false };
      member.worker.on('message', (reply: ServeReply) => {
        if (reply.kind === 'ready') {
          this.#members.push(member);
          resolve();
          return;
        }
        const asked = this.#asked.get(reply.id);
        this.#asked.delete(reply.id);
        if (reply.kind === 'failed') asked?.reject(new ServeError(reply.code, reply.text));
        else asked?.resolve(reply);
      });
      member.worker.on('error', () => {
        // The exit follows.
      });
      member.worker.once('exit', () => {
        this.#lose(member);
        reject(new ServeError('EIO', 'a worker ended'));
      });
    });
  }

  #lose(member: Member): void {
    member.hasEnded = true;
    const at = this.#members.indexOf(member);
    if (at >= 0) this.#members.splice(at, 1);
    for (const [id, asked] of this.#asked) {
      if (asked.member !== member) continue;
      this.#asked.delete(id);
      asked.reject(new ServeError('EIO', 'the worker ended'));
    }
    if (this.#ending || at < 0) return;
    this.restarts++;
    this.#replace();
  }

  /** Starts a worker in place of one that ended; when that fails too, a little later again. */
  #replace(): void {
    this.#add().catch(() => {
      if (!this.#ending) setTimeout(() => this.#replace(), RESTART_MS).unref();
    });
  }
}
