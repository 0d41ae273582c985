/** Uses every form of reading and writing on a file that other threads have open. Posts what was wrong. */

import { once } from 'node:events';
import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { pattern } from '../support/scratch.ts';

/** What the worker is told. */
export interface FileFormsData {
  readonly vm: unknown;
  readonly path: string;
  readonly seed: number;
  /** Bytes that the main thread has put there. */
  readonly length: number;
  /** Where this worker writes. */
  readonly base: number;
}

const data = workerData as FileFormsData;
const vm = attach(data.vm);
const wrong: string[] = [];
const { seed, length, base } = data;

function same(what: string, bytes: Uint8Array | null, at: number, count: number, of = seed): void {
  const expected = pattern(of, at, count);
  if (bytes === null || Buffer.compare(bytes, expected) !== 0) wrong.push(what);
}

async function run(): Promise<void> {
  const file = vm.open(data.path, { mode: 'rw' });
  const { misses } = vm.statistics().pages;
  same('tryRead', file.tryRead(100, 5000), 100, 5000);
  same('read', file.read(200, 9000), 200, 9000);
  const target = new Uint8Array(7000);
  if (file.read(300, target) !== 7000) wrong.push('length of read');
  same('read into', target, 300, 7000);
  const parts = [new Uint8Array(10), new Uint8Array(5000), new Uint8Array(1)];
  if (file.readv(400, parts) !== 5011) wrong.push('length of readv');
  same('readv', Buffer.concat(parts), 400, 5011);
  using mapping = file.map(5000, 9000);
  same('map', Buffer.concat(mapping.views()), 5000, 9000);
  same('readAsync', await file.readAsync(600, 8000), 600, 8000);
  const whole: Uint8Array[] = [];
  for await (const bytes of file.chunks({ start: 0, end: length, chunkBytes: 5000 })) whole.push(bytes);
  same('chunks', Buffer.concat(whole), 0, length);
  const streamed: Uint8Array[] = [];
  for await (const bytes of file.readable({ start: 10, end: length })) streamed.push(bytes as Uint8Array);
  same('readable', Buffer.concat(streamed), 10, length - 10);
  if (vm.statistics().pages.misses !== misses) wrong.push('the pages of the other thread were read again');
  if (file.stat().path !== data.path) wrong.push('stat');

  const mine = (at: number, count: number) => pattern(seed + 1, base + at, count);
  if (file.write(base, mine(0, 5000)) !== 5000) wrong.push('write');
  if (file.writev(base + 5000, [mine(5000, 10), mine(5010, 4990)]) !== 5000) wrong.push('writev');
  if ((await file.writeAsync(base + 10_000, mine(10_000, 5000))) !== 5000) wrong.push('writeAsync');
  const stream = file.writable({ start: base + 15_000 });
  stream.end(mine(15_000, 5000));
  await once(stream, 'finish');
  const other = file.map(base + 20_000, 5000, 'write');
  let at = 20_000;
  for (const view of other.views()) {
    view.set(mine(at, view.length));
    at += view.length;
  }
  other.release();
  file.datasync();
  await file.syncAsync();
  await file.datasyncAsync();
  same('what was written', file.read(base, 25_000), base, 25_000, seed + 1);
  mapping.release();
  file.close();
  file.close();
}

run()
  .catch((error) => wrong.push(String(error)))
  .finally(() => {
    vm.detach();
    parentPort?.postMessage({ wrong });
  });
