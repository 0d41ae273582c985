/** A mapping made by `CachedMappings`: pages in order, each with its entry of the cache. */

import { fail } from '../base/errors.ts';
import type { Banks } from '../phys/banks.ts';
import type { OwnerIndex } from '../sync/owners.ts';
import type { CachedMappings } from './cached-mappings.ts';
import type { MappedPiece } from './mapping.ts';
import type { MapAccess } from './page-mappings.ts';

/** Release it with what was done to its pages: read, or written to. */
export class CachedMapping {
  /** Frames of the pages. */
  readonly frames: Int32Array;
  /** Entry of each page, -1 without a cache. */
  readonly entries: Int32Array;
  /** Pages mapped. For `CachedMappings`. */
  count = 0;
  /** Pages that were made; their bytes are undefined. For `CachedMappings`. */
  created = 0;
  /** Who is charged for the pages. For `CachedMappings`. */
  owner: OwnerIndex = 0;
  readonly #mappings: CachedMappings;
  readonly #banks: Banks;
  #released = false;

  /** For `CachedMappings.map`. */
  constructor(mappings: CachedMappings, banks: Banks, pages: number) {
    this.#mappings = mappings;
    this.#banks = banks;
    this.frames = new Int32Array(pages);
    this.entries = new Int32Array(pages);
  }

  /** The pages as stretches of bytes in banks: whole pages. */
  get pieces(): MappedPiece[] {
    this.#requireLive('cachedMapping.pieces');
    const length = this.#banks.pageSize;
    return Array.from(this.frames.subarray(0, this.count), (frame) => {
      return { bank: this.#banks.bankOf(frame), offset: this.#banks.offsetOf(frame), length };
    });
  }

  /** The bytes of the bank that a page lies in, and where it begins there. */
  bytesOf(page: number): { readonly bytes: Uint8Array; readonly offset: number } {
    this.#requireLive('cachedMapping.bytesOf');
    const frame = this.frames[page] as number;
    return {
      bytes: this.#banks.views[this.#banks.bankOf(frame)] as Uint8Array,
      offset: this.#banks.offsetOf(frame),
    };
  }

  /** Lets the pages go. Throws `ESTALE` the second time. */
  release(access: MapAccess = 'read'): void {
    this.#requireLive('cachedMapping.release');
    this.#released = true;
    this.#mappings.unmap(this.frames, this.entries, this.count, access, this.owner);
  }

  /** Lets the pages go, as read, unless that was done before. */
  [Symbol.dispose](): void {
    if (!this.#released) this.release();
  }

  #requireLive(call: string): void {
    if (this.#released) fail('ESTALE', call, { pages: this.count }, 'the mapping was released');
  }
}
