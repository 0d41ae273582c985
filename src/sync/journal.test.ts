import { describe, expect, it } from 'vitest';
import { testRegion } from '../../test/support/region.ts';
import { undoJournal } from './journal.ts';
import { Mutex } from './mutex.ts';
import { RANK } from './ranks.ts';

function world(journalLanes = 64) {
  const { region, thread } = testRegion({ journalLanes });
  const { head } = region.tables.bucket;
  const lock = (row: number) => new Mutex(thread, head.address(row), RANK.user);
  return { region, thread, head, lock, journal: thread.journal, doubles: region.tables.owner.limit };
}

describe('journal', () => {
  it('brings back every word, newest first', () => {
    const { region, thread, journal, head, doubles } = world();
    head.put(5, 50);
    doubles.putAt(1, 0, 2 ** 53 - 1);
    journal.set(head, 5, 51);
    journal.set(head, 5, 52);
    journal.setAt(head, 5, 0, 53);
    journal.setDouble(doubles, 1, 7);
    journal.log2(head.address(6), head.address(7));
    head.put(6, 1);
    head.put(7, 2);
    journal.log3(head.address(6), head.address(7), head.address(8));
    for (const row of [6, 7, 8]) head.put(row, 9);
    journal.logRange(head.address(5), 4);
    for (const row of [5, 6, 7, 8]) head.put(row, -1);
    expect(undoJournal(region, thread.slot)).toBe(10);
    expect([5, 6, 7, 8].map((row) => head.get(row))).toEqual([50, 0, 0, 0]);
    expect(doubles.get(1)).toBe(2 ** 53 - 1);
    expect(journal.length).toBe(0);
  });

  it('leaves a mark where that was asked for, and a commit leaves none', () => {
    const { region, thread, journal, head } = world();
    for (let row = 1; row <= 7; row++) head.put(row, 10 * row);
    head.put(6, 0);
    journal.log7Marking(head.address(1));
    for (let row = 1; row <= 7; row++) if (row !== 6) head.put(row, -1);
    expect(head.get(6)).toBe(0);
    expect(undoJournal(region, thread.slot)).toBe(1);
    expect([1, 2, 3, 4, 5, 6, 7].map((row) => head.get(row))).toEqual([10, 20, 30, 40, 50, 1, 70]);
    head.put(6, 0);
    journal.log7Marking(head.address(1));
    journal.commit();
    expect(undoJournal(region, thread.slot)).toBe(0);
    expect(head.get(6)).toBe(0);
  });

  it('logs a marked range and a record at once, at the start of a section and behind other entries', () => {
    const { region, thread, journal, head } = world();
    const { words } = region;
    const record = (head.address(16) + 7) & -8;
    const marked = record - 8;
    for (const ahead of [false, true]) {
      for (let word = 0; word < 16; word++) words[marked + word] = 100 + word;
      if (ahead) journal.set(head, 1, 1);
      const before = journal.length;
      journal.log7MarkingAnd8(marked, record);
      expect(journal.length - before).toBe(19);
      for (let word = 0; word < 16; word++) if (word !== 7) words[marked + word] = -1;
      expect(undoJournal(region, thread.slot)).toBe(ahead ? 3 : 2);
      const wanted = Array.from({ length: 16 }, (_, word) => (word === 5 ? 1 : 100 + word));
      expect(Array.from(words.subarray(marked, record + 8))).toEqual(wanted);
    }
  });

  it('brings back the bits of doubles that are no numbers', () => {
    const { region, thread, journal, doubles } = world();
    const bits = () => [region.words[doubles.base * 2 + 16], region.words[doubles.base * 2 + 17]];
    region.words[doubles.base * 2 + 16] = 0x12345678;
    region.words[doubles.base * 2 + 17] = 0x7ff00001;
    const before = bits();
    journal.setDouble(doubles, 1, 3);
    expect(bits()).not.toEqual(before);
    undoJournal(region, thread.slot);
    expect(bits()).toEqual(before);
  });

  it('commits when the lock is given back', () => {
    const { region, thread, journal, head, lock } = world();
    const mutex = lock(0);
    mutex.enter();
    journal.set(head, 5, 1);
    mutex.exit();
    expect(journal.length).toBe(0);
    expect(undoJournal(region, thread.slot)).toBe(0);
    expect(head.get(5)).toBe(1);
  });

  it('lets an inner lock commit while the outer section has logged nothing', () => {
    const { journal, head, lock } = world();
    const [outer, inner] = [lock(0), lock(1)];
    outer.enter();
    inner.enter();
    journal.set(head, 5, 1);
    inner.exit();
    expect(journal.length).toBe(0);
    journal.set(head, 6, 1);
    inner.enter();
    inner.exit(); // logged nothing itself
    expect(journal.length).toBe(2);
    outer.exit();
    expect(journal.length).toBe(0);
  });

  it('refuses an inner commit over what an outer section has logged', () => {
    const { thread, journal, head, lock } = world();
    const [outer, inner] = [lock(0), lock(1)];
    outer.enter();
    journal.set(head, 5, 1);
    inner.enter();
    journal.set(head, 6, 1);
    expect(() => inner.exit()).toThrow(/invariant broken: sync\/journal I2/);
    thread.commit();
    journal.set(head, 6, 2);
    inner.exit();
    expect(journal.length).toBe(0);
    outer.exit();
  });

  it('commits all when the outer lock is given back first', () => {
    const { journal, head, lock } = world();
    const [outer, inner] = [lock(0), lock(1)];
    outer.enter();
    journal.set(head, 5, 1);
    inner.enter();
    outer.exit();
    expect(journal.length).toBe(0);
    journal.set(head, 6, 1);
    inner.exit();
    expect(journal.length).toBe(0);
  });

  it('refuses a section that is too long before it stores', () => {
    const { region, thread, journal, head } = world(9);
    for (let row = 0; row < 4; row++) journal.set(head, row, 1);
    expect(() => journal.set(head, 4, 1)).toThrow(/invariant broken: sync\/journal I3: .*more than 8 words/);
    expect(() => journal.logRange(head.address(4), 1)).toThrow(/sync\/journal I3/);
    expect(() => journal.log2(1, 2)).toThrow(/sync\/journal I3/);
    expect(() => journal.log3(1, 2, 3)).toThrow(/sync\/journal I3/);
    expect(head.get(4)).toBe(0);
    expect(undoJournal(region, thread.slot)).toBe(4);
    expect(head.get(3)).toBe(0);
  });

  it('can be undone again from the start when the takeover itself is repeated', () => {
    const { region, thread, journal, head } = world();
    journal.set(head, 5, 1);
    journal.set(head, 6, 1);
    undoJournal(region, thread.slot);
    expect(undoJournal(region, thread.slot)).toBe(0);
    expect([head.get(5), head.get(6)]).toEqual([0, 0]);
  });
});
