import type { Worker } from 'node:worker_threads';
import { boot, type VirtualMemory } from 'pagewright';
import { Prng } from 'pagewright/base';
import { armFault, disarmFault, type FaultPoint, load, store, waitForParked } from 'pagewright/sync';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { blockUntil, blockUntilAllFree } from './support/all-free.ts';
import { shutDownBalanced } from './support/balance.ts';
import { nextMessage } from './support/chaos.ts';
import { Scratch } from './support/scratch.ts';
import { PATIENCE_MS, until } from './support/until.ts';
import type { ReaderData, ReaderResult } from './workers/page-reader.ts';

const program = new URL('../build/test/workers/page-reader.js', import.meta.url);
const SEED = Number(process.env.PAGEWRIGHT_SEED ?? 42);

let scratch: Scratch;
let vm: VirtualMemory;
let control: Int32Array;
let paths: string[];
let churned: string[];

/** A worker that reads, and what it says when it has stopped. */
interface Reader {
  readonly worker: Worker;
  readonly number: number;
  readonly slot: number;
  readonly result: Promise<ReaderResult>;
}

beforeEach(() => {
  scratch = new Scratch();
  churned = [];
  control = new Int32Array(new SharedArrayBuffer(4 * 64));
});

afterEach(async () => {
  disarmFault(vm.region);
  await shutDownBalanced(vm);
  scratch.remove();
});

function setUp(memory: string, fileCount: number, fileBytes: number, bankSize = '64 KiB', slotFrames = 0): void {
  vm = boot({ memory, bankSize, slots: 12, vnodes: fileCount + 1, physical: { slotFrames } });
  const random = new Prng(SEED);
  paths = Array.from({ length: fileCount }, (_, i) =>
    scratch.file(`file-${i}`, fileBytes + random.below(5000) - (i === 0 ? 0 : 2000), i),
  );
}

async function start(number: number, options: Partial<ReaderData> = {}): Promise<Reader> {
  const workerData = {
    paths,
    seed: SEED,
    control,
    reader: number,
    reopen: false,
    churn: false,
    heapBytes: 0,
    ...options,
  };
  // An earlier reader of this number may have left its steps.
  store(control, 1 + number, 0);
  const worker = vm.spawn(program, { workerData });
  const result = new Promise<ReaderResult>((resolve, reject) => {
    worker.on('message', (message) => 'steps' in message && resolve(message));
    worker.on('error', reject);
  });
  result.catch(() => undefined);
  const [{ slot }] = await nextMessage(worker);
  return { worker, number, slot, result };
}

/** Waits until a reader has done so many more steps. */
async function progress(reader: Reader, steps: number): Promise<void> {
  const target = load(control, 1 + reader.number) + steps;
  for (const end = performance.now() + PATIENCE_MS; performance.now() < end; ) {
    if (load(control, 1 + reader.number) >= target) return;
    if (vm.poisoned !== null) throw new Error(vm.poisoned);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await failIfEnded(reader);
  console.log(describeWaits());
  throw new Error(`reader ${reader.number} hangs at step ${load(control, 1 + reader.number)}`);
}

/** Throws with what a reader has said, if it has ended. */
async function failIfEnded(reader: Reader): Promise<void> {
  const ended = await Promise.race([reader.result, Promise.resolve(null)]);
  if (ended !== null) throw new Error(`reader ${reader.number} has stopped: ${JSON.stringify(ended)}`);
}

/** Who waits for what, for a failing test. */
function describeWaits(): string {
  const { slot: slots, page } = vm.region.tables;
  const lines: string[] = [];
  for (let slot = 0; slot < slots.rowCount; slot++) {
    const address = slots.waitAddress.get(slot) - 1;
    if (address < 0) continue;
    const frame = Math.floor((address - page.lock.base) / page.lock.stride);
    const where = frame >= 0 && frame < page.rowCount ? `page lock of frame ${frame}` : 'another word';
    lines.push(`slot ${slot} waits on ${address} (${where}), which holds ${vm.region.words[address]}`);
  }
  for (let frame = 0; frame < page.rowCount; frame++) {
    const words = [0, 1].map((lane) => page.lock.at(frame, lane));
    if (words.some((word) => word !== 0))
      lines.push(`frame ${frame} ${words} vnode ${page.vnode.get(frame)} state ${page.state.get(frame)}`);
  }
  return lines.join('\n');
}

/** Stops the readers and checks what they say. */
async function finish(readers: readonly Reader[]): Promise<ReaderResult[]> {
  store(control, 0, 1);
  const results = await Promise.all(readers.map((reader) => reader.result));
  for (const result of results) expect(result.mismatches).toEqual([]);
  await Promise.all(readers.map((reader) => reader.worker.terminate()));
  return results;
}

async function slotsLeft(count: number): Promise<void> {
  await until(() => vm.statistics().slots.length <= count, `more than ${count} slots are left`);
  expect(vm.statistics().slots.length).toBe(count);
}

/** Nothing is open or in use any more: all frames are free, and every bank is one run. */
async function endOracle(): Promise<void> {
  await slotsLeft(3);
  blockUntilAllFree(vm);
  expect(vm.vnodes.dropUnused()).toBe(0);
  vm.heap.trim();
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  const { frames, bankFrames } = vm.region.geometry;
  expect(vm.statistics().frames).toMatchObject({ free: frames, page: 0, run: 0 });
  // What slots keep for themselves would only change which bank comes next.
  vm.frames.caches.drain();
  for (let low = 0; low < frames; low += bankFrames)
    expect(vm.frames.takeRun(Math.min(bankFrames, frames - low))).toBe(low);
  for (let low = 0; low < frames; low += bankFrames) vm.frames.giveRun(low, Math.min(bankFrames, frames - low));
  expect(vm.statistics().owners[0]?.resources.lockedFrames.used).toBe(0);
}

function report(name: string, results: readonly ReaderResult[]): void {
  const { pages, slots } = vm.statistics();
  const steps = results.reduce((sum, result) => sum + result.steps, 0);
  const refused = results.reduce((sum, result) => sum + result.refused, 0);
  console.log(
    `${name}: seed ${SEED}, ${steps} steps, ${refused} refused, ${JSON.stringify(pages)}, slots ${slots.length}`,
  );
}

describe('the page cache under several threads', () => {
  it('gives two workers and ten times the memory in files, every byte right, one filling for both', async () => {
    setUp('1 MiB', 8, 1_400_000, '256 KiB');
    const readers = [await start(0), await start(1)];
    for (const reader of readers) await progress(reader, 1500);
    const results = await finish(readers);
    report('two workers', results);
    const { pages } = vm.statistics();
    expect(pages.evictions).toBeGreaterThan(1000);
    expect(pages.hits).toBeGreaterThan(0);
    await endOracle();
  });

  it('lets four workers on a few pages wait for each other, with the heap taking frames away', async () => {
    setUp('384 KiB', 4, 200_000);
    const readers = await Promise.all([0, 1, 2, 3].map((n) => start(n, { reopen: true, heapBytes: 20_000 })));
    for (const reader of readers) await progress(reader, 1000);
    await until(() => vm.statistics().pages.waits > 0, 'nobody waits for a page');
    const results = await finish(readers);
    report('four workers, 96 frames', results);
    expect(vm.statistics().pages.waits).toBeGreaterThan(0);
    await endOracle();
  });

  it('recycles vnodes while workers open and close more files than there are rows', async () => {
    setUp('512 KiB', 4, 60_000);
    paths = Array.from({ length: 12 }, (_, i) => scratch.file(`more-${i}`, 30_000 + i, i));
    // Each worker opens all its files at once, so each gets its share of the four rows.
    const readers = await Promise.all([0, 1].map((n) => start(n, { paths: paths.slice(0, 2), reopen: true })));
    for (const reader of readers) await progress(reader, 500);
    await finish(readers);
    await endOracle();
  });
});

/** Looks, 5 ms apart, after which a reader that has not moved counts as hanging. */
const STILL_MAX = 20_000;

/** Steps within which a reader must come past its fault point. */
const STEPS_MAX = 30_000;

const POINTS: readonly FaultPoint[] = [
  'page.fill.claimed',
  'page.fill.reading',
  'page.fill.read',
  'page.evict.claimed',
  'page.evict.unhashed',
  'page.drop.unhashed',
  'page.hit.held',
  'vnode.open.inserted',
  'vnode.recycle.dropped',
  'vpm.map.partial',
  'vpm.map.mapped',
  'phys.run.partial',
  'phys.run.marked',
];

describe('a worker that is terminated', () => {
  for (const point of POINTS) {
    it(`at ${point} leaves nothing behind, and the others go on`, async () => {
      setUp('256 KiB', 3, 120_000);
      const survivor = await start(0, { reopen: true, heapBytes: 5000 });
      for (let round = 0; round < 3; round++) {
        await killAt(point, 1 + round, round * 3);
        await progress(survivor, 100);
      }
      await finish([survivor]);
      await endOracleAfterKills();
    });
  }

  it('inside the cache of free frames of its slot leaves nothing behind, and the others go on', async () => {
    // A small one, so that it often runs empty and full.
    setUp('1 MiB', 3, 120_000, '64 KiB', 2);
    const survivor = await start(0, { reopen: true, heapBytes: 5000 });
    for (const [number, point] of (
      ['phys.cache.taken', 'phys.cache.filled', 'phys.cache.put', 'phys.cache.returned'] as const
    ).entries()) {
      await killAt(point, 1 + number, number);
      await progress(survivor, 50);
    }
    await finish([survivor]);
    expect(vm.frames.statistics().cacheFills).toBeGreaterThan(0);
    await endOracleAfterKills();
  });

  it('together with another, each holding what the other one needs, is recovered with it', async () => {
    setUp('256 KiB', 3, 120_000);
    const survivor = await start(0, { reopen: true });
    for (const [first, second] of [
      ['page.fill.reading', 'vnode.open.inserted'],
      ['vnode.open.inserted', 'page.fill.reading'],
      ['phys.run.partial', 'vnode.recycle.dropped'],
    ] as const) {
      const victims = [await startFor(first, 1), await startFor(second, 2)] as const;
      await park(victims[0], first, 2);
      await park(victims[1], second, 2);
      await Promise.all(victims.map((victim) => victim.worker.terminate()));
      await progress(survivor, 100);
    }
    await finish([survivor]);
    await endOracleAfterKills();
  });

  it('at random leaves nothing behind, and the others go on', async () => {
    setUp('512 KiB', 4, 150_000);
    const random = new Prng(SEED, 99);
    const options = { reopen: true, heapBytes: 2000 };
    let readers = await Promise.all([0, 1, 2].map((n) => start(n, options)));
    let kills = 0;
    const end = performance.now() + Number(process.env.PAGEWRIGHT_CHAOS_MS ?? 6000);
    while (performance.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, random.below(25)));
      const unlucky = random.pick(readers);
      unlucky.worker.terminate();
      kills++;
      const others = readers.filter((reader) => reader !== unlucky);
      await progress(others[0] as Reader, 3);
      readers = [...others, await start(unlucky.number, { ...options, seed: SEED + kills })];
    }
    const results = await finish(readers);
    report(`chaos, ${kills} kills`, results);
    await endOracleAfterKills();
  });
});

/** Starts a reader that will come past a point. */
function startFor(point: FaultPoint, number: number): Promise<Reader> {
  const churn = point.startsWith('vnode') || point.startsWith('phys.cache') || point === 'page.drop.unhashed';
  // Written once: who reads a file while it is written anew finds it too short, as it should.
  if (churn && churned.length === 0) churned = Array.from({ length: 6 }, (_, i) => scratch.file(`churn-${i}`, 9000, i));
  return start(number, churn ? { churn, paths: churned } : { heapBytes: 20_000 });
}

/** Lets a reader stop at a point for ever. */
async function park(victim: Reader, point: FaultPoint, skip: number): Promise<void> {
  armFault(vm.region, point, 'park', { skip, slot: victim.slot });
  expect(await parkedSlot(point, victim)).toBe(victim.slot);
  disarmFault(vm.region);
}

async function killAt(point: FaultPoint, number: number, skip: number): Promise<void> {
  const victim = await startFor(point, number);
  await park(victim, point, skip);
  await victim.worker.terminate();
}

/**
 * Waits for some slot to arrive at the armed point: as long as the reader that should goes on, but for too many steps. How long
 * these take says nothing on a machine that has other work.
 */
async function parkedSlot(point: FaultPoint, victim: Reader): Promise<number> {
  const { number } = victim;
  const from = load(control, 1 + number);
  let last = from;
  for (let still = 0; still < STILL_MAX; still++) {
    const slot = waitForParked(vm.region, 0);
    if (slot >= 0) return slot;
    if (vm.poisoned !== null) throw new Error(vm.poisoned);
    const steps = load(control, 1 + number);
    if (steps > from + STEPS_MAX)
      throw new Error(`reader ${number} made ${STEPS_MAX} steps and never came to ${point}`);
    if (steps !== last) still = 0;
    last = steps;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await failIfEnded(victim);
  console.log(describeWaits());
  throw new Error(`reader ${number} hangs at step ${last}, and should come to ${point}`);
}

/** What a killed worker had allocated from the heap stays allocated: it belongs to the program. */
async function endOracleAfterKills(): Promise<void> {
  await slotsLeft(3);
  blockUntil(
    () => vm.vnodes.dropUnused() === 0,
    () => 'vnodes are in use',
  );
  expect(vm.vnodes.dropUnused()).toBe(0);
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  for (const { address, size } of vm.heap.allocations()) vm.heap.xfree(address, size);
  await endOracle();
}
