import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { endOracle, testRooms } from '../../test/support/rooms.ts';
import { Scratch } from '../../test/support/scratch.ts';
import { openFile } from './open-file.ts';

let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => scratch.remove());

const RW = { mode: 'rw' } as const;

describe('bytes that are given to files', () => {
  it('are refused unless they are bytes, with nothing held and nothing written', async () => {
    const rooms = testRooms();
    const file = openFile(rooms, scratch.file('a', 8192, 3), RW);
    const before = file.read(0, 8192);
    const { read, readv, tryRead, write, writev, append, writeAsync } = file as unknown as Record<
      string,
      (this: unknown, ...values: unknown[]) => unknown
    >;
    const wrong: readonly (readonly [string, string, unknown[], RegExp])[] = [
      ['write', 'a list', [4096, [1, 2, 3, 4]], /EINVAL: file\.write\(bytes=\[1,2,3,4\]\): bytes must be/],
      ['write', 'a text', [0, 'hello'], /EINVAL: file\.write\(bytes="hello"\)/],
      ['write', 'nothing', [0], /EINVAL: file\.write\(bytes=undefined\)/],
      ['write', 'a buffer without a view', [0, new ArrayBuffer(8)], /EINVAL: file\.write/],
      ['append', 'a text', ['abc'], /EINVAL: file\.append\(bytes="abc"\)/],
      ['writev', 'a text among bytes', [0, [Uint8Array.of(9), 'x']], /EINVAL: file\.writev\(pieces\[1\]="x"\)/],
      ['writev', 'no list', [0, 7], /EINVAL: file\.writev\(pieces=7\)/],
      ['read', 'a list', [0, [1, 2, 3]], /EINVAL: file\.read\(target=\[1,2,3\]\)/],
      ['readv', 'a list in a list', [0, [[1]]], /EINVAL: file\.readv\(targets\[0\]=\[1\]\)/],
      ['tryRead', 'an array', [0, new Uint8Array(4)], /EINVAL: file\.tryRead\(length=/],
    ];
    const calls: Record<string, ((this: unknown, ...values: unknown[]) => unknown) | undefined> = {
      read,
      readv,
      tryRead,
      write,
      writev,
      append,
    };
    for (const [name, what, values, message] of wrong) {
      expect(() => calls[name]?.apply(file, values), `${name} with ${what}`).toThrow(message);
      expect(rooms.pages.holds.pages, `${name} with ${what}`).toBe(0);
    }
    await expect(writeAsync?.call(file, 0, 'hello')).rejects.toThrow(/EINVAL: file\.writeAsync\(bytes="hello"\)/);
    const list = [1, 2, 3] as unknown as Uint8Array;
    expect(() => rooms.mappings.copyOut(file.vnode, 0, 3, list)).toThrow(/EINVAL: copyOut\(target/);
    expect(() => rooms.mappings.tryCopyUpTo(file.vnode, 0, 3, list)).toThrow(/EINVAL: tryCopyUpTo\(target/);
    expect(rooms.pages.holds.pages).toBe(0);
    expect(file.read(0, 9000)).toEqual(before);
    file.close();
    endOracle(rooms);
  });

  it('are taken by their bytes, whatever their elements are', async () => {
    const rooms = testRooms();
    const file = openFile(rooms, scratch.file('a', 0), RW);
    const words = Uint32Array.of(0x01020304, 0x05060708);
    const bytes = new Uint8Array(words.buffer);
    const behind = new Float64Array([1, 2, 3]).subarray(1);
    expect(file.write(0, words)).toBe(8);
    expect(file.read(0, 100)).toEqual(bytes);
    expect(file.append(new DataView(words.buffer, 2, 5))).toBe(8);
    expect(file.read(8, 100)).toEqual(bytes.subarray(2, 7));
    expect(file.writev(4000, [words, behind])).toBe(24);
    const [first, second] = [new Uint32Array(2), new Float64Array(2)];
    expect(file.readv(4000, [first, second])).toBe(24);
    expect([[...first], [...second]]).toEqual([[...words], [2, 3]]);
    expect(file.read(0, first.fill(0))).toBe(8);
    expect(first).toEqual(words);
    expect(await file.writeAsync(0, behind)).toBe(16);
    expect(file.read(0, 16)).toEqual(new Uint8Array(behind.buffer, 8, 16));
    file.close();
    endOracle(rooms);
  });

  it('may be more than there can be in one array, or go to names that are none: errors say so', () => {
    const rooms = testRooms();
    const path = scratch.file('a', 10);
    const file = openFile(rooms, path, RW);
    expect(() => file.truncate(-1)).toThrow(/EINVAL: file\.truncate\(size=-1\): size must be/);
    expect(() => file.truncate(2 ** 52)).toThrow(/EINVAL: file\.truncate\(size=/);
    expect(() => openFile(rooms, '', { block: path })).toThrow(/EINVAL.*name of a block vnode/);
    file.truncate(2 ** 42);
    expect(() => file.read(0, 2 ** 42)).toThrow(/ENOMEM: file\.read\(length=/);
    expect(() => file.tryRead(0, 2 ** 42)).toThrow(/ENOMEM: file\.tryRead\(length=/);
    expect(file.read(0, 10).length).toBe(10);
    file.truncate(10);
    file.close();
    endOracle(rooms);
  });
});
