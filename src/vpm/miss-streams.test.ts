/** Streams that are read backwards, in strides, or in turn: what comes along, and that nothing else does. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { endOracle, testRooms } from '../../test/support/rooms.ts';
import { matches, Scratch } from '../../test/support/scratch.ts';
import { testSeed } from '../../test/support/seed.ts';
import { Prng } from '../base/index.ts';
import { pageStatistics } from '../page/index.ts';
import { MissStreams } from './miss-streams.ts';
import { openFile } from './open-file.ts';

const PAGE = 4096;
let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => scratch.remove());

describe('misses', () => {
  const notes = (reads: readonly (readonly [number, number])[]) => {
    const streams = new MissStreams(PAGE);
    return reads.map(([offset, length]) => streams.note(offset, length));
  };

  it('that touch are a stream of pages, forward or backward, and what is behind the window doubles it', () => {
    const pagesOf = (pages: readonly number[]) =>
      notes(pages.map((page) => [page * PAGE, PAGE] as const)).map((window) => window && [window.first, window.pages]);
    expect(pagesOf([10, 11, 16, 25])).toEqual([null, [12, 4], [17, 8], [26, 16]]);
    expect(pagesOf([90, 89, 84, 75, 58, 26])).toEqual([null, [85, 4], [76, 8], [59, 16], [27, 31], [-5, 31]]);
    // Page 14 has left before it was read; page 40 is nowhere near.
    expect(pagesOf([10, 11, 14, 40])).toEqual([null, [12, 4], [15, 2], null]);
  });

  it('at three equal distances are a stride, of any length and in both directions', () => {
    for (const stride of [3 * PAGE, 10_000_001, -7 * PAGE, -12_345]) {
      const at = (step: number) => [1e9 + step * stride, 100] as const;
      const found = notes([at(0), at(1), at(2), at(5), at(10), at(19), at(21)]);
      expect(found.map((window) => window?.steps ?? 0)).toEqual([0, 0, 2, 4, 8, 8, 4]);
      expect(found[6]).toMatchObject({ stride, from: at(21)[0] });
    }
  });

  it('of four streams in turn are told apart', () => {
    const streams = new MissStreams(PAGE);
    const bases = [0, 1e8, 3e8, 7e8];
    const strides = [5 * PAGE, -9 * PAGE, 100 * PAGE, PAGE];
    const windows = [0, 1, 2].map((step) =>
      bases.map((base, which) => streams.note(base + step * (strides[which] as number), PAGE)),
    );
    expect(windows[0]).toEqual([null, null, null, null]);
    expect(windows[2]?.map((window) => window?.stride)).toEqual([5 * PAGE, -9 * PAGE, 100 * PAGE, 0]);
  });

  it('of parts at equal distances that are read in turn are one stream for each part', () => {
    const streams = new MissStreams(PAGE);
    const windows = [0, 1, 2].map((step) =>
      [0, 1, 2, 3].map((part) => streams.note((4000 * part + step) * PAGE, PAGE)),
    );
    expect(windows[2]?.map((window) => window?.first)).toEqual([3, 4003, 8003, 12_003]);
    expect(windows[2]?.every((window) => window?.stride === 0)).toBe(true);
  });

  it('at random are none, but for few', () => {
    const random = new Prng(testSeed('random misses', 4));
    const streams = new MissStreams(PAGE);
    let found = 0;
    for (let miss = 0; miss < 10_000; miss++) if (streams.note(random.below(1e6) * PAGE, PAGE) !== null) found++;
    expect(found).toBeLessThan(20);
  });
});

describe('files', () => {
  /** Reads a file of 1024 pages and counts: pages touched, pages read, pages of those ahead, and calls. */
  function count(reads: readonly number[], length: number) {
    const rooms = testRooms({ frames: 256, bankFrames: 256 });
    using file = openFile(rooms, scratch.file(`f${reads.length}`, 1024 * PAGE, 3));
    const touched = new Set<number>();
    for (const offset of reads) {
      expect(matches(file.read(offset, length), 3, offset)).toBe(true);
      for (let page = Math.floor(offset / PAGE); page * PAGE < offset + length; page++) touched.add(page);
    }
    const { reads: calls, misses, aheadPages } = pageStatistics(rooms.region);
    expect(rooms.pages.held).toBe(0);
    file.close();
    endOracle(rooms);
    console.log(JSON.stringify({ touched: touched.size, misses, aheadPages, wasted: misses - touched.size, calls }));
    return { touched: touched.size, read: misses, ahead: aheadPages, calls };
  }
  const steps = (count: number, offset: (step: number) => number) => Array.from({ length: count }, (_, i) => offset(i));

  it('that are read in strides bring the pages that these touch, and no others', () => {
    for (const [stride, length, reads] of [
      [20 * PAGE, PAGE, 50],
      [5 * PAGE + 300, 5000, 120],
      [3 * PAGE, 100, 300],
    ] as const) {
      const { touched, read, ahead } = count(
        steps(reads, (step) => step * stride),
        length,
      );
      // The last window reaches beyond the last read.
      expect(read - touched).toBeLessThanOrEqual(8 * Math.ceil(length / PAGE + 1));
      expect(ahead).toBeGreaterThan(0.7 * touched);
    }
  });

  it('that are read backwards bring many pages with one call', () => {
    const { touched, read, ahead, calls } = count(
      steps(1024, (step) => (1023 - step) * PAGE),
      PAGE,
    );
    expect(read).toBe(touched);
    expect(ahead).toBeGreaterThan(900);
    expect(calls).toBeLessThan(120);
    // Unaligned, in pieces of less than a page.
    const small = count(
      steps(1000, (step) => (1000 - step) * 1000),
      1000,
    );
    expect(small.read - small.touched).toBeLessThanOrEqual(31);
    expect(small.calls).toBeLessThan(60);
  });

  it('of which several parts are read in turn bring pages for each', () => {
    const parts = [0, 300, 600, 1000];
    const { touched, read, ahead, calls } = count(
      steps(400, (step) => {
        const part = step % 4;
        return ((parts[part] as number) + (part === 3 ? -1 : 1) * Math.floor(step / 4)) * PAGE;
      }),
      PAGE,
    );
    expect(read - touched).toBeLessThanOrEqual(4 * 31);
    expect(ahead).toBeGreaterThan(0.8 * touched);
    expect(calls).toBeLessThan(100);
  });
});
