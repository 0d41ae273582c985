/** `pagewright run`: reads real files through the shared page cache and verifies every byte. */

import { availableParallelism } from 'node:os';
import { VmError } from '../base/index.ts';
import { boot, shutDown, type VirtualMemory } from '../system/index.ts';
import type { Arena } from '../vmem/index.ts';
import type { RunArguments } from './arguments.ts';
import { type FileList, findChanged, listFiles } from './file-list.ts';
import { Progress, progressMode } from './progress.ts';
import { Job } from './run-job.ts';
import { BUFFER_ARENA } from './run-messages.ts';
import { passed, type RunResult, renderJson, renderReport } from './run-report.ts';
import { EXIT, UsageError } from './usage.ts';
import { writeScratch } from './write-job.ts';

/** Slots beside the workers': this thread, the monitor, and room for what a user attaches. */
const OTHER_SLOTS = 8;

/** Largest piece that is read at once. */
const PIECE_BYTES_MAX = 256 * 1024;

const VNODES_MIN = 256;
const VNODES_MAX = 65536;

/** Runs the main job; resolves to the exit code. */
export async function runCommand(args: RunArguments): Promise<number> {
  const list = await listFiles(args.paths);
  if (list.files.length === 0) {
    throw new UsageError(`pagewright run: there is no regular file to read under ${args.paths.join(', ')}`);
  }
  const workers = args.workers > 0 ? args.workers : Math.min(48, Math.max(2, availableParallelism()));
  const vm = bootFor(args, list, workers);
  const { pieceBytes, buffers } = makeBuffers(vm, workers);
  const start = performance.now();
  const until = start + args.seconds * 1000;
  const { seed, check } = args;
  const job = new Job({ vm, files: list.files, workers, pieceBytes, buffers, seed, until, check });
  const progress = new Progress(progressMode(args.json), () => job.progress);
  let result: RunResult;
  try {
    await job.run(new URL('./run-worker.js', import.meta.url));
    // What was read may have matched although the file went on growing behind it.
    for (const file of await findChanged(list.files)) job.counts.changed.add(file);
    const written = args.write ? await writeScratch(vm, list.files, workers, args) : null;
    result = { args, list, workers, job, vm, written, seconds: (performance.now() - start) / 1000 };
  } finally {
    progress.end();
  }
  process.stdout.write(args.json ? `${renderJson(result)}\n` : renderReport(result));
  await shutDown(vm);
  return passed(result) ? EXIT.ok : EXIT.failed;
}

function bootFor(args: RunArguments, list: FileList, workers: number): VirtualMemory {
  const vnodes = Math.min(VNODES_MAX, Math.max(VNODES_MIN, list.files.length + 64));
  try {
    return boot({ memory: args.memory, slots: Math.min(64, workers + OTHER_SLOTS), vnodes });
  } catch (error) {
    if (!(error instanceof VmError)) throw error;
    const rule = error.message.replace(/^[A-Z]+: /, '');
    throw new UsageError(`pagewright run: --memory ${args.memory}: ${rule}`);
  }
}

/**
 * The arena of the workers' buffers: a quarter of the memory at most, taken from the heap once. Twice what all workers can
 * hold, so that some gap is always large enough, however the live buffers lie.
 */
function makeBuffers(vm: VirtualMemory, workers: number): { pieceBytes: number; buffers: Arena } {
  const { pageSize, frameCount } = vm.banks;
  const shareBytes = (frameCount * pageSize) / (8 * workers);
  const pieceBytes = Math.min(PIECE_BYTES_MAX, Math.floor(shareBytes / pageSize) * pageSize);
  const size = 2 * workers * pieceBytes;
  const base = pieceBytes > 0 ? vm.heap.tryAlloc(size) : -1;
  if (base < 0) throw new UsageError(`pagewright run: the memory is too small for ${workers} workers; see --memory`);
  return { pieceBytes, buffers: vm.createArena(BUFFER_ARENA, { base, size, quantum: 64 }) };
}
