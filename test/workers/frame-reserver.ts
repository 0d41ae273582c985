/**
 * Takes frames that were promised to its owner, or everything that it can get. What was promised must always be there; all of it
 * is signed and looked at again before it goes back.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng } from 'pagewright/base';
import type { PageList } from 'pagewright/phys';
import { add, load } from 'pagewright/sync';

const { seed, stop, refused, owner, promised, page } = workerData as {
  seed: number;
  stop: Int32Array;
  /** Lists that were refused, by all workers. */
  refused: Int32Array;
  owner: string;
  /** Frames promised to the owner; 0: takes what it can get. */
  promised: number;
  page: number;
};
const HELD_MAX = promised === 0 ? 64 : 8;

const vm = attach(workerData.vm);
const random = new Prng(seed, vm.slot);
const lists: { list: PageList; sign: number }[] = [];
let held = 0;
let served = 0;
let nextSign = 1;
vm.chargeTo(owner);
parentPort?.postMessage({ slot: vm.slot, attachment: vm.thread.attachment });

function eachFrame(list: PageList, action: (words: Int32Array, frame: number) => void): void {
  for (const { first, count } of list.runs) {
    for (let frame = first; frame < first + count; frame++) {
      const bytes = vm.banks.view(frame * page, page);
      action(new Int32Array(bytes.buffer, bytes.byteOffset, page / 4), frame);
    }
  }
}

function take(): void {
  const most = promised === 0 ? 60 : promised - held;
  const count = random.between(1, most);
  const list = vm.pageLists.tryAlloc({ size: count * page, segments: count });
  if (list === null && promised > 0) {
    const { free } = vm.frames.counts();
    throw new Error(`${count} of ${promised} promised frames refused, ${held} held, ${free} free; seed ${seed}`);
  }
  if (list === null) {
    add(refused, 0, 1);
    return;
  }
  const sign = nextSign++;
  eachFrame(list, (words) => {
    words[0] = vm.slot;
    words[1] = sign;
  });
  lists.push({ list, sign });
  held += count;
  served++;
}

function give(): void {
  const [{ list, sign }] = lists.splice(random.below(lists.length), 1) as [(typeof lists)[0]];
  eachFrame(list, (words, frame) => {
    if (words[0] === vm.slot && words[1] === sign) return;
    throw new Error(`frame ${frame} bears ${words[0]},${words[1]} instead of ${vm.slot},${sign}; seed ${seed}`);
  });
  vm.pageLists.free(list);
  held -= list.frameCount;
}

while (load(stop, 0) === 0) {
  const takes = lists.length < HELD_MAX && (promised === 0 || held < promised) && random.chance(0.6);
  if (takes) take();
  else if (lists.length > 0) give();
}
while (lists.length > 0) give();
const { contended } = vm.region.tables.slot;
parentPort?.postMessage({ served, contended: contended.get(vm.slot) });
vm.detach();
