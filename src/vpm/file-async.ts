/**
 * Files without blocking the thread.
 *
 * PROBLEM     An event loop must not wait for a disk, a network or a lock; the bytes lie in pages that all threads share.
 * STRUCTURE   read, map    1 what is in memory, on this thread   2 else the pages worker brings the pages   3 again from 1;
 *                          pages that leave each time before they are used are brought on this thread: memory is short
 *             write        1 pages that keep some of their bytes are brought   2 above a limit of modified pages the worker
 *                          writes some back   3 the bytes are copied on this thread, if nobody has the lock of the size
 *                          4 else the worker waits for it, and again from 1
 *             sync, truncate, and the writing back of a close: wholly in the worker
 * INVARIANTS  I1 nothing is held across an `await`.
 * LOCKING     Page locks and the lock of the size are only tried here.
 * COSTS       What is in memory: as the synchronous forms, and a promise. Else a round trip, some 20 us for each 32 pages.
 * FAILURE     What the synchronous forms throw, with the call's name and the path; `ECANCELED` after an abort, when a request that was
 *             posted may still be carried out; `EIO` when the worker ends, which the next request starts again; `ENOTSUP`
 *             without services. An array of several may then be partly filled or written.
 * REJECTED    Bytes that go to the worker: they would be copied twice. Asynchronous calls of the file system into frames:
 *             their thread may end before they do.
 * REFERENCES  vnode/io-requests.ts.
 */

import { fail, rejectUnknownOptions, VmError } from '../base/errors.ts';
import { FETCH_PAGES_MAX } from '../page/pages.ts';
import { requireSignal, throwIfAborted } from '../sync/mutex-async.ts';
import { IO_OPERATION, IO_ROLE, type IoRequests, sizeWords } from '../vnode/io-requests.ts';
import { lookOfAnswer } from '../vnode/look-questions.ts';
import type { VnodeLook } from '../vnode/vnode-store.ts';
import type { Vnodes } from '../vnode/vnodes.ts';
import type { AsyncForms } from './file-async-forms.ts';
import type { Mapping } from './mapping.ts';
import { namedError } from './named-errors.ts';
import type { MapAccess, PageMappings } from './page-mappings.ts';

/** Options of asynchronous calls. */
export interface AsyncOptions {
  /** Ends the wait with `ECANCELED`. */
  readonly signal?: AbortSignal | undefined;
}

/** Times that pages are brought again because they left before they could be used, before they are brought on this thread. */
const ROUNDS_MAX = 8;

/** Times that a write tries the lock of the size before it waits for it like a synchronous one. */
const LOCK_ROUNDS_MAX = 16;

/** Where a file is asked for without blocking. */
export interface AsyncRooms {
  readonly io: IoRequests;
  readonly banks: { readonly pageSize: number };
  readonly vnodes: Vnodes;
  readonly mappings: PageMappings;
}

/** What a call is called, what it may use, and what ends it. */
interface Call {
  readonly name: string;
  readonly rooms: AsyncRooms;
  readonly file: AsyncForms;
  readonly signal: AbortSignal | undefined;
}

/** Checks the options of a call and runs it; its errors name it. */
export async function asyncCall<Result>(
  name: string,
  rooms: AsyncRooms,
  file: AsyncForms,
  options: AsyncOptions | undefined,
  action: (call: Call) => Promise<Result>,
): Promise<Result> {
  const signal = signalOf(name, options);
  try {
    return await action({ name, rooms, file, signal });
  } catch (error) {
    throw namedError(name, error, file.place);
  }
}

/** The signal of checked options. Throws `EINVAL`, and `ECANCELED` when it is aborted already. */
export function signalOf(name: string, options: AsyncOptions = {}): AbortSignal | undefined {
  if (typeof options !== 'object' || options === null) fail('EINVAL', name, { options }, 'options are an object');
  rejectUnknownOptions(name, options, ['signal']);
  requireSignal(name, options.signal);
  throwIfAborted(name, options.signal);
  return options.signal;
}

async function ask({ rooms, file, signal }: Call, operation: number, first = 0, count = 0): Promise<void> {
  const { vnode } = file;
  const source = rooms.vnodes.farSource(vnode);
  const role = source === null ? IO_ROLE.pages : IO_ROLE.farPages;
  await rooms.io.askAsync({ role, operation, vnode, first, count, source: source ?? 0 }, signal);
}

/** Brings the pages of a range into memory. */
async function bring(call: Call, offset: number, length: number): Promise<void> {
  const { pageSize } = call.rooms.banks;
  const last = Math.floor((offset + length - 1) / pageSize);
  for (let first = Math.floor(offset / pageSize); first <= last; first += FETCH_PAGES_MAX) {
    await ask(call, IO_OPERATION.fetch, first, Math.min(FETCH_PAGES_MAX, last - first + 1));
  }
}

/** Reads until the target is full or the file ends; returns the bytes read. */
export async function readInto(call: Call, offset: number, target: Uint8Array): Promise<number> {
  const { file, rooms } = call;
  const { banks, mappings } = rooms;
  const pieceBytes = FETCH_PAGES_MAX * banks.pageSize;
  let rounds = 0;
  for (let done = 0; ; ) {
    const at = offset + done;
    const wanted = Math.min(pieceBytes, target.length - done, file.size - at);
    if (wanted <= 0) return done;
    const got = mappings.tryCopyUpTo(file.vnode, at, wanted, target, done);
    done += got;
    if (got > 0) rounds = 0;
    else if (rounds++ < ROUNDS_MAX) await bring(call, at, wanted);
    else done += mappings.copyUpTo(file.vnode, at, Math.min(wanted, banks.pageSize), target, done);
  }
}

/** Makes ready for a write: brings what it keeps, and has pages written back when too many are modified. */
async function prepare(call: Call, offset: number, length: number): Promise<void> {
  const { vnodes, mappings } = call.rooms;
  const pageBytes = vnodes.pageSizeOf(call.file.vnode);
  const end = offset + length;
  for (const edge of new Set([offset - (offset % pageBytes), end - (end % pageBytes)])) {
    const isWhole = edge >= offset && edge + pageBytes <= end;
    const isInside = edge < call.file.size && edge < end;
    if (isWhole || !isInside || call.file.tryRead(edge, 1) !== null) continue;
    await bring(call, edge, 1);
  }
  if (mappings.writes.behind.isOver(call.file.vnode)) await ask(call, IO_OPERATION.writeBehind);
}

/** Writes at an offset; returns the bytes written. */
export async function writeFrom(call: Call, offset: number, bytes: Uint8Array): Promise<number> {
  const { writes } = call.rooms.mappings;
  const source = { bytes, at: 0 };
  for (let round = 0; round < LOCK_ROUNDS_MAX; round++) {
    await prepare(call, offset, bytes.length);
    const done = writes.tryWrite(call.file.vnode, offset, bytes.length, source);
    if (done >= 0) return done;
    await ask(call, IO_OPERATION.settle);
  }
  return writes.write(call.file.vnode, offset, bytes.length, source);
}

/** Appends; returns the offset. */
export async function appendFrom(call: Call, bytes: Uint8Array): Promise<number> {
  const { writes } = call.rooms.mappings;
  const source = { bytes, at: 0 };
  const written = new Float64Array(1);
  for (let round = 0; round < LOCK_ROUNDS_MAX; round++) {
    await prepare(call, call.file.size, bytes.length);
    const offset = writes.tryAppend(call.file.vnode, bytes.length, source, written);
    if (offset >= 0) return offset;
    await ask(call, IO_OPERATION.settle);
  }
  return writes.append(call.file.vnode, bytes.length, source, written);
}

/** Maps a range when all of its pages are in memory. */
export async function mapWhenThere(call: Call, offset: number, length: number, access: MapAccess): Promise<Mapping> {
  const { mappings } = call.rooms;
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const mapping = mappings.tryMap(call.file.vnode, offset, length, access);
    if (mapping !== null) return mapping;
    await bring(call, offset, length);
  }
  return mappings.map(call.file.vnode, offset, length, access);
}

/** Syncs in the I/O worker. */
export function syncThere(call: Call, dataOnly: boolean): Promise<void> {
  return ask(call, IO_OPERATION.sync, 0, dataOnly ? 1 : 0);
}

/** Cuts or lengthens in the I/O worker. */
export function truncateThere(call: Call, size: number): Promise<void> {
  const { first, count } = sizeWords(size);
  return ask(call, IO_OPERATION.truncate, first, count);
}

/**
 * Writes back what is modified, in the I/O worker. Rejects only when nobody has tried or the wait was ended: what the store
 * says is noted for every opener.
 */
export async function flushThere(call: Call): Promise<void> {
  try {
    await ask(call, IO_OPERATION.flush);
  } catch (error) {
    const code = error instanceof VmError ? error.code : '';
    if (code === 'ECANCELED' || code === 'ENOTSUP' || code === 'EWOULDBLOCK') throw error;
  }
}

/** What a server or a user's provider says about a vnode now; undefined when nobody need be asked. */
export async function lookThere({ rooms, file, signal }: Call): Promise<VnodeLook | undefined> {
  const question = rooms.vnodes.lookQuestion(file.vnode);
  return question === null ? undefined : lookOfAnswer(await rooms.io.askAsync(question, signal));
}
