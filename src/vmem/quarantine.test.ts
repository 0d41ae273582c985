/** Freed ranges that are kept from use for a time or a number of frees. */

import { describe, expect, it } from 'vitest';
import { testRegion } from '../../test/support/region.ts';
import { type Arena, Arenas } from './index.ts';

function makeArenas(virtualClock = false) {
  const { region, thread, callbacks } = testRegion({}, virtualClock);
  return { region, thread, callbacks, arenas: new Arenas(thread, callbacks) };
}

function segments(arena: Arena): string {
  return arena
    .snapshot()
    .segments.map(({ kind, start, size }) => `${kind} ${start}+${size}`)
    .join(', ');
}

function sound(arenas: Arenas): void {
  expect(arenas.check().flatMap(({ problems }) => problems)).toEqual([]);
}

describe('quarantine', () => {
  it('keeps a range for a number of frees', () => {
    const { arenas } = makeArenas();
    const ids = arenas.create('ids', { size: 8, quarantine: { frees: 3 } });
    const taken = [0, 1, 2, 3, 4].map(() => ids.alloc(1));
    expect(taken).toEqual([0, 1, 2, 3, 4]);
    ids.free(2, 1);
    expect([ids.alloc(1), ids.alloc(1)]).toEqual([5, 6]);
    expect(ids.whatis(2)).toMatchObject({ kind: 'quarantined', start: 2, size: 1 });
    expect(() => ids.free(2, 1)).toThrow(/EINVAL.*was it freed before/);
    ids.free(0, 1);
    ids.free(1, 1);
    expect(ids.stats()).toMatchObject({ quarantined: 3, quarantinedSize: 3, inUse: 4 });
    sound(arenas);
    ids.free(5, 1);
    expect(ids.stats().quarantined).toBe(3);
    expect(ids.alloc(1)).toBe(2);
    sound(arenas);
    expect(ids.stats().counts.quarantined).toBe(4);
  });

  it('keeps a range for a time', () => {
    const { thread, arenas } = makeArenas(true);
    const ids = arenas.create('ids', { size: 10, quarantine: { ms: 50 } });
    ids.free(ids.alloc(2), 2);
    thread.clock.advance(49);
    expect(ids.alloc(2)).toBe(2);
    expect(ids.alloc(6)).toBe(4);
    thread.clock.advance(1);
    expect(ids.alloc(1)).toBe(0);
    sound(arenas);
  });

  it('is emptied on request and by whatever needs whole spans; with `early` also before a request fails', () => {
    const { arenas } = makeArenas();
    const ids = arenas.create('ids', { size: 10, quarantine: { frees: 100, early: true } });
    const all = Array.from({ length: 10 }, () => ids.alloc(1));
    for (const id of all) ids.free(id, 1);
    expect(ids.size('free')).toBe(10);
    expect(ids.alloc(10)).toBe(0);
    ids.free(0, 10);
    expect(ids.releaseQuarantine()).toBe(1);
    expect(ids.releaseQuarantine()).toBe(0);
    ids.free(ids.alloc(4), 4);
    ids.remove(0);
    ids.add(0, 10);
    const grown = ids.alloc(4);
    ids.free(ids.alloc(6), 6);
    expect(ids.tryResize(grown, 4, 10)).toBe(true);
    expect(ids.tryResize(grown, 10, 3)).toBe(true);
    expect(ids.stats()).toMatchObject({ quarantined: 1, quarantinedSize: 7 });
    ids.xfreeAll();
    expect(segments(ids)).toBe('static 0+10, free 0+10');
    ids.free(ids.alloc(4), 4);
    sound(arenas);
    ids.destroy();
  });

  it('is let go early, if that is wished, only for a request that succeeds then, and no more than it needs', () => {
    const { arenas } = makeArenas();
    const ids = arenas.create('ids', { size: 10, quarantine: { frees: 100, early: true } });
    const all = Array.from({ length: 10 }, () => ids.alloc(1));
    const free = (...which: number[]) => {
      for (const at of which) ids.free(all[at] as number, 1);
    };
    free(0, 1, 2, 4, 5);
    expect(ids.tryAlloc(11)).toBe(-1);
    expect(ids.tryAlloc(4)).toBe(-1);
    expect(ids.tryXalloc(2, { align: 8 })).toBe(0);
    expect(ids.stats().quarantined).toBe(3);
    free(3);
    expect(ids.tryResize(0, 2, 4)).toBe(true);
    expect(ids.stats().quarantined).toBe(2);
    expect(ids.tryResize(0, 4, 6)).toBe(true);
    expect(ids.stats().quarantined).toBe(0);
    free(6, 8);
    expect(ids.tryResize(0, 6, 8)).toBe(false);
    expect(() => ids.remove(0)).toThrow(/EBUSY/);
    expect(ids.tryXalloc(1, { align: 8, phase: 7 })).toBe(-1);
    expect(ids.stats().quarantined).toBe(2);
    expect(ids.tryXalloc(1, { align: 8 })).toBe(8);
    // An importer lets go of spans that may come back larger, but not for what its source could never give.
    const source = arenas.create('source', { base: 1000, size: 100 });
    const child = arenas.create('child', { quarantine: { frees: 100, early: true }, import: { from: source } });
    child.free(child.alloc(60), 60);
    expect(child.tryAlloc(101)).toBe(-1);
    expect(child.stats().quarantined).toBe(1);
    expect(child.alloc(100)).toBe(1000);
    sound(arenas);
  });

  it('keeps what it has, whatever is asked for', () => {
    const { thread, arenas } = makeArenas(true);
    const ports = arenas.create('ports', { base: 100, size: 10, quarantine: { ms: 1000 } });
    const first = ports.alloc(1);
    ports.free(first, 1);
    expect(ports.tryReserve(first, 1)).toBe(false);
    expect(() => ports.reserve(first, 1)).toThrow(
      /ENOMEM.*some of it is taken, or in no span; 1 is in quarantine \(ranges: 1\), the oldest for another 1000 ms/,
    );
    const rest = ports.alloc(8);
    thread.clock.advance(400);
    ports.free(rest, 8);
    expect(() => ports.alloc(2)).toThrow(
      /ENOMEM.*no free segment.*; 9 is in quarantine \(ranges: 2\), the oldest for another 600/,
    );
    const last = ports.alloc(1);
    expect(ports.tryResize(last, 1, 2)).toBe(false);
    thread.clock.advance(600);
    expect([ports.alloc(1), ports.tryAlloc(1)]).toEqual([first, -1]);
    thread.clock.advance(400);
    expect(ports.alloc(8)).toBe(rest);
    // By number, and what that says.
    const ids = arenas.create('ids', { size: 8, quarantine: { frees: 4 } });
    for (let id = 0; id < 5; id++) ids.free(ids.alloc(1), 1);
    expect(ids.stats().quarantined).toBe(4);
    for (let id = 0; id < 4; id++) ids.alloc(1);
    expect(() => ids.alloc(1)).toThrow(/; 4 is in quarantine \(ranges: 4\), the oldest for 1 more frees/);
    // Removing a span lets go of what waits in it, not of the rest.
    const two = arenas.create('two', { size: 4, quarantine: { frees: 9 } });
    two.add(100, 4);
    for (const at of [two.alloc(4), two.alloc(4)]) two.free(at, 4);
    two.remove(100);
    expect(segments(two)).toBe('static 0+4, quarantined 0+4');
    // With `early`, one range for one request, the oldest.
    const soon = arenas.create('soon', { size: 100, quarantine: { ms: 60_000, early: true } });
    for (let at = 0; at < 100; at++) soon.alloc(1);
    for (let at = 99; at >= 0; at--) soon.free(at, 1);
    expect([soon.alloc(1), soon.stats().quarantined]).toEqual([99, 99]);
    expect([soon.alloc(3), soon.stats().quarantined]).toEqual([96, 96]);
    expect([soon.tryReserve(50, 1), soon.stats().quarantined]).toEqual([true, 50]);
    sound(arenas);
  });

  it('holds imported spans back too, and gives them all back in the end', () => {
    const { arenas } = makeArenas();
    const source = arenas.create('source', { size: 400 });
    const child = arenas.create('child', { quarantine: { frees: 2 }, import: { from: source } });
    const got = [10, 20, 30].map((size) => [child.alloc(size), size] as const);
    for (const [address, size] of got) child.free(address, size);
    expect(source.size('allocated')).toBe(60);
    child.releaseQuarantine();
    sound(arenas);
    child.trim();
    expect(source.size('allocated')).toBe(0);
    child.free(child.alloc(10), 10);
    child.destroy();
    expect(source.size('allocated')).toBe(0);
  });
});
