import { describe, expect, it, vi } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { CancelToken } from './cancel.ts';
import { Condition } from './condvar.ts';
import { Mutex } from './mutex.ts';
import { poisonRegion } from './poison.ts';
import { RANK } from './ranks.ts';
import { takeOver } from './takeover.ts';

function world() {
  const { region, thread } = testRegion();
  const { head } = region.tables.bucket;
  const mutex = new Mutex(thread, head.address(0), RANK.user);
  const condition = new Condition(thread, head.address(4));
  const words = () => [0, 4, 5].map((row) => head.get(row));
  return { region, thread, head, mutex, condition, words };
}

describe('condition variable', () => {
  it('refuses a wait without the mutex and changes nothing', () => {
    const { mutex, condition, thread, words } = world();
    expect(() => condition.wait(mutex, 5)).toThrow(/EINVAL: condition.wait.*does not hold/);
    expect(words()).toEqual([0, 0, 0]);
    expect(thread.heldCount).toBe(0);
  });

  it('refuses bad timeouts and cancelled tokens with the mutex held', () => {
    const { mutex, condition, thread, words } = world();
    mutex.enter();
    expect(() => condition.wait(mutex, Number.NaN)).toThrow(/EINVAL: condition.wait\(timeoutMs=NaN\)/);
    const token = CancelToken.create(thread);
    token.cancel();
    expect(() => condition.wait(mutex, 5, token)).toThrow(/ECANCELED: condition.wait/);
    expect(words()).toEqual([thread.tag, 0, 0]);
    mutex.exit();
  });

  it('refuses to commit what an outer lock has logged', () => {
    const { mutex, condition, thread, head, words } = world();
    const outer = new Mutex(thread, head.address(1), RANK.user);
    outer.enter();
    thread.journal.set(head, 9, 1);
    mutex.enter();
    thread.journal.set(head, 10, 1);
    expect(() => condition.wait(mutex, 5)).toThrow(/sync\/journal I2/);
    expect(words()).toEqual([thread.tag, 0, 0]);
    thread.commit();
    expect(condition.wait(mutex, 1)).toBe(false);
    mutex.exit();
    outer.exit();
  });

  it('says false after the time, with the mutex held again and nothing left behind', () => {
    const { mutex, condition, thread, head, words } = world();
    mutex.enter();
    thread.journal.set(head, 9, 7);
    expect(condition.wait(mutex, 3)).toBe(false);
    expect(mutex.held).toBe(true);
    expect(thread.journal.length).toBe(0);
    expect(words()).toEqual([thread.tag, 0, 0]);
    mutex.exit();
    expect(thread.heldCount).toBe(0);
  });

  it('costs a look when nobody waits', () => {
    const { condition, words } = world();
    condition.signal();
    condition.broadcast();
    expect(words()).toEqual([0, 0, 0]);
  });

  it('changes the sequence when somebody waits', () => {
    const { condition, head } = world();
    head.put(5, 4); // slot 2 waits
    condition.signal();
    condition.broadcast();
    expect(head.get(4)).toBe(4);
  });

  it('stops with EPOISONED, without the mutex', () => {
    const { region, mutex, condition, thread, words } = world();
    mutex.enter();
    poisonRegion(region, 'a test broke it');
    expect(() => condition.wait(mutex, 3)).toThrow(/EPOISONED/);
    expect(words()).toEqual([0, 0, 0]);
    expect(thread.heldCount).toBe(0);
    expect(() => mutex.exit()).toThrow(/EPOISONED/);
  });

  it('is signalled again when a thread dies in the section that a signal brought it to', () => {
    const { region, thread, head } = world();
    const victim = testThread(region);
    const mutex = new Mutex(victim, head.address(0), RANK.user);
    const condition = new Condition(victim, head.address(4));
    mutex.enter();
    condition.wait(mutex, 1);
    victim.journal.set(head, 9, 1);
    const sequence = head.get(4);
    expect(takeOver(thread, victim.slot, [])).toEqual({ slot: victim.slot, undone: 1, released: 1 });
    expect(head.get(4)).not.toBe(sequence);
    expect(head.get(9)).toBe(0);
    expect(head.get(0)).toBe(0);
  });

  it('is forgotten when the section has ended', () => {
    const { region, thread, head } = world();
    const victim = testThread(region);
    const mutex = new Mutex(victim, head.address(0), RANK.user);
    mutex.enter();
    new Condition(victim, head.address(4)).wait(mutex, 1);
    mutex.exit();
    mutex.enter();
    const sequence = head.get(4);
    takeOver(thread, victim.slot, []);
    expect(head.get(4)).toBe(sequence);
  });
});

describe('condition variable in an event loop', () => {
  it('tries at once, and again after each signal, under the mutex', async () => {
    const { region, mutex, condition, head } = world();
    const other = testThread(region);
    const theirs = new Mutex(other, mutex.address, RANK.user);
    const signals = new Condition(other, condition.address);
    let tries = 0;
    const taken = condition.untilAsync(mutex, () => {
      tries++;
      expect(mutex.held).toBe(true);
      return head.get(9) === 0 ? undefined : head.get(9);
    });
    expect(tries).toBe(1);
    expect(mutex.held).toBe(false);
    theirs.enter();
    signals.signal();
    theirs.exit();
    await vi.waitFor(() => expect(tries).toBe(2));
    theirs.enter();
    head.put(9, 42);
    signals.signal();
    theirs.exit();
    expect(await taken).toBe(42);
    expect(mutex.held).toBe(false);
  });

  it('waits for the mutex without blocking, whoever holds it: a task of its own thread, or another thread', async () => {
    const { region, mutex, condition, thread } = world();
    const theirs = new Mutex(testThread(region), mutex.address, RANK.user);
    for (const holder of [mutex, theirs]) {
      holder.enter();
      let tries = 0;
      const taken = condition.untilAsync(mutex, () => ++tries);
      expect(await condition.untilAsync(mutex, () => ++tries, { timeoutMs: 3 })).toBe(undefined);
      const controller = new AbortController();
      const aborted = condition.untilAsync(mutex, () => ++tries, { signal: controller.signal });
      controller.abort();
      await expect(aborted).rejects.toMatchObject({ code: 'ECANCELED' });
      expect(tries).toBe(0);
      holder.exit();
      expect(await taken).toBe(1);
    }
    expect(thread.heldCount).toBe(0);
  });

  it('gives up after its time, and when it is aborted', async () => {
    const { mutex, condition, thread } = world();
    expect(await condition.untilAsync(mutex, () => undefined, { timeoutMs: 3 })).toBe(undefined);
    const controller = new AbortController();
    const wait = condition.untilAsync(mutex, () => undefined, { signal: controller.signal });
    controller.abort();
    await expect(wait).rejects.toMatchObject({ code: 'ECANCELED' });
    expect(thread.heldCount).toBe(0);
  });

  it('lets go of the mutex when the attempt throws', async () => {
    const { mutex, condition } = world();
    const attempt = () => {
      throw new Error('bad luck');
    };
    await expect(condition.untilAsync(mutex, attempt)).rejects.toThrow('bad luck');
    expect(mutex.held).toBe(false);
  });
});
