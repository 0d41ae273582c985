import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MemoryStore, pageRoom, pageRooms, readPage, writePage } from '../../test/support/page-room.ts';
import { Scratch } from '../../test/support/scratch.ts';
import { VmError } from '../base/index.ts';
import { FRAME_USE } from '../phys/index.ts';
import { boot } from './boot.ts';
import { ListPressure } from './list-pressure.ts';
import { Pagedaemon, ROUND_FRAMES, ROUND_WRITES, type RoundReport, recoverPagedaemon } from './pagedaemon.ts';

const MARKS = { freeMin: 8, freeTarget: 16, desiredFree: 20, lotsFree: 32 };

function setUp(frames = 64) {
  const room = pageRooms(frames);
  const store = new MemoryStore(room.banks);
  room.frames.watermarks.set(MARKS);
  return { ...room, store, daemon: new Pagedaemon(room.thread, room.frames, room.pages, store) };
}

type Setup = ReturnType<typeof setUp>;

/** Fills all of the memory with pages of a vnode. */
function fillUp(s: Setup, vnode = 0): void {
  for (let index = 0; s.frames.counts().free > 0; index++) readPage(s, s.store, vnode, index);
}

/** Pages of a vnode that are in memory. */
function present(s: Setup, vnode: number, end = 200): number[] {
  const found: number[] = [];
  for (let index = 0; index < end; index++) {
    const frame = s.pages.hold(vnode, index);
    if (frame < 0) continue;
    found.push(index);
    s.pages.release(frame);
  }
  return found;
}

describe('the pagedaemon', () => {
  it('does nothing while frames are there, and is kicked when they are low', () => {
    const s = setUp();
    expect(s.daemon.step()).toEqual({ missing: -48, freed: 0, written: 0, by: {} });
    expect(s.frames.watermarks.takeKick()).toBe(false);
    fillUp(s);
    expect(s.frames.watermarks.waitForKick(0)).toBe(true);
    expect(s.daemon.step()).toEqual({ missing: 16, freed: 16, written: 0, by: { pages: 16 } });
    expect(s.frames.watermarks.takeKick()).toBe(false);
    expect(s.daemon.step()?.missing).toBe(0);
    expect(s.daemon.statistics()).toMatchObject({
      rounds: 1,
      freed: 16,
      pages: 16,
      written: 0,
      fruitless: 0,
      failure: '',
    });
  });

  it('gives pages that were used a second chance, and passes over those that are held', () => {
    const s = setUp();
    fillUp(s);
    const held = [0, 1, 2].map((index) => s.pages.hold(0, index));
    const { page } = s.region.tables;
    for (let frame = 0; frame < 64; frame++) page.referenced.put(frame, 0);
    const used = [3, 4, 5, 10, 11, 40];
    for (const index of used) s.pages.release(s.pages.hold(0, index));
    expect(s.daemon.step()?.freed).toBe(16);
    const left = present(s, 0);
    expect(left.length).toBe(48);
    expect(left).toEqual(expect.arrayContaining([0, 1, 2, ...used]));
    // Those that were held are as good as others once they are released and were not used since.
    for (const frame of held) s.pages.release(frame);
    for (let frame = 0; frame < 64; frame++) page.referenced.put(frame, frame > (held[2] as number) ? 1 : 0);
    s.frames.watermarks.set({ freeTarget: 19, desiredFree: 20 });
    expect(s.daemon.step()?.freed).toBe(3);
    expect(present(s, 0)).toEqual(left.filter((index) => index > 2));
  });

  it('asks in the order of priorities, and stops when it has enough', () => {
    const s = setUp();
    const asked: string[] = [];
    const keep: number[] = [];
    for (let frame = 0; frame < 10; frame++) keep.push(s.frames.tryTake(FRAME_USE.page));
    const give = (count: number) => {
      for (const frame of keep.splice(0, count)) s.frames.give(frame, FRAME_USE.page);
    };
    const spare = (name: string, priority: number, count: number) =>
      s.daemon.register({
        name,
        priority,
        reclaim: (wanted) => {
          asked.push(`${name} ${wanted}`);
          give(count);
        },
      });
    spare('late', 400, 3);
    const forget = spare('early', 1, 4);
    spare('never', 600, 0);
    expect(() => spare('late', 2, 0)).toThrow(/EINVAL: pagedaemon.register/);
    expect(() => spare('x', Number.NaN, 0)).toThrow(/EINVAL.*priority/);
    expect(s.daemon.order).toEqual(['early', 'late', 'pages', 'never']);
    fillUp(s);
    expect(s.daemon.step()).toMatchObject({ missing: 16, freed: 16, by: { early: 4, late: 3, pages: 9 } });
    expect(asked).toEqual(['early 16', 'late 12']);
    forget();
    asked.length = 0;
    s.daemon.giveSpares();
    expect(asked).toEqual(['late 64']);
    expect(s.frames.counts().free).toBe(19);
    expect(s.daemon.statistics()).toMatchObject({ others: 7, pages: 9 });
    give(10);
  });

  it('writes modified pages first, and drops them then', () => {
    const s = setUp();
    for (let index = 0; index < 64; index++) writePage(s, s.store, 0, index, index);
    expect(s.frames.counts().free).toBe(0);
    expect(s.daemon.step()).toMatchObject({ missing: 16, freed: 16, written: 64 });
    expect(s.store.writes).toEqual([
      [0, 0, 32],
      [0, 32, 32],
    ]);
    for (let index = 0; index < 64; index++) expect(s.store.kept.get(`0:${index}`)).toBe(index);
    expect(ROUND_WRITES).toBe(64);
  });

  it('leaves modified what the store refuses, says so, and frees the rest', () => {
    const s = setUp();
    for (let index = 0; index < 50; index++) writePage(s, s.store, 0, index, 1);
    s.store.refusals = Number.POSITIVE_INFINITY;
    fillUp(s, 1);
    expect(s.daemon.step()).toMatchObject({ freed: 14, written: 0 });
    expect(s.pages.modifiedOf(0)).toBe(50);
    expect(s.daemon.statistics()).toMatchObject({
      refused: 1,
      failure: expect.stringMatching(/vnode 0.*store is full/),
    });
    // Its second try fails in part.
    s.store.refusals = 3;
    expect(s.daemon.step()?.written).toBeGreaterThan(0);
    while ((s.daemon.step()?.missing ?? 0) > 0);
    expect(s.frames.counts().free).toBeGreaterThanOrEqual(16);
  });

  it('goes on when a reclaimer throws, but not with broken invariants', () => {
    const s = setUp();
    let error: Error = new VmError('EIO', 'a reclaimer has failed');
    s.daemon.register({
      name: 'broken',
      priority: 1,
      reclaim: () => {
        throw error;
      },
    });
    fillUp(s);
    expect(s.daemon.step()?.freed).toBe(16);
    expect(s.daemon.statistics().failure).toMatch(/broken: .*has failed/);
    error = new TypeError('not ours');
    fillUp(s, 1);
    expect(() => s.daemon.step()).toThrow(/not ours/);
    error = new VmError('EIO', 'ours again');
    expect(s.daemon.step()?.freed).toBe(16);
  });

  it('does a round in one thread at a time, and one that died in its round keeps nobody out', () => {
    const s = setUp();
    const other = pageRoom(s);
    const theirs = new Pagedaemon(other.thread, other.frames, other.pages, s.store);
    fillUp(s);
    s.daemon.register({ name: 'nested', priority: 1, reclaim: () => expect(theirs.step()).toBeNull() });
    expect(s.daemon.step()?.freed).toBe(16);
    s.region.tables.pagedaemon.busy.put(0, other.thread.tag);
    fillUp(s, 1);
    expect(s.daemon.step()).toBeNull();
    recoverPagedaemon(s.thread, other.thread.slot);
    expect(s.daemon.step()?.freed).toBe(16);
  });

  it('frees a bounded number of frames in a round, and counts rounds without success', () => {
    const s = setUp(512);
    s.frames.watermarks.set({ freeTarget: 300, desiredFree: 400, lotsFree: 500 });
    fillUp(s);
    expect(s.daemon.step()?.freed).toBe(ROUND_FRAMES);
    expect(s.daemon.step()?.freed).toBe(ROUND_FRAMES);
    expect(s.daemon.step()?.freed).toBe(300 - 2 * ROUND_FRAMES);
    const held: number[] = [];
    for (let index = 0; index < 512; index += 32) {
      s.pages.fetch(2, index, 32, s.out, 0, s.store, true);
      held.push(...s.out);
    }
    expect(s.daemon.step()).toMatchObject({ missing: 300, freed: 0, written: 0 });
    expect(s.daemon.statistics().fruitless).toBe(1);
    for (const frame of held) s.pages.release(frame);
    expect(s.daemon.step()?.freed).toBe(ROUND_FRAMES);
  });
});

it('page lists that wait have the pool trimmed and modified pages written, with rests after a refusal', () => {
  const s = setUp();
  let trims = 0;
  const pool = { reclaimable: () => trims === 0, reclaim: () => void trims++, kick: () => undefined };
  const pressure = new ListPressure(s.frames, s.pages, s.store, pool);
  expect(pressure.reclaimable()).toBe(true);
  pressure.reclaim();
  expect([trims, pressure.reclaimable()]).toEqual([1, false]);
  writePage(s, s.store, 0, 0, 1);
  s.store.refusals = 1;
  expect(pressure.reclaimable()).toBe(true);
  pressure.reclaim();
  let looks = 1;
  while (!pressure.reclaimable()) looks++;
  expect(looks).toBe(20);
  pressure.reclaim();
  expect([s.pages.modified, pressure.reclaimable()]).toEqual([0, false]);
  pressure.kick();
  expect(s.frames.watermarks.takeKick()).toBe(true);
});

describe('in a booted system', () => {
  let scratch: Scratch;

  beforeEach(() => {
    scratch = new Scratch();
  });

  afterEach(() => scratch.remove());

  it('takes idle spans of the heap and whole large pages before it drops pages of files', () => {
    const vm = boot({ memory: '1 MiB', services: 'manual', pmem: { largeFrames: 16 } });
    expect(vm.pagedaemon.order).toEqual(['heap', 'pmem', 'pagelock', 'pages']);
    const file = vm.open(scratch.file('a', 2_000_000, 1));
    vm.heap.free(vm.heap.alloc(10_000), 10_000);
    const cookie = vm.pmem.alloc({ size: 16 * 4096 });
    vm.pmem.free(cookie);
    file.read(0, 2_000_000);
    vm.frames.watermarks.set({ freeMin: 32, freeTarget: 64, desiredFree: 64, lotsFree: 64 });
    const { missing, by } = vm.pagedaemon.step() as RoundReport;
    expect(missing).toBeGreaterThan(30);
    expect((by.heap ?? 0) + (by.pmem ?? 0) + (by.pages ?? 0)).toBe(missing);
    expect(by.pages).toBeGreaterThan(0);
    expect(vm.frames.counts().free).toBe(64);
    expect(vm.statistics().pagedaemon).toMatchObject({ rounds: 1, freed: missing });
    expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
    file.close();
    vm.detach();
  });
});
