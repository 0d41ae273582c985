/** Every recorded run of the original sources replays exactly. */

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { replayFile } from '../src/inspect/index.ts';

const GOLDEN = join(import.meta.dirname, 'golden');

/** Allocations of real programs: nothing is recorded of what they got, but the arena must be sound and whole again. */
describe('heap traces', () => {
  it.each(['sqlite-build-query', 'cc1-mdb'])('%s', (name) => {
    const { operations, mismatches, first, summary } = replayFile(
      join(import.meta.dirname, '..', 'bench', 'traces', 'heap', `${name}.jsonl.gz`),
    );
    expect(first).toBeNull();
    expect(mismatches).toBe(0);
    expect(operations).toBeGreaterThan(300_000);
    expect(summary).toMatch(/ns an operation in this build, peak .* MiB, fragmentation .* %/);
  });
});

/** Reads of a real program: nothing is recorded of what it got, but every cache must be sound. */
describe('file traces', () => {
  it('git-packfile', () => {
    const file = join(import.meta.dirname, '..', 'bench', 'traces', 'file', 'git-packfile.jsonl.gz');
    const { operations, first, summary } = replayFile(file);
    expect(first).toBeNull();
    expect(operations).toBe(30_072);
    for (const policy of ['clock', 's3fifo', 'clockPro', 'queues'])
      expect(summary).toMatch(new RegExp(`${policy} \\d`));
  });
});

for (const kind of readdirSync(GOLDEN)) {
  describe(`golden traces of ${kind}`, () => {
    const files = readdirSync(join(GOLDEN, kind)).filter((file) => file.endsWith('.jsonl.gz'));
    it.each(files)('%s', (file) => {
      const { operations, mismatches, first } = replayFile(join(GOLDEN, kind, file));
      expect(first).toBeNull();
      expect(mismatches).toBe(0);
      expect(operations).toBeGreaterThan(0);
    });
  });
}
