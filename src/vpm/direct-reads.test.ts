import { closeSync, openSync, writeSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { endOracle, moreRooms, testRooms } from '../../test/support/rooms.ts';
import { matches, pattern, Scratch } from '../../test/support/scratch.ts';
import { testSeed } from '../../test/support/seed.ts';
import { Prng } from '../base/index.ts';
import { pageStatistics } from '../page/index.ts';
import type { File } from './file.ts';
import { openFile } from './open-file.ts';

const PAGE = 4096;
const SEED = 5;
let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => scratch.remove());

/** Reads from one end to the other until reads go past the pages; returns where the next one begins. */
function readOn(file: File, size: number, pages: number, from = 0): number {
  for (let at = from; at < from + pages * PAGE; at += size) expect(matches(file.read(at, size), SEED, at)).toBe(true);
  return from + pages * PAGE;
}

describe('a file read from end to end', () => {
  it.each([512, PAGE, 12_000, 3 * PAGE, 16 * PAGE])('in pieces of %i bytes leaves few pages, and is right', (size) => {
    const rooms = testRooms();
    using file = openFile(rooms, scratch.file('a', 256 * PAGE - 100, SEED));
    for (let at = 0; at < 256 * PAGE; at += size) expect(matches(file.read(at, size), SEED, at)).toBe(true);
    const { directBytes, misses } = pageStatistics(rooms.region);
    expect(directBytes).toBeGreaterThan(150 * PAGE);
    expect(misses).toBeLessThan(110);
    file.close();
    endOracle(rooms);
  });

  it('has its pages in memory the second time, and calls nobody the third', () => {
    const rooms = testRooms();
    using file = openFile(rooms, scratch.file('a', 100 * PAGE, SEED));
    const bytes: number[] = [];
    for (let pass = 0; pass < 3; pass++) {
      readOn(file, PAGE, 100);
      const { directBytes, readBytes } = pageStatistics(rooms.region);
      bytes.push(directBytes, readBytes);
    }
    const [firstDirect, firstRead, secondDirect, secondRead, thirdDirect, thirdRead] = bytes as number[];
    expect(firstDirect).toBeGreaterThan(50 * PAGE);
    expect(secondDirect).toBe(firstDirect);
    expect(secondRead).toBeGreaterThan(firstRead as number);
    expect([thirdDirect, thirdRead]).toEqual([secondDirect, secondRead]);
    file.close();
    endOracle(rooms);
  });

  it('shows what others have written since it was read into the buffer, also once that is in the file', () => {
    const rooms = testRooms();
    const others = moreRooms(rooms);
    const path = scratch.file('a', 128 * PAGE, SEED);
    using file = openFile(rooms, path);
    using writer = openFile(others, path, { mode: 'rw' });
    const at = readOn(file, PAGE, 60);
    expect(pageStatistics(rooms.region).directBytes).toBeGreaterThan(0);
    writer.write(at, Uint8Array.of(7));
    expect(file.read(at, 1)[0]).toBe(7);
    writer.write(at + 1, Uint8Array.of(8));
    writer.sync();
    expect(file.read(at + 1, 1)[0]).toBe(8);
    expect(matches(file.read(at + 2, 3 * PAGE), SEED, at + 2)).toBe(true);
    file.close();
    writer.close();
    others.vnodes.closeAll();
    endOracle(rooms);
  });

  it('shows what is stored through a mapping that was written back before', () => {
    const rooms = testRooms();
    const others = moreRooms(rooms);
    const path = scratch.file('a', 128 * PAGE, SEED);
    using file = openFile(rooms, path);
    using writer = openFile(others, path, { mode: 'rw' });
    const mapping = writer.map(70 * PAGE, PAGE, 'write');
    writer.sync();
    const [bytes] = mapping.views() as [Uint8Array];
    bytes[5] = (bytes[5] as number) ^ 1;
    for (let at = 0; at < 128 * PAGE; at += PAGE) {
      const read = file.read(at, PAGE);
      if (at === 70 * PAGE) read[5] = (read[5] as number) ^ 1;
      expect(matches(read, SEED, at)).toBe(true);
    }
    mapping.release();
    file.close();
    writer.close();
    endOracle(rooms);
  });

  it('ends where the file was cut, and shows zeros where it grew again', () => {
    const rooms = testRooms();
    const path = scratch.file('a', 128 * PAGE, SEED);
    using file = openFile(rooms, path, { mode: 'rw' });
    const at = readOn(file, PAGE, 60);
    file.truncate(at + 100);
    file.truncate(128 * PAGE);
    const read = file.read(at, PAGE);
    expect(matches(read.subarray(0, 100), SEED, at)).toBe(true);
    expect(read.subarray(100).every((byte) => byte === 0)).toBe(true);
    file.truncate(at + PAGE);
    expect(file.read(at + PAGE, PAGE).length).toBe(0);
    file.close();
    endOracle(rooms);
  });

  it('shows what others have done to it from the next revalidation on', () => {
    const rooms = testRooms();
    const path = scratch.file('a', 128 * PAGE, SEED);
    using file = openFile(rooms, path);
    const at = readOn(file, PAGE, 60);
    const descriptor = openSync(path, 'r+');
    writeSync(descriptor, Uint8Array.of(9), 0, 1, at + 5);
    closeSync(descriptor);
    expect(matches(file.read(at, PAGE), SEED, at)).toBe(true);
    expect(file.revalidate()).toBe(true);
    expect(file.read(at + 5, 1)[0]).toBe(9);
    file.close();
    endOracle(rooms);
  });

  it.each([
    [1000, PAGE],
    [5000, PAGE],
    [12_288, PAGE],
    [20_000, PAGE],
    [40_000, PAGE],
    [100_000, PAGE],
    [1000, 4 * PAGE],
    [30_000, 4 * PAGE],
    [20_000, 16 * PAGE],
    [65_536, 16 * PAGE],
    [150_000, 16 * PAGE],
  ])('in pieces of %i bytes shows pages of %i bytes whole while others rewrite it', (length, pageSize) => {
    const rooms = testRooms();
    const size = 512 * PAGE - 100;
    const path = scratch.file('a', size, SEED);
    using file = openFile(rooms, path, { pageSize });
    const descriptor = openSync(path, 'r+');
    const versions = [pattern(SEED, 0, size)];
    const read = new Uint8Array(size);
    for (let at = 0, reads = 0; at < size; reads++) {
      // Every few reads, at all places inside a page and the buffer.
      if (reads % 3 === 2 && versions.length < 40) {
        const version = pattern(SEED + versions.length, 0, size);
        writeSync(descriptor, version, 0, size, 0);
        versions.push(version);
      }
      const bytes = file.read(at, length);
      read.set(bytes, at);
      at += bytes.length;
    }
    closeSync(descriptor);
    const mixed: number[] = [];
    for (let at = 0; at < size; at += pageSize) {
      const page = read.subarray(at, at + pageSize);
      const isOne = (version: Uint8Array) => Buffer.compare(version.subarray(at, at + pageSize), page) === 0;
      if (!versions.some(isOne)) mixed.push(at);
    }
    expect(mixed).toEqual([]);
    expect(pageStatistics(rooms.region).directBytes).toBeGreaterThan(size / 4);
    file.close();
    endOracle(rooms);
  });

  it('keeps in step with a model beside a writer', () => {
    const seed = testSeed('scans beside a writer', 11);
    const random = new Prng(seed);
    const rooms = testRooms({ frames: 64, bankFrames: 64 });
    const others = moreRooms(rooms);
    const path = scratch.file('a', 96 * PAGE, SEED);
    using file = openFile(rooms, path);
    using writer = openFile(others, path, { mode: 'rw' });
    const model = Uint8Array.from(writer.read(0, 96 * PAGE));
    let reads = 0;
    for (let round = 0; round < 40; round++) {
      const size = [700, PAGE, 3 * PAGE, 8 * PAGE][random.below(4)] as number;
      for (let at = 0; at < 96 * PAGE; at += size) {
        if (random.below(12) === 0) {
          const where = Math.min(at + random.below(20 * PAGE), 95 * PAGE);
          const bytes = Uint8Array.from({ length: 1 + random.below(PAGE) }, () => random.below(256));
          writer.write(where, bytes);
          model.set(bytes, where);
        }
        if (random.below(40) === 0) writer.sync();
        const wanted = model.subarray(at, Math.min(at + size, model.length));
        expect(Buffer.compare(file.read(at, size), wanted)).toBe(0);
        reads++;
      }
    }
    const { directBytes } = pageStatistics(rooms.region);
    console.log(`scans beside a writer: ${reads} reads, ${directBytes} bytes past the pages`);
    expect(directBytes).toBeGreaterThan(1e6);
    file.close();
    writer.close();
    endOracle(rooms);
  });
});
