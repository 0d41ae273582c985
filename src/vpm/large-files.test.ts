import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { endOracle, moreRooms, problemsOf, testRooms } from '../../test/support/rooms.ts';
import { matches, Scratch } from '../../test/support/scratch.ts';
import { testSeed } from '../../test/support/seed.ts';
import { Prng } from '../base/index.ts';
import { openFile } from './open-file.ts';

let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => scratch.remove());

const SIZES = [8192, 16384, 32768, 65536];

describe('files with large pages', () => {
  it('are mapped in one piece for each page', () => {
    for (const pageSize of SIZES) {
      const rooms = testRooms({ frames: 128, bankFrames: 64 });
      const file = openFile(rooms, scratch.file(`f${pageSize}`, 300_000, 3), { pageSize });
      expect(file.stat().pageSize).toBe(pageSize);
      for (let start = 0; start + pageSize <= 300_000; start += pageSize) {
        using mapping = file.map(start, pageSize);
        expect(mapping.pieces.length).toBe(1);
        expect(mapping.pieces[0]?.length).toBe(pageSize);
        const [view] = mapping.views() as [Uint8Array];
        expect(matches(view, 3, start)).toBe(true);
      }
      using mapping = file.map(pageSize - 10, 20);
      expect(mapping.pieces.map((piece) => piece.length)).toEqual([10, 10]);
      mapping.release();
      expect(rooms.pages.held).toBe(0);
      file.close();
      endOracle(rooms);
    }
  });

  it('have one size for all openers; another size is refused while anybody has them open', () => {
    const rooms = testRooms();
    const other = moreRooms(rooms);
    const path = scratch.file('a', 50_000, 3);
    const file = openFile(rooms, path, { pageSize: 16384, mode: 'rw' });
    for (const rule of [0, 4095, 5000, 2048, 131_072, 16384.5, Number.NaN]) {
      expect(() => openFile(rooms, path, { pageSize: rule })).toThrow(/EINVAL.*pageSize.*power of two/);
    }
    expect(() => openFile(other, path, { pageSize: 8192 })).toThrow(/EINVAL.*pageSize=16384.*same pageSize/);
    const plain = openFile(other, path);
    expect(plain.vnode).toBe(file.vnode);
    expect(plain.stat().pageSize).toBe(16384);
    plain.close();
    file.write(0, Uint8Array.of(9));
    file.close();
    const again = openFile(other, path, { pageSize: 8192 });
    expect(again.vnode).not.toBe(file);
    expect(again.read(0, 2)).toEqual(Uint8Array.of(9, matchesByte(path, 1)));
    expect(again.stat().pageSize).toBe(8192);
    again.close();
    const later = openFile(rooms, path);
    expect(later.stat().pageSize).toBe(8192);
    later.close();
    other.vnodes.closeAll();
    endOracle(rooms);
  });

  it('of a vnode that others changed keep their page size', () => {
    const rooms = testRooms();
    const path = scratch.file('a', 50_000, 3);
    const file = openFile(rooms, path, { pageSize: 16384 });
    file.read(0, 10);
    scratch.file('a', 70_000, 4);
    expect(file.revalidate()).toBe(true);
    expect(file.stat()).toMatchObject({ size: 70_000, pageSize: 16384 });
    expect(matches(file.read(60_000, 5000), 4, 60_000)).toBe(true);
    file.close();
    endOracle(rooms);
  });

  for (const pageSize of SIZES) {
    it(`are like plain files, with pages of ${pageSize} bytes, in two slots and little memory`, () => {
      const random = new Prng(testSeed(`files with pages of ${pageSize}`, 8));
      const rooms = testRooms({ frames: 64, bankFrames: 64 });
      const other = moreRooms(rooms);
      const path = scratch.file('a', 0);
      const files = [rooms, other].map((each) => openFile(each, path, { mode: 'rw', pageSize }));
      let model = new Uint8Array(0);
      const grow = (size: number) => {
        const next = new Uint8Array(size);
        next.set(model.subarray(0, size));
        model = next;
      };
      for (let step = 0; step < 600; step++) {
        const file = files[random.below(2)] as (typeof files)[0];
        const offset = random.below(random.chance(0.1) ? 500_000 : model.length + 5000);
        const length = random.between(1, random.chance(0.2) ? 150_000 : 9000);
        const act = random.below(10);
        if (act < 4) {
          const bytes = new Uint8Array(length).fill((step & 127) + 1);
          if (offset + length > model.length) grow(offset + length);
          model.set(bytes, offset);
          expect(file.write(offset, bytes)).toBe(length);
        } else if (act < 8) {
          const bytes = file.read(offset, length);
          if (Buffer.compare(bytes, model.subarray(offset, offset + length)) !== 0) throw new Error(`step ${step}`);
        } else if (act < 9) {
          grow(random.below(400_000));
          file.truncate(model.length);
        } else if (random.chance(0.5)) {
          file.sync();
          expect(Buffer.compare(readFileSync(path), model)).toBe(0);
        } else if (model.length > 0) {
          const start = random.below(model.length);
          using mapping = file.map(start, Math.min(20_000, model.length - start), 'write');
          for (const view of mapping.views()) view.fill((step & 127) + 1);
          model.fill((step & 127) + 1, start, Math.min(start + 20_000, model.length));
        }
        if (step % 100 === 0) expect(problemsOf(rooms)).toEqual([]);
      }
      for (const file of files) file.sync();
      expect(Buffer.compare(readFileSync(path), model)).toBe(0);
      for (const file of files) file.close();
      other.vnodes.closeAll();
      endOracle(rooms);
    });
  }
});

/** A byte of a file as plain `fs` has it. */
function matchesByte(path: string, at: number): number {
  return readFileSync(path)[at] as number;
}
