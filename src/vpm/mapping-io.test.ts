import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { endOracle, testRooms } from '../../test/support/rooms.ts';
import { matches, pattern, Scratch } from '../../test/support/scratch.ts';
import { bankCopy } from '../phys/bank-copy.ts';
import { joinPieces, sendMapped, writeMapped } from './mapping-io.ts';
import { openFile } from './open-file.ts';

let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => scratch.remove());

describe('mapped pages', () => {
  it('are joined where they lie side by side in one bank', () => {
    const piece = (bank: number, offset: number, length = 4096) => ({ bank, offset, length });
    expect(joinPieces([piece(0, 100, 3996), piece(0, 4096), piece(1, 8192), piece(1, 0), piece(1, 4096, 5)])).toEqual([
      piece(0, 100, 8092),
      piece(1, 8192),
      piece(1, 0, 4101),
    ]);
    expect(joinPieces([])).toEqual([]);
  });

  it('go to a file without a copy, and are released after the callback', async () => {
    const rooms = testRooms({ frames: 64, bankFrames: 16 });
    const file = openFile(rooms, scratch.file('a', 100_000, 5));
    const path = join(scratch.directory, 'out');
    const descriptor = openSync(path, 'w');
    const mapping = file.map(1000, 90_000);
    const writing = writeMapped(descriptor, mapping, 10);
    expect(rooms.pages.held).toBe(23);
    expect(await writing).toBe(90_000);
    expect(rooms.pages.held).toBe(0);
    closeSync(descriptor);
    expect(matches(readFileSync(path).subarray(10), 5, 1000)).toBe(true);
    await expect(writeMapped(descriptor, file.map(0, 5000), null)).rejects.toThrow(/EBADF/);
    expect(rooms.pages.held).toBe(0);
    file.close();
    endOracle(rooms);
  });

  it('go through a socket without a copy, and are released when they have left', async () => {
    const rooms = testRooms({ frames: 64, bankFrames: 64 });
    const file = openFile(rooms, scratch.file('a', 120_000, 6));
    const received: Buffer[] = [];
    const server = createServer((socket) => socket.on('data', (data) => received.push(data)));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    const socket = connect(port, '127.0.0.1');
    await once(socket, 'connect');
    const sending = sendMapped(socket, file.map(500, 100_000));
    expect(rooms.pages.held).toBe(25);
    await sending;
    expect(rooms.pages.held).toBe(0);
    const closed = once(server, 'close');
    socket.end();
    server.close();
    await closed;
    expect(Buffer.concat(received).equals(pattern(6, 500, 100_000))).toBe(true);
    socket.destroy();
    await expect(sendMapped(socket, file.map(0, 10))).rejects.toThrow();
    expect(rooms.pages.held).toBe(0);
    file.close();
    endOracle(rooms);
  });

  it('are read by a WebAssembly module that imports their bank', () => {
    const rooms = testRooms({ frames: 64, bankFrames: 64 });
    const file = openFile(rooms, scratch.file('a', 50_000, 7));
    const target = rooms.frames.takeRun(8);
    rooms.frames.settle();
    const mapping = file.map(100, 20_000);
    let at = rooms.banks.offsetOf(target);
    for (const { bank, offset, length } of joinPieces(mapping.pieces)) {
      const memory = rooms.banks.memories[bank] as WebAssembly.Memory;
      bankCopy(memory, new Uint8Array(0))(at, offset, length);
      at += length;
    }
    mapping.release();
    expect(matches(rooms.banks.view(target * 4096, 20_000), 7, 100)).toBe(true);
    rooms.frames.giveRun(target, 8);
    file.close();
    endOracle(rooms);
  });
});
