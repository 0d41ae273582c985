/**
 * `npm run fsx -- --ops N --seed S --workers N,N --memory SIZE,SIZE --round N --log FILE`: the file exerciser, for as long as one
 * likes.
 *
 * A run is a row of rounds, each a system of its own with a seed of its own; where lists are given, the seed of a round
 * chooses from them. With `--log` every round that ends adds a line to a file, and rounds that the file has are passed over:
 * a run that was stopped goes on where it was.
 */

import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Prng, parseSize } from 'pagewright/base';
import type { ReplacementName } from 'pagewright/layout';
import { type FsxOptions, runFsx } from '../support/fsx-run.ts';

const HELP = `npm run fsx -- [options]

  --ops N              operations in all (1000000)
  --round N            operations of one round (500000)
  --seed S             seed of the first round; the next ones follow (1)
  --workers N,...      workers, chosen by each round's seed (1,2,3)
  --memory SIZE,...    memory ("256 KiB,1 MiB,4 MiB")
  --replacement P,...  clock, s3fifo, clockPro or queues (all)
  --page-size N,...    bytes of a page, where memory has 16 of them for each worker (4096,4096,8192,16384,65536)
  --async P,...        share of operations that use asynchronous forms, 0 to 1 (0,0.3)
  --max N              largest size of a file (700000)
  --folder PATH        where the files lie meanwhile (the system's folder for such things)
  --log FILE           adds a line for each round, and goes on where the file ends
`;

const { values } = parseArgs({
  options: {
    ops: { type: 'string', default: '1000000' },
    round: { type: 'string', default: '500000' },
    seed: { type: 'string', default: '1' },
    workers: { type: 'string', default: '1,2,3' },
    memory: { type: 'string', default: '256 KiB,1 MiB,4 MiB' },
    replacement: { type: 'string', default: 'clock,s3fifo,clockPro,queues' },
    'page-size': { type: 'string', default: '4096,4096,8192,16384,65536' },
    async: { type: 'string', default: '0,0.3' },
    max: { type: 'string', default: '700000' },
    folder: { type: 'string' },
    log: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});

/** What one round is, by its seed alone. */
function planOf(seed: number, operations: number): FsxOptions {
  const random = new Prng(seed, 0x665);
  const choose = (list: string) => random.pick(list.split(',')).trim();
  const workers = whole('workers', choose(values.workers));
  const memory = choose(values.memory);
  const pageSize = whole('page-size', choose(values['page-size']));
  const hasRoom = 16 * workers * pageSize <= parseSize(memory);
  return {
    operations,
    seed,
    workers,
    memory,
    pageSize: hasRoom ? pageSize : 4096,
    replacement: choose(values.replacement) as ReplacementName,
    maxBytes: whole('max', values.max),
    asyncShare: shareOf(choose(values.async)),
    ...(values.folder === undefined ? {} : { folder: values.folder }),
  };
}

function shareOf(text: string): number {
  const value = Number(text);
  if (!(value >= 0 && value <= 1)) throw new Error(`--async is a number from 0 to 1, not "${text}"`);
  return value;
}

function whole(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new Error(`--${name} is a whole number from 1 on, not "${text}"`);
  return value;
}

/** Operations of the rounds that a log has, by their seeds. */
function doneBefore(path: string | undefined): Map<number, number> {
  const lines = path !== undefined && existsSync(path) ? readFileSync(path, 'utf8').split('\n') : [];
  const rounds = lines.filter((line) => line !== '').map((line) => JSON.parse(line) as FsxOptions);
  return new Map(rounds.map(({ seed, operations }) => [seed, operations]));
}

async function main(): Promise<boolean> {
  const operations = whole('ops', values.ops);
  const done = doneBefore(values.log);
  let sum = 0;
  for (let seed = whole('seed', values.seed); sum < operations; seed++) {
    const before = done.get(seed);
    if (before !== undefined) {
      sum += before;
      continue;
    }
    const plan = planOf(seed, Math.min(whole('round', values.round), operations - sum));
    const at = sum;
    const onProgress = (now: number) => process.stderr.write(`${at + now} of ${operations} operations\n`);
    const result = await runFsx({ ...plan, onProgress });
    const line = JSON.stringify({ ...plan, ...result });
    process.stdout.write(`${line}\n`);
    if (result.problems.length > 0) return false;
    if (values.log !== undefined) appendFileSync(values.log, `${line}\n`);
    sum += result.operations;
  }
  process.stderr.write(`${sum} operations, no byte differs\n`);
  return true;
}

if (values.help) process.stdout.write(HELP);
else process.exitCode = (await main()) ? 0 : 1;
