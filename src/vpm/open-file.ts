/** Opening regular files, by their path or as block vnodes. */

import { failMisuse } from '../base/errors.ts';
import type { OpenOptions } from '../vnode/open-options.ts';
import { File, type FileRooms } from './file.ts';
import { type AsyncOptions, signalOf } from './file-async.ts';
import { namedError } from './named-errors.ts';

/** Opens a regular file. Throws `ENOENT`, `EEXIST`, `EACCES`, `EINVAL` when it is not a regular file, `EIO`, `ENOMEM`. */
export function openFile(rooms: FileRooms, path: string, options: OpenOptions = {}): File {
  requireOptions('open', options);
  const { block: common, ...rest } = options;
  try {
    requireName(path, common);
    return fileOf(rooms, rooms.vnodes.open(common ?? path, rest), path, options);
  } catch (error) {
    throw namedError('open', error, { path });
  }
}

/**
 * Like `openFile`, without waiting for the file system; with `truncate` the I/O worker cuts the file when it is open. Throws
 * the same, and `ECANCELED`, when nothing is open.
 */
export async function openFileAsync(
  rooms: FileRooms,
  path: string,
  options: OpenOptions & AsyncOptions = {},
): Promise<File> {
  requireOptions('openAsync', options);
  const { signal, ...plain } = options;
  const { block: common, truncate = false, ...rest } = plain;
  signalOf('openAsync', { signal });
  try {
    requireName(path, common);
    const vnode = await rooms.vnodes.openAsync(common ?? path, rest, truncate, signal);
    const file = fileOf(rooms, vnode, path, plain);
    if (truncate) await cut(file, signal);
    return file;
  } catch (error) {
    throw namedError('openAsync', error, { path });
  }
}

function requireOptions(call: string, options: unknown): void {
  if (typeof options !== 'object' || options === null) failMisuse(call, { options }, 'options are an object');
}

async function cut(file: File, signal: AbortSignal | undefined): Promise<void> {
  try {
    await file.truncateAsync(0, { signal });
  } catch (error) {
    file.close();
    throw error;
  }
}

function requireName(path: string, common: string | undefined): void {
  if (common !== undefined && (typeof path !== 'string' || path === '')) {
    failMisuse('vnodes.open', { path, block: common }, 'the name of a block vnode is a text that is not empty');
  }
}

/** The file of a vnode that was opened for it. */
function fileOf(rooms: FileRooms, vnode: number, path: string, { block, mode }: OpenOptions): File {
  const writable = mode === 'rw';
  const file = new File(rooms, vnode, writable);
  if (block === undefined) return file;
  try {
    file.useBlock(path, rooms.vnodes.openBlock(path, vnode, writable));
  } catch (error) {
    file.close();
    throw error;
  }
  return file;
}
