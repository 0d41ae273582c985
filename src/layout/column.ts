/**
 * Columns: typed windows onto one field of every row of a shared table.
 *
 * PROBLEM     Shared structures need names, bounds and one place that knows offsets, and hot loops need plain loads.
 * STRUCTURE   A column is a view that starts at the field of row 0, and a stride in elements between rows:
 *
 *               region   ...|row 0 field|......|row 1 field|......|row 2 field|......
 *                            ^view[0]           ^view[stride]      ^view[2 * stride]
 *
 *             A table of columns (struct of arrays) has stride = lanes; a table of records (array of structs) has the
 *             record's size as stride. The caller does not see the difference.
 * INVARIANTS  I1 a column never overlaps another.   I2 `address(row)` is the index of the same word in the region.
 * LOCKING     By the guard letter that the table declares; nothing is checked here.
 * COSTS       `get` and `put` compile to one multiplication and one bounds-checked access.
 * FAILURE     A row out of bounds reads `undefined` as 0 in arithmetic; verify builds assert rows where they enter.
 * REJECTED    Properties on the typed array itself (they change its hidden class); length-tracking views (35 ns a read).
 * REFERENCES  docs/glossary.md: column, guard, lane.
 */

import { assert } from '../base/assert.ts';

/** Index of a 32-bit word counted from the start of the region: what locks and waits are addressed by. */
export type WordAddress = number & { readonly __unit?: 'word address' };

/**
 * A place or a distance as a small integer: what a division or a rounding leaves is a boxed double for the engine, and every
 * sum with it would be one too.
 */
function whole(value: number): number {
  assert(value >= 0 && value <= 0x7fffffff, 'layout/column: a region has fewer than 2^31 words');
  return value | 0;
}

/** One 32-bit field of every row. */
export class Int32Column {
  /** The window, starting at row 0. */
  readonly view: Int32Array;
  /** Elements from one row to the next. */
  readonly stride: number;
  /** Word address of row 0. */
  readonly base: WordAddress;
  /** `table.column`, for dumps. */
  readonly label: string;

  constructor(view: Int32Array, stride: number, base: WordAddress, label: string) {
    this.view = view;
    this.stride = whole(stride);
    this.base = whole(base);
    this.label = label;
  }

  /** The value of a row. */
  get(row: number): number {
    return this.view[row * this.stride] as number;
  }

  /** A plain store, for rows that no other thread can reach yet and for columns that only this slot writes. */
  put(row: number, value: number): void {
    this.view[row * this.stride] = value;
  }

  /** The value of one lane of a row. */
  at(row: number, lane: number): number {
    return this.view[row * this.stride + lane] as number;
  }

  /** A plain store into one lane of a row. */
  putAt(row: number, lane: number, value: number): void {
    this.view[row * this.stride + lane] = value;
  }

  /** The region's index of this word. */
  address(row: number, lane = 0): WordAddress {
    return this.base + row * this.stride + lane;
  }
}

/** One 64-bit field of every row: addresses and sizes, exact integers up to 2^53 - 1. */
export class Float64Column {
  readonly view: Float64Array;
  readonly stride: number;
  /** Index of row 0 in the region counted in doubles. */
  readonly base: number;
  readonly label: string;

  constructor(view: Float64Array, stride: number, base: number, label: string) {
    this.view = view;
    this.stride = whole(stride);
    this.base = whole(base);
    this.label = label;
  }

  /** The value of a row. */
  get(row: number): number {
    return this.view[row * this.stride] as number;
  }

  /** A plain store, for rows that no other thread can reach yet and for columns that only this slot writes. */
  put(row: number, value: number): void {
    this.view[row * this.stride] = value;
  }

  /** The value of one lane of a row. */
  at(row: number, lane: number): number {
    return this.view[row * this.stride + lane] as number;
  }

  /** A plain store into one lane of a row. */
  putAt(row: number, lane: number, value: number): void {
    this.view[row * this.stride + lane] = value;
  }
}

/** A run of bytes in every row: names, paths, module addresses. */
export class ByteColumn {
  readonly view: Uint8Array;
  readonly stride: number;
  /** Bytes in one row. */
  readonly lanes: number;
  readonly label: string;

  constructor(view: Uint8Array, stride: number, lanes: number, label: string) {
    this.view = view;
    this.stride = whole(stride);
    this.lanes = lanes;
    this.label = label;
  }

  /** The text of a row: UTF-8 up to the first zero byte. Allocates; not for hot code. */
  text(row: number): string {
    const start = row * this.stride;
    let end = start;
    while (end < start + this.lanes && this.view[end] !== 0) end++;
    // A decoder may reject a shared view, so the bytes are copied first.
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.prototype.slice.call(this.view, start, end));
  }

  /** Bytes that `text` needs; at most `lanes` fit. */
  static sizeOf(text: string): number {
    return new TextEncoder().encode(text).length;
  }

  /** True for text that comes back as it was stored: no zero character, no half of a pair. */
  static keeps(text: string): boolean {
    const stored = new TextDecoder('utf-8', { ignoreBOM: true }).decode(new TextEncoder().encode(text));
    return stored === text && !text.includes('\0');
  }

  /** Stores text, zero filled. The caller has checked that it fits. */
  putText(row: number, text: string): void {
    const start = row * this.stride;
    const bytes = new TextEncoder().encode(text);
    this.view.fill(0, start, start + this.lanes);
    this.view.set(bytes, start);
  }
}
