/** A run of the file exerciser with several workers, and what must hold in the files at its end. */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Worker } from 'node:worker_threads';
import { boot, shutDown, type VirtualMemory } from 'pagewright';
import type { ReplacementName } from 'pagewright/layout';
import type { FsxReport, FsxWorkerData } from '../workers/fsx-worker.ts';
import { emptyModel } from './fsx.ts';
import { PATIENCE_MS } from './until.ts';

/** Bytes that belong to one worker before the next one's follow. */
export const STRIPE_BYTES = 1000;

/** Bytes of the smallest record. */
export const RECORD_BYTES_MIN = 12;

/** The files of one worker. */
export interface FsxPaths {
  readonly own: string;
  readonly turns: string;
  readonly stripes: string;
  readonly log: string;
}

/** What to run. */
export interface FsxOptions {
  readonly operations: number;
  readonly workers: number;
  readonly seed: number;
  readonly memory: string;
  readonly replacement: ReplacementName;
  /** Bytes of a page of the files. */
  readonly pageSize: number;
  /** Largest size of a file. */
  readonly maxBytes: number;
  /** Share of operations that use asynchronous forms, 0 to 1. Default 0. */
  readonly asyncShare?: number;
  /** Where the files lie while it runs. Default: the system's folder for such things. */
  readonly folder?: string;
  /** Called now and then with the operations done. */
  readonly onProgress?: (done: number) => void;
}

/** What came out. */
export interface FsxResult {
  readonly operations: number;
  readonly tally: Record<string, number>;
  readonly contended: number;
  readonly pages: ReturnType<VirtualMemory['statistics']>['pages'];
  readonly problems: string[];
  readonly seconds: number;
}

/** Runs; resolves when all workers have ended and the files were compared. */
export async function runFsx(options: FsxOptions): Promise<FsxResult> {
  const {
    operations,
    workers,
    seed,
    maxBytes,
    memory,
    replacement,
    pageSize,
    asyncShare = 0,
    folder = tmpdir(),
  } = options;
  const directory = mkdtempSync(join(folder, 'pagewright-fsx-'));
  const vm = boot({ memory, replacement, bankSize: Math.max(65_536, 4 * pageSize), slots: workers + 4 });
  const start = performance.now();
  const turns = emptyModel(maxBytes, true);
  const turn = new Int32Array(new SharedArrayBuffer(4));
  const progress = new Int32Array(new SharedArrayBuffer(4 * workers));
  const met = new Int32Array(new SharedArrayBuffer(4));
  const stripes = Array.from({ length: workers }, () => emptyModel(maxBytes, true));
  const problems: string[] = [];
  const timer = setInterval(() => options.onProgress?.(sum([...progress])), 5000);
  try {
    const reports = await Promise.all(
      stripes.map((model, number) => {
        const workerData = {
          number,
          workers,
          seed,
          operations: Math.ceil(operations / workers),
          paths: pathsOf(directory, number),
          maxBytes,
          pageSize,
          asyncShare,
          turns,
          turn,
          stripes: model,
          progress,
          met,
        } satisfies Omit<FsxWorkerData, 'vm'>;
        return reportOf(vm.spawn(new URL(workerUrl(), import.meta.url), { workerData }));
      }),
    );
    for (const { failure } of reports) if (failure !== null) problems.push(failure);
    if (problems.length === 0) {
      problems.push(...compareStripes(pathsOf(directory, 0).stripes, stripes), ...compareLog(directory, reports));
      problems.push(...(await quietProblems(vm, asyncShare > 0 ? 4 : 3)));
    }
    const tally: Record<string, number> = {};
    for (const report of reports) {
      for (const [name, times] of Object.entries(report.tally)) tally[name] = (tally[name] ?? 0) + times;
    }
    return {
      operations: sum(reports.map((report) => report.done)),
      tally,
      contended: sum(reports.map((report) => report.contended)),
      pages: vm.statistics().pages,
      problems,
      seconds: (performance.now() - start) / 1000,
    };
  } finally {
    clearInterval(timer);
    await shutDown(vm);
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The built worker, seen from the sources and from `build/`. */
function workerUrl(): string {
  return import.meta.url.endsWith('.ts') ? '../../build/test/workers/fsx-worker.js' : '../workers/fsx-worker.js';
}

function pathsOf(directory: string, number: number): FsxPaths {
  return {
    own: join(directory, `own-${number}`),
    turns: join(directory, 'turns'),
    stripes: join(directory, 'stripes'),
    log: join(directory, 'log'),
  };
}

function reportOf(worker: Worker): Promise<FsxReport> {
  return new Promise((resolve, reject) => {
    worker.on('message', (message) => 'done' in message && resolve(message as FsxReport));
    worker.on('error', reject);
    worker.on('exit', (code) => reject(new Error(`a worker ended with code ${code} and no report`)));
  });
}

/** Every stripe holds what its worker wrote. */
function compareStripes(path: string, models: readonly { bytes: Uint8Array; size: Int32Array }[]): string[] {
  const real = readFileSync(path);
  const size = Math.max(...models.map((model) => model.size[0] as number));
  if (real.length !== size) return [`stripes: the file has ${real.length} bytes, expected ${size}`];
  for (let at = 0; at < size; at++) {
    const owner = Math.floor(at / STRIPE_BYTES) % models.length;
    if (real[at] !== models[owner]?.bytes[at]) return [`stripes: byte ${at} of worker ${owner} differs`];
  }
  return [];
}

/** Records lie one behind the other, each worker's in the order in which it wrote them, none is missing. */
function compareLog(directory: string, reports: readonly FsxReport[]): string[] {
  const real = readFileSync(join(directory, 'log'));
  const next = reports.map(() => 0);
  for (let at = 0; at < real.length; ) {
    const length = real.readUInt32LE(at);
    const worker = real.readUInt32LE(at + 4);
    if (length < RECORD_BYTES_MIN || at + length > real.length) return [`log: a record of ${length} bytes at ${at}`];
    if (real.readUInt32LE(at + 8) !== next[worker]) return [`log: the record at ${at} is out of order`];
    if (!real.subarray(at + RECORD_BYTES_MIN, at + length).every((byte) => byte === worker + 1)) {
      return [`log: the record at ${at} differs`];
    }
    next[worker] = (next[worker] ?? 0) + 1;
    at += length;
  }
  return next.every((count, worker) => count === reports[worker]?.records) ? [] : [`log: records ${next}`];
}

/**
 * When everybody has left but this thread, the two services, and the I/O worker if anything was asynchronous: nothing is open,
 * nothing modified, every structure sound, all frames free and in one piece.
 */
async function quietProblems(vm: VirtualMemory, threads: number): Promise<string[]> {
  // The pagedaemon and the I/O workers may have a page in hand for a moment longer than those who asked for it.
  const isQuiet = () => {
    const { slots, frames } = vm.statistics();
    return slots.length === threads && vm.vnodes.dropUnused() === 0 && frames.free === vm.region.geometry.frames;
  };
  const end = performance.now() + PATIENCE_MS;
  while (!isQuiet() && performance.now() < end) {
    vm.heap.trim();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const problems: string[] = [];
  const { length } = vm.statistics().slots;
  if (length !== threads) problems.push(`${length} threads are left, not ${threads}`);
  if (vm.pages.modified !== 0) problems.push(`${vm.pages.modified} pages are modified although all files were synced`);
  const left = vm.vnodes.dropUnused();
  if (left > 0) problems.push(`${left} vnodes are left`);
  vm.heap.trim();
  problems.push(...vm.check().flatMap((report) => report.problems));
  const { frames, bankFrames } = vm.region.geometry;
  if (vm.statistics().frames.free !== frames) problems.push(`frames: ${JSON.stringify(vm.statistics().frames)}`);
  for (let low = 0; low < frames && problems.length === 0; low += bankFrames) {
    const count = Math.min(bankFrames, frames - low);
    if (vm.frames.tryTakeRun(count) < 0) problems.push(`bank at frame ${low} is not one run`);
  }
  return problems;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, value) => total + value, 0);
}
