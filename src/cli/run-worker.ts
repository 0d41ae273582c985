/**
 * A worker of `run`: reads pieces of files in both ways and compares them.
 *
 * Each piece is read with plain fs into a private buffer, and through the shared page cache into a buffer from an
 * arena in the same memory. Which comes first alternates, so that neither profits more from the system's own cache. Only the reading
 * is timed. On a mismatch the file is looked at again, because a file that changed meanwhile is no mismatch.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { crc32 } from 'node:zlib';
import { attach, type VirtualMemory } from '../system/index.ts';
import type { Arena } from '../vmem/index.ts';
import type { File } from '../vpm/index.ts';
import { PlainFiles } from './plain-files.ts';
import {
  BUFFER_ARENA,
  type Piece,
  type ReadReport,
  type Reply,
  type Request,
  type RunWorkerData,
  type Trouble,
} from './run-messages.ts';
import { firstLine } from './usage.ts';

const OPEN_MAX = 64;

/** Stands for the checksum of a piece that the file is too short for. */
const SHORT = -1;

/** Files of the page cache that this worker keeps open; the oldest is closed for a new one. */
class CachedFiles {
  readonly #vm: VirtualMemory;
  readonly #open = new Map<string, File>();

  constructor(vm: VirtualMemory) {
    this.#vm = vm;
  }

  open(path: string): File {
    const known = this.#open.get(path);
    if (known !== undefined) return known;
    if (this.#open.size >= OPEN_MAX) {
      const [oldest, file] = this.#open.entries().next().value as [string, File];
      this.#open.delete(oldest);
      file.close();
    }
    const file = this.#vm.open(path);
    this.#open.set(path, file);
    return file;
  }

  close(): void {
    for (const file of this.#open.values()) file.close();
    this.#open.clear();
  }
}

/** Reads and compares pieces. */
class Comparer {
  readonly #vm: VirtualMemory;
  readonly #plain = new PlainFiles(OPEN_MAX);
  readonly #cached: CachedFiles;
  readonly #buffers: Arena;
  readonly #private: Uint8Array;
  #fsMs = 0;
  #cacheMs = 0;
  #bufferMs = 0;

  constructor(vm: VirtualMemory, pieceBytes: number) {
    this.#vm = vm;
    this.#buffers = vm.arena(BUFFER_ARENA);
    this.#private = new Uint8Array(pieceBytes);
    this.#cached = new CachedFiles(vm);
  }

  /** Does one request. */
  read(pieces: readonly Piece[], fsFirst: boolean): ReadReport {
    this.#fsMs = 0;
    this.#cacheMs = 0;
    this.#bufferMs = 0;
    const troubles: Trouble[] = [];
    let bytes = 0;
    pieces.forEach((piece, index) => {
      const trouble = this.#compare(piece, (index & 1) === (fsFirst ? 0 : 1));
      if (trouble === null) bytes += piece.length;
      else troubles.push(trouble);
    });
    const times = { cacheMs: this.#cacheMs, fsMs: this.#fsMs, bufferMs: this.#bufferMs };
    return { kind: 'read', bytes, pieces: pieces.length, ...times, troubles };
  }

  close(): void {
    this.#plain.close();
    this.#cached.close();
  }

  #compare(piece: Piece, fsFirst: boolean): Trouble | null {
    try {
      const first = fsFirst ? this.#readPlain(piece) : this.#readCached(piece);
      const second = fsFirst ? this.#readCached(piece) : this.#readPlain(piece);
      if (first === second && first !== SHORT) return null;
      return this.#explain(piece, fsFirst ? first : second, 'mismatch', 'its checksums differ');
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      const missing = code === 'EACCES' || code === 'EPERM' || code === 'ENOENT';
      return this.#explain(piece, null, missing ? 'unreadable' : 'error', firstLine(error));
    }
  }

  /** Checksum of a piece read with plain fs; `SHORT` when the file ends before it. */
  #readPlain(piece: Piece): number {
    const start = performance.now();
    const target = this.#private.subarray(0, piece.length);
    const got = this.#plain.read(piece.path, piece.offset, target);
    this.#fsMs += performance.now() - start;
    return got === piece.length ? crc32(target) : SHORT;
  }

  /** Checksum of a piece read through the page cache into a buffer from the shared arena. */
  #readCached(piece: Piece): number {
    const asked = performance.now();
    const size = Math.max(1, piece.length);
    const address = this.#buffers.alloc(size);
    const start = performance.now();
    this.#bufferMs += start - asked;
    try {
      const got = this.#cached.open(piece.path).readTo(piece.offset, address, piece.length);
      this.#cacheMs += performance.now() - start;
      return got === piece.length ? crc32(this.#vm.banks.view(address, piece.length)) : SHORT;
    } finally {
      const done = performance.now();
      this.#buffers.free(address, size);
      this.#bufferMs += performance.now() - done;
    }
  }

  /** A trouble, after a look at whether the file is still the one that was listed. */
  #explain(piece: Piece, fsChecksum: number | null, kind: Trouble['kind'], text: string): Trouble {
    const { file, path, offset, length } = piece;
    const changed: Trouble = { file, offset, length, kind: 'changed', text: 'its size or time changed' };
    try {
      const now = this.#plain.facts(path);
      if (now.size !== piece.size || now.modified !== piece.modified) return changed;
      // Its time may be behind its content, for example while it is written through a mapping.
      if (fsChecksum !== null && this.#readPlain(piece) !== fsChecksum) return changed;
    } catch {
      if (kind !== 'unreadable') return changed; // it went away
    }
    return { file, offset, length, kind, text };
  }
}

if (parentPort !== null) {
  const port = parentPort;
  const data = workerData as RunWorkerData & { vm: unknown };
  const vm = attach(data.vm);
  const comparer = new Comparer(vm, data.pieceBytes);
  const reply = (message: Reply) => port.postMessage(message);
  port.on('message', (request: Request) => {
    if (request.kind === 'read') {
      reply(comparer.read(request.pieces, request.fsFirst));
    } else if (request.kind === 'check') {
      if (request.last) comparer.close();
      reply({ kind: 'check', results: vm.check() });
    } else {
      comparer.close();
      const { contended, slept } = vm.region.tables.slot;
      reply({ kind: 'left', contended: contended.get(vm.slot), slept: slept.get(vm.slot) });
      vm.detach();
      port.close();
    }
  });
  reply({ kind: 'ready' });
}
