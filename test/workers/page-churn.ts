/**
 * Uses the pages of one file in every way at once, until told to stop: reads any of them, writes its own, creates, writes
 * back, retires them, and takes runs and page lists, for which pages have to move or to leave.
 *
 * A page holds its index and a version; its other bytes follow from the index. Each page has one writer, which says in
 * `versions` what it has acknowledged. Frames of runs and lists hold a cookie of their owner.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng, VmError } from 'pagewright/base';
import { load, store } from 'pagewright/sync';

/** What the test tells a worker. */
export interface ChurnData {
  readonly path: string;
  readonly pages: number;
  readonly number: number;
  readonly workers: number;
  readonly seed: number;
  /** Word 0: stop when not 0. Word 1 + number: steps done. From word 16 on: the acknowledged version of each page. */
  readonly control: Int32Array;
}

/** What it says when it has stopped. */
export interface ChurnResult {
  readonly steps: number;
  readonly wrong: readonly string[];
  readonly runs: number;
  readonly lists: number;
}

/** Where the versions begin in `control`. */
export const VERSIONS = 16;

const PAGE = 4096;

/** Writes what belongs into a page. */
export function stampPage(bytes: Uint8Array, index: number, version: number): void {
  bytes.fill(index & 255, 8);
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(4, index);
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(0, version);
}

/** The version of a page, or -1 when it holds anything else than what belongs there. */
export function versionOf(bytes: Uint8Array, index: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  if (view.getUint32(4) !== index) return -1;
  for (let at = 8; at < PAGE; at += 97) if (bytes[at] !== (index & 255)) return -1;
  return bytes[PAGE - 1] === (index & 255) ? view.getUint32(0) : -1;
}

function run(data: ChurnData): void {
  const vm = attach(workerData.vm);
  const { pages, vnodes, frames, pageLists, banks } = vm;
  const random = new Prng(data.seed, data.number);
  const file = vm.open(data.path, { mode: 'rw' });
  const { vnode } = file;
  const out = new Int32Array(32);
  const wrong: string[] = [];
  const held: { readonly first: number; readonly count: number; readonly free: () => void }[] = [];
  let steps = 0;
  let runs = 0;
  let lists = 0;
  const bytesOf = (frame: number) => banks.view(frame * PAGE, PAGE);
  const say = (what: string) => {
    if (wrong.length < 10) wrong.push(`step ${steps}: ${what}`);
  };
  const acknowledged = (index: number) => load(data.control, VERSIONS + index);

  function read(index: number): void {
    const least = acknowledged(index);
    const count = pages.fetch(vnode, index, Math.min(random.between(1, 4), data.pages - index), out, 0, vnodes, false);
    for (let lane = 0; lane < count; lane++) {
      const version = versionOf(bytesOf(out[lane] as number), index + lane);
      if (version < 0 || (lane === 0 && version < least))
        say(`page ${index + lane} has version ${version}, not ${least}`);
    }
    for (let lane = 0; lane < count; lane++) pages.release(out[lane] as number);
  }

  function write(): void {
    const index = random.below(Math.floor(data.pages / data.workers)) * data.workers + data.number;
    const version = acknowledged(index) + 1;
    if (random.chance(0.3)) {
      const source = {
        fill: (_vnode: number, at: number, lanes: Int32Array, lane: number) => {
          stampPage(bytesOf(lanes[lane] as number), at, version);
          return 0;
        },
      };
      pages.create(vnode, index, 1, out, 0, vnodes, source);
    } else {
      pages.fetch(vnode, index, 1, out, 0, vnodes, true);
    }
    const frame = out[0] as number;
    pages.setModified(frame);
    const head = banks.view(frame * PAGE, 4);
    new DataView(head.buffer, head.byteOffset).setUint32(0, version);
    pages.setModified(frame);
    pages.release(frame);
    store(data.control, VERSIONS + index, version);
  }

  function hold(first: number, count: number, free: () => void): void {
    for (let frame = first; frame < first + count; frame++) bytesOf(frame).fill(0xc0 + data.number);
    held.push({ first, count, free });
  }

  function letGo(): void {
    const [entry] = held.splice(random.below(held.length), 1);
    if (entry === undefined) return;
    for (let frame = entry.first; frame < entry.first + entry.count; frame++) {
      const bytes = bytesOf(frame);
      if (bytes[0] !== 0xc0 + data.number || bytes[PAGE - 1] !== 0xc0 + data.number)
        say(`frame ${frame} was written to`);
    }
    entry.free();
  }

  function step(): void {
    const index = random.below(data.pages);
    const choice = random.below(20);
    if (choice < 8) read(index);
    else if (choice < 13) write();
    else if (choice === 13) pages.writeBack(vnode, index, random.between(1, 40), vnodes);
    else if (choice === 14) pages.retire(vnode, index, random.between(1, 8));
    else if (choice === 15) vm.pagedaemon.step();
    else if (choice === 16 && held.length < 4) {
      const count = random.between(2, 6);
      const first = frames.tryTakeRun(count);
      if (first < 0) return;
      frames.settle();
      runs++;
      hold(first, count, () => frames.giveRun(first, count));
    } else if (choice === 17 && held.length < 4) {
      const list = pageLists.tryAlloc({ size: random.between(1, 4) * PAGE, segments: 1 });
      if (list === null) return;
      lists++;
      const { first, count } = list.runs[0] as { first: number; count: number };
      hold(first, count, () => pageLists.free(list));
    } else if (held.length > 0) letGo();
  }

  function loop(): void {
    for (let turn = 0; turn < 50; turn++) {
      try {
        step();
      } catch (error) {
        if (!(error instanceof VmError) || error.code !== 'ENOMEM') throw error;
      }
      store(data.control, 1 + data.number, ++steps);
    }
    if (load(data.control, 0) === 0) {
      setImmediate(loop);
      return;
    }
    while (held.length > 0) letGo();
    file.close();
    vm.detach();
    parentPort?.postMessage({ steps, wrong, runs, lists } satisfies ChurnResult);
  }

  parentPort?.postMessage({ slot: vm.slot, attachment: vm.attachment });
  loop();
}

if (parentPort !== null && workerData?.control !== undefined) run(workerData as ChurnData);
