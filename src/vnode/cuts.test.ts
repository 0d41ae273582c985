import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { endOracle, moreRooms, type TestRooms, testRooms } from '../../test/support/rooms.ts';
import { Scratch } from '../../test/support/scratch.ts';
import { armFault, disarmFault } from '../sync/index.ts';
import { File } from '../vpm/file.ts';
import { openFile } from '../vpm/open-file.ts';
import { VNODE_KIND } from './vnode-kinds.ts';
import type { VnodeStore } from './vnode-store.ts';

const PAGE = 4096;
const SIZE = 10 * PAGE + 500;
const filled = (length: number, value: number) => new Uint8Array(length).fill(value);

let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => scratch.remove());

/** A store in private memory, of one vnode; something else may happen while it is asked for a cut. */
class Keeper implements VnodeStore {
  readonly rooms: TestRooms;
  readonly bytes = filled(20 * PAGE, 0);
  readonly #keeps: boolean;
  refuses = false;
  refusesWrites = false;
  meanwhile: () => void = () => undefined;

  constructor(rooms: TestRooms, keeps: boolean) {
    this.rooms = rooms;
    this.#keeps = keeps;
  }

  keepsCut(): boolean {
    return this.#keeps;
  }

  #frame(frame: number): Uint8Array {
    const { banks } = this.rooms;
    const at = banks.offsetOf(frame);
    return (banks.views[banks.bankOf(frame)] as Uint8Array).subarray(at, at + PAGE);
  }

  fill(vnode: number, index: number, frames: Int32Array, at: number, count: number): number {
    const end = this.rooms.vnodes.sizes.cuts.storeEnd(vnode);
    for (let page = 0; page < count; page++) {
      const start = (index + page) * PAGE;
      const to = this.#frame(frames[at + page] as number);
      to.fill(0);
      to.set(this.bytes.subarray(start, Math.max(start, Math.min(start + PAGE, end))));
    }
    return count * PAGE;
  }

  write(vnode: number, index: number, frames: Int32Array, at: number, count: number): void {
    if (this.refusesWrites) throw new Error('not now');
    const below = this.rooms.vnodes.sizes.cuts.storeEnd(vnode);
    const end = this.#keeps ? Math.max(below, this.rooms.region.tables.vnode.sizePeak.get(vnode)) : below;
    for (let page = 0; page < count; page++) {
      const start = (index + page) * PAGE;
      const length = Math.max(0, Math.min(PAGE, end - start));
      this.bytes.set(this.#frame(frames[at + page] as number).subarray(0, length), start);
    }
  }

  sync(): void {}

  truncate(vnode: number, size: number): void {
    this.meanwhile();
    if (this.refuses) throw new Error('it stays');
    const from = this.#keeps ? Math.ceil(size / PAGE) * PAGE : size;
    this.bytes.fill(0, from, Math.max(from, this.rooms.region.tables.vnode.sizePeak.get(vnode)));
  }
}

/** A vnode of `keeper`, of which two threads have it open, with bytes 1 in the store and 2 written behind 3 pages since. */
function keeperFile(keeps: boolean): { rooms: TestRooms; other: TestRooms; keeper: Keeper; file: File } {
  const rooms = testRooms();
  const other = moreRooms(rooms);
  const keeper = new Keeper(rooms, keeps);
  keeper.bytes.fill(1, 0, SIZE);
  const facts = { detail: 0, joins: true, size: SIZE, pageShift: null, stamp: new Int32Array(4) };
  const vnodes = [rooms, other].map((one) => {
    one.vnodes.setStore(VNODE_KIND.user, keeper);
    return one.vnodes.openNamed('the file', { ...facts, kind: VNODE_KIND.user }, true);
  });
  expect(vnodes[0]).toBe(vnodes[1]);
  const file = new File(rooms, vnodes[0] as number, true);
  file.write(3 * PAGE, filled(4 * PAGE, 2));
  return { rooms, other, keeper, file };
}

const EXPECTED = Buffer.concat([filled(3 * PAGE, 1), filled(4 * PAGE, 2), filled(3 * PAGE + 500, 1)]);

describe('a cut that the file system refuses', () => {
  for (const pageSize of [PAGE, 4 * PAGE]) {
    it(`leaves what was written and has not reached the file: pages of ${pageSize} bytes`, () => {
      const rooms = testRooms({ frames: 64, bankFrames: 64 });
      const path = scratch.file('a', 0);
      const file = openFile(rooms, path, { mode: 'rw', pageSize });
      file.write(0, filled(SIZE, 1));
      file.sync();
      file.write(3 * PAGE, filled(4 * PAGE, 2));
      file.append(filled(5000, 3));
      const expected = Buffer.concat([EXPECTED, filled(5000, 3)]);
      const modified = rooms.pages.modifiedOf(file.vnode);
      for (const size of [SIZE + 100, 9 * PAGE, 5 * PAGE + 100, 0]) {
        armFault(rooms.region, 'vnode.truncate.error', 'failAlways');
        expect(() => file.truncate(size)).toThrow(/EIO: file\.truncate.*injected/);
        disarmFault(rooms.region);
        expect(file.size).toBe(expected.length);
        expect(rooms.pages.modifiedOf(file.vnode)).toBe(modified);
        expect(Buffer.compare(file.read(0, SIZE + 9000), expected)).toBe(0);
      }
      file.sync();
      expect(Buffer.compare(readFileSync(path), expected)).toBe(0);
      file.truncate(5 * PAGE + 100);
      file.truncate(SIZE);
      expect(file.read(5 * PAGE + 100, SIZE).every((byte) => byte === 0)).toBe(true);
      file.close();
      endOracle(rooms);
    });
  }
});

describe.each([false, true])('while a store is asked for a cut (keeps what is cut inside a page: %s)', (keeps) => {
  it('pages behind it are neither written nor lost, and those that are brought have its bytes', () => {
    const { rooms, other, keeper, file } = keeperFile(keeps);
    rooms.pages.drop(file.vnode, 20);
    let looks = 0;
    keeper.refuses = true;
    keeper.meanwhile = () => {
      looks++;
      expect(file.size).toBe(4 * PAGE + 7);
      // Page 3 lies before the cut, 4 to 6 in it or behind.
      expect(other.pages.writeOldest(32, other.vnodes)).toBe(1);
      expect(() => other.pages.writeMarked(file.vnode, 4, 3, other.vnodes)).toThrow(/EBUSY.*being cut/);
      // Somebody who saw the old size.
      const lanes = new Int32Array(32);
      expect(other.pages.fetch(file.vnode, 8, 3, lanes, 0, other.vnodes, true)).toBe(3);
      other.pages.releaseSeveral(lanes, 3);
    };
    expect(() => file.truncate(4 * PAGE + 7)).toThrow(/it stays/);
    expect(looks).toBe(1);
    expect(rooms.vnodes.errors.count(file.vnode)).toBe(0);
    expect(rooms.pages.modifiedOf(file.vnode)).toBe(3);
    expect(Buffer.compare(file.read(0, SIZE + 1), EXPECTED)).toBe(0);
    file.sync();
    expect(Buffer.compare(keeper.bytes.subarray(0, SIZE), EXPECTED)).toBe(0);
    file.close();
    other.vnodes.closeAll();
    endOracle(rooms);
  });

  it('nothing of them comes back when it agrees', () => {
    const { rooms, other, keeper, file } = keeperFile(keeps);
    const mapping = other.mappings.map(file.vnode, 6 * PAGE, 10, 'write');
    const lanes = new Int32Array(32);
    keeper.meanwhile = () => {
      other.pages.writeOldest(32, other.vnodes);
      other.pages.fetch(file.vnode, 8, 3, lanes, 0, other.vnodes, true);
      other.pages.releaseSeveral(lanes, 3);
    };
    file.truncate(4 * PAGE + 7);
    keeper.meanwhile = () => undefined;
    expect(mapping.views()[0]?.[0]).toBe(0);
    mapping.release();
    file.sync();
    expect(keeper.bytes.subarray(4 * PAGE + 7).every((byte) => byte === 0)).toBe(true);
    file.truncate(SIZE);
    expect(
      Buffer.compare(
        file.read(0, SIZE),
        Buffer.concat([EXPECTED.subarray(0, 4 * PAGE + 7), filled(6 * PAGE + 493, 0)]),
      ),
    ).toBe(0);
    file.close();
    other.vnodes.closeAll();
    endOracle(rooms);
  });

  it('a store that agrees and takes no bytes has been cut; what it is owed stays modified', () => {
    const { rooms, other, keeper, file } = keeperFile(keeps);
    keeper.refusesWrites = true;
    file.truncate(4 * PAGE + 7);
    expect(file.size).toBe(4 * PAGE + 7);
    expect(() => file.sync()).toThrow(/not now/);
    keeper.refusesWrites = false;
    file.write(SIZE - 1, filled(1, 9));
    file.sync();
    expect(keeper.bytes.subarray(4 * PAGE + 7, SIZE - 1).every((byte) => byte === 0)).toBe(true);
    expect(Buffer.compare(keeper.bytes.subarray(0, 4 * PAGE + 7), EXPECTED.subarray(0, 4 * PAGE + 7))).toBe(0);
    file.close();
    other.vnodes.closeAll();
    endOracle(rooms);
  });
});

describe('a vnode that was cut below pages that others hold', () => {
  it.each([0, 100])('has nothing of what they stored behind its end when it grows again, by cut page %i', (rest) => {
    const { rooms, other, keeper, file } = keeperFile(false);
    const mapping = other.mappings.map(file.vnode, 6 * PAGE, PAGE, 'write');
    file.truncate(PAGE + rest);
    for (const view of mapping.views()) view.fill(9);
    file.truncate(SIZE);
    expect(file.read(PAGE + rest, SIZE).every((byte) => byte === 0)).toBe(true);
    // It is the vnode's again, as is what is stored there from now on.
    for (const view of mapping.views()) view.fill(8);
    expect(file.read(6 * PAGE, PAGE).every((byte) => byte === 8)).toBe(true);
    file.truncate(PAGE);
    for (const view of mapping.views()) view.fill(9);
    mapping.release();
    file.append(filled(7 * PAGE, 5));
    file.sync();
    const expected = Buffer.concat([filled(PAGE, 1), filled(7 * PAGE, 5)]);
    expect(Buffer.compare(keeper.bytes.subarray(0, 8 * PAGE), expected)).toBe(0);
    file.close();
    other.vnodes.closeAll();
    endOracle(rooms);
  });
});

describe('a store that refuses to lengthen a vnode', () => {
  it.each([false, true])('is asked again by nobody who only writes (keeps what is cut inside a page: %s)', (keeps) => {
    const { rooms, other, keeper, file } = keeperFile(keeps);
    keeper.refuses = true;
    expect(() => file.truncate(SIZE + 3 * PAGE)).toThrow(/it stays/);
    expect(file.size).toBe(SIZE);
    file.append(filled(100, 4));
    file.sync();
    expect(file.size).toBe(SIZE + 100);
    expect(Buffer.compare(keeper.bytes.subarray(0, SIZE + 100), Buffer.concat([EXPECTED, filled(100, 4)]))).toBe(0);
    keeper.refuses = false;
    file.truncate(SIZE + 2 * PAGE);
    expect(file.read(SIZE + 100, 2 * PAGE).every((byte) => byte === 0)).toBe(true);
    file.close();
    other.vnodes.closeAll();
    endOracle(rooms);
  });
});
