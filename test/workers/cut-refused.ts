/** Writes its own pieces of a vnode and reads them again, or asks for cuts that are refused, until it is told to stop. Posts what it met. */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng } from 'pagewright/base';
import { add, load, wait } from 'pagewright/sync';

/** What a worker is told. */
export interface CutRefusedData {
  readonly vm: unknown;
  /** A file, or a vnode of the provider `stubborn` in this module. */
  readonly path: string;
  readonly providerUrl: string | null;
  /** 0 asks for cuts, the others write every piece whose number modulo `writers` is theirs less one. */
  readonly number: number;
  readonly writers: number;
  readonly seed: number;
  readonly pieceBytes: number;
  /** What each piece holds. */
  readonly pieces: Uint8Array;
  /** Lane 0: stop; the next ones: rounds of each worker. */
  readonly control: Int32Array;
}

/** What a worker says at the end. */
export interface CutRefusedReport {
  readonly wrong: readonly string[];
  /** Reads that met a file which was short at the time. */
  readonly short: number;
  readonly contended: number;
}

const { providerUrl, path, number, writers, pieceBytes, pieces, control, ...data } = workerData as CutRefusedData;
const vm = attach(data.vm);
parentPort?.postMessage({ slot: vm.slot });
/** Between two cuts. */
const REST_MS = 5;

const random = new Prng(data.seed, number);
const file =
  providerUrl === null
    ? vm.open(path, { mode: 'rw' })
    : vm.openProvided({ provider: { module: new URL(providerUrl), export: 'stubborn' }, name: path, mode: 'rw' });
const size = pieces.length * pieceBytes;
const wrong: string[] = [];
let short = 0;

function cut(): void {
  const to = random.below(size);
  try {
    file.truncate(to);
    wrong.push(`a cut to ${to} was not refused`);
  } catch (error) {
    if (!/injected|not a byte less/.test(String(error))) wrong.push(String(error));
  }
  // The others come in between.
  wait(control, 15, 0, REST_MS);
}

function look(piece: number): void {
  const bytes = file.read(piece * pieceBytes, pieceBytes);
  if (bytes.length < pieceBytes) short++;
  if (bytes.some((byte) => byte !== pieces[piece])) wrong.push(`piece ${piece}: ${[...new Set(bytes)]}`);
}

function write(): void {
  const piece = random.below(pieces.length / writers) * writers + number - 1;
  look(piece);
  const value = random.below(256);
  file.write(piece * pieceBytes, new Uint8Array(pieceBytes).fill(value));
  pieces[piece] = value;
  look(piece);
  if (random.chance(0.02)) file.sync();
}

while (load(control, 0) === 0 && wrong.length === 0) {
  if (number === 0) cut();
  else write();
  add(control, 1 + number, 1);
}
const contended = vm.region.tables.slot.contended.get(vm.slot);
file.close();
parentPort?.postMessage({ wrong, short, contended } satisfies CutRefusedReport);
vm.detach();
