/** Pages of one file in several workers: read, written, written back, moved, evicted, retired; workers end anywhere. */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { boot, type VirtualMemory } from 'pagewright';
import { FRAME_USE } from 'pagewright/phys';
import { armFault, disarmFault, type FaultPoint, load, store, waitForParked } from 'pagewright/sync';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { blockUntilAllFree } from './support/all-free.ts';
import { shutDownBalanced } from './support/balance.ts';
import { killAt, start, until, type Victim } from './support/chaos.ts';
import { Scratch } from './support/scratch.ts';
import { PATIENCE_MS } from './support/until.ts';
import { type ChurnResult, stampPage, VERSIONS, versionOf } from './workers/page-churn.ts';

const program = new URL('../build/test/workers/page-churn.js', import.meta.url);
const SEED = Number(process.env.PAGEWRIGHT_SEED ?? 20);
const PAGE = 4096;
const PAGES = 150;
const WORKERS = 3;

let scratch: Scratch;
let vm: VirtualMemory;
let path: string;
let control: Int32Array;

beforeEach(() => {
  scratch = new Scratch();
  path = join(scratch.directory, 'churned');
  const contents = new Uint8Array(PAGES * PAGE);
  for (let index = 0; index < PAGES; index++) stampPage(contents.subarray(index * PAGE, (index + 1) * PAGE), index, 0);
  writeFileSync(path, contents);
  control = new Int32Array(new SharedArrayBuffer(4 * (VERSIONS + PAGES)));
  vm = boot({ memory: '384 KiB', bankSize: '192 KiB', slots: 10, vnodes: 4 });
  vm.frames.watermarks.set({ freeMin: 6, freeTarget: 10, desiredFree: 12, lotsFree: 16 });
});

afterEach(async () => {
  await shutDownBalanced(vm);
  scratch.remove();
});

/** A worker and what it says when it has stopped. */
interface Churner extends Victim {
  readonly number: number;
  readonly attachment: number;
  readonly result: Promise<ChurnResult>;
}

async function churn(number: number, seed = SEED): Promise<Churner> {
  const workerData = { path, pages: PAGES, number, workers: WORKERS, seed, control };
  const victim = await start<{ attachment: number }>(vm, program, workerData);
  const result = new Promise<ChurnResult>((resolve, reject) => {
    victim.worker.on('message', (message) => 'steps' in message && resolve(message));
    victim.worker.on('error', reject);
  });
  result.catch(() => undefined);
  return { ...victim, number, result };
}

/** Waits until every worker has done so many more steps. */
async function progress(churners: readonly Churner[], steps: number): Promise<void> {
  const targets = churners.map(({ number }) => load(control, 1 + number) + steps);
  await until(
    () => {
      if (vm.poisoned !== null) throw new Error(vm.poisoned);
      return churners.every(({ number }, i) => load(control, 1 + number) >= (targets[i] as number));
    },
    `steps ${[...control.subarray(1, 1 + WORKERS)]}, not ${targets}`,
  );
}

/** Stops the workers; what they say must be right. */
async function finish(churners: readonly Churner[]): Promise<ChurnResult[]> {
  store(control, 0, 1);
  const results = await Promise.all(churners.map(({ result }) => result));
  for (const { wrong } of results) expect(wrong).toEqual([]);
  await until(() => vm.statistics().slots.length === 3, 'slots are left');
  return results;
}

/** The file has every version that was acknowledged, byte for byte; all frames are free and each bank one run. */
function endOracle(): void {
  const file = vm.open(path, { mode: 'rw' });
  file.sync();
  expect(vm.pages.modifiedOf(file.vnode)).toBe(0);
  const contents = readFileSync(path);
  for (let index = 0; index < PAGES; index++) {
    const bytes = Uint8Array.from(contents.subarray(index * PAGE, (index + 1) * PAGE));
    expect([index, versionOf(bytes, index)]).toEqual([index, expect.any(Number)]);
    expect(versionOf(bytes, index)).toBeGreaterThanOrEqual(load(control, VERSIONS + index));
    expect(file.read(index * PAGE, PAGE)).toEqual(bytes);
  }
  file.close();
  blockUntilAllFree(vm);
  expect(vm.vnodes.dropUnused()).toBe(0);
  vm.heap.trim();
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  const { frames, bankFrames } = vm.region.geometry;
  expect(vm.statistics().frames).toMatchObject({ free: frames, page: 0, run: 0, list: 0 });
  for (let low = 0; low < frames; low += bankFrames) expect(vm.frames.takeRun(bankFrames)).toBe(low);
  for (let low = 0; low < frames; low += bankFrames) vm.frames.giveRun(low, bankFrames);
}

describe('workers that churn the pages of a file', () => {
  it('lose no version and no frame while pages are written back, moved, evicted and retired', async () => {
    const churners = [await churn(0), await churn(1), await churn(2)];
    await progress(churners, Number(process.env.PAGEWRIGHT_CHURN_STEPS ?? 1500));
    const kinds = ['evictions', 'writtenPages', 'created', 'relocations', 'retired', 'reclaimed'] as const;
    while (kinds.some((kind) => vm.statistics().pages[kind] === 0)) await progress(churners, 100);
    const results = await finish(churners);
    const { pages, pagedaemon, slots } = vm.statistics();
    const sum = (key: 'steps' | 'runs' | 'lists') => results.reduce((total, result) => total + result[key], 0);
    console.log(
      `churn: seed ${SEED}, ${sum('steps')} steps, ${sum('runs')} runs, ${sum('lists')} lists, ${JSON.stringify(pages)}, ` +
        `rounds ${pagedaemon.rounds}, freed ${pagedaemon.freed}, slots left ${slots.length}`,
    );
    expect(sum('runs')).toBeGreaterThan(10);
    expect(sum('lists')).toBeGreaterThan(10);
    expect(pagedaemon.rounds).toBeGreaterThan(0);
    endOracle();
  });

  it('may end at every place where pages are modified, written back, moved or retired', async () => {
    const points: readonly FaultPoint[] = [
      'page.modify.listed',
      'page.write.claimed',
      'page.write.stored',
      'page.write.finished',
      'page.create.filled',
      'page.relocate.copied',
      'page.relocate.moved',
      'page.cache.listed',
      'page.cache.unlisted',
    ];
    let churners = [await churn(0), await churn(1), await churn(2)];
    for (const [round, point] of points.entries()) {
      // The daemon worker writes and moves pages, too: it is not meant.
      const { slot } = churners[round % WORKERS] as Churner;
      const victim = await killAt(vm, point, churners, { skip: round % 3, slot });
      const others = churners.filter(({ slot }) => slot !== victim.slot);
      const dead = churners.find(({ slot }) => slot === victim.slot) as Churner;
      // Else the dead own all memory soon, and nobody gets to the next place.
      giveBackOf(dead);
      await progress(others, 20);
      churners = [...others, await churn(dead.number, SEED + round + 1)];
    }
    await progress(churners, 50);
    await finish(churners);
    endOracle();
  });

  it('wait for a page lock of a dead thread no longer than its recovery takes', async () => {
    const waits: number[] = [];
    // On a busy machine each of them may take long; it must not take long each time.
    while (waits.length < 2 || (Math.min(...waits) >= 500 && waits.length < 20)) {
      store(control, 0, 0);
      const victim = await churn(0, SEED + waits.length);
      await killAtWithWaiter(victim, waits);
      giveBackOf(victim);
    }
    console.log(`waited for dead holders: ${waits.map((ms) => ms.toFixed(1)).join(', ')} ms`);
    expect(Math.min(...waits)).toBeLessThan(500);
    endOracle();
  });
});

/** What a worker that was killed had taken in runs and lists goes back: it belongs to the program. */
function giveBackOf({ slot, attachment }: Churner): void {
  const { frames, bankFrames } = vm.region.geometry;
  vm.pageLists.freeOf(attachment);
  for (let first = 0; first < frames; first++) {
    if (vm.frames.useOf(first) !== FRAME_USE.run || vm.frames.takerOf(first) !== slot) continue;
    let end = first + 1;
    while (end % bankFrames !== 0 && vm.frames.useOf(end) === FRAME_USE.runRest) end++;
    vm.frames.giveRun(first, end - first);
  }
}

/** Parks a worker while it writes a page back, has this thread wait for that page exclusively, and ends the worker. */
async function killAtWithWaiter(victim: Churner, waits: number[]): Promise<void> {
  armFault(vm.region, 'page.write.claimed', 'park', { slot: victim.slot });
  await until(() => waitForParked(vm.region, 0) === victim.slot, 'nobody writes back');
  disarmFault(vm.region);
  const { page } = vm.region.tables;
  let waited = 0;
  for (let frame = 0; frame < page.rowCount && waited === 0; frame++) {
    if (!vm.pages.holders(frame).includes(victim.slot)) continue;
    expect(vm.pages.holds.exclusive(frame, 5)).toBe(false);
    const from = performance.now();
    void victim.worker.terminate();
    expect(vm.pages.holds.exclusive(frame, PATIENCE_MS)).toBe(true);
    waited = performance.now() - from;
    waits.push(waited);
    vm.pages.holds.releaseExclusive(frame);
  }
  expect(waited).toBeGreaterThan(0);
  await until(() => vm.statistics().slots.length === 3, 'the slot is not recovered');
}
