/**
 * A writer of `run --write`: updates its blocks of the scratch files through the page cache, reads them back through it, and
 * in the end compares them with plain fs: what was written with the last write, everything else with the source.
 */

import { closeSync, openSync, readSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { Prng } from '../base/index.ts';
import { attach } from '../system/index.ts';
import type { File } from '../vpm/index.ts';
import { firstLine } from './usage.ts';
import { BLOCK_BYTES, fillBlock } from './write-blocks.ts';
import type { ScratchFile, WriterData, WriterReport } from './write-messages.ts';

const SYNC_EVERY = 500;
const OPEN_MAX = 32;
const PROBLEMS_MAX = 20;

if (parentPort !== null) {
  const data = workerData as WriterData & { vm: unknown };
  const vm = attach(data.vm);
  const random = new Prng(data.seed, 1000 + data.number);
  const files = data.files.filter(({ size }) => size > 0);
  /** Sequence of the last write by `file block`. */
  const last = new Map<string, number>();
  const open = new Map<ScratchFile, File>();
  const problems: string[] = [];
  const expected = new Uint8Array(BLOCK_BYTES);
  let writes = 0;
  let bytes = 0;

  const openFor = (scratch: ScratchFile): File => {
    const known = open.get(scratch);
    if (known !== undefined) return known;
    for (const [oldest, file] of open) {
      if (open.size < OPEN_MAX) break;
      open.delete(oldest);
      file.sync();
      file.close();
    }
    const file = vm.open(scratch.path, { mode: 'rw' });
    open.set(scratch, file);
    return file;
  };

  /** A block of this worker's: block b belongs to worker b modulo the number of workers. */
  const drawBlock = ({ size }: ScratchFile): number => {
    const blocks = Math.ceil(size / BLOCK_BYTES);
    const mine = Math.ceil((blocks - data.number) / data.workers);
    return mine <= 0 ? -1 : random.below(mine) * data.workers + data.number;
  };

  const step = (): void => {
    const scratch = random.pick(files);
    const block = drawBlock(scratch);
    if (block < 0) return;
    const from = block * BLOCK_BYTES;
    const length = Math.min(BLOCK_BYTES, scratch.size - from);
    const key = `${scratch.file} ${block}`;
    const before = last.get(key);
    const file = openFor(scratch);
    if (before !== undefined && random.chance(0.3)) {
      fillBlock(expected.subarray(0, length), data.seed, scratch.file, block, before);
      const got = file.read(from, length);
      if (Buffer.compare(got, expected.subarray(0, length)) !== 0)
        problems.push(`${scratch.path}: block ${block} differs`);
      return;
    }
    const sequence = ++writes;
    const fresh = expected.subarray(0, length);
    fillBlock(fresh, data.seed, scratch.file, block, sequence);
    if (file.write(from, fresh) !== length) problems.push(`${scratch.path}: block ${block} was written short`);
    last.set(key, sequence);
    bytes += length;
    if (writes % SYNC_EVERY === 0) file.sync();
  };

  /** Compares this worker's blocks of a file with plain fs. */
  const verify = (scratch: ScratchFile): void => {
    const real = openSync(scratch.path, 'r');
    const source = openSync(scratch.source, 'r');
    const got = new Uint8Array(BLOCK_BYTES);
    for (let from = data.number * BLOCK_BYTES; from < scratch.size; from += data.workers * BLOCK_BYTES) {
      const block = from / BLOCK_BYTES;
      const length = Math.min(BLOCK_BYTES, scratch.size - from);
      const sequence = last.get(`${scratch.file} ${block}`);
      const wanted = expected.subarray(0, length);
      if (sequence === undefined) readSync(source, wanted, 0, length, from);
      else fillBlock(wanted, data.seed, scratch.file, block, sequence);
      const count = readSync(real, got, 0, length, from);
      if (count === length && Buffer.compare(got.subarray(0, length), wanted) === 0) continue;
      if (problems.length < PROBLEMS_MAX) problems.push(`${scratch.path}: block ${block} of the real file differs`);
    }
    closeSync(source);
    closeSync(real);
  };

  const port = parentPort;
  port.once('message', () => {
    // All have written and synced: the real files are complete.
    try {
      for (const scratch of files) verify(scratch);
    } catch (error) {
      problems.push(firstLine(error));
    }
    port.postMessage({ writes, bytes, problems } satisfies WriterReport);
    vm.detach();
  });
  try {
    const until = performance.now() + data.milliseconds;
    while (files.length > 0 && performance.now() < until && problems.length < PROBLEMS_MAX) step();
    for (const file of open.values()) {
      file.sync();
      file.close();
    }
    open.clear();
  } catch (error) {
    problems.push(`writer ${data.number}: ${firstLine(error)}`);
  }
  port.postMessage('written');
}
