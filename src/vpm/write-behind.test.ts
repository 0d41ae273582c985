import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { endOracle, moreRooms, type TestRooms, testRooms } from '../../test/support/rooms.ts';
import { Scratch } from '../../test/support/scratch.ts';
import { pageStatistics } from '../page/index.ts';
import { armFault, disarmFault } from '../sync/index.ts';
import { openFile } from './open-file.ts';

let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => scratch.remove());

const PAGE = 4096;

/** Rooms whose threads see a limit of the system, in frames. */
function limitedRooms(systemMax: number, frames = 256): TestRooms {
  const first = testRooms({ frames, bankFrames: frames });
  first.region.tables.pageClock.modifiedMax.put(0, systemMax);
  return moreRooms(first);
}

function page(value: number): Uint8Array {
  return new Uint8Array(PAGE).fill(value);
}

describe('a limit of modified pages', () => {
  it('of a file holds while it is written, and adjacent pages go in one call', () => {
    const rooms = limitedRooms(0);
    const path = scratch.file('a', 0);
    const file = openFile(rooms, path, { mode: 'rw', dirtyLimit: 40 * PAGE });
    for (let index = 0; index < 400; index++) {
      file.write(index * PAGE, page(index & 127));
      expect(rooms.pages.modifiedOf(file.vnode)).toBeLessThanOrEqual(41);
    }
    const { writes, writtenPages, behindPages } = pageStatistics(rooms.region);
    expect(behindPages).toBe(writtenPages);
    expect(writtenPages).toBeGreaterThanOrEqual(359);
    // Runs of up to 32 pages, of those 41 that were modified first.
    expect(writtenPages / writes).toBeGreaterThan(15);
    file.close();
    const bytes = readFileSync(path);
    for (let index = 0; index < 400; index++) expect(bytes[index * PAGE + 5]).toBe(index & 127);
    endOracle(rooms);
  });

  it('of the system is kept by whoever writes, at the cost of its own pages first', () => {
    const rooms = limitedRooms(64);
    const files = ['a', 'b'].map((name) => openFile(rooms, scratch.file(name, 0), { mode: 'rw' }));
    const [a, b] = files as [(typeof files)[0], (typeof files)[0]];
    for (let index = 0; index < 50; index++) a.write(index * PAGE, page(1));
    expect(rooms.pages.modified).toBe(50);
    for (let index = 0; index < 200; index++) b.write(index * PAGE, page(2));
    expect(rooms.pages.modified).toBeLessThanOrEqual(64 + 16);
    expect(rooms.pages.modifiedOf(a.vnode)).toBe(50);
    // One long write of a file that has nothing to write back takes from the other.
    b.sync();
    b.write(0, new Uint8Array(150 * PAGE));
    expect(rooms.pages.modified).toBeLessThanOrEqual(64 + 32);
    for (const file of files) file.close();
    endOracle(rooms);
  });

  it('counts mappings for writing, and frames of large pages', () => {
    const rooms = limitedRooms(0);
    const file = openFile(rooms, scratch.file('a', 0), { mode: 'rw', pageSize: 65536, dirtyLimit: 131_072 });
    file.truncate(640_000);
    for (let start = 0; start < 600_000; start += 65_536) {
      const mapping = file.map(start, 10, 'write');
      mapping.views()[0]?.fill(7);
      mapping.release();
      expect(rooms.pages.modifiedOf(file.vnode)).toBeLessThanOrEqual(2);
    }
    file.close();
    endOracle(rooms);
  });

  it('that cannot be kept does not hold a writer up for ever, and is no error of the write', () => {
    const rooms = limitedRooms(0);
    const file = openFile(rooms, scratch.file('a', 0), { mode: 'rw', dirtyLimit: 8 * PAGE });
    armFault(rooms.region, 'page.write.refuse', 'failAlways');
    for (let index = 0; index < 40; index++) expect(file.write(index * PAGE, page(index))).toBe(PAGE);
    expect(rooms.pages.modifiedOf(file.vnode)).toBe(40);
    disarmFault(rooms.region);
    file.sync();
    expect(file.read(39 * PAGE, 1)).toEqual(Uint8Array.of(39));
    file.close();
    endOracle(rooms);
  });

  it('is that of the opener who gave one last, and 0 takes it away', () => {
    const rooms = limitedRooms(0);
    const path = scratch.file('a', 0);
    const file = openFile(rooms, path, { mode: 'rw', dirtyLimit: 8 * PAGE });
    openFile(rooms, path).close();
    expect(() => openFile(rooms, path, { dirtyLimit: -1 })).toThrow(/EINVAL.*dirtyLimit/);
    for (let index = 0; index < 30; index++) file.write(index * PAGE, page(index));
    expect(rooms.pages.modifiedOf(file.vnode)).toBeLessThanOrEqual(9);
    openFile(rooms, path, { dirtyLimit: 0 }).close();
    for (let index = 0; index < 30; index++) file.write(index * PAGE, page(index));
    expect(rooms.pages.modifiedOf(file.vnode)).toBe(30);
    file.close();
    endOracle(rooms);
  });
});
