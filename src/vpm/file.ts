/**
 * Files as users see them: bytes by offset, through the shared page cache.
 *
 * What others may do to the file. All threads of the system that open a file share its pages and its size: a write, a cut or
 * an extension by one is seen by all at once, and nobody needs to do anything for it. Changes by somebody else, another
 * process or plain `fs`, are looked for when a file is opened and when `revalidate` is called, never in between:
 *
 * - nobody of us has it open for writing: pages in memory stay as they were when they were read; others show the new bytes.
 *   `isChanged` tells, `revalidate` turns to the new contents, and mappings keep the old pages. A page that the file has
 *   no bytes for any more cannot be read: `EIO` until `revalidate`.
 * - somebody of us has it open for writing: a change is not noticed. Pages that we modified replace what was written
 *   meanwhile; `revalidate` writes them back, forgets the others, but for mapped and pinned ones, and takes the size of the file.
 *
 * A resource behind HTTP has a version, its entity tag or time of modification. When that changes, pages in memory stay as they
 * were, and those that are not in memory cannot be read any more: `ESTALE`, never a mixture. `revalidate`, or on a thread that
 * must not wait `revalidateAsync`, asks the server and turns to the version that it has now. A user's own vnode
 * has a version if its provider says one (`VnodeProvider.look`), and is treated as a file then; else it changes only through us.
 */

import { fail, requireInteger } from '../base/errors.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import type { Banks } from '../phys/banks.ts';
import type { VnodeStat } from '../vnode/vnode-kinds.ts';
import type { VnodeLook } from '../vnode/vnode-store.ts';
import { PAGES_MAX } from '../vnode/vnodes.ts';
import { bytesOf, bytesOfAll, newBytes } from './byte-arguments.ts';
import { type AsyncOptions, type AsyncRooms, flushThere, lookThere, signalOf, syncThere } from './file-async.ts';
import { AsyncForms } from './file-async-forms.ts';
import type { Mapping } from './mapping.ts';
import { namedError, type Place } from './named-errors.ts';
import type { MapAccess } from './page-mappings.ts';
import type { WriteSource } from './page-writes.ts';
import { ReadPattern } from './read-pattern.ts';

/** The rooms that a file needs. */
export interface FileRooms extends AsyncRooms {
  readonly banks: Banks;
}

/** An open file of one thread. All threads that open the same file share its pages. */
export class File extends AsyncForms {
  readonly #rooms: FileRooms;
  readonly #writable: boolean;
  readonly #written = new Float64Array(1);
  #pattern: ReadPattern;
  #vnode: VnodeIndex;
  #errorsSeen: number;
  #closed = false;
  /** The block vnode by which the file was opened, -1 for none. */
  #block = -1;
  #blockName = '';

  /** For `openFile`: takes over one open of the vnode. */
  constructor(rooms: FileRooms, vnode: VnodeIndex, writable: boolean) {
    super();
    this.#rooms = rooms;
    this.#vnode = vnode;
    this.#writable = writable;
    this.#errorsSeen = rooms.vnodes.errors.count(vnode);
    this.#pattern = this.#newPattern();
  }

  get place(): Place {
    try {
      return { path: this.stat().path };
    } catch {
      return {};
    }
  }

  protected get rooms(): AsyncRooms {
    return this.#rooms;
  }

  /** For `openFile`: says by which block vnode the file was opened. */
  useBlock(name: string, block: VnodeIndex): void {
    this.#blockName = name;
    this.#block = block;
  }

  /** Number of the block vnode by which the file was opened, for `vm.cachedMappings`; -1 for none. */
  get block(): VnodeIndex {
    this.#requireOpen('file.block');
    return this.#block;
  }

  /** Number of the vnode, for the calls of `vm.mappings`. */
  get vnode(): VnodeIndex {
    this.#requireOpen('file.vnode');
    return this.#vnode;
  }

  /** Bytes in the file now, as all threads of the system see it. */
  get size(): number {
    this.#requireOpen('file.size');
    return this.#rooms.vnodes.size(this.#vnode);
  }

  /** True when it was opened for writing. */
  get isWritable(): boolean {
    return this.#writable;
  }

  /** Reads up to `length` bytes from `offset` into a new array: shorter, or empty, where the file ends. */
  read(offset: number, length: number): Uint8Array;
  /** Reads from `offset` until the bytes of the target are full or the file ends; returns the bytes read. */
  read(offset: number, target: ArrayBufferView): number;
  read(offset: number, into: number | ArrayBufferView): Uint8Array | number {
    if (typeof into !== 'number') {
      const bytes = bytesOf('file.read', 'target', into);
      this.#requireRange('file.read', offset, bytes.length);
      return this.#readUpTo('file.read', offset, bytes.length, bytes);
    }
    const target = newBytes('file.read', this.clip('file.read', offset, into));
    const length = this.#readUpTo('file.read', offset, target.length, target);
    return length === target.length ? target : target.subarray(0, length);
  }

  /** Reads one array after another until all are full or the file ends; returns the bytes read. */
  readv(offset: number, targets: readonly ArrayBufferView[]): number {
    let done = 0;
    this.#requireRange('file.readv', offset, 0);
    for (const target of bytesOfAll('file.readv', 'targets', targets)) {
      const got = this.#readUpTo('file.readv', offset + done, target.length, target);
      done += got;
      if (got < target.length) break;
    }
    return done;
  }

  /** Reads like `read`, to a physical address in the banks, for example of an arena; returns the bytes read. */
  readTo(offset: number, address: number, maxBytes: number): number {
    this.#requireRange('file.readTo', offset, maxBytes);
    return this.#readUpTo('file.readTo', offset, maxBytes, address);
  }

  /** Reads like `read`, but only what is in memory: null when a page is missing. Never waits. */
  tryRead(offset: number, length: number): Uint8Array | null {
    const target = newBytes('file.tryRead', this.clip('file.tryRead', offset, length));
    const got = this.#rooms.mappings.tryCopyUpTo(this.#vnode, offset, target.length, target);
    if (got === target.length) return target;
    // Others may have cut the file meanwhile.
    return offset + got < this.size ? null : target.subarray(0, got);
  }

  /**
   * Writes bytes at an offset, behind the end too: what lies between reads as zeros. All threads see them at once; they are
   * in the file after the next `sync`. Returns the bytes written: fewer than given when an error came after some were
   * written, which the next call then throws. Throws `EACCES` when the file is open for reading, `ENOMEM`, `EIO`.
   */
  write(offset: number, data: ArrayBufferView): number {
    const bytes = bytesOf('file.write', 'bytes', data);
    this.#requireWrite('file.write', offset, bytes.length);
    return this.#write('file.write', offset, bytes.length, { bytes, at: 0 });
  }

  /** Writes one array after another; returns the bytes written. */
  writev(offset: number, pieces: readonly ArrayBufferView[]): number {
    let done = 0;
    this.#requireWrite('file.writev', offset, 0);
    for (const piece of bytesOfAll('file.writev', 'pieces', pieces)) {
      this.#requireWrite('file.writev', offset + done, piece.length);
      const took = this.#write('file.writev', offset + done, piece.length, { bytes: piece, at: 0 });
      done += took;
      if (took < piece.length) break;
    }
    return done;
  }

  /** Writes like `write`, from a physical address in the banks. */
  writeFrom(offset: number, address: number, length: number): number {
    this.#requireWrite('file.writeFrom', offset, length);
    const { banks } = this.#rooms;
    banks.view(address, length);
    const bytes = banks.views[banks.bankOfAddress(address)] as Uint8Array;
    return this.#write('file.writeFrom', offset, length, { bytes, at: banks.offsetOfAddress(address) });
  }

  /**
   * Writes behind the end, wherever that is by then: appends of several threads never overlap. Returns the offset. When an
   * error came after some bytes were written, the size tells how many.
   */
  append(data: ArrayBufferView): number {
    const bytes = bytesOf('file.append', 'bytes', data);
    this.#requireWrite('file.append', 0, bytes.length);
    return this.#named('file.append', () =>
      this.#rooms.mappings.writes.append(this.#vnode, bytes.length, { bytes, at: 0 }, this.#written),
    );
  }

  /**
   * Cuts the file, or lengthens it with zeros. Pages of the range that was cut read as zeros in mappings that live. Throws
   * `EACCES` when the file is open for reading, `EIO`, `ENOSPC`.
   */
  truncate(size: number): void {
    this.requireSize('file.truncate', size);
    this.#named('file.truncate', () => this.#rooms.vnodes.sizes.truncate(this.#vnode, size));
  }

  /**
   * Returns when everything that was written before, by whichever thread, is durable: written back, then `fsync`. Throws what
   * went wrong, also when writing back failed earlier in whichever thread since this opener last looked; the pages then
   * stay modified, and the next sync tries again.
   */
  sync(): void {
    this.#sync('file.sync', false);
  }

  /** Like `sync`, without times and the like: `fdatasync`. */
  datasync(): void {
    this.#sync('file.datasync', true);
  }

  /**
   * Everything that was written before, by whichever thread, is durable before anything that is written after this call
   * reaches the file: the order that a log or a copy-on-write tree needs. It does what `datasync` does.
   */
  barrier(): void {
    this.#sync('file.barrier', true);
  }

  /**
   * Gives up what was written and has not reached the file: each modified page that has bytes of the range is forgotten. For
   * stores that refuse for good. Returns how many bytes these pages hold; those that are mapped, or being written back,
   * stay. So does the size. This opener counts earlier failures as seen. Throws `EACCES`, `ENOTSUP` for memory.
   */
  discard(offset = 0, length: number = Number.MAX_SAFE_INTEGER - offset): number {
    this.#requireWrite('file.discard', offset, length);
    const { vnodes, banks } = this.#rooms;
    const { vnode } = this;
    if (vnodes.isMemory(vnode)) fail('ENOTSUP', 'file.discard', this.place, 'a memory vnode has only its pages');
    const pageBytes = vnodes.pageSizeOf(vnode);
    const first = (offset - (offset % pageBytes)) / banks.pageSize;
    const end = (offset + length) / banks.pageSize;
    const given = length === 0 ? [] : vnodes.sizes.discard(vnode, first, end);
    this.#errorsSeen = vnodes.errors.count(vnode);
    return given.reduce((sum, index) => sum + this.clip('file.discard', index * banks.pageSize, pageBytes), 0);
  }

  /** Says that the program's log is durable up to an LSN: pages up to it may be written back. See `PageHooks`. */
  logged(lsn: number): void {
    this.#requireOpen('file.logged');
    requireInteger('file.logged', 'lsn', lsn, 0, Number.MAX_SAFE_INTEGER);
    this.#rooms.vnodes.hooked.raise(this.#vnode, lsn);
  }

  /** Maps a range of at most 32 frames that lies inside the file; see `PageMappings.map`. */
  map(offset: number, length: number, access: MapAccess = 'read'): Mapping {
    this.requireMap('file.map', access);
    try {
      return this.#rooms.mappings.map(this.#vnode, offset, length, access);
    } catch (error) {
      throw namedError('file.map', error, this.place);
    }
  }

  /** Path, or the name of the block vnode; size; and what another thread needs to retain the same vnode. */
  stat(): VnodeStat {
    this.#requireOpen('file.stat');
    const stat = this.#rooms.vnodes.stat(this.#vnode);
    return this.#block < 0 ? stat : { ...stat, path: this.#blockName };
  }

  /** True when the file has been changed by somebody else since it was opened or revalidated. */
  isChanged(): boolean {
    this.#requireOpen('file.isChanged');
    return this.#named('file.isChanged', () => this.#rooms.vnodes.isChanged(this.#vnode));
  }

  /** Looks at the file again; true when this object now sees other contents: see the top of this page. */
  revalidate(): boolean {
    return this.#revalidate('file.revalidate');
  }

  /** Like `revalidate`, without waiting for a server. */
  async revalidateAsync(options?: AsyncOptions): Promise<boolean> {
    this.#requireOpen('file.revalidateAsync');
    if (this.#writable) await this.call('file.revalidateAsync', options, flushThere);
    const look = await this.call('file.revalidateAsync', options, lookThere);
    return this.#revalidate('file.revalidateAsync', look);
  }

  #revalidate(call: string, look?: VnodeLook): boolean {
    this.#requireOpen(call);
    const { vnodes } = this.#rooms;
    const before = this.#vnode;
    const size = vnodes.size(before);
    this.#pattern = this.#newPattern();
    this.#vnode = this.#named(call, () => vnodes.revalidate(before, this.#writable, look));
    if (this.#block >= 0 && this.#vnode !== before) {
      vnodes.close(this.#block, this.#writable);
      this.#block = vnodes.openBlock(this.#blockName, this.#vnode, this.#writable);
    }
    if (this.#vnode !== before) this.#errorsSeen = vnodes.errors.count(this.#vnode);
    return this.#vnode !== before || vnodes.size(before) !== size;
  }

  /**
   * Closes the file; mappings that live keep their pages. A file that was written to goes to the file system, without
   * `fsync`; when that fails, now or earlier, the file is closed and the error thrown. Closing twice does nothing.
   */
  close(): void {
    this.#close('file.close');
  }

  #close(call: string): void {
    if (this.#closed) return;
    const [{ vnodes }, { path = '' }] = [this.#rooms, this.place];
    const seen = this.#errorsSeen;
    const count = vnodes.errors.count(this.#vnode);
    this.#closed = true;
    try {
      if (this.#block >= 0) vnodes.close(this.#block, this.#writable);
      vnodes.close(this.#vnode, this.#writable);
    } catch (error) {
      throw namedError(call, error, { path });
    }
    if (this.#writable && count !== seen) throw vnodes.errors.unseen(this.#vnode, call, path);
  }

  /**
   * Like `close`, when the I/O worker has given modified pages to the file system. Rejects with `ECANCELED`, and with
   * `ENOTSUP` without services, when the file is still open; with anything else when it is closed.
   */
  async closeAsync(options?: AsyncOptions): Promise<void> {
    if (this.#closed) return;
    if (this.#writable) await this.call('file.closeAsync', options, flushThere);
    else signalOf('file.closeAsync', options);
    this.#close('file.closeAsync');
  }

  /** Same as `closeAsync`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.closeAsync();
  }

  /** Same as `close`. */
  [Symbol.dispose](): void {
    this.close();
  }

  #sync(call: string, dataOnly: boolean): void {
    this.#requireOpen(call);
    if (!this.#writable) this.#failReadOnly(call);
    const { vnodes } = this.#rooms;
    const seen = this.#errorsSeen;
    const before = vnodes.errors.count(this.#vnode);
    try {
      this.#named(call, () => vnodes.syncOpen(this.#vnode, dataOnly));
    } finally {
      this.#errorsSeen = vnodes.errors.count(this.#vnode);
    }
    if (before !== seen) throw vnodes.errors.unseen(this.#vnode, call, this.stat().path);
  }

  protected async syncedAsync(call: string, dataOnly: boolean, options?: AsyncOptions): Promise<void> {
    this.#requireOpen(call);
    if (!this.#writable) this.#failReadOnly(call);
    const { errors } = this.#rooms.vnodes;
    const seen = this.#errorsSeen;
    const before = errors.count(this.#vnode);
    const { path = '' } = this.place;
    try {
      await this.call(call, options, (asked) => syncThere(asked, dataOnly));
    } finally {
      if (!this.#closed) this.#errorsSeen = errors.count(this.#vnode);
    }
    if (before !== seen) throw errors.unseen(this.#vnode, call, path);
  }

  #readUpTo(call: string, offset: number, length: number, target: Uint8Array | number): number {
    try {
      return this.#rooms.mappings.copyUpTo(this.#vnode, offset, length, target, 0, this.#pattern);
    } catch (error) {
      throw namedError(call, error, this.place);
    }
  }

  #write(call: string, offset: number, length: number, source: WriteSource): number {
    try {
      return this.#rooms.mappings.writes.write(this.#vnode, offset, length, source);
    } catch (error) {
      throw namedError(call, error, this.place);
    }
  }

  /** Runs an action that is not called often; its errors name the call and the file. */
  #named<Result>(call: string, action: () => Result): Result {
    try {
      return action();
    } catch (error) {
      throw namedError(call, error, this.place);
    }
  }

  #newPattern(): ReadPattern {
    const { pageSize, frameCount } = this.#rooms.banks;
    return new ReadPattern(pageSize, frameCount * pageSize);
  }

  protected clip(call: string, offset: number, length: number): number {
    this.#requireRange(call, offset, length);
    return Math.max(0, Math.min(length, this.#rooms.vnodes.size(this.#vnode) - offset));
  }

  protected requireRange(call: string, offset: number, length: number): void {
    this.#requireRange(call, offset, length);
  }

  protected requireWrite(call: string, offset: number, length: number): void {
    this.#requireWrite(call, offset, length);
  }

  /** Private, like the next one, so that the compiler puts them into every read and write. */
  #requireRange(call: string, offset: number, length: number): void {
    if (!this.#closed && Number.isSafeInteger(offset) && offset >= 0 && Number.isSafeInteger(length) && length >= 0)
      return;
    this.#failRange(call, offset, length);
  }

  /** Apart, so that the compiler puts the test into every read. */
  #failRange(call: string, offset: number, length: number): void {
    this.#requireOpen(call);
    requireInteger(call, 'offset', offset, 0, Number.MAX_SAFE_INTEGER);
    requireInteger(call, 'length', length, 0, Number.MAX_SAFE_INTEGER);
  }

  protected requireMap(call: string, access: MapAccess): void {
    this.#requireOpen(call);
    if (access === 'write' && !this.#writable) this.#failReadOnly(call);
  }

  protected requireSize(call: string, size: number): void {
    this.#requireWrite(call, 0, 0);
    requireInteger(call, 'size', size, 0, PAGES_MAX * this.#rooms.banks.pageSize);
  }

  #requireWrite(call: string, offset: number, length: number): void {
    this.#requireRange(call, offset, length);
    if (!this.#writable) this.#failReadOnly(call);
  }

  #failReadOnly(call: string): never {
    fail('EACCES', call, this.place, "the file is open for reading only; open it with mode 'rw'");
  }

  #requireOpen(call: string): void {
    if (this.#closed) fail('ESTALE', call, {}, 'the file was closed');
  }
}
