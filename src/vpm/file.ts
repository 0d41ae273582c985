/** Files as users see them: bytes by offset, through the shared page cache. */

import { fail, requireInteger } from '../base/errors.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import type { VnodeStat, Vnodes } from '../vnode/vnodes.ts';
import type { Mapping } from './mapping.ts';
import type { PageMappings } from './page-mappings.ts';

/** The rooms that a file needs. */
export interface FileRooms {
  readonly vnodes: Vnodes;
  readonly mappings: PageMappings;
}

/**
 * An open file of one thread. All threads that open the same file share its pages. The file is seen as it was when it was
 * opened, as far as its pages are in memory; `revalidate` looks whether somebody else has changed it since.
 */
export class File {
  readonly #rooms: FileRooms;
  #vnode: VnodeIndex;
  #closed = false;

  /** For `openFile`. */
  constructor(rooms: FileRooms, vnode: VnodeIndex) {
    this.#rooms = rooms;
    this.#vnode = vnode;
  }

  /** Number of the vnode, for the calls of `vm.mappings`. */
  get vnode(): VnodeIndex {
    this.#requireOpen('file.vnode');
    return this.#vnode;
  }

  /** Bytes in the file when it was opened or revalidated. */
  get size(): number {
    this.#requireOpen('file.size');
    return this.#rooms.vnodes.size(this.#vnode);
  }

  /** Reads up to `length` bytes from `offset` into a new array: shorter, or empty, where the file ends. */
  read(offset: number, length: number): Uint8Array;
  /** Reads from `offset` until the target is full or the file ends; returns the bytes read. */
  read(offset: number, target: Uint8Array): number;
  read(offset: number, into: number | Uint8Array): Uint8Array | number {
    const wanted = typeof into === 'number' ? into : into.length;
    const length = this.#clip('file.read', offset, wanted);
    const target = typeof into === 'number' ? new Uint8Array(length) : into;
    if (length > 0) this.#rooms.mappings.copyOut(this.#vnode, offset, length, target);
    return typeof into === 'number' ? target : length;
  }

  /** Reads like `read`, to a physical address in the banks, for example of an arena; returns the bytes read. */
  readTo(offset: number, address: number, maxBytes: number): number {
    const length = this.#clip('file.readTo', offset, maxBytes);
    if (length > 0) this.#rooms.mappings.copyOut(this.#vnode, offset, length, address);
    return length;
  }

  /** Reads like `read`, but only what is in memory: null when a page is missing. Never waits. */
  tryRead(offset: number, length: number): Uint8Array | null {
    const bytes = this.#clip('file.tryRead', offset, length);
    const target = new Uint8Array(bytes);
    return bytes === 0 || this.#rooms.mappings.tryCopyOut(this.#vnode, offset, bytes, target) ? target : null;
  }

  /** Maps a range of at most 32 pages; see `PageMappings.map`. */
  map(offset: number, length: number): Mapping {
    this.#requireOpen('file.map');
    return this.#rooms.mappings.map(this.#vnode, offset, length);
  }

  /** Path, size, and what another thread needs to retain the same vnode. */
  stat(): VnodeStat {
    this.#requireOpen('file.stat');
    return this.#rooms.vnodes.stat(this.#vnode);
  }

  /** True when the file has been changed by somebody else since it was opened or revalidated. */
  isChanged(): boolean {
    this.#requireOpen('file.isChanged');
    return this.#rooms.vnodes.isChanged(this.#vnode);
  }

  /** Looks at the file again; true when it was changed, and this object now sees its new contents. */
  revalidate(): boolean {
    this.#requireOpen('file.revalidate');
    const before = this.#vnode;
    this.#vnode = this.#rooms.vnodes.revalidate(before);
    return this.#vnode !== before;
  }

  /** Closes the file; mappings that live keep their pages. Closing twice does nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#rooms.vnodes.close(this.#vnode);
  }

  /** Same as `close`. */
  [Symbol.dispose](): void {
    this.close();
  }

  #clip(call: string, offset: number, length: number): number {
    this.#requireOpen(call);
    requireInteger(call, 'offset', offset, 0, Number.MAX_SAFE_INTEGER);
    requireInteger(call, 'length', length, 0, Number.MAX_SAFE_INTEGER);
    return Math.max(0, Math.min(length, this.#rooms.vnodes.size(this.#vnode) - offset));
  }

  #requireOpen(call: string): void {
    if (this.#closed) fail('ESTALE', call, {}, 'the file was closed');
  }
}

/** Opens a regular file for reading. Throws `ENOENT`, `EINVAL` when it is not a regular file, `EIO`, `ENOMEM`. */
export function openFile(rooms: FileRooms, path: string): File {
  return new File(rooms, rooms.vnodes.open(path));
}
