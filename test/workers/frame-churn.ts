/**
 * Takes and gives back page lists, single frames and cookies as fast as it can. Every frame is signed while it is taken, and
 * the signature must still be there when it goes back.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng } from 'pagewright/base';
import type { PageList } from 'pagewright/phys';
import type { Cookie } from 'pagewright/pmem';
import { load } from 'pagewright/sync';

const { seed, stop, page } = workerData as { seed: number; stop: Int32Array; page: number };
const HELD_MAX = 12;

const vm = attach(workerData.vm);
const random = new Prng(seed, vm.slot);
const lists: { list: PageList; sign: number }[] = [];
const cookies: { cookie: Cookie; sign: number }[] = [];
const singles: { frame: number; sign: number }[] = [];
let nextSign = 1;
let operations = 0;
parentPort?.postMessage({ slot: vm.slot });

function wordOf(frame: number): DataView {
  const bytes = vm.banks.view(frame * page, 8);
  return new DataView(bytes.buffer, bytes.byteOffset, 8);
}

function sign(frames: Iterable<number>): number {
  const signature = nextSign++;
  for (const frame of frames) {
    wordOf(frame).setInt32(0, vm.slot, true);
    wordOf(frame).setInt32(4, signature, true);
  }
  return signature;
}

function verify(frames: Iterable<number>, signature: number): void {
  for (const frame of frames) {
    const found = [wordOf(frame).getInt32(0, true), wordOf(frame).getInt32(4, true)];
    if (found[0] === vm.slot && found[1] === signature) continue;
    throw new Error(`frame ${frame} bears ${found} instead of ${vm.slot},${signature}; seed ${seed}`);
  }
}

function* framesOf(list: PageList): Iterable<number> {
  for (const { first, count } of list.runs) for (let frame = first; frame < first + count; frame++) yield frame;
}

function takeList(): void {
  const count = random.between(1, random.chance(0.1) ? 100 : 16);
  const segments = random.pick([1, 1, 3, count]);
  const list = vm.pageLists.tryAlloc({ size: count * page, segments, alignment: page * random.pick([1, 1, 4]) });
  if (list !== null) lists.push({ list, sign: sign(framesOf(list)) });
}

function giveList(): void {
  const [{ list, sign: signature }] = lists.splice(random.below(lists.length), 1) as [(typeof lists)[0]];
  verify(framesOf(list), signature);
  vm.pageLists.free(list);
}

function takeCookie(): void {
  const count = random.between(1, random.chance(0.2) ? 90 : 12);
  const cookie = vm.pmem.tryAlloc({ size: count * page, contiguous: random.chance(0.2) });
  if (cookie !== null) cookies.push({ cookie, sign: sign(vm.pmem.getPfns(cookie, 0, cookie.frames)) });
}

function giveCookie(): void {
  const [{ cookie, sign: signature }] = cookies.splice(random.below(cookies.length), 1) as [(typeof cookies)[0]];
  verify(vm.pmem.getPfns(cookie, 0, cookie.frames), signature);
  vm.pmem.free(cookie);
}

function takeSingle(): void {
  const frame = vm.pageLists.tryTakeFrame();
  if (frame >= 0) singles.push({ frame, sign: sign([frame]) });
}

function giveSingle(): void {
  const [{ frame, sign: signature }] = singles.splice(random.below(singles.length), 1) as [(typeof singles)[0]];
  verify([frame], signature);
  vm.pageLists.giveFrame(frame);
}

while (load(stop, 0) === 0) {
  const action = random.below(100);
  if (action < 20 && lists.length < HELD_MAX) takeList();
  else if (action < 40 && lists.length > 0) giveList();
  else if (action < 58 && cookies.length < HELD_MAX) takeCookie();
  else if (action < 76 && cookies.length > 0) giveCookie();
  else if (action < 87 && singles.length < HELD_MAX) takeSingle();
  else if (action < 98 && singles.length > 0) giveSingle();
  else if (action === 99) vm.pmem.trim();
  operations++;
}
while (lists.length > 0) giveList();
while (cookies.length > 0) giveCookie();
while (singles.length > 0) giveSingle();
const { contended } = vm.region.tables.slot;
parentPort?.postMessage({ operations, contended: contended.get(vm.slot) });
vm.detach();
