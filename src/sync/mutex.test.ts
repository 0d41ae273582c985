import { describe, expect, it } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { CancelToken } from './cancel.ts';
import { LOCK_ASYNC, LOCK_OWNER, LOCK_WAITERS, Mutex } from './mutex.ts';
import { poisonRegion } from './poison.ts';
import { RANK } from './ranks.ts';
import { takeOver } from './takeover.ts';

/** Two threads of one region (in this JavaScript thread) and a mutex that each sees. */
function pair(rank: number = RANK.user) {
  const { region, thread } = testRegion();
  const other = testThread(region);
  const address = region.tables.bucket.head.address(0);
  const word = () => region.tables.bucket.head.get(0);
  const lock = new Mutex(thread, address, rank);
  return { region, thread, other, lock, theirs: new Mutex(other, address, rank), word, address };
}

/** What misuse must not change. */
const state = ({ region, thread, word }: ReturnType<typeof pair>) => [
  word(),
  thread.heldCount,
  thread.journal.length,
  region.tables.slot.waitAddress.get(thread.slot),
];

describe('mutex', () => {
  it('names its owner while it is held and nobody afterwards', () => {
    const { lock, thread, word } = pair();
    lock.enter();
    expect(word()).toBe(thread.tag);
    expect(lock.held).toBe(true);
    lock.assertHeld();
    lock.exit();
    expect(word()).toBe(0);
    expect(lock.held).toBe(false);
    expect(thread.heldCount).toBe(0);
    expect(() => lock.assertHeld()).toThrow(/EINVAL: mutex.assertHeld/);
  });

  it('refuses a second entry of its owner and changes nothing', () => {
    const world = pair();
    world.lock.enter();
    const before = state(world);
    expect(() => world.lock.enter()).toThrow(/EDEADLK: mutex.enter\(lock=\d+, slot=0\)/);
    expect(() => world.lock.enterWithin(5)).toThrow(/EDEADLK/);
    expect(world.lock.tryEnter()).toBe(false);
    expect(state(world)).toEqual(before);
    world.lock.exit();
  });

  it('gives up in time and leaves no record', () => {
    const world = pair();
    world.theirs.enter();
    expect(world.lock.tryEnter()).toBe(false);
    expect(world.lock.enterWithin(0)).toBe(false);
    expect(world.lock.enterWithin(5)).toBe(false);
    expect(world.thread.heldCount).toBe(0);
    expect(world.region.tables.slot.waitAddress.get(world.thread.slot)).toBe(0);
    expect(world.word()).toBe(world.other.tag | LOCK_WAITERS);
    world.theirs.exit();
    expect(world.lock.enterWithin(5)).toBe(true);
    world.lock.exit();
    expect(world.region.tables.slot.contended.get(world.thread.slot)).toBe(3);
    expect(world.region.tables.slot.slept.get(world.thread.slot)).toBeGreaterThan(0);
  });

  it('refuses timeouts that are none', () => {
    const world = pair();
    for (const timeoutMs of [-1, Number.NaN]) {
      expect(() => world.lock.enterWithin(timeoutMs)).toThrow(/EINVAL: mutex.enterWithin\(timeoutMs=/);
    }
    expect(state(world)).toEqual([0, 0, 0, 0]);
  });

  it('refuses an exit of somebody else', () => {
    const world = pair();
    expect(() => world.lock.exit()).toThrow(/EINVAL: mutex.exit/);
    world.theirs.enter();
    const before = state(world);
    expect(() => world.lock.exit()).toThrow(/EINVAL: mutex.exit/);
    expect(state(world)).toEqual(before);
    world.theirs.exit();
  });

  it('ends a wait whose token is cancelled', () => {
    const world = pair();
    const token = CancelToken.create(world.other);
    world.theirs.enter();
    token.cancel();
    expect(() => world.lock.enterWithin(1000, token)).toThrow(/ECANCELED: mutex.enterWithin/);
    expect(world.thread.heldCount).toBe(0);
    expect(world.region.tables.slot.waitToken.get(world.thread.slot)).toBe(0);
    world.theirs.exit();
    // A free lock is taken whatever the token says: nothing was waited for.
    expect(world.lock.enterWithin(1000, token)).toBe(true);
    world.lock.exit();
  });

  it('stops with EPOISONED and leaves no record', () => {
    const world = pair();
    world.theirs.enter();
    poisonRegion(world.region, 'a test broke it');
    expect(() => world.lock.enterWithin(5)).toThrow(/EPOISONED: the region is poisoned: a test broke it/);
    expect(world.thread.heldCount).toBe(0);
    expect(world.region.tables.slot.waitAddress.get(world.thread.slot)).toBe(0);
    expect(() => world.lock.exit()).toThrow(/EPOISONED/);
  });

  it('refuses more locks than there is room for', () => {
    const { region, thread } = testRegion({ heldLanes: 9 });
    const locks = [0, 1, 2].map((row) => new Mutex(thread, region.tables.bucket.head.address(row), RANK.user));
    locks[0]?.enter();
    locks[1]?.enter();
    expect(() => locks[2]?.enter()).toThrow(/EINVAL: enter.*at most 2 locks/);
    expect(region.tables.bucket.head.get(2)).toBe(0);
    locks[0]?.exit();
    locks[2]?.enter();
    locks[2]?.exit();
    locks[1]?.exit();
    expect(thread.heldCount).toBe(0);
  });

  it('asserts the order of ranks, but for tries', () => {
    const { region, thread } = testRegion();
    const { head } = region.tables.bucket;
    const arena = new Mutex(thread, head.address(0), RANK.arena);
    const vnode = new Mutex(thread, head.address(1), RANK.vnode);
    arena.enter();
    expect(() => vnode.enter()).toThrow(/invariant broken: sync\/thread I3: .*rank 500 is entered while rank 900/);
    expect(thread.heldCount).toBe(1);
    expect(vnode.tryEnter()).toBe(true);
    vnode.exit();
    arena.exit();
    vnode.enter();
    arena.enter();
    arena.exit();
    vnode.exit();
  });

  it('takes page locks in ascending order only', () => {
    const { region, thread } = testRegion();
    const [low, high] = [0, 1].map((row) => new Mutex(thread, region.tables.bucket.head.address(row), RANK.page));
    low?.enter();
    high?.enter();
    high?.exit();
    low?.exit();
    high?.enter();
    expect(() => low?.enter()).toThrow(/sync\/thread I3/);
    high?.exit();
  });

  it('keeps its records right when locks are given back out of order', () => {
    const { region, thread } = testRegion();
    const { head } = region.tables.bucket;
    const locks = [0, 1, 2].map((row) => new Mutex(thread, head.address(row), RANK.user));
    for (const lock of locks) lock.enter();
    locks[1]?.exit();
    locks[0]?.exit();
    expect(locks[2]?.held).toBe(true);
    locks[2]?.exit();
    expect([0, 1, 2].map((row) => head.get(row))).toEqual([0, 0, 0]);
  });
});

describe('mutex in an event loop', () => {
  it('waits for another slot, and holds the lock for its own', async () => {
    const world = pair();
    world.theirs.enter();
    const entry = world.lock.enterAsync();
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(world.word()).toBe(world.other.tag | LOCK_WAITERS | LOCK_ASYNC);
    world.theirs.exit();
    expect(await entry).toBe(true);
    expect(world.word() & LOCK_OWNER).toBe(world.thread.tag);
    // Another task of this thread must not block on it, but may wait its turn.
    expect(() => world.lock.enter()).toThrow(/EDEADLK/);
    const second = world.lock.enterAsync();
    world.lock.exit();
    expect(await second).toBe(true);
    world.lock.exit();
    expect(state(world)).toEqual([0, 0, 0, 0]);
  });

  it('gives up after its time, and when it is aborted', async () => {
    const world = pair();
    world.theirs.enter();
    expect(await world.lock.enterAsync({ timeoutMs: 5 })).toBe(false);
    const controller = new AbortController();
    const entry = world.lock.enterAsync({ signal: controller.signal });
    setTimeout(() => controller.abort(new Error('no longer needed')), 5);
    await expect(entry).rejects.toMatchObject({ code: 'ECANCELED', cause: { message: 'no longer needed' } });
    await expect(world.lock.enterAsync({ signal: controller.signal })).rejects.toMatchObject({ code: 'ECANCELED' });
    expect(world.thread.heldCount).toBe(0);
    world.theirs.exit();
    expect(await world.lock.enterAsync()).toBe(true);
    world.lock.exit();
  });

  it('refuses internal locks, unknown options and bad timeouts', async () => {
    const world = pair(RANK.arena);
    await expect(world.lock.enterAsync()).rejects.toThrow(/EINVAL: mutex.enterAsync.*rank user/);
    const user = pair();
    const misspelt = { timeout: 5 } as object;
    await expect(user.lock.enterAsync(misspelt)).rejects.toThrow(/unknown option "timeout"; known options: timeoutMs/);
    await expect(user.lock.enterAsync({ timeoutMs: -1 })).rejects.toThrow(/EINVAL: mutex.enterAsync\(timeoutMs=-1\)/);
    expect(user.word()).toBe(0);
  });

  it('takes the lock when its owner dies', async () => {
    const world = pair();
    const monitor = testThread(world.region);
    world.theirs.enter();
    const entry = world.lock.enterAsync();
    takeOver(monitor, world.other.slot, []);
    expect(await entry).toBe(true);
    world.lock.exit();
  });

  it('stops with EPOISONED', async () => {
    const world = pair();
    world.theirs.enter();
    const entry = world.lock.enterAsync({ timeoutMs: 50 });
    poisonRegion(world.region, 'a test broke it');
    await expect(entry).rejects.toMatchObject({ code: 'EPOISONED' });
  });
});
