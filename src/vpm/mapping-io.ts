/**
 * Mapped pages as the source of writes, without a copy.
 *
 * PROBLEM     Give pages of a file to a descriptor, a socket or a WebAssembly module as they lie in memory; they must stay
 *             there until whoever reads them has finished, which with asynchronous calls is after the call has returned.
 * STRUCTURE   map -> views or (bank, offset, length) -> the call -> its callback -> release
 *
 *               joinPieces      adjacent pages as one piece, for modules that import a bank
 *               writeMapped     fs.writev, repeated until all bytes are taken
 *               sendMapped      a stream, such as a socket: its callback comes when the bytes have left
 *
 * INVARIANTS  I1 the mapping is released once: after the last callback, whether it brings an error or not.
 * LOCKING     The shared page locks of the mapping.
 * COSTS       A view for each run of adjacent pages.
 * FAILURE     Rejects with the error of the call; the mapping is released then too.
 * REJECTED    Releasing when the call returns: the pages could be evicted while the kernel or a thread of libuv reads them.
 * REFERENCES  Linux sendfile and MSG_ZEROCOPY, whose completion is what the callback is here.
 */

import { writev } from 'node:fs';
import type { Writable } from 'node:stream';
import type { MappedPiece, Mapping } from './mapping.ts';

/** The pieces of a mapping, those that lie side by side in one bank joined. */
export function joinPieces(pieces: readonly MappedPiece[]): MappedPiece[] {
  const joined: MappedPiece[] = [];
  for (const piece of pieces) {
    const last = joined[joined.length - 1];
    if (last !== undefined && last.bank === piece.bank && last.offset + last.length === piece.offset) {
      joined[joined.length - 1] = { ...last, length: last.length + piece.length };
    } else {
      joined.push(piece);
    }
  }
  return joined;
}

/**
 * Writes a mapping to a descriptor, at a position or where it stands with null, and releases it. Resolves to the bytes that
 * were written, which are all of them.
 */
export async function writeMapped(descriptor: number, mapping: Mapping, position: number | null): Promise<number> {
  try {
    let rest: Uint8Array[] = mapping.joinedViews();
    let done = 0;
    while (rest.length > 0) {
      const taken = await writeOnce(descriptor, rest, position === null ? null : position + done);
      done += taken;
      rest = behind(rest, taken);
    }
    return done;
  } finally {
    mapping.release();
  }
}

/** Writes a mapping to a stream and releases it when the stream has let go of the bytes. */
export async function sendMapped(stream: Writable, mapping: Mapping): Promise<void> {
  const views = mapping.joinedViews();
  const writes = views.map(
    (view) =>
      new Promise<void>((resolve, reject) => {
        stream.write(view, (error) => (error ? reject(error) : resolve()));
      }),
  );
  // Every callback must have come before the pages may go, also when one of them brings an error.
  const results = await Promise.allSettled(writes);
  mapping.release();
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

function writeOnce(descriptor: number, views: Uint8Array[], position: number | null): Promise<number> {
  return new Promise((resolve, reject) => {
    writev(descriptor, views, position, (error, taken) => (error ? reject(error) : resolve(taken)));
  });
}

function behind(views: readonly Uint8Array[], taken: number): Uint8Array[] {
  const rest: Uint8Array[] = [];
  let skip = taken;
  for (const view of views) {
    if (skip < view.length) rest.push(view.subarray(skip));
    skip = Math.max(0, skip - view.length);
  }
  return rest;
}
