import { expect, it } from 'vitest';
import { workerArguments } from './worker-arguments.ts';

it('leaves out what workers do not start with, and nothing else', () => {
  expect(workerArguments(['--conditions=verify', '--input-type=module', '--eval', 'x'])).toEqual([
    '--conditions=verify',
    '--eval',
    'x',
  ]);
  expect(workerArguments(['--input-type', 'module', '--expose-gc'])).toEqual(['--expose-gc']);
  expect(workerArguments()).toEqual(workerArguments(process.execArgv));
});
