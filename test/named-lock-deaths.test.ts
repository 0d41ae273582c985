/**
 * A thread ends at every single step of making, removing, taking, repairing and leaving a named lock: there is the lock or
 * there is none, nobody holds it, others get it, and who comes next is told exactly when the dead thread was inside.
 */

import { afterEach, describe, expect, it } from 'vitest';
import { type LockOptions, Locks, store, type Thread } from '../src/sync/index.ts';
import { dieAtEveryStep } from './support/deaths.ts';
import { testRegion, testThread } from './support/region.ts';

/** Whatever a section does under its lock. */
const WORD = 'A word that the lock guards';

function room() {
  const { region, thread } = testRegion({ namedLocks: 4, slots: 4 });
  const victim = testThread(region);
  const mine = new Locks(thread);
  const guarded = region.tables.owner.used.address(0);
  const die = (operation: () => void, verify: (step: number) => void) =>
    dieAtEveryStep({
      region,
      self: thread,
      victim,
      recoverers: [(_self, dead) => mine.recover(dead)],
      operation,
      verify: (step) => {
        expect(mine.check().problems).toEqual([]);
        expect(mine.list().filter(({ holder, waiting, readers }) => holder ?? waiting[0] ?? readers[0])).toEqual([]);
        verify(step);
      },
    });
  return { region, thread, victim, mine, guarded, die };
}

const steps: string[] = [];
afterEach(() => {
  for (const line of steps.splice(0)) console.log(line);
});

/** Removes all, and makes as many as there is room for. */
function endOracle(mine: Locks): void {
  for (const { name } of mine.list()) mine.remove(name);
  for (let i = 0; i < 4; i++) mine.mutex(`end ${i}`).run(() => {});
  for (let i = 0; i < 4; i++) mine.remove(`end ${i}`);
  expect(mine.check().problems).toEqual([]);
}

describe('a thread that ends while it', () => {
  it.each(['mutex', 'rwlock', 'condition'] as const)('makes a %s: there is one or none', (kind) => {
    const { victim, mine, die } = room();
    let made = 0;
    const count = die(
      () => void new Locks(victim)[kind]('new'),
      () => {
        if (mine.has('new')) made++;
        mine[kind]('new');
        expect(mine.list()).toMatchObject([{ name: 'new', kind, abandonedBy: null }]);
        endOracle(mine);
      },
    );
    steps.push(`make a ${kind}: ${count} steps, made in ${made}`);
    expect(count).toBeGreaterThan(5);
    expect(made).toBeGreaterThan(0);
    expect(made).toBeLessThan(count);
  });

  it.each(['mutex', 'rwlock', 'condition'] as const)('removes a %s: it is whole or gone', (kind) => {
    const { victim, mine, die } = room();
    const lock = mine[kind]('old');
    let gone = 0;
    const count = die(
      () => new Locks(victim).remove('old'),
      () => {
        const use = () => {
          if ('enter' in lock) lock.run(() => {});
          else if ('write' in lock) lock.write(() => {});
          else lock.signal();
        };
        if (mine.has('old')) use();
        else {
          gone++;
          expect(use).toThrow(/ESTALE/);
        }
        endOracle(mine);
      },
    );
    steps.push(`remove a ${kind}: ${count} steps, gone in ${gone}`);
    expect(gone).toBeGreaterThan(0);
    expect(gone).toBeLessThan(count);
  });

  const sections: [string, (locks: Locks, options: LockOptions, body: () => void) => void][] = [
    ['is in a mutex', (locks, options, body) => locks.mutex('a', options).run(body)],
    ['is a writer', (locks, options, body) => locks.rwlock('a', options).write(body)],
    [
      'is a writer that was a reader, and is one again',
      (locks, options, body) => {
        const lock = locks.rwlock('a', options);
        lock.enterShared();
        lock.tryUpgrade();
        body();
        lock.downgrade();
        lock.exitShared();
      },
    ],
    [
      'waits for a condition',
      (locks, options, body) => {
        const mutex = locks.mutex('a', options);
        mutex.enter();
        locks.condition('c').wait(mutex, 0);
        body();
        mutex.exit();
      },
    ],
  ];

  /** Runs the section of a victim that dies, and of the one who comes next; checks that the second is told when it must. */
  function look(section: (typeof sections)[number][1], abandoned: boolean): string {
    const { region, thread, victim, mine, guarded, die } = room();
    const half = (self: Thread) => {
      store(self.words, guarded, 1);
      store(self.words, guarded, 0);
    };
    if (abandoned) {
      const row = section === sections[1]?.[1] || section === sections[2]?.[1] ? mine.rwlock('a') : mine.mutex('a');
      expect(row.name).toBe('a');
      region.tables.namedLock.abandonedBy.put(0, thread.attachment);
    }
    let told = 0;
    let halves = 0;
    const count = die(
      () => section(new Locks(victim), { repair: () => half(victim) }, () => half(victim)),
      () => {
        const isHalf = region.words[guarded] === 1;
        if (isHalf) halves++;
        let repairs = 0;
        const repair = () => {
          repairs++;
          store(thread.words, guarded, 0);
        };
        section(mine, { repair }, () => expect(region.words[guarded], WORD).toBe(0));
        if (repairs > 0) told++;
        if (isHalf) expect(repairs).toBe(1);
        expect(mine.list().every(({ abandonedBy }) => abandonedBy === null)).toBe(true);
        endOracle(mine);
      },
    );
    expect(halves).toBeGreaterThan(0);
    expect(told).toBeGreaterThanOrEqual(halves);
    // Before it was inside and after it there is nothing to repair.
    expect(told).toBeLessThan(count);
    return `${count} steps, half done in ${halves}, told ${told} times`;
  }

  it.each(sections)('%s: the next one is told', (name, section) => {
    steps.push(`${name}: ${look(section, false)}`);
  });

  it.each(sections)('%s, and repairs what a dead one left: the next one is told as well', (name, section) => {
    steps.push(`${name}, repairing: ${look(section, true)}`);
  });
});
