/**
 * Fit: the lowest address inside a free segment at which a constrained request may start.
 *
 * PROBLEM     A request may ask for an address that is `phase` modulo `align`, that does not let it straddle a multiple of
 *             `nocross`, and that keeps it between `min` and `max`.
 * STRUCTURE   1 clip the segment to [min, max]   2 round up to the alignment   3 if the place crosses a boundary, jump to
 *             the first place behind that boundary   4 accept what ends inside.
 *             One jump is enough: every place before the boundary crosses it too, and the first place behind it is the
 *             boundary plus the phase, because the alignment divides the boundary. An alignment of at least `nocross` never
 *             crosses once [phase, phase + size - 1] does not.
 * LOCKING     Pure.
 * COSTS       Some nanoseconds; exact for integers up to 2^53 - 1: a sum that would exceed them is rounded to at least
 *             2^53, which is above every end.
 * FAILURE     -1.
 * REFERENCES  Bonwick and Adams 2001, section 4 (vmem_xalloc); docs/differences.md.
 */

import { ADDRESS_MAX, alignUp, crosses, failMisuse, isPowerOfTwo, requireObject } from '../base/index.ts';
import type { Strategy } from './kinds.ts';

/** Options of `xalloc`; what is left out does not constrain. */
export interface ConstraintOptions {
  /** Alignment: a power of two, at least the quantum. */
  readonly align?: number;
  /** The address is this much above a multiple of `align`. */
  readonly phase?: number;
  /** The range does not contain a multiple of this power of two except as its first address. */
  readonly nocross?: number;
  /** Lowest address. */
  readonly min?: number;
  /** Highest address, included. */
  readonly max?: number;
  /** How a free segment is chosen. */
  readonly strategy?: Strategy;
}

/** Checked constraints. */
export interface Constraints {
  readonly align: number;
  readonly phase: number;
  /** 0: no boundary. */
  readonly nocross: number;
  readonly min: number;
  readonly max: number;
}

/** The address for a request in the segment `[start, start + segmentSize)`, or -1. The segment is large enough. */
export function fitSegment(start: number, segmentSize: number, size: number, constraints: Constraints): number {
  const { align, phase, nocross, min, max } = constraints;
  // 1.
  const segmentLast = start + segmentSize - 1;
  const low = Math.max(start, min);
  const last = Math.min(segmentLast, max);
  if (low > last) return -1;
  // 2.
  let address = alignUp(low - phase, align) + phase;
  if (address < start) address += align;
  // 3.
  if (nocross !== 0 && crosses(address, address + size - 1, nocross)) {
    address = alignUp(address - phase, nocross) + phase;
  }
  // 4.
  return address <= last && last - address >= size - 1 ? address : -1;
}

/** Checks the options of a request of `size` (rounded), which may be `others` too. Null when they do not constrain at all. */
export function checkConstraints(
  call: string,
  options: ConstraintOptions,
  size: number,
  quantum: number,
  others: readonly string[] = [],
): Constraints | null {
  requireObject(call, 'options', options);
  for (const key in options) if (!isConstraint(key) && !others.includes(key)) failUnknown(call, key, others);
  const { align = 0, phase = 0, nocross = 0, min = 0, max = ADDRESS_MAX } = options;
  if (align !== 0 && (!isPowerOfTwo(align) || align < quantum)) {
    failMisuse(call, { align, quantum }, 'align must be a power of two and a multiple of the quantum');
  }
  if (nocross !== 0 && (!isPowerOfTwo(nocross) || nocross < quantum)) {
    failMisuse(call, { nocross, quantum }, 'nocross must be a power of two and a multiple of the quantum');
  }
  if (phase !== 0 && !(Number.isSafeInteger(phase) && phase > 0 && phase < align && phase % quantum === 0)) {
    failMisuse(call, { phase, align, quantum }, 'phase must be a multiple of the quantum below align');
  }
  if (nocross !== 0 && nocross < size) failMisuse(call, { nocross, size }, 'nocross must not be less than the size');
  if (nocross !== 0 && crosses(phase, phase + size - 1, nocross)) {
    failMisuse(call, { phase, size, nocross }, '[phase, phase + size - 1] must not cross a multiple of nocross');
  }
  if (!Number.isSafeInteger(min) || min < 0) failMisuse(call, { min }, 'min must be an address');
  if (!Number.isSafeInteger(max) || max < 0) failMisuse(call, { max }, 'max must be an address');
  if (min > max) failMisuse(call, { min, max }, 'min must not be above max');
  const aligned = align > quantum;
  if (!aligned && phase === 0 && nocross === 0 && min === 0 && max === ADDRESS_MAX) return null;
  return { align: align === 0 ? quantum : align, phase, nocross, min, max };
}

function isConstraint(key: string): boolean {
  switch (key) {
    case 'align':
    case 'phase':
    case 'nocross':
    case 'min':
    case 'max':
    case 'strategy':
      return true;
    default:
      return false;
  }
}

function failUnknown(call: string, key: string, others: readonly string[]): never {
  const known = ['align', 'phase', 'nocross', 'min', 'max', 'strategy', ...others].join(', ');
  failMisuse(call, { option: key }, `unknown option; known options: ${known}`);
}
