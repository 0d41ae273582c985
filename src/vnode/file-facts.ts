/** What the file system says about a file: who it is, how large it is, and when it was changed. */

import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { fail, failMisuse, type VmError, type VmErrorCode } from '../base/errors.ts';

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
  const stat = fstatSync(descriptor, { bigint: true });
  if (!stat.isFile()) return null;
  const identity = new Int32Array(4);
  putWords(identity, 0, stat.dev);
  putWords(identity, 2, stat.ino);
  const stamp = new Int32Array(4);
  putWords(stamp, 0, stat.mtimeNs);
  putWords(stamp, 2, stat.ctimeNs);
  return { identity, stamp, size: Number(stat.size) };
}

/** Opens a regular file for reading. Throws `ENOENT`, `EINVAL` when it is not a regular file, `EIO` with the cause. */
export function openForReading(path: string, call: string): OpenedFile {
  let descriptor: number;
  try {
    // Without O_NONBLOCK, opening a pipe would wait for its other end.
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw systemError(cause, call, { path });
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

/** An error of the operating system as a `VmError` with the original as its cause. */
export function systemError(cause: unknown, call: string, values: Record<string, unknown>): VmError {
  const code = systemCode(cause);
  const known: VmErrorCode = code === 'ENOENT' || code === 'ENOTDIR' ? 'ENOENT' : 'EIO';
  try {
    return fail(known, call, values, cause instanceof Error ? cause.message : String(cause));
  } catch (error) {
    (error as VmError).cause = cause;
    return error as VmError;
  }
}

/** The code of an error of the operating system, or an empty text. */
export function systemCode(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : '';
}
