/**
 * A worker of the file exerciser: a file of its own, a file that all take turns on, one in whose pages each has stripes, and
 * one that all append to. Posts how many operations it did, or what was wrong.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng } from 'pagewright/base';
import { compareExchange, load, notify, store, wait } from 'pagewright/sync';
import { Exerciser, emptyModel, type Model, type Opener } from '../support/fsx.ts';
import { type FsxPaths, RECORD_BYTES_MIN, STRIPE_BYTES } from '../support/fsx-run.ts';

/** What a worker is told. */
export interface FsxWorkerData {
  readonly vm: unknown;
  readonly number: number;
  readonly workers: number;
  readonly seed: number;
  readonly operations: number;
  readonly paths: FsxPaths;
  readonly maxBytes: number;
  /** Bytes of a page of the files. */
  readonly pageSize: number;
  /** Share of operations that use asynchronous forms. */
  readonly asyncShare: number;
  /** The model of the file that all take turns on, and the word that says whose turn it is. */
  readonly turns: Model;
  readonly turn: Int32Array;
  /** What this worker wrote into its stripes. */
  readonly stripes: Model;
  /** Word 0: operations done by this worker, for progress. */
  readonly progress: Int32Array;
  /** Not 0 when a worker found a lock taken, or has failed. */
  readonly met: Int32Array;
}

/** What a worker says at the end. */
export interface FsxReport {
  readonly done: number;
  readonly tally: Record<string, number>;
  readonly records: number;
  readonly contended: number;
  readonly failure: string | null;
}

/** Bytes of the heap that reads go to and writes come from. */
const BANK_BYTES = 8192;

const data = workerData as FsxWorkerData;
const vm = attach(data.vm);
const random = new Prng(data.seed, data.number + 1);
const options = { mode: 'rw', create: true, pageSize: data.pageSize } as const;
const opener = (path: string): Opener => ({
  open: () => vm.open(path, options),
  openAsync: () => vm.openAsync(path, options),
  asyncShare: data.asyncShare,
});
const address = vm.heap.alloc(BANK_BYTES);
const bank = { address, bytes: vm.banks.view(address, BANK_BYTES) };
const { pageSize, paths } = data;
const ownModel = emptyModel(data.maxBytes, false);
const own = new Exerciser(opener(paths.own), paths.own, ownModel, random, bank, pageSize);
const turns = new Exerciser(opener(paths.turns), paths.turns, data.turns, random, bank, pageSize);
const stripes = opener(paths.stripes).open();
const log = opener(paths.log).open();
const tally: Record<string, number> = {};
let records = 0;

function count(name: string): void {
  tally[name] = (tally[name] ?? 0) + 1;
}

/** True when the next operation shall be an asynchronous one. */
function awaitsNow(): boolean {
  return data.asyncShare > 0 && random.chance(data.asyncShare);
}

/** Runs while no other worker does. */
async function inTurn(action: () => Promise<void>): Promise<void> {
  while (compareExchange(data.turn, 0, 0, 1) !== 0) wait(data.turn, 0, 1, 1000);
  try {
    await action();
  } finally {
    store(data.turn, 0, 0);
    notify(data.turn, 0, 1);
  }
}

/** Writes or reads one of this worker's stripes; the pages are shared with the stripes of all others. */
async function useStripe(): Promise<void> {
  const { bytes, size } = data.stripes;
  const stripesMax = Math.floor(bytes.length / STRIPE_BYTES / data.workers);
  const stripe = random.below(stripesMax) * data.workers + data.number;
  const from = stripe * STRIPE_BYTES + random.below(STRIPE_BYTES);
  const length = random.between(1, (stripe + 1) * STRIPE_BYTES - from);
  if (random.chance(0.5)) {
    const end = Math.min(from + length, Math.max(from, stripes.size));
    const awaits = awaitsNow();
    const got = awaits ? await stripes.readAsync(from, end - from) : stripes.read(from, end - from);
    count(awaits ? 'stripeReadAsync' : 'stripeRead');
    if (Buffer.compare(got, bytes.subarray(from, end)) !== 0)
      throw new Error(`stripe ${stripe}: bytes at ${from} differ`);
    return;
  }
  const fresh = Uint8Array.from({ length }, () => random.next() & 255);
  const awaits = awaitsNow();
  const took = awaits ? await stripes.writeAsync(from, fresh) : stripes.write(from, fresh);
  if (took !== length) throw new Error('a stripe was written short');
  bytes.set(fresh, from);
  size[0] = Math.max(size[0] as number, from + length);
  count(awaits ? 'stripeWriteAsync' : 'stripeWrite');
  if (random.chance(0.01)) await (awaits ? stripes.syncAsync() : stripes.sync());
}

/** Appends a record: length, worker, sequence, and bytes that follow from them. */
async function appendRecord(): Promise<void> {
  const record = Buffer.alloc(RECORD_BYTES_MIN + random.below(200), data.number + 1);
  record.writeUInt32LE(record.length, 0);
  record.writeUInt32LE(data.number, 4);
  record.writeUInt32LE(records++, 8);
  const awaits = awaitsNow();
  const offset = awaits ? await log.appendAsync(record) : log.append(record);
  if (Buffer.compare(log.read(offset, record.length), record) !== 0) throw new Error(`the record at ${offset} differs`);
  count(awaits ? 'recordAsync' : 'record');
}

/** True when some worker found a lock taken, or there is only one. Many times as many operations are enough in any case. */
function met(): boolean {
  if (vm.region.tables.slot.contended.get(vm.slot) > 0) store(data.met, 0, 1);
  return data.workers === 1 || load(data.met, 0) === 1 || done > 20 * data.operations;
}

let done = 0;
let failure: string | null = null;
parentPort?.postMessage({ slot: vm.slot });
try {
  // Workers go on until one found a lock taken: on one processor that may take more operations.
  for (; done < data.operations || !met(); done++) {
    const choice = random.below(100);
    if (choice < 55) await own.step();
    else if (choice < 75) await inTurn(() => turns.step());
    else if (choice < 95) await useStripe();
    else await appendRecord();
    if (done % 64 === 0) store(data.progress, data.number, done);
  }
  await own.end();
  await inTurn(() => turns.end());
  stripes.sync();
  log.sync();
  stripes.close();
  log.close();
  vm.heap.free(address, BANK_BYTES);
} catch (error) {
  const { stack } = error as Error;
  store(data.met, 0, 1);
  failure = `worker ${data.number}, operation ${done} of seed ${data.seed}: ${stack ?? String(error)}`;
}
for (const one of [own.tally, turns.tally]) {
  for (const [name, times] of Object.entries(one)) tally[name] = (tally[name] ?? 0) + times;
}
const contended = vm.region.tables.slot.contended.get(vm.slot);
store(data.progress, data.number, done);
parentPort?.postMessage({ done, tally, records, contended, failure } satisfies FsxReport);
if (failure === null) vm.detach();
