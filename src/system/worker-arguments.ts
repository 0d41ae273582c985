/** Node.js options that workers start with. */

import process from 'node:process';

/**
 * Those of this thread but for `--input-type`, which says what `--eval` is given: workers run files, and do not start with it.
 */
export function workerArguments(given: readonly string[] = process.execArgv): string[] {
  return given.filter((option, at) => !option.startsWith('--input-type') && given[at - 1] !== '--input-type');
}
