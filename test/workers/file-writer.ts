/**
 * Writes a file in whose pages several workers have stripes, lengthens and cuts what lies behind, and syncs: until it is
 * told to stop, or ended at some point of it. Posts what it found wrong in its own stripes.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng } from 'pagewright/base';
import { load, store } from 'pagewright/sync';
import { BEHIND, STRIPE_BYTES } from '../support/file-stripes.ts';

/** What a writer is told. */
export interface FileWriterData {
  readonly vm: unknown;
  readonly path: string;
  readonly number: number;
  readonly writers: number;
  readonly seed: number;
  /** Word 0: stop when not 0. Word 1 + number: rounds done. */
  readonly control: Int32Array;
  /** By stripe: the value that it held, and the one that is being written. */
  readonly old: Uint8Array;
  readonly fresh: Uint8Array;
  /** True for a writer that also works behind the stripes. */
  readonly behind: boolean;
}

const data = workerData as FileWriterData;
const vm = attach(data.vm);
const random = new Prng(data.seed, data.number);
const file = vm.open(data.path, { mode: 'rw' });
const stripes = data.old.length;
const base = stripes * STRIPE_BYTES;
const wrong: string[] = [];
let rounds = 0;

function useStripe(): void {
  const stripe = random.below(Math.floor(stripes / data.writers)) * data.writers + data.number;
  const at = stripe * STRIPE_BYTES;
  const value = data.old[stripe] as number;
  const got = file.read(at, STRIPE_BYTES);
  if (!got.every((byte) => byte === value)) wrong.push(`round ${rounds}: stripe ${stripe} is not all ${value}`);
  const next = 1 + random.below(200);
  data.fresh[stripe] = next;
  if (file.write(at, new Uint8Array(STRIPE_BYTES).fill(next)) !== STRIPE_BYTES) wrong.push('a short write');
  data.old[stripe] = next;
}

function workBehind(): void {
  const choice = random.below(4);
  if (choice === 0) file.truncate(base + random.below(60_000));
  else if (choice === 1) file.append(new Uint8Array(random.below(9000)).fill(BEHIND));
  // Often whole pages, large ones too: those are made without reading them.
  else if (choice === 2) file.write(base + random.below(90_000), new Uint8Array(random.below(50_000)).fill(BEHIND));
  const got = file.read(base, 200_000);
  if (!got.every((byte) => byte === 0 || byte === BEHIND))
    wrong.push(`round ${rounds}: other bytes behind the stripes`);
}

parentPort?.postMessage({ slot: vm.slot });
try {
  while (load(data.control, 0) === 0 && wrong.length === 0) {
    useStripe();
    if (data.behind && random.chance(0.3)) workBehind();
    if (random.chance(0.03)) file.sync();
    store(data.control, 1 + data.number, ++rounds);
  }
  file.close();
  vm.detach();
} catch (error) {
  wrong.push(String((error as Error).stack));
}
parentPort?.postMessage({ wrong, rounds });
