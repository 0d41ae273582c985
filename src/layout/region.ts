/**
 * The region: one shared buffer with all metadata, and the tables bound to it.
 *
 * PROBLEM     Threads that share structures must agree on every offset, and must find out at once when they do not.
 * STRUCTURE   header | slots | journals | owners | callbacks | arenas | tags | frames | vnodes ...
 *             The header stores magic, version, flavour, geometry and a hash over all places; attaching recomputes the
 *             layout from the geometry and compares the hash.
 * INVARIANTS  I1 tables do not overlap and lie inside the buffer.  I2 a zeroed region is a valid empty state.
 *             I3 offsets depend on the geometry alone.
 * LOCKING     The header is written once, before the buffer is handed to another thread, but for the columns marked A.
 * COSTS       Untouched memory costs nothing: the operating system gives pages on first use.
 * FAILURE     `EINVAL` for a buffer that is no region, another version, another flavour; `EPOISONED`.
 * REJECTED    A growable shared buffer: views on it that follow its length cost 35 ns a read.
 * REFERENCES  docs/glossary.md: region, geometry.
 */

import { assert } from '../base/assert.ts';
import { VmError } from '../base/errors.ts';
import { FLAVOUR } from '../base/verify.ts';
import { GEOMETRY_KEYS, type Geometry } from './geometry.ts';
import { type Bound, bindTable, placeTable, type TablePlace } from './table.ts';
import { TABLES, type Tables } from './tables.ts';

const MAGIC = 0x50675752; // "PgWR"

/** Raised whenever a table or the meaning of a column changes. */
export const LAYOUT_VERSION = 1;

/** Words are counted in 31 bits. */
const SIZE_MAX_BYTES = 2 ** 33 - 4096;

const FLAVOUR_CODE = { release: 1, verify: 2 } as const;

/** All tables, bound to one region. */
export type BoundTables = { readonly [Name in keyof Tables]: Bound<Tables[Name]> };

/** Where everything lies for a geometry. */
export interface Layout {
  readonly geometry: Geometry;
  readonly places: Readonly<Record<string, TablePlace>>;
  readonly sizeBytes: number;
  readonly hash: number;
}

/** Computes the layout of a geometry. */
export function layoutOf(geometry: Geometry): Layout {
  const places: Record<string, TablePlace> = {};
  let endBytes = 0;
  let hash = 0x811c9dc5;
  for (const [name, spec] of Object.entries(TABLES)) {
    const place = placeTable(spec, geometry, endBytes);
    assert(place.startBytes >= endBytes, 'layout/region I1: tables do not overlap');
    places[name] = place;
    endBytes = place.endBytes;
    for (const column of Object.values(place.columns)) {
      const key = `${column.label}:${column.spec.kind}:${column.offsetBytes}:${column.strideElements}:${column.lanes}`;
      for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
    }
  }
  return { geometry, places, sizeBytes: Math.ceil(endBytes / 4096) * 4096, hash };
}

/** Settings in the header that are no capacities. */
export interface RegionSettings {
  /** Polls of a held mutex before its waiter sleeps. */
  readonly spinLimit: number;
  /** True when time is advanced by hand. */
  readonly virtualClock: boolean;
}

/** One thread's windows onto the shared region. Holds views and constants only. */
export class Region {
  /** The shared buffer behind everything. */
  readonly buffer: SharedArrayBuffer;
  /** All of it as words: what locks, waits and journals are addressed by. */
  readonly words: Int32Array;
  /** All of it as doubles. */
  readonly doubles: Float64Array;
  readonly geometry: Geometry;
  /** Every table, bound. */
  readonly tables: BoundTables;

  private constructor(buffer: SharedArrayBuffer, layout: Layout) {
    this.buffer = buffer;
    this.words = new Int32Array(buffer);
    this.doubles = new Float64Array(buffer);
    this.geometry = layout.geometry;
    const tables = Object.entries(layout.places).map(([name, place]) => [name, bindTable(place, buffer)]);
    this.tables = Object.fromEntries(tables) as BoundTables;
  }

  /** Makes a new region. Throws `EINVAL` when it would be too large, `ENOMEM` when the buffer cannot be had. */
  static create(geometry: Geometry, settings: RegionSettings): Region {
    const layout = layoutOf(geometry);
    if (layout.sizeBytes > SIZE_MAX_BYTES) {
      const rule = `a region has at most ${SIZE_MAX_BYTES}: fewer tags, slots or frames`;
      throw new VmError('EINVAL', `boot: the options ask for ${layout.sizeBytes} bytes of metadata; ${rule}`);
    }
    let buffer: SharedArrayBuffer;
    try {
      buffer = new SharedArrayBuffer(layout.sizeBytes);
    } catch (cause) {
      throw new VmError('ENOMEM', `boot: a region of ${layout.sizeBytes} bytes of metadata cannot be had`, { cause });
    }
    const region = new Region(buffer, layout);
    const header = region.tables.header;
    GEOMETRY_KEYS.forEach((key, lane) => {
      header.geometry.putAt(0, lane, geometry[key]);
    });
    header.version.put(0, LAYOUT_VERSION);
    header.flavour.put(0, FLAVOUR_CODE[FLAVOUR]);
    header.layoutHash.put(0, layout.hash);
    header.spinLimit.put(0, settings.spinLimit);
    header.clockMode.put(0, settings.virtualClock ? 1 : 0);
    header.magic.put(0, MAGIC);
    return region;
  }

  /** Binds this thread to an existing region. Throws `EINVAL` or `EPOISONED` with the reason. */
  static attach(buffer: unknown): Region {
    if (!(buffer instanceof SharedArrayBuffer)) {
      throw new VmError('EINVAL', 'attach: the handle holds no SharedArrayBuffer; pass what vm.handle() returned');
    }
    const headerPlace = placeTable(TABLES.header, EMPTY_GEOMETRY, 0);
    if (buffer.byteLength < headerPlace.endBytes) {
      throw new VmError('EINVAL', `attach: a buffer of ${buffer.byteLength} bytes is too small for a region`);
    }
    const probe = bindTable(headerPlace, buffer) as BoundTables['header'];
    if (probe.magic.get(0) !== MAGIC) {
      throw new VmError('EINVAL', 'attach: the buffer holds no Pagewright region (its magic number is wrong)');
    }
    if (probe.version.get(0) !== LAYOUT_VERSION) {
      const found = probe.version.get(0);
      throw new VmError('EINVAL', `attach: the region has layout version ${found}, this build has ${LAYOUT_VERSION}`);
    }
    if (probe.flavour.get(0) !== FLAVOUR_CODE[FLAVOUR]) {
      const other = FLAVOUR === 'verify' ? 'release' : 'verify';
      throw new VmError(
        'EINVAL',
        `attach: the region was booted by the ${other} build and this thread runs the ${FLAVOUR} build; ` +
          "pass the booting thread's import conditions on (an empty execArgv loses --conditions=verify)",
      );
    }
    const geometry = {} as Record<string, number>;
    GEOMETRY_KEYS.forEach((key, lane) => {
      geometry[key] = probe.geometry.at(0, lane);
    });
    const layout = layoutOf(geometry as Geometry);
    if (layout.hash !== probe.layoutHash.get(0) || layout.sizeBytes > buffer.byteLength) {
      throw new VmError('EINVAL', 'attach: the region was laid out by a different build of the same version');
    }
    return new Region(buffer, layout);
  }
}

const EMPTY_GEOMETRY = Object.fromEntries(GEOMETRY_KEYS.map((key) => [key, 0])) as Geometry;
