/** Arguments that break the rules: refused before anything happens, with the arena as usable as before. */

import { describe, expect, it } from 'vitest';
import { testRegion } from '../../test/support/region.ts';
import { type InvariantError, VmError } from '../base/index.ts';
import { createOwner } from '../sync/index.ts';
import { type Arena, Arenas } from './index.ts';

/** Values that are neither addresses nor sizes. */
const NO_NUMBERS: readonly unknown[] = [
  null,
  Number.NaN,
  1.5,
  -1,
  2 ** 53,
  '5',
  {},
  [],
  true,
  10n,
  Symbol('x'),
  Number.POSITIVE_INFINITY,
];
/** Values that are no functions, signals or tokens. */
const NO_OBJECTS: readonly unknown[] = [null, 5, '5', {}, [], true, 10n];
/** Values that are no options. */
const NO_OPTIONS: readonly unknown[] = [null, 5, '5', true, 10n];

interface Subject {
  readonly arenas: Arenas;
  /** Without caches, with 8 allocated at 0. */
  readonly plain: Arena;
  /** With caches, and an object of size 8. */
  readonly cached: Arena;
  readonly object: number;
}

function subject(): Subject {
  const { thread, callbacks } = testRegion();
  const arenas = new Arenas(thread, callbacks);
  const plain = arenas.create('plain', { size: 1024, quantum: 4 });
  expect(plain.alloc(8)).toBe(0);
  const cached = arenas.create('cached', { size: 65_536, quantum: 8, quantumCacheMax: 64 });
  return { arenas, plain, cached, object: cached.alloc(8) };
}

type Call = (subject: Subject, bad: never) => unknown;

const TABLE: readonly (readonly [string, readonly unknown[], Call])[] = [
  ['alloc(X)', NO_NUMBERS, ({ plain }, bad) => plain.alloc(bad)],
  ['alloc(X), cached', NO_NUMBERS, ({ cached }, bad) => cached.alloc(bad)],
  ['xalloc(X)', NO_NUMBERS, ({ plain }, bad) => plain.xalloc(bad)],
  ['xalloc(4, X)', NO_OPTIONS, ({ plain }, bad) => plain.xalloc(4, bad)],
  ['free(X, 8)', NO_NUMBERS, ({ plain }, bad) => plain.free(bad, 8)],
  ['free(0, X)', NO_NUMBERS, ({ plain }, bad) => plain.free(0, bad)],
  ['free(X, 8), cached', NO_NUMBERS, ({ cached }, bad) => cached.free(bad, 8)],
  ['free(text of an address, 8), cached', [0], ({ cached, object }) => cached.free(String(object) as never, 8)],
  ['free(object, X), cached', NO_NUMBERS, ({ cached, object }, bad) => cached.free(object, bad)],
  ['xfree(X, 8)', NO_NUMBERS, ({ plain }, bad) => plain.xfree(bad, 8)],
  ['xfree(X, 8), cached', NO_NUMBERS, ({ cached }, bad) => cached.xfree(bad, 8)],
  ['add(X, 4)', NO_NUMBERS, ({ plain }, bad) => plain.add(bad, 4)],
  ['add(4096, X)', NO_NUMBERS, ({ plain }, bad) => plain.add(4096, bad)],
  ['remove(X)', NO_NUMBERS, ({ plain }, bad) => plain.remove(bad)],
  ['mergeSpans(X)', NO_NUMBERS, ({ plain }, bad) => plain.mergeSpans(bad)],
  ['reserve(X, 4)', NO_NUMBERS, ({ plain }, bad) => plain.reserve(bad, 4)],
  ['reserve(8, X)', NO_NUMBERS, ({ plain }, bad) => plain.reserve(8, bad)],
  ['resize(X, 8, 12)', NO_NUMBERS, ({ plain }, bad) => plain.resize(bad, 8, 12)],
  ['resize(0, X, 12)', NO_NUMBERS, ({ plain }, bad) => plain.resize(0, bad, 12)],
  ['resize(0, 8, X)', NO_NUMBERS, ({ plain }, bad) => plain.resize(0, 8, bad)],
  ['resize(0, 8, 12, X)', NO_OPTIONS, ({ plain }, bad) => plain.resize(0, 8, 12, bad)],
  ['resize nocross', NO_NUMBERS.slice(0, 4), ({ plain }, bad) => plain.tryResize(0, 8, 12, { nocross: bad })],
  ['resize nocross', ['5', {}, 10n], ({ plain }, bad) => plain.tryResize(0, 8, 12, { nocross: bad })],
  ['resize max', NO_NUMBERS, ({ plain }, bad) => plain.tryResize(0, 8, 12, { max: bad })],
  ['resize(X, 8, 8), cached', NO_NUMBERS, ({ cached }, bad) => cached.resize(bad, 8, 8)],
  ['whatis(X)', NO_NUMBERS, ({ plain }, bad) => plain.whatis(bad)],
  ['arenas.whatis(X)', NO_NUMBERS, ({ arenas }, bad) => arenas.whatis(bad)],
  ['rehash(X)', NO_NUMBERS, ({ plain }, bad) => plain.rehash(bad)],
  ['roundupSize(X)', NO_NUMBERS, ({ plain }, bad) => plain.roundupSize(bad)],
  ['walk(X)', NO_OBJECTS, ({ plain }, bad) => plain.walk(bad)],
  ['onPressure(X)', NO_OBJECTS, ({ arenas }, bad) => arenas.onPressure(bad)],
  ['allocations(X)', NO_NUMBERS, ({ plain }, bad) => plain.allocations(bad)],
  ['freeOf(X)', NO_NUMBERS, ({ plain }, bad) => plain.freeOf(bad)],
  ['create base', NO_NUMBERS, ({ arenas }, bad) => arenas.create('new', { base: bad })],
  ['create size', NO_NUMBERS, ({ arenas }, bad) => arenas.create('new', { size: bad })],
  ['create quantum', NO_NUMBERS, ({ arenas }, bad) => arenas.create('new', { quantum: bad })],
  ['create quantumCacheMax', NO_NUMBERS, ({ arenas }, bad) => arenas.create('new', { quantumCacheMax: bad })],
  [
    'create roundTo',
    NO_NUMBERS,
    ({ arenas, plain: from }, bad) => arenas.create('new', { import: { from, roundTo: bad } }),
  ],
  ['create quarantine', NO_NUMBERS, ({ arenas }, bad) => arenas.create('new', { quarantine: { frees: 1, ms: bad } })],
  ['create(new, X)', NO_OPTIONS, ({ arenas }, bad) => arenas.create('new', bad)],
  ['allocWait(X)', NO_NUMBERS, ({ plain }, bad) => plain.allocWait(bad, { timeoutMs: 1 })],
  ['allocWait(4, X)', NO_OPTIONS, ({ plain }, bad) => plain.allocWait(4, bad)],
  [
    'allocWait timeoutMs',
    [null, Number.NaN, '5', -1, [], 10n],
    ({ plain }, bad) => plain.allocWait(4, { timeoutMs: bad }),
  ],
  ['allocWait cancel', NO_OBJECTS, ({ plain }, bad) => plain.allocWait(4, { cancel: bad })],
];

/** The same for calls that return promises. */
const TABLE_ASYNC: readonly (readonly [string, readonly unknown[], Call])[] = [
  ['allocAsync(X)', NO_NUMBERS, ({ plain }, bad) => plain.allocAsync(bad)],
  ['allocAsync(4, X)', NO_OPTIONS, ({ plain }, bad) => plain.allocAsync(4, bad)],
  [
    'allocAsync timeoutMs',
    [null, Number.NaN, '5', -1, [], 10n],
    ({ plain }, bad) => plain.allocAsync(4, { timeoutMs: bad }),
  ],
  ['allocAsync signal', NO_OBJECTS, ({ plain }, bad) => plain.allocAsync(4, { signal: bad })],
  ['serveImports(X)', NO_OPTIONS, ({ arenas }, bad) => arenas.serveImports(bad)],
  ['serveImports signal', NO_OBJECTS, ({ arenas }, bad) => arenas.serveImports({ signal: bad })],
];

function stateOf({ arenas, plain, cached }: Subject): string {
  const names = arenas.list().map(({ name }) => name);
  return JSON.stringify([names, plain.dump(), cached.dump(), cached.allocations()]);
}

/** The error is `EINVAL`, nothing changed, and both arenas still work. */
function expectUnharmed(given: Subject, before: string, error: unknown): void {
  expect(error).toBeInstanceOf(VmError);
  expect(error as VmError | InvariantError).toMatchObject({ code: 'EINVAL' });
  expect(stateOf(given)).toBe(before);
  for (const arena of [given.plain, given.cached]) {
    arena.free(arena.alloc(8), 8);
    arena.xfree(arena.xalloc(128, { align: 128 }), 128);
  }
  given.cached.drain();
}

/** Everything can be freed in the end, and allocated in one piece. */
function expectSound({ arenas, plain, cached, object }: Subject): void {
  expect(arenas.check().flatMap(({ problems }) => problems)).toEqual([]);
  plain.free(0, 8);
  cached.free(object, 8);
  cached.drain();
  expect(plain.alloc(1024)).toBe(0);
  expect(cached.alloc(65_536)).toBe(0);
  expect(arenas.check().flatMap(({ problems }) => problems)).toEqual([]);
}

describe('misuse', () => {
  it.each(TABLE)('of %s is refused with nothing changed', (_name, bads, call) => {
    const given = subject();
    for (const bad of bads) {
      const before = stateOf(given);
      let error: unknown = `${String(bad)} was accepted`;
      try {
        call(given, bad as never);
      } catch (caught) {
        error = caught;
      }
      expectUnharmed(given, before, error);
    }
    expectSound(given);
  });

  it.each(TABLE_ASYNC)('of %s rejects with nothing changed', async (_name, bads, call) => {
    const given = subject();
    for (const bad of bads) {
      const before = stateOf(given);
      const error = await Promise.resolve(call(given, bad as never)).catch((caught: unknown) => caught);
      expectUnharmed(given, before, error);
    }
    expectSound(given);
  });

  it('is named in the message: function, values, rule', async () => {
    const { arenas, plain } = subject();
    expect(() => plain.free('5' as never, 8)).toThrow(
      /^EINVAL: arena.free\(arena="plain", address="5"\): address must be an integer from 0 to 9007199254740991$/,
    );
    expect(() => plain.resize(0, 8, -1)).toThrow(/arena.resize\(.*newSize=-1\): newSize must be an integer above 0/);
    expect(() => arenas.whatis(1.5)).toThrow(/arenas.whatis\(.*address=1.5\)/);
    expect(() => plain.allocWait(4, { signal: 1 } as never)).toThrow(/option="signal".*strategy, timeoutMs, cancel$/);
    const wrong = plain.allocAsync(4, { abort: 1 } as never);
    await expect(wrong).rejects.toThrow(/option="abort".*strategy, timeoutMs, signal, cancel$/);
  });
});

describe('what arenas and caches took from an arena', () => {
  it('cannot be freed or resized there: a slab', () => {
    const given = subject();
    const { cached, object } = given;
    const slab = cached.snapshot().segments.find(({ kind }) => kind === 'busy') as { start: number; size: number };
    expect(object).toBeGreaterThanOrEqual(slab.start);
    const before = stateOf(given);
    const rule = /EINVAL: arena\.\w+\(.*(a slab|an object of size 8) of the quantum caches starts at this address/;
    expect(() => cached.free(slab.start, slab.size)).toThrow(rule);
    expect(() => cached.xfree(slab.start, slab.size)).toThrow(rule);
    expect(() => cached.tryResize(slab.start, slab.size, slab.size - 8)).toThrow(rule);
    expect(() => cached.tryResize(slab.start, slab.size, slab.size + 8)).toThrow(rule);
    expect(stateOf(given)).toBe(before);
    expectSound(given);
  });

  it('cannot be freed or resized there: a span of an importer', () => {
    const { arenas, plain } = subject();
    const child = arenas.create('child', { quantum: 4, import: { from: plain } });
    const address = child.alloc(16);
    const rule = /EINVAL.*a span that the arena "child" imported starts at this address/;
    expect(() => plain.free(address, 16)).toThrow(rule);
    expect(() => plain.xfree(address, 16)).toThrow(rule);
    expect(() => plain.resize(address, 16, 8)).toThrow(rule);
    child.free(address, 16);
    child.destroy();
    plain.free(0, 8);
    expect(plain.alloc(1024)).toBe(0);
  });

  it('is called what it is when its size is wrong', () => {
    const { cached } = subject();
    const object = cached.alloc(24);
    expect(() => cached.free(object, 16)).toThrow(/size=16\): an object of size 24 of the quantum caches starts/);
    expect(() => cached.free(object, 1000)).toThrow(/size=1000\): an object of size 24/);
    expect(() => cached.xfree(object, 24)).toThrow(/an object of size 24 .*; free it with `free`$/);
    cached.free(object, 24);
    expect(() => cached.xfree(object, 24)).toThrow(/no allocation starts at this address|a slab of/);
  });
});

describe('a call with bad arguments', () => {
  it('is named as it was called, and arrays are no options', () => {
    const { thread, callbacks } = testRegion();
    const arenas = new Arenas(thread, callbacks);
    const arena = arenas.create('a', { size: 64 });
    expect(() => arena.tryAlloc(0)).toThrow(/^EINVAL: arena.tryAlloc\(arena="a", size=0\)/);
    expect(() => arena.tryAlloc(1, 'worst' as 'best')).toThrow(/^EINVAL: arena.tryAlloc\(strategy="worst"\)/);
    expect(() => arena.alloc(0)).toThrow(/^EINVAL: arena.alloc\(/);
    const cached = arenas.create('cached', { size: 4096, quantumCacheMax: 8 });
    expect(() => cached.tryAlloc(-1)).toThrow(/^EINVAL: arena.tryAlloc\(/);
    expect(() => arena.xalloc(1, [] as object)).toThrow(
      /^EINVAL: arena.xalloc\(options=\[\]\): options must be an object/,
    );
    expect(() => arena.resize(0, 1, 2, [] as object)).toThrow(/^EINVAL: arena.resize\(.*must be an object/);
    expect(() => arenas.create('b', [] as object)).toThrow(/must be an object/);
    expect(arena.size('allocated')).toBe(0);
  });
});

describe('a request without space', () => {
  it('says so when boundary tags are used up', () => {
    const { thread, callbacks } = testRegion({ tags: 64, tagBuckets: 32 });
    const arenas = new Arenas(thread, callbacks);
    const arena = arenas.create('tags', { size: 4096 });
    const got: number[] = [];
    for (let address = arena.tryAlloc(1); address >= 0; address = arena.tryAlloc(1)) got.push(address);
    expect(got.length).toBeGreaterThan(10);
    const rule = /^ENOMEM: arena.alloc\(arena="tags", size=1\): no boundary tags are left; boot with more `tags`$/;
    expect(() => arena.alloc(1)).toThrow(rule);
    expect(() => arena.reserve(4000, 1)).toThrow(/ENOMEM: arena.reserve\(.*no boundary tags are left/);
    expect(() => arena.alloc(5000)).toThrow(/ENOMEM.*no free segment can hold it$/);
    for (const address of got) arena.free(address, 1);
    expect(() => arena.alloc(4097)).toThrow(/ENOMEM.*no free segment can hold it$/);
    expect(arena.alloc(4096)).toBe(0);
    expect(arena.check().problems).toEqual([]);
  });

  it('names missing tags where a wait ran out of time, and where there is no tag for what shrinks', async () => {
    const { thread, callbacks } = testRegion({ tags: 64, tagBuckets: 32 });
    const arena = new Arenas(thread, callbacks).create('tags', { size: 4096 });
    const large = arena.alloc(100);
    const got: number[] = [];
    for (let address = arena.tryAlloc(1); address >= 0; address = arena.tryAlloc(1)) got.push(address);
    while (arena.tryXalloc(1, { align: 64 }) >= 0);
    const rule =
      /^ETIMEDOUT: arena.allocWait\(.*\): no segment became free that can hold it; no boundary tags are left/;
    expect(() => arena.allocWait(1, { timeoutMs: 5 })).toThrow(rule);
    await expect(arena.allocAsync(1, { timeoutMs: 5 })).rejects.toThrow(/ETIMEDOUT.*; no boundary tags are left/);
    expect(() => arena.allocWait(4096, { timeoutMs: 5 })).toThrow(/^ETIMEDOUT: .* that can hold it$/);
    // The last tag but one for programs, and none for what joins free space.
    arena.resize(large, 100, 50);
    arena.resize(large, 50, 40);
    expect(arena.xalloc(60, { min: large + 40, max: large + 99 })).toBe(large + 40);
    expect(() => arena.resize(large, 40, 20)).toThrow(
      /^ENOMEM: arena.resize\(.*newSize=20\): no boundary tags are left; .*: what it would leave needs one, unless/,
    );
    expect(arena.tryResize(large, 40, 20)).toBe(false);
    arena.resize(large, 40, 40);
    expect(arena.check().problems).toEqual([]);
    arena.xfreeAll();
    expect(arena.alloc(4096)).toBe(0);
    expect(arena.check().problems).toEqual([]);
  });

  it('leaves the last tags to arenas of the system, which programs cannot make', () => {
    const { thread, callbacks } = testRegion({ tags: 1024, tagBuckets: 2048 });
    const arenas = new Arenas(thread, callbacks);
    expect(() => arenas.create('vm.mine', { size: 10 })).toThrow(
      /^EINVAL: arenas.create\(name="vm.mine"\): names that begin/,
    );
    const system = arenas.createForSystem('vm.heap', { size: 4096 });
    const greedy = arenas.create('greedy', { size: 2 ** 20 });
    let taken = 0;
    while (greedy.tryAlloc(1) >= 0) taken++;
    expect(taken).toBeGreaterThan(900);
    expect(() => greedy.alloc(1)).toThrow(/^ENOMEM: .* no boundary tags are left/);
    expect(arenas.stats().unusedTags).toBeGreaterThanOrEqual(32);
    expect(() => arenas.create('other', { size: 10 })).toThrow(
      /^ENOMEM: arenas.create\(name="other"\): no boundary tags/,
    );
    const held: number[] = [];
    for (let i = 0; i < 20; i++) held.push(system.alloc(64));
    for (const address of held) system.free(address, 64);
    greedy.xfreeAll();
    greedy.trim();
    expect(arenas.create('other', { size: 10 }).alloc(3)).toBe(0);
    expect(greedy.alloc(2 ** 20)).toBe(0);
    expect(arenas.check().flatMap(({ problems }) => problems)).toEqual([]);
  });

  it('says of a resize who was called, with which size, and what is in the way', () => {
    const { region, thread, callbacks } = testRegion();
    createOwner(region, 'default', { arenaBytes: 100 });
    const arenas = new Arenas(thread, callbacks);
    const charged = arenas.create('charged', { size: 1024, charge: true });
    const address = charged.alloc(60);
    const quota =
      /^EDQUOT: arena.resize\(arena="charged", address=0, size=60, newSize=101, owner="default", used=60\): the owner's limit/;
    expect(() => charged.resize(address, 60, 101)).toThrow(quota);
    expect(charged.tryResize(address, 60, 101)).toBe(false);
    expect(() => charged.resize(address, 60, 70, { max: 65 })).toThrow(
      /^ENOMEM: arena.resize\(.*max=65\): it would reach beyond `max`/,
    );
    expect(() => charged.tryResize(address, 60, 0)).toThrow(/^EINVAL: arena.tryResize\(.*newSize=0/);
    const { cached, object } = subject();
    const keeps =
      /^EINVAL: arena.resize\(.*newSize=40\): an object of size 8 of the quantum caches starts here, and keeps its size$/;
    expect(() => cached.resize(object, 8, 40)).toThrow(keeps);
    expect(cached.tryResize(object, 8, 40)).toBe(false);
    expect(() => charged.tryReserve(0, 0)).toThrow(/^EINVAL: arena.tryReserve\(/);
    expect(() => charged.reserve(0, 0)).toThrow(/^EINVAL: arena.reserve\(/);
    expect(() => charged.tryXalloc(8, { align: 3 })).toThrow(/^EINVAL: arena.tryXalloc\(align=3/);
    expect(() => charged.xalloc(8, { align: 3 })).toThrow(/^EINVAL: arena.xalloc\(align=3/);
  });

  it('names the limit of the arena when an import is refused for it', () => {
    const { arenas } = subject();
    const from = arenas.create('from', { size: 1000 });
    const arena = arenas.create('limited', { limit: 100, import: { from } });
    expect(arena.alloc(90)).toBe(0);
    const rule = /^EDQUOT: arena.alloc\(arena="limited", size=11\): .*, and the limit of all spans is 100$/;
    expect(() => arena.alloc(11)).toThrow(rule);
    expect(arena.alloc(10)).toBe(90);
    const unlimited = arenas.create('unlimited', { import: { from } });
    expect(() => unlimited.alloc(901)).toThrow(/^ENOMEM.*no free segment can hold it$/);
  });

  it('names the limit of the owner, for reserved ranges too', () => {
    const { region, thread, callbacks } = testRegion();
    createOwner(region, 'default', { arenaBytes: 100 });
    const arena = new Arenas(thread, callbacks).create('charged', { size: 1024, quantum: 16, charge: true });
    arena.reserve(0, 64);
    expect(() => arena.reserve(512, 64)).toThrow(/^EDQUOT: arena.reserve\(.*used=64\): the owner's limit .* is 100$/);
    expect(() => arena.alloc(33)).toThrow(/^EDQUOT: arena.alloc\(.*the owner's limit/);
    expect(() => arena.reserve(32, 32)).toThrow(/^ENOMEM: arena.reserve\(.*some of it is taken/);
    expect(arena.alloc(32)).toBe(64);
  });
});
