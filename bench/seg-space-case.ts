/** Cases of address spaces, in a thread of their own. */

import { parentPort, workerData } from 'node:worker_threads';
import { boot } from 'pagewright';
import { Prng } from 'pagewright/base';
import type { AddressSpace } from 'pagewright/seg';
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
const FORKS = 9;
const FIRST_WRITES = 2000;
const WORDS = 1 << 14;
/** Words that a cursor's pages hold. */
const CURSOR_WORDS = 1 << 16;

/** Processor time of the process: on a machine that others use too, the time on the wall says how busy those are. */
function now(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) * 1000;
}

/** Lets the compiler settle: forks of a small space, and first writes. */
function warmUp(as: AddressSpace): void {
  const at = as.map({ size: 64 * PAGE });
  as.fill(at, 1, 64 * PAGE);
  for (let round = 0; round < 300; round++) {
    const copy = as.fork();
    for (let page = 0; page < 64; page++) as.store(at + page * PAGE, round);
    copy.destroy();
  }
  as.unmap(at, 64 * PAGE);
}

/**
 * Fork of a space whose pages are all there, and the first writes after it: one into each of so many pages. The copies go into
 * frames that were used before, and at last into frames that were not: the operating system has to bring those first.
 */
function fork({ bytes, seed }: SpaceCaseData): SpaceCaseResult {
  const random = new Prng(seed);
  const vm = boot({ memory: bytes + 128 * 2 ** 20, services: 'manual' });
  const as = vm.addressSpace();
  warmUp(as);
  const at = as.map({ size: bytes, reserve: false });
  as.fill(at, 1, bytes);
  const forks: number[] = [];
  const writes: number[] = [];
  const agains: number[] = [];
  const writeInto = (round: number): AddressSpace => {
    let start = now();
    const copy = as.fork();
    forks.push(now() - start);
    const pages = new Set<number>();
    while (pages.size < FIRST_WRITES) pages.add(random.below(bytes / PAGE) * PAGE);
    start = now();
    for (const page of pages) as.store(at + page, round);
    writes.push((now() - start) / FIRST_WRITES);
    start = now();
    for (const page of pages) as.store(at + page, round + 1);
    agains.push((now() - start) / FIRST_WRITES);
    const [page] = pages;
    if (copy.load(at + (page as number)) === round + 1) throw new Error('the copy has changed');
    return copy;
  };
  // Frames come back in the end, and serve the next round: the first round is the one with frames never used.
  for (let round = 0; round < FORKS; round++) writeInto(round).destroy();
  const [fresh] = writes.splice(0, 1);
  const problems = vm.check().flatMap((report) => report.problems);
  if (problems.length > 0) throw new Error(problems.join('\n'));
  as.destroy();
  return { fork: median(forks), write: median(writes), fresh: fresh as number, again: median(agains) };
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

/** Words and pages through a space and through a cursor, beside a typed array of the same size. */
function access({ seed }: SpaceCaseData): SpaceCaseResult {
  const vm = boot({ memory: '64 MiB', services: 'manual' });
  const as = vm.addressSpace();
  const size = WORDS * 256;
  const at = as.map({ size });
  as.fill(at, 1, size);
  const random = new Prng(seed);
  const far = Int32Array.from({ length: WORDS }, () => random.below(size / 4));
  const near = Int32Array.from({ length: WORDS }, () => random.below(CURSOR_WORDS));
  const shared = new Int32Array(new SharedArrayBuffer(size));
  const bytes = new Uint8Array(shared.buffer);
  const page = new Uint8Array(PAGE);
  const each = (picks: Int32Array, operation: (word: number) => number) => {
    let turn = 0;
    return measure((count) => {
      let sum = 0;
      for (let round = 0; round < count; round++) sum += operation(picks[turn++ & (WORDS - 1)] as number);
      return sum;
    }) as number;
  };
  const pageOf = (word: number) => Math.floor((word * 4) / PAGE) * PAGE;
  const cursor = as.cursor();
  const result = {
    loadSpace: each(far, (word) => as.load(at + word * 4)),
    loadArray: each(far, (word) => shared[word] as number),
    storeSpace: each(far, (word) => {
      as.store(at + word * 4, word);
      return 0;
    }),
    storeArray: each(far, (word) => {
      shared[word] = word;
      return 0;
    }),
    loadNear: each(near, (word) => as.load(at + word * 4)),
    storeNear: each(near, (word) => {
      as.store(at + word * 4, word);
      return 0;
    }),
    loadCursor: each(near, (word) => cursor.load(at + word * 4)),
    storeCursor: each(near, (word) => {
      cursor.store(at + word * 4, word);
      return 0;
    }),
    readSpace: each(far, (word) => as.read(at + pageOf(word), page)[0] as number),
    readArray: each(far, (word) => {
      page.set(bytes.subarray(pageOf(word), pageOf(word) + PAGE));
      return page[0] as number;
    }),
    writeSpace: each(far, (word) => {
      as.write(at + pageOf(word), page);
      return 0;
    }),
    writeArray: each(far, (word) => {
      bytes.set(page, pageOf(word));
      return 0;
    }),
  };
  cursor.release();
  return result;
}

function run(data: SpaceCaseData): SpaceCaseResult {
  if (data.kind === 'fork') return fork(data);
  return data.kind === 'access' ? access(data) : whole(data);
}

parentPort?.postMessage(run(workerData as SpaceCaseData));
