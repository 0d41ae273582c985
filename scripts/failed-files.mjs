// A reporter of the test runner: writes the files that failed to the file that PAGEWRIGHT_FAILED_FILES names, a line each: those
// with a failed test, those that did not end, and those in which an error was thrown outside of every test. Writes nothing when an
// error cannot be told from a file: then the whole run failed.

import { writeFileSync } from 'node:fs';
import { relative } from 'node:path';

// biome-ignore lint/style/noDefaultExport: the test runner looks for a reporter there
export default class FailedFiles {
  onTestRunEnd(modules, errors) {
    const ended = new Set(['passed', 'skipped']);
    const failed = new Set(modules.filter((module) => !ended.has(module.state())).map((module) => module.moduleId));
    const hasLost = modules.some((module) => module.state() === 'pending' || module.state() === 'queued');
    for (const { VITEST_TEST_PATH: path } of errors) {
      if (path !== undefined) failed.add(path);
      // The process of a file that did not end is what is missed then.
      else if (!hasLost) return;
    }
    const lines = [...failed].map((path) => `${relative(process.cwd(), path)}\n`);
    writeFileSync(process.env.PAGEWRIGHT_FAILED_FILES, lines.join(''));
  }
}
