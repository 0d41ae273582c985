/** The file exerciser in every run: at least 200,000 operations, alone and with several workers. */

import { describe, expect, it } from 'vitest';
import { runFsx } from './support/fsx-run.ts';
import { testSeed } from './support/seed.ts';

describe('the file exerciser', () => {
  for (const [operations, workers, memory] of [
    [40_000, 1, '256 KiB'],
    [100_000, 2, '4 MiB'],
    [70_000, 3, '768 KiB'],
  ] as const) {
    it(`finds no byte that differs in ${operations} operations of ${workers} workers in ${memory}`, async () => {
      const seed = testSeed(`fsx with ${workers} workers`, 7 * workers);
      const result = await runFsx({ operations, workers, memory, seed, maxBytes: 500_000 });
      const { tally, contended, pages, seconds } = result;
      console.log(JSON.stringify({ workers, memory, tally, contended, pages, seconds }));
      expect(result.problems).toEqual([]);
      expect(result.operations).toBeGreaterThanOrEqual(operations);
      expect(pages.writtenPages).toBeGreaterThan(1000);
      if (workers > 1) expect(contended).toBeGreaterThan(0);
    });
  }
});
