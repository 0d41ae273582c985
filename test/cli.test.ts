/** The built command as a user meets it: a process with arguments, output, signals and an exit code. */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Prng } from '../src/base/index.ts';
import { PATIENCE_MS } from './support/until.ts';

const PROGRAM = fileURLToPath(new URL('../dist/release/cli/main.js', import.meta.url));

interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function start(args: readonly string[]): ChildProcess {
  return spawn(process.execPath, [PROGRAM, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
}

async function outcome(child: ChildProcess): Promise<Outcome> {
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, stdout, stderr };
}

function command(...args: string[]): Promise<Outcome> {
  return outcome(start(args));
}

interface RunReport {
  readonly ok: boolean;
  readonly files: number;
  readonly bytes: number;
  readonly listedBytes: number;
  readonly hitRate: number;
  readonly evictions: number;
  readonly mismatches: number;
  readonly checks: { structure: string; rounds: number; checked: number; problems: number }[];
  readonly mbPerSecond: number;
  readonly fsMbPerSecond: number;
  readonly changed: number;
  readonly skipped: { links: number; special: number };
  readonly errors: string[];
  readonly problems: string[];
  readonly memory: number;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Resolves when the command has files of the folder open; where that cannot be seen, after the time that it takes. */
async function reading(child: ChildProcess, path: string): Promise<void> {
  const descriptors = `/proc/${child.pid}/fd`;
  if (!existsSync(descriptors)) return sleep(3000);
  const isOpen = (name: string) => {
    try {
      return readlinkSync(join(descriptors, name)).startsWith(path);
    } catch {
      return false;
    }
  };
  for (const end = performance.now() + PATIENCE_MS; performance.now() < end && child.exitCode === null; ) {
    if (readdirSync(descriptors).some(isOpen)) return;
    await sleep(10);
  }
  throw new Error('the command has not begun to read');
}

let folder = '';

/** A folder of its own with files of seeded content. */
function makeFiles(name: string, sizes: readonly number[]): string {
  const path = join(folder, name);
  // A test that is tried again finds what it left.
  rmSync(path, { recursive: true, force: true });
  mkdirSync(path);
  const random = new Prng(17);
  sizes.forEach((size, index) => {
    writeFileSync(join(path, `file-${index}`), Buffer.from(Array.from({ length: size }, () => random.next() & 0xff)));
  });
  return path;
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'pagewright-cli-'));
});

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

describe('help', () => {
  it.each([
    [['--help'], 'pagewright run [PATH...]'],
    [['run', '--help'], '--memory SIZE'],
    [['run', '-h'], 'Exit code 0 only if every byte matched'],
    [['serve', '--help'], 'Usage: pagewright serve [DIR]'],
    [['replay', '--help'], 'Usage: pagewright replay FILE...'],
  ])('pagewright %j teaches', async (args, expected) => {
    const { code, stdout, stderr } = await command(...args);
    expect(code).toBe(0);
    expect(stdout).toContain(expected);
    expect(stdout.split('\n').every((line) => line.length <= 120)).toBe(true);
    expect(stderr).toBe('');
  });

  it('says its version', async () => {
    expect((await command('--version')).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});

describe('errors', () => {
  it.each([
    [[], /name a command/],
    [['walk'], /there is no command "walk"; there are: run, serve, replay/],
    [['run', '--fast'], /Unknown option '--fast'/],
    [['run', '--workers', 'many'], /--workers must be a whole number from 1 to 48, not "many"/],
    [['run', '--workers', '0'], /--workers must be a whole number/],
    [['run', '--seconds', '-1'], /--seconds must be a number of seconds from 0 to 1000000, not "-1"/],
    [['run', '--seed', '1.5'], /--seed must be a whole number/],
    [['run', '--memory', 'lots'], /--memory lots: .*must look like 4096/],
    [['run', '--memory', '1000'], /--memory 1000: .*multiple of pageSize/],
    [['run', '/nowhere/at/all'], /\/nowhere\/at\/all: there is no such file or folder/],
    [['replay'], /name at least one trace file/],
    [['replay', '/nowhere.jsonl'], /\/nowhere\.jsonl: /],
  ])('pagewright %j: one line and exit code 2', async (args, expected) => {
    const { code, stdout, stderr } = await command(...args);
    expect(code).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toMatch(expected);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  });

  it('wants at least one file', async () => {
    const { code, stderr } = await command('run', makeFiles('empty', []));
    expect(code).toBe(2);
    expect(stderr).toContain('no regular file');
  });
});

describe('run', () => {
  it('reads much more than its memory, verifies every byte, and says so as one object', async () => {
    const path = makeFiles('many', [0, 1, 4095, 4096, 4097, 700_000, ...Array.from({ length: 60 }, () => 400_000)]);
    const run = async (seconds: string) => {
      const args = ['run', '--json', '--memory', '2MiB', '--workers', '3', '--seconds', seconds, '--check', path];
      const { code, stdout, stderr } = await command(...args);
      expect(stderr).toBe('');
      const report = JSON.parse(stdout) as RunReport;
      return { code, report, most: Math.max(...report.checks.map(({ rounds }) => rounds)) };
    };
    let { code, report, most } = await run('2');
    // Where one pass takes all the time: once more, for longer.
    if (most < 2) ({ code, report, most } = await run('60'));
    expect(report).toMatchObject({ ok: true, files: 66, mismatches: 0, changed: 0, errors: [], problems: [] });
    expect(code).toBe(0);
    expect(report.memory).toBe(2 * 1024 * 1024);
    expect(report.listedBytes).toBeGreaterThan(10 * report.memory);
    expect(report.bytes).toBeGreaterThanOrEqual(report.listedBytes);
    expect(report.evictions).toBeGreaterThan(1000);
    expect(report.hitRate).toBeGreaterThan(0);
    expect(report.hitRate).toBeLessThan(1);
    expect(report.mbPerSecond).toBeGreaterThan(0);
    expect(report.fsMbPerSecond).toBeGreaterThan(0);
    expect(report.checks.length).toBeGreaterThan(3);
    expect(report.checks.every(({ problems, checked }) => problems === 0 && checked >= 0)).toBe(true);
    expect(most).toBeGreaterThanOrEqual(2);
  });

  it('prints a report that people can read', async () => {
    const path = makeFiles('few', [10_000, 200_000]);
    const { code, stdout } = await command('run', '--memory', '4MiB', '--seconds', '0.3', path);
    expect(code).toBe(0);
    expect(stdout).toContain('Every byte matched and every check passed.');
    for (const word of ['files', 'hit rate', 'evictions', 'throughput', 'plain fs', 'Arenas', 'Memory', 'Checks']) {
      expect(stdout).toContain(word);
    }
  });

  it('skips and counts what is no regular file', async () => {
    const path = makeFiles('odd', [5000]);
    symlinkSync(join(path, 'file-0'), join(path, 'link'));
    execFileSync('mkfifo', [join(path, 'pipe')]);
    const { code, stdout } = await command('run', '--json', '--seconds', '0', path);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ files: 1, skipped: { links: 1, special: 1 }, ok: true });
  });

  it('reports a file that changes as changed, not as a mismatch', async () => {
    const path = makeFiles('growing', [300_000, 300_000, 300_000]);
    const child = start(['run', '--json', '--memory', '8MiB', '--seconds', '3', path]);
    const done = outcome(child);
    for (let round = 0; child.exitCode === null; round++) {
      appendFileSync(join(path, 'file-0'), `more ${round}`);
      writeFileSync(join(path, 'file-1'), Buffer.alloc(300_000, round));
      await sleep(50);
    }
    const { code, stdout, stderr } = await done;
    expect(stderr).toBe('');
    expect(JSON.parse(stdout)).toMatchObject({ ok: true, mismatches: 0, changed: 2, errors: [] });
    expect(code).toBe(0);
  });

  it('does not call it a success when every file changed', async () => {
    const path = makeFiles('all-changing', [300_000, 300_000]);
    const child = start(['run', '--memory', '8MiB', '--seconds', '3', path]);
    const done = outcome(child);
    for (let round = 0; child.exitCode === null; round++) {
      for (const name of ['file-0', 'file-1']) appendFileSync(join(path, name), `more ${round}`);
      await sleep(20);
    }
    const { code, stdout } = await done;
    expect(stdout).toContain('Every file changed while it was read: nothing could be verified.');
    expect(code).toBe(1);
  });

  it('lets writers update scratch copies and verifies them, and leaves the files alone', async () => {
    const path = makeFiles('written', [400_000, 123_457, 4096, 10, 0]);
    const before = readFileSync(join(path, 'file-1'));
    const run = async (seconds: string) => {
      const args = ['run', '--write', '--json', '--memory', '1MiB', '--workers', '3', '--seconds', seconds, path];
      const { code, stdout, stderr } = await command(...args);
      expect(stderr).toBe('');
      return { code, ...JSON.parse(stdout) };
    };
    let { code, ok, written } = await run('1');
    if (written.writes <= 50 || written.writtenPages <= 50) ({ code, ok, written } = await run('60'));
    expect(written).toMatchObject({ files: 5, problems: [] });
    expect(written.writes).toBeGreaterThan(50);
    expect(written.writtenPages).toBeGreaterThan(50);
    expect([ok, code]).toEqual([true, 0]);
    expect(readFileSync(join(path, 'file-1')).equals(before)).toBe(true);
  });

  it('finds a mismatch, names the place, and exits with 1', async () => {
    // Content that changes behind a size and time that stay: what the cache holds is then not what plain fs reads.
    // Between a write and the reset of the time a file counts as changed; with many files some are not looked at then.
    const count = 40;
    const path = makeFiles('lying', new Array<number>(count).fill(50_000));
    const files = Array.from({ length: count }, (_, index) => join(path, `file-${index}`));
    for (const file of files) utimesSync(file, 1000, 1000);
    const run = async (seconds: string) => {
      const child = start(['run', '--memory', '16MiB', '--seconds', seconds, path]);
      const done = outcome(child);
      await reading(child, path);
      await sleep(500);
      for (let round = 0; child.exitCode === null && round < 20; round++) {
        for (const file of files) {
          writeFileSync(file, Buffer.alloc(50_000, round), { flag: 'r+' });
          utimesSync(file, 1000, 1000);
        }
        await sleep(100);
      }
      return done;
    };
    let { code, stdout } = await run('5');
    // Where one pass takes all the time, nothing is looked at twice: once more, for longer.
    if (!stdout.includes('FAILED')) ({ code, stdout } = await run('60'));
    expect(stdout).toContain('FAILED');
    expect(stdout).toMatch(/file-\d+: \d+ bytes at \d+: its checksums differ/);
    expect(code).toBe(1);
  });

  it.each(['SIGINT', 'SIGTERM'] as const)('stops within a second on %s and leaves nothing behind', async (signal) => {
    const path = makeFiles(`stop-${signal}`, [500_000, 500_000]);
    // Within a second: once, on a busy machine.
    let tookMs = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 10 && tookMs >= 1000; round++) {
      const child = start(['run', '--memory', '1MiB', '--workers', '4', '--seconds', '600', path]);
      const done = outcome(child);
      await reading(child, path);
      await sleep(500);
      const before = performance.now();
      child.kill(signal);
      const { code, stdout, stderr } = await done;
      tookMs = performance.now() - before;
      expect(code).toBe(signal === 'SIGINT' ? 130 : 143);
      expect(stdout).toBe('');
      expect(stderr).toContain('pagewright: interrupted\n');
    }
    expect(tookMs).toBeLessThan(1000);
  });

  it('is quiet when nobody reads its output', async () => {
    const path = makeFiles('pipe', [1000]);
    const child = start(['run', '--json', '--seconds', '0', path]);
    child.stdout?.destroy();
    const { code, stderr } = await outcome(child);
    expect(stderr).toBe('');
    expect(code).not.toBeNull();
  });
});

describe('replay', () => {
  const trace = fileURLToPath(new URL('golden/vmem/unittest-s101.jsonl.gz', import.meta.url));

  it('prints a line for each file', async () => {
    const plain = join(folder, 'plain.jsonl');
    writeFileSync(plain, gunzipSync(readFileSync(trace)));
    const { code, stdout, stderr } = await command('replay', trace, plain);
    expect(stderr).toBe('');
    expect(stdout.split('\n')).toEqual([
      expect.stringMatching(/^unittest-s101: \d+ operations, 0 mismatches/),
      expect.stringMatching(/^plain \(unittest\): \d+ operations, 0 mismatches/),
      '',
    ]);
    expect(code).toBe(0);
  });

  it('says where a result differs, what was expected, what came, and what the state is', async () => {
    const file = join(folder, 'differs.jsonl');
    const lines = gunzipSync(readFileSync(trace)).toString().split('\n');
    const at = lines.findIndex((line, index) => index > 20 && line.includes('"rc":0,"addr":'));
    lines[at] = (lines[at] as string).replace(/"addr":\d+/, '"addr":123456789');
    writeFileSync(file, lines.join('\n'));
    const { code, stdout } = await command('replay', file, trace);
    expect(code).toBe(1);
    expect(stdout).toContain(`line ${at + 1}: `);
    expect(stdout).toContain('expected: 123456789');
    expect(stdout).toMatch(/got: +\d+/);
    expect(stdout).toContain('arena "test"');
    expect(stdout).toMatch(/unittest-s101: \d+ operations, 0 mismatches/);
  });

  it.each([
    ['{"trace":"dance","version":1}', /unknown kind of trace "dance"/],
    ['{"trace":"vmem","version":99}', /unknown version 99 of vmem traces/],
    ['{"trace":"vmem","version":1}', /holds a header and no operations: there is nothing to replay/],
    ['{"trace":"heap","version":1,"operations":3}\n["a",0,48]\n["f",0]', /announces 3 operations, and it holds 2/],
    ['{"trace":"heap","version":1,"operations":3}', /holds a header and no operations/],
    ['{"trace":"vmem","version":1}\nnull', /line 2 is none of a vmem trace/],
    [
      '{"trace":"vmem","version":1}\n{"op":"create","arena":"a","base":0,"size":10,"quantum":1}',
      /line 2 is none of a vmem/,
    ],
    ['{"trace":"pmem","version":1}\n{"op":"alloc"}', /its header is none of a pmem trace/],
    ['{"trace":"vpm","version":1}\n{"op":"map"}', /its header is none of a vpm trace/],
    ['{"trace":"file","version":1}\n["r"]', /its header is none of a file trace/],
    ['no trace at all', /line 1 is no JSON/],
    ['[]', /the first line is no trace header/],
  ])('refuses %s in one line with exit code 2', async (text, expected) => {
    const file = join(folder, 'refused.jsonl');
    writeFileSync(file, `${text}\n`);
    const { code, stdout, stderr } = await command('replay', file);
    expect(code).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toMatch(expected);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  });
});
