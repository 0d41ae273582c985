/** Cases of address spaces, in a thread of their own. */

import { parentPort, workerData } from 'node:worker_threads';
import { boot } from 'pagewright';
import { Prng } from 'pagewright/base';
import { measure, median } from './harness.ts';

/** What the thread is told. */
export interface SpaceCaseData {
  readonly kind: 'fork' | 'clone' | 'copy' | 'access';
  /** Bytes of memory that is copied. */
  readonly bytes: number;
  readonly seed: number;
}

/** Nanoseconds of each part of a case, by name. */
export type SpaceCaseResult = Readonly<Record<string, number>>;

const PAGE = 4096;
const FORKS = 5;
const FIRST_WRITES = 2000;
const WORDS = 1 << 14;

function now(): number {
  return performance.now() * 1e6;
}

/** Fork of a space whose pages are all there, and the first writes after it: one into each of so many pages. */
function fork({ bytes, seed }: SpaceCaseData): SpaceCaseResult {
  const random = new Prng(seed);
  const vm = boot({ memory: bytes + 128 * 2 ** 20, services: 'manual' });
  const as = vm.addressSpace();
  const at = as.map({ size: bytes, reserve: false });
  as.fill(at, 1, bytes);
  const forks: number[] = [];
  const writes: number[] = [];
  const agains: number[] = [];
  for (let round = 0; round < FORKS; round++) {
    let start = now();
    const copy = as.fork();
    forks.push(now() - start);
    const pages = Array.from({ length: FIRST_WRITES }, () => random.below(bytes / PAGE) * PAGE);
    start = now();
    for (const page of pages) as.store(at + page, round);
    writes.push((now() - start) / FIRST_WRITES);
    start = now();
    for (const page of pages) as.store(at + page, round + 1);
    agains.push((now() - start) / FIRST_WRITES);
    if (copy.load(at + (pages[0] as number)) === round + 1) throw new Error('the copy has changed');
    copy.destroy();
  }
  const problems = vm.check().flatMap((report) => report.problems);
  if (problems.length > 0) throw new Error(problems.join('\n'));
  as.destroy();
  return { fork: median(forks), write: median(writes), again: median(agains) };
}

/** What a program without address spaces would do. */
function whole({ kind, bytes }: SpaceCaseData): SpaceCaseResult {
  const source = new Uint8Array(bytes).fill(1);
  const times: number[] = [];
  for (let round = 0; round < 3; round++) {
    const start = now();
    const copy = kind === 'clone' ? structuredClone(source) : source.slice();
    times.push(now() - start);
    if (copy[bytes - 1] !== 1) throw new Error('the copy is wrong');
  }
  return { [kind]: median(times) };
}

/** Words and pages through a space, beside a typed array of the same size. */
function access({ seed }: SpaceCaseData): SpaceCaseResult {
  const vm = boot({ memory: '64 MiB', services: 'manual' });
  const as = vm.addressSpace();
  const size = WORDS * 256;
  const at = as.map({ size });
  as.fill(at, 1, size);
  const random = new Prng(seed);
  const picks = Int32Array.from({ length: WORDS }, () => random.below(size / 4));
  const shared = new Int32Array(new SharedArrayBuffer(size));
  const bytes = new Uint8Array(shared.buffer);
  const page = new Uint8Array(PAGE);
  let turn = 0;
  const pick = () => picks[turn++ & (WORDS - 1)] as number;
  const each = (operation: (word: number) => number) =>
    measure((count) => {
      let sum = 0;
      for (let round = 0; round < count; round++) sum += operation(pick());
      return sum;
    }) as number;
  const pageOf = (word: number) => Math.floor((word * 4) / PAGE) * PAGE;
  return {
    loadSpace: each((word) => as.load(at + word * 4)),
    loadArray: each((word) => shared[word] as number),
    storeSpace: each((word) => {
      as.store(at + word * 4, word);
      return 0;
    }),
    storeArray: each((word) => {
      shared[word] = word;
      return 0;
    }),
    readSpace: each((word) => as.read(at + pageOf(word), page)[0] as number),
    readArray: each((word) => {
      page.set(bytes.subarray(pageOf(word), pageOf(word) + PAGE));
      return page[0] as number;
    }),
    writeSpace: each((word) => {
      as.write(at + pageOf(word), page);
      return 0;
    }),
    writeArray: each((word) => {
      bytes.set(page, pageOf(word));
      return 0;
    }),
  };
}

function run(data: SpaceCaseData): SpaceCaseResult {
  if (data.kind === 'fork') return fork(data);
  return data.kind === 'access' ? access(data) : whole(data);
}

parentPort?.postMessage(run(workerData as SpaceCaseData));
