import { describe, expect, it } from 'vitest';
import { end, system } from '../../test/support/named-locks.ts';
import { CancelToken } from './cancel.ts';
import { LOCK_KIND } from './lock-place.ts';
import { Mutex } from './mutex.ts';
import { RANK } from './ranks.ts';
import { releaseSlot } from './slots.ts';

describe('the registry of named locks', () => {
  it('makes a lock once, for whoever comes', () => {
    const { locks, attach } = system();
    const { locks: others, thread } = attach();
    expect(locks.has('a')).toBe(false);
    const mine = locks.mutex('a');
    const theirs = others.mutex('a');
    mine.enter();
    expect(theirs.tryEnter()).toBe(false);
    expect(theirs.enterWithin(1)).toBe(false);
    expect(mine.held).toBe(true);
    expect(theirs.held).toBe(false);
    expect(locks.list()).toMatchObject([{ name: 'a', kind: 'mutex', holder: 0, waiting: [], abandonedBy: null }]);
    mine.exit();
    expect(theirs.run(() => others.list()[0]?.holder)).toBe(thread.slot);
    expect(locks.has('a')).toBe(true);
    end(locks);
  });

  it('keeps kinds apart, and says which one there is', () => {
    const { locks } = system();
    locks.rwlock('a');
    locks.condition('b');
    expect(() => locks.mutex('a')).toThrow(/EEXIST: locks.mutex\(name="a"\): a rwlock of this name exists/);
    expect(() => locks.rwlock('b')).toThrow(/EEXIST.*a condition of this name exists/);
    expect(() => locks.condition('a')).toThrow(/EEXIST.*a rwlock/);
    end(locks);
  });

  it('refuses what is no name and what is no option, with nothing made', () => {
    const { locks } = system();
    for (const name of ['', 'x'.repeat(64), 'ü'.repeat(32), 'a\0b', '\ud800', 7 as never, undefined as never]) {
      expect(() => locks.mutex(name)).toThrow(/EINVAL: locks.mutex/);
      expect(() => locks.remove(name)).toThrow(/EINVAL: locks.remove/);
    }
    expect(() => locks.mutex('a', { fix: () => {} } as never)).toThrow(/unknown option "fix"/);
    expect(() => locks.mutex('a', { repair: 1 } as never)).toThrow(/repair must be a function/);
    expect(() => locks.mutex('a', null as never)).toThrow(/options must be an object/);
    expect(locks.list()).toEqual([]);
    expect(locks.mutex('x'.repeat(63)).name).toHaveLength(63);
    expect(locks.mutex('\ufeffü')).toBeDefined();
    expect(locks.has('\ufeffü')).toBe(true);
    end(locks);
  });

  it('runs out, says which option to raise, and has room again after a removal', () => {
    const { locks } = system(2);
    locks.mutex('a');
    locks.mutex('b');
    expect(() => locks.mutex('c')).toThrow(/ENOMEM: locks.mutex\(name="c"\): all 2 named locks.*`locks`/);
    expect(locks.mutex('a').tryEnter()).toBe(true);
    expect(() => locks.remove('a')).toThrow(/EBUSY: locks.remove\(name="a", holder=0/);
    locks.mutex('a').exit();
    locks.remove('a');
    locks.rwlock('c');
    expect(locks.list().map(({ name }) => name)).toEqual(['c', 'b']);
    end(locks);
  });

  it('removes nothing that is held, read or unknown', () => {
    const { locks, attach } = system();
    const { locks: others, thread } = attach();
    const lock = others.rwlock('r');
    lock.enterShared();
    expect(() => locks.remove('r')).toThrow(new RegExp(`EBUSY.*readers="${thread.slot}"`));
    lock.exitShared();
    lock.enterExclusive();
    expect(() => locks.remove('r')).toThrow(new RegExp(`EBUSY.*holder=${thread.slot}`));
    expect(() => others.remove('r')).toThrow(/EBUSY/);
    lock.exitExclusive();
    locks.remove('r');
    expect(() => locks.remove('r')).toThrow(/ENOENT: locks.remove\(name="r"\)/);
    end(locks);
  });

  it('removes nothing that an event loop waits for', async () => {
    const { locks, attach } = system();
    const { locks: others, thread } = attach();
    const mutex = locks.mutex('m');
    const condition = others.condition('c');
    const abort = new AbortController();
    const waiting = condition.untilAsync(others.mutex('n'), () => undefined, { signal: abort.signal });
    mutex.enter();
    const entering = others.mutex('m').enterAsync();
    await Promise.resolve();
    expect(locks.list().find(({ name }) => name === 'm')?.waiting).toEqual([thread.slot]);
    expect(() => locks.remove('c')).toThrow(new RegExp(`EBUSY.*waiting="${thread.slot}"`));
    mutex.exit();
    // Nobody holds it, but somebody is on its way.
    expect(() => locks.remove('m')).toThrow(/EBUSY/);
    expect(await entering).toBe(true);
    others.mutex('m').exit();
    abort.abort();
    await expect(waiting).rejects.toThrow(/ECANCELED/);
    end(locks);
  });

  it('does not take a lock for the one that was removed, in any entry', async () => {
    const { locks, region } = system(3);
    const mutex = locks.mutex('m');
    const rwlock = locks.rwlock('r');
    const condition = locks.condition('c');
    for (const name of ['m', 'r', 'c']) locks.remove(name);
    for (const remade of [false, true]) {
      if (remade) for (const name of ['x', 'y', 'z']) locks.mutex(name);
      for (const entry of [
        () => mutex.enter(),
        () => mutex.tryEnter(),
        () => mutex.enterWithin(5),
        () => rwlock.enterShared(),
        () => rwlock.tryEnterShared(),
        () => rwlock.enterExclusive(),
        () => rwlock.tryEnterExclusive(),
        () => condition.signal(),
        () => condition.broadcast(),
      ]) {
        expect(entry).toThrow(/ESTALE.*the lock was removed/);
      }
      await expect(mutex.enterAsync()).rejects.toThrow(/ESTALE/);
      await expect(rwlock.enterSharedAsync()).rejects.toThrow(/ESTALE/);
      await expect(rwlock.enterExclusiveAsync()).rejects.toThrow(/ESTALE/);
      expect(locks.check().problems).toEqual([]);
    }
    const x = locks.mutex('x');
    x.enter();
    expect(() => condition.wait(x)).toThrow(/ESTALE: condition.wait\(lock="c"\)/);
    expect(x.held).toBe(true);
    x.exit();
    x.enter();
    x.exit();
    expect(() => mutex.exit()).toThrow(/ESTALE: mutex.exit/);
    expect(region.tables.slot.held.at(0, 0)).toBe(0);
    end(locks);
  });

  it('can be asked while other locks of programs are held, and leaves room for those of the system', () => {
    const { locks, thread } = system(16);
    const held = [];
    for (let i = 0; ; i++) {
      const mutex = locks.mutex(`m${i % 16}`);
      if (i === 8) {
        expect(() => mutex.enter()).toThrow(/EINVAL: mutex.enter\(lock="m8", held=8\): a thread holds at most 8 locks/);
        expect(() => locks.rwlock('r').enterShared()).toThrow(/at most 8/);
        break;
      }
      mutex.enter();
      held.push(mutex);
    }
    expect(thread.heldCount).toBe(8);
    for (const mutex of held) mutex.exit();
    end(locks);
  });

  it('shows what there is as text', () => {
    const { locks } = system();
    locks.mutex('a').enter();
    locks.rwlock('b').enterShared();
    locks.condition('c');
    expect(locks.dump()).toBe('mutex "a", held by 0\nrwlock "b", read by 0\ncondition "c"');
    locks.mutex('a').exit();
    locks.rwlock('b').exitShared();
    end(locks);
  });

  it('finds broken rows', () => {
    const { locks, region } = system(6);
    const { namedLock } = region.tables;
    locks.mutex('a');
    locks.mutex('b');
    locks.mutex('c');
    namedLock.name.putText(1, 'a');
    namedLock.holder.put(2, locks.mutex('c').place.thread.attachment);
    namedLock.words.putAt(0, 0, 6);
    namedLock.words.putAt(3, 7, 1);
    namedLock.kind.put(4, Object.keys(LOCK_KIND).length + 1);
    const problems = locks.check().problems.map((problem) => problem.slice(0, 20));
    expect(problems).toHaveLength(5);
    expect(problems.filter((problem) => problem.startsWith('sync/named-locks I')).length).toBe(4);
  });
});

describe('waiting for a named condition', () => {
  it('times out, is cancelled, and keeps the mutex', () => {
    const { locks } = system();
    const mutex = locks.mutex('m');
    const condition = locks.condition('c');
    expect(() => condition.wait(mutex)).toThrow(/EINVAL.*the mutex must be held/);
    expect(() => condition.wait({} as never)).toThrow(/EINVAL.*locks.mutex/);
    mutex.enter();
    expect(condition.wait(mutex, 1)).toBe(false);
    expect(() => condition.wait(mutex, -1)).toThrow(/EINVAL/);
    const token = locks.cancelToken();
    locks.cancelToken(token.handle()).cancel();
    expect(() => condition.wait(mutex, 1000, token)).toThrow(/ECANCELED/);
    token.release();
    expect(locks.list()).toMatchObject([
      { kind: 'mutex', holder: 0, abandonedBy: null },
      { kind: 'condition', holder: null },
    ]);
    mutex.exit();
    mutex.run(() => {});
    end(locks);
  });

  it('awaits what another thread brings about', async () => {
    const { locks, attach } = system();
    const { locks: others } = attach();
    let items = 0;
    const took = others.condition('c').untilAsync(others.mutex('m'), () => (items > 0 ? items-- : undefined));
    await new Promise((resolve) => setTimeout(resolve, 5));
    locks.mutex('m').run(() => {
      items++;
      locks.condition('c').signal();
    });
    expect(await took).toBe(1);
    expect(await locks.condition('c').untilAsync(locks.mutex('m'), () => undefined, { timeoutMs: 1 })).toBeUndefined();
    end(locks);
  });

  it('awaits its turn while another task of the same thread holds the mutex', async () => {
    const { locks } = system();
    const mutex = locks.mutex('m');
    const order: string[] = [];
    const holder = mutex.runAsync(async () => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      order.push('held');
    });
    await mutex.enterAsync({ timeoutMs: 0 });
    expect(await locks.condition('c').untilAsync(mutex, () => order.push('tried'))).toBe(2);
    await holder;
    expect(order).toEqual(['held', 'tried']);
    end(locks);
  });

  it('is a wait of nobody after the waiter has died or left', async () => {
    const { locks, attach } = system();
    const dead = attach();
    const gone = attach();
    const ends: string[] = [];
    for (const { locks: others } of [dead, gone]) {
      void others
        .condition('c')
        .untilAsync(others.mutex('m'), () => undefined, { timeoutMs: 60 })
        .then(
          () => ends.push('undefined'),
          (error: Error) => ends.push(error.message),
        );
    }
    expect(locks.list().find(({ name }) => name === 'c')?.waiting).toHaveLength(2);
    dead.die();
    gone.locks.leave();
    releaseSlot(gone.thread);
    gone.thread.end();
    expect(locks.list().find(({ name }) => name === 'c')?.waiting).toEqual([]);
    locks.remove('c');
    while (ends.length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
    expect(ends.some((message) => message.startsWith('ESTALE'))).toBe(true);
    expect(locks.check().problems).toEqual([]);
  });
});

describe('bodies', () => {
  it('give the lock back whatever happens, and are no promises', async () => {
    const { locks } = system();
    const mutex = locks.mutex('m');
    const lock = locks.rwlock('r');
    expect(mutex.run(() => 3)).toBe(3);
    expect(() => mutex.run(async () => 3)).toThrow(/use mutex.runAsync/);
    expect(() => lock.write(async () => 3)).toThrow(/use rwlock.writeAsync/);
    expect(() => lock.read(async () => 3)).toThrow(/use rwlock.readAsync/);
    const boom = () => {
      throw new Error('boom');
    };
    for (const body of [() => mutex.run(boom), () => lock.read(boom), () => lock.write(boom)]) {
      expect(body).toThrow('boom');
    }
    for (const body of [() => mutex.runAsync(boom), () => lock.readAsync(boom), () => lock.writeAsync(boom)]) {
      await expect(body()).rejects.toThrow('boom');
    }
    expect([mutex.held, lock.reading, lock.writing]).toEqual([false, false, false]);
    expect(() => mutex.enterWithin(Number.NaN)).toThrow(/EINVAL/);
    expect(() => lock.enterShared('x' as never)).toThrow(/EINVAL/);
    end(locks);
  });
});

describe('misuse of a named lock', () => {
  it('names the call and the lock, whatever the lock is made of', () => {
    const { locks } = system();
    const mutex = locks.mutex('m');
    const lock = locks.rwlock('r');
    expect(() => mutex.exit()).toThrow(/^EINVAL: mutex.exit\(lock="m", slot=0\): this thread does not hold the lock$/);
    mutex.enter();
    const own = /^EDEADLK: mutex.enter\(lock="m", slot=0\): a thread that holds the lock already cannot wait for it$/;
    expect(() => mutex.enter()).toThrow(own);
    expect(() => mutex.enterWithin(5)).toThrow(/^EDEADLK: mutex.enterWithin\(lock="m"/);
    expect(() => mutex.run(() => {})).toThrow(/^EDEADLK: mutex.run\(lock="m"/);
    expect(mutex.held).toBe(true);
    mutex.exit();
    for (const call of ['exitShared', 'exitExclusive', 'downgrade', 'tryUpgrade'] as const) {
      expect(() => lock[call]()).toThrow(
        new RegExp(`^EINVAL: rwlock.${call}\\(lock="r", slot=0\\): this thread does not`),
      );
    }
    lock.enterShared();
    expect(() => lock.exitExclusive()).toThrow(/^EINVAL: rwlock.exitExclusive\(lock="r"/);
    expect(() => lock.enterExclusive()).toThrow(
      /^EDEADLK: rwlock.enterExclusive\(lock="r", slot=0\): .* holds the lock shared/,
    );
    expect(() => lock.write(() => {})).toThrow(/^EDEADLK: rwlock.write\(lock="r"/);
    lock.enterShared();
    expect(() => lock.tryUpgrade()).toThrow(/^EINVAL: rwlock.tryUpgrade\(lock="r"\): the shared hold is nested/);
    lock.exitShared();
    lock.exitShared();
    lock.enterExclusive();
    expect(() => lock.exitShared()).toThrow(/^EINVAL: rwlock.exitShared\(lock="r"/);
    expect(() => lock.enterShared()).toThrow(
      /^EDEADLK: rwlock.enterShared\(lock="r", slot=0\): .* holds the lock exclusively/,
    );
    expect(() => lock.read(() => {})).toThrow(/^EDEADLK: rwlock.read\(lock="r"/);
    expect(() => lock.enterExclusive(1)).toThrow(/^EDEADLK: rwlock.enterExclusive\(lock="r"/);
    lock.exitExclusive();
    expect(() => locks.cancelToken(null as never)).toThrow(/^EINVAL: locks.cancelToken\(handle=null\)/);
    end(locks);
  });

  it('cannot give back, through the handle of a removed lock, the lock that came to its place', () => {
    const { locks } = system(2);
    const stale = locks.mutex('m');
    const staleLock = locks.rwlock('r');
    locks.remove('m');
    locks.remove('r');
    const fresh = locks.mutex('n');
    const freshLock = locks.rwlock('s');
    expect([fresh.place.row, locks.list().length]).toEqual([stale.place.row, 2]);
    fresh.enter();
    freshLock.enterShared();
    for (const use of [
      () => stale.exit(),
      () => stale.enter(),
      () => staleLock.exitShared(),
      () => staleLock.tryUpgrade(),
      () => staleLock.enterExclusive(),
    ]) {
      expect(use).toThrow(/^ESTALE/);
    }
    expect([fresh.held, freshLock.reading]).toEqual([true, true]);
    fresh.exit();
    freshLock.exitShared();
    end(locks);
  });
});

describe('a named lock and the others', () => {
  it('may be held around everything else, and is refused inside', () => {
    const { locks, thread, region } = system();
    const inner = new Mutex(thread, region.tables.tagPool.lock.address(0), RANK.tagPool);
    const mutex = locks.mutex('m');
    mutex.enter();
    inner.enter();
    inner.exit();
    locks.mutex('n').run(() => {});
    mutex.exit();
    inner.enter();
    expect(() => locks.mutex('o')).toThrow(/rank 50 is entered while rank 1000 is held/);
    inner.exit();
    end(locks);
  });

  it('hands out tokens that end with their thread', () => {
    const { locks, attach } = system();
    const other = attach();
    const token = other.locks.cancelToken();
    const mine = locks.cancelToken(token.handle());
    expect(() => mine.release()).toThrow(/EINVAL.*only the thread that made it/);
    expect(mine.cancelled).toBe(false);
    other.die();
    expect(mine.cancelled).toBe(true);
    expect(mine).toBeInstanceOf(CancelToken);
  });
});
