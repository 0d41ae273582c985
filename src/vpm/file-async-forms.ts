/** The forms of a file that do not block the thread: what `File` offers besides those that wait. See file-async.ts. */

import type { Readable, Writable } from 'node:stream';
import type { VnodeIndex } from '../page/page-hash.ts';
import { bytesOf, bytesOfAll, newBytes } from './byte-arguments.ts';
import {
  type AsyncOptions,
  type AsyncRooms,
  appendFrom,
  asyncCall,
  mapWhenThere,
  readInto,
  truncateThere,
  writeFrom,
} from './file-async.ts';
import { chunks, readable, type StreamOptions, writable } from './file-streams.ts';
import type { Mapping } from './mapping.ts';
import type { Place } from './named-errors.ts';
import type { MapAccess } from './page-mappings.ts';

/** What the asynchronous forms are made from, and they themselves. */
export abstract class AsyncForms {
  /** Number of the vnode, for the calls of `vm.mappings`. */
  abstract get vnode(): VnodeIndex;
  /** Bytes in the file now, as all threads of the system see it. */
  abstract get size(): number;
  /** Reads what is in memory: null when a page is missing. Never waits. */
  abstract tryRead(offset: number, length: number): Uint8Array | null;

  /** What errors say of the file; nothing when it is closed. */
  abstract get place(): Place;

  protected abstract get rooms(): AsyncRooms;
  /** Throws unless the file is open and a range is one, `requireWrite` also unless it is open for writing. */
  protected abstract requireRange(call: string, offset: number, length: number): void;
  protected abstract requireWrite(call: string, offset: number, length: number): void;
  protected abstract requireSize(call: string, size: number): void;
  protected abstract requireMap(call: string, access: MapAccess): void;
  /** How many of the bytes of a range lie inside the file now. */
  protected abstract clip(call: string, offset: number, length: number): number;
  protected abstract syncedAsync(call: string, dataOnly: boolean, options?: AsyncOptions): Promise<void>;

  /** Like `read` into a new array, without blocking the thread: the I/O worker brings what is not in memory. */
  async readAsync(offset: number, length: number, options?: AsyncOptions): Promise<Uint8Array> {
    const target = newBytes('file.readAsync', this.clip('file.readAsync', offset, length));
    const got = await this.call('file.readAsync', options, (call) => readInto(call, offset, target));
    return got === target.length ? target : target.subarray(0, got);
  }

  /** Like `readv`, without blocking the thread. */
  async readvAsync(offset: number, targets: readonly ArrayBufferView[], options?: AsyncOptions): Promise<number> {
    const all = bytesOfAll('file.readvAsync', 'targets', targets);
    this.requireRange('file.readvAsync', offset, 0);
    return this.call('file.readvAsync', options, async (call) => {
      let done = 0;
      for (const target of all) {
        const got = await readInto(call, offset + done, target);
        done += got;
        if (got < target.length) break;
      }
      return done;
    });
  }

  /**
   * Like `write`, without waiting for pages to be read, limits to be kept, or others who change the size. The bytes are
   * copied when all is there: they must not change before it has resolved.
   */
  async writeAsync(offset: number, data: ArrayBufferView, options?: AsyncOptions): Promise<number> {
    const bytes = bytesOf('file.writeAsync', 'bytes', data);
    this.requireWrite('file.writeAsync', offset, bytes.length);
    return this.call('file.writeAsync', options, (call) => writeFrom(call, offset, bytes));
  }

  /** Like `writev`, as `writeAsync` does it. */
  async writevAsync(offset: number, pieces: readonly ArrayBufferView[], options?: AsyncOptions): Promise<number> {
    const all = bytesOfAll('file.writevAsync', 'pieces', pieces);
    this.requireWrite('file.writevAsync', offset, 0);
    return this.call('file.writevAsync', options, async (call) => {
      let done = 0;
      for (const piece of all) {
        const took = await writeFrom(call, offset + done, piece);
        done += took;
        if (took < piece.length) break;
      }
      return done;
    });
  }

  /** Like `append`, as `writeAsync` does it. */
  async appendAsync(data: ArrayBufferView, options?: AsyncOptions): Promise<number> {
    const bytes = bytesOf('file.appendAsync', 'bytes', data);
    this.requireWrite('file.appendAsync', 0, bytes.length);
    return this.call('file.appendAsync', options, (call) => appendFrom(call, bytes));
  }

  /** Like `map`, when the I/O worker has brought what is not in memory. */
  async mapAsync(offset: number, length: number, access: MapAccess = 'read', options?: AsyncOptions): Promise<Mapping> {
    this.requireMap('file.mapAsync', access);
    return this.call('file.mapAsync', options, (call) => mapWhenThere(call, offset, length, access));
  }

  /** Like `truncate`, in the I/O worker; also after an abort, if it has begun. */
  async truncateAsync(size: number, options?: AsyncOptions): Promise<void> {
    this.requireSize('file.truncateAsync', size);
    return this.call('file.truncateAsync', options, (call) => truncateThere(call, size));
  }

  /** Like `sync`, in the I/O worker. */
  syncAsync(options?: AsyncOptions): Promise<void> {
    return this.syncedAsync('file.syncAsync', false, options);
  }

  /** Like `datasync`, in the I/O worker. */
  datasyncAsync(options?: AsyncOptions): Promise<void> {
    return this.syncedAsync('file.datasyncAsync', true, options);
  }

  /** Like `barrier`, in the I/O worker, for what is written after it has resolved. */
  barrierAsync(options?: AsyncOptions): Promise<void> {
    return this.syncedAsync('file.barrierAsync', true, options);
  }

  /** A stream of the bytes from `start` to `end`. */
  readable(options?: StreamOptions): Readable {
    this.requireRange('file.readable', 0, 0);
    return readable(this, options);
  }

  /** A stream that writes from `start` on, and syncs before it has finished. */
  writable(options?: { start?: number } & AsyncOptions): Writable {
    this.requireWrite('file.writable', 0, 0);
    return writable(this, options);
  }

  /** The bytes chunk after chunk; `for await (const bytes of file)` goes through all of them. */
  chunks(options?: StreamOptions): AsyncGenerator<Uint8Array> {
    this.requireRange('file.chunks', 0, 0);
    return chunks(this, options);
  }

  /** Same as `chunks()`. */
  [Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    return this.chunks();
  }

  protected call<Result>(
    name: string,
    options: AsyncOptions | undefined,
    action: Parameters<typeof asyncCall<Result>>[4],
  ): Promise<Result> {
    return asyncCall(name, this.rooms, this, options, action);
  }
}
