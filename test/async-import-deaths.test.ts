/**
 * A thread ends at every single step of an asynchronous import that it waits for and runs: joining the queue, asking, claiming
 * the request, recording the span, telling of a failure. Another thread must then get what it asks for, and nothing may leak.
 */

import { afterEach, describe, expect, it } from 'vitest';
import { VmError } from '../src/base/index.ts';
import { Callbacks, Journal, setSeam, type Thread, takeOver } from '../src/sync/index.ts';
import { Arenas, type AsyncSpanSource } from '../src/vmem/index.ts';
import { DEATH_STRIDE } from './support/live-for.ts';
import { testRegion, testThread } from './support/region.ts';
import { testSeed } from './support/seed.ts';

afterEach(() => setSeam(undefined));

const SIZE = 10;

/** The first death: other seeds die at other steps. */
const FIRST = testSeed('async import deaths', 20261121) % DEATH_STRIDE;

/** What a step of a dead thread throws: an error that the room expects, so that nothing is reported for the dead. */
class Death extends VmError {
  constructor() {
    super('ESTALE', 'dead');
  }
}

/** A source that answers in the next microtask; a thread that is dead does not release. */
class Remote implements AsyncSpanSource {
  readonly released: [number, number][] = [];
  readonly fails: boolean;
  readonly isDead: () => boolean;
  next: number;

  constructor(next: number, fails: boolean, isDead: () => boolean) {
    this.next = next;
    this.fails = fails;
    this.isDead = isDead;
  }

  async importAsync(size: number): Promise<number> {
    if (this.fails) throw new Error('the network is down');
    this.next += size;
    return this.next - size;
  }

  release(start: number, size: number): void {
    if (!this.isDead()) this.released.push([start, size]);
  }
}

/** Runs something asynchronous that dies after so many steps, and stays dead; true when it lived to its end. */
async function liveThrough(state: { left: number }, victim: Thread, run: () => Promise<unknown>): Promise<boolean> {
  const step = () => {
    if (state.left-- <= 0) throw new Death();
  };
  const names = ['log1', 'log2', 'log3', 'log7Marking', 'log8', 'log7MarkingAnd8', 'logRange'] as const;
  const journal = victim.journal as unknown as Record<string, unknown>;
  for (const name of names) {
    const original = Journal.prototype[name] as (...values: number[]) => void;
    journal[name] = function stepped(this: Journal, ...values: number[]) {
      step();
      original.apply(this, values);
    };
  }
  // What the dead thread had begun goes on by itself: it must not come as far as to enter something.
  const push = victim.pushHeld.bind(victim);
  victim.pushHeld = (address, kind, rank, waits) => {
    if (state.left < 0) throw new Death();
    push(address, kind, rank, waits);
  };
  setSeam(step);
  try {
    await run();
  } catch (error) {
    if (!(error instanceof VmError)) throw error;
    // Too slow to live to its end: as good as dead.
    if (error.code === 'ETIMEDOUT') state.left = -1;
  } finally {
    // What it had begun comes to its first step as well, before the others go on.
    await new Promise((resolve) => setTimeout(resolve, 1));
    setSeam(undefined);
    for (const name of names) delete journal[name];
  }
  return state.left >= 0;
}

describe('a death at every step of an asynchronous import', () => {
  it.each([
    ['that succeeds', false],
    ['that fails', true],
  ])('%s', async (title, fails) => {
    let deaths = 0;
    for (let steps = FIRST; ; steps += DEATH_STRIDE) {
      const { region, thread, callbacks } = testRegion();
      const state = { left: steps };
      const mine = new Remote(50_000, false, () => false);
      callbacks.register('remote', mine);
      const arenas = new Arenas(thread, callbacks);
      const arena = arenas.create('a', { import: { from: { export: 'remote' }, async: true } });
      const victim = testThread(region);
      const theirCallbacks = new Callbacks(region);
      const theirRemote = new Remote(100, fails, () => state.left < 0);
      theirCallbacks.register('remote', theirRemote);
      const theirs = new Arenas(victim, theirCallbacks).open('a');
      const lived = await liveThrough(state, victim, () => theirs.allocAsync(SIZE, { timeoutMs: 1000 }));
      if (!lived) deaths++;
      expect(takeOver(thread, victim.slot, [(_self, dead) => arenas.recover(dead)])).not.toBeNull();
      const problems = () => arenas.check().flatMap((report) => report.problems);
      expect([steps, ...problems()]).toEqual([steps]);
      expect(arenas.stats().arenas[0]?.waiting).toBe(0);
      // Nothing that the dead thread had asked for, or not finished, is in the way of others.
      expect(await arena.allocAsync(3 * SIZE, { timeoutMs: 60_000 })).toBe(50_000);
      expect([steps, ...problems()]).toEqual([steps]);
      arena.xfreeAll();
      arena.trim();
      // What came goes back once; only what its function had returned to the dead thread is the source's to take back.
      const back = mine.released.map(([start]) => start);
      expect([steps, back.toSorted((a, b) => a - b)]).toEqual([steps, back.length === 1 ? [50_000] : [100, 50_000]]);
      if (lived && !fails) expect(back).toHaveLength(2);
      arena.destroy();
      const { tags, unusedTags, ownTags } = arenas.stats();
      expect(unusedTags + ownTags).toBe(tags);
      if (lived) break;
    }
    expect(deaths).toBeGreaterThan(20);
    console.log(`an asynchronous import ${title}: ${deaths} places to die`);
  });
});
