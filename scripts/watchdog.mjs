// Ends a process of tests that has been at one file for far too long, and names the file: a thread beside the tests does.
// The test runner's limits are timers of the thread that runs the tests: one that blocks in `Atomics.wait` for a partner that
// never comes, or spins, never sees them, and the whole run stands still. What is ended here has failed.

import { Worker } from 'node:worker_threads';
import { expect } from 'vitest';

// Minutes for one file of tests: many times what the longest takes on a busy machine.
const minutes = Number(process.env.PAGEWRIGHT_FILE_MINUTES ?? 15);

const program = `
  const { workerData: { file, minutes } } = require('node:worker_threads');
  setTimeout(() => {
    require('node:fs').writeSync(2, '\\n' + file + ' has run for ' + minutes + ' minutes: its process is ended\\n');
    process.kill(process.pid, 'SIGKILL');
  }, minutes * 60_000);
`;

const workerData = { file: expect.getState().testPath, minutes };
new Worker(program, { eval: true, workerData, execArgv: [] }).unref();
