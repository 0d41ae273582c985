/** `npm run fsx -- --ops N --seed S --workers N --memory SIZE`: the file exerciser, for as long as one likes. */

import { parseArgs } from 'node:util';
import { runFsx } from '../support/fsx-run.ts';

const { values } = parseArgs({
  options: {
    ops: { type: 'string', default: '1000000' },
    seed: { type: 'string', default: '1' },
    workers: { type: 'string', default: '2' },
    memory: { type: 'string', default: '1 MiB' },
    max: { type: 'string', default: '700000' },
  },
});
const options = {
  operations: Number(values.ops),
  seed: Number(values.seed),
  workers: Number(values.workers),
  memory: values.memory,
  maxBytes: Number(values.max),
};
const result = await runFsx({
  ...options,
  onProgress: (done) => process.stderr.write(`${done} of ${options.operations} operations\n`),
});
process.stdout.write(`${JSON.stringify({ ...options, ...result })}\n`);
process.exitCode = result.problems.length === 0 ? 0 : 1;
