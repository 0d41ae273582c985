/**
 * Has frames moved under everybody's feet: reads a file through the page cache, keeps movable cookies, makes runs, compacts, and
 * takes ranges of memory offline and back, while others do the same. Everything that it owns is signed and looked at.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng, VmError } from 'pagewright/base';
import type { Cookie, CookieMove, CookieMover } from 'pagewright/pmem';
import { compareExchange, load, store } from 'pagewright/sync';

const { seed, stop, busy, path, largePath, size, page } = workerData as {
  seed: number;
  stop: Int32Array;
  /** By row of a cookie: 0, slot + 1 of the thread that looks at its frames, or MOVING. */
  busy: Int32Array;
  path: string;
  /** A file with the same bytes, in pages of four frames. */
  largePath: string;
  size: number;
  page: number;
};
const MOVING = -1;
const HELD_MAX = 6;

const vm = attach(workerData.vm);
const random = new Prng(seed, vm.slot);
const cookies: { cookie: Cookie; sign: number }[] = [];
const runs: { first: number; count: number; sign: number }[] = [];
const done = { moves: 0, runs: 0, reads: 0, removals: 0, refused: 0, compactions: 0, waits: 0 };
let nextSign = 1;

const mover: CookieMover = {
  before: ({ cookie }: CookieMove) => compareExchange(busy, cookie.cookie, 0, MOVING) === 0,
  after({ cookie }: CookieMove, moved: boolean) {
    if (moved) done.moves++;
    store(busy, cookie.cookie, 0);
  },
};
vm.callbacks.register('test.mover', mover);
const file = vm.open(path);
const large = vm.open(largePath, { pageSize: 4 * page });
parentPort?.postMessage({ slot: vm.slot });

/** Looks at or signs the frames of a cookie while nobody moves them. */
function withCookie(cookie: Cookie, action: (frame: number) => void): void {
  const { moving } = vm.region.tables.pmemCookie;
  while (compareExchange(busy, cookie.cookie, 0, vm.slot + 1) !== 0) {
    // Whoever moved it may have died; its claim has ended then, and the mark is left.
    const mark = load(busy, cookie.cookie);
    if (mark !== 0 && moving.get(cookie.cookie) === 0) compareExchange(busy, cookie.cookie, mark, 0);
  }
  try {
    for (const frame of vm.pmem.getPfns(cookie, 0, cookie.frames)) action(frame);
  } finally {
    store(busy, cookie.cookie, 0);
  }
}

function put(frame: number, sign: number): void {
  const bytes = vm.banks.view(frame * page, page);
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, page / 4);
  words[0] = vm.slot;
  words[1] = sign;
  words[page / 4 - 1] = sign;
}

function look(frame: number, sign: number, what: string): void {
  const bytes = vm.banks.view(frame * page, page);
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, page / 4);
  if (words[0] === vm.slot && words[1] === sign && words[page / 4 - 1] === sign) return;
  throw new Error(`${what}: frame ${frame} bears ${words[0]},${words[1]} instead of ${vm.slot},${sign}; seed ${seed}`);
}

function takeCookie(): void {
  const cookie = vm.pmem.tryAlloc({
    size: random.between(1, 12) * page,
    contiguous: random.chance(0.3),
    movable: { export: 'test.mover' },
  });
  if (cookie === null) return;
  const sign = nextSign++;
  cookies.push({ cookie, sign });
  withCookie(cookie, (frame) => put(frame, sign));
}

function giveCookie(): void {
  const [{ cookie, sign }] = cookies.splice(random.below(cookies.length), 1) as [(typeof cookies)[0]];
  withCookie(cookie, (frame) => look(frame, sign, 'cookie'));
  vm.pmem.free(cookie);
}

function takeRun(waits: boolean): void {
  const { bankFrames, frames } = vm.region.geometry;
  // Where runs of this thread stand in all banks, none can be had as a whole: some wait for that.
  const banks = new Set(runs.map(({ first }) => Math.floor(first / bankFrames)));
  const waitsInVain = waits && banks.size === frames / bankFrames && random.chance(0.3);
  const count = waitsInVain ? bankFrames : random.between(2, 48);
  let first = -1;
  try {
    first = waits ? vm.frames.takeRunWait(count, { timeoutMs: 5 }) : vm.frames.tryTakeRun(count);
    if (waits) done.waits++;
  } catch (error) {
    // No bank is whole while a part of each is offline.
    const mayBe = error instanceof VmError && (error.code === 'ETIMEDOUT' || (waitsInVain && error.code === 'EINVAL'));
    if (!mayBe) throw error;
  }
  if (first < 0) return;
  const sign = nextSign++;
  runs.push({ first, count, sign });
  vm.frames.settle();
  done.runs++;
  for (let frame = first; frame < first + count; frame++) put(frame, sign);
}

function giveRun(): void {
  const [{ first, count, sign }] = runs.splice(random.below(runs.length), 1) as [(typeof runs)[0]];
  for (let frame = first; frame < first + count; frame++) look(frame, sign, 'run');
  vm.frames.giveRun(first, count);
}

function read(): void {
  const offset = random.below(size / page) * page;
  const bytes = (random.chance(0.3) ? large : file).read(offset, page);
  for (let at = 0; at < bytes.length; at += 97) {
    const position = offset + at;
    const wanted = (7 * 131 + position * 7 + (position >> 8) * 13 + (position >> 16) * 29) & 255;
    if (bytes[at] !== wanted) throw new Error(`file: byte ${position} is ${bytes[at]}, not ${wanted}; seed ${seed}`);
  }
  done.reads++;
}

function removeMemory(): void {
  const count = 32;
  const first = random.below(vm.region.geometry.frames / count) * count;
  try {
    vm.frames.offline(first, count, { timeoutMs: 0 });
    done.removals++;
    vm.frames.online(first, count);
  } catch (error) {
    if (!(error instanceof VmError) || (error.code !== 'EBUSY' && error.code !== 'EINVAL')) throw error;
    done.refused++;
  }
}

while (load(stop, 0) === 0) {
  const action = random.below(100);
  if (action < 50) for (let pages = 0; pages < 8; pages++) read();
  else if (action < 62 && cookies.length < HELD_MAX) takeCookie();
  else if (action < 72 && cookies.length > 0) giveCookie();
  else if (action < 82 && runs.length < HELD_MAX) takeRun(action < 75);
  else if (action < 93 && runs.length > 0) giveRun();
  else if (action < 96) removeMemory();
  else if (action < 98) {
    vm.frames.compact({ moves: 40 });
    done.compactions++;
  }
}
while (cookies.length > 0) giveCookie();
while (runs.length > 0) giveRun();
file.close();
large.close();
const { contended } = vm.region.tables.slot;
parentPort?.postMessage({ ...done, contended: contended.get(vm.slot) });
vm.detach();
