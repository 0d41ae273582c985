/** Sizes at the edges: text such as `64 MiB` becomes a number of bytes, and back. */

import { failMisuse } from './errors.ts';

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  KIB: 1024,
  MIB: 1024 ** 2,
  GIB: 1024 ** 3,
  TIB: 1024 ** 4,
  K: 1024,
  M: 1024 ** 2,
  G: 1024 ** 3,
  T: 1024 ** 4,
};

/**
 * Bytes of a size given as a number or as text: `4096`, `'64 MiB'`, `'1.5GiB'`, `'64M'` (binary units).
 * Throws `EINVAL` for anything that is not a whole number of bytes from 0 to 2^53 - 1.
 */
export function parseSize(size: number | string, call = 'parseSize'): number {
  if (typeof size === 'number') {
    if (Number.isSafeInteger(size) && size >= 0) return size;
    return failMisuse(call, { size }, 'a size must be a whole number of bytes, not negative');
  }
  if (typeof size !== 'string') return failMisuse(call, { size }, 'a size is a number of bytes, or text');
  const match = /^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$/.exec(size);
  const factor = match ? UNITS[(match[2] ?? '').toUpperCase()] : undefined;
  const sizeBytes = match && factor !== undefined ? Number(match[1]) * factor : Number.NaN;
  if (Number.isSafeInteger(sizeBytes)) return sizeBytes;
  return failMisuse(call, { size }, "a size must look like 4096, '64 KiB', '64 MiB' or '1.5 GiB'");
}

/** `67108864` becomes `64 MiB`; one decimal when it is not a whole number of units. */
export function formatSize(sizeBytes: number): string {
  const names = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = sizeBytes;
  let unit = 0;
  while (value >= 1024 && unit < names.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${names[unit]}`;
}
