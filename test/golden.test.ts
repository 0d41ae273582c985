/** Every recorded run of the original sources replays exactly. */

import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
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

describe('broken heap traces', () => {
  const header = { trace: 'heap', version: 1, program: 'p', threads: 1 };
  it.each([
    [
      [
        ['a', 0, 10],
        ['f', 0],
        ['f', 0],
      ],
      4,
      /an id that is allocated and was not freed before/,
    ],
    [
      [
        ['a', 0, 10],
        ['r', 7, 20],
      ],
      3,
      /an id that is allocated/,
    ],
    [[['a', 5, 10]], 2, /the next id, 0/],
    [[['a', 0, -10]], 2, /a size that is an integer from 1/],
    [[['a', 0, 1e15]], 2, /a size that is an integer from 1/],
    [[['a', 0, 10, 3]], 2, /an alignment that is a power of two/],
    [[['z', 0]], 2, /one of the operations/],
    [[{ a: 1 }], 2, /an array/],
  ])('%j: line %d', (lines, number, rule) => {
    const file = join(mkdtempSync(join(tmpdir(), 'pagewright-')), 'broken.jsonl');
    writeFileSync(file, [header, ...lines].map((line) => `${JSON.stringify(line)}\n`).join(''));
    const { mismatches, first, summary } = replayFile(file);
    rmSync(dirname(file), { recursive: true });
    expect(mismatches).toBe(1);
    expect(first).toMatchObject({ line: number, expected: expect.stringMatching(rule) });
    expect(summary).not.toContain('-16 B');
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
