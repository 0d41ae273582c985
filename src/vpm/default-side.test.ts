/** What the original does wrong with mapped pages and the default does right: see docs/differences.md. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { endOracle, type TestRooms, testRooms } from '../../test/support/rooms.ts';
import { matches, pattern, Scratch } from '../../test/support/scratch.ts';
import { pageStatistics } from '../page/index.ts';
import { armFault, disarmFault } from '../sync/index.ts';
import type { File } from './file.ts';
import { openFile } from './open-file.ts';

const PAGE = 4096;

let scratch: Scratch;
let rooms: TestRooms;
let file: File;

/** A file of four pages less 96 bytes, none of them in memory, over frames that hold junk. */
beforeEach(() => {
  scratch = new Scratch();
  rooms = testRooms({ frames: 32, bankFrames: 32 });
  rooms.banks.views[0]?.fill(0xa5);
  file = openFile(rooms, scratch.file('a', 4 * PAGE - 96, 1), { mode: 'rw' });
});

afterEach(() => {
  disarmFault(rooms.region);
  file.close();
  endOracle(rooms);
  scratch.remove();
});

function expectPattern(seed: number, from: number, end: number): void {
  expect([from, matches(file.read(from, end - from), seed, from)]).toEqual([from, true]);
}

describe('writes', () => {
  it('keep the bytes behind them, whichever of their pages were in memory', () => {
    for (const inMemory of [[], [0], [1], [2], [0, 1], [1, 2]]) {
      rooms.pages.drop(file.vnode, 4);
      for (const page of inMemory) file.read(page * PAGE, 1);
      // The first page wholly, the second one wholly, 100 bytes of the third.
      file.write(0, pattern(2, 0, 2 * PAGE + 100));
      expectPattern(2, 0, 2 * PAGE + 100);
      expectPattern(1, 2 * PAGE + 100, 4 * PAGE - 96);
      file.write(0, pattern(1, 0, 2 * PAGE + 100));
      file.sync();
    }
  });

  it('that make a page at the end leave zeros behind it, and only there', () => {
    file.write(4 * PAGE - 96, pattern(3, 0, 200));
    expect(file.read(4 * PAGE - 96, 500)).toEqual(pattern(3, 0, 200));
    const mapping = file.map(4 * PAGE, 104);
    const { bank, offset } = mapping.pieces[0] as { bank: number; offset: number };
    const page = rooms.mappings.view(bank, offset, PAGE);
    expect(page.subarray(104).every((byte) => byte === 0)).toBe(true);
    mapping.release();
    expectPattern(1, 0, 4 * PAGE - 96);
  });

  it('that fail in the first of two pages leave nothing of what the frames held', () => {
    armFault(rooms.region, 'vnode.read.error', 'fail');
    expect(() => file.write(100, pattern(2, 0, PAGE))).toThrow(/EIO/);
    expectPattern(1, 0, 4 * PAGE - 96);
  });

  it('behind a hole show zeros in it', () => {
    file.write(6 * PAGE + 10, pattern(2, 0, 10));
    expect(file.read(4 * PAGE - 96, 2 * PAGE + 106).every((byte) => byte === 0)).toBe(true);
  });
});

describe('mappings', () => {
  it('of a page that was dropped meanwhile miss once, and hit from then on', () => {
    for (let round = 0; round < 3; round++) {
      file.map(PAGE, 10).release();
      const before = pageStatistics(rooms.region);
      for (let again = 0; again < 5; again++) file.map(PAGE, 10).release();
      const after = pageStatistics(rooms.region);
      expect([after.misses - before.misses, after.hits - before.hits]).toEqual([0, 5]);
      expect(rooms.pages.drop(file.vnode, 4)).toBe(0);
    }
  });

  it('of several pages bring only those that are missing', () => {
    // One page alone is no reason to read ahead.
    file.map(3 * PAGE, 10).release();
    const before = pageStatistics(rooms.region);
    file.map(0, 4 * PAGE - 96).release();
    const after = pageStatistics(rooms.region);
    expect(after.readBytes - before.readBytes).toBe(3 * PAGE);
    expect(after.hits - before.hits).toBe(1);
  });

  it('of nothing are refused', () => {
    expect(() => file.map(PAGE, 0)).toThrow(/EINVAL/);
    expect(rooms.pages.held).toBe(0);
  });

  it('that were written to leave modified pages that are found, and written back', () => {
    const mapping = file.map(10, PAGE, 'write');
    for (const view of mapping.views()) view.fill(7);
    mapping.release();
    expect(rooms.pages.modifiedOf(file.vnode)).toBe(2);
    file.sync();
    expect(rooms.pages.modifiedOf(file.vnode)).toBe(0);
    expect(file.read(10, PAGE).every((byte) => byte === 7)).toBe(true);
  });
});
