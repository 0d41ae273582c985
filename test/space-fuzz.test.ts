/**
 * Address spaces against arrays: several threads in turns map, unmap, protect, write, pin, fork and destroy, and every space must
 * read as its model does. Spaces are forked from forks and destroyed in any order. Part of the memory is swapped or belongs
 * to files.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Prng } from '../src/base/index.ts';
import type { AddressSpace, SharedMemory, SpacePin } from '../src/seg/index.ts';
import { attach, boot, type VirtualMemory } from '../src/system/index.ts';
import { Scratch } from './support/scratch.ts';
import { testSeed } from './support/seed.ts';

const PAGE = 4096;
const PAGES = 48;
const BASE = 16 * PAGE;
const STEPS = Number(process.env.PAGEWRIGHT_FUZZ_STEPS ?? 2500);
/** Pages of the shared file at the start; it grows to twice as many. */
const SHARED_PAGES = 10;

/** What a page of a model holds: shared pages are the same object in several models. */
interface ModelPage {
  bytes: Uint8Array;
  readonly shared: boolean;
  protection: 'none' | 'read' | 'write';
  /** It can never be written: the file was open for reading. */
  readonly readOnly?: boolean;
}

interface Member {
  readonly id: AddressSpace['id'];
  /** The space as each thread sees it. */
  readonly views: AddressSpace[];
  readonly pages: (ModelPage | null)[];
  readonly pins: { pin: SpacePin; first: number; count: number; slot: number }[];
}

class Fuzz {
  readonly random: Prng;
  readonly threads: VirtualMemory[];
  readonly members: Member[] = [];
  readonly memories: { memory: SharedMemory; pages: Uint8Array[] }[] = [];
  readonly file: Uint8Array;
  readonly path: string;
  /** A file that is mapped shared: its pages as they must be, and how many it has. It grows. */
  readonly sharedPath: string;
  readonly sharedPages: Uint8Array[] = [];
  readonly cookie: ReturnType<VirtualMemory['pmem']['alloc']>;
  readonly cookiePages: Uint8Array[] = [];
  readonly heap: number;
  readonly heapPages: Uint8Array[] = [];
  forks = 0;
  grown = 0;
  words = 0;

  constructor(seed: number, folder: string) {
    this.random = new Prng(seed);
    const first = boot({ memory: '4 MiB', services: 'manual', slots: 8 });
    this.threads = [first, attach(first.handle()), attach(first.handle())];
    this.cookie = first.pmem.alloc({ size: 12 * PAGE });
    this.heap = first.heap.alloc(12 * PAGE);
    for (const [page, frame] of first.pmem.getPfns(this.cookie, 0, 12).entries()) {
      first.banks.view(frame * PAGE, PAGE).fill(page);
      this.cookiePages.push(new Uint8Array(PAGE).fill(page));
      this.heapPages.push(new Uint8Array(PAGE).fill(page + 50));
      first.banks.view(this.heap + page * PAGE, PAGE).fill(page + 50);
    }
    this.file = Uint8Array.from({ length: 20 * PAGE - 100 }, (_, at) => (at * 7 + (at >> 8)) & 255);
    this.path = join(folder, 'mapped');
    writeFileSync(this.path, this.file);
    this.sharedPath = join(folder, 'shared');
    for (let page = 0; page < SHARED_PAGES; page++) this.sharedPages.push(this.newPage());
    writeFileSync(this.sharedPath, Buffer.concat(this.sharedPages));
  }

  newPage(): Uint8Array {
    const value = this.random.below(256);
    return Uint8Array.from({ length: PAGE }, (_, at) => (value + at) & 255);
  }

  any<Value>(list: readonly Value[]): Value {
    return list[this.random.below(list.length)] as Value;
  }

  thread(): number {
    return this.random.below(this.threads.length);
  }

  add(made: AddressSpace, at: number, pages: (ModelPage | null)[]): void {
    const views = this.threads.map((vm, thread) => (thread === at ? made : vm.addressSpace(made.id)));
    this.members.push({ id: made.id, views, pages, pins: [] });
  }

  step(): void {
    const at = this.thread();
    if (this.members.length === 0) {
      this.add(
        (this.threads[at] as VirtualMemory).addressSpace({ base: BASE, limit: BASE + PAGES * PAGE }),
        at,
        new Array(PAGES).fill(null),
      );
    }
    const member = this.any(this.members);
    const as = member.views[at] as AddressSpace;
    const choice = this.random.below(100);
    if (choice < 12) this.map(member, as, at);
    else if (choice < 20) this.unmap(member, as);
    else if (choice < 26) this.protect(member, as);
    else if (choice < 55) this.write(member, as);
    else if (choice < 75) this.read(member, as);
    else if (choice < 80) this.word(member, as);
    else if (choice < 85) this.pin(member, as, at);
    else if (choice < 91) this.unpin(member);
    else if (choice < 95) this.fork(member, as, at);
    else if (choice < 96) this.destroy(member, as);
    else if (choice < 98) this.advise(member, as);
    else if (choice < 99) this.grow(at);
    else this.free(member, as);
  }

  range(): [number, number] {
    const first = this.random.below(PAGES);
    return [first, 1 + this.random.below(Math.min(12, PAGES - first))];
  }

  pinned(member: Member, first: number, count: number): boolean {
    return member.pins.some((pin) => pin.first < first + count && pin.first + pin.count > first);
  }

  map(member: Member, as: AddressSpace, at: number): void {
    const [first, count] = this.range();
    const address = BASE + first * PAGE;
    const free = member.pages.slice(first, first + count).every((page) => page === null);
    const kind = this.random.below(7);
    const size = count * PAGE;
    if (!free) {
      expect(() => as.map({ size, address })).toThrow(/EEXIST/);
      return;
    }
    const vm = this.threads[at] as VirtualMemory;
    if (kind === 0 && count <= 20) {
      const file = vm.open(this.path);
      const skip = this.random.below(20 - count + 1);
      as.map({ size, address, file, offset: skip * PAGE });
      file.close();
      for (let page = 0; page < count; page++) {
        const bytes = new Uint8Array(PAGE);
        bytes.set(this.file.subarray((skip + page) * PAGE, (skip + page + 1) * PAGE));
        member.pages[first + page] = { bytes, shared: false, protection: 'write' };
      }
      return;
    }
    if (kind === 4) {
      this.mapShared(member, as, vm, first, count);
      return;
    }
    if (kind > 4) {
      const skip = this.random.below(12 - count + 1);
      if (kind === 5) as.map({ size, address, cookie: this.cookie, offset: skip * PAGE });
      else as.map({ size, address, physical: this.heap + skip * PAGE, shared: true });
      const source = (kind === 5 ? this.cookiePages : this.heapPages).slice(skip, skip + count);
      for (const [page, bytes] of source.entries())
        member.pages[first + page] = { bytes, shared: true, protection: 'write' };
      return;
    }
    if (kind === 1) {
      if (this.memories.length < 2) {
        const memory = vm.sharedMemory({ size: 12 * PAGE, wired: this.random.chance(0.5) });
        this.memories.push({ memory, pages: Array.from({ length: 12 }, () => new Uint8Array(PAGE)) });
      }
      const { memory, pages } = this.any(this.memories);
      const skip = this.random.below(12 - count + 1);
      as.map({ size, address, memory: vm.sharedMemory(memory.id), offset: skip * PAGE });
      for (let page = 0; page < count; page++) {
        member.pages[first + page] = { bytes: pages[skip + page] as Uint8Array, shared: true, protection: 'write' };
      }
      return;
    }
    as.map({ size, address });
    for (let page = 0; page < count; page++) {
      member.pages[first + page] = { bytes: new Uint8Array(PAGE), shared: false, protection: 'write' };
    }
  }

  /** A shared mapping of the file that grows, from some page on, perhaps for reading only. */
  mapShared(member: Member, as: AddressSpace, vm: VirtualMemory, first: number, count: number): void {
    const pages = Math.min(count, this.sharedPages.length);
    const skip = this.random.below(this.sharedPages.length - pages + 1);
    const writes = this.random.chance(0.7);
    const file = vm.open(this.sharedPath, { mode: writes ? 'rw' : 'r' });
    const address = BASE + first * PAGE;
    as.map({ size: pages * PAGE, address, file, shared: true, offset: skip * PAGE });
    file.close();
    if (!writes) {
      expect(() => as.protect(address, PAGE, 'write')).toThrow(/EINVAL/);
    }
    for (let page = 0; page < pages; page++) {
      const bytes = this.sharedPages[skip + page] as Uint8Array;
      member.pages[first + page] = { bytes, shared: true, protection: writes ? 'write' : 'read', readOnly: !writes };
    }
  }

  /** The file gets a page more: what is mapped behind its old end would have been refused before. */
  grow(at: number): void {
    if (this.sharedPages.length >= 2 * SHARED_PAGES) return;
    const vm = this.threads[at] as VirtualMemory;
    const page = this.newPage();
    const file = vm.open(this.sharedPath, { mode: 'rw' });
    file.write(this.sharedPages.length * PAGE, page);
    file.close();
    this.sharedPages.push(page);
    this.grown++;
  }

  /** Advice that changes nothing that can be read. */
  advise(member: Member, as: AddressSpace): void {
    const [first, count] = this.range();
    const advice = this.any(['willNeed', 'dontNeed', 'random', 'sequential', 'normal'] as const);
    const give = () => as.advise(BASE + first * PAGE, count * PAGE, advice);
    const pages = member.pages.slice(first, first + count);
    const readable = advice !== 'willNeed' || pages.every((page) => page?.protection !== 'none');
    if (pages.every((page) => page !== null) && readable) give();
    else expect(give).toThrow(/EFAULT/);
  }

  unmap(member: Member, as: AddressSpace): void {
    const [first, count] = this.range();
    const unmap = () => as.unmap(BASE + first * PAGE, count * PAGE);
    if (this.pinned(member, first, count)) {
      expect(unmap).toThrow(/EBUSY/);
      return;
    }
    unmap();
    member.pages.fill(null, first, first + count);
  }

  protect(member: Member, as: AddressSpace): void {
    const [first, count] = this.range();
    const protection = this.any(['none', 'read', 'write'] as const);
    const change = () => as.protect(BASE + first * PAGE, count * PAGE, protection);
    const pages = member.pages.slice(first, first + count);
    if (this.pinned(member, first, count)) expect(change).toThrow(/EBUSY/);
    else if (pages.some((page) => page === null)) {
      expect(change).toThrow(protection === 'write' ? /EFAULT|EINVAL/ : /EFAULT/);
    } else if (protection === 'write' && pages.some((page) => page?.readOnly)) expect(change).toThrow(/EINVAL/);
    else {
      change();
      for (const page of pages) (page as ModelPage).protection = protection;
    }
  }

  write(member: Member, as: AddressSpace): void {
    const start = this.random.below(PAGES * PAGE - 1);
    const length = Math.min(1 + this.random.below(this.random.chance(0.3) ? 3 * PAGE : 64), PAGES * PAGE - start);
    const bytes = Uint8Array.from({ length }, () => this.random.below(256));
    const last = Math.floor((start + length - 1) / PAGE);
    const pages = member.pages.slice(Math.floor(start / PAGE), last + 1);
    if (!pages.every((page) => page?.protection === 'write')) {
      // As a whole: no page before the wrong one has changed.
      expect(() => as.write(BASE + start, bytes)).toThrow(/EFAULT/);
      return;
    }
    as.write(BASE + start, bytes);
    for (let at = start; at < start + length; at++) {
      (member.pages[Math.floor(at / PAGE)] as ModelPage).bytes[at % PAGE] = bytes[at - start] as number;
    }
  }

  /** A word is stored, added to or swapped, through the space or a cursor that keeps pages for several words. */
  word(member: Member, as: AddressSpace): void {
    using cursor = as.cursor({ pages: 2 });
    for (let turn = 0; turn < 4; turn++) {
      const by = this.random.chance(0.5) ? as : cursor;
      const at = 4 * this.random.below((PAGES * PAGE) / 4);
      const page = member.pages[Math.floor(at / PAGE)] ?? null;
      const value = this.random.below(2 ** 31);
      if (page?.protection !== 'write') {
        expect(() => by.add(BASE + at, value)).toThrow(/EFAULT/);
        continue;
      }
      this.words++;
      const model = new DataView(page.bytes.buffer, page.bytes.byteOffset + (at % PAGE), 4);
      const held = model.getInt32(0, true);
      const way = this.random.below(4);
      if (way === 0) by.store(BASE + at, value);
      else if (way === 1) expect(by.add(BASE + at, value)).toBe(held);
      else expect(by.compareAndSwap(BASE + at, way === 2 ? held : held + 1, value)).toBe(held);
      if (way < 3) model.setInt32(0, way === 1 ? held + value : value, true);
      expect([as.load(BASE + at), cursor.load(BASE + at)]).toEqual([model.getInt32(0, true), model.getInt32(0, true)]);
    }
  }

  read(member: Member, as: AddressSpace): void {
    const [first, count] = this.range();
    const pages = member.pages.slice(first, first + count);
    const read = () => as.read(BASE + first * PAGE, count * PAGE);
    if (pages.some((page) => page === null || page.protection === 'none')) {
      expect(read).toThrow(/EFAULT/);
      return;
    }
    const found = read();
    pages.forEach((page, at) => {
      const bytes = found.subarray(at * PAGE, (at + 1) * PAGE);
      if (Buffer.compare(bytes, (page as ModelPage).bytes) !== 0) throw new Error(`page ${first + at} reads wrong`);
    });
  }

  pin(member: Member, as: AddressSpace, slot: number): void {
    const [first, count] = this.range();
    const pages = member.pages.slice(first, first + Math.min(count, 4));
    const access = this.random.chance(0.5) ? 'write' : 'read';
    const allowed = (page: ModelPage | null) =>
      page !== null && (access === 'write' ? page.protection === 'write' : page.protection !== 'none');
    const pin = () => as.pin(BASE + first * PAGE, pages.length * PAGE, access);
    if (!pages.every(allowed)) {
      expect(pin).toThrow(/EFAULT/);
      return;
    }
    const made = pin();
    member.pins.push({ pin: made, first, count: pages.length, slot });
    expect(made.pieces.reduce((sum, piece) => sum + piece.length, 0)).toBe(pages.length * PAGE);
    this.compare(made, pages as ModelPage[]);
    if (access === 'read') return;
    const offset = this.random.below(pages.length * PAGE);
    let skip = offset;
    for (const view of made.views) {
      if (skip < view.length) {
        view[skip] = 123;
        break;
      }
      skip -= view.length;
    }
    (pages[Math.floor(offset / PAGE)] as ModelPage).bytes[offset % PAGE] = 123;
  }

  unpin(member: Member): void {
    if (member.pins.length === 0) return;
    const [{ pin, first, count }] = member.pins.splice(this.random.below(member.pins.length), 1) as [Member['pins'][0]];
    this.compare(pin, member.pages.slice(first, first + count) as ModelPage[]);
    pin.release();
    expect(() => pin.release()).toThrow(/EINVAL/);
  }

  /** A pin shows what the space has, also after writes and forks. */
  compare(pin: SpacePin, pages: readonly ModelPage[]): void {
    const bytes = Buffer.concat(pin.views.map((view) => Uint8Array.prototype.slice.call(view)));
    const expected = Buffer.concat(pages.map((page) => page.bytes));
    if (Buffer.compare(bytes, expected) !== 0) throw new Error('a pin shows something else than the space');
  }

  fork(member: Member, as: AddressSpace, at: number): void {
    if (this.members.length > 7) return;
    this.forks++;
    const pages = member.pages.map((page) =>
      page === null ? null : page.shared ? { ...page } : { ...page, bytes: Uint8Array.from(page.bytes) },
    );
    this.add(as.fork(), at, pages);
  }

  destroy(member: Member, as: AddressSpace): void {
    if (member.pins.length > 0) {
      expect(() => as.destroy()).toThrow(/EBUSY/);
      return;
    }
    as.destroy();
    expect(() => as.read(BASE, 1)).toThrow(/ESTALE|EFAULT/);
    this.members.splice(this.members.indexOf(member), 1);
  }

  free(member: Member, as: AddressSpace): void {
    const [first, count] = this.range();
    const pages = member.pages.slice(first, first + count);
    if (pages.some((page) => page === null) || this.pinned(member, first, count)) return;
    if (pages.some((page) => page?.shared)) return;
    // What becomes of pages of files is another matter.
    const infos = [...Array(count).keys()].map((page) => as.lookup(BASE + (first + page) * PAGE));
    if (infos.some((info) => info === null || info.vnode >= 0)) return;
    as.advise(BASE + first * PAGE, count * PAGE, 'free');
    for (const page of pages) (page as ModelPage).bytes.fill(0);
  }

  check(): void {
    const vm = this.threads[0] as VirtualMemory;
    const problems = vm.check().flatMap((report) => report.problems);
    if (problems.length > 0) throw new Error(problems.join('\n'));
  }

  /** Everything goes: all frames are free, and all of them are one run. */
  end(): void {
    for (const member of this.members) {
      for (const { pin } of member.pins.splice(0)) pin.release();
    }
    while (this.members.length > 0) {
      const member = this.any(this.members);
      this.destroy(member, member.views[0] as AddressSpace);
    }
  }

  oracle(): void {
    const vm = this.threads[0] as VirtualMemory;
    for (const { memory } of this.memories) vm.sharedMemory(memory.id).release();
    vm.pmem.free(this.cookie);
    vm.pmem.trim();
    vm.heap.free(this.heap, 12 * PAGE);
    vm.heap.trim();
    vm.spaces.reap();
    this.check();
    const shared = vm.open(this.sharedPath, { mode: 'rw' });
    shared.sync();
    shared.close();
    expect(Buffer.compare(readFileSync(this.sharedPath), Buffer.concat(this.sharedPages))).toBe(0);
    for (const other of this.threads.slice(1)) other.detach();
    vm.vnodes.dropUnused();
    const { free, total } = vm.frames.counts();
    expect(free).toBe(total);
    expect(vm.frames.takeRun(total)).toBe(0);
    vm.frames.giveRun(0, total);
    expect(vm.spaces.statistics()).toMatchObject({ spaces: 0, segments: 0, maps: 0, nodes: 0, anons: 0, reserved: 0 });
    vm.detach();
  }
}

describe('address spaces against arrays', () => {
  for (let run = 0; run < 4; run++) {
    it(`agree, run ${run}`, () => {
      const seed = testSeed('address spaces against arrays', 4700 + run);
      const scratch = new Scratch();
      try {
        const fuzz = new Fuzz(seed, scratch.directory);
        for (let step = 0; step < STEPS; step++) {
          try {
            fuzz.step();
            if (step % 250 === 0) fuzz.check();
          } catch (error) {
            throw new Error(`seed ${seed}, step ${step}: ${(error as Error).stack}`);
          }
        }
        expect(fuzz.forks).toBeGreaterThan(10);
        expect(fuzz.grown).toBeGreaterThan(3);
        expect(fuzz.words).toBeGreaterThan(50);
        fuzz.end();
        fuzz.oracle();
      } finally {
        scratch.remove();
      }
    });
  }
});
