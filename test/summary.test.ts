/** The summary of a run of tests: it names each test that needed a second attempt, and counts what failed outside of tests. */

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { ROOT } from './tidy/sources.ts';

// Below the root, so that `vitest` is found; a name that no run of all tests includes.
const folder = join(ROOT, 'build', `summary-${process.pid}`);

afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** The configuration of this repository for these test files. */
function prepare(files: Record<string, string>): string {
  mkdirSync(folder, { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  const config = join(folder, 'config.ts');
  writeFileSync(
    config,
    `import all from '${join(ROOT, 'vitest.config.ts')}';
     export default { ...all, test: { ...all.test, include: ['${folder}/*.test.mjs'] } };`,
  );
  return config;
}

/** Runs these test files, or some, as `.ci/run` does; the report, the status, the files that failed, and what was printed. */
function run(config: string, name: string, only: string[] = []) {
  const report = join(folder, `${name}.json`);
  const failed = join(folder, `${name}-failed`);
  const vitest = join(ROOT, 'node_modules', 'vitest', 'vitest.mjs');
  const reporters = [`--outputFile.json=${report}`, '--reporter=json', '--reporter=./scripts/failed-files.mjs'];
  const ended = spawnSync(
    process.execPath,
    [vitest, 'run', '--root', ROOT, '--config', config, ...reporters, ...only],
    {
      cwd: ROOT,
      encoding: 'utf8',
      env: { ...process.env, PAGEWRIGHT_FAILED_FILES: failed, PAGEWRIGHT_FILE_MINUTES: '0.2' },
    },
  );
  expect(existsSync(report), ended.stderr).toBe(true);
  const files = existsSync(failed) ? readFileSync(failed, 'utf8').trimEnd().split('\n').filter(Boolean) : [];
  return { report, status: String(ended.status), files, stderr: ended.stderr };
}

/** The lines of the summary and its status. */
function summary(...args: string[]) {
  const ended = spawnSync(process.execPath, [join(ROOT, 'scripts', 'summary.mjs'), ...args], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  return { lines: ended.stdout.trimEnd().split('\n'), status: ended.status };
}

/** Both for one run of these test files. */
function summarize(files: Record<string, string>) {
  const { report, status } = run(prepare(files), 'report');
  return summary(report, status);
}

const head = `import { afterAll, describe, expect, it } from 'vitest';\n`;

it('names what passed at the second attempt only, and what failed twice does not pass', () => {
  const flaky = `${head}
    let attempts = 0;
    describe('outer', () => {
      it('wavers', () => expect(++attempts).toBe(2));
      it('stands', () => expect(attempts).toBe(2));
    });`;
  const wavered = summarize({ 'a.test.mjs': flaky });
  expect(wavered.lines[0]).toMatch(/^passed at the second attempt: build\/summary-\d+\/a\.test\.mjs > outer > wavers$/);
  expect(wavered.lines[1]).toMatch(/at the first: AssertionError: expected 1 to be 2/);
  expect(wavered.lines.filter((line) => line.startsWith('passed at')).length).toBe(1);
  expect(wavered.lines.at(-1)).toBe('2 passed, 0 failed');
  expect(wavered.status).toBe(0);
  const failed = summarize({ 'a.test.mjs': flaky, 'b.test.mjs': `${head} it('falls', () => expect(1).toBe(2));` });
  expect(failed.lines.filter((line) => line.includes('falls'))).toEqual([]);
  expect(failed.lines.at(-1)).toBe('2 passed, 1 failed');
  expect(failed.status).toBe(1);
});

it('counts files and errors outside of tests', () => {
  const broken = summarize({
    'a.test.mjs': `${head} throw new Error('not loaded');`,
    'b.test.mjs': `${head} it('stands', () => {}); afterAll(() => { throw new Error('left a mess'); });`,
  });
  expect(broken.lines.at(-1)).toBe('1 passed, 2 failed');
  expect(broken.status).toBe(1);
  rmSync(folder, { recursive: true });
  const loose = summarize({
    'a.test.mjs': `${head} it('stands', () => { Promise.reject(new Error('nobody waits')); });`,
  });
  expect(loose.lines.at(-1)).toBe('1 passed, 1 failed');
  expect(loose.status).toBe(1);
  rmSync(folder, { recursive: true });
  const sound = summarize({ 'a.test.mjs': `${head} it('stands', () => {});` });
  expect(sound).toEqual({ lines: ['1 passed, 0 failed'], status: 0 });
});

it('names files that passed in a second run, and what ended or was thrown in the first', () => {
  const once = (action: string) => `${head}
    import { existsSync, writeFileSync } from 'node:fs';
    it('rests', async () => {
      const isAgain = existsSync(import.meta.filename + '.seen');
      writeFileSync(import.meta.filename + '.seen', '');
      if (!isAgain) ${action};
      await new Promise((resolve) => setTimeout(resolve, 50));
    });`;
  const config = prepare({
    'a.test.mjs': `${head} it('stands', () => {});`,
    'blocked.test.mjs': once('Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)'),
    'loose.test.mjs': once(`Promise.reject(new Error('nobody waits'))`),
  });
  const first = run(config, 'first');
  expect(first.status).not.toBe('0');
  expect(first.stderr).toMatch(/blocked\.test\.mjs has run for 0\.2 minutes: its process is ended/);
  const [blocked, loose] = ['blocked', 'loose'].map((name) => `build/summary-${process.pid}/${name}.test.mjs`);
  expect(first.files.sort()).toEqual([blocked, loose]);
  expect(summary(first.report, first.status).status).toBe(1);
  const second = run(config, 'second', first.files);
  expect(second.files).toEqual([]);
  const { lines, status } = summary(first.report, first.status, second.report, second.status);
  expect(lines.sort()).toEqual([
    '  at the first: an error outside of its tests, printed above',
    '  at the first: rests: it did not end',
    '3 passed, 0 failed',
    `passed at the second attempt: ${blocked}`,
    `passed at the second attempt: ${loose}`,
  ]);
  expect(status).toBe(0);
});

it('counts what failed in the second run as well', () => {
  const config = prepare({
    'a.test.mjs': `${head} it('stands', () => {});`,
    'b.test.mjs': `${head} it('falls', () => expect(1).toBe(2)); it('stays', () => {});`,
  });
  const first = run(config, 'first');
  expect(first.files).toEqual([`build/summary-${process.pid}/b.test.mjs`]);
  const second = run(config, 'second', first.files);
  expect(second.files).toEqual(first.files);
  expect(summary(first.report, first.status, second.report, second.status)).toEqual({
    lines: ['2 passed, 1 failed'],
    status: 1,
  });
});
