/**
 * Reads a range of a resource again and again, as a worker of a system, or as a program of its own that is given the address
 * as its argument. Says whether the bytes are those that belong there.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { attach, boot, shutDown } from 'pagewright';
import { matches } from '../support/scratch.ts';

/** What a worker is told. */
export interface RemoteReaderData {
  readonly vm: unknown;
  readonly url: string;
  readonly seed: number;
  readonly offset: number;
  readonly length: number;
}

if (parentPort === null) {
  const vm = boot({ memory: '1 MiB', slots: 8 });
  try {
    const file = vm.openRemote(process.argv[2] as string);
    process.stdout.write(`${file.size} ${matches(file.read(0, file.size), 4, 0)}\n`);
    file.close();
  } catch (error) {
    process.stdout.write(`${error instanceof Error ? error.message : error}\n`);
  }
  await shutDown(vm);
} else {
  const { vm: handle, url, seed, offset, length } = workerData as RemoteReaderData;
  const vm = attach(handle);
  // Stays until it is terminated.
  parentPort.on('message', () => undefined);
  parentPort.postMessage({ slot: vm.slot });
  const file = vm.openRemote(url);
  parentPort.postMessage({ opened: true });
  parentPort.postMessage({ isRight: matches(file.read(offset, length), seed, offset) });
  file.close();
}
