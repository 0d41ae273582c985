/**
 * `npm run bench -- vpm`: files through the page cache.
 *
 * Hits, misses, scans, skewed reads and writes of 4 KiB and 64 KiB, each beside `fs` with the same sizes on files that the
 * operating system has in memory, beside an `lru-cache` of Buffers that holds as many bytes as the page cache, and beside
 * a binding of mmap, if one is installed (vpm-mmap.ts). Several workers read through one page cache, beside a loop of
 * arithmetic; each of them would need an lru-cache of its own.
 */

import { closeSync, fsyncSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { boot } from 'pagewright';
import type { File } from 'pagewright/vpm';
import { type Bench, type Harness, median, type Operations, type PeerResult } from './harness.ts';
import {
  compare,
  copyTo,
  LARGE_BYTES,
  lruReader,
  MEMORY_BYTES,
  MIB,
  makeFile,
  mapped,
  overOffsets,
  PAGE,
  type Peer,
  randomOffsets,
  type Setting,
  SMALL_BYTES,
  zipfOffsets,
} from './vpm-case.ts';
import { loadMmap, MMAP_PEER } from './vpm-mmap.ts';
import { policies } from './vpm-policies.ts';
import { scaling } from './vpm-scaling.ts';
import { sharing } from './vpm-sharing.ts';
import { streams } from './vpm-streams.ts';

const COLD_PASSES = 15;
const COLD_WARM_UP_US = 150_000;

const DETAILS = `Cases of vpm
  4 KiB hit, 64 KiB hit           mapped; copied into the region; copied elsewhere
  4 KiB anywhere                  random misses in a file 4x the memory
  sequential 4, 16, 64, 256 KiB   files of 4x and half the memory that are absent from our cache; read, mapped
  4 KiB, zipf                     over a file 4x the memory
  4 KiB written                   without a sync, a sync for 64, each with a sync
  policies                        shares of hits of each replacement on real traces
  one worker, two workers         zipf through one cache, or a cache each; memory for
  scaling                         hits of disjoint and of the same pages, beside a loop of arithmetic

Peers of vpm
  fs.readSync, fs.writeSync       on files that the operating system has in memory
  lru-cache                       of Buffers, as large as the page cache, one for each worker
  ${MMAP_PEER}                         the operating system's mappings, if the binding is installed. It is no dependency:
                                    mkdir /tmp/peer && cd /tmp/peer && npm init -y
                                    npm install --build-from-source @riaskov/mmap-io
                                    PAGEWRIGHT_MMAP=/tmp/peer npm run bench -- vpm
`;

/** Brings all pages of the small file into memory. */
function bringAll(file: File): void {
  for (let at = 0; at < SMALL_BYTES; at += 32 * PAGE) file.map(at, 32 * PAGE).release();
}

function hits(harness: Harness, setting: Setting, size: number): void {
  const { vm, small, smallDescriptor, smallMapped, seed } = setting;
  const offsets = randomOffsets(seed, 4096, SMALL_BYTES, size);
  const target = new Uint8Array(size);
  const pieces = new Float64Array(96);
  const lru = lruReader(smallDescriptor, size, MEMORY_BYTES);
  const heap = vm.heap.alloc(size);
  const fromFs = overOffsets(offsets, (offset) => readSync(smallDescriptor, target, 0, size, offset));
  bringAll(small);
  const title = `${size / 1024} KiB hit`;
  const inPlace = overOffsets(offsets, (offset) => {
    const count = vm.mappings.mapInto(small.vnode, offset, size, pieces);
    vm.mappings.unmapFrom(pieces, count);
    return count;
  });
  compare(
    harness,
    `${title}, mapped`,
    inPlace,
    {
      'fs.readSync': { run: fromFs },
      'lru-cache': { run: overOffsets(offsets, (offset) => lru(offset).length) },
      ...mapped(smallMapped, offsets, size, (bytes) => bytes.length),
    },
    size === PAGE ? { atMost: 200 } : undefined,
  );
  compare(
    harness,
    `${title}, into the region`,
    overOffsets(offsets, (offset) => small.readTo(offset, heap, size)),
    {
      'fs.readSync': { run: fromFs, goal: size === PAGE ? 2 : 1 },
      ...mapped(smallMapped, offsets, size, copyTo(vm.banks.view(heap, size))),
    },
  );
  compare(
    harness,
    `${title}, elsewhere`,
    overOffsets(offsets, (offset) => small.read(offset, target)),
    {
      'fs.readSync': { run: fromFs, goal: size === PAGE ? 1.4 : 1 },
      'lru-cache': { run: overOffsets(offsets, (offset) => lru(offset).copy(target)) },
      ...mapped(smallMapped, offsets, size, copyTo(target)),
    },
  );
  vm.heap.free(heap, size);
}

function misses(harness: Harness, { large, largeDescriptor, largeMapped, seed }: Setting): void {
  const offsets = randomOffsets(seed, 65536, LARGE_BYTES, PAGE);
  const target = new Uint8Array(PAGE);
  compare(
    harness,
    '4 KiB anywhere in a file 4x the memory',
    overOffsets(offsets, (offset) => large.read(offset, target)),
    {
      'fs.readSync': { run: overOffsets(offsets, (offset) => readSync(largeDescriptor, target, 0, PAGE, offset)) },
      ...mapped(largeMapped, offsets, PAGE, copyTo(target)),
    },
  );
}

/**
 * Nanoseconds of one step of a pass, in processor time: what makes the next pass cold is not counted. The first passes warm
 * the code up, as in `measure`.
 */
function coldPasses(steps: number, makeCold: () => void, step: (number: number) => void): number {
  const pass = (): number => {
    makeCold();
    const start = process.cpuUsage();
    for (let number = 0; number < steps; number++) step(number);
    const { user, system } = process.cpuUsage(start);
    return user + system;
  };
  for (let spent = 0; spent < COLD_WARM_UP_US; ) spent += pass();
  return (1000 * median(Array.from({ length: COLD_PASSES }, pass))) / steps;
}

/** Sequential reads of a file that is opened anew for each pass, and absent from our cache then. */
function scans(harness: Harness, setting: Setting): void {
  const { vm, smallPath, largePath, smallDescriptor, largeDescriptor, mmap } = setting;
  for (const size of [PAGE, 4 * PAGE, 16 * PAGE, 64 * PAGE]) {
    const target = new Uint8Array(size);
    const pieces = new Float64Array(96);
    for (const [title, path, descriptor, bytes] of [
      ['4x the memory', largePath, largeDescriptor, LARGE_BYTES],
      ['half the memory', smallPath, smallDescriptor, SMALL_BYTES],
    ] as const) {
      const name = `sequential ${size / 1024} KiB, file ${title}`;
      if (!harness.wants(name)) continue;
      let file = vm.open(path);
      const makeCold = () => {
        vm.pages.drop(file.vnode, bytes / PAGE);
        file.close();
        file = vm.open(path);
      };
      const steps = bytes / size;
      const plain = coldPasses(steps, makeCold, (step) => readSync(descriptor, target, 0, size, step * size));
      const read = coldPasses(steps, makeCold, (step) => file.read(step * size, target));
      const peers: PeerResult[] = [{ peer: 'fs.readSync', ns: plain, goal: 1 }];
      if (mmap !== null) {
        let map: Buffer = Buffer.alloc(0);
        const remap = () => {
          map = mmap.map(descriptor, bytes, false);
        };
        const ns = coldPasses(steps, remap, (step) => target.set(map.subarray(step * size, (step + 1) * size)));
        peers.push({ peer: MMAP_PEER, ns });
      }
      harness.report(`${name}, read`, read, peers);
      if (size <= 32 * PAGE) {
        const mapped = coldPasses(steps, makeCold, (step) => {
          const count = vm.mappings.mapInto(file.vnode, step * size, size, pieces);
          vm.mappings.unmapFrom(pieces, count);
        });
        harness.report(`${name}, mapped`, mapped, [{ peer: 'fs.readSync', ns: plain }]);
      }
      file.close();
    }
  }
}

function skewed(harness: Harness, { large, largeDescriptor, largeMapped, seed }: Setting): void {
  const offsets = zipfOffsets(seed, 1 << 18, LARGE_BYTES);
  const target = new Uint8Array(PAGE);
  const lru = lruReader(largeDescriptor, PAGE, MEMORY_BYTES);
  compare(
    harness,
    '4 KiB, zipf over a file 4x the memory',
    overOffsets(offsets, (offset) => large.read(offset, target)),
    {
      'fs.readSync': { run: overOffsets(offsets, (offset) => readSync(largeDescriptor, target, 0, PAGE, offset)) },
      'lru-cache': { run: overOffsets(offsets, (offset) => lru(offset).copy(target)) },
      ...mapped(largeMapped, offsets, PAGE, copyTo(target)),
    },
  );
}

function writes(harness: Harness, setting: Setting, path: string): void {
  const { vm, mmap, seed } = setting;
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
  const map = mmap === null ? null : mmap.map(descriptor, SMALL_BYTES, true);
  const store = (offset: number) => {
    map?.set(bytes, offset);
    return PAGE;
  };
  const mapPeer = (run: Operations): Record<string, Peer> => (map === null ? {} : { [MMAP_PEER]: { run } });
  compare(harness, '4 KiB written, no sync', overOffsets(offsets, ours), {
    'fs.writeSync': { run: overOffsets(offsets, plain) },
    ...mapPeer(overOffsets(offsets, store)),
  });
  for (const batch of [64, 1]) {
    compare(
      harness,
      `4 KiB written, ${batch === 1 ? 'each with a sync' : `a sync for ${batch}`}`,
      every(batch, ours, () => file.sync()),
      {
        'fs.writeSync': { run: every(batch, plain, () => fsyncSync(descriptor)) },
        ...mapPeer(every(batch, store, () => map !== null && mmap?.sync(map, 0, SMALL_BYTES))),
      },
    );
  }
  file.close();
  closeSync(descriptor);
}

async function run(harness: Harness): Promise<void> {
  const { seed } = harness.options;
  const directory = mkdtempSync(join(tmpdir(), 'pagewright-bench-'));
  const paths = ['small', 'large', 'written'].map((name) => join(directory, name)) as [string, string, string];
  const found = await loadMmap();
  const mmap = typeof found === 'string' ? null : found;
  if (typeof found === 'string') harness.note(found);
  try {
    makeFile(paths[0], SMALL_BYTES, seed);
    makeFile(paths[1], LARGE_BYTES, seed + 1);
    makeFile(paths[2], SMALL_BYTES, seed + 2);
    const vm = boot({ memory: MEMORY_BYTES + 2 * MIB, services: 'manual' });
    const [smallDescriptor, largeDescriptor] = [openSync(paths[0], 'r'), openSync(paths[1], 'r')];
    const setting: Setting = {
      vm,
      mmap,
      smallMapped: mmap?.map(smallDescriptor, SMALL_BYTES, false) ?? null,
      largeMapped: mmap?.map(largeDescriptor, LARGE_BYTES, false) ?? null,
      small: vm.open(paths[0]),
      large: vm.open(paths[1]),
      smallPath: paths[0],
      largePath: paths[1],
      smallDescriptor,
      largeDescriptor,
      seed,
    };
    hits(harness, setting, PAGE);
    hits(harness, setting, 16 * PAGE);
    misses(harness, setting);
    scans(harness, setting);
    skewed(harness, setting);
    writes(harness, setting, paths[2]);
    const metadata = vm.statistics().metadata.bytes;
    setting.small.close();
    setting.large.close();
    vm.detach();
    closeSync(setting.smallDescriptor);
    closeSync(setting.largeDescriptor);
    streams(harness, paths[1]);
    policies(harness, paths[1], seed);
    await sharing(harness, paths[1], seed, metadata, mmap !== null);
    await scaling(harness, paths[0], SMALL_BYTES, seed);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** See the file's header. */
export const vpmBench: Bench = { name: 'vpm', about: 'files through the page cache', details: DETAILS, run };
