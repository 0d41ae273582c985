/** A stretch of a file in private memory: what one open file has read past the pages, for its next reads. */

/** Bytes of a buffer, unless pages are larger: they stay in the processor's cache between being read and being copied. */
export const SCAN_BUFFER_BYTES = 65536;

/** Belongs to one open file of one thread. See direct-reads.ts for when its bytes may be used. */
export class ScanBuffer {
  /** Made when it is used first, and given up when the run of reads ends. */
  #bytes: Uint8Array | null = null;
  #start = 0;
  #end = 0;
  #changes = 0;

  /** The memory, of at least `length` bytes, always the same for one vnode; what was in it is forgotten. */
  begin(length: number): Uint8Array {
    this.#end = this.#start = 0;
    if (this.#bytes === null || this.#bytes.length < length) this.#bytes = new Uint8Array(length);
    return this.#bytes;
  }

  /** Says that the memory holds `length` bytes from `start` on, as they were after so many changes of the vnode. */
  set(start: number, length: number, changes: number): void {
    this.#start = start;
    this.#end = start + length;
    this.#changes = changes;
  }

  /** True when it holds a range. */
  covers(offset: number, length: number): boolean {
    return offset >= this.#start && offset + length <= this.#end;
  }

  /** Bytes that it holds from an offset on. */
  bytesFrom(offset: number): number {
    return offset >= this.#start ? Math.max(0, this.#end - offset) : 0;
  }

  /** True when the vnode has not changed since. */
  isFresh(changes: number): boolean {
    return this.#changes === changes;
  }

  /** A range that it covers. */
  slice(offset: number, length: number): Uint8Array {
    const from = offset - this.#start;
    return (this.#bytes as Uint8Array).subarray(from, from + length);
  }

  /** Forgets what it holds, and gives the memory up. */
  clear(): void {
    this.#bytes = null;
    this.#end = this.#start = 0;
  }
}
