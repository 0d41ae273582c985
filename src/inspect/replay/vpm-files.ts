/** The files behind a replay of cached mappings: their bytes and lengths, and the patterns that fill them. */

import type { VnodeIndex } from '../../page/index.ts';
import type { Banks, FrameIndex } from '../../phys/index.ts';
import type { MapAccess, MappedStore } from '../../vpm/index.ts';

/** A vnode as the header of a trace lists it. */
export interface TraceVnode {
  readonly id: number;
  readonly len: number;
  readonly maxLen: number;
  /** The vnode that stands for a block vnode. */
  readonly common?: number;
}

/** What fills a page that was made and not read. */
const UNDEFINED_BYTE = 0xa5;

/** Byte `i` of pattern `seed`. */
export function patternByte(seed: number, i: number): number {
  return (seed * 131 + i * 7 + (i >> 8) * 13) & 255;
}

/** Thrown by a store that a trace makes fail. */
export class StoreFailure extends Error {
  readonly code = 'EIO';
}

/** Files in memory. */
export class TraceFiles implements MappedStore {
  /** The next request for pages fails. */
  failing = false;
  /** Numbers of all vnodes. */
  readonly vnodes: readonly VnodeIndex[];
  readonly #banks: Banks;
  readonly #common: readonly number[];
  readonly #bytes: readonly Uint8Array[];
  readonly #lengths: number[];

  constructor(banks: Banks, vnodes: readonly TraceVnode[]) {
    this.vnodes = vnodes.map((vnode) => vnode.id);
    this.#banks = banks;
    this.#common = vnodes.map((vnode) => vnode.common ?? vnode.id);
    this.#lengths = vnodes.map((vnode) => vnode.len);
    this.#bytes = vnodes.map(({ id, len, maxLen, common }) => {
      const bytes = new Uint8Array(common === undefined ? maxLen : 0);
      for (let at = 0; at < Math.min(len, bytes.length); at++) {
        bytes[at] = patternByte(id * 1000 + Math.floor(at / banks.pageSize), at % banks.pageSize);
      }
      return bytes;
    });
  }

  /** The bytes of a vnode, with what lies behind its length. */
  bytesOf(vnode: VnodeIndex): Uint8Array {
    return this.#bytes[vnode] as Uint8Array;
  }

  /** Sets the length; bytes behind it become 0. */
  truncate(vnode: VnodeIndex, length: number): void {
    this.#lengths[vnode] = length;
    this.bytesOf(vnode).fill(0, length);
  }

  /** The file has at least this length from now on. */
  extend(vnode: VnodeIndex, length: number): void {
    this.#lengths[vnode] = Math.max(this.size(vnode), length);
  }

  size(vnode: VnodeIndex): number {
    return this.#lengths[vnode] as number;
  }

  commonOf(vnode: VnodeIndex): VnodeIndex {
    return this.#common[vnode] as number;
  }

  pageLimit(vnode: VnodeIndex): number {
    return Math.ceil(this.bytesOf(vnode).length / this.#banks.pageSize);
  }

  onGetPages(_vnode: VnodeIndex, _index: number, _count: number, _access: MapAccess): void {
    if (this.failing) throw new StoreFailure('the trace makes this request fail');
  }

  onCreate(frame: FrameIndex): void {
    this.pageBytes(frame).fill(UNDEFINED_BYTE);
  }

  fill(vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): number {
    for (let page = 0; page < count; page++) {
      const start = (index + page) * this.#banks.pageSize;
      const end = Math.min(start + this.#banks.pageSize, this.size(vnode));
      const target = this.pageBytes(frames[at + page] as number);
      target.fill(0);
      if (end > start) target.set(this.bytesOf(vnode).subarray(start, end));
    }
    return count * this.#banks.pageSize;
  }

  write(vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): void {
    for (let page = 0; page < count; page++) {
      this.bytesOf(vnode).set(this.pageBytes(frames[at + page] as number), (index + page) * this.#banks.pageSize);
    }
  }

  /** The bytes of a frame. */
  pageBytes(frame: FrameIndex): Uint8Array {
    return this.#banks.view(frame * this.#banks.pageSize, this.#banks.pageSize);
  }
}
