/** Requests that a limit refused: the error names the limit, also when others have freed before it is made. */

import { afterEach, describe, expect, it } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { Callbacks, chargeTo, createOwner, poisonRegion, setSeam, shutDownRegion, type Thread } from '../sync/index.ts';
import { type Arena, Arenas } from './index.ts';

afterEach(() => {
  setSeam(undefined);
});

function setUp() {
  const { region, thread, callbacks } = testRegion();
  const other = testThread(region);
  createOwner(region, 'default', { arenaBytes: 100 });
  return {
    region,
    thread,
    other,
    arenas: new Arenas(thread, callbacks),
    theirArenas: new Arenas(other, new Callbacks(region)),
  };
}

function sound(arenas: Arenas): void {
  expect(arenas.check().flatMap(({ problems }) => problems)).toEqual([]);
}

/** Acts for another thread, whose arena is given, as soon as a request of this one was refused in it and its lock is free. */
function afterRefusal({ region }: Thread, theirs: Arena, act: () => void): { readonly acted: number } {
  const lock = region.tables.arena.lock.address(theirs.index);
  const before = theirs.stats().counts.refusals;
  const result = { acted: 0 };
  const hook = () => {
    if (region.words[lock] !== 0) return;
    setSeam(undefined);
    if (theirs.stats().counts.refusals === before) {
      setSeam(hook);
      return;
    }
    result.acted++;
    act();
  };
  setSeam(hook);
  return result;
}

describe('a request that a limit refused', () => {
  it("names the owner's, though others have freed since", () => {
    const { other, arenas, theirArenas } = setUp();
    const arena = arenas.create('a', { size: 1000, charge: true });
    const theirs = theirArenas.open('a');
    const requests: [() => void, RegExp][] = [
      [() => arena.alloc(40), /^EDQUOT: arena.alloc\(arena="a", size=40, owner="default", used=0\)/],
      [() => arena.xalloc(40, { align: 8 }), /^EDQUOT: arena.xalloc\(arena="a", size=40, owner="default", used=0\)/],
      [() => arena.reserve(500, 40), /^EDQUOT: arena.reserve\(arena="a", address=500, size=40, owner="default"/],
    ];
    for (const [request, message] of requests) {
      const held = theirs.alloc(80);
      const hook = afterRefusal(other, theirs, () => theirs.free(held, 80));
      let error: unknown;
      try {
        request();
      } catch (caught) {
        error = caught;
      }
      expect(hook.acted).toBe(1);
      expect(String((error as Error).message)).toMatch(message);
      expect(String((error as Error).message)).toMatch(/limit of arena bytes is 100, and there is room again$/);
      expect(() => request()).not.toThrow();
      arena.xfreeAll();
    }
    sound(arenas);
  });

  it("names the owner's when an allocation was to grow", () => {
    const { other, arenas, theirArenas } = setUp();
    const arena = arenas.create('a', { size: 1000, charge: true });
    const theirs = theirArenas.open('a');
    const held = theirs.xalloc(80, { min: 500 });
    const mine = arena.alloc(10);
    const hook = afterRefusal(other, theirs, () => theirs.free(held, 80));
    expect(() => arena.resize(mine, 10, 40)).toThrow(
      /^EDQUOT: arena.resize\(.*owner="default", used=10\): the owner's limit of arena bytes is 100, and there is room/,
    );
    expect(hook.acted).toBe(1);
    arena.resize(mine, 10, 40);
    arena.free(mine, 40);
    sound(arenas);
    expect(arena.size('allocated')).toBe(0);
  });

  it("names the arena's, whatever was asked of the source", () => {
    const { other, arenas, theirArenas } = setUp();
    const source = arenas.create('source', { size: 1000 });
    for (const large of [false, true]) {
      const arena = arenas.create('a', { limit: 100, import: { from: source, large } });
      const theirs = theirArenas.open('a');
      const held = theirs.xalloc(80, {});
      const hook = afterRefusal(other, theirs, () => {
        theirs.free(held, 80);
        theirs.trim();
      });
      expect(() => arena.alloc(40)).toThrow(
        /^EDQUOT: arena.alloc\(arena="a", size=40\): no free segment can hold it, and the limit of all spans is 100$/,
      );
      expect(hook.acted).toBe(1);
      expect(arena.size('all')).toBe(0);
      arena.free(arena.alloc(40), 40);
      arena.trim();
      arena.destroy();
    }
    sound(arenas);
    expect(source.size('allocated')).toBe(0);
  });

  it('waits for room where that is asked for', async () => {
    const { other, arenas, theirArenas } = setUp();
    const arena = arenas.create('a', { size: 1000, charge: true });
    const theirs = theirArenas.open('a');
    const held = theirs.alloc(80);
    const hook = afterRefusal(other, theirs, () => theirs.free(held, 80));
    const mine = arena.allocWait(40);
    expect(hook.acted).toBe(1);
    arena.free(mine, 40);
    const again = theirs.alloc(80);
    const second = afterRefusal(other, theirs, () => theirs.free(again, 80));
    const later = await arena.allocAsync(40);
    expect(second.acted).toBe(1);
    arena.free(later, 40);
    sound(arenas);
  });

  it('says nothing about the next one', () => {
    const { region, other, arenas, theirArenas } = setUp();
    chargeTo(other, createOwner(region, 'web'));
    const arena = arenas.create('a', { size: 200, charge: true });
    const theirs = theirArenas.open('a');
    const mine = arena.alloc(90);
    expect(arena.tryAlloc(20)).toBe(-1);
    expect(arena.tryResize(mine, 90, 101)).toBe(false);
    const held = theirs.alloc(110);
    arena.free(mine, 90);
    const middle = arena.xalloc(10, { min: 40, max: 49 });
    expect(() => arena.alloc(60)).toThrow(/^ENOMEM: arena.alloc\(arena="a", size=60\): no free segment can hold it$/);
    expect(() => theirs.resize(held, 110, 120)).toThrow(/^ENOMEM: arena.resize\(.*: what follows it cannot be had$/);
    arena.free(middle, 10);
    theirs.free(held, 110);

    // The limit forbade a large span, and the source has no small one.
    const source = arenas.create('source', { size: 100 });
    const child = arenas.create('child', { limit: 100, import: { from: source, large: true } });
    const taken = source.alloc(90);
    expect(() => child.alloc(20)).toThrow(
      /^ENOMEM: arena.alloc\(arena="child", size=20\): no free segment can hold it$/,
    );
    source.free(taken, 90);
    sound(arenas);
    expect(arena.size('allocated') + source.size('allocated')).toBe(0);
  });
});

describe('serving imports', () => {
  it('ends well with the system, or its thread, and with an error when the system is broken', async () => {
    for (const end of ['shut down', 'detached', 'broken'] as const) {
      const { region, thread, other, arenas, theirArenas } = setUp();
      const served = arenas.serveImports();
      const theirs = theirArenas.serveImports();
      const outcomes = Promise.allSettled([served, theirs]);
      if (end === 'detached') {
        for (const [each, all] of [
          [thread, arenas],
          [other, theirArenas],
        ] as const) {
          all.leave();
          each.end();
        }
      }
      if (end === 'shut down') shutDownRegion(region);
      else poisonRegion(region, 'an invariant does not hold');
      for (const outcome of await outcomes) {
        if (end === 'broken') expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'EPOISONED' } });
        else expect(outcome).toEqual({ status: 'fulfilled', value: undefined });
      }
    }
  });
});
