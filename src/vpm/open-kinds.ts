/** Opening vnodes that are no files: memory, resources behind HTTP, and users' own. */

import { failMisuse, rejectUnknownOptions, requireInteger } from '../base/errors.ts';
import type { Callbacks } from '../sync/callbacks.ts';
import { pageShiftOf } from '../vnode/open-options.ts';
import type { ProviderOptions, VnodeProvider } from '../vnode/provider.ts';
import { lookOfAnswer, lookQuestion } from '../vnode/remote-store.ts';
import { VNODE_KIND } from '../vnode/vnode-kinds.ts';
import { File, type FileRooms } from './file.ts';

const NO_STAMP = new Int32Array(4);

/** What opening needs beside the rooms of a file. */
export interface KindRooms extends FileRooms {
  readonly callbacks: Callbacks;
}

/** How a memory vnode is opened. */
export interface MemoryOptions {
  /** As for files: see `OpenOptions`. */
  readonly pageSize?: number;
}

/**
 * Opens, or makes, a memory vnode of a name: all threads that open it share its bytes, which begin as nothing and go when
 * nobody has it open any more and its row or frames are needed. Its pages stay in memory while they hold anything.
 */
export function openMemory(rooms: KindRooms, name: string, options: MemoryOptions = {}): File {
  if (typeof name !== 'string' || name === '') failMisuse('openMemory', { name }, 'a name is a text that is not empty');
  rejectUnknownOptions('openMemory', options, ['pageSize']);
  const pageShift = pageShiftOf('openMemory', options.pageSize, rooms.banks.pageSize);
  const facts = { kind: VNODE_KIND.memory, size: 0, stamp: NO_STAMP, detail: 0, joins: true, pageShift };
  return new File(rooms, rooms.vnodes.openNamed(`memory ${name}`, facts, true), true);
}

/**
 * Opens a resource behind HTTP or HTTPS for reading; the thread waits until the I/O worker has looked at it. Its pages are
 * read by ranges of one version: a resource that changes meanwhile is `ESTALE`, and the next open sees the new one.
 */
export function openRemote(rooms: KindRooms, url: string): File {
  const { href } = checkedUrl(url);
  const answer = rooms.io.ask(lookQuestion(href));
  return fileOfAnswer(rooms, href, answer);
}

/** Like `openRemote`, without blocking the thread. */
export async function openRemoteAsync(rooms: KindRooms, url: string, signal?: AbortSignal): Promise<File> {
  const { href } = checkedUrl(url);
  const answer = await rooms.io.askAsync(lookQuestion(href), signal);
  return fileOfAnswer(rooms, href, answer);
}

/** Opens a vnode of a user's own kind. Throws `ENOENT` when its module cannot be loaded, and what the provider throws. */
export function openProvided(rooms: KindRooms, options: ProviderOptions): File {
  rejectUnknownOptions('openProvided', options, ['provider', 'name', 'mode', 'size', 'pageSize']);
  const { provider: reference, name, mode = 'r' } = options;
  if (typeof name !== 'string') failMisuse('openProvided', { name }, 'a name is a text');
  const detail = rooms.callbacks.intern(reference);
  const provider = rooms.callbacks.resolve<VnodeProvider>(detail);
  const size = requireInteger('openProvided', 'size', options.size ?? provider.size(name), 0, Number.MAX_SAFE_INTEGER);
  const writable = mode === 'rw';
  if (writable && provider.putPage === undefined) failMisuse('openProvided', { mode }, 'the provider has no putPage');
  const pageShift = pageShiftOf('openProvided', options.pageSize, rooms.banks.pageSize);
  const facts = { kind: VNODE_KIND.user, size, stamp: NO_STAMP, detail, joins: true, pageShift };
  return new File(rooms, rooms.vnodes.openNamed(`user#${detail} ${name}`, facts, writable), writable);
}

function checkedUrl(url: string): URL {
  const parsed = URL.canParse(url) ? new URL(url) : null;
  if (parsed !== null && /^https?:$/.test(parsed.protocol)) {
    parsed.hash = '';
    return parsed;
  }
  return failMisuse('openRemote', { url }, 'give an address that begins with http: or https:');
}

function fileOfAnswer(rooms: KindRooms, href: string, answer: Int32Array): File {
  const facts = { kind: VNODE_KIND.remote, ...lookOfAnswer(answer), detail: 0, joins: false, pageShift: null };
  return new File(rooms, rooms.vnodes.openNamed(href, facts, false), false);
}
