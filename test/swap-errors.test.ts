/**
 * A swap file that cannot be read or written for a while, as system calls say it: whoever touches a page is told, nothing is
 * lost, and everything goes on when the fault is gone. And reservations, which leave room to bring in all that they promise.
 */

import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Prng, VmError } from '../src/base/index.ts';
import type { AddressSpace } from '../src/seg/index.ts';
import { attach, boot, type VirtualMemory } from '../src/system/index.ts';
import { Scratch } from './support/scratch.ts';
import { testSeed } from './support/seed.ts';
import { stampPage, versionOf } from './support/stamps.ts';

/** What the next system calls answer: an error's code, part of what was asked for, or nothing out of the ordinary. */
const answers = vi.hoisted(() => ({ read: '', write: '', calls: 0 }));

vi.mock('node:fs', async (original) => {
  const fs = (await original()) as typeof import('node:fs');
  const failing = (code: string): never => {
    answers.calls++;
    throw Object.assign(new Error(`${code}: injected by the test`), { code });
  };
  const part = (piece: Uint8Array) => {
    answers.calls++;
    return piece.subarray(0, Math.ceil(piece.length / 3));
  };
  type Piece = Uint8Array;
  return {
    ...fs,
    readSync(fd: number, piece: Piece, offset: number, length: number, position: number): number {
      const wanted = piece.subarray(offset, offset + length);
      if (answers.read === '') return fs.readSync(fd, wanted, 0, wanted.length, position);
      if (answers.read !== 'short') return failing(answers.read);
      const some = part(wanted);
      return fs.readSync(fd, some, 0, some.length, position);
    },
    readvSync(fd: number, pieces: Piece[], position: number): number {
      if (answers.read === '') return fs.readvSync(fd, pieces, position);
      return answers.read === 'short' ? fs.readvSync(fd, [part(pieces[0] as Piece)], position) : failing(answers.read);
    },
    writeSync(fd: number, piece: Piece, offset: number, length: number, position: number): number {
      const wanted = piece.subarray(offset, offset + length);
      if (answers.write === '') return fs.writeSync(fd, wanted, 0, wanted.length, position);
      if (answers.write !== 'short') return failing(answers.write);
      const some = part(wanted);
      return fs.writeSync(fd, some, 0, some.length, position);
    },
    writevSync(fd: number, pieces: Piece[], position: number): number {
      if (answers.write === '') return fs.writevSync(fd, pieces, position);
      return answers.write === 'short'
        ? fs.writevSync(fd, [part(pieces[0] as Piece)], position)
        : failing(answers.write);
    },
  };
});

const PAGE = 4096;
const FRAMES = 64;
const bytes = new Uint8Array(PAGE);

let scratch: Scratch;
let vm: VirtualMemory;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => {
  answers.read = '';
  answers.write = '';
  for (const id of vm.spaces.list()) vm.addressSpace(id).destroy();
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  expect(vm.spaces.statistics()).toMatchObject({ spaces: 0, segments: 0, maps: 0, nodes: 0, anons: 0, reserved: 0 });
  expect(vm.spaces.swap.use.used).toBe(0);
  const { free, total } = vm.frames.counts();
  expect(free).toBe(total);
  expect(vm.frames.takeRun(total)).toBe(0);
  vm.frames.giveRun(0, total);
  vm.detach();
  scratch.remove();
});

/** A system with so many pages of swap, and a space. */
function start(swapPages: number): AddressSpace {
  vm = boot({ memory: FRAMES * PAGE, services: 'manual', slots: 4, addressSpaces: 4, anonymousPages: 600 });
  if (swapPages > 0) vm.spaces.swap.add(join(scratch.directory, 'swap'), swapPages * PAGE);
  return vm.addressSpace();
}

/** Pages with versions; what a failed write was to store counts only when it is there. */
class Pages {
  readonly as: AddressSpace;
  readonly at: number;
  readonly versions: Int32Array;

  constructor(as: AddressSpace, pages: number, reserve = true) {
    this.as = as;
    this.at = as.map({ size: pages * PAGE, reserve });
    this.versions = new Int32Array(pages);
  }

  write(page: number, version: number): void {
    stampPage(bytes, page, version);
    this.as.write(this.at + page * PAGE, bytes);
    this.versions[page] = version;
  }

  read(page: number): void {
    this.as.read(this.at + page * PAGE, bytes);
    expect([page, versionOf(bytes, page)]).toEqual([page, this.versions[page]]);
  }

  readAll(): void {
    for (let page = 0; page < this.versions.length; page++) this.read(page);
  }
}

/** The error that something throws. */
function errorOf(action: () => void): VmError {
  try {
    action();
  } catch (error) {
    expect(error).toBeInstanceOf(VmError);
    return error as VmError;
  }
  throw new Error('nothing was thrown');
}

describe('a swap file that cannot be read', () => {
  for (const code of ['EIO', 'ENXIO']) {
    it(`says ${code} to whoever reads, writes, pins or copies a page, and goes on later`, () => {
      const as = start(200);
      const pages = new Pages(as, 120);
      for (let page = 0; page < 120; page++) pages.write(page, page + 1);
      answers.read = code;
      const out = [2, 3, 4, 5];
      expect(errorOf(() => pages.read(2))).toMatchObject({
        code: 'EIO',
        message: expect.stringMatching(/swap\.read.*injected/),
      });
      expect(errorOf(() => as.store(pages.at + 3 * PAGE, 9)).code).toBe('EIO');
      expect(errorOf(() => as.pin(pages.at + 4 * PAGE, PAGE, 'write')).code).toBe('EIO');
      expect(errorOf(() => as.advise(pages.at + 5 * PAGE, PAGE, 'willNeed')).code).toBe('EIO');
      const copy = as.fork();
      expect(errorOf(() => copy.fill(pages.at + 5 * PAGE, 1, 5)).code).toBe('EIO');
      expect(answers.calls).toBeGreaterThan(4);
      // What is in memory is not concerned.
      pages.read(119);
      expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
      answers.read = '';
      for (const page of out) pages.read(page);
      copy.fill(pages.at + 5 * PAGE, 1, 5);
      pages.readAll();
      copy.destroy();
    });
  }

  it('is read to the end when calls bring less than was asked for', () => {
    const pages = new Pages(start(200), 120);
    for (let page = 0; page < 120; page++) pages.write(page, page + 1);
    answers.read = 'short';
    answers.calls = 0;
    pages.readAll();
    expect(answers.calls).toBeGreaterThan(100);
  });
});

describe('a swap file that cannot be written', () => {
  for (const code of ['EIO', 'ENOSPC', 'EDQUOT']) {
    it(`says so with ${code} as the cause, loses nothing, and goes on later`, () => {
      const random = new Prng(testSeed('swap that cannot be written', 21));
      const pages = new Pages(start(200), 200);
      for (let page = 0; page < 100; page++) pages.write(page, page + 1);
      answers.write = code;
      let failed: VmError | null = null;
      for (let page = 100; page < 200 && failed === null; page++) {
        try {
          pages.write(page, page + 1);
        } catch (error) {
          failed = error as VmError;
        }
      }
      expect(failed).toMatchObject({
        code: 'ENOMEM',
        message: expect.stringMatching(/cannot be written.*swap\.write.*injected/),
      });
      expect((failed as unknown as { cause: VmError }).cause.code).toBe(code === 'EIO' ? 'EIO' : 'ENOSPC');
      expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
      // What is in memory can be read and written all the same.
      const frames = vm.pages.modified;
      expect(frames).toBe(FRAMES);
      for (let step = 0; step < 200; step++) {
        const page = random.below(100);
        try {
          if (random.chance(0.5)) pages.write(page, step + 1000);
          else pages.read(page);
        } catch (error) {
          expect((error as VmError).code).toBe('ENOMEM');
        }
      }
      answers.write = '';
      pages.readAll();
      for (let page = 0; page < 200; page++) pages.write(page, page + 9000);
      pages.readAll();
    });
  }

  it('is written to the end when calls take less than they were given', () => {
    const pages = new Pages(start(200), 200);
    answers.write = 'short';
    answers.calls = 0;
    for (let page = 0; page < 200; page++) pages.write(page, page + 1);
    expect(answers.calls).toBeGreaterThan(20);
    answers.write = '';
    pages.readAll();
  });
});

describe('what is reserved', () => {
  for (const swapPages of [0, 7, 20, 45, 63, 100]) {
    it(`can all be used at once, by two threads, with ${swapPages} pages of swap`, () => {
      const as = start(swapPages);
      const other = attach(vm.handle());
      const { reserveMax } = vm.spaces.statistics();
      expect(reserveMax).toBeLessThan(FRAMES + swapPages);
      expect(errorOf(() => as.map({ size: (reserveMax + 1) * PAGE }))).toMatchObject({
        code: 'ENOMEM',
        message: expect.stringMatching(/reserveMax/),
      });
      const pages = new Pages(as, reserveMax);
      const there = new Pages(as, 1, false);
      for (let page = 0; page < reserveMax; page++) pages.write(page, page + 1);
      expect(errorOf(() => as.fork()).code).toBe('ENOMEM');
      expect(errorOf(() => as.map({ size: PAGE })).code).toBe('ENOMEM');
      const view = other.addressSpace(as.id);
      for (let step = 0; step < 2; step++) {
        for (let page = 0; page < reserveMax; page++) {
          pages.read((page * 7) % reserveMax);
          expect(view.load(pages.at + ((page * 5) % reserveMax) * PAGE)).toBe(~((page * 5) % reserveMax));
        }
        for (let page = 0; page < reserveMax; page += 3) pages.write(page, step * 1000 + page + 5000);
      }
      // Beyond what is reserved: refused at the time of the fault, and only there.
      expect(there.versions[0]).toBe(0);
      pages.readAll();
      other.detach();
    });
  }
});
