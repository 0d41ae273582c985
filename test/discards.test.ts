/** Giving up what was written, in real threads and with users' own vnodes that refuse for good. */

import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { blockUntilAllFree } from './support/all-free.ts';
import { until } from './support/chaos.ts';
import { Scratch } from './support/scratch.ts';
import { testSeed } from './support/seed.ts';
import type { DiscarderData, DiscarderReport } from './workers/discarder.ts';

const build = (name: string) => new URL(`../build/test/workers/${name}.js`, import.meta.url);

let scratch: Scratch;
let vm: VirtualMemory;

beforeEach(() => {
  scratch = new Scratch();
  vm = boot({ memory: '512 KiB', bankSize: '128 KiB', slots: 10 });
});

afterEach(async () => {
  await shutDown(vm);
  scratch.remove();
});

function nothingLeft(): void {
  blockUntilAllFree(vm);
  expect(vm.vnodes.dropUnused()).toBe(0);
  vm.heap.trim();
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  expect(vm.pages.modified).toBe(0);
  expect(vm.statistics().frames.free).toBe(vm.region.geometry.frames);
}

describe('a vnode whose provider refuses for good', () => {
  for (const name of ['crammed', 'slowCrammed']) {
    it(`closes when its pages were given up, and so does the system: ${name}`, async () => {
      const provider = { module: build('page-provider'), export: name };
      const file = vm.openProvided({ provider, name: 'x', mode: 'rw' });
      file.write(0, new Uint8Array(9000).fill(1));
      expect(() => file.sync()).toThrow(/ENOSPC/);
      await expect(file.syncAsync()).rejects.toThrow(/ENOSPC/);
      expect(file.discard(0, 4096)).toBe(4096);
      expect(() => file.sync()).toThrow(/ENOSPC/);
      expect(file.discard()).toBe(9000 - 4096);
      // As it is without what was written.
      expect([...file.read(5000, 2)]).toEqual([(5000 * 3 + 1) & 255, (5001 * 3 + 1) & 255]);
      await file.syncAsync();
      file.close();
      nothingLeft();
    });
  }

  it('is left with what nobody gave up; a later opener may', () => {
    const provider = { module: build('page-provider'), export: 'crammed' };
    const file = vm.openProvided({ provider, name: 'y', mode: 'rw' });
    file.write(0, new Uint8Array(100).fill(1));
    expect(() => file.close()).toThrow(/ENOSPC/);
    expect(vm.vnodes.dropUnused()).toBe(1);
    const again = vm.openProvided({ provider, name: 'y', mode: 'rw' });
    expect(again.read(0, 1)[0]).toBe(1);
    expect(again.discard()).toBe(100);
    again.close();
    const memory = vm.openMemory('m');
    memory.write(0, new Uint8Array(10));
    expect(() => memory.discard()).toThrow(/ENOTSUP: file\.discard\(path="memory m"\)/);
    memory.close();
    nothingLeft();
  });
});

describe('workers that write and give up at the same time', () => {
  it('leave the file as memory shows it', async () => {
    const seed = testSeed('writers that give up', 40);
    const bytes = 300_000;
    const path = scratch.file('a', bytes, 1);
    const met = new Int32Array(new SharedArrayBuffer(4));
    const reports = await Promise.all(
      [0, 1, 2].map(async (number) => {
        const workerData = { path, seed: seed + number, rounds: 1500, bytes, met } satisfies Omit<DiscarderData, 'vm'>;
        const worker = vm.spawn(build('discarder'), { workerData });
        const report = new Promise<DiscarderReport>((resolve, reject) => {
          worker.on('message', (message) => 'given' in message && resolve(message));
          worker.on('error', reject);
        });
        const [result] = await Promise.all([report, once(worker, 'exit')]);
        return result;
      }),
    );
    console.log(JSON.stringify(reports));
    for (const { given } of reports) expect(given).toBeGreaterThan(0);
    expect(reports.reduce((sum, { contended }) => sum + contended, 0)).toBeGreaterThan(0);
    await until(() => vm.statistics().slots.length <= 3, 'all slots are free');
    const file = vm.open(path, { mode: 'rw' });
    expect(vm.pages.modifiedOf(file.vnode)).toBe(0);
    expect(Buffer.compare(file.read(0, bytes + 1), readFileSync(path))).toBe(0);
    file.close();
    nothingLeft();
  });
});
