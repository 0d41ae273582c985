/** The file exerciser in every run: at least 200,000 operations alone, and as many with several workers. */

import { existsSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { runFsx } from './support/fsx-run.ts';
import { testSeed } from './support/seed.ts';

/** Files in memory, where there are such: most of the time on a disk goes into `fsync`, which a short run has as well. */
const MEMORY_FOLDER = '/dev/shm';

describe('the file exerciser', () => {
  for (const [operations, workers, memory, replacement, pageSize, asyncShare, onDisk] of [
    [150_000, 1, '256 KiB', 'clock', 4096, 0, false],
    [50_000, 1, '1 MiB', 'clock', 16_384, 0.05, false],
    [20_000, 2, '4 MiB', 's3fifo', 65_536, 0, true],
    [120_000, 2, '1 MiB', 'queues', 4096, 0, false],
    [60_000, 3, '768 KiB', 'clockPro', 8192, 0.05, false],
  ] as const) {
    it(`finds no byte that differs in ${operations} operations of ${workers} workers in ${memory}, ${replacement}, ${pageSize}, ${100 * asyncShare} % asynchronous`, async () => {
      const seed = testSeed(`fsx with ${workers} workers`, 7 * workers);
      const folder = !onDisk && existsSync(MEMORY_FOLDER) ? { folder: MEMORY_FOLDER } : {};
      const result = await runFsx({
        operations,
        workers,
        memory,
        replacement,
        pageSize,
        asyncShare,
        seed,
        maxBytes: 500_000,
        ...folder,
      });
      const { tally, contended, pages, seconds } = result;
      console.log(JSON.stringify({ workers, memory, replacement, pageSize, tally, contended, pages, seconds }));
      expect(result.problems).toEqual([]);
      expect(result.operations).toBeGreaterThanOrEqual(operations);
      expect(pages.writtenPages).toBeGreaterThan(1000);
      if (asyncShare > 0) expect(Object.keys(tally).filter((name) => name.endsWith('Async')).length).toBe(16);
      if (workers > 1) expect(contended).toBeGreaterThan(0);
    });
  }
});
