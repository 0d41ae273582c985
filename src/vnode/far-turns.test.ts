import { describe, expect, it } from 'vitest';
import { dieAtEveryStep } from '../../test/support/deaths.ts';
import { testRegion, testThread } from '../../test/support/region.ts';
import { FarTurns, farWorkersMax } from './far-turns.ts';
import { IO_OPERATION, IO_ROLE, IO_STATE, IoRequests, recoverIo, setIoKeeper } from './io-requests.ts';

/** A region with two workers of sixteen slots each sees: one source may have one worker of two. */
function world() {
  const { region, thread } = testRegion({ vnodes: 16, ioRequests: 32, slots: 8 });
  const workers = [testThread(region), testThread(region)];
  const keeper = testThread(region);
  setIoKeeper(region, keeper.slot);
  const io = new IoRequests(thread);
  const post = (vnode: number, source: number) => {
    const stop = new AbortController();
    const question = { role: IO_ROLE.farPages, operation: IO_OPERATION.fetch, first: 0, count: 1 };
    const settled = io.askAsync({ ...question, vnode, source }, stop.signal).then(
      () => 'done',
      (error) => error.code,
    );
    return { settled, stop };
  };
  const vnodeOf = (row: number) => (row < 0 ? -1 : region.tables.ioRequest.vnode.get(row));
  return { region, thread, workers, keeper, io, post, vnodeOf };
}

/** Lets what was posted be posted: the gates of `askAsync` pass it on in later steps of the event loop. */
const posted = () => new Promise((resolve) => setImmediate(resolve));

describe('turns of far pages', () => {
  it('give every vnode one row at a time, in order, and a source half of the workers', async () => {
    const { workers, io, post, vnodeOf } = world();
    const [first, second] = workers.map((worker) => new FarTurns(worker)) as [FarTurns, FarTurns];
    const all = [post(1, 7), post(1, 7), post(2, 7), post(3, 8)];
    await posted();
    // Of the first source one row, whoever asks; of the other one another.
    const a = first.next();
    expect(vnodeOf(a)).toBe(1);
    expect(first.wants(1)).toBe(true);
    expect(first.wants(2)).toBe(false);
    const b = second.next();
    expect(vnodeOf(b)).toBe(3);
    expect(second.next()).toBe(-1);
    io.answer(b);
    expect(second.next()).toBe(-1);
    io.answer(a);
    const order = [];
    for (let row = second.next(); row >= 0; row = first.next()) {
      order.push(vnodeOf(row));
      io.answer(row);
    }
    expect(order).toEqual([1, 2]);
    expect(await Promise.all(all.map(({ settled }) => settled))).toEqual(['done', 'done', 'done', 'done']);
    expect([8, 16, 24, 32, 63].map(farWorkersMax)).toEqual([2, 2, 3, 4, 4]);
  });

  it('leave rows of others to be posted, however many are asked for of one vnode', async () => {
    const { region, workers, io, post, vnodeOf } = world();
    const turns = new FarTurns(workers[0] as (typeof workers)[0]);
    const silent = Array.from({ length: 100 }, () => post(1, 1));
    const given = post(1, 1);
    const other = post(2, 2);
    await posted();
    const { ioRequest } = region.tables;
    const rows = Array.from({ length: ioRequest.rowCount }, (_, row) => row);
    expect(rows.filter((row) => ioRequest.state.get(row) === IO_STATE.posted).map(vnodeOf)).toEqual([1, 1, 2]);
    given.stop.abort();
    expect(await given.settled).toBe('ECANCELED');
    const answered = new Set<number>();
    while (answered.size < 101) {
      const row = turns.next();
      if (row < 0) await posted();
      else {
        io.answer(row);
        answered.add(answered.size);
      }
    }
    expect(await other.settled).toBe('done');
    expect(new Set(await Promise.all(silent.map(({ settled }) => settled)))).toEqual(new Set(['done']));
    expect(rows.every((row) => ioRequest.state.get(row) === IO_STATE.free)).toBe(true);
  });

  it('go on when a worker ends at any step of choosing', async () => {
    const { region, workers, keeper, post, vnodeOf } = world();
    const [victim, heir] = workers as [(typeof workers)[0], (typeof workers)[0]];
    const asked = [post(1, 1), post(2, 2)];
    await posted();
    const turns = new FarTurns(victim);
    const seen: number[] = [];
    const steps = dieAtEveryStep({
      region,
      self: keeper,
      victim,
      recoverers: [recoverIo],
      operation: () => void turns.next(),
      verify: () => {
        new FarTurns(keeper).release(victim.slot);
        new IoRequests(keeper).failAll(IO_ROLE.farPages, 'ended', victim.tag);
        const next = new FarTurns(heir);
        const rows = [next.next(), next.next()].filter((row) => row >= 0);
        seen.push(rows.length);
        // What the dead one had taken has failed; what it had not is taken by the other.
        const { ioRequest } = region.tables;
        const failed = [0, 1].filter((n) => {
          const row = (ioRequest.rowCount >> 1) + n;
          return ioRequest.state.get(row) === IO_STATE.failed;
        });
        expect(rows.length + failed.length).toBe(2);
        expect(new Set(rows.map(vnodeOf)).size).toBe(rows.length);
      },
    });
    expect(steps).toBeGreaterThan(4);
    expect(new Set(seen)).toEqual(new Set([1, 2]));
    for (const { stop } of asked) stop.abort();
    await Promise.all(asked.map(({ settled }) => settled));
  });
});
