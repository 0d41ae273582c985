/** `npm run bench -- NAME...`: runs benches by name. */

import { type Bench, Harness, parseBenchArguments } from './harness.ts';
import { physBench } from './phys.ts';
import { segBench } from './seg.ts';
import { vmemBench } from './vmem.ts';
import { vpmBench } from './vpm.ts';

const BENCHES: readonly Bench[] = [vmemBench, physBench, segBench, vpmBench];

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

const parsed = parseBenchArguments(process.argv.slice(2), BENCHES);
if ('text' in parsed) {
  (parsed.code === 0 ? process.stdout : process.stderr).write(parsed.text);
  process.exitCode = parsed.code;
} else {
  let matched = false;
  for (const name of parsed.names) {
    const bench = BENCHES.find((candidate) => candidate.name === name) as Bench;
    const harness = new Harness(name, parsed.options);
    harness.note(`${name}: ${bench.about}; Node.js ${process.version}, seed ${parsed.options.seed}`);
    await bench.run(harness);
    matched ||= harness.matched;
  }
  if (!matched) {
    const { filter } = parsed.options;
    process.stderr.write(`No case of ${parsed.names.join(', ')} has a name that contains ${JSON.stringify(filter)}.\n`);
    process.exitCode = 1;
  }
}
