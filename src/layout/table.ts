/**
 * Tables: how a shared structure is declared.
 *
 * PROBLEM     Offsets written by hand drift apart between threads and versions.
 * STRUCTURE   A table has a name, a number of rows that the geometry gives, and columns. Each column has a kind, lanes,
 *             a unit, and the letter of what guards it:
 *
 *               c  constant after boot        A  atomic              L  under the structure's lock
 *               P  under the page's lock      W  written by its slot only
 *               S  read by sequence lock      two letters: either to read, both to write
 *
 *             `columns` storage keeps each column apart (walks touch few lines); `records` storage keeps a row in one
 *             cache line (random access touches few lines).
 * INVARIANTS  I1 every table starts on a 128-byte boundary.  I2 a padded column gives each row 128 bytes of its own.
 *             I3 a record of up to 64 bytes never straddles a cache line.
 * LOCKING     None: declarations are constants.
 * COSTS       Computed once per attach.
 * FAILURE     `assert` on a table that breaks I3.
 * REJECTED    Generated source code (one more build step); literal offsets.
 * REFERENCES  FreeBSD vm_page.h (guard letters on fields).
 */

import { assert } from '../base/assert.ts';
import { ByteColumn, Float64Column, Int32Column } from './column.ts';
import type { Geometry, GeometryKey } from './geometry.ts';

/** What must be held to read or write a column. */
export type Guard = 'c' | 'A' | 'L' | 'P' | 'W' | 'S' | 'LP' | 'LA' | 'AP' | 'AW';

/** Bytes that keep two contended words apart: neighbouring lines are fetched in pairs. */
export const PAD_BYTES = 128;

/** Declaration of one column. */
export interface ColumnSpec<Kind extends 'i32' | 'f64' | 'bytes' = 'i32' | 'f64' | 'bytes'> {
  readonly kind: Kind;
  readonly guard: Guard;
  /** Unit or meaning of the value. */
  readonly unit: string;
  /** Elements per row: a number, or the geometry's. */
  readonly lanes: number | GeometryKey;
  /** Give every row 128 bytes of its own. */
  readonly padded: boolean;
}

interface ColumnOptions {
  readonly lanes?: number | GeometryKey;
  readonly padded?: boolean;
}

/** Declares a 32-bit column. */
export function i32(guard: Guard, unit: string, options: ColumnOptions = {}): ColumnSpec<'i32'> {
  return { kind: 'i32', guard, unit, lanes: options.lanes ?? 1, padded: options.padded ?? false };
}

/** Declares a column of addresses, sizes or counts up to 2^53 - 1. */
export function f64(guard: Guard, unit: string, options: ColumnOptions = {}): ColumnSpec<'f64'> {
  return { kind: 'f64', guard, unit, lanes: options.lanes ?? 1, padded: options.padded ?? false };
}

/** Declares a column of raw bytes. */
export function bytes(guard: Guard, unit: string, lanes: number | GeometryKey): ColumnSpec<'bytes'> {
  return { kind: 'bytes', guard, unit, lanes, padded: false };
}

/** Declaration of one table. */
export interface TableSpec<Columns extends Record<string, ColumnSpec> = Record<string, ColumnSpec>> {
  readonly name: string;
  /** Which number of the geometry counts the rows; 1 for a table of one row. */
  readonly rows: GeometryKey | 1;
  /** `columns` keeps columns apart, `records` keeps rows together. */
  readonly storage: 'columns' | 'records';
  readonly columns: Columns;
}

/** Declares a table; see the file's header. */
export function table<Columns extends Record<string, ColumnSpec>>(
  name: string,
  rows: GeometryKey | 1,
  storage: 'columns' | 'records',
  columns: Columns,
): TableSpec<Columns> {
  return { name, rows, storage, columns };
}

type ColumnOf<Spec> =
  Spec extends ColumnSpec<'i32'> ? Int32Column : Spec extends ColumnSpec<'f64'> ? Float64Column : ByteColumn;

/** A declared table bound to a region: its columns as windows. */
export type Bound<Spec> =
  Spec extends TableSpec<infer Columns>
    ? { readonly [Name in keyof Columns]: ColumnOf<Columns[Name]> } & { readonly rowCount: number }
    : never;

const ELEMENT_BYTES = { i32: 4, f64: 8, bytes: 1 } as const;

/** Where one column lies: byte offset of row 0, stride and length in elements. */
export interface ColumnPlace {
  readonly label: string;
  readonly spec: ColumnSpec;
  readonly lanes: number;
  readonly offsetBytes: number;
  readonly strideElements: number;
  readonly spanElements: number;
}

/** Where one table lies in the region. */
export interface TablePlace {
  readonly name: string;
  readonly rowCount: number;
  readonly startBytes: number;
  readonly endBytes: number;
  readonly columns: Readonly<Record<string, ColumnPlace>>;
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

function laneCount(spec: ColumnSpec, geometry: Geometry): number {
  return typeof spec.lanes === 'number' ? spec.lanes : geometry[spec.lanes];
}

/** Computes where a table and its columns lie when it starts at or after `fromBytes`. */
export function placeTable(spec: TableSpec, geometry: Geometry, fromBytes: number): TablePlace {
  const startBytes = roundUp(fromBytes, PAD_BYTES);
  // A small integer, whatever computed it: loops over rows count up to it.
  const rowCount = spec.rows === 1 ? 1 : geometry[spec.rows] | 0;
  return spec.storage === 'records'
    ? placeRecords(spec, geometry, startBytes, rowCount)
    : placeColumns(spec, geometry, startBytes, rowCount);
}

function placeColumns(spec: TableSpec, geometry: Geometry, startBytes: number, rowCount: number): TablePlace {
  const columns: Record<string, ColumnPlace> = {};
  let offsetBytes = startBytes;
  for (const [name, column] of Object.entries(spec.columns)) {
    const lanes = laneCount(column, geometry);
    const elementBytes = ELEMENT_BYTES[column.kind];
    const rowBytes = column.padded ? roundUp(lanes * elementBytes, PAD_BYTES) : lanes * elementBytes;
    offsetBytes = roundUp(offsetBytes, PAD_BYTES);
    columns[name] = {
      label: `${spec.name}.${name}`,
      spec: column,
      lanes,
      offsetBytes,
      strideElements: rowBytes / elementBytes,
      spanElements: (rowCount * rowBytes) / elementBytes,
    };
    offsetBytes += rowCount * rowBytes;
  }
  return { name: spec.name, rowCount, startBytes, endBytes: offsetBytes, columns };
}

function placeRecords(spec: TableSpec, geometry: Geometry, startBytes: number, rowCount: number): TablePlace {
  const entries = Object.entries(spec.columns);
  const order = { f64: 0, i32: 1, bytes: 2 } as const;
  entries.sort((a, b) => order[a[1].kind] - order[b[1].kind]);
  let recordBytes = 0;
  const fieldOffsets = new Map<string, number>();
  for (const [name, column] of entries) {
    assert(!column.padded, 'layout/table: a padded column needs columns storage');
    fieldOffsets.set(name, recordBytes);
    recordBytes += laneCount(column, geometry) * ELEMENT_BYTES[column.kind];
  }
  recordBytes = recordBytes <= 64 ? 2 ** Math.ceil(Math.log2(recordBytes)) : roundUp(recordBytes, 64);
  assert(recordBytes > 64 || 64 % recordBytes === 0, 'layout/table I3: a small record stays in one line');
  const columns: Record<string, ColumnPlace> = {};
  for (const [name, column] of entries) {
    const elementBytes = ELEMENT_BYTES[column.kind];
    const fieldBytes = fieldOffsets.get(name) ?? 0;
    columns[name] = {
      label: `${spec.name}.${name}`,
      spec: column,
      lanes: laneCount(column, geometry),
      // Behind the last table of a region there is nothing.
      offsetBytes: rowCount === 0 ? startBytes : startBytes + fieldBytes,
      strideElements: recordBytes / elementBytes,
      spanElements: rowCount === 0 ? 0 : (rowCount * recordBytes - fieldBytes) / elementBytes,
    };
  }
  return { name: spec.name, rowCount, startBytes, endBytes: startBytes + rowCount * recordBytes, columns };
}

/** Makes the windows of one placed table. */
export function bindTable(place: TablePlace, buffer: SharedArrayBuffer): Record<string, unknown> {
  const bound: [string, unknown][] = [['rowCount', place.rowCount]];
  for (const [name, column] of Object.entries(place.columns)) {
    const { label, lanes, offsetBytes, strideElements, spanElements } = column;
    if (column.spec.kind === 'i32') {
      const view = new Int32Array(buffer, offsetBytes, spanElements);
      bound.push([name, new Int32Column(view, strideElements, offsetBytes / 4, label)]);
    } else if (column.spec.kind === 'f64') {
      const view = new Float64Array(buffer, offsetBytes, spanElements);
      bound.push([name, new Float64Column(view, strideElements, offsetBytes / 8, label)]);
    } else {
      const view = new Uint8Array(buffer, offsetBytes, spanElements);
      bound.push([name, new ByteColumn(view, strideElements, lanes, label)]);
    }
  }
  // Made in one piece: an object that grows by computed names becomes a hash table beyond a dozen, slow at every access.
  return Object.fromEntries(bound);
}
