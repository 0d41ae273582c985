/** Sources that answer later: who runs them, who shares an answer, and what happens when they fail or their thread dies. */

import { afterEach, describe, expect, it } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { PATIENCE_MS, until } from '../../test/support/until.ts';
import { PAUSED_KINDS } from '../layout/index.ts';
import { Callbacks, takeOver } from '../sync/index.ts';
import { Arenas, type AsyncSpanSource } from './index.ts';
import { SPAN_REQUEST } from './span-service.ts';

/** Time in which nothing must happen: what must happen is waited for with `until`. */
const tick = (ms = 5) => new Promise((resolve) => setTimeout(resolve, ms));

type Range = number | { start: number; size: number };

/** A remote source under the test's control. */
class Remote implements AsyncSpanSource {
  readonly asked: [number, object | undefined][] = [];
  readonly released: [number, number][] = [];
  readonly #pending: { resolve: (range: Range) => void; reject: (error: Error) => void }[] = [];

  importAsync(size: number, constraints?: object): Promise<Range> {
    this.asked.push([size, constraints]);
    return new Promise((resolve, reject) => this.#pending.push({ resolve, reject }));
  }

  release(start: number, size: number): void {
    this.released.push([start, size]);
  }

  get pending(): number {
    return this.#pending.length;
  }

  async untilAsked(times: number): Promise<void> {
    await until(() => this.asked.length >= times, `request ${times}`);
    expect(this.asked).toHaveLength(times);
  }

  async answer(range: unknown): Promise<void> {
    await until(() => this.pending > 0, 'a question to answer');
    this.#pending.shift()?.resolve(range as Range);
    await tick();
  }

  async fail(message: string): Promise<void> {
    await until(() => this.pending > 0, 'a question to fail');
    this.#pending.shift()?.reject(new Error(message));
    await tick();
  }
}

const stops: AbortController[] = [];
afterEach(() => {
  for (const stop of stops.splice(0)) stop.abort();
});

function setUp(options: { large?: boolean; roundTo?: number; limit?: number } = {}) {
  const { region, thread, callbacks } = testRegion();
  const remote = new Remote();
  callbacks.register('remote', remote);
  const arenas = new Arenas(thread, callbacks);
  const { limit, ...rest } = options;
  const source = { from: { export: 'remote' }, async: true, ...rest };
  const arena = arenas.create('a', { import: source, ...(limit === undefined ? {} : { limit }) });
  return { region, thread, arenas, arena, remote };
}

function sound(arenas: Arenas): void {
  expect(arenas.check().flatMap(({ problems }) => problems)).toEqual([]);
}

describe('asynchronous imports', () => {
  it('are awaited by allocAsync, and one serves several waiters', async () => {
    const { arenas, arena, remote } = setUp({ roundTo: 64 });
    expect(arena.tryAlloc(10)).toBe(-1);
    expect(remote.asked).toEqual([]);
    const waiting = [10, 20, 30].map((size) => arena.allocAsync(size));
    await remote.untilAsked(1);
    expect(remote.asked).toEqual([[64, undefined]]);
    await remote.answer({ start: 1024, size: 128 });
    const got = await Promise.all(waiting);
    expect(new Set(got).size).toBe(3);
    for (const address of got) expect(address).toBeGreaterThanOrEqual(1024);
    expect(remote.asked).toHaveLength(1);
    expect(arena.size('all')).toBe(128);
    got.forEach((address, index) => {
      arena.free(address, [10, 20, 30][index] as number);
    });
    sound(arenas);
    arena.trim();
    expect(remote.released).toEqual([[1024, 128]]);
    arena.destroy();
  });

  it('hand constraints on, and ask again when what came has no place for them', async () => {
    const { arenas, arena, remote } = setUp();
    const constrained = arena.allocAsync(16, { align: 64, min: 100 });
    await remote.untilAsked(1);
    expect(remote.asked[0]).toEqual([16, { align: 64, phase: 0, nocross: 0, min: 100, max: Number.MAX_SAFE_INTEGER }]);
    await remote.answer(64);
    // No place for it in there: given back.
    expect(remote.released).toEqual([[64, 16]]);
    await remote.untilAsked(2);
    await remote.answer(128);
    expect(await constrained).toBe(128);
    sound(arenas);
  });

  it('ask again when another one took what came, whoever that is', async () => {
    const { arenas, arena, remote } = setUp();
    const sizes = [16, 10];
    let served = 0;
    const waiting = sizes.map(async (size) => {
      const address = await arena.allocAsync(size, { align: 4, min: 100 });
      served++;
      return address;
    });
    const spans: { start: number; size: number }[] = [];
    while (served < 2) {
      // What one of them has place in, and not the other one beside it.
      spans.push({ start: 1024 * (spans.length + 1), size: 16 });
      await remote.answer(spans.at(-1));
      await until(() => remote.pending > 0 || served === 2, 'another question, or the end');
    }
    expect(spans.length).toBeGreaterThan(1);
    const got = await Promise.all(waiting);
    expect(new Set(got).size).toBe(2);
    for (const address of got) expect(spans.map(({ start }) => start)).toContain(address);
    expect(arena.size('all')).toBe(16 * spans.length);
    for (const [index, address] of got.entries()) arena.xfree(address, sizes[index] as number);
    sound(arenas);
    arena.trim();
    expect(remote.released.toSorted((x, y) => x[0] - y[0])).toEqual(spans.map(({ start, size }) => [start, size]));
  });

  it('tell everybody who waits when they fail, or return garbage', async () => {
    const { arenas, arena, remote } = setUp();
    const outcomes = await Promise.all([
      ...[10, 20].map((size) => arena.allocAsync(size).catch((error: Error) => error.message)),
      remote.fail('the network is down'),
    ]);
    for (const outcome of outcomes.slice(0, 2)) {
      expect(outcome).toMatch(/EIO: arena.allocAsync\(.*import function remote of arena "a": the network is down/);
    }
    const garbage = arena.allocAsync(10).catch((error: Error) => error.message);
    await remote.answer('x');
    expect(await garbage).toMatch(
      /EIO.*import function remote of arena "a"\(wanted=10, returned="x"\): must return -1/,
    );
    const good = arena.allocAsync(10);
    await remote.answer(0);
    expect(await good).toBe(0);
    expect(arenas.stats().arenas[0]?.waiting).toBe(0);
    sound(arenas);
  });

  it('go on when there is nothing at present, and after the time of one waiter', async () => {
    const { arena, remote } = setUp();
    const short = arena.allocAsync(10, { timeoutMs: 30 }).catch((error: Error) => error.message);
    await tick();
    const long = arena.allocAsync(10);
    expect(await short).toMatch(/ETIMEDOUT/);
    await remote.answer(-1);
    await remote.untilAsked(2);
    await remote.answer(500);
    expect(await long).toBe(500);
    const abort = new AbortController();
    const aborted = arena.allocAsync(99, { signal: abort.signal }).catch((error: Error) => error.message);
    await remote.untilAsked(3);
    abort.abort();
    expect(await aborted).toMatch(/ECANCELED/);
    await remote.answer(1000);
    // The span that came too late is there for others.
    expect(arena.alloc(99)).toBe(1000);
  });

  it('pause for longer and longer while nothing comes of them, and for no other reason', async () => {
    const { arenas, arena, remote, region, thread } = setUp();
    const times: number[] = [];
    let answer: (size: number) => Range = () => (times.length < 9 ? -1 : 50_000);
    remote.importAsync = async (size) => {
      times.push(performance.now());
      return answer(size);
    };
    const late = await arena.allocAsync(10, { timeoutMs: PATIENCE_MS });
    expect([late, times.length]).toEqual([50_000, 9]);
    // After 1, 2, 4 .. 128 ms.
    const pauses = times.slice(1).map((time, index) => time - (times[index] as number));
    for (const [index, pause] of pauses.entries()) expect(pause).toBeGreaterThan(2 ** index - 2);
    // A smaller request does not wait for the end of the pause, one of the same size does.
    answer = () => -1;
    await expect(arena.allocAsync(10, { timeoutMs: 20 })).rejects.toThrow(/ETIMEDOUT/);
    times.length = 0;
    region.tables.spanRequest.retryAt.put(arena.index, thread.clock.now() + 10 * PATIENCE_MS);
    const same = arena.allocAsync(10, { timeoutMs: PATIENCE_MS });
    await tick(20);
    expect(times.length).toBe(0);
    answer = (size) => (size < 10 ? 100 : -1);
    expect(await arena.allocAsync(4)).toBe(100);
    answer = () => 1000;
    expect(await same).toBe(1000);
    // Answers that do not fit count as nothing, too.
    times.length = 0;
    let at = 10_000;
    answer = (size) => {
      at += size;
      return { start: at - size, size };
    };
    await expect(arena.allocAsync(10, { max: 50, timeoutMs: 300 })).rejects.toThrow(/ETIMEDOUT/);
    expect(times.length).toBeLessThan(11);
    // A source that does not look at constraints is asked for room for any place.
    times.length = 0;
    at += 1;
    expect((await arena.allocAsync(10, { align: 1024, min: 1 })) % 1024).toBe(0);
    expect(times.length).toBeLessThan(6);
    sound(arenas);
  });

  it('pause for each kind of request by itself: who waits in vain does not keep others from being asked for', async () => {
    const { arenas, arena, remote } = setUp();
    const asked = new Map<number, number>();
    remote.importAsync = async (_size, constraints) => {
      const { min } = constraints as { min: number };
      asked.set(min, (asked.get(min) ?? 0) + 1);
      return min >= 20_000 ? min : -1;
    };
    const stop = new AbortController();
    const from = performance.now();
    const ask = (min: number) => arena.allocAsync(10, { min, max: min + 99, signal: stop.signal });
    // As many windows without anything as pauses are remembered.
    const vain = Array.from({ length: PAUSED_KINDS }, (_, index) => ask(1000 * (index + 1)).catch(String));
    await until(() => Math.min(...asked.values()) > 5 && asked.size === PAUSED_KINDS, 'five questions for each');
    expect(await arena.allocAsync(10, { min: 20_000, max: 20_099, timeoutMs: PATIENCE_MS })).toBe(20_000);
    stop.abort();
    for (const outcome of await Promise.all(vain)) expect(outcome).toMatch(/ECANCELED/);
    const asks = [...asked.values()].reduce((sum, count) => sum + count, 0);
    const seconds = (performance.now() - from) / 1000;
    console.log(`pauses: ${JSON.stringify([...asked])} in ${seconds.toFixed(1)} s`);
    // Each window was asked for; all together no more often than pauses that grow to a second allow.
    expect(asked.size).toBe(PAUSED_KINDS + 1);
    expect(asks).toBeLessThan((PAUSED_KINDS + 1) * (15 + 2 * seconds));
    arena.xfreeAll();
    sound(arenas);
  });

  it('leave at the limit to each request the span that came for it', async () => {
    const { arenas, arena, remote } = setUp({ limit: 100 });
    let asks = 0;
    // Nothing for the one who is told first.
    remote.importAsync = async (size, constraints) => {
      asks++;
      const { min } = constraints as { min: number };
      return min < 2000 ? -1 : { start: min, size: Math.max(size, 100) };
    };
    const vain = arena.allocAsync(10, { min: 1000, max: 1099, timeoutMs: 600 }).catch(String);
    await tick();
    const got = await Promise.all(
      [2000, 3000, 4000].map(async (min) => {
        const address = await arena.allocAsync(10, { min, max: min + 99, timeoutMs: PATIENCE_MS });
        await tick();
        arena.xfree(address, 10);
        return address;
      }),
    );
    expect(got).toEqual([2000, 3000, 4000]);
    expect(await vain).toMatch(/ETIMEDOUT/);
    console.log(`at the limit: ${asks} imports were asked for`);
    expect(asks).toBeLessThan(40);
    arena.trim();
    expect(arena.size('all')).toBe(0);
    sound(arenas);
  });

  it('say why there is nothing: who asks them, and that nobody has the function', async () => {
    const { arenas, arena } = setUp();
    expect(() => arena.alloc(5)).toThrow(
      /ENOMEM: arena.alloc.*only `allocAsync` and `allocWait` ask its asynchronous source/,
    );
    const nobody = arenas.create('nobody', { import: { from: { export: 'nowhere' }, async: true } });
    await expect(nobody.allocAsync(5, { timeoutMs: 20 })).rejects.toThrow(
      /ETIMEDOUT.*no thread runs its import function nowhere/,
    );
  });

  it('are run by a thread that serves them for one that has no such function', async () => {
    const { region, arenas, remote } = setUp();
    const other = new Arenas(testThread(region), new Callbacks(region)).open('a');
    const waiting = other.allocAsync(10);
    await tick();
    expect(remote.asked).toEqual([]);
    const stop = new AbortController();
    stops.push(stop);
    const served = arenas.serveImports({ signal: stop.signal });
    await remote.answer(70);
    expect(await waiting).toBe(70);
    const more = other.allocAsync(20);
    await remote.answer(200);
    expect(await more).toBe(200);
    // Whole spans stay until a thread comes that can give them back.
    other.free(70, 10);
    other.free(200, 20);
    other.trim();
    expect(remote.released).toEqual([]);
    expect(() => other.destroy()).toThrow(/ENOENT: arena.destroy\(arena="a"\): remote, which takes spans back/);
    sound(arenas);
    arenas.open('a').trim();
    expect(remote.released).toHaveLength(2);
    stop.abort();
    await served;
  });

  it('are run again by another thread when the one that ran them dies or detaches', async () => {
    for (const end of ['dies', 'detaches']) {
      const { region, thread, arenas, remote } = setUp();
      const victim = testThread(region);
      const callbacks = new Callbacks(region);
      const theirRemote = new Remote();
      callbacks.register('remote', theirRemote);
      const theirs = new Arenas(victim, callbacks);
      const lost = theirs
        .open('a')
        .allocAsync(10)
        .catch((error: Error) => error.message);
      await theirRemote.untilAsked(1);
      const waiting = arenas.open('a').allocAsync(10);
      await tick();
      expect(remote.asked).toEqual([]);
      if (end === 'dies') {
        victim.end();
        takeOver(thread, victim.slot, [(_self, dead) => arenas.recover(dead)]);
      } else {
        theirs.leave();
        victim.end();
      }
      await remote.untilAsked(1);
      await remote.answer(300);
      expect(await waiting).toBe(300);
      await theirRemote.answer(900);
      expect(theirRemote.released).toEqual([[900, 10]]);
      expect(await lost).toMatch(/ESTALE|EINVAL/);
      sound(arenas);
    }
  });

  it('fail when there is no such module or export, for who waits here and for blocked threads that are served', async () => {
    const { region, arenas } = setUp();
    const here = import.meta.url;
    const places = [
      { module: new URL('../base/exact.ts', here), export: 'nope' },
      { module: new URL('./no-such-module.ts', here), export: 'leases' },
    ];
    for (const [index, from] of places.entries()) {
      const arena = arenas.create(`missing-${index}`, { import: { from, async: true } });
      const waiting = [10, 20].map((size) => arena.allocAsync(size, { timeoutMs: PATIENCE_MS }).catch(String));
      for (const outcome of await Promise.all(waiting)) {
        expect(outcome).toContain('EIO: arena.allocAsync');
        expect(outcome).toContain(`import function ${from.export} of module ${from.module.href} of arena`);
        expect(outcome).toContain('no such module, or no such export of it');
      }
      // A thread that serves others finds out the same.
      const { spanRequest: request } = region.tables;
      const failures = request.failures.get(arena.index);
      const stop = new AbortController();
      stops.push(stop);
      request.size.put(arena.index, 10);
      request.state.put(arena.index, SPAN_REQUEST.wanted);
      const served = arenas.serveImports({ signal: stop.signal });
      await until(() => request.failures.get(arena.index) !== failures, `the failure of ${from.export}`);
      stop.abort();
      await served;
      expect(request.failures.get(arena.index)).toBe(failures + 1);
      expect(request.state.get(arena.index)).toBe(SPAN_REQUEST.idle);
    }
    sound(arenas);
  });

  it('keep to the limit, and serve arenas that import from one', async () => {
    const { arenas, arena, remote } = setUp({ large: true, limit: 100 });
    const child = arenas.create('child', { import: { from: arena } });
    const waiting = child.allocAsync(20);
    await remote.untilAsked(1);
    expect(remote.asked).toEqual([[20, undefined]]);
    await remote.answer(40);
    expect(await waiting).toBe(40);
    const beyond = arena.allocAsync(81, { timeoutMs: 20 }).catch((error: Error) => error.message);
    expect(await beyond).toMatch(/ETIMEDOUT/);
    expect(remote.asked).toHaveLength(1);
    child.free(40, 20);
    child.trim();
    child.destroy();
    sound(arenas);
  });

  it('are refused for arenas as sources, and reported when the arena goes', async () => {
    const { arenas, arena, remote } = setUp();
    expect(() => arenas.create('b', { import: { from: arena, async: true } })).toThrow(/an arena answers at once/);
    expect(() => arenas.create('b', { import: { from: { export: 'x' }, async: 1 as never } })).toThrow(/true or false/);
    const waiting = arena.allocAsync(10).catch((error: Error) => error.message);
    await remote.untilAsked(1);
    arena.destroy();
    await remote.answer(70);
    expect(await waiting).toMatch(/ESTALE/);
    expect(remote.released).toEqual([[70, 10]]);
  });

  it('have a time limit of their own: waiters fail, the next one asks anew, and what comes late is a span', async () => {
    const { region, thread, callbacks } = testRegion({}, true);
    const remote = new Remote();
    callbacks.register('remote', remote);
    const arenas = new Arenas(thread, callbacks);
    const from = { export: 'remote' };
    expect(() => arenas.create('b', { import: { from, timeoutMs: 5 } })).toThrow(
      /timeoutMs is for asynchronous imports/,
    );
    expect(() => arenas.create('b', { import: { from, async: true, timeoutMs: 0 } })).toThrow(
      /timeoutMs must be an integer/,
    );
    const arena = arenas.create('a', { import: { from, async: true, timeoutMs: 50 } });
    const outcomes = [10, 20].map((size) =>
      expect(arena.allocAsync(size)).rejects.toThrow(/EIO.*no answer within 50 ms/),
    );
    await remote.untilAsked(1);
    thread.clock.advance(49);
    await tick(300);
    expect(region.tables.spanRequest.state.get(arena.index)).toBe(SPAN_REQUEST.running);
    thread.clock.advance(1);
    await Promise.all(outcomes);
    const third = arena.allocAsync(10);
    await remote.untilAsked(2);
    expect(remote.asked.map(([size]) => size)).toEqual([10, 10]);
    // The first answer comes after all, and serves; the import that runs goes on.
    await remote.answer(1000);
    expect(await third).toBe(1000);
    expect(region.tables.spanRequest.state.get(arena.index)).toBe(SPAN_REQUEST.running);
    await remote.answer(2000);
    expect(region.tables.spanRequest.state.get(arena.index)).toBe(SPAN_REQUEST.idle);
    expect(arena.alloc(10)).toBe(2000);
    arena.free(1000, 10);
    arena.free(2000, 10);
    sound(arenas);
    arena.destroy();
    expect(remote.released.toSorted((a, b) => a[0] - b[0])).toEqual([
      [1000, 10],
      [2000, 10],
    ]);
  });
});
