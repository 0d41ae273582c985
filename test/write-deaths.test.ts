/** Workers that end while they write: others lose nothing, and no byte is neither old nor new. */

import { readFileSync } from 'node:fs';
import { boot, type VirtualMemory } from 'pagewright';
import { Prng } from 'pagewright/base';
import { disarmFault, type FaultPoint, load, store } from 'pagewright/sync';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { blockUntilAllFree } from './support/all-free.ts';
import { shutDownBalanced } from './support/balance.ts';
import { kill, killAt, start, until, type Victim } from './support/chaos.ts';
import { BEHIND, STRIPE_BYTES } from './support/file-stripes.ts';
import { Scratch } from './support/scratch.ts';
import { testSeed } from './support/seed.ts';
import type { FileWriterData } from './workers/file-writer.ts';

const program = new URL('../build/test/workers/file-writer.js', import.meta.url);
const STRIPES = 90;
const WRITERS = 2;

/** Deaths at each point. */
const ROUNDS = Number(process.env.PAGEWRIGHT_DEATHS ?? 1);

let scratch: Scratch;
let vm: VirtualMemory;
let control: Int32Array;
let old: Uint8Array;
let fresh: Uint8Array;
let path: string;
let seed = 0;

beforeEach(() => {
  scratch = new Scratch();
  // 64 frames, and a file of 33 pages and what comes behind it.
  vm = boot({ memory: '256 KiB', bankSize: '64 KiB', slots: 8 });
  for (const bank of vm.banks.views) bank.fill(0xa5);
  control = new Int32Array(new SharedArrayBuffer(64));
  old = new Uint8Array(new SharedArrayBuffer(STRIPES));
  fresh = new Uint8Array(new SharedArrayBuffer(STRIPES));
  path = scratch.file('a', 0);
  const file = vm.open(path, { mode: 'rw' });
  file.truncate(STRIPES * STRIPE_BYTES);
  file.sync();
  file.close();
});

afterEach(async () => {
  disarmFault(vm.region);
  await shutDownBalanced(vm);
  scratch.remove();
});

function writer(number: number, behind: boolean, round: number): Promise<Victim> {
  const data: Omit<FileWriterData, 'vm'> = {
    path,
    number,
    writers: WRITERS,
    seed: seed + round,
    control,
    old,
    fresh,
    behind,
  };
  return start(vm, program, { ...data });
}

function reportOf(victim: Victim): Promise<string[]> {
  return new Promise((resolve) => victim.worker.on('message', ({ wrong }) => wrong !== undefined && resolve(wrong)));
}

async function progress(number: number, rounds: number): Promise<void> {
  const target = load(control, 1 + number) + rounds;
  await until(() => load(control, 1 + number) >= target || vm.poisoned !== null, `writer ${number} goes on`);
  expect(vm.poisoned).toBe(null);
}

/** Each byte of the dead writer's stripes is old or new; then its successor starts from what is there. */
function inspectAfterDeath(number: number): void {
  const file = vm.open(path, { mode: 'rw' });
  for (let stripe = number; stripe < STRIPES; stripe += WRITERS) {
    const [before, after] = [old[stripe] as number, fresh[stripe] as number];
    const bytes = file.read(stripe * STRIPE_BYTES, STRIPE_BYTES);
    if (!bytes.every((byte) => byte === before || byte === after)) {
      throw new Error(`stripe ${stripe}: bytes that are neither ${before} nor ${after}: ${[...new Set(bytes)]}`);
    }
    file.write(stripe * STRIPE_BYTES, new Uint8Array(STRIPE_BYTES).fill(after));
    old[stripe] = after;
  }
  const behind = file.read(STRIPES * STRIPE_BYTES, 300_000);
  expect(behind.every((byte) => byte === 0 || byte === BEHIND)).toBe(true);
  file.close();
}

/** All stop; the real file holds what was written; nothing is left. */
async function finish(survivor: Victim, report: Promise<string[]>): Promise<void> {
  store(control, 0, 1);
  expect(await report).toEqual([]);
  await survivor.worker.terminate();
  await until(() => vm.statistics().slots.length === 3, 'all slots are free');
  const file = vm.open(path, { mode: 'rw' });
  file.sync();
  const real = readFileSync(path);
  expect(real.length).toBe(file.size);
  for (let stripe = 0; stripe < STRIPES; stripe++) {
    const bytes = real.subarray(stripe * STRIPE_BYTES, (stripe + 1) * STRIPE_BYTES);
    expect(bytes.every((byte) => byte === old[stripe])).toBe(true);
  }
  expect(real.subarray(STRIPES * STRIPE_BYTES).every((byte) => byte === 0 || byte === BEHIND)).toBe(true);
  file.close();
  expect(vm.pages.modified).toBe(0);
  blockUntilAllFree(vm);
  expect(vm.vnodes.dropUnused()).toBe(0);
  vm.heap.trim();
  expect(vm.check().flatMap((one) => one.problems)).toEqual([]);
  const { frames } = vm.region.geometry;
  expect(vm.statistics().frames.free).toBe(frames);
}

const POINTS: readonly FaultPoint[] = [
  'vpm.write.filled',
  'vpm.write.copied',
  'vnode.extend.bounded',
  'vnode.truncate.sized',
  'vnode.truncate.stored',
  'vnode.truncate.dropped',
  'page.modify.listed',
  'page.create.filled',
  'page.write.claimed',
  'page.write.stored',
  'page.write.finished',
  'page.fill.claimed',
  'page.fill.read',
  'page.drop.unhashed',
];

describe('a writer that ends', () => {
  for (const point of POINTS) {
    it(`at ${point} spoils nothing`, async () => {
      seed = testSeed(`deaths at ${point}`, 5);
      const survivor = await writer(0, false, 0);
      const report = reportOf(survivor);
      for (let round = 1; round <= ROUNDS; round++) {
        const victim = await writer(1, true, round);
        await killAt(vm, point, [victim], { skip: round * 4, slot: victim.slot });
        inspectAfterDeath(1);
        await progress(0, 20);
      }
      await finish(survivor, report);
    });
  }

  it('at any time spoils nothing', async () => {
    seed = testSeed('deaths at any time', 77);
    const random = new Prng(seed);
    const survivor = await writer(0, false, 0);
    const report = reportOf(survivor);
    const end = performance.now() + Number(process.env.PAGEWRIGHT_CHAOS_MS ?? 1500);
    let kills = 0;
    while (performance.now() < end) {
      const victim = await writer(1, true, ++kills);
      await new Promise((resolve) => setTimeout(resolve, random.below(30)));
      await kill(vm, victim);
      inspectAfterDeath(1);
    }
    await progress(0, 20);
    await finish(survivor, report);
    console.log(`${kills} writers ended; the survivor did ${load(control, 1)} rounds`);
  });
});
