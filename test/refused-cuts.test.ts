/** Cuts that a store refuses, while other threads write, read and sync what would have gone: nothing is lost. */

import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { armFault, disarmFault, load, store } from 'pagewright/sync';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { awaitRequests, expectAllFree } from './support/all-free.ts';
import { until } from './support/chaos.ts';
import { contendedOf } from './support/contention.ts';
import { Scratch } from './support/scratch.ts';
import { testSeed } from './support/seed.ts';
import type { CutRefusedData, CutRefusedReport } from './workers/cut-refused.ts';

const build = (name: string) => new URL(`../build/test/workers/${name}.js`, import.meta.url);

const PIECES = 90;
const PIECE_BYTES = 3333;
const WRITERS = 2;

/** So many rounds of each worker at least. */
const ROUNDS = 60;

let scratch: Scratch;
let vm: VirtualMemory;

beforeEach(() => {
  scratch = new Scratch();
  // 64 frames, and 74 pages.
  vm = boot({ memory: '256 KiB', bankSize: '64 KiB', slots: 10 });
});

afterEach(async () => {
  disarmFault(vm.region);
  await shutDown(vm);
  scratch.remove();
});

/** Runs a cutter and the writers until all have done their rounds and have waited for each other; what is left in each piece. */
async function churn(path: string, providerUrl: string | null, seed: number): Promise<Uint8Array> {
  const control = new Int32Array(new SharedArrayBuffer(64));
  const pieces = new Uint8Array(new SharedArrayBuffer(PIECES));
  const slots: number[] = [];
  let ended = 0;
  const reports = Array.from({ length: WRITERS + 1 }, async (_, number) => {
    const shared = { path, providerUrl, number, writers: WRITERS, pieceBytes: PIECE_BYTES, pieces, control };
    const worker = vm.spawn(build('cut-refused'), {
      workerData: { ...shared, seed } satisfies Omit<CutRefusedData, 'vm'>,
    });
    const report = new Promise<CutRefusedReport>((resolve, reject) => {
      worker.on('message', (message) => {
        if ('slot' in message) slots.push(message.slot);
        if ('wrong' in message) resolve(message);
      });
      worker.on('error', reject);
    });
    try {
      const [result] = await Promise.all([report, once(worker, 'exit')]);
      return result;
    } finally {
      ended++;
    }
  });
  const isDone = () => [0, 1, 2].every((number) => load(control, 1 + number) >= ROUNDS);
  await until(() => ended > 0 || (isDone() && contendedOf(vm, slots) > 0), 'all do their rounds and meet');
  store(control, 0, 1);
  const all = await Promise.all(reports);
  console.log(`rounds ${[1, 2, 3].map((lane) => load(control, lane))}, ${JSON.stringify(all)}`);
  expect(all.flatMap(({ wrong }) => wrong)).toEqual([]);
  expect(all.reduce((sum, { contended }) => sum + contended, 0)).toBeGreaterThan(0);
  return pieces;
}

/** What all pieces together hold. */
const bytesOf = (pieces: Uint8Array) =>
  Buffer.concat(Array.from(pieces, (value) => new Uint8Array(PIECE_BYTES).fill(value)));

describe('cuts that are refused', () => {
  it('of a file lose nothing', async () => {
    const path = scratch.file('a', 0);
    const file = vm.open(path, { mode: 'rw' });
    file.truncate(PIECES * PIECE_BYTES);
    armFault(vm.region, 'vnode.truncate.error', 'failAlways');
    const expected = bytesOf(await churn(path, null, testSeed('refused cuts of a file', 3)));
    disarmFault(vm.region);
    expect(Buffer.compare(file.read(0, expected.length + 1), expected)).toBe(0);
    file.sync();
    expect(Buffer.compare(readFileSync(path), expected)).toBe(0);
    file.truncate(100);
    file.sync();
    expect(readFileSync(path).length).toBe(100);
    file.close();
    expectAllFree(vm);
  });

  it('of a vnode whose provider answers later lose nothing', async () => {
    const provider = { module: build('page-provider'), export: 'stubborn' };
    const file = vm.openProvided({ provider, name: 'far', mode: 'rw' });
    file.write(0, new Uint8Array(PIECES * PIECE_BYTES));
    const expected = bytesOf(
      await churn('far', build('page-provider').href, testSeed('refused cuts of a far vnode', 3)),
    );
    await expect(file.truncateAsync(10)).rejects.toThrow(/ENOSPC: file\.truncateAsync.*not a byte less/);
    expect(file.size).toBe(expected.length);
    expect(Buffer.compare(await file.readAsync(0, expected.length + 1), expected)).toBe(0);
    await file.syncAsync();
    file.close();
    await awaitRequests(vm);
    expectAllFree(vm);
  });
});
