/**
 * Exact arithmetic on addresses and sizes.
 *
 * PROBLEM     Addresses are integers up to 2^53 - 1 held in doubles, while JavaScript's bit operators work on 32 bits.
 * STRUCTURE   Pure functions. Rounding to a power of two multiplies by the exact inverse and floors: both steps are
 *             exact for integers below 2^53, because scaling by a power of two only changes the exponent.
 * COSTS       About 1 ns each; `%` on large doubles costs eight times that.
 * FAILURE     None: arguments are checked by the callers that take them from users.
 */

/** The largest address or size: every integer up to here is exact in a double. */
export const ADDRESS_MAX = Number.MAX_SAFE_INTEGER;

const TWO_32 = 4294967296;

/** Floor of the binary logarithm of an integer from 1 to 2^53 - 1. */
export function log2Floor(value: number): number {
  return value < TWO_32 ? 31 - Math.clz32(value) : 63 - Math.clz32(value / TWO_32);
}

/** True for 1, 2, 4, ... 2^52. */
export function isPowerOfTwo(value: number): boolean {
  return Number.isSafeInteger(value) && value > 0 && 2 ** log2Floor(value) === value;
}

/** The largest multiple of `unit` (a power of two) that is not above `value`. Negative values round down too. */
export function alignDown(value: number, unit: number): number {
  return Math.floor(value / unit) * unit;
}

/** The smallest multiple of `unit` (a power of two) that is not below `value`. */
export function alignUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

/** True when `[first, last]` touches both sides of a multiple of `boundary` (a power of two). */
export function crosses(first: number, last: number, boundary: number): boolean {
  return Math.floor(first / boundary) !== Math.floor(last / boundary);
}

/** The smallest power of two that is not below `value` (1 for values up to 1). */
export function ceilPowerOfTwo(value: number): number {
  return value <= 1 ? 1 : 2 ** (log2Floor(value - 1) + 1);
}
