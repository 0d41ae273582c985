import { writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { endOracle, testRooms } from '../../test/support/rooms.ts';
import { matches, Scratch } from '../../test/support/scratch.ts';
import { pageStatistics } from '../page/index.ts';
import { openFile } from './open-file.ts';
import { ReadPattern } from './read-pattern.ts';

const PAGE = 4096;
let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => scratch.remove());

/** Pages ahead after each of some reads. */
function aheadOf(reads: readonly (readonly [number, number])[]): number[] {
  const pattern = new ReadPattern(PAGE, 1000 * PAGE);
  return reads.map(([offset, length]) => {
    pattern.note(offset, length);
    return pattern.ahead;
  });
}

/** Scans of one vnode. */
function counts() {
  let scans = 0;
  return {
    get: () => scans,
    put: (_vnode: number, count: number) => {
      scans = count;
    },
  };
}

describe('the pattern of a reader', () => {
  it('widens while reads follow one another, and ends at once', () => {
    const reads = Array.from({ length: 6 }, (_, i) => [i * 1000, 1000] as const);
    expect(aheadOf([...reads, [50_000, 1000], [51_000, 1000]])).toEqual([0, 4, 8, 16, 31, 31, 0, 4]);
    expect(
      aheadOf([
        [500, 10],
        [510, 10],
        [510, 10],
        [520, 10],
      ]),
    ).toEqual([0, 4, 4, 8]);
  });

  it('knows short strides, and not long ones or steps back', () => {
    const strided = (stride: number) => aheadOf(Array.from({ length: 5 }, (_, i) => [PAGE + i * stride, 100] as const));
    expect(strided(2 * PAGE)).toEqual([0, 0, 4, 8, 16]);
    expect(strided(3 * PAGE)).toEqual([0, 0, 0, 0, 0]);
    expect(aheadOf([5, 4, 3, 2].map((page) => [page * PAGE, PAGE] as const))).toEqual([0, 0, 0, 0]);
  });

  it('calls a long run through a large file a scan', () => {
    const pattern = new ReadPattern(PAGE, 80 * PAGE);
    const pass = (first: number, count: number) => {
      const said: boolean[] = [];
      for (let page = first; page < first + count; page++) {
        pattern.note(page * PAGE, PAGE);
        said.push(pattern.scans(0, 1000 * PAGE, counts()));
      }
      return said;
    };
    expect(pass(0, 13)).toEqual([...new Array(11).fill(false), true, true]);
    expect(pass(0, 13)).toEqual([...new Array(11).fill(false), true, true]);
    expect(pass(13, 1)).toEqual([true]);
    expect(pass(20, 1)).toEqual([false]);
  });

  it.each(['one reader', 'several'])(
    'keeps pages of a smaller file the second time that it is read through by %s',
    (who) => {
      const count = counts();
      let pattern = new ReadPattern(PAGE, 80 * PAGE);
      const passes = [0, 1, 2, 3].map(() => {
        if (who === 'several') pattern = new ReadPattern(PAGE, 80 * PAGE);
        let scanned = 0;
        for (let page = 0; page < 30; page++) {
          pattern.note(page * PAGE, PAGE);
          if (pattern.scans(0, 30 * PAGE, count)) scanned++;
        }
        return scanned;
      });
      expect(passes).toEqual([19, 0, 19, 19]);
    },
  );

  it('calls a long first read of the beginning of a longer file a scan, until something else is read', () => {
    const scans = (count: ReturnType<typeof counts>, length: number, ...offsets: number[]) => {
      const pattern = new ReadPattern(PAGE, memory * PAGE);
      return offsets.map((offset) => {
        pattern.note(offset, length);
        return pattern.scans(0, 100 * PAGE, count);
      });
    };
    let memory = 399;
    const long = 16 * PAGE;
    expect(scans(counts(), long, 0, long, 2 * long)).toEqual([true, true, true]);
    // Once more, somewhere else, or all of the file at once.
    expect(scans(counts(), long, 0, 0, 0)).toEqual([true, false, false]);
    expect(scans(counts(), long, 0, 3 * long, 0)).toEqual([true, false, false]);
    expect(scans(counts(), long, long)).toEqual([false]);
    expect(scans(counts(), 100 * PAGE, 0)).toEqual([false]);
    expect(scans(counts(), long - 1, 0)).toEqual([false]);
    // The second reader leaves its pages in memory.
    const shared = counts();
    expect(scans(shared, long, 0)).toEqual([true]);
    expect(scans(shared, long, 0, long)).toEqual([false, false]);
    memory = 400;
    expect(scans(counts(), long, 0, long)).toEqual([false, false]);
  });

  it('counts no strides as a scan', () => {
    const pattern = new ReadPattern(PAGE, 80 * PAGE);
    for (let step = 0; step < 50; step++) pattern.note(2 * step * PAGE, PAGE);
    expect(pattern.scans(0, 1000 * PAGE, counts())).toBe(false);
  });
});

describe('files read in order', () => {
  it('bring pages ahead of their reader, in few calls', () => {
    const rooms = testRooms();
    using file = openFile(rooms, scratch.file('a', 32 * PAGE, 3));
    for (let page = 0; page < 32; page++) {
      expect(matches(file.read(page * PAGE, PAGE), 3, page * PAGE)).toBe(true);
    }
    const { reads, misses, aheadPages, hits } = pageStatistics(rooms.region);
    expect(misses).toBe(32);
    expect(reads).toBeLessThan(6);
    expect(aheadPages).toBeGreaterThan(26);
    expect(hits).toBe(32 - reads);
    expect(rooms.pages.held).toBe(0);
    file.close();
    endOracle(rooms);
  });

  it('bring pages ahead of who maps them one after another, and for nobody who jumps', () => {
    const rooms = testRooms();
    using file = openFile(rooms, scratch.file('a', 100 * PAGE, 3));
    for (let page = 0; page < 100; page++) {
      using mapping = file.map(page * PAGE, PAGE);
      expect(matches(mapping.views()[0] as Uint8Array, 3, page * PAGE)).toBe(true);
    }
    const { reads, misses, aheadPages } = pageStatistics(rooms.region);
    expect(misses).toBe(100);
    expect(reads).toBeLessThan(9);
    expect(aheadPages).toBeGreaterThan(90);
    rooms.pages.drop(file.vnode, 100);
    for (let page = 99; page > 0; page -= 3) file.map(page * PAGE, PAGE).release();
    expect(pageStatistics(rooms.region).aheadPages).toBe(aheadPages);
    file.close();
    endOracle(rooms);
  });

  it('do not bring pages for readers that jump', () => {
    const rooms = testRooms();
    using file = openFile(rooms, scratch.file('a', 128 * PAGE, 3));
    for (const page of [2, 4, 8, 16, 32, 64].map((power) => 127 - power)) file.read(page * PAGE - 10, 5);
    expect(pageStatistics(rooms.region).aheadPages).toBe(0);
    file.close();
    endOracle(rooms);
  });

  it('go straight to who reads them in long pieces, from the first one on, but for what is in memory', () => {
    const rooms = testRooms({ frames: 256 });
    using file = openFile(rooms, scratch.file('a', 128 * PAGE, 3), { mode: 'rw' });
    file.write(20 * PAGE, new Uint8Array(100).fill(9));
    const read = (at: number) => {
      const bytes = file.read(at, 16 * PAGE);
      const written = at === 16 * PAGE;
      expect(matches(written ? bytes.subarray(5 * PAGE) : bytes, 3, written ? at + 5 * PAGE : at)).toBe(true);
      if (written) expect(bytes.subarray(4 * PAGE, 4 * PAGE + 100).every((byte) => byte === 9)).toBe(true);
    };
    read(0);
    expect(pageStatistics(rooms.region).directBytes).toBe(16 * PAGE);
    expect(file.tryRead(0, 1)).toBeNull();
    for (let at = 16 * PAGE; at < 128 * PAGE; at += 16 * PAGE) read(at);
    expect(pageStatistics(rooms.region).directBytes).toBe(112 * PAGE);
    read(0);
    expect(file.tryRead(0, 16 * PAGE)?.length).toBe(16 * PAGE);
    file.close();
    endOracle(rooms);
  });

  it('go straight to the reader when the file is larger than the memory, but for what is in memory', () => {
    const rooms = testRooms({ frames: 64, bankFrames: 64 });
    const path = scratch.file('a', 256 * PAGE, 3);
    using file = openFile(rooms, path, { mode: 'rw' });
    file.write(200 * PAGE + 5, new Uint8Array(100).fill(9));
    for (let at = 0; at < 256 * PAGE; at += 8 * PAGE) {
      const bytes = file.read(at, 8 * PAGE);
      const written = at === 200 * PAGE;
      expect(matches(written ? bytes.subarray(PAGE) : bytes, 3, written ? at + PAGE : at)).toBe(true);
      if (written) expect(bytes.subarray(5, 105).every((byte) => byte === 9)).toBe(true);
    }
    const { directBytes, evictions } = pageStatistics(rooms.region);
    expect(directBytes).toBeGreaterThan(150 * PAGE);
    expect(evictions).toBeLessThan(64);
    expect(file.read(255 * PAGE, 8 * PAGE).length).toBe(PAGE);
    file.close();
    writeFileSync(path, '');
    endOracle(rooms);
  });
});
