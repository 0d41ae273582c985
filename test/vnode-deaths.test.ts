/**
 * A thread ends at every single step of every operation that changes a file: what it was about has happened, or not, or as
 * far as a prefix of it; bytes that were cut never come back; what others wrote stays; nothing stays locked.
 */

import { describe, expect, it } from 'vitest';
import { recoverPages } from '../src/page/index.ts';
import type { Banks } from '../src/phys/index.ts';
import type { Thread } from '../src/sync/index.ts';
import { recoverVnodes, VNODE_KIND, type VnodeStore } from '../src/vnode/index.ts';
import { File } from '../src/vpm/index.ts';
import { dieAtEveryStep } from './support/deaths.ts';
import { attachRooms, endOracle, moreRooms, problemsOf, type TestRooms, testRooms } from './support/rooms.ts';

const PAGE = 4096;
const SIZE = 3 * PAGE + 1000;
const DISK_BYTES = 20 * PAGE;

/** What the file holds at first, what the operation writes, what frames and disk held before. */
const OLD = 1;
const NEW = 2;
const JUNK = 0xa5;

/** A file system with one file, in memory that a death stops with everything else. */
class Disk implements VnodeStore {
  readonly bytes = new Uint8Array(DISK_BYTES);
  readonly length = new Float64Array(1);
  readonly #sizeOf: (vnode: number) => number;
  readonly #banks: Banks;
  /** Truncations fail. */
  isBroken = false;

  constructor(banks: Banks, sizeOf: (vnode: number) => number) {
    this.#banks = banks;
    this.#sizeOf = sizeOf;
  }

  fill(vnode: number, index: number, frames: Int32Array, at: number, count: number): number {
    const end = Math.min(this.#sizeOf(vnode), this.length[0] as number);
    this.#eachPage(index, frames, at, count, (page, position) => {
      const got = Math.max(0, Math.min(PAGE, end - position));
      page.set(this.bytes.subarray(position, position + got));
      page.fill(0, got);
    });
    return count * PAGE;
  }

  write(vnode: number, index: number, frames: Int32Array, at: number, count: number): void {
    this.#eachPage(index, frames, at, count, (page, position) => {
      const length = Math.max(0, Math.min(PAGE, this.#sizeOf(vnode) - position));
      if (length === 0) return;
      this.bytes.fill(0, Math.min(this.length[0] as number, position), position);
      this.bytes.set(page.subarray(0, length), position);
      this.length[0] = Math.max(this.length[0] as number, position + length);
    });
  }

  sync(vnode: number): void {
    if ((this.length[0] as number) < this.#sizeOf(vnode)) this.truncate(vnode, this.#sizeOf(vnode));
  }

  truncate(_vnode: number, size: number): void {
    if (this.isBroken) throw new Error('the disk is broken');
    const before = this.length[0] as number;
    // What a file system has cut may come back when the file gets longer again, unless it is told to forget it.
    if (size > before) this.bytes.fill(0, before, size);
    this.length[0] = size;
  }

  #eachPage(
    index: number,
    frames: Int32Array,
    at: number,
    count: number,
    action: (page: Uint8Array, position: number) => void,
  ): void {
    for (let page = 0; page < count; page++) {
      const frame = frames[at + page] as number;
      const offset = this.#banks.offsetOf(frame);
      const bytes = this.#banks.views[this.#banks.bankOf(frame)] as Uint8Array;
      action(bytes.subarray(offset, offset + PAGE), (index + page) * PAGE);
    }
  }
}

const bytesOf = (value: number, length: number) => new Uint8Array(length).fill(value);

/** What each operation does, the sizes that may be left, and where it may have put new bytes. */
const OPERATIONS: readonly {
  readonly name: string;
  readonly run: (file: File) => void;
  readonly sizes: (size: number) => boolean;
  readonly written: readonly [number, number];
  readonly isBroken?: boolean;
  /** Bytes that were written before, and are not on the disk: as long as the file has its size, they are there. */
  readonly acknowledged?: readonly [number, number];
}[] = [
  {
    name: 'a write inside the file',
    run: (file) => void file.write(PAGE - 10, bytesOf(NEW, PAGE + 20)),
    sizes: (size) => size === SIZE,
    written: [PAGE - 10, 2 * PAGE + 10],
  },
  {
    name: 'a write over the end',
    run: (file) => void file.write(SIZE - 500, bytesOf(NEW, 2 * PAGE + 77)),
    // Piece after piece, at the ends of pages.
    sizes: (size) => size === SIZE || size === SIZE - 500 + 2 * PAGE + 77 || size % PAGE === 0,
    written: [SIZE - 500, SIZE - 500 + 2 * PAGE + 77],
  },
  {
    name: 'a write far behind the end',
    run: (file) => void file.write(SIZE + 2 * PAGE, bytesOf(NEW, 300)),
    sizes: (size) => size === SIZE || size === SIZE + 2 * PAGE + 300,
    written: [SIZE + 2 * PAGE, SIZE + 2 * PAGE + 300],
  },
  {
    name: 'an append of whole pages',
    run: (file) => void file.append(bytesOf(NEW, 2 * PAGE)),
    sizes: (size) => size >= SIZE && (size === SIZE || size === SIZE + 2 * PAGE || size % PAGE === 0),
    written: [SIZE, SIZE + 2 * PAGE],
  },
  {
    name: 'a cut inside a page',
    run: (file) => file.truncate(PAGE + 100),
    sizes: (size) => size === SIZE || size === PAGE + 100,
    written: [0, 0],
  },
  {
    name: 'a cut to nothing',
    run: (file) => file.truncate(0),
    sizes: (size) => size === SIZE || size === 0,
    written: [0, 0],
  },
  {
    name: 'a cut that the disk refuses',
    run: (file) => expect(() => file.truncate(PAGE + 100)).toThrow(/broken/),
    sizes: (size) => size === SIZE || size === PAGE + 100,
    written: [0, 0],
    isBroken: true,
  },
  {
    name: 'a cut that the disk refuses, of bytes that it has not got',
    run: (file) => expect(() => file.truncate(PAGE + 100)).toThrow(/broken/),
    sizes: (size) => size === SIZE || size === PAGE + 100,
    written: [PAGE - 10, SIZE - 5],
    isBroken: true,
    acknowledged: [PAGE - 10, SIZE - 5],
  },
  {
    name: 'a file made longer',
    run: (file) => file.truncate(SIZE + 3 * PAGE),
    sizes: (size) => size === SIZE || size === SIZE + 3 * PAGE,
    written: [0, 0],
  },
  {
    name: 'a write, a cut through it, and a write behind that',
    run: (file) => {
      file.append(bytesOf(NEW, PAGE));
      file.truncate(SIZE + 10);
      file.write(SIZE + PAGE, bytesOf(NEW, 10));
    },
    sizes: (size) => size >= SIZE && size <= SIZE + PAGE + 10,
    written: [SIZE, SIZE + PAGE + 10],
  },
  {
    name: 'a sync after writes',
    run: (file) => {
      file.write(SIZE, bytesOf(NEW, 50));
      file.sync();
    },
    sizes: (size) => size === SIZE || size === SIZE + 50,
    written: [SIZE, SIZE + 50],
  },
  {
    name: 'a mapping that is written to and a close',
    run: (file) => {
      const mapping = file.map(100, 2 * PAGE, 'write');
      for (const view of mapping.views()) view.fill(NEW);
      mapping.release();
      file.close();
    },
    sizes: (size) => size === SIZE,
    written: [100, 100 + 2 * PAGE],
  },
];

/** The file as one thread opens it. */
function openOn(rooms: TestRooms, disk: VnodeStore): File {
  rooms.vnodes.setStore(VNODE_KIND.user, disk);
  const facts = {
    kind: VNODE_KIND.user,
    detail: 0,
    joins: true,
    size: SIZE,
    pageShift: null,
    stamp: new Int32Array(4),
  };
  return new File(rooms, rooms.vnodes.openNamed('the file', facts, true), true);
}

/** Throws unless the bytes are what the operation may have left. */
function requireSound(bytes: Uint8Array, [from, end]: readonly [number, number], step: number): void {
  for (let at = 0; at < bytes.length; at++) {
    const old = at < SIZE ? OLD : 0;
    const found = bytes[at];
    if (found !== old && !(found === NEW && at >= from && at < end))
      throw new Error(`step ${step}: byte ${at} of ${bytes.length} is ${found}`);
  }
}

describe.each(OPERATIONS)(
  'a thread that ends during $name',
  ({ run, sizes, written, isBroken = false, acknowledged }) => {
    it('leaves old bytes or new ones at any step, and the file to others', () => {
      const rooms = testRooms({
        frames: 16,
        bankFrames: 16,
        tags: 256,
        tagBuckets: 256,
        slots: 4,
        vnodes: 4,
        anons: 16,
      });
      const { region, thread, banks } = rooms;
      for (const view of banks.views) view.fill(JUNK);
      const dying = moreRooms(rooms);
      const disk = new Disk(banks, (vnode) => region.tables.vnode.size.get(vnode));
      disk.bytes.fill(JUNK);
      const file = openOn(rooms, disk);
      file.truncate(0);
      file.write(0, bytesOf(OLD, SIZE));
      file.sync();
      // Some pages are modified, one is not in memory.
      file.write(PAGE, bytesOf(OLD, 10));
      file.write(SIZE - 10, bytesOf(OLD, 10));
      rooms.pages.drop(file.vnode, 4);
      if (acknowledged !== undefined) file.write(acknowledged[0], bytesOf(NEW, acknowledged[1] - acknowledged[0]));
      const steps = dieAtEveryStep({
        region,
        self: thread,
        victim: dying.thread,
        recoverers: [recoverPages, recoverVnodes, (_self: Thread, dead) => rooms.frames.recover(dead)],
        beside: [...banks.views, disk.bytes, new Uint8Array(disk.length.buffer)],
        operation: () => {
          disk.isBroken = isBroken;
          run(openOn(attachRooms(region, dying.thread, banks), disk));
          disk.isBroken = false;
        },
        verify: (step) => {
          disk.isBroken = false;
          const problems = problemsOf(rooms);
          if (problems.length > 0) throw new Error(`step ${step}: ${problems.join('; ')}`);
          const { size } = file;
          if (!sizes(size)) throw new Error(`step ${step}: size ${size}`);
          const found = file.read(0, size + 1);
          expect(found.length).toBe(size);
          requireSound(found, written, step);
          if (
            acknowledged !== undefined &&
            size === SIZE &&
            found.subarray(...acknowledged).some((byte) => byte !== NEW)
          )
            throw new Error(`step ${step}: bytes were lost`);
          // Others go on: what lies behind the end is nothing but zeros.
          file.truncate(size + 2 * PAGE);
          const longer = file.read(0, size + 3 * PAGE);
          expect(longer.length).toBe(size + 2 * PAGE);
          const rest = longer.subarray(size);
          if (rest.some((byte) => byte !== 0)) throw new Error(`step ${step}: bytes behind ${size} have come back`);
          if (Buffer.compare(longer.subarray(0, size), found) !== 0)
            throw new Error(`step ${step}: bytes have changed`);
          file.sync();
          if (disk.length[0] !== file.size) throw new Error(`step ${step}: the disk has ${disk.length[0]} bytes`);
          if (Buffer.compare(disk.bytes.subarray(0, file.size), longer) !== 0)
            throw new Error(`step ${step}: the disk differs`);
        },
      });
      console.log(`${steps} steps`);
      expect(steps).toBeGreaterThan(15);
      file.close();
      endOracle(rooms);
    });
  },
);
