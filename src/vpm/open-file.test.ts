import { existsSync, readFileSync, statSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { endOracle, moreRooms, testRooms } from '../../test/support/rooms.ts';
import { matches, Scratch } from '../../test/support/scratch.ts';
import { armFault, disarmFault } from '../sync/index.ts';
import { recoverVnodes } from '../vnode/index.ts';
import { CachedMappings } from './cached-mappings.ts';
import { createMappingCache, MAPPING_STATE } from './mapping-options.ts';
import { openFile } from './open-file.ts';

let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => scratch.remove());

describe('block vnodes', () => {
  it('share the pages of the file that they stand for, under any number of names', () => {
    const rooms = testRooms();
    const other = moreRooms(rooms);
    const path = scratch.file('disk', 50_000, 3);
    const plain = openFile(rooms, path);
    const first = openFile(rooms, 'disk0', { block: path, mode: 'rw' });
    const second = openFile(other, 'disk0a', { block: path });
    expect([first.vnode, second.vnode]).toEqual([plain.vnode, plain.vnode]);
    expect(first.block).not.toBe(second.block);
    expect(plain.block).toBe(-1);
    expect(first.stat()).toMatchObject({ path: 'disk0', size: 50_000 });
    expect(rooms.vnodes.commonOf(first.block)).toBe(plain.vnode);
    expect(rooms.vnodes.commonOf(plain.vnode)).toBe(plain.vnode);
    expect(existsSync('disk0')).toBe(false);
    first.write(10_000, Uint8Array.of(1, 2, 3));
    expect(second.tryRead(10_000, 3)).toEqual(Uint8Array.of(1, 2, 3));
    expect(() => second.write(0, Uint8Array.of(1))).toThrow(/EACCES.*path="disk0a"/);
    const again = openFile(other, 'disk0', { block: path });
    expect(again.block).toBe(first.block);
    for (const file of [plain, first, second, again]) file.close();
    expect(readFileSync(path).subarray(10_000, 10_003)).toEqual(Buffer.of(1, 2, 3));
    other.vnodes.closeAll();
    endOracle(rooms);
  });

  it('belong to one file as long as somebody has them open, also when that thread has ended', () => {
    const rooms = testRooms();
    const victim = moreRooms(rooms);
    const [a, b] = [scratch.file('a', 5000, 1), scratch.file('b', 5000, 2)];
    openFile(victim, 'disk', { block: a });
    expect(() => openFile(rooms, 'disk', { block: b })).toThrow(/EINVAL.*name="disk".*another file/);
    expect(rooms.vnodes.isChanged(rooms.vnodes.open(b))).toBe(false);
    rooms.vnodes.closeAll();
    recoverVnodes(rooms.thread, victim.thread.slot);
    const file = openFile(rooms, 'disk', { block: b });
    expect(matches(file.read(0, 5000), 2, 0)).toBe(true);
    scratch.file('b', 7000, 4);
    expect(file.revalidate()).toBe(true);
    expect(matches(file.read(0, 7000), 4, 0)).toBe(true);
    expect(rooms.vnodes.commonOf(file.block)).toBe(file.vnode);
    file.close();
    victim.vnodes.closeAll();
    endOracle(rooms);
  });

  it('are what cached mappings replace by the common vnode, as the source does', () => {
    const first = testRooms({ mappingLists: 2, mappingEntries: 16, mappingFrames: 256 });
    createMappingCache(first.region, MAPPING_STATE.cached);
    const cached = new CachedMappings(first.thread, first.banks, first.frames, first.pages.holds, first.vnodes);
    const path = scratch.file('disk', 50_000, 3);
    const writer = openFile(first, 'disk0', { block: path, mode: 'rw' });
    const reader = openFile(first, 'disk1', { block: path });
    const mapping = cached.map(writer.block, 4096, 4096, { access: 'write' });
    const [frame] = mapping.frames;
    mapping.release('write');
    const same = cached.map(reader.block, 4096, 4096);
    expect(same.frames[0]).toBe(frame);
    same.release();
    expect(first.pages.modifiedOf(writer.vnode)).toBe(1);
    expect(first.pages.retire(writer.vnode, 0, 10)).toBe(0);
    const large = openFile(first, scratch.file('large', 50_000, 3), { pageSize: 8192 });
    expect(() => cached.map(large.vnode, 0, 4096)).toThrow(/ENOTSUP.*pages of one frame/);
    writer.close();
    expect(() => cached.map(reader.vnode, 0, 4096, { access: 'write' })).toThrow(/EACCES.*mode 'rw'/);
    expect(first.pages.modifiedOf(reader.vnode)).toBe(0);
    reader.close();
    expect(() => cached.map(60, 0, 4096)).toThrow(/ESTALE/);
  });
});

describe('a full disk', () => {
  it('shows when pages are written back; what was written stays in memory and can be tried again', () => {
    const rooms = testRooms();
    const path = scratch.file('a', 0);
    const file = openFile(rooms, path, { mode: 'rw' });
    armFault(rooms.region, 'vnode.write.full', 'failAlways');
    expect(file.write(0, new Uint8Array(10_000).fill(7))).toBe(10_000);
    expect(() => file.sync()).toThrow(/ENOSPC/);
    expect(file.read(9_999, 1)).toEqual(Uint8Array.of(7));
    disarmFault(rooms.region);
    file.sync();
    expect(readFileSync(path).length).toBe(10_000);
    file.close();
    endOracle(rooms);
  });

  it('shows at the extension with allocate, and nothing is changed then', () => {
    const rooms = testRooms();
    const path = scratch.file('a', 5000, 3);
    expect(() => openFile(rooms, path, { allocate: true })).toThrow(/EINVAL.*allocate needs mode 'rw'/);
    const file = openFile(rooms, path, { mode: 'rw', allocate: true });
    armFault(rooms.region, 'vnode.write.full', 'failAlways');
    expect(() => file.write(4000, new Uint8Array(10_000).fill(7))).toThrow(/ENOSPC/);
    expect(() => file.append(Uint8Array.of(7))).toThrow(/ENOSPC/);
    expect(() => file.truncate(3_000_000)).toThrow(/ENOSPC/);
    expect(file.size).toBe(5000);
    expect(statSync(path).size).toBe(5000);
    // Inside the file nothing has to be found room for.
    expect(file.write(1000, Uint8Array.of(8))).toBe(1);
    disarmFault(rooms.region);
    expect(file.write(4000, new Uint8Array(10_000).fill(7))).toBe(10_000);
    expect(statSync(path).size).toBe(14_000);
    file.truncate(3_000_000);
    expect(statSync(path).blocks * 512).toBeGreaterThanOrEqual(3_000_000);
    expect(file.read(14_000, 100)).toEqual(new Uint8Array(100));
    file.truncate(6000);
    file.sync();
    const bytes = readFileSync(path);
    expect([bytes.length, bytes[1000], bytes[4000], bytes[5999]]).toEqual([6000, 8, 7, 7]);
    expect(matches(bytes.subarray(1001, 4000), 3, 1001)).toBe(true);
    file.close();
    endOracle(rooms);
  });
});
