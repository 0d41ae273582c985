/** Page lists and cookies in a whole system: beside a full page cache, across threads, and inside WebAssembly. */

import { once } from 'node:events';
import { join } from 'node:path';
import { boot, type VirtualMemory } from 'pagewright';
import { CancelToken } from 'pagewright/sync';
import { afterEach, describe, expect, it } from 'vitest';
import { shutDownBalanced } from './support/balance.ts';
import { nextMessage, start, until } from './support/chaos.ts';
import { matches, Scratch } from './support/scratch.ts';
import { PATIENCE_MS } from './support/until.ts';

const PAGE = 4096;
const waiter = new URL('../build/test/workers/frame-waiter.js', import.meta.url);

let vm: VirtualMemory;

afterEach(async () => {
  await shutDownBalanced(vm);
});

function expectSound(): void {
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
}

/** `(func (export "poke") (param i32 i32) (i32.store (local.get 0) (local.get 1)))` over an imported shared memory. */
const POKE = Uint8Array.from([
  ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
  ...[0x01, 0x06, 0x01, 0x60, 0x02, 0x7f, 0x7f, 0x00],
  ...[0x02, 0x10, 0x01, 0x01, 0x6d, 0x06, 0x6d, 0x65, 0x6d, 0x6f, 0x72, 0x79, 0x02, 0x03, 0x01, 0x80, 0x80, 0x04],
  ...[0x03, 0x02, 0x01, 0x00],
  ...[0x07, 0x08, 0x01, 0x04, 0x70, 0x6f, 0x6b, 0x65, 0x00, 0x00],
  ...[0x0a, 0x0b, 0x01, 0x09, 0x00, 0x20, 0x00, 0x20, 0x01, 0x36, 0x02, 0x00, 0x0b],
]);

describe('page lists in a system', () => {
  it('have pages of files given up, but not those that are mapped', () => {
    const scratch = new Scratch();
    try {
      vm = boot({ memory: '2 MiB', services: 'manual' });
      const sizeBytes = 4 * 1024 * 1024;
      const file = vm.open(scratch.file('big', sizeBytes, 3));
      // Out of order: what is read once from front to end leaves soon.
      for (let step = 0; step < 64; step++) file.read(((step * 37) % 64) * 65_536, 65_536);
      const mapping = file.map(0, 4 * PAGE);
      const request = { size: 256 * PAGE };
      expect(vm.pageLists.tryAlloc(request)).toBeNull();
      const list = vm.pageLists.alloc({ ...request, wait: { timeoutMs: PATIENCE_MS } });
      expect(list.runs).toHaveLength(1);
      expectSound();
      expect(() => vm.pageLists.alloc({ size: 256 * PAGE, wait: { timeoutMs: 20 } })).toThrow(/ETIMEDOUT/);
      expect(matches(file.read(PAGE, PAGE), 3, PAGE)).toBe(true);
      mapping.release();
      vm.pageLists.free(list);
      expect(vm.pageLists.alloc({ size: 500 * PAGE, segments: 500, wait: true }).frameCount).toBe(500);
      expectSound();
    } finally {
      scratch.remove();
    }
  });

  it('are waited for across threads', async () => {
    vm = boot({ memory: '4 MiB' });
    const all = vm.pageLists.alloc({ size: 1024 * PAGE });
    const { worker, slot } = await start(vm, waiter, { size: 100 * PAGE });
    const answer = nextMessage(worker);
    const exit = once(worker, 'exit');
    const waits = () => vm.frames.core.queue.count > 0 && vm.region.tables.slot.slept.get(slot) > 0;
    await until(waits, 'the worker sleeps');
    // Not enough, then enough.
    vm.pageLists.free({ runs: [{ first: 10, count: 50 }], frameCount: 50 });
    await new Promise((resolve) => setTimeout(resolve, 50));
    vm.pageLists.free({ runs: [{ first: 200, count: 120 }], frameCount: 120 });
    const [message] = (await answer) as [{ first: number; slept: number }];
    expect(message.first).toBe(200);
    expect(message.slept).toBeGreaterThan(0);
    await exit;
    expect(vm.pageLists.outstanding).toBe(all.frameCount - 170);
    expectSound();
  });

  it('end their wait when a token is cancelled', () => {
    vm = boot({ memory: '1 MiB', services: 'manual' });
    vm.pageLists.alloc({ size: 256 * PAGE });
    const token = CancelToken.create(vm.thread);
    token.cancel();
    expect(() => vm.pageLists.alloc({ size: PAGE, wait: { cancel: token } })).toThrow(/ECANCELED/);
    expect(vm.thread.heldCount).toBe(0);
    expectSound();
  });
});

describe('the pagedaemon', () => {
  it('frees frames when not one is left and all pages are modified, without a reserve of its own', async () => {
    const scratch = new Scratch();
    try {
      vm = boot({ memory: '4 MiB', dirtyLimit: 0 });
      const marks = vm.frames.watermarks.read();
      expect(marks).toMatchObject({ pagedaemonReserve: 0, kernelReserve: 0 });
      expect(marks.freeTarget).toBeGreaterThan(0);
      const file = vm.open(scratch.file('written', 300 * PAGE), { mode: 'rw' });
      for (let page = 0; page < 300; page++) file.write(page * PAGE, new Uint8Array(PAGE).fill(page & 255));
      const rounds = vm.statistics().pagedaemon;
      let taken = 0;
      // Faster than the daemon, until nothing is free.
      while (vm.pageLists.tryTakeFrame() >= 0) taken++;
      expect(taken).toBeGreaterThan(600);
      // Rounds are counted when they end.
      const since = () => {
        const { freed, written } = vm.statistics().pagedaemon;
        return Math.min(freed - rounds.freed, written - rounds.written);
      };
      await until(() => vm.frames.counts().free >= marks.freeTarget && since() > 0, 'the pagedaemon frees frames');
      for (let page = 0; page < 300; page++) expect(file.read(page * PAGE, 1)[0]).toBe(page & 255);
      file.sync();
      file.close();
      vm.pageLists.free(vm.pageLists.listOf(vm.thread.attachment));
      expectSound();
    } finally {
      scratch.remove();
    }
  });

  it('writes pages of files and anonymous ones back from their own frames, when not one is free', () => {
    const scratch = new Scratch();
    try {
      const options = { services: 'manual', dirtyLimit: 0, addressSpaces: 2, anonymousPages: 400 } as const;
      vm = boot({ memory: '1 MiB', ...options });
      expect(vm.frames.watermarks.read()).toMatchObject({ pagedaemonReserve: 0, kernelReserve: 0 });
      vm.spaces.swap.add(join(scratch.directory, 'swap'), 200 * PAGE);
      const file = vm.open(scratch.file('written', 100 * PAGE), { mode: 'rw' });
      const space = vm.addressSpace();
      const at = space.map({ size: 100 * PAGE });
      const pages = Array.from({ length: 100 }, (_, page) => page);
      for (const ofFile of [false, true]) {
        for (const page of pages) {
          const bytes = new Uint8Array(PAGE).fill(page + 1);
          if (ofFile) file.write(page * PAGE, bytes);
          else space.write(at + page * PAGE, bytes);
        }
        expect(vm.pages.modified).toBe(100);
        vm.pagedaemon.giveSpares();
        while (vm.pageLists.tryTakeFrame() >= 0);
        // Nothing can be had without writing, and there is no frame to write with.
        expect(vm.frames.counts()).toMatchObject({ free: 0, page: 100 });
        let written = 0;
        for (let round = vm.pagedaemon.step(); (round?.missing ?? 0) > 0; round = vm.pagedaemon.step()) {
          written += round?.written ?? 0;
        }
        expect(written).toBeGreaterThan(0);
        expect(vm.frames.counts().free).toBeGreaterThanOrEqual(vm.frames.watermarks.read().freeTarget);
        if (!ofFile) expect(vm.spaces.swap.use.used).toBeGreaterThan(0);
        for (const page of pages) {
          const bytes = ofFile ? file.read(page * PAGE, PAGE) : space.read(at + page * PAGE, PAGE);
          expect(bytes.every((byte) => byte === page + 1)).toBe(true);
        }
        vm.pageLists.free(vm.pageLists.listOf(vm.thread.attachment));
        if (ofFile) file.close();
        else space.destroy();
        expect(vm.pages.modified).toBe(0);
      }
      expectSound();
    } finally {
      scratch.remove();
    }
  });
});

describe('the pagedaemon of a small memory', () => {
  it.each([64, 128, 255])('works in one of %i frames, and keeps none of them from who asks for all', async (total) => {
    const scratch = new Scratch();
    try {
      vm = boot({ memory: total * PAGE, slots: 4 });
      const { freeMin, freeTarget } = vm.frames.watermarks.read();
      expect(freeMin).toBeGreaterThan(1);
      const file = vm.open(scratch.file('all', 2 * total * PAGE, 3));
      const pages = () => vm.statistics().pagedaemon.pages;
      const rounds = pages();
      // Out of order: what is read once from front to end leaves soon.
      const end = performance.now() + PATIENCE_MS;
      for (let step = 0; pages() === rounds; step++) {
        expect(performance.now()).toBeLessThan(end);
        const offset = ((step * 37) % (2 * total)) * PAGE;
        expect(matches(file.read(offset, PAGE), 3, offset)).toBe(true);
        if (step % 16 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
      }
      await until(() => vm.frames.counts().free >= freeTarget, 'the pagedaemon frees frames');
      const all = vm.pageLists.allocWait({ size: total * PAGE }, { timeoutMs: PATIENCE_MS });
      expect(all.runs).toEqual([{ first: 0, count: total }]);
      vm.pageLists.free(all);
      const singles: number[] = [];
      for (let frame = vm.pageLists.tryTakeFrame(); frame >= 0; frame = vm.pageLists.tryTakeFrame())
        singles.push(frame);
      expect(singles).toHaveLength(total);
      vm.pageLists.free(vm.pageLists.listOf(vm.thread.attachment));
      file.close();
      expectSound();
    } finally {
      scratch.remove();
    }
  });

  it('rests below 64 frames, where a mark would be a large part of what pages have', () => {
    vm = boot({ memory: 63 * PAGE, slots: 4, services: 'manual' });
    const { freeMin, freeTarget, lotsFree } = vm.frames.watermarks.read();
    expect([freeMin, freeTarget, lotsFree]).toEqual([0, 0, 0]);
    const all = vm.pageLists.alloc({ size: 63 * PAGE });
    expect(vm.pagedaemon.step()).toMatchObject({ missing: 0 });
    vm.pageLists.free(all);
  });
});

describe('banks in a system', () => {
  it('go offline under a page cache, and not while a file is mapped there', () => {
    const scratch = new Scratch();
    try {
      vm = boot({ memory: '4 MiB', bankSize: '1 MiB', services: 'manual' });
      const sizeBytes = 2 * 1024 * 1024;
      const file = vm.open(scratch.file('big', sizeBytes, 3));
      // Out of order, and not from its beginning: what is read once from front to end is not kept, or leaves soon.
      for (let step = 1; step <= 32; step++) file.read(((step * 13) % 32) * 65_536, 65_536);
      const mapping = file.map(13 * 65_536, PAGE);
      expect(() => vm.frames.offline(0, 256, { timeoutMs: 10 })).toThrow(/EBUSY.*frames.offline/);
      expect(vm.frames.counts()).toMatchObject({ absent: 0, page: 512 });
      mapping.release();
      vm.frames.offline(0, 256);
      expect(vm.frames.counts()).toMatchObject({ absent: 256, page: 512 });
      expect(vm.frames.statistics()).toMatchObject({ removals: 1, removalsFailed: 1, reclaimed: 0 });
      for (let offset = 0; offset < sizeBytes; offset += 65_536) {
        expect(matches(file.read(offset, 65_536), 3, offset)).toBe(true);
      }
      expectSound();
      vm.frames.offline(256, 256);
      vm.frames.offline(512, 256);
      // What was in the way moved to where others left: a few more than had to.
      const { absent, free, page } = vm.frames.counts();
      expect([absent, free + page]).toEqual([768, 256]);
      expect(free).toBeLessThanOrEqual(17);
      expect(matches(file.read(70_000, 65_536), 3, 70_000)).toBe(true);
      // The cache of locked pages was disabled in between, and is not any more.
      expect(() => vm.pagelock.enable()).toThrow(/not disabled/);
      vm.frames.online(0, 768);
      expect(vm.frames.takeRun(256)).toBe(0);
      expectSound();
    } finally {
      scratch.remove();
    }
  });
});

describe('cookies in a system', () => {
  it('leave no large page in the pool when somebody asks for all frames', () => {
    vm = boot({ memory: '16 MiB', services: 'manual' });
    vm.pmem.free(vm.pmem.alloc({ size: 600 * PAGE }));
    expect(vm.pmem.statistics().largePages).toBe(2);
    expect(vm.pageLists.tryAlloc({ size: 4096 * PAGE })?.runs).toEqual([{ first: 0, count: 4096 }]);
    expect(vm.pmem.statistics()).toMatchObject({ largePages: 0, poolFrames: 0, reserved: 0 });
    expectSound();
  });

  it('are written by a WebAssembly module that imports their bank', async () => {
    vm = boot({ memory: '8 MiB', services: 'manual' });
    const cookie = vm.pmem.alloc({ size: 300 * PAGE, contiguous: true });
    const { bytes, bank, offset } = vm.pmem.view(cookie);
    expect(bytes.length).toBe(300 * PAGE);
    const memory = vm.banks.memories[bank] as WebAssembly.Memory;
    const { instance } = await WebAssembly.instantiate(POKE, { m: { memory } });
    const poke = instance.exports.poke as (address: number, value: number) => void;
    poke(offset + 299 * PAGE, 0x04030201);
    expect([...bytes.subarray(299 * PAGE, 299 * PAGE + 4)]).toEqual([1, 2, 3, 4]);
    vm.pmem.free(cookie);
    expectSound();
  });
});

describe('metadata', () => {
  it('are reported by table, and stay within what is said of them', () => {
    vm = boot({ memory: '1 GiB', services: 'manual' });
    const { bytes, perFrame, tables } = vm.statistics().metadata;
    const sum = Object.values(tables).reduce((total, size) => total + size, 0);
    expect(sum).toBeLessThanOrEqual(bytes);
    // Tables begin at multiples of 128 bytes.
    expect(bytes - sum).toBeLessThan(4096 + 128 * Object.keys(tables).length);
    expect(perFrame).toBe(bytes / 2 ** 18);
    expect(perFrame).toBeLessThan(111);
    expect(tables.page).toBe(32 * 2 ** 18);
  });
});
