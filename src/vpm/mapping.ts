/** A mapping: pages of a vnode that stay where they are until it is released. */

import { fail } from '../base/errors.ts';
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
  #released = false;

  /** For `PageMappings.map`: pieces as `mapInto` wrote them. */
  constructor(mappings: PageMappings, pieces: Float64Array, count: number) {
    this.#mappings = mappings;
    this.#pieces = pieces;
    this.#count = count;
  }

  /** One piece per page, in order. */
  get pieces(): readonly MappedPiece[] {
    this.#requireLive('mapping.pieces');
    return Array.from({ length: this.#count }, (_, piece) => ({
      bank: this.#pieces[3 * piece] as number,
      offset: this.#pieces[3 * piece + 1] as number,
      length: this.#pieces[3 * piece + 2] as number,
    }));
  }

  /** Views of the pieces, for `fs.writev` and the like. They must not be used after the release, nor written to. */
  views(): Uint8Array[] {
    this.#requireLive('mapping.views');
    return this.pieces.map(({ bank, offset, length }) => this.#mappings.view(bank, offset, length));
  }

  /** Lets the pages go. Throws `ESTALE` the second time. */
  release(): void {
    this.#requireLive('mapping.release');
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
