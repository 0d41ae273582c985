/** What the file system says about a file: who it is, how large it is, and when it was changed. */

import { type BigIntStats, close, closeSync, constants, fstat, fstatSync, open, openSync } from 'node:fs';
import { promisify } from 'node:util';
import { failMisuse, showCall, VmError, type VmErrorCode } from '../base/errors.ts';

/** Facts about an open regular file. */
export interface FileFacts {
  /** Device and inode: low and high words of each. */
  readonly identity: Int32Array;
  /** Times of modification and of change in nanoseconds: low and high words of each. */
  readonly stamp: Int32Array;
  readonly size: number;
}

/** An open regular file. */
export interface OpenedFile extends FileFacts {
  readonly descriptor: number;
}

function putWords(words: Int32Array, lane: number, value: bigint): void {
  words[lane] = Number(BigInt.asIntN(32, value));
  words[lane + 1] = Number(BigInt.asIntN(32, value >> 32n));
}

/** Facts about the file behind a descriptor, or null when it is not a regular file. */
export function factsOf(descriptor: number): FileFacts | null {
  return factsOfStat(fstatSync(descriptor, { bigint: true }));
}

function factsOfStat(stat: BigIntStats): FileFacts | null {
  if (!stat.isFile()) return null;
  const identity = new Int32Array(4);
  putWords(identity, 0, stat.dev);
  putWords(identity, 2, stat.ino);
  const stamp = new Int32Array(4);
  putWords(stamp, 0, stat.mtimeNs);
  putWords(stamp, 2, stat.ctimeNs);
  return { identity, stamp, size: Number(stat.size) };
}

/** How a file is opened: flags of `open`, and the permissions of a file that it makes. */
export interface OpenFlags {
  readonly flags: number;
  readonly permissions: number;
}

/** Only reading. */
export const READ_ONLY: OpenFlags = { flags: constants.O_RDONLY, permissions: 0 };

/** Reading and writing a file that exists. */
export const READ_WRITE: OpenFlags = { flags: constants.O_RDWR, permissions: 0 };

/**
 * Opens a regular file. Throws `ENOENT`, `EEXIST`, `EACCES`, `ENOSPC`, `EINVAL` when it is not a regular file, `EIO` with
 * the cause.
 */
export function openRegular(path: string, { flags, permissions }: OpenFlags, call: string): OpenedFile {
  let descriptor: number;
  try {
    // Without O_NONBLOCK, opening a pipe would wait for its other end.
    descriptor = openSync(path, flags | constants.O_NONBLOCK, permissions);
  } catch (cause) {
    return failOpen(cause, path, call);
  }
  try {
    const facts = factsOf(descriptor);
    if (facts === null) failMisuse(call, { path }, 'only regular files can be opened');
    return { descriptor, ...facts };
  } catch (error) {
    closeSync(descriptor);
    throw error;
  }
}

const openLater = promisify(open);
const closeLater = promisify(close);

/** Like `openRegular`, in a thread of the runtime's pool. Throws the same, and `ECANCELED` after an abort. */
export async function openRegularAsync(
  path: string,
  { flags, permissions }: OpenFlags,
  call: string,
  signal?: AbortSignal,
): Promise<OpenedFile> {
  let descriptor: number;
  try {
    descriptor = await openLater(path, flags | constants.O_NONBLOCK, permissions);
  } catch (cause) {
    return failOpen(cause, path, call);
  }
  try {
    const stat = await new Promise<BigIntStats>((resolve, reject) => {
      fstat(descriptor, { bigint: true }, (error, facts) => (error ? reject(error) : resolve(facts)));
    });
    const facts = factsOfStat(stat);
    if (facts === null) failMisuse(call, { path }, 'only regular files can be opened');
    if (signal?.aborted) throw new VmError('ECANCELED', `${call}: the call was aborted`, { cause: signal.reason });
    return { descriptor, ...facts };
  } catch (error) {
    await closeLater(descriptor);
    throw error;
  }
}

function failOpen(cause: unknown, path: string, call: string): never {
  if (systemCode(cause) === 'EISDIR') failMisuse(call, { path }, 'only regular files can be opened');
  throw systemError(cause, call, { path });
}

/** Codes of the operating system that programs can tell apart; the others are `EIO`. */
const KNOWN_CODES: Readonly<Record<string, VmErrorCode>> = {
  ENOENT: 'ENOENT',
  ENOTDIR: 'ENOENT',
  EEXIST: 'EEXIST',
  ENOSPC: 'ENOSPC',
  EDQUOT: 'ENOSPC',
  EFBIG: 'ENOSPC',
  EACCES: 'EACCES',
  EPERM: 'EACCES',
  EROFS: 'EACCES',
};

/** The code that an error of the operating system, or one made like it, has here. */
export function knownCode(error: unknown): VmErrorCode {
  return KNOWN_CODES[systemCode(error)] ?? 'EIO';
}

/** An error of the operating system as a `VmError` with the original as its cause. */
export function systemError(cause: unknown, call: string, values: Record<string, unknown>): VmError {
  const known = knownCode(cause);
  const text = cause instanceof Error ? cause.message : String(cause);
  return new VmError(known, `${showCall(call, values)}: ${text}`, { cause });
}

/** The code of an error of the operating system, or an empty text. */
export function systemCode(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : '';
}
