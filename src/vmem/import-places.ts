/**
 * Places for an import: where the source must have a range so that a constrained request fits into it.
 *
 * PROBLEM     A request with constraints may need a range of a source whose quantum, the unit, is coarser than its own, and
 *             whose addresses are therefore no places for the request themselves.
 * STRUCTURE   A place is covered by the units that it touches. Ranges are described by size and constraints:
 *
 *               align >= unit   phase = 300, unit 128, align 512:   |...|44####|      each place lies equally in its first
 *                                                               256 ^ the range      unit: one kind of range
 *               align < unit    the lowest place in whole units is at `phase`: all ranges that lie between `min` and `max`
 *                               are alike. The unit that `min` lies in, and the one that `max` lies in, are cut:
 *                               the ranges that begin with the one and that end with the other are looked at by themselves.
 *                               A place touches as few units as its size has, or one more.
 *
 *             A boundary of at least the unit is crossed by a place if and only if it is crossed by the units that cover it. A
 *             smaller one is a matter of the place in its unit.
 * INVARIANTS  I1 a free segment of the source that has a place for the request has one of the ranges.   I2 each range has a
 *             place for the request.
 * LOCKING     Pure.
 * COSTS       At most six ranges.
 * FAILURE     None: an empty list says that no address can satisfy the request.
 * REJECTED    One range that is larger by `align` and a unit: a segment that has the place may be smaller than that.
 * REFERENCES  fit.ts.
 */

import { ADDRESS_MAX, alignDown, alignUp } from '../base/index.ts';
import { type Constraints, fitSegment } from './fit.ts';

/** Ranges of one size, given by constraints in which the source can be asked for them. */
export interface ImportPlace {
  readonly size: number;
  readonly place: Constraints;
}

/** The last address of the unit that an address lies in, or the last one that there is. */
export function lastOfUnit(address: number, unit: number): number {
  return Math.min(ADDRESS_MAX, address - (address % unit) + (unit - 1));
}

/** See the file's header. `unit` is the source's quantum; `size` a multiple of the arena's. */
export function importPlaces(size: number, constraints: Constraints, unit: number): ImportPlace[] {
  const { align, phase, nocross, min, max } = constraints;
  const boundary = nocross >= unit ? nocross : 0;
  if (align >= unit) {
    const skipped = phase % unit;
    const covered = alignUp(skipped + size, unit);
    const last = Math.min(ADDRESS_MAX, max + (covered - skipped - size));
    return [
      {
        size: covered,
        place: { align, phase: phase - skipped, nocross: boundary, min: Math.max(0, min - skipped), max: last },
      },
    ];
  }
  const places: ImportPlace[] = [];
  const least = alignUp(size, unit);
  // Between the cut units.
  const covered = alignUp(phase + size, unit);
  const first = alignUp(min, unit);
  const last = lastOfUnit(max, unit) === max ? max : alignDown(max, unit) - 1;
  if (last >= first && (boundary === 0 || covered <= boundary)) {
    places.push({ size: covered, place: { align: unit, phase: 0, nocross: boundary, min: first, max: last } });
  }
  // With a cut unit at one end.
  const cut = (covered: number, start: number) => {
    if (start < 0 || fitSegment(start, covered, size, constraints) < 0) return;
    places.push({
      size: covered,
      place: { align: unit, phase: 0, nocross: 0, min: start, max: start + covered - 1 },
    });
  };
  for (const covered of [least, least + unit]) {
    if (first !== min) cut(covered, alignDown(min, unit));
    if (last !== max) cut(covered, lastOfUnit(max, unit) + 1 - covered);
  }
  return places;
}
