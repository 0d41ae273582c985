/** Files as streams and iterations: chunk after chunk, without blocking the thread. */

import { Readable, Writable } from 'node:stream';
import { failMisuse, rejectUnknownOptions, requireInteger } from '../base/errors.ts';
import { requireSignal } from '../sync/mutex-async.ts';
import type { AsyncOptions } from './file-async.ts';
import type { AsyncForms } from './file-async-forms.ts';

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

/** The bytes of a file, chunk after chunk, up to its end. Throws `EINVAL`, which names the call, at once. */
export function chunks(
  file: AsyncForms,
  options: StreamOptions = {},
  call = 'file.chunks',
): AsyncGenerator<Uint8Array> {
  requireOptions(call, options, ['start', 'end', 'chunkBytes', 'signal']);
  const { start = 0, end = Number.MAX_SAFE_INTEGER, chunkBytes = CHUNK_BYTES, signal } = options;
  requireInteger(call, 'start', start, 0, Number.MAX_SAFE_INTEGER);
  requireInteger(call, 'end', end, start, Number.MAX_SAFE_INTEGER);
  requireInteger(call, 'chunkBytes', chunkBytes, 1, Number.MAX_SAFE_INTEGER);
  requireSignal(call, signal);
  return generate(file, start, end, chunkBytes, signal);
}

async function* generate(
  file: AsyncForms,
  start: number,
  end: number,
  chunkBytes: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  for (let offset = start; offset < end; ) {
    const bytes = await file.readAsync(offset, Math.min(chunkBytes, end - offset), { signal });
    if (bytes.length === 0) return;
    offset += bytes.length;
    yield bytes;
  }
}

/** A stream of a file's bytes. */
export function readable(file: AsyncForms, options: StreamOptions = {}): Readable {
  return Readable.from(chunks(file, options, 'file.readable'), { objectMode: false });
}

/** A stream that writes into a file from `start` on; it ends with a sync, and `finish` comes after that. */
export function writable(file: AsyncForms, options: { start?: number } & AsyncOptions = {}): Writable {
  requireOptions('file.writable', options, ['start', 'signal']);
  let offset = requireInteger('file.writable', 'start', options.start ?? 0, 0, Number.MAX_SAFE_INTEGER);
  const { signal } = options;
  requireSignal('file.writable', signal);
  return new Writable({
    ...(signal === undefined ? {} : { signal }),
    write(chunk: Uint8Array, _encoding, callback) {
      writeAll(file, offset, chunk, signal).then(() => {
        offset += chunk.length;
        callback();
      }, callback);
    },
    final(callback) {
      file.syncAsync({ signal }).then(() => callback(), callback);
    },
  });
}

function requireOptions(call: string, options: object, known: readonly string[]): void {
  if (typeof options !== 'object' || options === null) failMisuse(call, { options }, 'options are an object');
  rejectUnknownOptions(call, options, known);
}

async function writeAll(
  file: AsyncForms,
  offset: number,
  bytes: Uint8Array,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += await file.writeAsync(offset + done, bytes.subarray(done), { signal });
  }
}
