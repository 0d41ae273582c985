import {
  appendFileSync,
  closeSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Exerciser, emptyModel } from '../../test/support/fsx.ts';
import { endOracle, moreRooms, problemsOf, testRooms } from '../../test/support/rooms.ts';
import { matches, pattern, Scratch } from '../../test/support/scratch.ts';
import { testSeed } from '../../test/support/seed.ts';
import { Prng } from '../base/index.ts';
import { pageStatistics } from '../page/index.ts';
import { armFault, disarmFault, type FaultPoint, setSeam } from '../sync/index.ts';
import { openFile } from './open-file.ts';

let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => scratch.remove());

const RW = { mode: 'rw' } as const;

describe('writing', () => {
  for (const frames of [64, 512]) {
    it(`agrees with a model and with the real file, in ${frames} frames`, async () => {
      const seed = testSeed('writes against a model', 31 + frames);
      const rooms = testRooms({ frames, bankFrames: 32, pageBuckets: 64 });
      const path = scratch.file('a', 0);
      const open = () => openFile(rooms, path, RW);
      const opener = { open, openAsync: async () => open(), asyncShare: 0 };
      const run = rooms.frames.takeRun(2);
      const address = run * rooms.banks.pageSize;
      const bank = { address, bytes: rooms.banks.view(address, 2 * rooms.banks.pageSize) };
      const exerciser = new Exerciser(opener, path, emptyModel(700_000, false), new Prng(seed), bank);
      for (let step = 0; step < 6000; step++) {
        try {
          await exerciser.step();
        } catch (error) {
          throw new Error(`step ${step} of seed ${seed}`, { cause: error });
        }
        if (step % 500 === 0) expect(problemsOf(rooms)).toEqual([]);
      }
      await exerciser.end();
      const { writtenPages, evictions } = pageStatistics(rooms.region);
      expect(writtenPages).toBeGreaterThan(1000);
      if (frames === 64) expect(evictions).toBeGreaterThan(1000);
      expect(exerciser.tally.cut).toBeGreaterThan(100);
      rooms.frames.giveRun(run, 2);
      endOracle(rooms);
    });
  }

  it('makes, cuts, appends, and refuses what was not asked for', () => {
    const rooms = testRooms();
    const path = join(scratch.directory, 'new');
    expect(() => openFile(rooms, path, RW)).toThrow(/ENOENT/);
    expect(() => openFile(rooms, path, { create: true })).toThrow(/EINVAL.*need mode 'rw'/);
    expect(() => openFile(rooms, path, { mode: 'w' as 'r' })).toThrow(/EINVAL.*mode is 'r' or 'rw'/);
    expect(() => openFile(rooms, path, { creat: true } as object)).toThrow(/unknown option "creat"/);
    const file = openFile(rooms, path, { mode: 'rw', create: true, exclusive: true, permissions: 0o640 });
    expect(statSync(path).mode & 0o777).toBe(0o640);
    expect(() => openFile(rooms, path, { mode: 'rw', create: true, exclusive: true })).toThrow(/EEXIST/);
    expect(file.write(10, pattern(1, 10, 90))).toBe(90);
    expect(file.append(pattern(2, 0, 10))).toBe(100);
    expect(file.writev(110, [pattern(3, 0, 5), pattern(3, 5, 5)])).toBe(10);
    expect(file.size).toBe(120);
    expect(statSync(path).size).toBe(0);
    file.datasync();
    const bytes = readFileSync(path);
    expect([...bytes.subarray(0, 10)]).toEqual(Array(10).fill(0));
    expect(matches(bytes.subarray(10, 100), 1, 10)).toBe(true);
    using reader = openFile(rooms, path);
    expect(reader.vnode).toBe(file.vnode);
    expect(() => reader.write(0, new Uint8Array(1))).toThrow(/EACCES.*reading only/);
    expect(() => reader.sync()).toThrow(/EACCES/);
    expect(() => reader.truncate(0)).toThrow(/EACCES/);
    expect(() => reader.map(0, 10, 'write')).toThrow(/EACCES/);
    expect(() => file.write(-1, new Uint8Array(1))).toThrow(/EINVAL.*offset/);
    expect(() => file.write(Number.MAX_SAFE_INTEGER - 10, new Uint8Array(1))).toThrow(/EINVAL.*pages/);
    openFile(rooms, path, { mode: 'rw', truncate: true }).close();
    expect([reader.size, file.size, statSync(path).size]).toEqual([0, 0, 0]);
    file.close();
    reader.close();
    endOracle(rooms);
  });

  it('shows every thread what another wrote, and keeps one vnode for files that we write to', () => {
    const rooms = testRooms();
    const other = moreRooms(rooms);
    const path = scratch.file('a', 5000, 1);
    const file = openFile(rooms, path, RW);
    const seen = openFile(other, path);
    file.write(4000, pattern(2, 4000, 3000));
    file.sync();
    expect(seen.read(4000, 9999)).toEqual(pattern(2, 4000, 3000));
    const again = openFile(other, path);
    expect(again.vnode).toBe(file.vnode);
    expect(again.isChanged()).toBe(false);
    file.close();
    // The times that our own writing left are not somebody else's change.
    expect(again.isChanged()).toBe(false);
    expect(openFile(other, path).vnode).toBe(again.vnode);
    other.vnodes.closeAll();
    endOracle(rooms);
  });

  it('works on files of gigabytes in 64 frames', () => {
    const seed = testSeed('a big file', 9);
    const random = new Prng(seed);
    const rooms = testRooms({ frames: 64, bankFrames: 64 });
    const path = join(scratch.directory, 'big');
    const file = openFile(rooms, path, { mode: 'rw', create: true });
    const gigabytes = 6 * 2 ** 30;
    file.truncate(gigabytes);
    const written = new Map<number, number>();
    for (let step = 0; step < 400; step++) {
      const offset = random.below(gigabytes / 10_000) * 10_000;
      file.write(offset, pattern(step, 0, 5000));
      written.set(offset, step);
    }
    file.sync();
    expect(statSync(path).size).toBe(gigabytes);
    const descriptor = openSync(path, 'r');
    const real = new Uint8Array(5000);
    for (const [offset, step] of written) {
      expect(matches(file.read(offset, 5000), step, 0)).toBe(true);
      readSync(descriptor, real, 0, 5000, offset);
      expect(matches(real, step, 0)).toBe(true);
    }
    closeSync(descriptor);
    file.truncate(0);
    file.close();
    endOracle(rooms);
  });

  it('reads and writes physical addresses, also inside one bank', () => {
    const rooms = testRooms({ frames: 64, bankFrames: 64 });
    const file = openFile(rooms, join(scratch.directory, 'a'), { mode: 'rw', create: true });
    const run = rooms.frames.takeRun(4);
    rooms.banks.view(run * 4096, 12_000).set(pattern(7, 0, 12_000));
    expect(file.writeFrom(100, run * 4096, 12_000)).toBe(12_000);
    expect(file.read(100, 12_000)).toEqual(pattern(7, 0, 12_000));
    rooms.frames.giveRun(run, 4);
    file.close();
    endOracle(rooms);
  });
});

describe('cutting', () => {
  it('never brings back what was cut, in pages, in mappings, or in the file', () => {
    const rooms = testRooms();
    const path = scratch.file('a', 40_000, 1);
    const file = openFile(rooms, path, RW);
    const mapping = file.map(0, 40_000);
    const writing = file.map(20_000, 100, 'write');
    file.truncate(10_000);
    const mapped = Buffer.concat(mapping.views());
    expect(matches(mapped.subarray(0, 10_000), 1, 0)).toBe(true);
    expect(mapped.subarray(10_000).every((byte) => byte === 0)).toBe(true);
    file.truncate(30_000);
    expect(file.read(10_000, 30_000).every((byte) => byte === 0)).toBe(true);
    mapping.release();
    writing.release();
    file.sync();
    const bytes = readFileSync(path);
    expect(bytes.length).toBe(30_000);
    expect(matches(bytes.subarray(0, 10_000), 1, 0)).toBe(true);
    expect(bytes.subarray(10_000).every((byte) => byte === 0)).toBe(true);
    file.close();
    endOracle(rooms);
  });

  it('that the file system refuses leaves the size', () => {
    const rooms = testRooms();
    const path = scratch.file('a', 20_000, 1);
    const file = openFile(rooms, path, RW);
    armFault(rooms.region, 'vnode.truncate.error', 'fail');
    expect(() => file.truncate(100)).toThrow(/EIO.*injected/);
    expect(file.size).toBe(20_000);
    expect(file.read(0, 20_000)).toEqual(pattern(1, 0, 20_000));
    file.close();
    endOracle(rooms);
  });
});

describe('failures', () => {
  for (const [point, code] of [
    ['vnode.write.error', 'EIO'],
    ['vnode.write.full', 'ENOSPC'],
  ] as [FaultPoint, string][]) {
    it(`of writing back (${code}) reach every opener once, and the pages stay modified`, () => {
      const rooms = testRooms();
      const other = moreRooms(rooms);
      const path = scratch.file('a', 20_000, 1);
      const file = openFile(rooms, path, RW);
      const second = openFile(other, path, RW);
      file.write(0, pattern(2, 0, 20_000));
      armFault(rooms.region, point, 'failAlways');
      expect(() => file.sync()).toThrow(new RegExp(`${code}: file.sync.*injected`));
      expect(rooms.pages.modifiedOf(file.vnode)).toBe(5);
      disarmFault(rooms.region);
      expect(matches(readFileSync(path), 1, 0)).toBe(true);
      file.sync();
      expect(matches(readFileSync(path), 2, 0)).toBe(true);
      expect(() => second.sync()).toThrow(new RegExp(`${code}: file.sync.*since this opener last looked`));
      second.sync();
      file.close();
      second.close();
      endOracle(rooms);
    });
  }

  it('of a close are thrown by it; the pages stay modified and are written when the vnode is needed', () => {
    const rooms = testRooms();
    const path = scratch.file('a', 5000, 1);
    const file = openFile(rooms, path, RW);
    file.write(0, pattern(2, 0, 5000));
    armFault(rooms.region, 'vnode.write.error', 'failAlways');
    expect(() => file.close()).toThrow(/EIO/);
    expect(rooms.vnodes.dropUnused()).toBe(1);
    disarmFault(rooms.region);
    using again = openFile(rooms, path);
    expect(again.read(0, 5000)).toEqual(pattern(2, 0, 5000));
    again.close();
    expect(rooms.vnodes.dropUnused()).toBe(0);
    expect(matches(readFileSync(path), 2, 0)).toBe(true);
    endOracle(rooms);
  });

  it('of fsync make what is in memory modified again', () => {
    const rooms = testRooms();
    const path = scratch.file('a', 9000, 1);
    const file = openFile(rooms, path, RW);
    file.write(0, pattern(2, 0, 9000));
    armFault(rooms.region, 'vnode.sync.error', 'fail');
    expect(() => file.sync()).toThrow(/EIO: file.sync/);
    expect(rooms.pages.modifiedOf(file.vnode)).toBe(3);
    file.sync();
    expect(rooms.pages.modifiedOf(file.vnode)).toBe(0);
    file.close();
    endOracle(rooms);
  });

  it('short writes are continued', () => {
    const rooms = testRooms({ frames: 64, bankFrames: 16 });
    const path = scratch.file('a', 0);
    const file = openFile(rooms, path, RW);
    file.write(0, pattern(3, 0, 100_001));
    armFault(rooms.region, 'vnode.write.short', 'failAlways');
    file.sync();
    expect(disarmFault(rooms.region)).toBeGreaterThan(10);
    expect(matches(readFileSync(path), 3, 0)).toBe(true);
    expect(readFileSync(path).length).toBe(100_001);
    file.close();
    endOracle(rooms);
  });

  it('a write that cannot go on says how far it came, and the next one why', () => {
    const rooms = testRooms({ frames: 64, bankFrames: 64 });
    const path = scratch.file('a', 300_000, 1);
    const file = openFile(rooms, path, RW);
    // The whole pages of the first piece need no reading; the page in which the write ends does.
    armFault(rooms.region, 'vnode.read.error', 'failAlways');
    expect(file.write(0, pattern(2, 0, 70_000))).toBe(69_632);
    expect(() => file.write(69_632, pattern(2, 69_632, 368))).toThrow(/EIO/);
    disarmFault(rooms.region);
    expect(file.read(0, 69_632)).toEqual(pattern(2, 0, 69_632));
    expect(file.read(69_632, 1000)).toEqual(pattern(1, 69_632, 1000));
    file.close();
    endOracle(rooms);
  });

  it('a modified file whose path is gone is given up only when nobody can reach it', () => {
    const rooms = testRooms();
    const path = scratch.file('a', 5000, 1);
    const file = openFile(rooms, path, RW);
    file.write(0, pattern(2, 0, 5000));
    unlinkSync(path);
    file.sync();
    expect(file.read(0, 5000)).toEqual(pattern(2, 0, 5000));
    file.write(0, pattern(3, 0, 5000));
    armFault(rooms.region, 'vnode.write.error', 'failAlways');
    expect(() => file.close()).toThrow(/EIO/);
    disarmFault(rooms.region);
    expect(rooms.vnodes.dropUnused()).toBe(0);
    endOracle(rooms);
  });
});

describe('somebody else', () => {
  it('who changes a file that we write to is met by revalidate', () => {
    const rooms = testRooms();
    const path = scratch.file('a', 20_000, 1);
    const file = openFile(rooms, path, RW);
    expect(file.read(0, 20_000)).toEqual(pattern(1, 0, 20_000));
    file.write(0, pattern(2, 0, 100));
    const descriptor = openSync(path, 'r+');
    writeSync(descriptor, pattern(5, 8192, 100), 0, 100, 8192);
    closeSync(descriptor);
    appendFileSync(path, pattern(6, 0, 10));
    expect(file.isChanged()).toBe(false);
    expect(file.read(8192, 100)).toEqual(pattern(1, 8192, 100));
    expect(file.revalidate()).toBe(true);
    expect(file.size).toBe(20_010);
    expect(file.read(0, 100)).toEqual(pattern(2, 0, 100));
    expect(file.read(8192, 100)).toEqual(pattern(5, 8192, 100));
    truncateSync(path, 9000);
    expect(file.revalidate()).toBe(true);
    expect(file.size).toBe(9000);
    file.write(9000, pattern(7, 0, 1));
    file.close();
    expect(statSync(path).size).toBe(9001);
    endOracle(rooms);
  });

  it('who changes a page that another thread holds for a moment is met as well; a mapping keeps its page until it ends', () => {
    const rooms = testRooms();
    const other = moreRooms(rooms);
    const path = scratch.file('a', 20_000, 1);
    const file = openFile(rooms, path, RW);
    const change = (seed: number) => {
      const descriptor = openSync(path, 'r+');
      writeSync(descriptor, pattern(seed, 8192, 100), 0, 100, 8192);
      closeSync(descriptor);
    };
    file.read(0, 20_000);
    const frame = other.pages.hold(file.vnode, 2);
    change(5);
    let waits = 0;
    setSeam((operation) => {
      if (operation !== 'wait' || ++waits !== 2) return;
      setSeam(undefined);
      other.pages.release(frame);
    });
    file.revalidate();
    expect(waits).toBe(2);
    expect(file.read(8192, 100)).toEqual(pattern(5, 8192, 100));
    const mapping = file.map(8192, 100);
    change(6);
    file.revalidate();
    expect(file.read(8192, 100)).toEqual(pattern(5, 8192, 100));
    mapping.release();
    file.revalidate();
    expect(file.read(8192, 100)).toEqual(pattern(6, 8192, 100));
    file.close();
    endOracle(rooms);
  });

  it('who cuts a file under a mapping leaves the mapping its bytes; pages that are gone are errors', () => {
    const rooms = testRooms();
    const path = scratch.file('a', 50_000, 1);
    const file = openFile(rooms, path);
    const mapping = file.map(0, 8000);
    truncateSync(path, 1000);
    expect(matches(Buffer.concat(mapping.views()), 1, 0)).toBe(true);
    expect(() => file.read(40_000, 100)).toThrow(/EIO.*ended before its size/);
    mapping.release();
    expect(file.revalidate()).toBe(true);
    expect(file.read(0, 9999)).toEqual(pattern(1, 0, 1000));
    file.close();
    endOracle(rooms);
  });
});
