/** Writes a file, syncs it, and gives up what was written, all at random: with others who do the same. Posts what it did. */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng } from 'pagewright/base';
import { add, load } from 'pagewright/sync';

/** What a worker is told. */
export interface DiscarderData {
  readonly vm: unknown;
  readonly path: string;
  readonly seed: number;
  readonly rounds: number;
  readonly bytes: number;
  /** Workers that found a lock taken: they go on until there is one. */
  readonly met: Int32Array;
}

/** What a worker says at the end. */
export interface DiscarderReport {
  readonly given: number;
  readonly contended: number;
}

const data = workerData as DiscarderData;
const vm = attach(data.vm);
parentPort?.postMessage({ slot: vm.slot });
const random = new Prng(data.seed, 3);
const file = vm.open(data.path, { mode: 'rw' });
const { contended } = vm.region.tables.slot;
let given = 0;
let met = false;
for (let round = 0; round < data.rounds || load(data.met, 0) === 0; round++) {
  if (!met && contended.get(vm.slot) > 0) {
    met = true;
    add(data.met, 0, 1);
  }
  const offset = random.below(data.bytes);
  const length = random.between(1, Math.min(data.bytes - offset, 30_000));
  const choice = random.below(10);
  if (choice < 6) file.write(offset, new Uint8Array(length).fill(random.below(256)));
  else if (choice < 8) given += file.discard(offset, length);
  else if (choice < 9) file.read(offset, length);
  else file.sync();
}
given += file.discard();
file.close();
parentPort?.postMessage({ given, contended: contended.get(vm.slot) } satisfies DiscarderReport);
vm.detach();
