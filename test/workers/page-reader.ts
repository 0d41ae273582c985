/**
 * Reads files through the page cache in all ways there are and compares every byte with what belongs there, until told to
 * stop. Allocates from the heap meanwhile, so that pages have to give way.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng, VmError } from 'pagewright/base';
import { load, store } from 'pagewright/sync';
import type { File } from 'pagewright/vpm';
import { matches } from '../support/scratch.ts';

/** What the test tells a reader. */
export interface ReaderData {
  readonly paths: readonly string[];
  readonly seed: number;
  /** Word 0: stop when not 0. Word 1 + reader: steps done. */
  readonly control: Int32Array;
  readonly reader: number;
  /** Reopen files now and then. */
  readonly reopen: boolean;
  /** Open one file at a time, read it and close it. */
  readonly churn: boolean;
  /** Allocate up to this much of the heap at a time; 0 not at all. */
  readonly heapBytes: number;
}

/** What a reader tells the test when it has stopped. */
export interface ReaderResult {
  readonly steps: number;
  readonly mismatches: readonly string[];
  readonly refused: number;
}

const data = workerData as ReaderData;
const vm = attach(workerData.vm);
const random = new Prng(data.seed, data.reader);
const files: (File | undefined)[] = data.paths.map((path) => (data.churn ? undefined : vm.open(path)));
const blocks: [number, number][] = [];
const mismatches: string[] = [];
const pieces = new Float64Array(96);
let steps = 0;
let refused = 0;
parentPort?.postMessage({ slot: vm.slot });

function wrong(what: string, file: number, offset: number): void {
  if (mismatches.length < 10) mismatches.push(`${what}: file ${file}, offset ${offset}, step ${steps}`);
}

function readOnce(number: number): void {
  const file = files[number];
  if (file === undefined || file.size === 0) return;
  const offset = random.below(file.size);
  const length = random.between(1, random.chance(0.1) ? 60_000 : 9_000);
  const expected = Math.min(length, file.size - offset);
  const kind = random.below(10);
  if (kind < 5) {
    const bytes = file.read(offset, length);
    if (bytes.length !== expected || !matches(bytes, number, offset)) wrong('read', number, offset);
  } else if (kind < 7) {
    const count = vm.mappings.mapInto(file.vnode, offset, expected, pieces);
    let at = offset;
    for (let piece = 0; piece < count; piece++) {
      const [bank, start, bytes] = pieces.subarray(3 * piece, 3 * piece + 3) as unknown as [number, number, number];
      if (!matches(vm.mappings.view(bank, start, bytes), number, at)) wrong('map', number, at);
      at += bytes;
    }
    vm.mappings.unmapFrom(pieces, count);
  } else if (kind < 9) {
    const bytes = file.tryRead(offset, length);
    if (bytes !== null && (bytes.length !== expected || !matches(bytes, number, offset)))
      wrong('tryRead', number, offset);
  } else if (data.heapBytes > 0) {
    useHeap(number, offset, expected);
  }
}

function useHeap(number: number, offset: number, expected: number): void {
  const size = Math.min(expected, data.heapBytes);
  const address = vm.heap.tryAlloc(size);
  if (address < 0) {
    refused++;
    return;
  }
  files[number]?.readTo(offset, address, size);
  if (!matches(vm.banks.view(address, size), number, offset)) wrong('readTo', number, offset);
  blocks.push([address, size]);
  if (blocks.length > 4) vm.heap.free(...(blocks.splice(random.below(blocks.length), 1)[0] as [number, number]));
  // Else what is free in the heap's spans would soon be enough for ever.
  if (random.chance(0.2)) vm.heap.trim();
}

try {
  while (load(data.control, 0) === 0) {
    const number = random.below(files.length);
    try {
      if (data.churn) files[number] = vm.open(data.paths[number] as string);
      readOnce(number);
      if (data.churn || (data.reopen && random.chance(0.02))) {
        files[number]?.close();
        files[number] = data.churn ? undefined : vm.open(data.paths[number] as string);
      }
    } catch (error) {
      // With most of a small memory pinned or allocated by others, being refused is right.
      if (!(error instanceof VmError && error.code === 'ENOMEM')) throw error;
      refused++;
      if (data.churn) files[number]?.close();
    }
    steps++;
    store(data.control, 1 + data.reader, steps);
  }
  for (const block of blocks) vm.heap.free(...block);
  vm.detach();
  parentPort?.postMessage({ steps, mismatches, refused } satisfies ReaderResult);
} catch (error) {
  parentPort?.postMessage({
    steps,
    mismatches: [...mismatches, String(error)],
    refused,
  } satisfies ReaderResult);
}
