/**
 * Pins parts of a space asynchronously: `rounds` times anywhere, comparing what it finds with what belongs there, or once when it is
 * told, or unmaps a range.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng, VmError } from 'pagewright/base';
import type { AddressSpaceId } from 'pagewright/seg';

const PAGE = 4096;

/** What the worker is given. */
export interface PinWaiterData {
  readonly space: AddressSpaceId;
  /** Where words lie that say which page they are in: `pages` pages. */
  readonly at: number;
  readonly pages: number;
  /** A range that comes and goes. */
  readonly loose: number;
  readonly seed: number;
}

/** What it is told. */
export type PinWaiterOrder =
  | { readonly rounds: number }
  | { readonly pin: readonly [number, number] }
  | { readonly unmap: readonly [number, number] }
  | { readonly end: true };

/** What it says of its rounds. */
export interface PinWaiterResult {
  readonly wrong: readonly string[];
  readonly pinned: number;
  readonly failed: Readonly<Record<string, number>>;
  readonly contended: number;
}

if (parentPort !== null && workerData?.space !== undefined) {
  const port = parentPort;
  const vm = attach(workerData.vm);
  const { space, at, pages, loose, seed } = workerData as PinWaiterData;
  const as = vm.addressSpace(space);
  const random = new Prng(seed);

  const roundsOf = async (rounds: number): Promise<PinWaiterResult> => {
    const wrong: string[] = [];
    const failed: Record<string, number> = {};
    let pinned = 0;
    for (let round = 0; round < rounds; round++) {
      const isLoose = random.chance(0.2);
      const count = random.between(1, 9);
      const first = random.below(pages - count);
      const start = isLoose ? loose : at + first * PAGE;
      try {
        const pin = await as.pinAsync(start, count * PAGE, random.chance(0.5) ? 'read' : 'write');
        const words = pin.views.flatMap((view) =>
          Array.from({ length: view.length / PAGE }, (_, page) => {
            const view32 = new Int32Array(view.buffer, view.byteOffset + page * PAGE, 1);
            return view32[0] as number;
          }),
        );
        const right = isLoose
          ? words.every((word) => word === 0)
          : words.every((word, page) => word === first + page + 1);
        if (!right) wrong.push(`pages ${first} to ${first + count}: ${words}`);
        pin.release();
        pinned++;
      } catch (error) {
        if (!(error instanceof VmError)) throw error;
        failed[error.code] = (failed[error.code] ?? 0) + 1;
      }
    }
    return { wrong, pinned, failed, contended: vm.region.tables.slot.contended.get(vm.slot) };
  };

  port.on('message', async (order: PinWaiterOrder) => {
    if ('rounds' in order) port.postMessage(await roundsOf(order.rounds));
    else if ('pin' in order) {
      (await as.pinAsync(...order.pin, 'read')).release();
      port.postMessage('pinned');
    } else if ('unmap' in order) {
      as.unmap(...order.unmap);
      port.postMessage('unmapped');
    } else {
      vm.detach();
      port.close();
    }
  });
  port.postMessage({ slot: vm.slot });
}
