/** The benches run, and say what they promise to say. No figure is judged here: machines differ. */

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { measure, median } from '../bench/harness.ts';
import { ROOT } from './tidy/sources.ts';

const run = promisify(execFile);

function bench(...args: string[]) {
  return run(process.execPath, ['build/bench/main.js', ...args], { cwd: ROOT });
}

describe('harness', () => {
  it('takes the middle value', () => {
    expect(median([5, 1, 3])).toBe(3);
    expect(median([4, 1, 3, 2])).toBe(2.5);
  });

  it('gives up at the deadline, and not before', () => {
    const nothing = (count: number) => count;
    expect(measure(nothing, performance.now() - 1)).toBeNull();
    let sum = 0;
    const ns = measure((count) => {
      for (let i = 0; i < count * 100; i++) sum = (Math.imul(sum, 31) + i) | 0;
      return sum;
    });
    expect(ns).toBeGreaterThan(1);
    expect(ns).toBeLessThan(100_000);
  });
});

describe('npm run bench', () => {
  it('names cases and peers of a bench when it is asked', async () => {
    const { stdout } = await bench('vpm', '--help');
    expect(stdout).toMatch(/Cases of vpm\n.*4 KiB hit/);
    expect(stdout).toMatch(/mmap-io .*if the binding is installed/);
  });

  it.each(['vmem', 'phys', 'seg', 'vpm'])('%s says that a filter lets nothing through', async (name) => {
    await expect(bench(name, '--filter', 'no such case')).rejects.toMatchObject({
      code: 1,
      stderr: `No case of ${name} has a name that contains "no such case".\n`,
    });
  });

  it('prints one object a line, for each peer, with the ratio', async () => {
    const { stdout } = await bench('vmem', '--json', '--filter', 'fixed, 16 quanta, 100 live', '--peer-ms', '1000');
    const lines = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines).toHaveLength(3);
    for (const line of lines) {
      expect(Object.keys(line)).toEqual(['bench', 'case', 'ns', 'peer', 'peerNs', 'ratio']);
      expect(line.bench).toBe('vmem');
      expect(line.ns).toBeGreaterThan(0);
      if (line.peerNs === null) expect(line.ratio).toBeNull();
      else expect(line.ratio / (line.peerNs / line.ns)).toBeCloseTo(1, 1);
    }
    expect(lines.map((line) => line.peer)).toEqual(['@thi.ng/malloc', 'malloc', null]);
    expect(lines[2].case).toBe('two workers, fixed, 16 quanta, 100 live');
  });

  it('says what is no time as a value: quantum caches leave the boundary tags alone', async () => {
    const { stdout } = await bench('vmem', '--json', '--filter', 'quantum cache, 64 quanta', '--peer-ms', '1');
    const lines = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines).toHaveLength(3);
    const { bench: name, case: what, value, unit, goal, met } = lines[2];
    expect([goal, met]).toEqual([{ atMost: 1 }, true]);
    expect(lines[0].goal).toEqual({ atMost: 80 });
    expect(lines[0].met).toBe(lines[0].ns <= 80);
    expect([name, what, unit]).toEqual([
      'vmem',
      'quantum cache, 64 quanta, boundary tags',
      'operations per 1000 pairs',
    ]);
    expect(value).toBeLessThan(1);
  });

  it('runs the pagelock cache, which ends empty and sound', async () => {
    const { stdout } = await bench('seg', '--json', '--filter', 'among 10 ranges');
    const lines = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines.map((line) => [line.bench, line.case, line.peer])).toEqual([
      ['seg', 'pin and release, hit among 10 ranges', 'private Map'],
    ]);
  });

  it('runs the page cache beside fs and private caches', async () => {
    const { stdout } = await bench('vpm', '--json', '--filter', '64 KiB hit, mapped', '--peer-ms', '1000');
    const lines = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines.map((line) => [line.bench, line.case, line.peer])).toEqual([
      ['vpm', '64 KiB hit, mapped', 'fs.readSync'],
      ['vpm', '64 KiB hit, mapped', 'lru-cache'],
    ]);
  });

  it('leaves a peer out that is too slow, with null', async () => {
    const { stdout } = await bench('vmem', '--json', '--filter', 'heap trace sqlite', '--peer-ms', '1');
    const lines = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines.map(({ peerNs, ratio }) => [peerNs, ratio])).toEqual([
      [null, null],
      [null, null],
    ]);
  });

  it('explains itself, and refuses what it does not know in one line', async () => {
    expect((await bench('--help')).stdout).toContain('vmem');
    expect((await bench('vmem', '--help')).stdout).toMatch(/quantum cache, 64 quanta, 1000 live\n.*heap of 699050\n/s);
    for (const [args, expected] of [
      [['dance'], /there is no bench dance; there are: vmem/],
      [['vmem', '--seed', 'x'], /--seed must be an integer/],
      [['vmem', '--loud'], /Unknown option '--loud'/],
    ] as const) {
      const failure = await bench(...args).catch((error: { code: number; stderr: string }) => error);
      expect(failure).toMatchObject({ code: 2 });
      expect(failure.stderr).toMatch(expected);
      expect(failure.stderr.trimEnd().split('\n')).toHaveLength(1);
    }
  });
});
