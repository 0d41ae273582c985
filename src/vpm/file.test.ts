import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { endOracle, moreRooms, problemsOf, testRooms } from '../../test/support/rooms.ts';
import { matches, pattern, Scratch } from '../../test/support/scratch.ts';
import { Prng } from '../base/index.ts';
import { pageStatistics } from '../page/index.ts';
import { ownerUsage } from '../sync/index.ts';
import { recoverMappings } from './locked-charge.ts';
import { openFile } from './open-file.ts';

let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => scratch.remove());

describe('mappings', () => {
  it('hand out pieces that hold the bytes, over several small banks', () => {
    const rooms = testRooms({ frames: 64, bankFrames: 16 });
    const file = openFile(rooms, scratch.file('a', 300_000, 3));
    const mapping = file.map(5000, 100_000);
    expect(mapping.pieces.length).toBe(25);
    expect(new Set(mapping.pieces.map((piece) => piece.bank)).size).toBe(2);
    expect(mapping.pieces.reduce((sum, piece) => sum + piece.length, 0)).toBe(100_000);
    let at = 5000;
    for (const view of mapping.views()) {
      expect(matches(view, 3, at)).toBe(true);
      at += view.length;
    }
    expect(rooms.mappings.mappedFrames).toBe(25);
    expect(() => rooms.mappings.close()).toThrow(/EBUSY/);
    mapping.release();
    expect(() => mapping.release()).toThrow(/ESTALE/);
    expect(() => mapping.views()).toThrow(/ESTALE/);
    mapping[Symbol.dispose]();
    file.close();
    endOracle(rooms);
  });

  it('refuse ranges outside the file, too many pages, and small arrays', () => {
    const rooms = testRooms();
    const file = openFile(rooms, scratch.file('a', 200_000, 3));
    const { vnode } = file;
    for (const [offset, length] of [
      [0, 200_001],
      [200_000, 1],
      [-1, 10],
      [0.5, 10],
      [Number.NaN, 1],
    ] as const) {
      expect(() => file.map(offset, length)).toThrow(/EFAULT/);
    }
    expect(() => file.map(0, 0)).toThrow(/EINVAL.*1 to 32 frames of 4096 bytes/);
    expect(() => file.map(1, 32 * 4096)).toThrow(/EINVAL.*1 to 32 frames of 4096 bytes/);
    expect(() => rooms.mappings.mapInto(vnode, 0, 10_000, new Float64Array(8))).toThrow(/EINVAL.*3 numbers/);
    expect(() => rooms.mappings.map(vnode, 0, 1, 'both' as 'read')).toThrow(/EINVAL.*'read' or 'write'/);
    expect(() => rooms.mappings.map(vnode, 0, 1, 'write')).toThrow(/EACCES.*mode 'rw'/);
    expect(() => rooms.mappings.copyOut(vnode, 0, 100, new Uint8Array(99))).toThrow(/EINVAL.*no room/);
    expect(() => rooms.mappings.copyOut(vnode, 0, 100, 255 * 4096 + 4090)).toThrow(/EFAULT/);
    expect(rooms.pages.held).toBe(0);
    endOracle(rooms);
  });

  it('charge their owner, up to its limit', () => {
    const rooms = testRooms({}, { lockedFrames: 70 });
    const file = openFile(rooms, scratch.file('a', 200_000, 3));
    const used = () => ownerUsage(rooms.region)[0]?.resources.lockedFrames.used;
    const mappings = [file.map(0, 32 * 4096), file.map(0, 32 * 4096)];
    expect(used()).toBe(64);
    const third = file.map(0, 6 * 4096);
    expect(used()).toBe(70);
    expect(() => file.map(0, 1)).toThrow(/EDQUOT.*limit of locked frames is 70/);
    third.release();
    for (const mapping of mappings) mapping.release();
    file.close();
    endOracle(rooms);
    expect(used()).toBe(0);
  });

  it('of a dead slot are taken back from its owner', () => {
    const rooms = testRooms();
    const victim = moreRooms(rooms);
    openFile(victim, scratch.file('a', 10_000, 3)).map(0, 10_000);
    recoverMappings(rooms.thread, victim.thread.slot);
    expect(ownerUsage(rooms.region)[0]?.resources.lockedFrames.used).toBe(0);
  });
});

describe('files', () => {
  it('read anywhere, short where they end', () => {
    const rooms = testRooms();
    using file = openFile(rooms, scratch.file('a', 10_000, 6));
    expect(file.size).toBe(10_000);
    expect(file.read(0, 5)).toEqual(pattern(6, 0, 5));
    expect(file.read(9_990, 100)).toEqual(pattern(6, 9_990, 10));
    expect(file.read(10_000, 100).length).toBe(0);
    expect(file.read(99_999, 100).length).toBe(0);
    const target = new Uint8Array(8192);
    expect(file.read(4000, target)).toBe(6000);
    expect(target.subarray(0, 6000)).toEqual(pattern(6, 4000, 6000));
    expect(() => file.read(-1, 5)).toThrow(/EINVAL.*offset/);
    expect(() => file.read(0, -5)).toThrow(/EINVAL.*length/);
    expect(file.stat().size).toBe(10_000);
    expect(file.isChanged()).toBe(false);
    expect(file.revalidate()).toBe(false);
    file.close();
    expect(() => file.read(0, 1)).toThrow(/ESTALE.*closed/);
  });

  it('read an empty file', () => {
    const rooms = testRooms();
    using file = openFile(rooms, scratch.file('empty', 0));
    expect(file.read(0, 10).length).toBe(0);
    expect(file.tryRead(0, 10)?.length).toBe(0);
    expect(() => file.map(0, 1)).toThrow(/EFAULT/);
  });

  it('answer from memory or say null', () => {
    const rooms = testRooms();
    using file = openFile(rooms, scratch.file('a', 50_000, 6));
    expect(file.tryRead(0, 10)).toBe(null);
    file.read(0, 8192);
    expect(file.tryRead(4000, 4192)).toEqual(pattern(6, 4000, 4192));
    expect(file.tryRead(4000, 4193)).toBe(null);
    expect(rooms.pages.held).toBe(0);
  });

  it('read into the banks, in one bank and from one to another', () => {
    const rooms = testRooms({ frames: 64, bankFrames: 32 });
    using file = openFile(rooms, scratch.file('a', 50_000, 6));
    const first = rooms.frames.takeRun(4);
    const second = rooms.frames.takeRun(32);
    rooms.frames.settle();
    expect(second).toBe(32);
    for (const frame of [first, second]) {
      expect(file.readTo(1234, frame * 4096 + 10, 12_000)).toBe(12_000);
      expect(matches(rooms.banks.view(frame * 4096 + 10, 12_000), 6, 1234)).toBe(true);
    }
    rooms.frames.giveRun(first, 4);
    rooms.frames.giveRun(second, 32);
  });

  it('are right in every byte while the data is ten times the memory', () => {
    const random = new Prng(1234);
    const rooms = testRooms({ frames: 40, bankFrames: 16 });
    const sizes = Array.from({ length: 10 }, () => random.between(100_000, 250_000));
    const files = sizes.map((size, i) => openFile(rooms, scratch.file(`f${i}`, size, i)));
    for (let step = 0; step < 3000; step++) {
      const i = random.below(files.length);
      const size = sizes[i] as number;
      const offset = random.below(size);
      const length = random.between(1, random.chance(0.1) ? 100_000 : 9000);
      const bytes = files[i]?.read(offset, length) as Uint8Array;
      expect(bytes.length).toBe(Math.min(length, size - offset));
      if (!matches(bytes, i, offset)) throw new Error(`step ${step}: file ${i} at ${offset}, ${length} bytes`);
      if (step % 300 === 0) expect(problemsOf(rooms)).toEqual([]);
    }
    const { hits, misses, evictions } = pageStatistics(rooms.region);
    expect(hits).toBeGreaterThan(0);
    expect(evictions).toBeGreaterThan(misses / 2);
    for (const file of files) file.close();
    endOracle(rooms);
  });
});
