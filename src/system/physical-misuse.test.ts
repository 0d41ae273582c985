/** Every public call of frames, page lists, pmem, device maps and the marks, with what is not what it wants. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { VmError } from '../base/index.ts';
import type { Cookie } from '../pmem/index.ts';
import { boot } from './boot.ts';
import type { VirtualMemory } from './virtual-memory.ts';

const PAGE = 4096;

let vm: VirtualMemory;
let cookie: Cookie;
let map: number;

beforeEach(() => {
  vm = boot({ memory: '1 MiB', memoryMax: '2 MiB', services: 'manual' });
  cookie = vm.pmem.alloc({ size: 4 * PAGE });
  map = vm.deviceMaps.create();
});

afterEach(() => vm.detach());

const OBJECTS = [null, 5, 'x', true, Symbol('s'), 1n, () => undefined, []];
const INTEGERS = [null, '5', 1.5, Number.NaN, {}, [], Symbol('s'), 1n, Number.POSITIVE_INFINITY, 2 ** 60];
const FRAMES = [undefined, ...INTEGERS, -1];
const CHOICES = [null, 5, 'x', {}, Symbol('s'), 'root'];
const WAITS = [
  ...OBJECTS.filter((value) => !Array.isArray(value)),
  { timeoutMs: 'x' },
  { timeoutMs: -1 },
  { cancel: 5 },
  { cancel: {} },
  { timeout: 1 },
];
const ASYNC_WAITS = [...WAITS, { signal: 5 }, { signal: {} }];
const WITHOUT_TRUE = (values: readonly unknown[]) => values.filter((value) => value !== true);
const LISTS = [
  undefined,
  ...OBJECTS,
  {},
  { runs: 5 },
  { runs: [5] },
  { runs: [null] },
  { runs: [{}] },
  { runs: [{ first: '0', count: 1 }] },
  { runs: [{ first: 0, count: -1 }] },
  { runs: [{ first: 0, count: 2 ** 40 }] },
];
const COOKIES = [
  undefined,
  ...OBJECTS,
  {},
  { cookie: '0', generation: 0, frames: 4 },
  { cookie: 0, generation: 0 },
  { cookie: 2 ** 40, generation: 0, frames: 4 },
  { cookie: -1, generation: 0, frames: 4 },
];

type Case = readonly [name: string, values: readonly unknown[], call: (value: never) => unknown];

/** The fields of a request, each with values that it must not have; what is left out has its default. */
function fields(name: string, call: (request: never) => unknown, request: object, table: Record<string, unknown[]>) {
  return Object.entries(table).map(
    ([field, values]): Case => [`${name} ${field}`, values, (value) => call({ ...request, [field]: value } as never)],
  );
}

const LIST_FIELDS = {
  size: FRAMES,
  low: INTEGERS,
  high: INTEGERS,
  alignment: [...INTEGERS, 3],
  boundary: [...INTEGERS, 3],
  segments: INTEGERS,
  wait: WITHOUT_TRUE(WAITS),
  sise: [1],
};
const PMEM_FIELDS = {
  size: FRAMES,
  wait: WITHOUT_TRUE(WAITS),
  contiguous: [null, 5, 'x'],
  movable: [null, 5, 'x', {}, { export: 5 }, { export: '' }, { export: 'x', module: 5 }],
  sise: [1],
};
const MAP_REQUEST = { offset: 0, length: PAGE, maxProtection: 7, flags: 0x20000 };
const MAP_FIELDS = {
  // A cookie that there could be, but is not, makes it false.
  cookie: COOKIES.filter((value) => value !== null).slice(0, -2),
  offset: [undefined, ...INTEGERS],
  length: [undefined, ...INTEGERS],
  maxProtection: [undefined, ...INTEGERS],
  flags: [undefined, ...INTEGERS],
  callbackRevision: INTEGERS,
  callback: [1],
};
const SEGMENT_FIELDS = {
  start: FRAMES,
  end: FRAMES,
  availableStart: INTEGERS,
  availableEnd: INTEGERS,
  freeList: INTEGERS,
  freelist: [0],
};
const MARKS = { freeMin: INTEGERS, freemin: [1] };

const CASES: readonly Case[] = [
  ...(['alloc', 'tryAlloc', 'allocWait', 'allocAsync'] as const).flatMap((name): Case[] => {
    const call = (request: never) => vm.pageLists[name](request);
    const { wait, ...others } = LIST_FIELDS;
    const table = name === 'alloc' || name === 'tryAlloc' ? LIST_FIELDS : others;
    return [
      [`pageLists.${name}`, [undefined, ...OBJECTS], call],
      ...fields(`pageLists.${name}`, call, { size: PAGE }, table),
    ];
  }),
  ['pageLists.allocWait options', WAITS, (options) => vm.pageLists.allocWait({ size: PAGE }, options)],
  ['pageLists.allocAsync options', ASYNC_WAITS, (options) => vm.pageLists.allocAsync({ size: PAGE }, options)],
  ['pageLists.free', LISTS, (list) => vm.pageLists.free(list)],
  ['pageLists.giveFrame', FRAMES, (frame) => vm.pageLists.giveFrame(frame)],
  ['pageLists.listOf', FRAMES, (taker) => vm.pageLists.listOf(taker)],
  ['pageLists.freeOf', FRAMES, (taker) => vm.pageLists.freeOf(taker)],
  ['pageLists.setReserves', FRAMES, (frames) => vm.pageLists.setReserves(frames, 0)],
  ['frames.withPrivilege', [undefined, ...CHOICES], (privilege) => vm.frames.withPrivilege(privilege, () => 0)],
  ['frames.withPrivilege action', FRAMES, (action) => vm.frames.withPrivilege('user', action)],
  ['frames.reserveFor', [undefined, ...INTEGERS, 'nobody'], (owner) => vm.frames.reserveFor(owner, 1)],
  ['frames.reserveFor frames', FRAMES, (frames) => vm.frames.reserveFor('default', frames)],
  ['frames.reserveFor options', WAITS, (options) => vm.frames.reserveFor('default', 1, options)],
  ['frames.onShortage', FRAMES, (told) => vm.frames.onShortage(told)],
  ['frames.onMemoryChange', [undefined, null, 5, 'x'], (told) => vm.frames.onMemoryChange(told)],
  ['frames.online', FRAMES, (first) => vm.frames.online(first, 1)],
  ['frames.online count', FRAMES, (count) => vm.frames.online(256, count)],
  ['frames.addSegment', [undefined, ...OBJECTS], (segment) => vm.frames.addSegment(segment)],
  ...fields('frames.addSegment', (segment) => vm.frames.addSegment(segment), { start: 256, end: 300 }, SEGMENT_FIELDS),
  ['frames.offline', FRAMES, (first) => vm.frames.offline(first, 1)],
  ['frames.offline count', FRAMES, (count) => vm.frames.offline(0, count)],
  ['frames.offline options', WAITS, (options) => vm.frames.offline(0, 1, options)],
  ['frames.compact', OBJECTS.slice(0, -2), (options) => vm.frames.compact(options)],
  ...fields(
    'frames.compact',
    (options) => vm.frames.compact(options),
    {},
    { run: INTEGERS, moves: INTEGERS, rum: [1] },
  ),
  ['frames.takeRun', FRAMES, (count) => vm.frames.takeRun(count)],
  ['frames.tryTakeRun', FRAMES, (count) => vm.frames.tryTakeRun(count)],
  ['frames.tryTakeRun place', OBJECTS, (place) => vm.frames.tryTakeRun(1, place)],
  ...fields(
    'frames.tryTakeRun place',
    (place) => vm.frames.tryTakeRun(1, place),
    { alignment: 1, boundary: 0, low: 0, high: 9 },
    { alignment: FRAMES, boundary: FRAMES, low: FRAMES, high: FRAMES, lo: [1] },
  ),
  ['frames.takeRunWait', FRAMES, (count) => vm.frames.takeRunWait(count)],
  ['frames.takeRunWait options', WAITS, (options) => vm.frames.takeRunWait(1, options)],
  ['frames.takeRunAsync', FRAMES, (count) => vm.frames.takeRunAsync(count)],
  ['frames.takeRunAsync options', ASYNC_WAITS, (options) => vm.frames.takeRunAsync(1, options)],
  ['frames.giveRun', FRAMES, (first) => vm.frames.giveRun(first, 1)],
  ['frames.giveRun count', FRAMES, (count) => vm.frames.giveRun(0, count)],
  ['watermarks.set', OBJECTS.slice(0, 3), (marks) => vm.frames.watermarks.set(marks)],
  ...fields('watermarks.set', (marks) => vm.frames.watermarks.set(marks), {}, MARKS),
  ...(['alloc', 'tryAlloc', 'allocAsync'] as const).flatMap((name): Case[] => {
    const call = (request: never) => vm.pmem[name](request);
    return [
      [`pmem.${name}`, [undefined, ...OBJECTS], call],
      ...fields(`pmem.${name}`, call, { size: PAGE }, PMEM_FIELDS),
    ];
  }),
  ['pmem.allocAsync options', ASYNC_WAITS, (options) => vm.pmem.allocAsync({ size: PAGE }, options)],
  ['pmem.free', COOKIES, (given) => vm.pmem.free(given)],
  ['pmem.view', COOKIES, (given) => vm.pmem.view(given)],
  ['pmem.runs', COOKIES, (given) => vm.pmem.runs(given)],
  ['pmem.ownerOf', COOKIES, (given) => vm.pmem.ownerOf(given)],
  ['pmem.getPfns', COOKIES, (given) => vm.pmem.getPfns(given, 0, 1)],
  ['pmem.getPfns start', FRAMES, (start) => vm.pmem.getPfns(cookie, start, 1)],
  ['pmem.getPfns count', FRAMES, (count) => vm.pmem.getPfns(cookie, 0, count)],
  ['pmem.freeOf', FRAMES, (maker) => vm.pmem.freeOf(maker)],
  ['pmem.reserveOther', INTEGERS, (frames) => vm.pmem.reserveOther(frames)],
  ['deviceMaps.create', OBJECTS.slice(0, -1), (state) => vm.deviceMaps.create(state)],
  ...fields(
    'deviceMaps.create',
    (state) => vm.deviceMaps.create(state),
    {},
    {
      flags: INTEGERS,
      protection: INTEGERS,
      attributes: INTEGERS,
      offset: INTEGERS,
      isPmem: [1, null],
      cookie: MAP_FIELDS.cookie.slice(1),
      length: INTEGERS,
      lenght: [1],
    },
  ),
  ['deviceMaps.state', FRAMES, (given) => vm.deviceMaps.state(given)],
  ['deviceMaps.destroy', FRAMES, (given) => vm.deviceMaps.destroy(given)],
  ...(['setup', 'remap'] as const).flatMap((name): Case[] => {
    const call = (request: never) => vm.deviceMaps[name](map, request, () => undefined);
    return [
      [`deviceMaps.${name} map`, FRAMES, (given) => vm.deviceMaps[name](given, call as never, () => undefined)],
      [`deviceMaps.${name}`, [undefined, ...OBJECTS], call],
      ...fields(`deviceMaps.${name}`, call, { ...MAP_REQUEST, cookie: null }, MAP_FIELDS),
    ];
  }),
];

async function outcome(call: () => unknown): Promise<unknown> {
  try {
    return await call();
  } catch (error) {
    return error;
  }
}

describe('what is wrong is refused with a VmError that names the call, and nothing has changed', () => {
  it.each(CASES)('%s', async (name, values, call) => {
    const before = { ...vm.frames.counts(), ...vm.pmem.statistics(), ...vm.frames.watermarks.read() };
    const maps = vm.region.tables.deviceMap;
    const state = vm.deviceMaps.state(map);
    for (const value of values) {
      const result = await outcome(() => call(value as never));
      const shown = `${name}: ${typeof value === 'object' ? JSON.stringify(value) : String(value)}`;
      expect(result, shown).toBeInstanceOf(VmError);
      expect(['EINVAL', 'ENOENT'], shown).toContain((result as VmError).code);
      // `pageList.alloc` is called for `allocWait` as well.
      expect((result as VmError).message, shown).toMatch(
        /^E\w+: (pageList|frames|pmem|deviceMaps|watermarks|physSegments|reservations)\.\w+/,
      );
    }
    expect({ ...vm.frames.counts(), ...vm.pmem.statistics(), ...vm.frames.watermarks.read() }).toEqual(before);
    expect(vm.deviceMaps.state(map)).toEqual(state);
    for (let row = 0; row < maps.rowCount; row++) expect(maps.claim.get(row) !== 0).toBe(row === map);
    expect(vm.frames.core.queue.count).toBe(0);
    expect(vm.check().flatMap(({ problems }) => problems)).toEqual([]);
  });

  it.each([
    [
      'segments',
      [null, 5, 'x', {}, [5], [null], [{ start: 0, end: 256, avail: 1 }], [{ start: 0 }], [{ start: '0', end: 9 }]],
    ],
    ['marks', [null, 5, 'x', { freemin: 1 }, { freeMin: 'x' }, { freeMin: 1e9 }]],
    ['slotFrames', INTEGERS],
    ['classes', INTEGERS],
    ['colours', INTEGERS],
    ['order', CHOICES],
    ['segmentOrder', CHOICES],
    ['slotframes', [1]],
  ])('boot: physical.%s', async (name, values) => {
    for (const value of values) {
      const options = { memory: '1 MiB', services: 'manual', physical: { [name]: value } };
      const result = await outcome(() => boot(options as never));
      expect(result, `${name}: ${String(value)}`).toBeInstanceOf(VmError);
    }
  });

  it('boot: physical and pmem themselves', async () => {
    for (const name of ['physical', 'pmem']) {
      for (const value of [null, 5, 'x', true]) {
        const result = await outcome(() => boot({ memory: '1 MiB', services: 'manual', [name]: value } as never));
        expect(result, `${name}: ${String(value)}`).toBeInstanceOf(VmError);
      }
    }
  });
});
