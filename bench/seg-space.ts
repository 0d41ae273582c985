/**
 * Address spaces: a fork of 1 GiB and the first writes after it, against `structuredClone` and a plain copy; words and pages
 * through a space, beside a typed array over shared memory.
 */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { Harness } from './harness.ts';
import type { SpaceCaseData, SpaceCaseResult } from './seg-space-case.ts';

const GIB = 2 ** 30;

async function alone(data: SpaceCaseData): Promise<SpaceCaseResult> {
  const worker = new Worker(new URL('./seg-space-case.js', import.meta.url), { workerData: data });
  const [result] = (await once(worker, 'message')) as [SpaceCaseResult];
  await worker.terminate();
  return result;
}

/** Runs the cases that the filter wants. */
export async function runSpaces(harness: Harness): Promise<void> {
  const { seed } = harness.options;
  const first = 'store into a page, first after a fork';
  for (const [bytes, label] of [
    [64 * 2 ** 20, '64 MiB'],
    [GIB, '1 GiB'],
  ] as const) {
    const name = `fork of ${label}`;
    if (!harness.wants(name) && !harness.wants(first)) continue;
    const { fork, write, again } = await alone({ kind: 'fork', bytes, seed });
    const { clone } = await alone({ kind: 'clone', bytes, seed });
    const { copy } = await alone({ kind: 'copy', bytes, seed });
    harness.report(name, fork as number, [
      { peer: 'structuredClone', ns: clone as number },
      { peer: 'slice', ns: copy as number },
    ]);
    harness.report(`${first}, of ${label}`, write as number, [{ peer: 'the next one', ns: again as number }]);
  }
  const kinds = ['load', 'store', 'read', 'write'] as const;
  const names = ['load a word', 'store a word', 'read a page', 'write a page'] as const;
  if (!names.some((name) => harness.wants(`${name} through a space`))) return;
  const result = await alone({ kind: 'access', bytes: 0, seed });
  kinds.forEach((kind, at) => {
    const name = `${names[at]} through a space`;
    if (!harness.wants(name)) return;
    harness.report(name, result[`${kind}Space`] as number, [
      { peer: 'typed array', ns: result[`${kind}Array`] as number },
    ]);
  });
}
