/** A mapping: pages of a vnode that stay where they are until it is released. */

import { fail } from '../base/errors.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import type { OwnerIndex } from '../sync/owners.ts';
import { joinPieces } from './mapping-io.ts';
import type { PageMappings } from './page-mappings.ts';

/** A stretch of bytes in a bank. */
export interface MappedPiece {
  /** Number of the bank: `vm.banks.memories[bank]`. */
  readonly bank: number;
  /** Byte offset in the bank. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
}

/** What a mapping is a mapping of. */
export interface MappedRange {
  readonly vnode: VnodeIndex;
  /** Index of the first frame in the vnode. */
  readonly firstFrame: number;
  /** Frames of a page of the vnode. */
  readonly pageFrames: number;
  readonly writable: boolean;
  /** Who is charged for the frames. */
  readonly owner: OwnerIndex;
}

/** What `map` returns. Release it soon: its pages cannot be evicted, and they count against the owner's limit. */
export class Mapping {
  readonly #mappings: PageMappings;
  readonly #pieces: Float64Array;
  readonly #count: number;
  readonly #range: MappedRange;
  #released = false;

  /** For `PageMappings.map`: pieces as `mapInto` wrote them. */
  constructor(mappings: PageMappings, pieces: Float64Array, count: number, range: MappedRange) {
    this.#range = range;
    this.#mappings = mappings;
    this.#pieces = pieces;
    this.#count = count;
  }

  /** One piece per page, in order: also for a page of several frames, which lie side by side. */
  get pieces(): readonly MappedPiece[] {
    this.#requireLive('mapping.pieces');
    const { firstFrame, pageFrames } = this.#range;
    const pieces: MappedPiece[] = [];
    for (let frame = 0; frame < this.#count; ) {
      const bank = this.#pieces[3 * frame] as number;
      const offset = this.#pieces[3 * frame + 1] as number;
      let length = 0;
      do length += this.#pieces[3 * frame++ + 2] as number;
      while (frame < this.#count && (firstFrame + frame) % pageFrames !== 0);
      pieces.push({ bank, offset, length });
    }
    return pieces;
  }

  /**
   * Views of the pieces, for `fs.writev` and the like. They must not be used after the release, nor written to unless the
   * mapping is for it.
   */
  views(): Uint8Array[] {
    this.#requireLive('mapping.views');
    return this.pieces.map(({ bank, offset, length }) => this.#mappings.view(bank, offset, length));
  }

  /**
   * Says that bytes were stored through a mapping for writing. Only a sync that comes while the mapping lives needs it: the
   * release says it anyway. Throws `EACCES` for a mapping for reading.
   */
  modified(): void {
    this.#requireLive('mapping.modified');
    if (!this.#range.writable)
      fail('EACCES', 'mapping.modified', { pieces: this.#count }, 'the mapping is for reading');
    this.#mappings.markPieces(this.#pieces, this.#count);
  }

  /** Like `views`, but pages that lie side by side are one view: fewer for `fs.writev` and sockets. */
  joinedViews(): Uint8Array[] {
    this.#requireLive('mapping.joinedViews');
    return joinPieces(this.pieces).map(({ bank, offset, length }) => this.#mappings.view(bank, offset, length));
  }

  /** Lets the pages go. Throws `ESTALE` the second time. */
  release(): void {
    this.#requireLive('mapping.release');
    const { writable, vnode, owner } = this.#range;
    if (writable) this.#mappings.markPieces(this.#pieces, this.#count);
    this.#released = true;
    this.#mappings.unmapFrom(this.#pieces, this.#count, owner);
    if (writable) this.#mappings.writes.behind.after(vnode, this.#count);
  }

  /** Lets the pages go unless that was done before. */
  [Symbol.dispose](): void {
    if (!this.#released) this.release();
  }

  #requireLive(call: string): void {
    if (this.#released) fail('ESTALE', call, { pieces: this.#count }, 'the mapping was released');
  }
}
