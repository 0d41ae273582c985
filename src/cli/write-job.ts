/** The writers of `run --write`: scratch copies of the listed files, updated through the cache, verified with plain fs. */

import { copyFile, mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Worker } from 'node:worker_threads';
import type { VirtualMemory } from '../system/index.ts';
import type { ListedFile } from './file-list.ts';
import type { ScratchFile, WriterData, WriterReport } from './write-messages.ts';

/** Bytes that are copied at most. */
const COPY_BYTES_MAX = 64e6;
const COPY_FILES_MAX = 200;

/** What the writers did. */
export interface WriteResult {
  readonly files: number;
  readonly writes: number;
  readonly bytes: number;
  /** Pages that went back to the scratch files. */
  readonly writtenPages: number;
  readonly problems: readonly string[];
}

/** Copies, lets the workers write for the given seconds, and verifies. The scratch folder is removed. */
export async function writeScratch(
  vm: VirtualMemory,
  listed: readonly ListedFile[],
  workers: number,
  { seconds, seed }: { readonly seconds: number; readonly seed: number },
): Promise<WriteResult> {
  const folder = await mkdtemp(join(tmpdir(), 'pagewright-write-'));
  const before = vm.statistics().pages.writtenPages;
  try {
    const files = await copyFiles(listed, folder);
    const url = new URL('./write-worker.js', import.meta.url);
    const writers = Array.from({ length: workers }, (_, number) => {
      const workerData = { files, number, workers, seed, milliseconds: seconds * 1000 } satisfies WriterData;
      return vm.spawn(url, { workerData: { ...workerData } });
    });
    const reports = await reportsOf(writers);
    const problems = reports.flatMap((report) => [...report.problems]);
    if (vm.pages.modified > 0) problems.push(`${vm.pages.modified} pages are modified although all was synced`);
    return {
      files: files.length,
      writes: reports.reduce((sum, { writes }) => sum + writes, 0),
      bytes: reports.reduce((sum, { bytes }) => sum + bytes, 0),
      writtenPages: vm.statistics().pages.writtenPages - before,
      problems,
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Copies as many files as the limits allow; those that change meanwhile are left out. */
async function copyFiles(listed: readonly ListedFile[], folder: string): Promise<ScratchFile[]> {
  const files: ScratchFile[] = [];
  let bytes = 0;
  for (const [file, { path: source, size }] of listed.entries()) {
    if (files.length === COPY_FILES_MAX) break;
    if (bytes + size > COPY_BYTES_MAX) continue;
    const path = join(folder, `${file}`);
    try {
      // The copy of the copy stays as it is: what is written is compared with it, whatever happens to the file itself.
      await copyFile(source, `${path}.source`);
      await copyFile(`${path}.source`, path);
    } catch {
      continue;
    }
    const copied = (await stat(path)).size;
    files.push({ file, source: `${path}.source`, path, size: copied });
    bytes += copied;
  }
  return files;
}

/** Waits until all have written, lets all verify, and collects what they say. */
async function reportsOf(writers: readonly Worker[]): Promise<WriterReport[]> {
  const answers = writers.map(
    (worker) =>
      new Promise<WriterReport>((resolve, reject) => {
        worker.on('message', (message: WriterReport | 'written') => message !== 'written' && resolve(message));
        worker.once('error', reject);
        worker.once('exit', (code) => reject(new Error(`a writer ended too early, with code ${code}`)));
      }),
  );
  const written = writers.map((worker) => new Promise((resolve) => worker.once('message', resolve)));
  try {
    await Promise.race([Promise.all(written), Promise.all(answers)]);
    for (const worker of writers) worker.postMessage('verify');
    return await Promise.all(answers);
  } finally {
    await Promise.allSettled(answers);
    await Promise.all(writers.map((worker) => worker.terminate()));
  }
}
