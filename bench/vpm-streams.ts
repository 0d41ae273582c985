/** Readers that do not read in order: how many pages come ahead of them, how many of those for nothing, and in how many calls. */

import { boot } from 'pagewright';
import type { Harness } from './harness.ts';
import { LARGE_BYTES, MEMORY_BYTES, MIB, PAGE } from './vpm-case.ts';

/** Reads of each pattern: few enough that nothing has to leave the memory. */
const READS = 2000;

/** Where each of the reads begins, in pages. */
const PATTERNS: Readonly<Record<string, (step: number) => number>> = {
  'in order': (step) => step,
  backward: (step) => READS - step,
  'in strides of 3 pages': (step) => 3 * step,
  'in strides of 7 pages, backward': (step) => 7 * (READS - step),
  'four parts in turn': (step) => (step % 4) * 4000 + Math.floor(step / 4),
  'in jumps that grow': (step) => ((step * (step + 1)) / 2) % (LARGE_BYTES / PAGE),
};

/** Nanoseconds of a read of a cold file, and counts of pages and calls for each read, by pattern. */
export function streams(harness: Harness, path: string): void {
  for (const [pattern, pageOf] of Object.entries(PATTERNS)) {
    const name = `4 KiB read ${pattern}`;
    if (!harness.wants(name)) continue;
    const vm = boot({ memory: MEMORY_BYTES + 2 * MIB, services: 'manual' });
    const file = vm.open(path);
    const target = new Uint8Array(PAGE);
    const touched = new Set<number>();
    const began = performance.now();
    for (let step = 0; step < READS; step++) file.read(pageOf(step) * PAGE, target);
    const tookMs = performance.now() - began;
    for (let step = 0; step < READS; step++) touched.add(pageOf(step));
    const { misses, aheadPages, reads, directBytes } = vm.statistics().pages;
    const direct = directBytes / PAGE;
    harness.report(name, (tookMs * 1e6) / READS);
    harness.reportValue(`${name}: pages ahead, of 100 touched`, (100 * aheadPages) / touched.size, '');
    harness.reportValue(
      `${name}: pages for nothing, of 100 touched`,
      (100 * Math.max(0, misses + direct - touched.size)) / touched.size,
      '',
    );
    harness.reportValue(`${name}: calls, of 100 touched`, (100 * reads) / touched.size, '');
    file.close();
    vm.detach();
  }
}
