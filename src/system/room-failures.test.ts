/**
 * Room that cannot be made because a file takes no bytes: the request fails as a whole, nothing is lost, and it is served
 * when the fault is gone.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { accountProblems } from '../../test/support/accounts.ts';
import { Scratch } from '../../test/support/scratch.ts';
import { pagesKept } from '../phys/making-room.ts';
import { boot } from './boot.ts';
import type { VirtualMemory } from './virtual-memory.ts';

/** What the next writes answer: an error's code after some that are taken, or nothing out of the ordinary. */
const answers = vi.hoisted(() => ({ code: '', taken: 0, calls: 0 }));

vi.mock('node:fs', async (original) => {
  const fs = (await original()) as typeof import('node:fs');
  const refuse = () => {
    if (answers.code === '' || answers.taken-- > 0) return;
    answers.calls++;
    throw Object.assign(new Error(`${answers.code}: injected by the test`), { code: answers.code });
  };
  return {
    ...fs,
    writeSync(fd: number, piece: Uint8Array, offset: number, length: number, position: number): number {
      refuse();
      return fs.writeSync(fd, piece, offset, length, position);
    },
    writevSync(fd: number, pieces: Uint8Array[], position: number): number {
      refuse();
      return fs.writevSync(fd, pieces, position);
    },
  };
});

const PAGE = 4096;
const FRAMES = 512;
const FILE_PAGES = 480;
/** Frames asked for: less than half of memory, which is the most that a cookie has. */
const ASKED = 200;

let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => {
  answers.code = '';
  scratch.remove();
});

/** A memory most of which holds pages of a file that were all modified, and the file. */
function full() {
  const path = scratch.file('pages', 0);
  writeFileSync(path, new Uint8Array(FILE_PAGES * PAGE));
  const expected = new Uint8Array(FILE_PAGES * PAGE);
  const limits = { lockedFrames: 2 * FRAMES, frames: 2 * FRAMES };
  const vm = boot({
    ...{ memory: FRAMES * PAGE, services: 'manual', dirtyLimit: 0 },
    ...{ limits, pmem: { largeFrames: 64 } },
  });
  const file = vm.open(path, { mode: 'rw' });
  for (let page = 0; page < FILE_PAGES; page++) {
    expected.fill(1 + (page % 250), page * PAGE, (page + 1) * PAGE);
    file.write(page * PAGE, expected.subarray(page * PAGE, (page + 1) * PAGE));
  }
  expect(vm.pages.modifiedOf(file.vnode)).toBe(FILE_PAGES);
  return { vm, file, path, expected };
}

/** All that a request may change, and that is as before when it has failed. */
function accounts(vm: VirtualMemory) {
  const { owners, reservations } = vm.statistics();
  const used = owners.map(({ name, resources }) => [name, resources.frames.used, resources.lockedFrames.used]);
  const { cookies, largePages, poolFrames, reserved } = vm.pmem.statistics();
  const { free, page, total } = vm.frames.counts();
  return { used, reservations, cookies, largePages, poolFrames, reserved, available: free + page, total };
}

type Full = ReturnType<typeof full>;

/** What asks for so many frames, and how it is given back. It throws when it is not served. */
const REQUESTS: Readonly<Record<string, (vm: VirtualMemory, frames: number, timeoutMs: number) => () => void>> = {
  'a cookie': (vm, frames) => {
    const cookie = vm.pmem.alloc({ size: frames * PAGE });
    return () => vm.pmem.free(cookie);
  },
  'a contiguous cookie': (vm, frames) => {
    const cookie = vm.pmem.alloc({ size: frames * PAGE, contiguous: true });
    return () => vm.pmem.free(cookie);
  },
  'a cookie that waits': (vm, frames, timeoutMs) => {
    const cookie = vm.pmem.alloc({ size: frames * PAGE, wait: { timeoutMs } });
    return () => vm.pmem.free(cookie);
  },
  'a run': (vm, frames) => {
    const first = vm.frames.takeRun(frames);
    return () => vm.frames.giveRun(first, frames);
  },
  'a run that is waited for': (vm, frames, timeoutMs) => {
    const first = vm.frames.takeRunWait(frames, { timeoutMs });
    return () => vm.frames.giveRun(first, frames);
  },
  'a page list that waits': (vm, frames, timeoutMs) => {
    const list = vm.pageLists.allocWait({ size: frames * PAGE }, { timeoutMs });
    return () => vm.pageLists.free(list);
  },
};

/** Nothing is lost, nothing is charged, no lock is held. */
function expectUntouched({ vm, file, expected }: Full, before: ReturnType<typeof accounts>): void {
  expect(accounts(vm)).toEqual(before);
  expect(accountProblems(vm.region)).toEqual([]);
  expect(vm.check().flatMap(({ problems }) => problems)).toEqual([]);
  expect(vm.thread.heldCount).toBe(0);
  expect(Buffer.compare(file.read(0, expected.length), expected)).toBe(0);
}

describe('a file that takes no bytes', () => {
  for (const [name, ask] of Object.entries(REQUESTS)) {
    it.each(['ENOSPC', 'EIO'])(`has ${name} fail as a whole (%s), and be served when it takes them again`, (code) => {
      const all = full();
      const { vm, file, path, expected } = all;
      const before = accounts(vm);
      let calls = 0;
      // At first it takes nothing, then what two calls bring, which is not enough.
      for (const taken of [0, 0, 2]) {
        Object.assign(answers, { code, taken, calls: 0 });
        expect(() => ask(vm, ASKED, 50)).toThrow(/ENOMEM|ETIMEDOUT/);
        calls += answers.calls;
        if (taken === 0) expect(vm.pages.modifiedOf(file.vnode)).toBe(FILE_PAGES);
        expectUntouched(all, before);
      }
      expect(calls).toBeGreaterThan(0);
      expect(vm.pages.modifiedOf(file.vnode)).toBeGreaterThan(FILE_PAGES / 2);
      answers.code = '';
      // Who waits does not try a store that has refused again at once.
      const giveBack = ask(vm, ASKED, 60_000);
      expect(accountProblems(vm.region)).toEqual([]);
      expect(vm.frames.counts().page).toBeGreaterThanOrEqual(pagesKept(FRAMES));
      giveBack();
      // A sync tells of what was refused, once.
      expect(() => file.sync()).toThrow(code);
      file.sync();
      expect(Buffer.compare(readFileSync(path), expected)).toBe(0);
      expectUntouched(all, before);
      expect(vm.pages.modifiedOf(file.vnode)).toBe(0);
      file.close();
      vm.detach();
    });
  }
});
