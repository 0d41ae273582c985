/** The programs in examples/ run as their first lines say, and print what they promise. */

import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { ROOT } from './tidy/sources.ts';

const run = promisify(execFile);
const PATIENCE_MS = 120_000;

/** Runs a program to its end; it must not complain. */
async function output(program: string): Promise<string> {
  const options = { cwd: ROOT, timeout: PATIENCE_MS };
  const { stdout, stderr } = await run(process.execPath, [`examples/${program}`], options);
  expect(stderr).toBe('');
  return stdout;
}

describe('examples', () => {
  it('shares a cache between the workers of a pool', async () => {
    const text = await output('shared-cache.mjs');
    expect(text).toMatch(/^4 workers read 8000 blocks/);
    const [, pages, misses] = /has (\d+) pages; (\d+) were not there/.exec(text) ?? [];
    // Every page is read, and most blocks are hits: two workers may miss the same page at the same time.
    expect(Number(misses)).toBeGreaterThanOrEqual(Number(pages));
    expect(Number(misses)).toBeLessThanOrEqual(4 * Number(pages));
  });

  it('gives out IDs and ports, and takes back what a terminated worker had', async () => {
    const text = await output('ids-and-ports.mjs');
    expect(text).toContain('3000 IDs, 3000 different');
    const pairs = [...text.matchAll(/(\d+)\/(\d+)/g)].map(
      ([, first, second]) => [Number(first), Number(second)] as const,
    );
    expect(pairs).toHaveLength(3);
    expect(new Set(pairs.flat()).size).toBe(6);
    for (const [first, second] of pairs) expect([first % 2, second]).toEqual([0, first + 1]);
    expect(text).toContain('after one worker was terminated: 4 ports and 2000 IDs in use');
  });

  it('charges two tenants, and records what replays exactly', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'pagewright-example-'));
    const file = join(folder, 'leases.jsonl');
    try {
      const { stdout, stderr } = await run(process.execPath, ['examples/leases.mjs', file], { cwd: ROOT });
      expect(stderr).toBe('');
      expect(stdout).toMatch(/^red: 254 of 300, 3 refused\nblue: 174 of 200, 5 refused\n\d+ lines recorded\n$/);
      const replay = await run(process.execPath, ['dist/release/cli/main.js', 'replay', file], { cwd: ROOT });
      expect(replay.stdout).toMatch(/leases/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('computes in place with WebAssembly', async () => {
    expect(await output('wasm-in-place.mjs')).toMatch(/^bank 0, bytes \d+ to \d+: squared, and no others$/m);
  });

  it('passes numbers from one thread to another', async () => {
    expect(await output('ring.mjs')).toBe('100000 numbers went through 1024 places; their sum is right\n');
  });

  it('takes snapshots of live data', async () => {
    expect(await output('snapshot.mjs')).toBe(
      '5 of 5 snapshots show one instant each, while two workers were writing\n',
    );
  });

  it('loses no acknowledged transfer and no money when it is killed', async () => {
    expect(await output('wal.mjs')).toBe('every acknowledged transfer is there\nthe sum is right\n');
  });

  it('lists every program', () => {
    const list = readFileSync(join(ROOT, 'examples/README.md'), 'utf8');
    const programs = readdirSync(join(ROOT, 'examples')).filter((name) => name.endsWith('.mjs'));
    expect(programs.length).toBeGreaterThan(5);
    for (const program of programs) expect(list).toContain(`[${program}](${program})`);
  });
});
