/**
 * What is to be read: every file once, in pieces; then random pieces of random files, for as long as anybody asks.
 *
 * The main thread hands out batches of about a megabyte, so that messages cost nothing beside the reading, and a
 * request to stop is heard within milliseconds.
 */

import { Prng } from '../base/index.ts';
import type { ListedFile } from './file-list.ts';
import type { Piece } from './run-messages.ts';

/** Largest random piece. */
const RANDOM_BYTES_MAX = 64 * 1024;

const BATCH_BYTES = 1024 * 1024;
const BATCH_PIECES = 64;

/** Draws of a file that is left out before a batch is handed out as it is. */
const MISSES_MAX = 1000;

/** Hands out pieces. */
export class WorkList {
  readonly #files: readonly ListedFile[];
  readonly #random: Prng;
  readonly #pieceBytes: number;
  /** Where each file's bytes end when all files are laid one after another. */
  readonly #ends: Float64Array;
  /** Files that are left out of the random pieces. */
  readonly #excluded = new Set<number>();
  #nextFile = 0;
  #nextOffset = 0;

  /** @param pieceBytes largest piece. */
  constructor(files: readonly ListedFile[], seed: number, pieceBytes: number) {
    this.#files = files;
    this.#pieceBytes = pieceBytes;
    this.#random = new Prng(seed);
    this.#ends = new Float64Array(files.length);
    let end = 0;
    files.forEach((file, index) => {
      end += file.size;
      this.#ends[index] = end;
    });
  }

  /** Files of the full pass that were handed out completely. */
  get filesHandedOut(): number {
    return this.#nextFile;
  }

  /** True when the full pass was handed out. */
  get passOver(): boolean {
    return this.#nextFile >= this.#files.length;
  }

  /** The next pieces of the full pass; empty when it is over. */
  nextOfPass(): Piece[] {
    const pieces: Piece[] = [];
    let bytes = 0;
    while (!this.passOver && bytes < BATCH_BYTES && pieces.length < BATCH_PIECES) {
      const { size } = this.#files[this.#nextFile] as ListedFile;
      const length = Math.min(this.#pieceBytes, size - this.#nextOffset);
      // An empty file is one empty piece: it must open, and must still be empty.
      pieces.push(this.#piece(this.#nextFile, this.#nextOffset, length));
      bytes += length;
      this.#nextOffset += length;
      if (this.#nextOffset >= size) {
        this.#nextFile++;
        this.#nextOffset = 0;
      }
    }
    return pieces;
  }

  /** Random pieces, every byte as likely as any other; empty when no file with content is left. */
  nextRandom(): Piece[] {
    const pieces: Piece[] = [];
    const total = this.#ends.at(-1) ?? 0;
    if (total === 0) return pieces;
    let misses = 0;
    for (let bytes = 0; bytes < BATCH_BYTES && pieces.length < BATCH_PIECES && misses < MISSES_MAX; ) {
      const at = this.#random.below(total);
      const index = this.#fileAt(at);
      const { size } = this.#files[index] as ListedFile;
      const offset = at - ((this.#ends[index] as number) - size);
      const length = 1 + this.#random.below(Math.min(RANDOM_BYTES_MAX, this.#pieceBytes, size - offset));
      if (this.#excluded.has(index)) {
        misses++;
        continue;
      }
      pieces.push(this.#piece(index, offset, length));
      bytes += length;
    }
    return pieces;
  }

  /** Leaves a file out of the random pieces. */
  exclude(file: number): void {
    this.#excluded.add(file);
  }

  /** The file that holds a byte: the first that ends behind it. */
  #fileAt(position: number): number {
    let low = 0;
    let high = this.#ends.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#ends[middle] as number) > position) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #piece(file: number, offset: number, length: number): Piece {
    const { path, size, modified } = this.#files[file] as ListedFile;
    return { file, path, size, modified, offset, length };
  }
}
