import { describe, expect, it } from 'vitest';
import {
  type CachedParty,
  endCached,
  MemoryStore,
  moreCached,
  STORE_BYTES,
  testCached,
} from '../../test/support/mapped-store.ts';
import { endOracle, testRooms } from '../../test/support/rooms.ts';
import { matches, pattern, Scratch } from '../../test/support/scratch.ts';
import { testSeed } from '../../test/support/seed.ts';
import { Prng } from '../base/index.ts';
import { FRAME_USE } from '../phys/index.ts';
import { armFault, disarmFault } from '../sync/index.ts';
import { copyCached, UserBytes } from './cached-copy.ts';
import { CachedMappings } from './cached-mappings.ts';
import { MAPPING_COUNTER, mappingStatistics } from './mapping-counters.ts';
import { MAPPING_STATE, planMappings } from './mapping-options.ts';

const PAGE = 4096;

function queuesOf({ mappings }: CachedParty, list: number): { alloc: number[]; rel: number[] } {
  const { allocate, queues } = mappings.pages.entries.queues(list);
  return { alloc: [...(queues[allocate] ?? [])], rel: [...(queues[1 - allocate] ?? [])] };
}

function counted(party: CachedParty) {
  return mappingStatistics(party.rooms.region);
}

describe('cached mappings', () => {
  it('remember pages, take entries from the list under the rotor, and give out what was released longest ago', () => {
    const party = testCached(8, 2);
    const { mappings } = party;
    expect(queuesOf(party, 0)).toEqual({ alloc: [], rel: [6, 4, 2, 0] });
    expect(queuesOf(party, 1)).toEqual({ alloc: [], rel: [7, 5, 3, 1] });
    const first = mappings.map(0, 100, 3 * PAGE);
    expect([...first.entries]).toEqual([6, 7, 4, 5]);
    expect(first.pieces.map(({ length }) => length)).toEqual([PAGE, PAGE, PAGE, PAGE]);
    first.release();
    expect(queuesOf(party, 0)).toEqual({ alloc: [2, 0], rel: [6, 4] });
    const again = mappings.map(0, PAGE, PAGE);
    expect([...again.entries]).toEqual([7]);
    again.release();
    expect(queuesOf(party, 1)).toEqual({ alloc: [3, 1], rel: [5, 7] });
    expect(counted(party)).toMatchObject({ hits: 1, misses: 4, getPages: 1, mapped: 5, unmapped: 5 });
    endCached(party);
  });

  it('map at most 32 pages, and one fewer than the scatter list is long', () => {
    const party = testCached(40, 2);
    const whole = party.mappings.map(1, 0, STORE_BYTES);
    expect(whole.count).toBe(32);
    whole.release();
    const short = party.mappings.map(1, 0, STORE_BYTES, { segments: 5 });
    expect(short.count).toBe(4);
    short.release();
    const atEnd = party.mappings.map(1, STORE_BYTES - PAGE, 4 * PAGE);
    expect(atEnd.count).toBe(1);
    atEnd.release();
    expect(() => party.mappings.map(1, STORE_BYTES, 1)).toThrow(/EFAULT/);
    expect(() => party.mappings.map(1, 0, 0)).toThrow(/EINVAL/);
    expect(() => party.mappings.map(1, 0, PAGE, { segments: 2 })).toThrow(/EINVAL.*segments/);
    endCached(party);
  });

  it('keep pages that are made for themselves until they are released', () => {
    const party = testCached();
    const other = moreCached(party);
    const made = party.mappings.map(0, 0, 2 * PAGE, { access: 'write', fetch: false });
    expect(made.created).toBe(2);
    const { bytes, offset } = made.bytesOf(1);
    bytes.fill(7, offset, offset + PAGE);
    expect(other.mappings.sync(0, 0, 2 * PAGE, { write: true })?.busy).toEqual([0, 1]);
    made.release('write');
    expect(() => made.release()).toThrow(/ESTALE/);
    expect(other.mappings.sync(0, 0, 2 * PAGE, { write: true })?.written).toEqual([0, 1]);
    expect(party.store.files[0]?.subarray(PAGE, 2 * PAGE).every((byte) => byte === 7)).toBe(true);
    endCached(party);
  });

  it('write through get-pages until a page is modified, and leave modified pages off the list of clean ones', () => {
    const party = testCached(2, 1);
    const { mappings, store } = party;
    mappings.map(0, 0, PAGE).release();
    store.refuse = 'get';
    mappings.map(0, 0, PAGE).release();
    expect(() => mappings.map(0, 0, PAGE, { access: 'write' })).toThrow(/refuses/);
    store.refuse = null;
    mappings.map(0, 0, PAGE, { access: 'write' }).release('write');
    store.refuse = 'get';
    mappings.map(0, 0, PAGE, { access: 'write' }).release('write');
    store.refuse = null;
    // Both entries go to other pages: the modified one is let go without becoming clean.
    for (const page of [5, 6]) mappings.map(0, page * PAGE, PAGE).release();
    expect(mappings.pages.clean.frames()).toEqual([]);
    expect(mappings.sync(0, 0, PAGE, { free: true })).toMatchObject({ written: [0], freed: [0] });
    expect(mappings.pages.clean.frames()).toEqual([0]);
    store.refuse = 'write';
    mappings.map(0, 0, PAGE, { access: 'write' }).release('write');
    expect(() => mappings.sync(0, 0, PAGE, { write: true })).toThrow(/refuses/);
    store.refuse = null;
    expect(mappings.sync(0, 0, PAGE, { write: true })?.written).toEqual([0]);
    endCached(party);
  });

  it('do what the flags of a sync say', () => {
    const party = testCached();
    const { mappings } = party;
    const dirty = () => mappings.map(2, 0, PAGE, { access: 'write' }).release('write');
    dirty();
    expect(mappings.sync(2, 0, PAGE, {})).toBe(null);
    expect(mappings.sync(2, 0, PAGE, { dontNeed: true })).toBe(null);
    expect(mappings.sync(2, 0, PAGE, { async: true })).toMatchObject({ flags: { async: true }, written: [0] });
    dirty();
    expect(mappings.sync(2, 0, PAGE, { destroy: true })).toMatchObject({ written: [], invalidated: [0] });
    dirty();
    for (const page of [3, 4]) mappings.map(2, page * PAGE, PAGE).release();
    mappings.sync(2, 3 * PAGE, PAGE, { free: true });
    mappings.sync(2, 4 * PAGE, PAGE, { free: true, dontNeed: true });
    expect(mappings.pages.clean.frames()).toEqual([3, 4].map((page) => mappings.pages.frameOf(2, page)).reverse());
    // The length is rounded up by itself: the last byte of this range is on a page that is left out.
    dirty();
    mappings.map(2, PAGE, PAGE, { access: 'write' }).release('write');
    expect(mappings.sync(2, 100, PAGE, { write: true })).toMatchObject({ length: PAGE, written: [0, 1] });
    endCached(party);
  });

  it('steal their own entry when it still remembers the page that comes back; the default cannot', () => {
    const party = testCached(1, 1);
    const { mappings } = party;
    mappings.map(0, 0, PAGE).release();
    mappings.sync(0, 0, PAGE, { free: true });
    mappings.map(0, 0, PAGE).release();
    expect(counted(party).lostEntries).toBe(1);
    mappings.map(0, 0, PAGE).release();
    expect(counted(party)).toMatchObject({ hits: 0, misses: 3 });
    endCached(party);
    const scratch = new Scratch();
    const rooms = testRooms();
    const vnode = rooms.vnodes.open(scratch.file('a', 3 * PAGE, 1));
    rooms.mappings.map(vnode, 0, PAGE).release();
    rooms.pages.drop(vnode, 3);
    const target = new Uint8Array(PAGE);
    rooms.mappings.copyOut(vnode, 0, PAGE, target);
    expect(rooms.mappings.tryCopyUpTo(vnode, 0, PAGE, target)).toBe(PAGE);
    expect(matches(target, 1, 0)).toBe(true);
    endOracle(rooms);
    scratch.remove();
  });

  it('zero valid bytes behind a copy when only another page is new', () => {
    const party = testCached();
    const { mappings } = party;
    mappings.map(0, PAGE, PAGE).release();
    const user = new UserBytes(new Uint8Array(PAGE).fill(9));
    const report = copyCached(mappings, 0, 2048, PAGE, user, { access: 'write', fetch: false });
    expect(report).toEqual({ moved: PAGE, created: 1, faulted: false });
    const mapping = mappings.map(0, 0, 2 * PAGE);
    const { bytes, offset } = mapping.bytesOf(1);
    // Page 1 was there: its second half was the file's.
    expect(bytes.subarray(offset + 2048, offset + PAGE).every((byte) => byte === 0)).toBe(true);
    expect(party.store.files[0]?.[PAGE + 2048]).toBe(1);
    mapping.release();
    mappings.sync(0, 0, 0, { destroy: true });
    endCached(party);
  });

  it('copy up to two pages, short where the other side ends, with a fault reported', () => {
    const party = testCached();
    const { mappings } = party;
    const target = new Uint8Array(3 * PAGE);
    const user = new UserBytes(target);
    expect(copyCached(mappings, 0, 10, 3 * PAGE, user).moved).toBe(2 * PAGE - 10);
    expect(target.subarray(0, 2 * PAGE - 10)).toEqual(party.store.files[0]?.subarray(10, 2 * PAGE));
    expect(copyCached(mappings, 0, 0, 2 * PAGE, new UserBytes(new Uint8Array(5))).moved).toBe(5);
    const faulting = { move: () => -1 };
    expect(copyCached(mappings, 0, 0, PAGE, faulting)).toEqual({ moved: 0, created: 0, faulted: true });
    const start = copyCached(mappings, 1, 100, 10, new UserBytes(pattern(1, 0, 10)), {
      access: 'write',
      fetch: false,
      zeroStart: true,
    });
    expect(start).toEqual({ moved: 10, created: 1, faulted: false });
    const mapping = mappings.map(1, 0, PAGE);
    const { bytes, offset } = mapping.bytesOf(0);
    const expected = new Uint8Array(PAGE);
    expected.set(pattern(1, 0, 10), 100);
    expect(bytes.subarray(offset, offset + PAGE)).toEqual(expected);
    mapping.release();
    mappings.sync(1, 0, 0, { destroy: true });
    endCached(party);
  });

  it('work without remembering, and say ENOTSUP when they are off or were never asked for', () => {
    const off = testCached(0, 0, {}, MAPPING_STATE.uncached);
    const mapping = off.mappings.map(0, 0, 2 * PAGE);
    expect([...mapping.entries]).toEqual([-1, -1]);
    mapping.release();
    expect(off.mappings.pages.clean.frames().length).toBe(2);
    off.mappings.map(0, 0, 2 * PAGE).release();
    expect(counted(off)).toMatchObject({ hits: 0, misses: 0, reclaimed: 2 });
    endCached(off);
    const { rooms } = testCached(0, 0, {}, MAPPING_STATE.disabled);
    const store = new MemoryStore(rooms.banks);
    const disabled = new CachedMappings(rooms.thread, rooms.banks, rooms.frames, rooms.pages.holds, store);
    expect(() => disabled.map(0, 0, PAGE)).toThrow(/ENOTSUP/);
    expect(() => disabled.sync(0, 0, PAGE, { write: true })).toThrow(/ENOTSUP/);
  });

  it('are sized by memory and slots', () => {
    const plan = (options: object) => planMappings(options, 2 ** 20, PAGE, 6).geometry;
    expect(plan({})).toEqual({ mappingLists: 0, mappingEntries: 0, mappingFrames: 0 });
    expect(plan({ compat: 'seed' })).toEqual({ mappingLists: 8, mappingEntries: 125829, mappingFrames: 2 ** 20 });
    expect(plan({ compat: 'seed', percent: 0 }).mappingEntries).toBe(16384);
    expect(plan({ compat: 'seed', freeLists: -1 }).mappingLists).toBe(16);
    expect(plan({ compat: 'seed', freeLists: 3 }).mappingLists).toBe(4);
    expect(plan({ compat: 'seed', freeLists: 99 }).mappingLists).toBe(16);
    expect(() => plan({ entries: 5 })).toThrow(/EINVAL.*compat/);
    expect(() => plan({ compat: 'seed', entires: 5 })).toThrow(/EINVAL.*entires/);
    expect(() => plan({ compat: 'sead' })).toThrow(/EINVAL.*compat/);
  });

  it('fail instead of waiting for entries that this thread holds itself', () => {
    const party = testCached(2, 2);
    const live = party.mappings.map(0, 0, 2 * PAGE);
    const { clock } = party.rooms.thread;
    const started = clock.now();
    expect(() => party.mappings.map(1, 0, PAGE)).toThrow(/ENOMEM.*entry/);
    expect(clock.now() - started).toBeLessThan(5000);
    live.release();
    expect(counted(party).noEntries).toBe(1);
    endCached(party);
  });

  it('take frames of clean pages first, then write modified ones back', () => {
    const party = testCached(4, 1, { frames: 32, bankFrames: 32, mappingFrames: 32 });
    const { mappings } = party;
    for (let page = 0; page < 40; page++) mappings.map(0, page * PAGE, PAGE).release();
    expect(counted(party).stolen).toBe(8);
    for (let page = 0; page < 40; page++) mappings.map(1, page * PAGE, PAGE, { access: 'write' }).release('write');
    expect(counted(party).cleaned).toBeGreaterThan(0);
    endCached(party);
  });

  it('forget that a frame was listed when its page left and it has another one', () => {
    // No entry remembers anything: pages go straight to the list.
    const party = testCached(4, 1, { frames: 2, bankFrames: 2, mappingFrames: 2 }, MAPPING_STATE.uncached);
    const { mappings, store, rooms } = party;
    mappings.map(0, 0, PAGE).release();
    const [frame = -1] = mappings.pages.clean.frames();
    // Whoever needs frames takes the page away, and does not know the list.
    expect(rooms.pages.reclaim(frame, FRAME_USE.page)).toBe(true);
    rooms.frames.give(frame, FRAME_USE.page);
    expect(mappings.pages.clean.frames()).toEqual([frame]);
    for (let page = 1; page < 3; page++) {
      const mapping = mappings.map(0, page * PAGE, PAGE, { access: 'write' });
      const { bytes, offset } = mapping.bytesOf(0);
      bytes.fill(100 + page, offset, offset + PAGE);
      mapping.release('write');
    }
    expect(mappings.check().problems).toEqual([]);
    expect(mappings.pages.clean.frames()).toEqual([]);
    // Both pages are modified: they are written before another one gets a frame of theirs.
    mappings.map(1, 0, PAGE).release();
    endCached(party);
    for (let page = 1; page < 3; page++) expect(store.files[0]?.[page * PAGE]).toBe(100 + page);
  });

  it('keep the bytes of a listed page that somebody has modified who does not know the list', () => {
    const party = testCached(4, 1, { frames: 1, bankFrames: 1, mappingFrames: 1 }, MAPPING_STATE.uncached);
    const { mappings, store, rooms } = party;
    const modify = (value: number) => {
      mappings.map(0, 0, PAGE).release();
      expect(mappings.pages.clean.frames()).toEqual([0]);
      expect(rooms.pages.hold(0, 0)).toBe(0);
      rooms.banks.view(0, PAGE).fill(value);
      rooms.pages.setModified(0);
      rooms.pages.release(0);
    };
    modify(200);
    expect(mappings.sync(0, 0, PAGE, { write: true })?.written).toEqual([0]);
    expect(store.files[0]?.[0]).toBe(200);
    modify(201);
    mappings.map(1, 0, PAGE).release();
    expect(store.files[0]?.[0]).toBe(201);
    endCached(party);
  });

  it('start again when an entry is stolen or two threads bring one', () => {
    const party = testCached(4, 2);
    party.mappings.map(0, 0, PAGE).release();
    for (const point of ['vpm.cache.steal', 'vpm.cache.contend'] as const) {
      armFault(party.rooms.region, point, 'fail');
      party.mappings.map(0, 0, PAGE).release();
      expect(disarmFault(party.rooms.region)).toBe(1);
      expect(party.mappings.check().problems).toEqual([]);
    }
    expect(counted(party).steals).toBeGreaterThan(0);
    endCached(party);
  });
});

describe('entries against a model', () => {
  it('give out the same ones in the same order', () => {
    const random = new Prng(testSeed('mapping entries', 5));
    for (let round = 0; round < 20; round++) {
      const lists = 2 ** random.below(3);
      const count = lists * random.between(2, 8);
      const party = testCached(count, lists);
      const { mappings } = party;
      // The model: two arrays for each list, which of them gives out, and what each entry remembers.
      const queues = Array.from({ length: lists }, (_, list) => {
        const all = Array.from({ length: count }, (_e, entry) => entry).filter((entry) => entry % lists === list);
        return [[], all.reverse()] as [number[], number[]];
      });
      const allocate = new Array<number>(lists).fill(0);
      const entryOf = new Map<number, number>();
      const remembers = new Map<number, number>();
      const uses = new Map<number, number>();
      let rotor = party.rooms.thread.slot & (lists - 1);
      const take = (page: number): number => {
        const first = rotor++ & (lists - 1);
        for (let step = 0; step < lists; step++) {
          const list = (first + step) % lists;
          const both = queues[list] as [number[], number[]];
          if (both[allocate[list] as number]?.length === 0) allocate[list] = 1 - (allocate[list] as number);
          const entry = both[allocate[list] as number]?.shift();
          if (entry === undefined) {
            allocate[list] = 1 - (allocate[list] as number);
            continue;
          }
          const before = remembers.get(entry);
          if (before !== undefined && entryOf.get(before) === entry) entryOf.delete(before);
          entryOf.set(page, entry);
          remembers.set(entry, page);
          return entry;
        }
        return -1;
      };
      const live: { page: number; entry: number; end: () => void }[] = [];
      for (let step = 0; step < 400; step++) {
        const used = new Set(live.map(({ entry }) => entry)).size;
        if (live.length > 0 && (used >= count - 1 || random.chance(0.5))) {
          const { entry, end } = live.splice(random.below(live.length), 1)[0] as (typeof live)[number];
          end();
          uses.set(entry, (uses.get(entry) as number) - 1);
          const list = entry % lists;
          if (uses.get(entry) === 0) queues[list]?.[1 - (allocate[list] as number)]?.push(entry);
          continue;
        }
        const page = random.below(40);
        let expected = entryOf.get(page) ?? -1;
        if (expected >= 0 && (uses.get(expected) ?? 0) === 0) {
          for (const queue of queues[expected % lists] ?? []) {
            if (queue.includes(expected)) queue.splice(queue.indexOf(expected), 1);
          }
        }
        if (expected < 0) expected = take(page);
        uses.set(expected, (uses.get(expected) ?? 0) + 1);
        const mapping = mappings.map(0, page * PAGE, PAGE);
        expect(mapping.entries[0]).toBe(expected);
        live.push({ page, entry: expected, end: () => mapping.release() });
      }
      for (const { end } of live) end();
      expect(mappings.check().problems).toEqual([]);
      expect(mappings.counters[MAPPING_COUNTER.lostEntries]).toBe(0);
      endCached(party);
    }
  });
});
