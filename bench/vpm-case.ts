/** What the cases of `bench vpm` have in common: files, offsets, peers. */

import { readFileSync, readSync, writeFileSync } from 'node:fs';
import { LRUCache } from 'lru-cache';
import type { VirtualMemory } from 'pagewright';
import { Prng } from 'pagewright/base';
import type { File } from 'pagewright/vpm';
import { type Goal, type Harness, measure, type Operations } from './harness.ts';
import { MMAP_PEER, type MmapPeer } from './vpm-mmap.ts';

export const PAGE = 4096;
export const MIB = 1024 ** 2;

/** A file that fits into the cache, and one four times as large. */
export const SMALL_BYTES = 8 * MIB;
export const MEMORY_BYTES = 16 * MIB;
export const LARGE_BYTES = 4 * MEMORY_BYTES;

/** Both files, open here and in plain `fs`. */
export interface Setting {
  readonly vm: VirtualMemory;
  readonly small: File;
  readonly large: File;
  readonly smallPath: string;
  readonly largePath: string;
  readonly smallDescriptor: number;
  readonly largeDescriptor: number;
  readonly seed: number;
  /** The peer that maps files, if it is installed. */
  readonly mmap: MmapPeer | null;
  /** Both files as it maps them. */
  readonly smallMapped: Buffer | null;
  readonly largeMapped: Buffer | null;
}

/** A peer, and how many times faster than it the case shall be. */
export interface Peer {
  readonly run: Operations;
  readonly goal?: number;
}

/** Writes a file of a block of chance over and over, and lets the operating system have it in memory. */
export function makeFile(path: string, bytes: number, seed: number): void {
  const random = new Prng(seed);
  const block = Buffer.from(new Uint8Array(MIB).map(() => random.below(256)));
  writeFileSync(path, Buffer.alloc(bytes, block));
  readFileSync(path);
}

/** Runs one case: ours, then the peers. */
export function compare(
  harness: Harness,
  name: string,
  ours: Operations,
  peers: Readonly<Record<string, Peer>>,
  goal?: Goal,
): void {
  if (!harness.wants(name)) return;
  const ns = measure(ours);
  if (ns === null) return;
  const results = Object.entries(peers).map(([peer, { run, goal: ratio }]) => {
    return { peer, ns: measure(run, performance.now() + harness.options.peerLimitMs), goal: ratio };
  });
  harness.report(name, ns, results, goal);
}

/** Offsets of `count` reads, anywhere in the file. */
export function randomOffsets(seed: number, count: number, fileBytes: number, size: number): Float64Array {
  const random = new Prng(seed);
  const steps = Math.floor((fileBytes - size) / size);
  return Float64Array.from({ length: count }, () => random.below(steps) * size);
}

/** Offsets of pages, few of them often: rank r about as often as 1 / r. */
export function zipfOffsets(seed: number, count: number, fileBytes: number): Float64Array {
  const random = new Prng(seed);
  const pages = fileBytes / PAGE;
  return Float64Array.from({ length: count }, () => {
    const rank = Math.floor(pages ** (random.below(1 << 20) / (1 << 20)));
    // Neighbouring ranks lie far from each other.
    return ((rank * 7919) % pages) * PAGE;
  });
}

/** An operation for each offset in turn. */
export function overOffsets(offsets: Float64Array, each: (offset: number) => number): Operations {
  let at = 0;
  return (count) => {
    let sum = 0;
    for (let i = 0; i < count; i++) {
      sum += each(offsets[at] as number);
      at = at + 1 === offsets.length ? 0 : at + 1;
    }
    return sum;
  };
}

/** The peer that maps files, over offsets of a file that it has mapped; nothing where it is not installed. */
export function mapped(
  buffer: Buffer | null,
  offsets: Float64Array,
  size: number,
  use: (bytes: Uint8Array) => number,
): Record<string, Peer> {
  if (buffer === null) return {};
  return { [MMAP_PEER]: { run: overOffsets(offsets, (offset) => use(buffer.subarray(offset, offset + size))) } };
}

/** Copies to the start of an array; for `mapped`. */
export function copyTo(target: Uint8Array): (bytes: Uint8Array) => number {
  return (bytes) => {
    target.set(bytes);
    return bytes.length;
  };
}

/** A private cache of Buffers, as programs have one in each worker. */
export function lruReader(descriptor: number, size: number, bytes: number): (offset: number) => Buffer {
  const cache = new LRUCache<number, Buffer>({ max: Math.floor(bytes / size) });
  return (offset) => {
    const found = cache.get(offset);
    if (found !== undefined) return found;
    const buffer = Buffer.allocUnsafeSlow(size);
    readSync(descriptor, buffer, 0, size, offset);
    cache.set(offset, buffer);
    return buffer;
  };
}
