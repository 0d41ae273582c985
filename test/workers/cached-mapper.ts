/** Maps, writes, copies and syncs pages of files through cached mappings until told to stop. */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng, VmError } from 'pagewright/base';
import { load, store } from 'pagewright/sync';
import { copyCached, UserBytes } from 'pagewright/vpm';

/** What the worker is told. */
export interface MapperData {
  readonly paths: readonly string[];
  readonly seed: number;
  readonly mapper: number;
  /** Word 0: stop. Word 1 + n: steps of mapper n. */
  readonly control: Int32Array;
  /** Pages of each file. */
  readonly pages: number;
}

/** What it says in the end. */
export interface MapperResult {
  readonly steps: number;
  readonly refused: number;
  readonly mismatches: readonly string[];
}

const PAGE = 4096;

const data = workerData as MapperData & { vm: unknown };
const vm = attach(data.vm);
const random = new Prng(data.seed, data.mapper);
const vnodes = data.paths.map((path) => vm.open(path, { mode: 'rw' }).vnode);
const mappings = vm.cachedMappings;
const mismatches: string[] = [];
let steps = 0;
let refused = 0;
parentPort?.postMessage({ slot: vm.slot });

/** Every word of a page of a file names both: whoever writes, writes the same. */
function wordOf(file: number, page: number): number {
  return file * 65536 + page + 1;
}

function look(file: number, page: number, bytes: Uint8Array, offset: number): void {
  const words = new Int32Array(bytes.buffer, bytes.byteOffset + offset, PAGE / 4);
  for (let at = 0; at < words.length; at += 97) {
    if (words[at] === wordOf(file, page) || mismatches.length > 9) continue;
    mismatches.push(`file ${file}, page ${page}, word ${at}: ${words[at]}`);
  }
}

function step(): void {
  const file = random.below(vnodes.length);
  const vnode = vnodes[file] as number;
  const page = random.below(data.pages);
  const kind = random.below(20);
  const access = random.chance(0.3) ? 'write' : 'read';
  if (kind < 14) {
    const mapping = mappings.map(vnode, page * PAGE, random.between(1, 6) * PAGE, { access });
    for (let lane = 0; lane < mapping.count; lane++) {
      const { bytes, offset } = mapping.bytesOf(lane);
      look(file, page + lane, bytes, offset);
      if (access === 'write') {
        new Int32Array(bytes.buffer, bytes.byteOffset + offset, PAGE / 4).fill(wordOf(file, page + lane));
      }
    }
    mapping.release(access);
  } else if (kind < 17) {
    const target = new Uint8Array(PAGE);
    copyCached(mappings, vnode, page * PAGE, PAGE, new UserBytes(target));
    look(file, page, target, 0);
  } else {
    const flags = random.pick([{ write: true }, { free: true }, { invalidate: true }, { free: true, dontNeed: true }]);
    mappings.sync(vnode, page * PAGE, random.between(1, 20) * PAGE, flags);
  }
}

try {
  while (load(data.control, 0) === 0) {
    try {
      step();
    } catch (error) {
      // With most of a small memory in use by others, being refused is right.
      if (!(error instanceof VmError && error.code === 'ENOMEM')) throw error;
      refused++;
    }
    steps++;
    store(data.control, 1 + data.mapper, steps);
  }
  vm.detach();
  parentPort?.postMessage({ steps, refused, mismatches } satisfies MapperResult);
} catch (error) {
  parentPort?.postMessage({ steps, refused, mismatches: [...mismatches, String(error)] } satisfies MapperResult);
}
