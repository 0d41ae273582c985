import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { endOracle, moreRooms, problemsOf, type TestRooms, testRooms } from '../../test/support/rooms.ts';
import { matches, pattern, Scratch } from '../../test/support/scratch.ts';
import { VmError } from '../base/index.ts';
import { armFault, disarmFault, undoJournal } from '../sync/index.ts';
import { openFile } from '../vpm/open-file.ts';
import { recoverVnodes } from './vnode-table.ts';
import { isFailure } from './write-refusals.ts';

let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => scratch.remove());

function contents(rooms: TestRooms, vnode: number, offset: number, length: number): Uint8Array {
  const target = new Uint8Array(length);
  rooms.mappings.copyOut(vnode, offset, length, target);
  return target;
}

describe('a file that was renamed or unlinked while it was modified', () => {
  for (const how of ['renamed', 'unlinked']) {
    it(`is written back by a thread that never had it open: ${how}`, () => {
      const rooms = testRooms({ frames: 64 });
      const other = moreRooms(rooms);
      const [path, moved] = [scratch.file('a', 0), join(scratch.directory, 'moved')];
      const file = openFile(rooms, path, { mode: 'rw' });
      const bytes = pattern(3, 0, 100_000);
      file.write(0, bytes);
      if (how === 'renamed') renameSync(path, moved);
      else unlinkSync(path);
      const big = openFile(other, scratch.file('big', 1_000_000, 4));
      expect(matches(big.read(0, 1_000_000), 4, 0)).toBe(true);
      expect(other.pages.writeBack(file.vnode, 0, Number.POSITIVE_INFINITY, other.vnodes)).toBe(
        process.platform === 'linux' ? 25 : 0,
      );
      expect(rooms.vnodes.errors.count(file.vnode)).toBe(0);
      file.sync();
      expect(Buffer.compare(file.read(0, 200_000), bytes)).toBe(0);
      if (how === 'renamed') expect(Buffer.compare(readFileSync(moved), bytes)).toBe(0);
      file.close();
      big.close();
      other.vnodes.closeAll();
      endOracle(rooms);
    });
  }

  it('is no failure for others where only its opener can write it, and one when nobody can', () => {
    const moved = new VmError('ENOENT', 'moved');
    expect([isFailure(moved, true), isFailure(moved, false)]).toEqual([false, true]);
    expect([isFailure(new VmError('EIO', 'bad'), true), isFailure(new Error('bad'), true)]).toEqual([true, true]);
    expect(isFailure(new VmError('EBUSY', 'ahead'), false)).toBe(false);
  });
});

describe('opening', () => {
  it('comes to one vnode by every path to a file, and recycles rows that nobody has open', () => {
    const rooms = testRooms({ vnodes: 2, vnodeBuckets: 2 });
    const a = scratch.file('a', 100, 1);
    symlinkSync(a, join(scratch.directory, 'link'));
    const vnode = rooms.vnodes.open(a);
    expect(rooms.vnodes.open(join(scratch.directory, 'link'))).toBe(vnode);
    expect(rooms.vnodes.stat(vnode)).toEqual({ vnode, generation: 0, path: a, size: 100, pageSize: 4096 });
    const b = rooms.vnodes.open(scratch.file('b', 100, 2));
    const c = scratch.file('c', 100, 3);
    expect(() => rooms.vnodes.open(c)).toThrow(/ENOMEM: vnodes.open/);
    expect(matches(contents(rooms, b, 0, 100), 2, 0)).toBe(true);
    rooms.vnodes.close(b);
    const next = rooms.vnodes.open(c);
    expect(next).toBe(b);
    expect(matches(contents(rooms, next, 0, 100), 3, 0)).toBe(true);
    expect(problemsOf(rooms)).toEqual([]);
    rooms.vnodes.close(vnode);
    rooms.vnodes.close(vnode);
    expect(() => rooms.vnodes.close(vnode)).toThrow(/ESTALE/);
    endOracle(rooms);
  });

  it('keeps pages for the next open, and stores long paths', () => {
    const rooms = testRooms();
    const deep = join(scratch.directory, ...Array.from({ length: 15 }, (_, i) => `${i}-${'x'.repeat(200)}`));
    execFileSync('mkdir', ['-p', deep]);
    const path = join(deep, 'file');
    writeFileSync(path, pattern(5, 0, 9000));
    const vnode = rooms.vnodes.open(path);
    expect(rooms.vnodes.stat(vnode).path).toBe(path);
    contents(rooms, vnode, 0, 9000);
    rooms.vnodes.close(vnode);
    expect(rooms.frames.counts().page).toBe(3);
    expect(rooms.vnodes.open(path)).toBe(vnode);
    expect(rooms.pages.hold(vnode, 2)).toBeGreaterThanOrEqual(0);
    rooms.pages.release(rooms.pages.hold(vnode, 2));
    rooms.pages.release(rooms.pages.hold(vnode, 2));
    expect(problemsOf(rooms)).toEqual([]);
  });

  it('refuses what is not a regular file, with one clear error', () => {
    const rooms = testRooms();
    expect(() => rooms.vnodes.open(join(scratch.directory, 'none'))).toThrow(/^ENOENT: vnodes.open\(path=/);
    expect(() => rooms.vnodes.open(scratch.directory)).toThrow(/EINVAL.*only regular files/);
    execFileSync('mkfifo', [join(scratch.directory, 'fifo')]);
    expect(() => rooms.vnodes.open(join(scratch.directory, 'fifo'))).toThrow(/EINVAL.*only regular files/);
    expect(() => rooms.vnodes.open('')).toThrow(/EINVAL/);
    expect(() => rooms.vnodes.open('a\0b')).toThrow(/EINVAL/);
    expect(() => rooms.vnodes.open(`/${'a/'.repeat(3000)}`)).toThrow(/EINVAL.*4096/);
    expect(() => rooms.mappings.map(0, 0, 1)).toThrow(/ESTALE/);
    expect(() => rooms.mappings.map(-7, 0, 1)).toThrow(/ESTALE/);
    endOracle(rooms);
  });

  it('keeps a bounded number of descriptors and opens them again', () => {
    const rooms = testRooms({}, {}, 4);
    const before = readdirSync('/proc/self/fd').length;
    const vnodes = Array.from({ length: 20 }, (_, i) => rooms.vnodes.open(scratch.file(`f${i}`, 5000, i)));
    for (let round = 0; round < 3; round++) {
      for (const [i, vnode] of vnodes.entries()) {
        expect(matches(contents(rooms, vnode, 0, 5000), i, 0)).toBe(true);
        rooms.pages.drop(vnode, 2);
      }
    }
    expect(readdirSync('/proc/self/fd').length).toBe(before + 4);
    endOracle(rooms);
    expect(readdirSync('/proc/self/fd').length).toBe(before);
  });

  it('notices that a path names another file by now', () => {
    const rooms = testRooms({}, {}, 1);
    const a = scratch.file('a', 5000, 1);
    const vnode = rooms.vnodes.open(a);
    rooms.vnodes.open(scratch.file('b', 10, 2)); // pushes the descriptor of a out
    renameSync(scratch.file('c', 5000, 3), a);
    expect(() => contents(rooms, vnode, 0, 10)).toThrow(/ESTALE.*another file/);
    expect(rooms.pages.held).toBe(0);
    endOracle(rooms);
  });
});

describe('files that others change', () => {
  it('get a new vnode at the next open, without old pages; the old one goes on', () => {
    const rooms = testRooms();
    const other = moreRooms(rooms);
    const path = scratch.file('a', 6000, 1);
    const old = rooms.vnodes.open(path);
    expect(contents(rooms, old, 4090, 20)).toEqual(pattern(1, 4090, 20));
    writeFileSync(path, pattern(2, 0, 7000));
    const fresh = other.vnodes.open(path);
    expect(fresh).not.toBe(old);
    expect(contents(other, fresh, 0, 7000)).toEqual(pattern(2, 0, 7000));
    expect(contents(rooms, old, 4090, 20)).toEqual(pattern(1, 4090, 20));
    expect(rooms.vnodes.isChanged(old)).toBe(true);
    expect(rooms.vnodes.revalidate(old)).toBe(fresh);
    expect(rooms.vnodes.revalidate(fresh)).toBe(fresh);
    expect(contents(rooms, fresh, 0, 7000)).toEqual(pattern(2, 0, 7000));
    expect(problemsOf(rooms)).toEqual([]);
    other.vnodes.closeAll();
    endOracle(rooms);
  });

  it('that shrank give an error, never old bytes; revalidate shows the new size', () => {
    const rooms = testRooms();
    const path = scratch.file('a', 20000, 1);
    const vnode = rooms.vnodes.open(path);
    contents(rooms, vnode, 0, 10);
    truncateSync(path, 9000);
    expect(() => contents(rooms, vnode, 8192, 4096)).toThrow(/EIO.*ended before its size/);
    expect(() => rooms.mappings.map(vnode, 12288, 10)).toThrow(/EIO/);
    expect(rooms.pages.held).toBe(0);
    expect(rooms.mappings.mappedFrames).toBe(0);
    const next = rooms.vnodes.revalidate(vnode);
    expect(rooms.vnodes.size(next)).toBe(9000);
    expect(contents(rooms, next, 8192, 808)).toEqual(pattern(1, 8192, 808));
    appendFileSync(path, 'more');
    expect(rooms.vnodes.isChanged(next)).toBe(true);
    expect(rooms.vnodes.size(rooms.vnodes.revalidate(next))).toBe(9004);
    endOracle(rooms);
  });
});

describe('reading', () => {
  it('goes on after short reads and reports errors with their cause', () => {
    const rooms = testRooms();
    const path = scratch.file('a', 50_000, 4);
    const vnode = rooms.vnodes.open(path);
    armFault(rooms.region, 'vnode.read.short', 'fail');
    expect(contents(rooms, vnode, 0, 50_000)).toEqual(pattern(4, 0, 50_000));
    expect(disarmFault(rooms.region)).toBe(1);
    rooms.pages.drop(vnode, 100);
    armFault(rooms.region, 'vnode.read.error', 'fail');
    expect(() => contents(rooms, vnode, 0, 50_000)).toThrow(/EIO: vnodes.fill.*injected/);
    armFault(rooms.region, 'vnode.read.short', 'failAlways');
    expect(() => contents(rooms, vnode, 0, 50_000)).toThrow(/ended before its size/);
    disarmFault(rooms.region);
    expect(contents(rooms, vnode, 0, 50_000)).toEqual(pattern(4, 0, 50_000));
    endOracle(rooms);
  });

  it('zeroes what lies behind the end of the file', () => {
    const rooms = testRooms({ frames: 16, bankFrames: 16 });
    rooms.banks.views[0]?.fill(0xa5);
    const vnode = rooms.vnodes.open(scratch.file('a', 4100, 4));
    const mapping = rooms.mappings.map(vnode, 4096, 4);
    const { bank, offset } = mapping.pieces[0] ?? { bank: 0, offset: 0 };
    const page = rooms.mappings.view(bank, offset, 4096);
    expect(page.subarray(0, 4)).toEqual(pattern(4, 4096, 4));
    expect(page.subarray(4).every((byte) => byte === 0)).toBe(true);
    mapping.release();
    endOracle(rooms);
  });
});

describe('recovery', () => {
  it('takes back the opens of a dead slot and undoes an open that it died in', () => {
    const rooms = testRooms({ vnodes: 4 });
    const victim = moreRooms(rooms);
    victim.vnodes.open(scratch.file('a', 10, 1));
    victim.vnodes.open(scratch.file('b', 10, 1));
    expect(rooms.vnodes.dropUnused()).toBe(2);
    undoJournal(rooms.region, victim.thread.slot);
    recoverVnodes(rooms.thread, victim.thread.slot);
    expect(rooms.vnodes.dropUnused()).toBe(0);
    expect(problemsOf(rooms)).toEqual([]);
    victim.vnodes.closeAll();
    endOracle(rooms);
  });
});
