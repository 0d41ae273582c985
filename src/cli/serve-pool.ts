/**
 * The workers of `serve`, and the pages that they hold for answers that are on their way.
 *
 * PROBLEM     Slow clients hold pages for as long as they take to read them; a worker may end with pages in its hands.
 * STRUCTURE   Each answer belongs to one worker, which opens its file and pins one range of it after another:
 *
 *               open -> opened -> pin -> pinned -> the socket takes the bytes out of the banks -> unpin -> pin ... -> close
 *
 *             Pins that would leave too few pages for others wait, in order, until some are given back.
 * INVARIANTS  I1 pages on their way are at most the budget.  I2 an answer has at most one range pinned.
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

/** An error of a worker, with the code of what went wrong. */
export class ServeError extends Error {
  readonly code: string;

  constructor(code: string, text: string) {
    super(text);
    this.code = code;
  }
}

interface Member {
  worker: Worker;
  answers: number;
}

/** One answer that is on its way. */
export class Answer {
  readonly #pool: ServePool;
  readonly #member: Member;
  readonly #id: number;
  #pinned = 0;
  #closed = false;

  /** For `ServePool.open`. */
  constructor(pool: ServePool, member: Member, id: number) {
    this.#pool = pool;
    this.#member = member;
    this.#id = id;
  }

  /** Pins bytes from `offset` on, at most up to `end`; views of them, which are good until `unpin`. */
  async pin(offset: number, end: number): Promise<Uint8Array[]> {
    const { pageSize } = this.#pool.vm.banks;
    const first = Math.floor(offset / pageSize);
    const length = Math.min(end - offset, (first + PIN_PAGES_MAX) * pageSize - offset);
    const pages = Math.floor((offset + length - 1) / pageSize) - first + 1;
    await this.#pool.reserve(pages);
    this.#pinned = pages;
    const { pieces } = (await this.#pool.ask(this.#member, { kind: 'pin', id: this.#id, offset, length })) as {
      pieces: Float64Array;
    };
    const { views } = this.#pool.vm.banks;
    const found: Uint8Array[] = [];
    for (let at = 0; at < pieces.length; at += 3) {
      const [bank, from, bytes] = pieces.subarray(at, at + 3) as unknown as [number, number, number];
      found.push((views[bank] as Uint8Array).subarray(from, from + bytes));
    }
    return found;
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
  readonly #waiting: { pages: number; resolve: () => void }[] = [];
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
    return new Promise((resolve, reject) => {
      this.#asked.set(request.id, { member, resolve, reject });
      member.worker.postMessage(request);
    });
  }

  /** Sends a request that is not answered. */
  tell(member: Member, request: ServeRequest): void {
    member.worker.postMessage(request);
  }

  /** Waits until so many pages may be pinned. */
  async reserve(pages: number): Promise<void> {
    if (this.#waiting.length === 0 && this.#budget >= pages) {
      this.#budget -= pages;
      return;
    }
    await new Promise<void>((resolve) => this.#waiting.push({ pages, resolve }));
  }

  /** Pages are pinned no longer. */
  giveBack(pages: number): void {
    this.#budget += pages;
    for (let next = this.#waiting[0]; next !== undefined && next.pages <= this.#budget; next = this.#waiting[0]) {
      this.#waiting.shift();
      this.#budget -= next.pages;
      next.resolve();
    }
  }

  /** Ends the workers. */
  async end(): Promise<void> {
    this.#ending = true;
    await Promise.all(this.#members.map(({ worker }) => worker.terminate()));
  }

  #add(): Promise<void> {
    const member: Member = { worker: this.vm.spawn(this.#url), answers: 0 };
    return new Promise((resolve, reject) => {
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
    const at = this.#members.indexOf(member);
    if (at >= 0) this.#members.splice(at, 1);
    for (const [id, asked] of this.#asked) {
      if (asked.member !== member) continue;
      this.#asked.delete(id);
      asked.reject(new ServeError('EIO', 'the worker ended'));
    }
    if (this.#ending || at < 0) return;
    this.restarts++;
    this.#add().catch(() => undefined);
  }
}
