/** Accesses to ranges that do not lie in what is mapped as a whole: they throw, name the call, and have moved no byte. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Prng } from '../src/base/index.ts';
import type { AddressSpace } from '../src/seg/index.ts';
import { boot, type VirtualMemory } from '../src/system/index.ts';
import { Scratch } from './support/scratch.ts';
import { testSeed } from './support/seed.ts';

const PAGE = 4096;
const AT = 1 << 20;

let vm: VirtualMemory;
let as: AddressSpace;
let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
  vm = boot({ memory: '4 MiB', slots: 4, services: 'manual' });
  as = vm.addressSpace();
});

afterEach(() => {
  for (const id of vm.spaces.list()) vm.addressSpace(id).destroy();
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  expect(vm.thread.heldCount).toBe(0);
  vm.detach();
  scratch.remove();
});

/** Every access to the range is refused for the page at `wrong`, and nothing has changed before it. */
function refused(address: number, length: number, wrong: number | null, accesses = ['read', 'write', 'fill']): void {
  const readable = (page: number) => as.lookup(page)?.protection !== 'none';
  const before: [number, Uint8Array][] = [];
  for (let page = Math.floor(address / PAGE) * PAGE; page < address + length; page += PAGE) {
    if (page === wrong) break;
    if (as.lookup(page) !== null && readable(page)) before.push([page, as.read(page, PAGE)]);
  }
  expect(before.length).toBeGreaterThan(0);
  const where = wrong === null ? '' : `[^)]*address=${wrong}[,)]`;
  const target = new Uint8Array(length).fill(77);
  const acts: Record<string, () => void> = {
    read: () => as.read(address, target),
    write: () => as.write(address, new Uint8Array(length).fill(99)),
    fill: () => as.fill(address, 98, length),
  };
  for (const name of accesses) {
    // Twice: what was found out once is remembered.
    for (let time = 0; time < 2; time++) expect(acts[name]).toThrow(new RegExp(`^EFAULT: as\\.${name}\\(${where}`));
  }
  expect(target.every((byte) => byte === 77)).toBe(true);
  for (const [page, bytes] of before) expect(as.read(page, PAGE)).toEqual(bytes);
}

describe('a range', () => {
  it('over the end, over a gap, or into what does not allow it, is refused as a whole', () => {
    as.map({ address: AT, size: 4 * PAGE });
    as.map({ address: AT + 5 * PAGE, size: PAGE });
    as.fill(AT, 1, 4 * PAGE);
    as.fill(AT + 2 * PAGE, 2, 2 * PAGE);
    refused(AT + PAGE + 5, 4 * PAGE, AT + 4 * PAGE);
    refused(AT + 2 * PAGE, 4 * PAGE, AT + 4 * PAGE);
    as.protect(AT + 2 * PAGE, PAGE, 'read');
    refused(AT + PAGE, 3 * PAGE, AT + 2 * PAGE, ['write', 'fill']);
    expect(as.read(AT + PAGE, 3 * PAGE)[PAGE]).toBe(2);
    as.protect(AT + 2 * PAGE, PAGE, 'none');
    refused(AT + PAGE, 3 * PAGE, AT + 2 * PAGE);
    // What was found to be accessible is not remembered any longer than it is.
    as.protect(AT, 4 * PAGE, 'write');
    as.fill(AT, 3, 4 * PAGE);
    as.unmap(AT + 3 * PAGE, PAGE);
    refused(AT, 4 * PAGE, AT + 3 * PAGE);
    as.read(AT, 3 * PAGE);
    as.protect(AT + PAGE, PAGE, 'read');
    refused(AT, 3 * PAGE, AT + PAGE, ['write', 'fill']);
    expect(as.allocSegment(AT + 3 * PAGE, PAGE)).toBeGreaterThanOrEqual(0);
    refused(AT, 4 * PAGE, AT + 3 * PAGE, ['read']);
  });

  it('behind the end of a file is refused, but for pages that the space has of its own', () => {
    const file = vm.open(scratch.file('file', 4 * PAGE - 100, 7), { mode: 'rw' });
    const shared = as.map({ address: AT, size: 6 * PAGE, file, shared: true });
    refused(shared + 2 * PAGE, 3 * PAGE, AT + 4 * PAGE);
    as.write(shared + 2 * PAGE, new Uint8Array(2 * PAGE).fill(9));
    const own = as.map({ address: AT + 16 * PAGE, size: 6 * PAGE, file });
    refused(own + 2 * PAGE, 3 * PAGE, own + 4 * PAGE);
    as.store(own + 3 * PAGE, 5);
    as.write(own + PAGE, new Uint8Array(PAGE).fill(8));
    file.truncate(PAGE);
    refused(shared, 2 * PAGE, AT + PAGE);
    // Page 1 is the space's own, page 2 is gone with the file, page 3 is its own again.
    expect(as.read(own, 2 * PAGE)[PAGE]).toBe(8);
    as.fill(own, 4, 2 * PAGE);
    refused(own + PAGE, 3 * PAGE, own + 2 * PAGE);
    expect(as.load(own + 3 * PAGE)).toBe(5);
    expect(() => as.read(own + 2 * PAGE, 2 * PAGE)).toThrow(/EFAULT: as\.read.*behind the end/);
    as.destroy();
    file.close();
  });

  it('of a device whose cookie was freed is refused', () => {
    const cookie = vm.pmem.alloc({ size: 2 * PAGE });
    as.map({ address: AT, size: PAGE });
    as.map({ address: AT + PAGE, size: 2 * PAGE, cookie });
    as.fill(AT, 6, 3 * PAGE);
    vm.pmem.free(cookie);
    expect(() => as.fill(AT, 7, 3 * PAGE)).toThrow(/EFAULT: as\.fill\(.*cookie was freed/);
    expect(as.load(AT)).toBe(0x06060606);
  });

  it('that is advised over a gap keeps its pages and its advice', () => {
    as.map({ address: AT, size: 2 * PAGE });
    as.map({ address: AT + 3 * PAGE, size: PAGE });
    as.fill(AT, 5, 2 * PAGE);
    const before = as.dump();
    for (const advice of ['free', 'random', 'willNeed', 'dontNeed'] as const) {
      expect(() => as.advise(AT, 4 * PAGE, advice)).toThrow(/EFAULT: as\.advise/);
    }
    expect(() => as.sync(AT, 4 * PAGE)).toThrow(/EFAULT: as\.sync/);
    expect(() => as.protect(AT, 4 * PAGE, 'read')).toThrow(/EFAULT: as\.protect/);
    expect(as.dump()).toBe(before);
    expect(as.read(AT, 2 * PAGE).every((byte) => byte === 5)).toBe(true);
  });

  it('changes as a whole or not at all, whatever was mapped before: 2000 steps against a model', () => {
    const random = new Prng(testSeed('ranges of a space', 21));
    const pages = 12;
    /** Protection and byte of each page; null: not mapped. */
    const model: ({ protection: string; byte: number } | null)[] = new Array(pages).fill(null);
    const spread = () => {
      const first = random.below(pages);
      const count = 1 + random.below(Math.min(5, pages - first));
      return { first, count, address: AT + first * PAGE, size: count * PAGE, part: model.slice(first, first + count) };
    };
    let done = 0;
    let refusals = 0;
    for (let step = 0; step < 2000; step++) {
      const { first, count, address, size, part } = spread();
      const choice = random.below(12);
      if (choice === 0) {
        as.unmap(address, size);
        model.fill(null, first, first + count);
      } else if (choice < 4) {
        as.map({ address, size, replace: true });
        for (let page = first; page < first + count; page++) model[page] = { protection: 'write', byte: 0 };
      } else if (choice < 6 && part.every((page) => page !== null)) {
        const protection = (['none', 'read', 'write'] as const)[random.below(3)] as 'read';
        as.protect(address, size, protection);
        for (const page of part) (page as { protection: string }).protection = protection;
      } else if (choice < 9) {
        const byte = 1 + random.below(255);
        const act = () =>
          choice === 8 ? as.fill(address, byte, size) : as.write(address, new Uint8Array(size).fill(byte));
        if (part.every((page) => page?.protection === 'write')) {
          act();
          done++;
          for (const page of part) (page as { byte: number }).byte = byte;
        } else {
          refusals++;
          expect(act).toThrow(/EFAULT/);
        }
      } else if (part.every((page) => page !== null && page.protection !== 'none')) {
        done++;
        const bytes = as.read(address, size);
        for (const [at, page] of part.entries()) {
          expect([step, bytes[at * PAGE], bytes[at * PAGE + PAGE - 1]]).toEqual([step, page?.byte, page?.byte]);
        }
      } else {
        refusals++;
        expect(() => as.read(address, size)).toThrow(/EFAULT/);
      }
    }
    expect(done).toBeGreaterThan(200);
    expect(refusals).toBeGreaterThan(200);
  });
});

describe('what is refused', () => {
  it('names the call that the program made', () => {
    const cursor = as.cursor({ pages: 2 });
    const at = as.map({ address: AT, size: PAGE });
    as.protect(at, PAGE, 'none');
    const calls: readonly (readonly [string, (address: number) => unknown])[] = [
      ['as.read', (address) => as.read(address, 4)],
      ['as.write', (address) => as.write(address, new Uint8Array(4))],
      ['as.fill', (address) => as.fill(address, 1, 4)],
      ['as.load', (address) => as.load(address)],
      ['as.store', (address) => as.store(address, 1)],
      ['as.add', (address) => as.add(address, 1)],
      ['as.compareAndSwap', (address) => as.compareAndSwap(address, 1, 2)],
      ['as.pin', (address) => as.pin(address, 4, 'read')],
      ['as.advise', (address) => as.advise(address, PAGE, 'willNeed')],
      ['cursor.load', (address) => cursor.load(address)],
      ['cursor.store', (address) => cursor.store(address, 1)],
      ['cursor.add', (address) => cursor.add(address, 1)],
      ['cursor.compareAndSwap', (address) => cursor.compareAndSwap(address, 1, 2)],
    ];
    const failures = (code: string) =>
      calls.map(([, act]) => [AT, AT + PAGE].map((address) => messageOf(() => act(address), code)));
    expect(failures('EFAULT')).toEqual(calls.map(([name]) => [name, name]));
    as.destroy();
    const more: readonly (readonly [string, () => unknown])[] = [
      ['as.lookup', () => as.lookup(AT)],
      ['as.segments', () => as.segments()],
      ['as.protect', () => as.protect(AT, PAGE, 'read')],
      ['as.sync', () => as.sync(AT, PAGE)],
      ['as.fork', () => as.fork()],
      ['as.destroy', () => as.destroy()],
      ['as.map', () => as.map({ size: PAGE })],
      ['as.unmap', () => as.unmap(AT, PAGE)],
      ['as.allocSegment', () => as.allocSegment(AT, PAGE)],
    ];
    expect(failures('ESTALE')).toEqual(calls.map(([name]) => [name, name]));
    expect(more.map(([, act]) => messageOf(act, 'ESTALE'))).toEqual(more.map(([name]) => name));
    cursor.release();
  });

  /** The name of the call in the error with this code. */
  function messageOf(act: () => unknown, code: string): string {
    try {
      act();
    } catch (error) {
      const [, found, name] = /^(\w+): ([\w.]+)\(/.exec((error as Error).message) ?? [];
      return found === code ? (name as string) : String(error);
    }
    return 'nothing was thrown';
  }
});
