/** What `run` prints at the end: a report for people, or one object for programs. */

import { formatSize } from '../base/index.ts';
import { memoryPicture } from '../inspect/index.ts';
import type { VirtualMemory } from '../system/index.ts';
import type { RunArguments } from './arguments.ts';
import type { FileList } from './file-list.ts';
import type { Job } from './run-job.ts';
import type { CheckResult, Trouble } from './run-messages.ts';
import type { WriteResult } from './write-job.ts';

/** A finished run. */
export interface RunResult {
  readonly args: RunArguments;
  readonly list: FileList;
  readonly workers: number;
  readonly job: Job;
  readonly vm: VirtualMemory;
  /** What writers did; null without `--write`. */
  readonly written: WriteResult | null;
  /** From boot to the last check. */
  readonly seconds: number;
}

/** True when every byte matched, every check passed, and there was something that could be compared. */
export function passed(result: RunResult): boolean {
  const { job, written } = result;
  const { mismatches, errors } = job.counts;
  if (written !== null && written.problems.length > 0) return false;
  return mismatches.length === 0 && errors.length === 0 && problemsOf(job).length === 0 && !allChanged(result);
}

/** True when no file stayed as it was: then nothing was proved. */
function allChanged({ job, list }: RunResult): boolean {
  const { changed, unreadable } = job.counts;
  return changed.size > 0 && changed.size + unreadable.size >= list.files.length;
}

function problemsOf(job: Job): string[] {
  return job.checks.flatMap(({ structure, problems }) => problems.map((problem) => `${structure}: ${problem}`));
}

interface Figures {
  readonly hitRate: number;
  readonly mbPerSecond: number;
  readonly fsMbPerSecond: number;
  readonly listedBytes: number;
}

/** Bytes over the time that workers spent reading, times the workers. */
function figures({ job, list, workers, vm }: RunResult): Figures {
  const { bytes, cacheMs, fsMs } = job.counts;
  const { hits, misses } = vm.statistics().pages;
  const rate = (ms: number) => (ms > 0 ? Math.round((bytes / 1000 / (ms / workers)) * 10) / 10 : 0);
  return {
    hitRate: hits + misses > 0 ? Math.round((hits / (hits + misses)) * 1e4) / 1e4 : 0,
    mbPerSecond: rate(cacheMs),
    fsMbPerSecond: rate(fsMs),
    listedBytes: list.files.reduce((sum, { size }) => sum + size, 0),
  };
}

/** Checks of the same structure, put together. */
function checksByStructure(
  checks: readonly CheckResult[],
): Map<string, { rounds: number; checked: number; problems: number }> {
  const byStructure = new Map<string, { rounds: number; checked: number; problems: number }>();
  for (const { structure, checked, problems } of checks) {
    const sum = byStructure.get(structure) ?? { rounds: 0, checked: 0, problems: 0 };
    byStructure.set(structure, {
      rounds: sum.rounds + 1,
      checked: sum.checked + checked,
      problems: sum.problems + problems.length,
    });
  }
  return byStructure;
}

/** The object of `--json`, on one line. */
export function renderJson(result: RunResult): string {
  const { job, list, workers, vm, args } = result;
  const { counts } = job;
  const { hitRate, mbPerSecond, fsMbPerSecond, listedBytes } = figures(result);
  const pages = vm.statistics().pages;
  const checks = [...checksByStructure(job.checks)].map(([structure, sum]) => ({ structure, ...sum }));
  return JSON.stringify({
    ok: passed(result),
    files: list.files.length,
    bytes: counts.bytes,
    hitRate,
    evictions: pages.evictions,
    mismatches: counts.mismatches.length,
    checks,
    mbPerSecond,
    fsMbPerSecond,
    listedBytes,
    pieces: counts.pieces,
    bufferNs: Math.round((counts.bufferMs * 1e6) / Math.max(1, counts.pieces)),
    contended: counts.contended,
    slept: counts.slept,
    hits: pages.hits,
    misses: pages.misses,
    changed: counts.changed.size,
    unreadable: list.skipped.unreadable + counts.unreadable.size,
    skipped: { links: list.skipped.links, special: list.skipped.special },
    errors: counts.errors,
    problems: problemsOf(job),
    ...(result.written === null ? {} : { written: result.written }),
    memory: vm.banks.frameCount * vm.banks.pageSize,
    workers,
    seed: args.seed,
    seconds: Math.round(result.seconds * 100) / 100,
  });
}

function row(name: string, value: string): string {
  return `  ${name.padEnd(12)}  ${value}\n`;
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

const LISTED_MAX = 10;

/** At most ten lines of a list, and how many more there are. */
function listed(title: string, lines: readonly string[]): string {
  if (lines.length === 0) return '';
  const more = lines.length > LISTED_MAX ? `    ... and ${lines.length - LISTED_MAX} more\n` : '';
  const shown = lines.slice(0, LISTED_MAX).map((line) => `    ${line}\n`);
  return `\n  ${title}\n${shown.join('')}${more}`;
}

/** The report for people. */
export function renderReport(result: RunResult): string {
  const { job, list, workers, vm, args } = result;
  const { counts } = job;
  const { hitRate, mbPerSecond, fsMbPerSecond, listedBytes } = figures(result);
  const pages = vm.statistics().pages;
  const skipped = Object.entries({ ...list.skipped, unreadable: list.skipped.unreadable + counts.unreadable.size })
    .filter(([, count]) => count > 0)
    .map(([kind, count]) => `${count} ${kind}`);
  const memoryBytes = vm.banks.frameCount * vm.banks.pageSize;
  const ratio = fsMbPerSecond > 0 ? ` (${(mbPerSecond / fsMbPerSecond).toFixed(2)} of plain fs)` : '';
  let text = `${passed(result) ? 'Every byte matched and every check passed.' : 'FAILED: see below.'}\n\n`;
  text += row(
    'files',
    `${list.files.length} with ${megabytes(listedBytes)}${skipped.length > 0 ? `; skipped: ${skipped.join(', ')}` : ''}`,
  );
  text += row(
    'verified',
    `${megabytes(counts.bytes)} in ${counts.pieces} pieces, in ${result.seconds.toFixed(1)} s, seed ${args.seed}`,
  );
  text += row('mismatches', `${counts.mismatches.length}; files that changed meanwhile: ${counts.changed.size}`);
  text += row(
    'memory',
    `${formatSize(memoryBytes)}, ${workers} workers; the files are ${(listedBytes / memoryBytes).toFixed(1)} times the memory`,
  );
  text += row('hit rate', `${(100 * hitRate).toFixed(1)} % of ${pages.hits + pages.misses} pages`);
  text += row('evictions', `${pages.evictions}`);
  text += row('throughput', `${mbPerSecond} MB/s${ratio}`);
  text += row('plain fs', `${fsMbPerSecond} MB/s, same workers, same pieces`);
  const bufferUs = (counts.bufferMs * 1000) / Math.max(1, counts.pieces);
  text += row('buffers', `${bufferUs.toFixed(1)} us for one taken from its arena and given back`);
  if (result.written !== null) {
    const { writes, bytes, files, writtenPages } = result.written;
    text += row(
      'written',
      `${megabytes(bytes)} in ${writes} writes to ${files} scratch files, ${writtenPages} pages back`,
    );
  }
  text += row('contention', `${counts.contended} lock entries met another owner, ${counts.slept} slept`);
  text += arenaTable(vm);
  text += picture(vm);
  text += '\n  Checks\n';
  for (const [structure, sum] of checksByStructure(job.checks)) {
    const verdict = sum.problems === 0 ? 'sound' : `${sum.problems} PROBLEMS`;
    text += `    ${structure.padEnd(28)}  ${verdict}; ${sum.checked} looked at in ${sum.rounds} checks\n`;
  }
  text += listed(
    'Mismatches',
    counts.mismatches.map((trouble) => showTrouble(list, trouble)),
  );
  text += listed(
    'Changed while they were read',
    [...counts.changed].map((file) => list.files[file]?.path ?? ''),
  );
  if (allChanged(result)) text += '\n  Every file changed while it was read: nothing could be verified.\n';
  if (result.written !== null) text += listed('Scratch files that differ', result.written.problems);
  text += listed('Errors', counts.errors);
  text += listed('Broken invariants', problemsOf(job));
  return text;
}

function showTrouble(list: FileList, { file, offset, length, text }: Trouble): string {
  return `${list.files[file]?.path}: ${length} bytes at ${offset}: ${text}`;
}

function arenaTable(vm: VirtualMemory): string {
  let text = '\n  Arenas                  size      in use   spans      allocs       frees    failed   fragmented\n';
  for (const { name, size, inUse, spans, counts, fragmentation } of vm.arenas.stats().arenas) {
    const { allocations, frees, failures } = counts;
    const cells = [
      formatSize(size),
      formatSize(inUse),
      spans,
      allocations,
      frees,
      failures,
      `${(100 * fragmentation).toFixed(0)} %`,
    ];
    const widths = [12, 12, 8, 12, 12, 10, 13];
    text += `    ${name.padEnd(14)}${cells.map((cell, index) => String(cell).padStart(widths[index] as number)).join('')}\n`;
  }
  return text;
}

function picture(vm: VirtualMemory): string {
  const { lines, legend, framesPerSign } = memoryPicture(vm);
  const drawn = lines.map((line) => `    |${line}|\n`).join('');
  return `\n  Memory, ${framesPerSign} frames to a character: ${legend}\n${drawn}`;
}
