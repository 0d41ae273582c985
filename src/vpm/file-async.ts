/**
 * Files without blocking the thread: promises, streams, iteration.
 *
 * What is in memory is answered at once, on this thread; what is not is brought by the I/O worker first. So a main thread
 * never waits for a disk or a network, and nothing is copied between threads: the worker fills the shared pages.
 */

import { Readable, Writable } from 'node:stream';
import { fail, rejectUnknownOptions, requireInteger, VmError } from '../base/errors.ts';
import { FETCH_PAGES_MAX } from '../page/pages.ts';
import { IO_OPERATION, IO_ROLE, type IoRequests } from '../vnode/io-requests.ts';
import { lookOfAnswer, lookQuestion } from '../vnode/remote-store.ts';
import type { VnodeLook } from '../vnode/vnode-store.ts';
import { bytesOf, newBytes } from './byte-arguments.ts';
import type { File } from './file.ts';

/** Options of asynchronous calls. */
export interface AsyncOptions {
  /** Ends the wait with `ECANCELED`. */
  readonly signal?: AbortSignal | undefined;
}

/** What part of a file a stream or an iteration goes through. */
export interface StreamOptions extends AsyncOptions {
  /** First byte. Default 0. */
  readonly start?: number;
  /** Behind the last byte. Default: the end of the file, wherever it is by then. */
  readonly end?: number;
  /** Bytes of a chunk. Default 64 KiB. */
  readonly chunkBytes?: number;
}

const CHUNK_BYTES = 65_536;

/** Times that pages are brought again because they left before they could be read. */
const ROUNDS_MAX = 64;

/** Where a file is asked for without blocking. */
export interface AsyncRooms {
  readonly io: IoRequests;
  readonly banks: { readonly pageSize: number };
}

/** Brings the pages of a range into memory. */
async function bring(
  rooms: AsyncRooms,
  file: File,
  offset: number,
  length: number,
  signal?: AbortSignal,
): Promise<void> {
  const { pageSize } = rooms.banks;
  const last = Math.floor((offset + length - 1) / pageSize);
  for (let first = Math.floor(offset / pageSize); first <= last; first += FETCH_PAGES_MAX) {
    const count = Math.min(FETCH_PAGES_MAX, last - first + 1);
    const question = { role: IO_ROLE.pages, operation: IO_OPERATION.fetch, vnode: file.vnode, first, count };
    await rooms.io.askAsync(question, signal);
  }
}

/** Reads like `file.read`. Rejects with what a read throws, and `ECANCELED`. */
export async function readAsync(
  rooms: AsyncRooms,
  file: File,
  offset: number,
  length: number,
  options: AsyncOptions = {},
): Promise<Uint8Array> {
  rejectUnknownOptions('file.readAsync', options, ['signal']);
  const { signal } = options;
  throwIfAborted(signal);
  const pieceBytes = FETCH_PAGES_MAX * rooms.banks.pageSize;
  requireInteger('file.readAsync', 'offset', offset, 0, Number.MAX_SAFE_INTEGER);
  requireInteger('file.readAsync', 'length', length, 0, Number.MAX_SAFE_INTEGER);
  const wanted = Math.max(0, Math.min(length, file.size - offset));
  const target = newBytes('file.readAsync', wanted);
  let done = 0;
  while (done < wanted) {
    const piece = await readPiece(rooms, file, offset + done, Math.min(pieceBytes, wanted - done), signal);
    target.set(piece, done);
    done += piece.length;
    if (piece.length === 0) break;
  }
  return done === wanted ? target : target.subarray(0, done);
}

async function readPiece(
  rooms: AsyncRooms,
  file: File,
  offset: number,
  length: number,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const bytes = file.tryRead(offset, length);
    if (bytes !== null) return bytes;
    await bring(rooms, file, offset, length, signal);
  }
  return fail('ENOMEM', 'file.readAsync', { offset, length }, 'pages leave memory before they can be read');
}

/**
 * Writes like `file.write`. Pages that keep some of their bytes are brought first; a page that leaves again at once is
 * read on this thread. Returns the bytes written.
 */
export async function writeAsync(
  rooms: AsyncRooms,
  file: File,
  offset: number,
  data: ArrayBufferView,
  options: AsyncOptions = {},
): Promise<number> {
  rejectUnknownOptions('file.writeAsync', options, ['signal']);
  throwIfAborted(options.signal);
  const bytes = bytesOf('file.writeAsync', 'bytes', data);
  requireInteger('file.writeAsync', 'offset', offset, 0, Number.MAX_SAFE_INTEGER);
  if (!file.isWritable) return file.write(offset, bytes);
  const { pageSize } = rooms.banks;
  const end = offset + bytes.length;
  for (const edge of new Set([offset - (offset % pageSize), end - (end % pageSize)])) {
    const isWhole = edge >= offset && edge + pageSize <= end;
    const isInside = edge < file.size && edge < end;
    if (isWhole || !isInside || file.tryRead(edge, 1) !== null) continue;
    await bring(rooms, file, edge, 1, options.signal);
  }
  return file.write(offset, bytes);
}

/** Syncs like `file.sync`, in the I/O worker. */
export async function syncAsync(
  rooms: AsyncRooms,
  file: File,
  dataOnly: boolean,
  options: AsyncOptions = {},
): Promise<void> {
  rejectUnknownOptions('file.syncAsync', options, ['signal']);
  const count = dataOnly ? 1 : 0;
  const question = { role: IO_ROLE.pages, operation: IO_OPERATION.sync, vnode: file.vnode, first: 0, count };
  await rooms.io.askAsync(question, options.signal);
}

/** What a server says about a resource now; nothing to say without a name. */
export async function lookAsync(
  rooms: AsyncRooms,
  name: string | null,
  options: AsyncOptions = {},
): Promise<VnodeLook | undefined> {
  rejectUnknownOptions('file.revalidateAsync', options, ['signal']);
  throwIfAborted(options.signal);
  return name === null ? undefined : lookOfAnswer(await rooms.io.askAsync(lookQuestion(name), options.signal));
}

/** The bytes of a file, chunk after chunk, up to its end. */
export async function* chunks(rooms: AsyncRooms, file: File, options: StreamOptions = {}): AsyncGenerator<Uint8Array> {
  rejectUnknownOptions('file.chunks', options, ['start', 'end', 'chunkBytes', 'signal']);
  const { start = 0, end = Number.MAX_SAFE_INTEGER, chunkBytes = CHUNK_BYTES, signal } = options;
  requireInteger('file.chunks', 'start', start, 0, Number.MAX_SAFE_INTEGER);
  requireInteger('file.chunks', 'end', end, start, Number.MAX_SAFE_INTEGER);
  requireInteger('file.chunks', 'chunkBytes', chunkBytes, 1, Number.MAX_SAFE_INTEGER);
  for (let offset = start; offset < end; ) {
    const bytes = await readAsync(rooms, file, offset, Math.min(chunkBytes, end - offset), { signal });
    if (bytes.length === 0) return;
    offset += bytes.length;
    yield bytes;
  }
}

/** A stream of a file's bytes. */
export function readable(rooms: AsyncRooms, file: File, options: StreamOptions = {}): Readable {
  return Readable.from(chunks(rooms, file, options), { objectMode: false });
}

/** A stream that writes into a file from `start` on; it ends with a sync, and `finish` comes after that. */
export function writable(rooms: AsyncRooms, file: File, options: { start?: number } & AsyncOptions = {}): Writable {
  rejectUnknownOptions('file.writable', options, ['start', 'signal']);
  let offset = requireInteger('file.writable', 'start', options.start ?? 0, 0, Number.MAX_SAFE_INTEGER);
  const { signal } = options;
  return new Writable({
    ...(signal === undefined ? {} : { signal }),
    write(chunk: Uint8Array, _encoding, callback) {
      writeAll(rooms, file, offset, chunk, signal).then(() => {
        offset += chunk.length;
        callback();
      }, callback);
    },
    final(callback) {
      syncAsync(rooms, file, false, { signal }).then(() => callback(), callback);
    },
  });
}

async function writeAll(
  rooms: AsyncRooms,
  file: File,
  offset: number,
  bytes: Uint8Array,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += await writeAsync(rooms, file, offset + done, bytes.subarray(done), { signal });
  }
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new VmError('ECANCELED', 'the call was aborted', { cause: signal.reason });
}
