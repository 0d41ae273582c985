/** One of several workers that map pages of one file at the same time. */

import { once } from 'node:events';
import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng } from 'pagewright/base';

/** What the worker is told. */
export interface HitWorkerData {
  readonly path: string;
  readonly bytes: number;
  readonly seed: number;
  /** Which pages, or none: arithmetic. */
  readonly kind: 'arithmetic' | 'disjoint pages' | 'same pages';
  readonly worker: number;
}

/** What it says after each round. */
export interface HitWorkerResult {
  readonly hits: number;
  readonly ms: number;
}

const PAGE = 4096;
const RUN_MS = 60;
const BATCH = 512;

if (parentPort !== null) {
  const port = parentPort;
  const { path, bytes, seed, kind, worker, vm: handle } = workerData as HitWorkerData & { vm: unknown };
  const vm = attach(handle);
  const file = vm.open(path);
  for (let at = 0; at < bytes; at += 32 * PAGE) file.map(at, 32 * PAGE).release();
  const random = new Prng(seed, kind === 'same pages' ? 0 : worker);
  const pages = bytes / PAGE;
  const own = kind === 'same pages' ? pages : pages / 2;
  const first = kind === 'same pages' ? 0 : worker * own;
  const offsets = Float64Array.from({ length: BATCH }, () => (first + random.below(own)) * PAGE);
  const pieces = new Float64Array(3);
  const { vnode } = file;
  let sum = 0;
  const batch = () => {
    if (kind === 'arithmetic') {
      for (let step = 0; step < 100 * BATCH; step++) sum = (Math.imul(sum, 31) + step) | 0;
      return;
    }
    for (let at = 0; at < BATCH; at++) {
      const count = vm.mappings.mapInto(vnode, offsets[at] as number, PAGE, pieces);
      vm.mappings.unmapFrom(pieces, count);
    }
  };
  port.postMessage('ready');
  for (;;) {
    const [order] = (await once(port, 'message')) as [string];
    if (order === 'end') break;
    const start = performance.now();
    let hits = 0;
    let ms = 0;
    while (ms < RUN_MS) {
      batch();
      hits += BATCH;
      ms = performance.now() - start;
    }
    port.postMessage({ hits, ms } satisfies HitWorkerResult);
  }
  file.close();
  vm.detach();
  port.close();
}
