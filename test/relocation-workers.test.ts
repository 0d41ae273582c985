/** Frames that move under several workers: pages, cookies, runs, compaction, ranges that go offline, and deaths anywhere. */

import { boot, type VirtualMemory } from 'pagewright';
import { Prng } from 'pagewright/base';
import { FRAME_USE } from 'pagewright/phys';
import { type FaultPoint, ownerUsage, slotOfAttachment } from 'pagewright/sync';
import { afterEach, describe, expect, it } from 'vitest';
import { shutDownBalanced } from './support/balance.ts';
import { kill, killAt, nextMessage, start, until, type Victim } from './support/chaos.ts';
import { untilContended } from './support/contention.ts';
import { Scratch } from './support/scratch.ts';
import { testSeed } from './support/seed.ts';
import { PATIENCE_MS } from './support/until.ts';

const program = new URL('../build/test/workers/frame-mover.js', import.meta.url);
const PAGE = 4096;
const FRAMES = 1024;
const FILE_BYTES = 6 * 1024 * 1024;

let vm: VirtualMemory | undefined;
let scratch: Scratch;
const failures: Error[] = [];

afterEach(async () => {
  if (vm) await shutDownBalanced(vm);
  vm = undefined;
  scratch.remove();
  failures.length = 0;
});

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

interface Crew {
  readonly vm: VirtualMemory;
  readonly data: Record<string, unknown>;
  readonly stop: Int32Array;
  readonly seed: number;
}

function setUp(title: string): Crew {
  const seed = testSeed(title, 20261121);
  scratch = new Scratch();
  const physical = { slotFrames: 16 };
  vm = boot({ memory: FRAMES * PAGE, bankSize: (FRAMES * PAGE) / 2, slots: 12, physical, pmem: { largeFrames: 64 } });
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const busy = new Int32Array(new SharedArrayBuffer(4 * 4096));
  const path = scratch.file('pages', FILE_BYTES, 7);
  const largePath = scratch.file('large pages', FILE_BYTES, 7);
  return { vm, stop, seed, data: { stop, busy, path, largePath, size: FILE_BYTES, page: PAGE } };
}

async function begin(crew: Crew, number: number): Promise<Victim> {
  const victim = await start(crew.vm, program, { ...crew.data, seed: crew.seed + number });
  victim.worker.on('error', (error) => failures.push(error as Error));
  return victim;
}

async function finish(crew: Crew, workers: readonly Victim[]): Promise<Record<string, number>> {
  // A worker that failed has no more to say.
  expect(failures).toEqual([]);
  const messages = workers.map(({ worker }) => nextMessage(worker));
  crew.stop[0] = 1;
  const results = (await Promise.all(messages)).map(([message]) => message as Record<string, number>);
  await Promise.all(workers.map(({ worker }) => worker.terminate()));
  await until(() => crew.vm.statistics().slots.length === 3, 'the workers leave');
  const sums: Record<string, number> = {};
  for (const result of results)
    for (const [name, value] of Object.entries(result)) sums[name] = (sums[name] ?? 0) + value;
  return sums;
}

/** Gives back what a worker that was terminated had, before its slot has another owner: else the dead own all memory soon. */
function giveBackOf({ vm }: Crew, slot: number): void {
  const { pmem, frames, region } = vm;
  const { maker } = region.tables.pmemCookie;
  const left = pmem.cookies().find(({ cookie }) => slotOfAttachment(maker.get(cookie)) === slot);
  if (left !== undefined) pmem.freeOf(maker.get(left.cookie));
  for (let first = 0; first < FRAMES; first++) {
    if (frames.useOf(first) !== FRAME_USE.run || frames.takerOf(first) !== slot) continue;
    let end = first + 1;
    while (end % (FRAMES / 2) !== 0 && frames.useOf(end) === FRAME_USE.runRest) end++;
    frames.giveRun(first, end - first);
  }
}

/** What dead workers left goes back here, memory that they took offline comes online, and then all of it is free. */
function endOracle(crew: Crew): void {
  const { pmem, pageLists: lists, frames, region } = crew.vm;
  const problems = () => crew.vm.check().flatMap((report) => report.problems);
  expect(failures).toEqual([]);
  expect(crew.vm.poisoned).toBeNull();
  expect(problems()).toEqual([]);
  for (const cookie of pmem.cookies()) pmem.free(cookie);
  for (let first = 0; first < FRAMES; first++) {
    const use = frames.useOf(first);
    let end = first + 1;
    if (use === FRAME_USE.run) {
      while (end % (FRAMES / 2) !== 0 && frames.useOf(end) === FRAME_USE.runRest) end++;
      frames.giveRun(first, end - first);
    } else if (use === FRAME_USE.absent) {
      while (end < FRAMES && frames.useOf(end) === FRAME_USE.absent) end++;
      frames.online(first, end - first);
    }
  }
  expect(pmem.statistics()).toMatchObject({ cookies: 0, reserved: 0 });
  expect(ownerUsage(region)[0]?.resources.lockedFrames.used).toBe(0);
  expect(lists.outstanding).toBe(0);
  expect(frames.core.queue.count).toBe(0);
  const { total, absent, free, page } = frames.counts();
  expect([absent, free + page]).toEqual([0, total]);
  // The pagedaemon may hold a page for a moment: then the other bank comes first.
  const banks = [0, 1].map(() => frames.takeRunWait(FRAMES / 2, { timeoutMs: PATIENCE_MS }));
  expect(banks.sort((one, other) => one - other)).toEqual([0, FRAMES / 2]);
  for (let low = 0; low < FRAMES; low += FRAMES / 2) frames.giveRun(low, FRAMES / 2);
  expect(frames.counts().free).toBe(FRAMES);
  expect(problems()).toEqual([]);
}

describe('frames that move under several workers', () => {
  it('keep what is in them', async () => {
    const crew = setUp('moving frames');
    const workers = await Promise.all([0, 1, 2].map((number) => begin(crew, number)));
    await pause(2000);
    await untilContended(crew.vm, workers);
    await until(() => crew.vm.frames.statistics().moved > 0, 'no frame moves');
    const sums = await finish(crew, workers);
    const { moved, reclaimed, pinned, assembled } = crew.vm.frames.statistics();
    console.log(JSON.stringify({ ...sums, moved, reclaimed, pinned, assembled }));
    expect(sums.contended).toBeGreaterThan(0);
    expect(moved).toBeGreaterThan(0);
    endOracle(crew);
  });

  it('keep what is in them when workers are terminated, at fault points and at random', async () => {
    const crew = setUp('moving frames and deaths');
    const random = new Prng(crew.seed);
    const points: FaultPoint[] = [
      'phys.run.partial',
      'phys.run.marked',
      'phys.compact.moved',
      'phys.removal.taken',
      'phys.removal.leaving',
      'phys.removal.cancelling',
      'phys.list.waiting',
      'pmem.move.claimed',
      'pmem.move.copied',
      'pmem.move.giving',
      'pmem.move.done',
      'page.relocate.copied',
      'page.relocate.moved',
    ];
    let workers = await Promise.all([1, 2, 3].map((number) => begin(crew, number)));
    for (const [death, point] of points.entries()) {
      const dead = await killAt(crew.vm, point, workers);
      workers = workers.filter((worker) => worker !== dead);
      await pause(random.between(0, 20));
      giveBackOf(crew, dead.slot);
      if (death % 3 === 0) {
        const other = workers.shift() as Victim;
        await kill(crew.vm, other);
        giveBackOf(crew, other.slot);
      }
      while (workers.length < 3) workers.push(await begin(crew, 100 + death * 10 + workers.length));
      expect(failures).toEqual([]);
    }
    const sums = await finish(crew, workers);
    console.log(`${points.length} points; survivors: ${JSON.stringify(sums)}`);
    endOracle(crew);
  });
});
