/** The drivers of segments, one after another: devices, physical memory, users' own, files, wired shared memory; and segments alone. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { CACHING, DEVICE_MAP_FLAG } from '../src/pmem/index.ts';
import { type AddressSpace, type SegmentDriver, type SegmentView, SPACE_STATE } from '../src/seg/index.ts';
import { attach, boot, type VirtualMemory } from '../src/system/index.ts';
import { Scratch } from './support/scratch.ts';

const PAGE = 4096;
const booted: VirtualMemory[] = [];

function start(options: Parameters<typeof boot>[0] = { memory: '2 MiB' }): VirtualMemory {
  const vm = boot({ slots: 6, services: 'manual', ...options });
  booted.push(vm);
  return vm;
}

/** Everything goes, and nothing is left of it. */
afterEach(() => {
  for (const vm of booted.splice(0)) {
    for (const id of vm.spaces.list()) vm.addressSpace(id).destroy();
    for (const id of vm.spaces.shared.list()) vm.sharedMemory(id).release();
    for (const cookie of vm.pmem.cookies()) vm.pmem.free(cookie);
    vm.pmem.trim();
    vm.vnodes.dropUnused();
    if (vm.arenas.has('vm.heap')) vm.heap.trim();
    expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
    expect(vm.spaces.statistics()).toMatchObject({ spaces: 0, segments: 0, maps: 0, anons: 0, pins: 0, reserved: 0 });
    const { deviceMap } = vm.region.tables;
    for (let row = 0; row < deviceMap.rowCount; row++) expect(deviceMap.claim.get(row)).toBe(0);
    vm.detach();
  }
});

function bytesAt(vm: VirtualMemory, frame: number): Uint8Array {
  return vm.banks.view(frame * PAGE, PAGE);
}

describe('devices', () => {
  it('show the frames of a cookie, from an offset on, until the cookie is freed', () => {
    const vm = start();
    const cookie = vm.pmem.alloc({ size: 6 * PAGE });
    const frames = vm.pmem.getPfns(cookie, 0, 6);
    const as = vm.addressSpace();
    const at = as.map({ size: 4 * PAGE, cookie, offset: PAGE });
    expect(as.lookup(at)).toMatchObject({ driver: 'device', shared: true, size: 4 * PAGE });
    as.write(at + PAGE - 1, Uint8Array.of(1, 2));
    expect(bytesAt(vm, frames[1] as number)[PAGE - 1]).toBe(1);
    expect(bytesAt(vm, frames[2] as number)[0]).toBe(2);
    bytesAt(vm, frames[4] as number).fill(9);
    expect(as.read(at + 3 * PAGE, 3)).toEqual(Uint8Array.of(9, 9, 9));
    as.store(at + 8, 41);
    expect([as.add(at + 8, 1), as.compareAndSwap(at + 8, 42, 7), as.load(at + 8)]).toEqual([41, 42, 7]);
    as.protect(at, PAGE, 'read');
    expect(() => as.store(at, 1)).toThrow(/EFAULT/);
    expect(() => as.map({ size: 6 * PAGE, cookie, offset: PAGE })).toThrow(/EINVAL.*cookie ends/);
    vm.pmem.free(cookie);
    expect(() => as.read(at, 1)).toThrow(/EFAULT.*cookie was freed/);
    expect(() => as.map({ size: PAGE, cookie })).toThrow(/ESTALE/);
  });

  it('keep a cookie while one of its mappings is pinned', () => {
    const vm = start({ memory: '6 MiB' });
    const cookie = vm.pmem.alloc({ size: 6 * PAGE });
    const as = vm.addressSpace();
    const at = as.map({ size: 4 * PAGE, cookie, offset: PAGE });
    as.map({ address: at + 4 * PAGE, size: PAGE });
    const copy = as.fork();
    const other = as.pin(at + 4 * PAGE, PAGE, 'write');
    const pins = [as.pin(at + PAGE, PAGE, 'write'), copy.pin(at, PAGE, 'read')];
    for (const pin of pins) {
      expect(() => vm.pmem.free(cookie)).toThrow(new RegExp(`EBUSY.*pinnedBy=${vm.thread.slot}`));
      as.store(at + 2 * PAGE, 5);
      expect(copy.load(at + 2 * PAGE)).toBe(5);
      pin.release();
    }
    // What is pinned beside it does not matter.
    vm.pmem.free(cookie);
    expect(() => as.pin(at, PAGE, 'read')).toThrow(/EFAULT.*cookie was freed/);
    other.release();
  });

  it('do not show cookies whose frames move', () => {
    const vm = start();
    vm.callbacks.register('mover', { before: () => true, after: () => {} });
    const [cookie, still] = [
      vm.pmem.alloc({ size: PAGE, movable: { export: 'mover' } }),
      vm.pmem.alloc({ size: PAGE }),
    ];
    const as = vm.addressSpace();
    expect(() => as.map({ size: PAGE, cookie })).toThrow(/EINVAL.*movable/);
    const at = as.map({ size: PAGE, cookie: still });
    expect(() => as.remap(at, { cookie })).toThrow(/EINVAL/);
    expect(as.read(at, 1)[0]).toBe(bytesAt(vm, vm.pmem.getPfns(still, 0, 1)[0] as number)[0]);
  });

  it('show something else after a remap, in copies too', () => {
    const vm = start();
    const other = attach(vm.handle());
    const [one, two] = [vm.pmem.alloc({ size: 3 * PAGE }), vm.pmem.alloc({ size: 4 * PAGE })];
    for (const [cookie, fill] of [
      [one, 1],
      [two, 2],
    ] as const) {
      for (const frame of vm.pmem.getPfns(cookie, 0, cookie.frames)) bytesAt(vm, frame).fill(fill);
    }
    const as = vm.addressSpace();
    const at = as.map({ size: 3 * PAGE, cookie: one });
    const copy = as.fork();
    const there = other.addressSpace(as.id);
    const look = () => [as, copy, there].map((space) => space.read(at + 2 * PAGE, 1)[0]);
    expect(look()).toEqual([1, 1, 1]);
    as.remap(at, { cookie: two, offset: PAGE });
    expect(look()).toEqual([2, 2, 2]);
    const pin = as.pin(at + 2 * PAGE, 1, 'read');
    expect(pin.pieces[0]?.offset).toBe((vm.pmem.getPfns(two, 3, 1)[0] as number) * PAGE);
    // A pin in any of the spaces keeps what it shows.
    expect(() => as.remap(at, { cookie: one })).toThrow(/EBUSY/);
    expect(() => copy.remap(at, { cookie: one })).toThrow(/EBUSY/);
    expect(() => copy.remap(at, { cookie: one, timeoutMs: 5 })).toThrow(/ETIMEDOUT/);
    expect(look()).toEqual([2, 2, 2]);
    pin.release();
    copy.remap(at, { cookie: one, timeoutMs: 5 });
    expect(look()).toEqual([1, 1, 1]);
    expect(() => as.remap(at, { cookie: two, offset: 2 * PAGE })).toThrow(/EINVAL.*ends before/);
    expect(() => as.remap(at, { cookie: two, offset: 5 })).toThrow(/EINVAL/);
    const plain = as.map({ size: PAGE });
    expect(() => as.remap(plain, { cookie: one })).toThrow(/ENOTSUP/);
    expect(() => as.remap(plain + 64 * PAGE, { cookie: one })).toThrow(/EFAULT/);
    other.detach();
  });

  it('show at their beginning the offset that a remap gives, whatever was mapped at first, in all their parts', () => {
    const vm = start();
    const cookie = vm.pmem.alloc({ size: 16 * PAGE });
    const as = vm.addressSpace();
    const all = as.map({ size: 16 * PAGE, cookie });
    for (let page = 0; page < 16; page++) as.store(all + page * PAGE, page);
    const at = as.map({ size: 4 * PAGE, cookie, offset: 2 * PAGE });
    const look = (...pages: number[]) => pages.map((page) => as.load(at + page * PAGE));
    expect(look(0, 3)).toEqual([2, 5]);
    as.remap(at, { cookie, offset: 2 * PAGE });
    expect(look(0, 3)).toEqual([2, 5]);
    as.remap(at, { cookie });
    expect(look(0, 3)).toEqual([0, 3]);
    as.remap(at + 2 * PAGE, { cookie, offset: 12 * PAGE });
    expect(look(0, 3)).toEqual([12, 15]);
    // What a cut leaves keeps its place, and moves as one, whichever part is named.
    as.unmap(at, PAGE);
    as.protect(at + 2 * PAGE, PAGE, 'read');
    as.remap(at + 3 * PAGE, { cookie, offset: 5 * PAGE });
    expect(look(1, 2, 3)).toEqual([6, 7, 8]);
    // The last part would lie behind the cookie, though not the one that is named.
    for (const page of [1, 2, 3]) {
      expect(() => as.remap(at + page * PAGE, { cookie, offset: 13 * PAGE })).toThrow(/EINVAL.*ends before/);
    }
    expect(look(1, 2, 3)).toEqual([6, 7, 8]);
    expect(as.load(all + 15 * PAGE)).toBe(15);
    // A device map of the program's own is moved itself: a mapping that begins in its middle shows that much more.
    const map = vm.deviceMaps.create({ originalMaxProtection: 7, maxProtection: 7, protection: 3 });
    const flags = CACHING.uncached | DEVICE_MAP_FLAG.allowRemap;
    vm.deviceMaps.setup(map, { cookie, offset: PAGE, length: 8 * PAGE, maxProtection: 7, flags });
    const inside = as.map({ size: 2 * PAGE, deviceMap: map, offset: 3 * PAGE });
    expect(as.load(inside)).toBe(4);
    as.remap(inside, { cookie, offset: 10 * PAGE });
    expect([as.load(inside), vm.deviceMaps.state(map).offset]).toEqual([13, 10 * PAGE]);
    as.destroy();
    vm.deviceMaps.destroy(map);
  });

  it('can be remapped when the pin is released, and use a map that the program has set up', () => {
    const vm = start();
    const cookie = vm.pmem.alloc({ size: 4 * PAGE });
    const frames = vm.pmem.getPfns(cookie, 0, 4);
    for (const [page, frame] of frames.entries()) bytesAt(vm, frame).fill(page + 1);
    const map = vm.deviceMaps.create({ originalMaxProtection: 7, maxProtection: 7, protection: 3 });
    const flags = CACHING.uncached | DEVICE_MAP_FLAG.allowRemap;
    expect(vm.deviceMaps.setup(map, { cookie, offset: PAGE, length: 2 * PAGE, maxProtection: 7, flags })).toBe(true);
    const as = vm.addressSpace();
    const at = as.map({ size: 2 * PAGE, deviceMap: map });
    expect(as.read(at, 1)[0]).toBe(2);
    const pin = as.pin(at, 2 * PAGE, 'write');
    expect(() => as.remap(at, { cookie, offset: 2 * PAGE })).toThrow(/EBUSY/);
    pin.release();
    as.remap(at, { cookie, offset: 2 * PAGE });
    expect([as.read(at, 1)[0], as.read(at + PAGE, 1)[0]]).toEqual([3, 4]);
    expect(vm.deviceMaps.state(map)).toMatchObject({ offset: 2 * PAGE, length: 2 * PAGE });
    as.unmap(at, 2 * PAGE);
    // It was not made for the mapping: it stays.
    vm.deviceMaps.destroy(map);
  });
});

describe('physical memory', () => {
  it('is mapped at a distance that stays, cut and pinned', () => {
    const vm = start();
    const heap = vm.heap.alloc(4 * PAGE);
    const as = vm.addressSpace();
    const at = as.map({ size: 4 * PAGE, physical: heap, protection: 'write', shared: true });
    expect(as.lookup(at)).toMatchObject({ driver: 'kernel', backing: heap });
    as.fill(at, 5, 4 * PAGE);
    expect(vm.banks.view(heap, 4 * PAGE).every((byte) => byte === 5)).toBe(true);
    as.unmap(at + PAGE, PAGE);
    expect(as.lookup(at + 2 * PAGE)).toMatchObject({ backing: heap + 2 * PAGE });
    as.store(at + 3 * PAGE, 77);
    expect(vm.banks.view(heap + 3 * PAGE, 1)[0]).toBe(77);
    const pin = as.pin(at + 2 * PAGE, 2 * PAGE, 'write');
    expect(pin.pieces).toEqual([{ address: at + 2 * PAGE, bank: 0, offset: heap + 2 * PAGE, length: 2 * PAGE }]);
    (pin.views[0] as Uint8Array)[0] = 6;
    expect(as.read(at + 2 * PAGE, 1)[0]).toBe(6);
    pin.release();
    // A copy shows the same memory.
    const copy = as.fork();
    copy.store(at, 1234);
    expect(as.load(at)).toBe(1234);
    expect(() => as.map({ size: 4 * PAGE, physical: 2 ** 40 })).toThrow(/EINVAL.*physical memory ends/);
    expect(() => as.map({ size: PAGE, physical: 100 })).toThrow(/EINVAL/);
    copy.destroy();
    as.destroy();
    vm.heap.free(heap, 4 * PAGE);
  });
});

/** A driver that shows heap memory at the address in `data`, and writes down what it is told. */
class HeapWindow implements SegmentDriver {
  readonly told: string[] = [];
  readonly live = new Set<number>();
  readonly vm: VirtualMemory;
  refuseForks = false;

  constructor(vm: VirtualMemory) {
    this.vm = vm;
  }

  fault({ data }: SegmentView, offset: number): number {
    if (offset === 7 * PAGE) throw new RangeError('there is nothing here');
    return offset === 6 * PAGE ? 17 : data + offset;
  }

  make(size: number): number {
    const at = this.vm.heap.alloc(size);
    this.live.add(at);
    return at;
  }

  unmapped({ data, size }: SegmentView, offset: number, length: number): void {
    this.told.push(`unmapped ${offset / PAGE} ${length / PAGE}`);
    if (length !== size) return;
    // All of what it has at once: it is nobody's any more. It bears being told twice.
    if (this.live.delete(data)) this.vm.heap.free(data, size);
  }

  sync(_segment: SegmentView, offset: number, length: number): void {
    this.told.push(`sync ${offset / PAGE} ${length / PAGE}`);
  }

  advise(_segment: SegmentView, offset: number, length: number, advice: string): void {
    this.told.push(`${advice} ${offset / PAGE} ${length / PAGE}`);
  }

  fork({ data, size }: SegmentView): number {
    if (this.refuseForks) throw new Error('no copies today');
    const copy = this.make(size);
    this.vm.banks.view(copy, size).set(this.vm.banks.view(data, size));
    return copy;
  }
}

function withWindows(count: number): { vm: VirtualMemory; as: AddressSpace; driver: HeapWindow; places: number[] } {
  const vm = start({ memory: '4 MiB', addressSpaces: 3 });
  const driver = new HeapWindow(vm);
  vm.callbacks.register('window', driver);
  const as = vm.addressSpace();
  const places = Array.from({ length: count }, () =>
    as.map({ size: 8 * PAGE, driver: { export: 'window' }, data: driver.make(8 * PAGE) }),
  );
  return { vm, as, driver, places };
}

describe("users' own drivers", () => {
  it('serve faults, and are told about parts, advice and syncs', () => {
    const { vm, as, driver, places } = withWindows(1);
    const at = places[0] as number;
    as.write(at + 2 * PAGE - 1, Uint8Array.of(3, 4));
    const [base] = driver.live;
    expect(vm.banks.view((base as number) + 2 * PAGE - 1, 2).slice()).toEqual(Uint8Array.of(3, 4));
    expect(() => as.read(at + 7 * PAGE, 1)).toThrow(/there is nothing here/);
    expect(() => as.read(at + 6 * PAGE, 1)).toThrow(/EFAULT.*physical address of a page/);
    expect(() => as.pin(at, PAGE, 'read')).toThrow(/ENOTSUP.*cannot be pinned/);
    as.sync(at + PAGE, PAGE);
    as.advise(at, 2 * PAGE, 'sequential');
    as.advise(at + 4 * PAGE, PAGE, 'dontNeed');
    // Where its module or name is not known, an access says so.
    const other = attach(vm.handle());
    expect(() => other.addressSpace(as.id).read(at, 1)).toThrow(/ENOENT.*window.*not registered in this thread/);
    other.detach();
    // The advice has cut it in two; offsets go on counting from the beginning.
    as.unmap(at + 5 * PAGE, PAGE);
    expect(driver.told).toEqual(['sync 1 1', 'sequential 0 2', 'dontNeed 4 1', 'unmapped 5 1']);
    expect(() => as.read(at + 5 * PAGE, 1)).toThrow(/EFAULT/);
    for (const place of driver.live) vm.heap.free(place, 8 * PAGE);
    driver.live.clear();
  });

  it('see the same pages at the same offsets in what a cut leaves, in copies and in copies of parts', () => {
    const { vm, as, driver, places } = withWindows(1);
    const at = places[0] as number;
    const [base] = driver.live as unknown as [number];
    const seen: [number, number, number][] = [];
    driver.unmapped = ({ data }, offset, length) => {
      if (data === base) driver.told.push(`${offset / PAGE} ${length / PAGE}`);
    };
    const fault = driver.fault.bind(driver);
    driver.fault = (segment, offset) => {
      seen.push([segment.start / PAGE, segment.size / PAGE, offset / PAGE]);
      return fault(segment, offset);
    };
    // Four pieces: 0, 2, 3 with an advice of its own, 4 to 5; 1 and 6 to 7 are gone.
    as.unmap(at + PAGE, PAGE);
    as.unmap(at + 6 * PAGE, 2 * PAGE);
    as.protect(at + 3 * PAGE, PAGE, 'read');
    as.unmap(at + 2 * PAGE, PAGE);
    as.advise(at + 3 * PAGE, PAGE, 'random'); // else it would be one with 4 to 5 again
    as.protect(at + 3 * PAGE, PAGE, 'write');
    for (const page of [0, 3, 4, 5]) as.store(at + page * PAGE, page + 1);
    expect(seen).toEqual([
      [0, 1, 0],
      [3, 1, 3],
      [4, 2, 4],
      [4, 2, 5],
    ]);
    for (const page of [0, 3, 4, 5]) expect(vm.banks.view(base + page * PAGE, 1)[0]).toBe(page + 1);
    expect(driver.told).toEqual(['1 1', '6 2', '2 1', 'random 3 1']);
    // A copy of a part has memory for that part.
    const forks: [number, number][] = [];
    const copies: [number, number][] = [];
    driver.fork = ({ data, size, start: from }) => {
      forks.push([from / PAGE, size / PAGE]);
      const made = vm.heap.alloc(size);
      copies.push([made, size]);
      vm.banks.view(made, size).set(vm.banks.view(data + from, size));
      return made - from;
    };
    const copy = as.fork();
    expect(forks).toEqual([
      [0, 1],
      [3, 1],
      [4, 2],
    ]);
    as.store(at + 5 * PAGE, 99);
    expect([0, 3, 4, 5].map((page) => copy.load(at + page * PAGE))).toEqual([1, 4, 5, 6]);
    driver.fork = () => Number.NaN;
    expect(() => as.fork()).toThrow(/EINVAL.*driver\.fork\(data=NaN\)/);
    copy.destroy();
    as.destroy();
    expect(driver.told.slice(4)).toEqual(['0 1', '3 1', '4 2']);
    for (const [place, size] of [...copies, [base, 8 * PAGE] as const]) vm.heap.free(place, size);
  });

  it('copy their memory at a fork, and get it back whatever becomes of the copy', () => {
    const { vm, as, driver, places } = withWindows(3);
    for (const [index, at] of places.entries()) as.fill(at, index + 1, PAGE);
    const copy = as.fork();
    expect(driver.live.size).toBe(6);
    as.fill(places[1] as number, 99, PAGE);
    expect(copy.read(places[1] as number, 1)[0]).toBe(2);
    copy.destroy();
    expect(driver.live.size).toBe(3);
    // One of three refuses: what the others gave goes back.
    const fork = driver.fork.bind(driver);
    let asked = 0;
    driver.fork = (segment) => {
      if (++asked === 3) throw new Error('no copies today');
      return fork(segment);
    };
    expect(() => as.fork()).toThrow(/no copies today/);
    expect([asked, driver.live.size]).toEqual([3, 3]);
    // No row for the copy's segments, half-way.
    driver.fork = fork;
    const full = vm.region.geometry.segments - vm.spaces.statistics().segments - 2;
    const filler = vm.addressSpace();
    for (let row = 0; row < full; row++) filler.allocSegment(2 ** 30 + 2 * row * PAGE, PAGE, true);
    expect(() => as.fork()).toThrow(/ENOMEM.*segments/);
    expect(driver.live.size).toBe(3);
    expect(vm.spaces.list()).toHaveLength(2);
    // No row for the copy.
    const third = vm.addressSpace();
    expect(() => as.fork()).toThrow(/ENOMEM/);
    expect(driver.live.size).toBe(3);
    third.destroy();
    filler.destroy();
    expect(places.map((at) => as.read(at, 1)[0])).toEqual([1, 99, 3]);
    as.destroy();
    expect(driver.live.size).toBe(0);
  });

  it('are told by whoever takes a dead thread’s space apart, if that thread knows them', () => {
    for (const isKnown of [true, false]) {
      const { vm, as, driver } = withWindows(2);
      const other = attach(vm.handle());
      const dying = attach(vm.handle());
      if (isKnown) other.callbacks.register('window', driver);
      // Where a destruction stands before the first segment goes: nobody else sees the space.
      const { addressSpace, spaceSlot } = vm.region.tables;
      addressSpace.state.put(as.id.space, SPACE_STATE.unsettled);
      spaceSlot.unsettled.put(dying.slot, as.id.space + 1);
      other.recover(dying.slot);
      expect(driver.live.size).toBe(isKnown ? 0 : 2);
      expect(vm.spaces.statistics()).toMatchObject({ spaces: 0, untold: isKnown ? 0 : 2 });
      for (const place of driver.live) vm.heap.free(place, 8 * PAGE);
      other.detach();
    }
  });
});

describe('files', () => {
  it('are shared, and what was stored is in them after a sync; or private', () => {
    const scratch = new Scratch();
    const vm = start();
    const path = join(scratch.directory, 'mapped');
    const file = vm.open(path, { create: true, mode: 'rw' });
    file.write(0, new Uint8Array(3 * PAGE - 96).fill(1));
    const as = vm.addressSpace();
    const shared = as.map({ size: 3 * PAGE, file, shared: true });
    const own = as.map({ size: 2 * PAGE, file, offset: PAGE });
    as.write(shared + PAGE, Uint8Array.of(7, 8));
    expect(as.read(own, 2)).toEqual(Uint8Array.of(7, 8));
    expect(file.read(PAGE, 2)).toEqual(Uint8Array.of(7, 8));
    as.write(own, Uint8Array.of(9));
    as.write(shared + PAGE, Uint8Array.of(6));
    expect(as.read(own, 2)).toEqual(Uint8Array.of(9, 8));
    as.sync(shared, 3 * PAGE);
    expect([...readFileSync(path).subarray(PAGE, PAGE + 2)]).toEqual([6, 8]);
    // Behind the end of the file: zeros in its last page, and an error in the next one.
    expect(as.read(shared + 3 * PAGE - 4, 4)).toEqual(new Uint8Array(4));
    const beyond = as.map({ size: 2 * PAGE, file, shared: true, offset: 2 * PAGE });
    expect(() => as.read(beyond + PAGE, 1)).toThrow(/EFAULT.*end of the file/);
    const reader = vm.open(path);
    expect(() => as.map({ size: PAGE, file: reader, shared: true, protection: 'write' })).toThrow(/EINVAL/);
    const readOnly = as.map({ size: PAGE, file: reader, shared: true });
    expect(() => as.protect(readOnly, PAGE, 'write')).toThrow(/EINVAL/);
    // The mapping keeps the file open.
    file.close();
    reader.close();
    as.store(shared, 5);
    as.sync(shared, PAGE);
    expect(readFileSync(path)[0]).toBe(5);
    as.destroy();
    scratch.remove();
  });
});

describe('wired shared memory', () => {
  it('has one shadow list for all who map and pin it, and stays where it is', () => {
    const vm = start();
    const other = attach(vm.handle());
    const memory = vm.sharedMemory({ size: 5 * PAGE, wired: true });
    expect(vm.spaces.statistics().shadowLists).toBe(1);
    const [one, two] = [vm.addressSpace(), other.addressSpace()];
    const here = one.map({ size: 4 * PAGE, memory, offset: PAGE });
    const there = two.map({ size: 5 * PAGE, memory: other.sharedMemory(memory.id) });
    expect(one.lookup(here)).toMatchObject({ driver: 'wired', shared: true });
    two.write(there + PAGE, Uint8Array.of(4));
    expect(one.read(here, 1)[0]).toBe(4);
    const pins = [
      one.pin(here, 2 * PAGE, 'read'),
      one.pin(here + PAGE, PAGE, 'write'),
      two.pin(there, 5 * PAGE, 'write'),
    ];
    expect(vm.spaces.statistics()).toMatchObject({ shadowLists: 1, pins: 3 });
    expect(pins[1]?.pieces[0]).toMatchObject({
      bank: 0,
      offset: pins[2]?.pieces[0] && (pins[0]?.pieces[0]?.offset ?? 0) + PAGE,
    });
    // All of memory is asked for: what is wired stays.
    expect(() => vm.frames.takeRun(vm.frames.counts().total)).toThrow(/ENOMEM/);
    expect(two.read(there + PAGE, 1)[0]).toBe(4);
    for (const pin of pins) pin.release();
    two.destroy();
    one.unmap(here, 4 * PAGE);
    expect(vm.spaces.statistics().shadowLists).toBe(1);
    memory.release();
    expect(vm.spaces.statistics()).toMatchObject({ shadowLists: 0, maps: 0 });
    other.detach();
  });
});
