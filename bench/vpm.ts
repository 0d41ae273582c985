/**
 * `npm run bench -- vpm`: files through the page cache.
 *
 * Hits, misses, scans, skewed reads and writes of 4 KiB and 64 KiB, each beside `fs` with the same sizes on files that the
 * operating system has in memory, and beside an `lru-cache` of Buffers that holds as many bytes as the page cache. Several
 * workers read through one page cache, beside a loop of arithmetic; each of them would need an lru-cache of its own. There
 * is no peer that maps files: the bindings on npm are built at installation, with headers that they download.
 */

import {
  closeSync,
  fsyncSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LRUCache } from 'lru-cache';
import { boot, type VirtualMemory } from 'pagewright';
import { Prng } from 'pagewright/base';
import type { File } from 'pagewright/vpm';
import { type Bench, type Harness, measure, median, type Operations } from './harness.ts';
import { scaling } from './vpm-scaling.ts';

const PAGE = 4096;
const COLD_PASSES = 9;
const MIB = 1024 ** 2;

/** A file that fits into the cache, one four times as large, and descriptors of both. */
interface Setting {
  readonly vm: VirtualMemory;
  readonly small: File;
  readonly large: File;
  readonly smallDescriptor: number;
  readonly largeDescriptor: number;
  readonly seed: number;
}

const SMALL_BYTES = 8 * MIB;
const MEMORY_BYTES = 16 * MIB;
const LARGE_BYTES = 4 * MEMORY_BYTES;

/** Writes a file of a block of chance over and over, and lets the operating system have it in memory. */
function makeFile(path: string, bytes: number, seed: number): void {
  const random = new Prng(seed);
  const block = Buffer.from(new Uint8Array(MIB).map(() => random.below(256)));
  writeFileSync(path, Buffer.alloc(bytes, block));
  readFileSync(path);
}

/** Runs one case: ours, then the peers. */
function compare(harness: Harness, name: string, ours: Operations, peers: Readonly<Record<string, Operations>>): void {
  if (!harness.wants(name)) return;
  const ns = measure(ours);
  if (ns === null) return;
  const results = Object.entries(peers).map(([peer, operations]) => {
    return { peer, ns: measure(operations, performance.now() + harness.options.peerLimitMs) };
  });
  harness.report(name, ns, results);
}

/** Offsets of `count` reads, anywhere in the file. */
function randomOffsets(seed: number, count: number, fileBytes: number, size: number): Float64Array {
  const random = new Prng(seed);
  const steps = Math.floor((fileBytes - size) / size);
  return Float64Array.from({ length: count }, () => random.below(steps) * size);
}

/** Offsets of pages, few of them often: rank r about as often as 1 / r. */
function zipfOffsets(seed: number, count: number, fileBytes: number): Float64Array {
  const random = new Prng(seed);
  const pages = fileBytes / PAGE;
  return Float64Array.from({ length: count }, () => {
    const rank = Math.floor(pages ** (random.below(1 << 20) / (1 << 20)));
    // Neighbouring ranks lie far from each other.
    return ((rank * 7919) % pages) * PAGE;
  });
}

function overOffsets(offsets: Float64Array, each: (offset: number) => number): Operations {
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

/** A private cache of Buffers, as programs have one in each worker. */
function lruReader(descriptor: number, size: number, bytes: number): (offset: number) => Buffer {
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

function hits(harness: Harness, setting: Setting, size: number): void {
  const { vm, small, smallDescriptor, seed } = setting;
  const offsets = randomOffsets(seed, 4096, SMALL_BYTES, size);
  const target = new Uint8Array(size);
  const pieces = new Float64Array(96);
  const lru = lruReader(smallDescriptor, size, MEMORY_BYTES);
  const heap = vm.heap.alloc(size);
  const fromFs = overOffsets(offsets, (offset) => readSync(smallDescriptor, target, 0, size, offset));
  small.read(0, new Uint8Array(SMALL_BYTES));
  const title = `${size / 1024} KiB hit`;
  const mapped = overOffsets(offsets, (offset) => {
    const count = vm.mappings.mapInto(small.vnode, offset, size, pieces);
    vm.mappings.unmapFrom(pieces, count);
    return count;
  });
  compare(harness, `${title}, mapped`, mapped, {
    'fs.readSync': fromFs,
    'lru-cache': overOffsets(offsets, (offset) => lru(offset).length),
  });
  compare(
    harness,
    `${title}, into the region`,
    overOffsets(offsets, (offset) => small.readTo(offset, heap, size)),
    {
      'fs.readSync': fromFs,
    },
  );
  compare(
    harness,
    `${title}, elsewhere`,
    overOffsets(offsets, (offset) => small.read(offset, target)),
    {
      'fs.readSync': fromFs,
      'lru-cache': overOffsets(offsets, (offset) => lru(offset).copy(target)),
    },
  );
  vm.heap.free(heap, size);
}

function misses(harness: Harness, { large, largeDescriptor, seed }: Setting): void {
  const offsets = randomOffsets(seed, 65536, LARGE_BYTES, PAGE);
  const target = new Uint8Array(PAGE);
  compare(
    harness,
    '4 KiB anywhere in a file 4x the memory',
    overOffsets(offsets, (offset) => large.read(offset, target)),
    {
      'fs.readSync': overOffsets(offsets, (offset) => readSync(largeDescriptor, target, 0, PAGE, offset)),
    },
  );
}

/** Nanoseconds of one step of a pass, in processor time: what makes the next pass cold is not counted. */
function coldPasses(steps: number, makeCold: () => void, step: (number: number) => void): number {
  const times: number[] = [];
  for (let pass = 0; pass < COLD_PASSES; pass++) {
    makeCold();
    const start = process.cpuUsage();
    for (let number = 0; number < steps; number++) step(number);
    const { user, system } = process.cpuUsage(start);
    times.push((1000 * (user + system)) / steps);
  }
  return median(times);
}

/** Sequential reads; before each pass the file is absent from our cache. */
function scans(harness: Harness, setting: Setting): void {
  const { vm, small, large, smallDescriptor, largeDescriptor } = setting;
  for (const size of [PAGE, 16 * PAGE]) {
    const target = new Uint8Array(size);
    const pieces = new Float64Array(96);
    for (const [title, file, descriptor, bytes] of [
      ['4x the memory', large, largeDescriptor, LARGE_BYTES],
      ['half the memory', small, smallDescriptor, SMALL_BYTES],
    ] as const) {
      const name = `sequential ${size / 1024} KiB, file ${title}`;
      if (!harness.wants(name)) continue;
      const drop = () => vm.pages.drop(file.vnode, bytes / PAGE);
      const steps = bytes / size;
      const plain = coldPasses(steps, drop, (step) => readSync(descriptor, target, 0, size, step * size));
      const read = coldPasses(steps, drop, (step) => file.read(step * size, target));
      const mapped = coldPasses(steps, drop, (step) => {
        const count = vm.mappings.mapInto(file.vnode, step * size, size, pieces);
        vm.mappings.unmapFrom(pieces, count);
      });
      harness.report(`${name}, read`, read, [{ peer: 'fs.readSync', ns: plain }]);
      harness.report(`${name}, mapped`, mapped, [{ peer: 'fs.readSync', ns: plain }]);
    }
  }
}

function skewed(harness: Harness, { large, largeDescriptor, seed }: Setting): void {
  const offsets = zipfOffsets(seed, 1 << 18, LARGE_BYTES);
  const target = new Uint8Array(PAGE);
  const lru = lruReader(largeDescriptor, PAGE, MEMORY_BYTES);
  compare(
    harness,
    '4 KiB, zipf over a file 4x the memory',
    overOffsets(offsets, (offset) => large.read(offset, target)),
    {
      'fs.readSync': overOffsets(offsets, (offset) => readSync(largeDescriptor, target, 0, PAGE, offset)),
      'lru-cache': overOffsets(offsets, (offset) => lru(offset).copy(target)),
    },
  );
}

function writes(harness: Harness, setting: Setting, path: string): void {
  const { vm, seed } = setting;
  const file = vm.open(path, { mode: 'rw' });
  const descriptor = openSync(path, 'r+');
  const offsets = randomOffsets(seed, 4096, SMALL_BYTES, PAGE);
  const bytes = new Uint8Array(PAGE).fill(1);
  const every = (batch: number, write: (offset: number) => number, sync: () => void): Operations => {
    let left = batch;
    return overOffsets(offsets, (offset) => {
      const written = write(offset);
      if (--left > 0) return written;
      left = batch;
      sync();
      return written;
    });
  };
  const ours = (offset: number) => file.write(offset, bytes);
  const plain = (offset: number) => writeSync(descriptor, bytes, 0, PAGE, offset);
  compare(harness, '4 KiB written, no sync', overOffsets(offsets, ours), {
    'fs.writeSync': overOffsets(offsets, plain),
  });
  compare(
    harness,
    '4 KiB written, a sync for 64',
    every(64, ours, () => file.sync()),
    { 'fs.writeSync': every(64, plain, () => fsyncSync(descriptor)) },
  );
  file.close();
  closeSync(descriptor);
}

async function run(harness: Harness): Promise<void> {
  const { seed } = harness.options;
  const directory = mkdtempSync(join(tmpdir(), 'pagewright-bench-'));
  const paths = ['small', 'large', 'written'].map((name) => join(directory, name)) as [string, string, string];
  try {
    makeFile(paths[0], SMALL_BYTES, seed);
    makeFile(paths[1], LARGE_BYTES, seed + 1);
    makeFile(paths[2], SMALL_BYTES, seed + 2);
    const vm = boot({ memory: MEMORY_BYTES + 2 * MIB, services: 'manual' });
    const setting: Setting = {
      vm,
      small: vm.open(paths[0]),
      large: vm.open(paths[1]),
      smallDescriptor: openSync(paths[0], 'r'),
      largeDescriptor: openSync(paths[1], 'r'),
      seed,
    };
    hits(harness, setting, PAGE);
    hits(harness, setting, 16 * PAGE);
    misses(harness, setting);
    scans(harness, setting);
    skewed(harness, setting);
    writes(harness, setting, paths[2]);
    const metadata = vm.region.buffer.byteLength;
    setting.small.close();
    setting.large.close();
    vm.detach();
    closeSync(setting.smallDescriptor);
    closeSync(setting.largeDescriptor);
    if (harness.wants('memory')) {
      for (const workers of [1, 2, 8]) {
        harness.reportValue(`memory for ${workers} workers, ours, metadata included`, MEMORY_BYTES + metadata, 'bytes');
        harness.reportValue(`memory for ${workers} workers, an lru-cache each`, workers * MEMORY_BYTES, 'bytes');
      }
    }
    await scaling(harness, paths[0], SMALL_BYTES, seed);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** See the file's header. */
export const vpmBench: Bench = { name: 'vpm', about: 'files through the page cache', run };
