/** The summary of a run of tests: it names each test that needed a second attempt, and counts what failed outside of tests. */

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { ROOT } from './tidy/sources.ts';

// Below the root, so that `vitest` is found; a name that no run of all tests includes.
const folder = join(ROOT, 'build', `summary-${process.pid}`);

afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Runs these test files with the settings of this repository, as `.ci/run` does; the lines of the summary and its status. */
function summarize(files: Record<string, string>) {
  mkdirSync(folder, { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  const report = join(folder, 'report.json');
  const config = join(folder, 'config.ts');
  writeFileSync(
    config,
    `import all from '${join(ROOT, 'vitest.config.ts')}';
     export default { ...all, test: { ...all.test, include: ['${folder}/*.test.mjs'] } };`,
  );
  const vitest = join(ROOT, 'node_modules', 'vitest', 'vitest.mjs');
  const args = [vitest, 'run', '--root', ROOT, '--config', config, '--reporter=json', `--outputFile.json=${report}`];
  const run = spawnSync(process.execPath, args, { encoding: 'utf8' });
  expect(existsSync(report), run.stderr).toBe(true);
  const summary = spawnSync(process.execPath, [join(ROOT, 'scripts', 'summary.mjs'), report, String(run.status)], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  return { lines: summary.stdout.trimEnd().split('\n'), status: summary.status };
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
