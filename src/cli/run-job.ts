/**
 * The main job: workers, work, checks, counts.
 *
 * PROBLEM     Keep several workers busy with real files, stop within a moment when asked to, check whole structures at
 *             quiet points, and never block the main thread, since signals would not arrive.
 * STRUCTURE   The main thread hands batches to workers by message and keeps two under way for each, so that none waits
 *             for its next. It pauses by handing out nothing until all batches are back.
 *
 *               full pass -> rest, check -> random pieces (-> rest, check every second with --check) -> rest, check
 *
 * INVARIANTS  I1 a piece of the full pass is handed out once.  I2 a check runs in one worker while all others rest.
 * LOCKING     None here; the workers meet in the shared structures.
 * COSTS       A message each way for about a megabyte.
 * FAILURE     A worker that ends before it was told to is an error of the run.
 * REJECTED    A counter in shared memory for the next piece: no faster, and the list of files would have to be shared.
 * REFERENCES  docs/glossary.md: bank, hit, eviction.
 */

import type { Worker } from 'node:worker_threads';
import type { VirtualMemory } from '../system/index.ts';
import type { Arena } from '../vmem/index.ts';
import type { ListedFile } from './file-list.ts';
import type { CheckResult, ReadReport, Reply, Request, Trouble } from './run-messages.ts';
import { WorkList } from './work-list.ts';

const BATCHES_PER_WORKER = 2;
const CHECK_EVERY_MS = 1000;

/** What the job has found out so far. */
export interface JobCounts {
  /** Bytes that were read in both ways and agreed. */
  bytes: number;
  pieces: number;
  /** Worker milliseconds spent in the page cache. */
  cacheMs: number;
  /** Worker milliseconds spent in plain fs on the same bytes. */
  fsMs: number;
  /** Worker milliseconds spent on buffers. */
  bufferMs: number;
  /** Lock entries of the workers that met another owner, and sleeps. */
  contended: number;
  slept: number;
  readonly changed: Set<number>;
  readonly unreadable: Set<number>;
  readonly mismatches: Trouble[];
  readonly errors: string[];
}

/** What `runJob` is told. */
export interface JobOptions {
  readonly vm: VirtualMemory;
  readonly files: readonly ListedFile[];
  readonly workers: number;
  readonly seed: number;
  readonly pieceBytes: number;
  /** The arena of the workers' buffers. */
  readonly buffers: Arena;
  /** When random pieces end, on the scale of `performance.now`. */
  readonly until: number;
  /** Pause and check every second. */
  readonly check: boolean;
}

interface Member {
  readonly worker: Worker;
  batches: number;
  fsFirst: boolean;
  /** Was told to end. */
  leaving: boolean;
}

/** Runs the job to its end. Use one object for one run. */
export class Job {
  readonly counts: JobCounts = {
    bytes: 0,
    pieces: 0,
    cacheMs: 0,
    fsMs: 0,
    bufferMs: 0,
    contended: 0,
    slept: 0,
    changed: new Set(),
    unreadable: new Set(),
    mismatches: [],
    errors: [],
  };
  /** What every check said, all rounds. */
  readonly checks: CheckResult[] = [];
  readonly #options: JobOptions;
  readonly #work: WorkList;
  readonly #members: Member[] = [];
  #phase: 'pass' | 'random' | 'done' = 'pass';
  #resting = false;
  #wake: (() => void) | null = null;
  #checked: ((results: readonly CheckResult[]) => void) | null = null;
  #failed: Error | null = null;

  constructor(options: JobOptions) {
    this.#options = options;
    this.#work = new WorkList(options.files, options.seed, options.pieceBytes);
  }

  /** One line for people who wait. */
  get progress(): string {
    const { files } = this.#options;
    const done = this.#work.filesHandedOut;
    const what = this.#phase === 'pass' ? `full pass: ${done} of ${files.length} files` : 'random pieces';
    const megabytes = (this.counts.bytes / 1e6).toFixed(0);
    const { evictions, hits, misses } = this.#options.vm.statistics().pages;
    const hitRate = ((100 * hits) / Math.max(1, hits + misses)).toFixed(0);
    return `${what}, ${megabytes} MB verified, hit rate ${hitRate} %, ${evictions} evictions`;
  }

  /** Does everything; the workers have ended when it returns. Throws what made the run impossible. */
  async run(url: URL): Promise<void> {
    const { vm, workers, pieceBytes, until, check } = this.#options;
    try {
      await Promise.all(
        Array.from({ length: workers }, () => this.#start(vm.spawn(url, { workerData: { pieceBytes } }))),
      );
      await this.#readUntil(() => this.#work.passOver);
      await this.#checkAll();
      this.#phase = 'random';
      while (performance.now() < until && this.#failed === null) {
        const pauseAt = check ? Math.min(until, performance.now() + CHECK_EVERY_MS) : until;
        const handedOut = await this.#readUntil(() => performance.now() >= pauseAt);
        if (pauseAt < until) await this.#checkAll();
        if (handedOut === 0) break; // no file with content is left
      }
      this.#phase = 'done';
      if (this.#failed !== null) throw this.#failed;
      await this.#end();
    } finally {
      for (const member of this.#members) member.leaving = true;
      await Promise.all(this.#members.map(({ worker }) => worker.terminate()));
    }
  }

  #start(worker: Worker): Promise<void> {
    const member: Member = { worker, batches: 0, fsFirst: this.#members.length % 2 === 0, leaving: false };
    this.#members.push(member);
    return new Promise((resolve, reject) => {
      worker.on('message', (reply: Reply) => {
        if (reply.kind === 'ready') resolve();
        else if (reply.kind === 'read') this.#take(member, reply);
        else if (reply.kind === 'check') this.#checked?.(reply.results);
        else {
          this.counts.contended += reply.contended;
          this.counts.slept += reply.slept;
        }
      });
      const fail = (error: Error) => {
        if (member.leaving) return;
        this.#failed ??= error;
        reject(error);
        this.#checked?.([]);
        this.#wake?.();
      };
      worker.on('error', fail);
      worker.on('exit', (code) => fail(new Error(`a worker ended too early, with code ${code}`)));
    });
  }

  /** Keeps everybody busy until `over` says so, then waits for all batches; returns how many were handed out. */
  async #readUntil(over: () => boolean): Promise<number> {
    let handedOut = 0;
    this.#resting = false;
    while (!this.#resting || this.#members.some(({ batches }) => batches > 0)) {
      if (this.#failed !== null) return handedOut;
      for (const member of this.#members) {
        while (!this.#resting && member.batches < BATCHES_PER_WORKER) {
          if (over() || !this.#handOut(member)) this.#resting = true;
          else handedOut++;
        }
      }
      if (this.#resting && this.#members.every(({ batches }) => batches === 0)) break;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return handedOut;
  }

  #handOut(member: Member): boolean {
    const pieces = this.#phase === 'pass' ? this.#work.nextOfPass() : this.#work.nextRandom();
    if (pieces.length === 0) return false;
    member.batches++;
    // Which way comes first alternates also from batch to batch.
    member.fsFirst = !member.fsFirst;
    member.worker.postMessage({ kind: 'read', pieces, fsFirst: member.fsFirst } satisfies Request);
    return true;
  }

  #take(member: Member, report: ReadReport): void {
    const { counts } = this;
    member.batches--;
    counts.bytes += report.bytes;
    counts.pieces += report.pieces;
    counts.cacheMs += report.cacheMs;
    counts.fsMs += report.fsMs;
    counts.bufferMs += report.bufferMs;
    for (const trouble of report.troubles) {
      if (trouble.kind === 'mismatch') counts.mismatches.push(trouble);
      else if (trouble.kind === 'changed') counts.changed.add(trouble.file);
      else if (trouble.kind === 'unreadable') counts.unreadable.add(trouble.file);
      else counts.errors.push(`${this.#options.files[trouble.file]?.path}: ${trouble.text}`);
      this.#work.exclude(trouble.file);
    }
    this.#wake?.();
  }

  async #checkAll(last = false): Promise<void> {
    if (this.#failed !== null) throw this.#failed;
    const results = await new Promise<readonly CheckResult[]>((resolve) => {
      this.#checked = resolve;
      this.#members[0]?.worker.postMessage({ kind: 'check', last } satisfies Request);
    });
    this.#checked = null;
    this.checks.push(...results);
    if (this.#failed !== null) throw this.#failed;
  }

  /** Ends the workers. The last check is made by the last one of them, when all files are closed. */
  async #end(): Promise<void> {
    const [first, ...others] = this.#members;
    await Promise.all(others.map(leave));
    await this.#checkAll(true);
    if (first !== undefined) await leave(first);
    const left = this.#options.buffers.size('allocated');
    const problems = left === 0 ? [] : [`${left} bytes of buffers did not come back`];
    this.checks.push({ structure: 'run/buffers', checked: this.counts.pieces, problems });
  }
}

/** Tells a worker to end, and waits until it has. */
async function leave(member: Member): Promise<void> {
  const { worker } = member;
  member.leaving = true;
  const exit = new Promise((resolve) => worker.once('exit', resolve));
  worker.postMessage({ kind: 'end' } satisfies Request);
  await exit;
}
