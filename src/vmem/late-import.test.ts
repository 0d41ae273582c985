/** Answers of asynchronous sources that come when nobody can use them any more: what goes back, and what must not. */

import { describe, expect, it } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { until } from '../../test/support/until.ts';
import { Callbacks } from '../sync/index.ts';
import { Arenas, type AsyncSpanSource } from './index.ts';

const tick = (ms = 5) => new Promise((resolve) => setTimeout(resolve, ms));

/** A remote source under the test's control. */
class Remote implements AsyncSpanSource {
  readonly released: [number, number][] = [];
  readonly #pending: ((range: number) => void)[] = [];

  importAsync(): Promise<number> {
    return new Promise((resolve) => this.#pending.push(resolve));
  }

  async untilAsked(): Promise<void> {
    await until(() => this.#pending.length > 0, 'a question');
  }

  release(start: number, size: number): void {
    this.released.push([start, size]);
  }

  async answer(range: unknown): Promise<void> {
    await this.untilAsked();
    this.#pending.shift()?.(range as number);
    await tick();
  }
}

function setUp() {
  const { region, thread, callbacks } = testRegion();
  const remote = new Remote();
  callbacks.register('remote', remote);
  const arenas = new Arenas(thread, callbacks);
  const arena = arenas.create('a', { import: { from: { export: 'remote' }, async: true } });
  return { region, thread, arenas, arena, remote };
}

function sound(arenas: Arenas): void {
  expect(arenas.check().flatMap(({ problems }) => problems)).toEqual([]);
}

describe('answers that come late', () => {
  it('do not give back what the source has given to another thread meanwhile, nor what is no range', async () => {
    for (const late of [300, 305, { start: 296, size: 10 }, { start: 'x', size: 1 }, { start: 5 }, -1, null, 'text']) {
      const { region, arenas, remote } = setUp();
      const gone = testThread(region);
      const callbacks = new Callbacks(region);
      const theirRemote = new Remote();
      callbacks.register('remote', theirRemote);
      const theirs = new Arenas(gone, callbacks);
      const lost = theirs
        .open('a')
        .allocAsync(10)
        .catch((error: Error) => error.message);
      await theirRemote.untilAsked();
      theirs.leave();
      gone.end();
      const waiting = arenas.open('a').allocAsync(10);
      // A source that leases by name gives the same again.
      await remote.answer(300);
      expect(await waiting).toBe(300);
      await theirRemote.answer(late);
      expect([late, theirRemote.released]).toEqual([late, []]);
      expect(await lost).toMatch(/ESTALE|EINVAL/);
      sound(arenas);
    }
  });

  it('give a range that breaks the rules back to the source when the arena was destroyed meanwhile', async () => {
    const { arenas, arena, remote } = setUp();
    const waiting = arena.allocAsync(10).catch((error: Error) => error.message);
    await remote.untilAsked();
    arena.destroy();
    await remote.answer({ start: 64, size: 5 });
    expect(await waiting).toMatch(/ESTALE/);
    expect(remote.released).toEqual([[64, 5]]);
    sound(arenas);
  });
});
