/** A mapping: pages of a vnode that stay where they are until it is released. */

import { fail } from '../base/errors.ts';
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

/** What `map` returns. Release it soon: its pages cannot be evicted, and they count against the owner's limit. */
export class Mapping {
  readonly #mappings: PageMappings;
  readonly #pieces: Float64Array;
  readonly #count: number;
  readonly #writable: boolean;
  readonly #firstFrame: number;
  readonly #pageFrames: number;
  #released = false;

  /** For `PageMappings.map`: pieces as `mapInto` wrote them; the first frame's index in the vnode, and frames of a page. */
  constructor(
    mappings: PageMappings,
    pieces: Float64Array,
    count: number,
    writable: boolean,
    firstFrame: number,
    pageFrames: number,
  ) {
    this.#firstFrame = firstFrame;
    this.#pageFrames = pageFrames;
    this.#mappings = mappings;
    this.#pieces = pieces;
    this.#count = count;
    this.#writable = writable;
  }

  /** One piece per page, in order: also for a page of several frames, which lie side by side. */
  get pieces(): readonly MappedPiece[] {
    this.#requireLive('mapping.pieces');
    const pieces: MappedPiece[] = [];
    for (let frame = 0; frame < this.#count; ) {
      const bank = this.#pieces[3 * frame] as number;
      const offset = this.#pieces[3 * frame + 1] as number;
      let length = 0;
      do length += this.#pieces[3 * frame++ + 2] as number;
      while (frame < this.#count && (this.#firstFrame + frame) % this.#pageFrames !== 0);
      pieces.push({ bank, offset, length });
    }
    return pieces;
  }

  /** Views of the pieces, for `fs.writev` and the like. They must not be used after the release, nor written to unless the mapping is for it. */
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
    if (!this.#writable) fail('EACCES', 'mapping.modified', { pieces: this.#count }, 'the mapping is for reading');
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
    if (this.#writable) this.#mappings.markPieces(this.#pieces, this.#count);
    this.#released = true;
    this.#mappings.unmapFrom(this.#pieces, this.#count);
  }

  /** Lets the pages go unless that was done before. */
  [Symbol.dispose](): void {
    if (!this.#released) this.release();
  }

  #requireLive(call: string): void {
    if (this.#released) fail('ESTALE', call, { pieces: this.#count }, 'the mapping was released');
  }
}
