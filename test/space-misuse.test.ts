/** Bad calls of every public function of address spaces: what they throw names the call, and nothing has changed. */

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { VmError } from '../src/base/index.ts';
import { type AddressSpace, PIN } from '../src/seg/index.ts';
import { boot, type VirtualMemory } from '../src/system/index.ts';
import { Scratch } from './support/scratch.ts';

const PAGE = 4096;
const AT = 1 << 20;

/** Values that are no integers, no bytes, no options and no names. */
const JUNK: readonly unknown[] = [
  ...[undefined, null, Number.NaN, Number.POSITIVE_INFINITY, 1.5, -1, 2 ** 53, '4096', 'x', true, 7n, Symbol('s')],
  ...[{}, [], [1, 2], () => 0, new Date(0), new Uint32Array(4), new DataView(new ArrayBuffer(8)), new ArrayBuffer(8)],
];

/** Without those that the place takes: told by what they are. */
function junkBut(...taken: readonly unknown[]): readonly unknown[] {
  return JUNK.filter(
    (value) => !taken.some((one) => one === value || (one instanceof Function && one(value) === true)),
  );
}

const isUndefined = (value: unknown) => value === undefined;
const isNumber = (value: unknown) => typeof value === 'number';
const isIntegerUpTo = (most: number) => (value: unknown) => Number.isInteger(value) && Math.abs(Number(value)) <= most;

// Anything may be handed in: that is what is tested.
type Loose = Record<string, (...given: readonly unknown[]) => unknown>;

let vm: VirtualMemory;
let as: AddressSpace;
let scratch: Scratch;

beforeAll(() => {
  vm = boot({ memory: '2 MiB', slots: 4, services: 'manual' });
  scratch = new Scratch();
  as = vm.addressSpace();
  as.map({ address: AT, size: 4 * PAGE });
  as.fill(AT, 5, 4 * PAGE);
  as.pin(AT, PAGE, 'write').release();
});

afterAll(() => {
  as.destroy();
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  vm.detach();
  scratch.remove();
});

/** Everything that a call could have changed. */
function picture(): unknown {
  const { spaces, pagelock, thread } = vm;
  const { counters, ...cache } = pagelock.statistics();
  const free = vm.frames.counts().free;
  return [as.dump(), as.read(AT, 4 * PAGE), spaces.statistics(), cache, pagelock.snapshot(), thread.heldCount, free];
}

/** The call throws an error of ours that names it. Returns what was wrong. */
function attempt(name: string, given: readonly unknown[], act: () => unknown, codes: readonly string[]): string[] {
  const shown = `${name}(${given.map((value) => describeValue(value)).join(', ')})`;
  try {
    act();
  } catch (error) {
    if (!(error instanceof VmError)) return [`${shown} throws ${String(error)}`];
    if (!codes.includes(error.code)) return [`${shown} throws ${error.message}`];
    if (error.code === 'EINVAL' && !error.message.includes(name.slice(0, name.indexOf(' ') >>> 0)))
      return [`${shown} does not name the call: ${error.message}`];
    return [];
  }
  return [`${shown} throws nothing`];
}

function describeValue(value: unknown): string {
  if (typeof value === 'object' && value !== null) return `${value.constructor.name} of ${Object.keys(value)}`;
  return String(value);
}

/** Tries every row: a name, the object, and arguments of which one at a time is replaced by each junk value of its list. */
function refuses(
  target: () => unknown,
  prefix: string,
  rows: readonly (readonly [method: string, good: readonly unknown[], bad: readonly (readonly unknown[])[]])[],
  codes: readonly string[] = ['EINVAL'],
): void {
  const before = picture();
  const wrong: string[] = [];
  let calls = 0;
  for (const [method, good, bad] of rows) {
    for (const [at, values] of bad.entries()) {
      for (const value of values) {
        const given = good.slice();
        given[at] = value;
        calls++;
        wrong.push(
          ...attempt(
            prefix === '' ? method : `${prefix}.${method}`,
            given,
            () => (target() as Loose)[method]?.(...given),
            codes,
          ),
        );
      }
    }
  }
  expect(wrong).toEqual([]);
  expect(calls).toBeGreaterThan(10);
  expect(vm.poisoned).toBeNull();
  expect(picture()).toEqual(before);
}

describe('bad calls of an address space', () => {
  const address = junkBut();
  const word = junkBut(isIntegerUpTo(2 ** 31));
  const options = [
    ...junkBut(isUndefined, (value: unknown) => Object.getPrototypeOf(value ?? 0) === Object.prototype),
  ].filter((value) => !(value instanceof Date || ArrayBuffer.isView(value) || value instanceof ArrayBuffer));
  const pinWait = [
    ...options,
    { timeout: 5 },
    { timeoutMs: -1 },
    { timeoutMs: '5' },
    { timeoutMs: null },
    { timeoutMs: 7n },
  ];
  const more = [{ timeoutMs: 5 }, undefined, null];

  it('with a range are refused', () => {
    refuses(() => as, 'as', [
      ['unmap', [AT, PAGE, {}], [[...address, 5], [...address, 0], pinWait]],
      ['protect', [AT, PAGE, 'read', {}], [[...address, 5], [...address, 0], junkBut(), pinWait]],
      ['advise', [AT, PAGE, 'random', 1], [[...address, 5], [...address, 0], junkBut(), more]],
      ['sync', [AT, PAGE, 1], [[...address, 5], [...address, 0], more]],
      ['pin', [AT, PAGE, 'read', 1], [address, [...address, 0], junkBut(), more]],
      ['fill', [AT, 5, PAGE], [address, [...junkBut(), 256], address]],
    ]);
  });

  it('with bytes are refused, and read no memory that is not there', () => {
    const array = new Uint8Array(8);
    refuses(() => as, 'as', [
      ['read', [AT, 8], [address, junkBut()]],
      ['read', [AT, array], [address, junkBut()]],
      ['write', [AT, array], [address, junkBut()]],
    ]);
    refuses(
      () => as,
      'as',
      [['read', [AT, 2 ** 32], [[AT, AT + 1, 2 ** 40, AT, AT, AT, AT, AT, AT, AT, AT]]]],
      ['ENOMEM', 'EFAULT'],
    );
  });

  it('with words are refused, in cursors too', () => {
    const place = [
      ...junkBut((value: unknown) => isNumber(value) && Number(value) % 4 === 0 && Number(value) >= 0),
      AT + 2,
    ];
    const words: Parameters<typeof refuses>[2] = [
      ['load', [AT], [place.filter((value) => value !== -1)]],
      ['store', [AT, 1], [place.filter((value) => value !== -1), [...word, 2 ** 32, -(2 ** 31) - 1]]],
      ['add', [AT, 1], [place.filter((value) => value !== -1), [...word, 2 ** 32]]],
      ['compareAndSwap', [AT, 1, 2], [place.filter((value) => value !== -1), [...word, 2 ** 32], [...word, 2 ** 32]]],
    ];
    refuses(() => as, 'as', words);
    const cursor = as.cursor({ pages: 2 });
    refuses(() => cursor, 'cursor', words);
    cursor.release();
    expect(() => cursor.store(AT, 1)).toThrow(/EINVAL.*cursor/);
    expect(() => cursor.release()).toThrow(/EINVAL.*cursor\.release/);
    // No store is left half-way, which a fork would wait for.
    as.fork().destroy();
  });

  it('that look, copy and end are refused', () => {
    refuses(() => as, 'as', [
      ['lookup', [AT], [address]],
      [
        'cursor',
        [{}],
        [[...options, { page: 2 }, ...junkBut(isUndefined).map((pages) => ({ pages })), { pages: 3 }, { pages: 2048 }]],
      ],
      ['fork', [1], [more]],
      ['destroy', [{}], [pinWait]],
      ['changeOwner', [0], [[...address, 10_000]]],
      ['allocSegment', [AT, PAGE, false], [junkBut(-1), [...address], junkBut(isUndefined, true)]],
      [
        'allocSegment',
        [AT + 64 * PAGE, PAGE, true],
        [
          [5, -PAGE],
          [0, 5],
        ],
      ],
    ]);
    expect(() => as.inherit(AT, PAGE)).toThrow(/ENOTSUP.*as\.inherit/);
    expect(as.allocSegment(-5, PAGE)).toBe(-1);
  });

  it('to a remap are refused', () => {
    const cookie = vm.pmem.alloc({ size: 2 * PAGE });
    const at = as.map({ size: 2 * PAGE, cookie });
    const bad = [
      ...[...options, undefined, { cookie, pages: 1 }, {}, { cookie, offset: 5 }, { cookie, timeoutMs: '1' }],
      ...junkBut(isUndefined).map((offset) => ({ cookie, offset })),
      ...junkBut().map((value) => ({ cookie: value })),
      { cookie: { ...cookie, frames: 900 } },
    ];
    refuses(() => as, 'as', [['remap', [at, { cookie }], [address, bad]]]);
    expect(() => as.remap(at, { cookie: { ...cookie, generation: 7 } })).toThrow(/ESTALE.*as\.remap/);
    as.unmap(at, 2 * PAGE);
    vm.pmem.free(cookie);
  });
});

describe('bad options of as.map', () => {
  it('are refused one by one', () => {
    const good = { size: PAGE };
    const integers = ['size', 'address', 'align', 'guard', 'min', 'max', 'pageSizeCode', 'offset', 'physical'];
    const plain = integers.flatMap((name) =>
      junkBut(name === 'size' ? () => false : isUndefined).map((value) => ({ ...good, [name]: value })),
    );
    const flags = ['replace', 'shared', 'reserve'].flatMap((name) =>
      junkBut(isUndefined, true).map((value) => ({ ...good, address: AT, [name]: value })),
    );
    const sources = ['file', 'memory', 'cookie', 'deviceMap', 'driver', 'data'].flatMap((name) =>
      junkBut(isUndefined).map((value) => ({ ...good, [name]: value })),
    );
    const rights = ['protection', 'maxProtection'].flatMap((name) =>
      junkBut(isUndefined).map((value) => ({ ...good, [name]: value })),
    );
    const times = junkBut(isUndefined, Number.POSITIVE_INFINITY, 1.5, 2 ** 53).map((timeoutMs) => ({
      ...good,
      timeoutMs,
    }));
    const others = [
      ...[
        { ...good, size: 2 ** 44 },
        { ...good, address: 5 },
        { ...good, address: 2 ** 47 },
        { ...good, address: 0 },
      ],
      ...[
        { ...good, replace: true },
        { ...good, align: 3 },
        { ...good, align: 0 },
        { ...good, fixed: true },
      ],
      ...[
        { ...good, address: AT + 5 * PAGE, align: 65536 },
        { ...good, min: 2 ** 30, max: 2 ** 20 },
      ],
      ...[
        { ...good, address: AT + 64 * PAGE, min: 2 ** 30 },
        { ...good, address: AT + 64 * PAGE, max: AT },
      ],
      ...[
        { ...good, protection: 'write', maxProtection: 'read' },
        { ...good, deviceMap: 99 },
        { ...good, offset: 5 },
      ],
      ...[
        { ...good, physical: 2 ** 40 },
        { ...good, physical: 0, offset: PAGE },
        { ...good, physical: 0, memory: null },
      ],
      ...[
        { ...good, driver: { export: 5 } },
        { ...good, driver: { export: '' } },
        { ...good, driver: { module: 5, export: 'x' } },
      ],
      ...[
        { ...good, file: { vnode: 0 } },
        { ...good, file: { vnode: 'x', isWritable: true } },
      ],
    ];
    const bad = [...junkBut(), ...plain, ...flags, ...sources, ...rights, ...times, ...others];
    refuses(() => as, 'as', [['map', [good], [bad]]]);
  });

  it('that refer to what is not there, or is not to be written, are refused with that reason', () => {
    const path = scratch.file('five', 5, 1);
    const readOnly = vm.open(path);
    const cookie = vm.pmem.alloc({ size: PAGE });
    vm.pmem.free(cookie);
    const memory = vm.sharedMemory({ size: PAGE });
    memory.release();
    vm.callbacks.register('no driver', { size: 3 });
    const before = picture();
    const cases = [
      [/EACCES/, { file: { vnode: readOnly.vnode, isWritable: true }, shared: true }],
      [/EINVAL.*as\.map.*reading only/, { file: readOnly, shared: true, maxProtection: 'write' }],
      [/ESTALE/, { file: { vnode: 77, isWritable: true } }],
      [/ESTALE.*as\.map/, { cookie }],
      [/ESTALE/, { memory }],
      [/ENOENT/, { driver: { export: 'nobody knows' } }],
      [/EINVAL.*as\.map.*`?fault/, { driver: { export: 'no driver' } }],
    ] as const;
    for (const [reason, options] of cases) expect(() => as.map({ size: PAGE, ...options })).toThrow(reason);
    expect(picture()).toEqual(before);
    readOnly.close();
    // Memory of another system, whose numbers would fit.
    const other = boot({ memory: '1 MiB', services: 'manual' });
    const foreign = other.sharedMemory({ size: PAGE });
    expect(() => as.map({ size: PAGE, memory: foreign })).toThrow(/EINVAL.*of this system/);
    foreign.release();
    other.detach();
  });
});

describe('bad calls that make and find', () => {
  const sizes = [...JUNK.filter((value) => value !== undefined && value !== '4096'), '5 X', 5];
  const noOptions = JUNK.filter(
    (value) => value !== undefined && (typeof value !== 'object' || !value || Array.isArray(value)),
  );

  it('address spaces are refused', () => {
    const hole = [
      ...JUNK.filter((value) => value !== undefined),
      [0],
      [PAGE, 0],
      [0, 5],
      [0, '5'],
      [0, PAGE, 2 * PAGE],
    ];
    const options = [
      ...[...noOptions, { unknown: 1 }, { base: 2 * PAGE, limit: PAGE }, { base: PAGE, limit: PAGE }],
      ...['base', 'limit', 'userLimit'].flatMap((name) => sizes.map((value) => ({ [name]: value }))),
      ...junkBut(isUndefined, true).map((kernel) => ({ kernel })),
      ...hole.map((value) => ({ hole: value })),
    ];
    const spaces = [...junkBut(), 3, 4_000].map((space) => ({ space, generation: 0 }));
    const generations = [...junkBut(), 99].map((generation) => ({ ...as.id, generation }));
    refuses(() => vm, '', [['addressSpace', [{}], [options]]]);
    refuses(() => vm, '', [['addressSpace', [{}], [[...spaces, ...generations]]]], ['ESTALE']);
  });

  it('shared memory is refused', () => {
    const memory = vm.sharedMemory({ size: PAGE });
    const options = [
      ...[...noOptions, undefined, {}, { unknown: 1 }, { size: 2 ** 50 }, { size: 0 }],
      ...sizes.filter((size) => size !== 5).map((size) => ({ size })),
      ...junkBut(isUndefined, true).map((wired) => ({ size: PAGE, wired })),
    ];
    const ids = [...junkBut(), 77].flatMap((junk) => [
      { ...memory.id, map: junk },
      { ...memory.id, generation: junk },
    ]);
    refuses(() => vm, '', [['sharedMemory', [{}], [options]]]);
    refuses(() => vm, '', [['sharedMemory', [{}], [ids]]], ['ESTALE']);
    memory.release();
    expect(() => memory.release()).toThrow(/ESTALE.*sharedMemory/);
    expect(() => memory.size).toThrow(/ESTALE.*sharedMemory/);
  });

  it('swap files are refused', () => {
    const paths = JUNK.filter((value) => typeof value !== 'string');
    refuses(() => vm.spaces.swap, 'swap', [
      [
        'add',
        ['nowhere', PAGE],
        [
          [...paths, ''],
          [...sizes, undefined, 0, 2 ** 50],
        ],
      ],
    ]);
    expect(() => vm.spaces.swap.add(`${scratch.directory}/no/such/place`, PAGE)).toThrow(/ENOENT: swap\.add/);
  });

  it('drivers are refused, and what they answer that is no answer', () => {
    const fault = () => 0;
    const names = ['fault', 'unmapped', 'sync', 'advise', 'fork'];
    const wrong = names.flatMap((name) =>
      junkBut(isUndefined, (value: unknown) => typeof value === 'function').map((value) => ({ fault, [name]: value })),
    );
    const before = picture();
    for (const driver of [...wrong, {}, 5]) {
      vm.callbacks.register('wrong', driver);
      const what = `${Object.keys(driver)} ${Object.values(driver).map(String)}`;
      expect([
        what,
        ...attempt('as.map', [], () => as.map({ size: PAGE, driver: { export: 'wrong' } }), ['EINVAL']),
      ]).toEqual([what]);
    }
    expect(picture()).toEqual(before);
    const driver: { fault: () => unknown; fork?: () => unknown } = { fault };
    vm.callbacks.register('answers', driver);
    const at = as.map({ size: PAGE, driver: { export: 'answers' } });
    const mapped = picture();
    const problems: string[] = [];
    for (const answer of [...junkBut(), 5, 2 ** 40]) {
      driver.fault = () => answer;
      problems.push(...attempt('driver.fault', [answer], () => as.load(at), ['EFAULT']));
    }
    for (const answer of junkBut((value: unknown) => Number.isFinite(value))) {
      driver.fork = () => answer;
      problems.push(...attempt('driver.fork', [answer], () => as.fork(), ['EINVAL']));
    }
    expect(problems).toEqual([]);
    expect(picture()).toEqual(mapped);
    as.unmap(at, PAGE);
  });
});

describe('bad calls of pins and of the pagelock cache', () => {
  it('are refused', () => {
    const pin = as.pin(AT, PAGE, 'read');
    pin.release();
    expect(() => pin.release()).toThrow(/EINVAL.*pin\.release/);
    expect(() => pin.views).toThrow(/EINVAL.*pin\.views/);
    pin[Symbol.dispose]();

    vm.callbacks.register('reclaims', { reclaim: () => false });
    vm.callbacks.register('does not', {});
    const { pagelock } = vm;
    const owner = pagelock.createOwner({ driver: { export: 'reclaims' } });
    const owners = [...junkBut(), 9_999];
    const lengths = [...junkBut(), 0, 5, 2 ** 50];
    const places = [...junkBut(), 5];
    const references = [...junkBut().map((driver) => ({ driver })), { driver: { export: 'does not' } }];
    const known = { driver: { export: 'reclaims' } };
    refuses(() => pagelock, 'pagelock', [
      ['createOwner', [known], [[...junkBut(), ...references, { ...known, name: 'x' }, { ...known, tag: -1 }]]],
      ['destroyOwner', [owner], [owners]],
      ['lookup', [owner, 0, PAGE, PIN.read], [owners, places, lengths]],
      ['insertCheck', [PAGE, PIN.read], [lengths]],
      ['insert', [owner, 0, PAGE, 1, PIN.write], [owners, places, lengths, junkBut()]],
      ['insert', [owner, 0, PAGE, 1, PIN.read, 0], [[], [], [], [], [], [...junkBut(isUndefined), 2 * PAGE]]],
      ['inactive', [owner, 0, PAGE, 5, 1, PIN.read], [owners, places, lengths]],
      ['release', [5], [junkBut()]],
      ['purge', [owner], [owners]],
      ['reclaim', [1], [junkBut()]],
      ['reapWhenKicked', [0], [[...junkBut(isUndefined, isNumber), -1, Number.NaN]]],
      ['disable', [0], [[...junkBut(isUndefined, isNumber), -1, Number.NaN]]],
      ['shadowOf', [1], [junkBut()]],
      ['addressOf', [1], [junkBut()]],
      ['lengthOf', [1], [junkBut()]],
    ]);
    expect(() => pagelock.enable()).toThrow(/EINVAL.*pagelock\.enable/);
    pagelock.destroyOwner(owner);
  });
});
