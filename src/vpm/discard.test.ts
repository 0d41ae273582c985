import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { endOracle, testRooms } from '../../test/support/rooms.ts';
import { matches, pattern, Scratch } from '../../test/support/scratch.ts';
import { armFault, disarmFault } from '../sync/index.ts';
import { openFile } from './open-file.ts';

let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => scratch.remove());

const RW = { mode: 'rw' } as const;

describe('what a file gives up', () => {
  for (const pageSize of [4096, 16_384]) {
    it(`is what a disk refuses for good, and it closes then: pages of ${pageSize} bytes`, () => {
      const rooms = testRooms();
      const path = scratch.file('a', 60_000, 1);
      const file = openFile(rooms, path, { ...RW, pageSize });
      const other = openFile(rooms, path, RW);
      file.write(100, pattern(2, 100, 40_000));
      // Longer than the file: the size stays, and what was never written reads as zeros.
      file.write(70_000, pattern(2, 0, 10));
      armFault(rooms.region, 'vnode.write.error', 'failAlways');
      expect(() => file.sync()).toThrow(/EIO/);
      const pages = rooms.pages.modifiedOf(file.vnode);
      expect(pages).toBe(Math.ceil(40_100 / pageSize) + 1);
      expect(file.discard()).toBe((pages - 1) * pageSize + (70_010 % pageSize));
      expect(rooms.pages.modifiedOf(file.vnode)).toBe(0);
      expect(file.read(0, 80_000)).toEqual(
        new Uint8Array(Buffer.concat([pattern(1, 0, 60_000), Buffer.alloc(10_010)])),
      );
      expect(file.discard()).toBe(0);
      file.close();
      // Who has not given anything up hears that something went wrong.
      expect(() => other.close()).toThrow(/EIO.*since this opener last looked/);
      expect(disarmFault(rooms.region)).toBeGreaterThan(0);
      expect(matches(readFileSync(path), 1, 0)).toBe(true);
      expect(readFileSync(path).length).toBe(60_000);
      expect(rooms.vnodes.dropUnused()).toBe(0);
      endOracle(rooms);
    });
  }

  it('is no more than the pages of the range, and not those that are mapped', () => {
    const rooms = testRooms();
    const path = scratch.file('a', 40_000, 1);
    const file = openFile(rooms, path, RW);
    file.write(0, pattern(2, 0, 40_000));
    expect(file.discard(5000, 0)).toBe(0);
    const mapping = file.map(12_288, 10, 'write');
    // Bytes 5000 to 20000 touch pages 1 to 4; page 3 is mapped.
    expect(file.discard(5000, 15_000)).toBe(3 * 4096);
    expect(rooms.pages.modifiedOf(file.vnode)).toBe(10 - 3);
    mapping.release();
    expect(file.discard(12_288, 1)).toBe(4096);
    expect(file.discard(39_999)).toBe(40_000 - 9 * 4096);
    file.sync();
    const expected = Uint8Array.from(pattern(2, 0, 40_000));
    expected.set(pattern(1, 4096, 4 * 4096), 4096);
    expected.set(pattern(1, 9 * 4096, 40_000 - 9 * 4096), 9 * 4096);
    expect(new Uint8Array(readFileSync(path))).toEqual(expected);
    expect(file.read(0, 40_000)).toEqual(expected);
    file.close();
    expect(rooms.vnodes.dropUnused()).toBe(0);
    endOracle(rooms);
  });

  it('is refused where it makes no sense', () => {
    const rooms = testRooms();
    const path = scratch.file('a', 10_000, 1);
    const file = openFile(rooms, path);
    expect(() => file.discard()).toThrow(/EACCES: file\.discard\(path=".*a"\)/);
    file.close();
    expect(() => file.discard()).toThrow(/ESTALE: file\.discard/);
    const again = openFile(rooms, join(scratch.directory, 'a'), RW);
    for (const [offset, length] of [
      [-1, 5],
      [0, -1],
      [0.5, 1],
      [Number.NaN, 1],
    ] as const) {
      expect(() => again.discard(offset, length)).toThrow(/EINVAL: file\.discard\((offset|length)=/);
    }
    again.close();
    expect(rooms.vnodes.dropUnused()).toBe(0);
    endOracle(rooms);
  });
});
