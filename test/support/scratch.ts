/** Scratch files with contents that say where they come from. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A directory of its own for one test. */
export class Scratch {
  readonly directory: string = mkdtempSync(join(tmpdir(), 'pagewright-'));

  /** Writes a file of `size` bytes with `patternByte` contents and returns its path. */
  file(name: string, size: number, seed = 0): string {
    const path = join(this.directory, name);
    writeFileSync(path, pattern(seed, 0, size));
    return path;
  }

  /** Removes everything. */
  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** The byte that belongs at a position of a file. */
export function patternByte(seed: number, position: number): number {
  return (seed * 131 + position * 7 + (position >> 8) * 13 + (position >> 16) * 29) & 255;
}

/** The bytes that belong in a range of a file. */
export function pattern(seed: number, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = patternByte(seed, offset + i);
  return bytes;
}

/** True when the bytes are those that belong at `offset`; compares without allocating. */
export function matches(bytes: Uint8Array, seed: number, offset: number): boolean {
  for (let i = 0; i < bytes.length; i++) if (bytes[i] !== patternByte(seed, offset + i)) return false;
  return true;
}
