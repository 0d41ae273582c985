/** One of several workers that read the same skewed load, through the page cache, a cache of its own, or none. */

import { once } from 'node:events';
import { openSync, readSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { lruReader, PAGE, zipfOffsets } from './vpm-case.ts';
import { loadMmap } from './vpm-mmap.ts';

/** What the worker is told. */
export interface ShareWorkerData {
  readonly path: string;
  readonly bytes: number;
  readonly memoryBytes: number;
  readonly seed: number;
  readonly subject: 'ours' | 'lru-cache' | 'fs.readSync' | 'mmap-io';
  readonly worker: number;
}

/** What it says after each round. */
export interface ShareResult {
  readonly reads: number;
  readonly ms: number;
  /** Bytes that its own cache holds. */
  readonly cachedBytes: number;
}

const RUN_MS = 60;
const BATCH = 256;

if (parentPort !== null) {
  const port = parentPort;
  const {
    path,
    bytes,
    memoryBytes,
    seed,
    subject,
    worker,
    vm: handle,
  } = workerData as ShareWorkerData & { vm?: unknown };
  const vm = subject === 'ours' ? attach(handle) : null;
  const file = vm?.open(path);
  const descriptor = openSync(path, 'r');
  const offsets = zipfOffsets(seed + worker, 1 << 17, bytes);
  const target = new Uint8Array(PAGE);
  const lru = lruReader(descriptor, PAGE, memoryBytes);
  const found = subject === 'mmap-io' ? await loadMmap() : '';
  const map = typeof found === 'string' ? null : found.map(descriptor, bytes, false);
  const cached = new Set<number>();
  const read = (offset: number): void => {
    if (file !== undefined) file.read(offset, target);
    else if (map !== null) target.set(map.subarray(offset, offset + PAGE));
    else if (subject === 'lru-cache') lru(offset).copy(target);
    else readSync(descriptor, target, 0, PAGE, offset);
  };
  let at = 0;
  const batch = () => {
    for (let i = 0; i < BATCH; i++) {
      read(offsets[at] as number);
      at = at + 1 === offsets.length ? 0 : at + 1;
    }
  };
  for (const offset of offsets) {
    read(offset);
    cached.add(offset);
  }
  const cachedBytes = subject === 'lru-cache' ? Math.min(cached.size * PAGE, memoryBytes) : 0;
  port.postMessage('ready');
  for (;;) {
    const [order] = (await once(port, 'message')) as [string];
    if (order === 'end') break;
    const start = performance.now();
    let reads = 0;
    let ms = 0;
    while (ms < RUN_MS) {
      batch();
      reads += BATCH;
      ms = performance.now() - start;
    }
    port.postMessage({ reads, ms, cachedBytes } satisfies ShareResult);
  }
  file?.close();
  vm?.detach();
  port.close();
}
