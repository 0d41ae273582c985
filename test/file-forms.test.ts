/** Every form of reading and writing files, in several threads on the same pages; and large pages under several threads. */

import { readFileSync } from 'node:fs';
import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { disarmFault, type FaultPoint, load, store } from 'pagewright/sync';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { blockUntilAllFree } from './support/all-free.ts';
import { killAt, nextMessage, start, until, type Victim } from './support/chaos.ts';
import { BEHIND, STRIPE_BYTES } from './support/file-stripes.ts';
import { pattern, Scratch } from './support/scratch.ts';
import { testSeed } from './support/seed.ts';
import type { FileFormsData } from './workers/file-forms.ts';
import type { FileWriterData } from './workers/file-writer.ts';

const build = (name: string) => new URL(`../build/test/workers/${name}.js`, import.meta.url);

let scratch: Scratch;
let vm: VirtualMemory;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(async () => {
  disarmFault(vm.region);
  await shutDown(vm);
  scratch.remove();
});

describe('files', () => {
  for (const pageSize of [4096, 32_768]) {
    it(`are read and written in every way by three threads at once, on pages of ${pageSize} bytes`, async () => {
      vm = boot({ memory: '4 MiB', slots: 8 });
      const path = scratch.file('a', 0);
      const length = 100_000;
      const file = vm.open(path, { mode: 'rw', pageSize });
      file.write(0, pattern(3, 0, length));
      file.truncate(300_000);
      file.read(0, 300_000);
      const workers = [0, 1, 2].map((number) => {
        const workerData: Omit<FileFormsData, 'vm'> = { path, seed: 3, length, base: length + 50_000 * number };
        return vm.spawn(build('file-forms'), { workerData: { ...workerData } });
      });
      const answers = await Promise.all(workers.map(async (worker) => (await nextMessage(worker))[0]));
      expect(answers.flatMap(({ wrong }) => wrong as string[])).toEqual([]);
      for (const number of [0, 1, 2]) {
        const base = length + 50_000 * number;
        expect(file.tryRead(base, 25_000)).toEqual(pattern(4, base, 25_000));
      }
      file.append(pattern(5, 0, 10));
      file.sync();
      const real = readFileSync(path);
      expect(Buffer.compare(real, file.read(0, 400_000))).toBe(0);
      expect(real.length).toBe(300_010);
      file.close();
      blockUntilAllFree(vm);
      expect(vm.vnodes.dropUnused()).toBe(0);
      vm.heap.trim();
      expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
      expect(vm.statistics().frames.free).toBe(vm.region.geometry.frames);
    });
  }
});

describe('large pages in memory that goes offline', () => {
  it('are written back and given up, with every byte kept', async () => {
    vm = boot({ memory: '2 MiB', bankSize: '1 MiB', slots: 4, dirtyLimit: 0 });
    const path = scratch.file('a', 0);
    const file = vm.open(path, { mode: 'rw', create: true, pageSize: 65_536 });
    const length = 1_000_000;
    const { bankFrames } = vm.region.geometry;
    for (const [round, want] of [
      () => {
        vm.frames.offline(0, bankFrames);
        return () => vm.frames.online(0, bankFrames);
      },
      () => {
        vm.frames.offline(bankFrames, bankFrames);
        return () => vm.frames.online(bankFrames, bankFrames);
      },
    ].entries()) {
      for (let at = 0; at < length; at += 50_000) file.write(at, pattern(round, at, 50_000));
      expect(vm.pages.modifiedOf(file.vnode)).toBeGreaterThan(8);
      const written = vm.statistics().pages.writtenPages;
      const giveBack = want();
      expect(vm.statistics().pages.writtenPages, `${round}`).toBeGreaterThan(written);
      expect(Buffer.compare(file.read(0, length), pattern(round, 0, length)), `${round}`).toBe(0);
      giveBack();
      file.sync();
      expect(Buffer.compare(readFileSync(path), pattern(round, 0, length)), `${round}`).toBe(0);
    }
    file.close();
    blockUntilAllFree(vm);
    expect(vm.vnodes.dropUnused()).toBe(0);
    vm.heap.trim();
    expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
    expect(vm.statistics().frames.free).toBe(vm.region.geometry.frames);
  });
});

describe('writers of large pages that end', () => {
  const STRIPES = 90;
  const POINTS: readonly FaultPoint[] = [
    'page.fill.claimed',
    'page.fill.read',
    'page.evict.claimed',
    'page.write.claimed',
    'page.write.stored',
    'page.create.filled',
    'page.drop.unhashed',
    'vnode.truncate.dropped',
  ];
  for (const point of POINTS) {
    it(`at ${point} spoil nothing, and leave no half page`, async () => {
      const seed = testSeed(`large pages, deaths at ${point}`, 9);
      vm = boot({ memory: '192 KiB', bankSize: '64 KiB', slots: 8 });
      for (const bank of vm.banks.views) bank.fill(0xa5);
      const path = scratch.file('a', 0);
      // Whoever joins sees the pages that the first opener has chosen.
      const file = vm.open(path, { mode: 'rw', pageSize: 16_384 });
      file.truncate(STRIPES * STRIPE_BYTES);
      const control = new Int32Array(new SharedArrayBuffer(64));
      const [old, fresh] = [0, 1].map(() => new Uint8Array(new SharedArrayBuffer(STRIPES))) as [Uint8Array, Uint8Array];
      const shared = { path, writers: 2, control, old, fresh };
      const begin = (number: number, behind: boolean): Promise<Victim> => {
        const workerData: Omit<FileWriterData, 'vm'> = { ...shared, number, seed: seed + number, behind };
        return start(vm, build('file-writer'), { ...workerData });
      };
      const survivor = await begin(0, false);
      const report = nextMessage(survivor.worker);
      const victim = await begin(1, true);
      // It says what went wrong if it ends by itself.
      const end = new Promise((_resolve, reject) => {
        victim.worker.on('message', ({ wrong }) => reject(new Error(`${wrong}`)));
      });
      const killed = killAt(vm, point, [victim], { skip: 3, slot: victim.slot });
      await Promise.race([killed, end]);
      for (let stripe = 1; stripe < STRIPES; stripe += 2) {
        const bytes = file.read(stripe * STRIPE_BYTES, STRIPE_BYTES);
        expect(bytes.every((byte) => byte === old[stripe] || byte === fresh[stripe])).toBe(true);
      }
      const target = load(control, 1) + 20;
      await until(() => load(control, 1) >= target || vm.poisoned !== null, 'the survivor goes on');
      store(control, 0, 1);
      expect((await report)[0].wrong).toEqual([]);
      await survivor.worker.terminate();
      await until(() => vm.statistics().slots.length === 3, 'all slots are free');
      file.sync();
      const real = readFileSync(path);
      expect(real.subarray(STRIPES * STRIPE_BYTES).every((byte) => byte === 0 || byte === BEHIND)).toBe(true);
      for (let stripe = 0; stripe < STRIPES; stripe += 2) {
        const bytes = real.subarray(stripe * STRIPE_BYTES, (stripe + 1) * STRIPE_BYTES);
        expect(bytes.every((byte) => byte === old[stripe])).toBe(true);
      }
      expect(file.stat().pageSize).toBe(16_384);
      file.close();
      blockUntilAllFree(vm);
      expect(vm.vnodes.dropUnused()).toBe(0);
      vm.heap.trim();
      expect(vm.check().flatMap((one) => one.problems)).toEqual([]);
      expect(vm.statistics().frames.free).toBe(vm.region.geometry.frames);
    });
  }
});
