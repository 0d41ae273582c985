import { describe, expect, it } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { CancelToken } from './cancel.ts';
import { LOCK_OWNER, LOCK_WAITERS } from './mutex.ts';
import { poisonRegion } from './poison.ts';
import { RANK } from './ranks.ts';
import { RwLock } from './rwlock-class.ts';
import { takeOver } from './takeover.ts';

function pair(rank: number = RANK.user) {
  const { region, thread } = testRegion();
  const other = testThread(region);
  const { head } = region.tables.bucket;
  const address = head.address(0);
  const words = () => [head.get(0) & LOCK_OWNER, head.get(1)];
  const mine = new RwLock(thread, address, rank);
  return { region, thread, other, head, address, mine, theirs: new RwLock(other, address, rank), words };
}

describe('readers/writer lock', () => {
  it('lets readers in together and writers alone', () => {
    const { mine, theirs, words, thread, other } = pair();
    expect(mine.enterShared()).toBe(true);
    expect(theirs.tryEnterShared()).toBe(true);
    expect(words()).toEqual([0, thread.bit | other.bit]);
    theirs.exitShared();
    expect(theirs.tryEnterExclusive()).toBe(false);
    expect(theirs.enterExclusive(3)).toBe(false);
    expect(words()).toEqual([0, thread.bit]);
    mine.exitShared();
    expect(theirs.enterExclusive()).toBe(true);
    expect(mine.tryEnterShared()).toBe(false);
    expect(mine.enterShared(3)).toBe(false);
    expect(mine.tryEnterExclusive()).toBe(false);
    expect(mine.enterExclusive(3)).toBe(false);
    theirs.exitExclusive();
    expect(words()).toEqual([0, 0]);
    expect([thread.heldCount, other.heldCount]).toEqual([0, 0]);
  });

  it('counts nesting in the record, so that all objects of a thread agree', () => {
    const { mine, thread, address, words } = pair();
    const again = new RwLock(thread, address, RANK.user);
    mine.enterShared();
    again.enterShared();
    again.tryEnterShared();
    expect(thread.heldCount).toBe(1);
    mine.exitShared();
    again.exitShared();
    expect(words()).toEqual([0, thread.bit]);
    mine.exitShared();
    expect(words()).toEqual([0, 0]);
    expect(() => mine.exitShared()).toThrow(/EINVAL: rwlock.exitShared/);
  });

  it('refuses to wait for itself and leaves no record', () => {
    const { mine, thread, words } = pair();
    mine.enterShared();
    expect(() => mine.enterExclusive()).toThrow(/EDEADLK: rwlock.enterExclusive\(/);
    expect(mine.tryEnterExclusive()).toBe(false);
    expect(thread.heldCount).toBe(1);
    mine.exitShared();
    mine.enterExclusive();
    expect(() => mine.enterShared()).toThrow(/EDEADLK: rwlock.enterShared\(/);
    expect(() => mine.enterExclusive()).toThrow(/EDEADLK: rwlock.enterExclusive\(/);
    expect(mine.tryEnterShared()).toBe(false);
    expect(thread.heldCount).toBe(1);
    mine.exitExclusive();
    expect(() => mine.exitExclusive()).toThrow(/EINVAL: rwlock.exitExclusive/);
    expect(words()).toEqual([0, 0]);
  });

  it('refuses timeouts that are none', () => {
    const { mine, thread } = pair();
    expect(() => mine.enterShared(-1)).toThrow(/EINVAL: rwlock.enterShared/);
    expect(() => mine.enterExclusive(Number.NaN)).toThrow(/EINVAL: rwlock.enterExclusive/);
    expect(thread.heldCount).toBe(0);
  });

  it('upgrades when it is the only reader, and stays a reader otherwise', () => {
    const { mine, theirs, thread, words } = pair();
    mine.enterShared();
    theirs.enterShared();
    expect(mine.tryUpgrade()).toBe(false);
    expect(thread.heldCount).toBe(1);
    theirs.exitShared();
    mine.enterShared();
    expect(() => mine.tryUpgrade()).toThrow(/EINVAL: rwlock.tryUpgrade.*nested/);
    mine.exitShared();
    expect(mine.tryUpgrade()).toBe(true);
    expect(words()).toEqual([thread.tag, 0]);
    mine.exitExclusive();
    expect(thread.heldCount).toBe(0);
    expect(() => mine.tryUpgrade()).toThrow(/EINVAL: rwlock.tryUpgrade/);
  });

  it('downgrades without letting another writer in, and commits', () => {
    const { mine, theirs, thread, head, words } = pair();
    expect(() => mine.downgrade()).toThrow(/EINVAL: rwlock.downgrade/);
    mine.enterExclusive();
    thread.journal.set(head, 9, 5);
    mine.downgrade();
    expect(thread.journal.length).toBe(0);
    expect(words()).toEqual([0, thread.bit]);
    expect(theirs.tryEnterShared()).toBe(true);
    expect(theirs.tryEnterExclusive()).toBe(false);
    theirs.exitShared();
    mine.exitShared();
    expect(thread.heldCount).toBe(0);
  });

  it('ends waits whose token is cancelled', () => {
    const { mine, theirs, thread, other, words } = pair();
    const token = CancelToken.create(other);
    token.cancel();
    theirs.enterExclusive();
    expect(() => mine.enterShared(1000, token)).toThrow(/ECANCELED: rwlock.enterShared/);
    expect(() => mine.enterExclusive(1000, token)).toThrow(/ECANCELED: rwlock.enterExclusive/);
    theirs.exitExclusive();
    theirs.enterShared();
    expect(() => mine.enterExclusive(1000, token)).toThrow(/ECANCELED: rwlock.enterExclusive/);
    expect(words()).toEqual([0, other.bit]);
    expect(thread.heldCount).toBe(0);
    theirs.exitShared();
  });

  it('stops with EPOISONED and gives back what it had', () => {
    const { region, mine, theirs, thread, other, words } = pair();
    theirs.enterShared();
    poisonRegion(region, 'a test broke it');
    expect(() => mine.enterExclusive(3)).toThrow(/EPOISONED/);
    expect(words()).toEqual([0, other.bit]);
    expect(thread.heldCount).toBe(0);
  });

  it('is freed by a takeover, whichever way it was held', () => {
    for (const way of ['shared', 'exclusive', 'both'] as const) {
      const { region, thread, mine, theirs, other, head, words } = pair();
      if (way === 'shared') theirs.enterShared();
      else theirs.enterExclusive();
      if (way === 'both') {
        // As if the thread had died inside a downgrade.
        other.pushHeld(theirs.address, 2, RANK.user, false);
        head.put(1, other.bit);
      }
      expect(takeOver(thread, other.slot, [])?.released).toBe(way === 'both' ? 2 : 1);
      expect(words()).toEqual([0, 0]);
      expect(mine.tryEnterExclusive()).toBe(true);
      mine.exitExclusive();
      expect(region.tables.slot.claim.get(other.slot)).toBe(0);
    }
  });

  it('marks the word before a reader sleeps on it', () => {
    const { mine, theirs, head, other } = pair();
    theirs.enterExclusive();
    expect(mine.enterShared(2)).toBe(false);
    expect(head.get(0)).toBe(other.tag | LOCK_WAITERS);
    theirs.exitExclusive();
    expect(head.get(0)).toBe(0);
  });
});

describe('readers/writer lock in an event loop', () => {
  it('waits as a reader and as a writer', async () => {
    const { mine, theirs, words, thread } = pair();
    theirs.enterExclusive();
    const reader = mine.enterSharedAsync();
    await new Promise((resolve) => setTimeout(resolve, 3));
    theirs.exitExclusive();
    expect(await reader).toBe(true);
    mine.exitShared();
    theirs.enterShared();
    const writer = mine.enterExclusiveAsync();
    await new Promise((resolve) => setTimeout(resolve, 3));
    expect(words()[0]).toBe(thread.tag);
    theirs.exitShared();
    expect(await writer).toBe(true);
    mine.exitExclusive();
    expect(words()).toEqual([0, 0]);
    expect(thread.heldCount).toBe(0);
  });

  it('waits as a writer for other tasks of its thread', async () => {
    const { mine, words } = pair();
    mine.enterShared();
    const writer = mine.enterExclusiveAsync();
    mine.exitShared();
    expect(await writer).toBe(true);
    mine.exitExclusive();
    expect(words()).toEqual([0, 0]);
  });

  it('gives up after its time and when it is aborted, holding nothing', async () => {
    const { mine, theirs, words, thread, other } = pair();
    theirs.enterShared();
    expect(await mine.enterExclusiveAsync({ timeoutMs: 3 })).toBe(false);
    const controller = new AbortController();
    const writer = mine.enterExclusiveAsync({ signal: controller.signal });
    setTimeout(() => controller.abort(), 3);
    await expect(writer).rejects.toMatchObject({ code: 'ECANCELED' });
    expect(words()).toEqual([0, other.bit]);
    expect(thread.heldCount).toBe(0);
    theirs.exitShared();
    theirs.enterExclusive();
    expect(await mine.enterSharedAsync({ timeoutMs: 3 })).toBe(false);
    theirs.exitExclusive();
  });

  it('refuses internal locks', async () => {
    const { mine } = pair(RANK.vnode);
    await expect(mine.enterSharedAsync()).rejects.toThrow(/rank user/);
    await expect(mine.enterExclusiveAsync()).rejects.toThrow(/rank user/);
  });
});
