/** Replays traces of cached mappings: see test/golden/vpm/README.md for the format. */

import { crc32 } from 'node:zlib';
import { PageHolds } from '../../page/index.ts';
import { Frames } from '../../phys/index.ts';
import { claimSlot, newWatchId, Thread } from '../../sync/index.ts';
import { boot } from '../../system/boot.ts';
import {
  type ByteMover,
  type CachedMapping,
  CachedMappings,
  copyCached,
  MAPPING_COUNTER,
  type MapAccess,
  type MappingCounter,
  mappingStatistics,
  type PutFlags,
  type SyncFlags,
} from '../../vpm/index.ts';
import { compare } from './compare.ts';
import type { Difference, Replay, Replayer } from './replay.ts';
import type { TraceHeader } from './trace.ts';
import { patternByte, StoreFailure, TraceFiles, type TraceVnode } from './vpm-files.ts';

/** One line of a trace; which fields are there depends on `op`. */
interface VpmLine {
  readonly op: string;
  readonly cpu: number;
  readonly vnode: number;
  readonly off: number;
  readonly len: number;
  readonly fetch: boolean;
  readonly rw: 'r' | 'w';
  readonly nseg: number;
  readonly iofail?: number;
  readonly fill?: number;
  readonly handle: number;
  readonly zerostart: boolean;
  readonly iov: number;
  readonly faultAt: number | null;
  readonly data: { readonly seed?: number };
  readonly flags: readonly string[];
  readonly [field: string]: unknown;
}

interface VpmHeader {
  readonly cacheEnable: boolean;
  readonly cacheEntries: number;
  readonly nfreelistReq: number;
  readonly ncpu: number;
  readonly physPages: number;
  readonly pageSize: number;
  readonly vnodes: readonly TraceVnode[];
}

const ERROR_NUMBER: Readonly<Record<string, number>> = { EIO: 5, EFAULT: 14 };

/** Bytes at the beginning of what was read that a trace shows. */
const HEAD_BYTES = 8;

/** See the file's header. */
export const vpmReplayer: Replayer = {
  kind: 'vpm',
  version: 1,
  start: (header) => new VpmReplay(header as unknown as VpmHeader, header),
};

class VpmReplay implements Replay {
  readonly #vm;
  readonly #files: TraceFiles;
  readonly #cpus: CachedMappings[] = [];
  readonly #slots: number[] = [];
  readonly #handles = new Map<number, { readonly mapping: CachedMapping; readonly cpu: CachedMappings }>();
  readonly #lists: number;
  readonly #pageSize: number;
  #nextHandle = 1;
  /** Pages that came out of a mapping without an entry: those of copies are not recorded. */
  #lost = 0;
  #operations = 0;

  constructor(header: VpmHeader, raw: TraceHeader) {
    const { cacheEnable, cacheEntries, nfreelistReq, ncpu, physPages, pageSize, vnodes } = header;
    this.#pageSize = pageSize;
    this.#vm = boot({
      memory: physPages * pageSize,
      physical: { order: 'firstIn' },
      slots: ncpu,
      mappings: {
        compat: 'seed',
        cache: cacheEnable,
        ...(cacheEnable ? { entries: cacheEntries } : {}),
        freeLists: nfreelistReq,
      },
      services: 'manual',
      clock: 'virtual',
    });
    this.#lists = this.#vm.region.geometry.mappingLists;
    if (this.#lists !== raw.nfreelist) throw new Error(`${this.#lists} free lists, recorded ${String(raw.nfreelist)}`);
    this.#files = new TraceFiles(this.#vm.banks, vnodes);
    const { region, banks, frames, pages, thread } = this.#vm;
    // Each processor of the trace is a slot; all of them belong to this thread, which plays one after another.
    this.#addCpu(new CachedMappings(thread, banks, frames, pages.holds, this.#files), thread.slot);
    for (let cpu = 1; cpu < ncpu; cpu++) {
      const other = new Thread(region, claimSlot(region, newWatchId(region)));
      const otherFrames = new Frames(other);
      const holds = new PageHolds(other);
      this.#addCpu(new CachedMappings(other, banks, otherFrames, holds, this.#files), other.slot);
    }
  }

  step(value: unknown): Difference | null {
    const line = value as VpmLine;
    if (line.op !== 'end') this.#operations++;
    this.#files.failing = line.iofail !== undefined;
    switch (line.op) {
      case 'map':
        return this.#map(line);
      case 'unmap':
        return this.#unmap(line);
      case 'copy':
        return this.#copy(line);
      case 'sync':
        return this.#sync(line);
      case 'truncate':
        this.#files.truncate(line.vnode, line.len);
        return null;
      case 'state':
        return compareFields(line, this.#state('vpms' in line));
      case 'files':
        return compareFields(line, this.#endOfFiles());
      case 'end':
        return compareFields(line, this.#end());
      default:
        return { expected: 'a known operation', got: line.op };
    }
  }

  dump(): string {
    return JSON.stringify(this.#state(true));
  }

  close(): void {
    for (const { mapping } of this.#handles.values()) mapping[Symbol.dispose]();
    this.#vm.detach();
  }

  #addCpu(mappings: CachedMappings, slot: number): void {
    this.#cpus.push(mappings);
    this.#slots.push(slot);
  }

  #map(line: VpmLine): Difference | null {
    const cpu = this.#cpus[line.cpu] as CachedMappings;
    const vnode = this.#files.commonOf(line.vnode);
    const before = this.#totals().getPages;
    const options = { access: accessOf(line.rw), fetch: line.fetch, segments: line.nseg };
    let mapping: CachedMapping;
    try {
      mapping = cpu.map(line.vnode, line.off, line.len, options);
    } catch (error) {
      const got = { rc: numberOf(error), newpage: 0, handle: null, maps: [] };
      return compareFields(line, { ...got, ...this.#after(vnode, before) });
    }
    const handle = this.#nextHandle++;
    this.#handles.set(handle, { mapping, cpu });
    const base = line.off - (line.off % this.#pageSize);
    const frames = mapping.frames.subarray(0, mapping.count);
    if (this.#lists > 0) this.#lost += frames.filter((frame) => cpu.pages.entries.namedBy(frame) < 0).length;
    if (line.fill !== undefined) {
      const first = line.fill;
      frames.forEach((frame, page) => {
        this.#files.pageBytes(frame).forEach((_, at, bytes) => {
          bytes[at] = patternByte(first + page, at);
        });
      });
      this.#files.extend(vnode, base + mapping.count * this.#pageSize);
    }
    const maps = Array.from(frames, (frame, page) => [base + page * this.#pageSize, frame, mapping.entries[page]]);
    const crc = [...frames].reduce((sum, frame) => crc32(this.#bytesOf(frame), sum), 0);
    const got = { rc: 0, newpage: mapping.created > 0 ? 1 : 0, handle, maps, crc };
    return compareFields(line, { ...got, ...this.#after(vnode, before) });
  }

  #unmap(line: VpmLine): Difference | null {
    const live = this.#handles.get(line.handle);
    if (live === undefined) return { expected: `handle ${line.handle}`, got: 'no such handle in the trace' };
    this.#handles.delete(line.handle);
    live.mapping.release(accessOf(line.rw));
    return null;
  }

  #copy(line: VpmLine): Difference | null {
    const cpu = this.#cpus[line.cpu] as CachedMappings;
    const vnode = this.#files.commonOf(line.vnode);
    const before = this.#totals();
    const user = new TraceBytes(line.iov, line.faultAt, line.data.seed);
    const options = { access: accessOf(line.rw), fetch: line.fetch, zeroStart: line.zerostart };
    let result = { rc: 0, newpage: 0 };
    try {
      const report = copyCached(cpu, line.vnode, line.off, line.len, user, options);
      result = { rc: report.faulted ? (ERROR_NUMBER.EFAULT as number) : 0, newpage: report.created > 0 ? 1 : 0 };
    } catch (error) {
      result = { rc: numberOf(error), newpage: 0 };
    }
    const loff = line.off + user.moved;
    if (line.rw === 'w' && user.moved > 0) this.#files.extend(vnode, loff);
    const got = {
      ...(line.rw === 'r' ? { data: user.summary() } : {}),
      ...result,
      moved: user.moved,
      loff,
      kzeroFault: this.#totals().zeroFaults - before.zeroFaults,
      pages: this.#windowOf(vnode, line.off),
    };
    return compareFields(line, { ...got, ...this.#after(vnode, before.getPages) });
  }

  #sync(line: VpmLine): Difference | null {
    const report = (this.#cpus[0] as CachedMappings).sync(line.vnode, line.off, line.len, flagsOf(line.flags));
    if (report === null) return compareFields(line, { rc: 0, called: false });
    const offsets = (indices: readonly number[]) => indices.map((index) => index * this.#pageSize);
    return compareFields(line, {
      rc: 0,
      called: true,
      psize: report.length,
      bflags: namesOf(report.flags),
      written: offsets(report.written),
      freed: offsets(report.freed),
      inval: offsets(report.invalidated),
      busy: offsets(report.busy),
    });
  }

  /** The pages of the two that a copy may touch that are in memory now. */
  #windowOf(vnode: number, offset: number): [number, number, number, number][] {
    const { pages } = this.#cpus[0] as CachedMappings;
    const first = Math.floor(offset / this.#pageSize);
    const found: [number, number, number, number][] = [];
    for (const index of [first, first + 1]) {
      const frame = pages.frameOf(vnode, index);
      if (frame < 0) continue;
      found.push([index * this.#pageSize, frame, pages.entries.namedBy(frame), crc32(this.#bytesOf(frame))]);
    }
    return found;
  }

  #state(full: boolean): Record<string, unknown> {
    const { pages } = this.#cpus[0] as CachedMappings;
    const { hits, misses } = this.#totals();
    const cached = this.#lists > 0;
    const perCpu = this.#cpus.map((cpu, number) => [
      cpu.counters[MAPPING_COUNTER.hits],
      cpu.counters[MAPPING_COUNTER.misses],
      this.#vm.region.tables.mappingSlot.rotor.get(this.#slots[number] as number),
    ]);
    const lists = Array.from({ length: this.#lists }, (_, list) => {
      const { allocate, queues } = pages.entries.queues(list);
      return { allocq: allocate, alloc: queues[allocate], rel: queues[1 - allocate] };
    });
    const state = {
      hits,
      misses,
      perCpu: cached ? perCpu : [],
      lists,
      freePages: this.#vm.frames.counts().free,
      cachelist: pages.clean.frames(),
    };
    return full ? { ...state, vpms: this.#remembered() } : state;
  }

  #remembered(): ([number, number, number, number] | null)[] {
    const { entries } = (this.#cpus[0] as CachedMappings).pages;
    return Array.from({ length: this.#vm.region.geometry.mappingEntries }, (_, entry) => {
      const page = entries.pageOf(entry);
      if (page === null) return null;
      const uses = this.#cpus.reduce((sum, cpu) => sum + cpu.pages.entries.depthOf(entry), 0);
      return [page.vnode, page.index * this.#pageSize, page.frame, uses];
    });
  }

  #endOfFiles(): Record<string, unknown> {
    const { vnodes } = this.#files;
    for (const vnode of vnodes) {
      (this.#cpus[0] as CachedMappings).sync(vnode, 0, 0, { write: true, invalidate: true });
    }
    return {
      len: vnodes.map((vnode) => this.#files.size(vnode)),
      crc: vnodes.map((vnode) => crc32(this.#files.bytesOf(vnode))),
    };
  }

  #end(): Record<string, unknown> {
    const { hits, misses, created, reclaimed, stolen, mapped, unmapped } = this.#totals();
    const problems = this.#vm.check().flatMap((report) => report.problems);
    if (problems.length > 0) throw new Error(problems.slice(0, 3).join('; '));
    return {
      ops: this.#operations,
      ...{ hits, misses, created, reclaimed, stolen },
      mapin: mapped,
      mapout: unmapped,
      lostRefMaps: this.#lost,
    };
  }

  #after(vnode: number, getPagesBefore: number): Record<string, number> {
    const { getPages, hits, misses } = this.#totals();
    return { getpage: getPages - getPagesBefore, flen: this.#files.size(vnode), hits, misses };
  }

  #totals(): Record<MappingCounter, number> {
    return mappingStatistics(this.#vm.region);
  }

  /** A copy of the bytes of a frame: decoders of Node reject shared ones. */
  #bytesOf(frame: number): Uint8Array {
    return Uint8Array.from(this.#files.pageBytes(frame));
  }
}

/** The user's side of a copy: so many bytes, of which those that would pass a certain count fault. */
class TraceBytes implements ByteMover {
  readonly #bytes: Uint8Array;
  readonly #faultAt: number;
  moved = 0;

  constructor(length: number, faultAt: number | null, seed: number | undefined) {
    this.#bytes = new Uint8Array(length);
    this.#faultAt = faultAt ?? Number.POSITIVE_INFINITY;
    if (seed === undefined) return;
    for (let at = 0; at < length; at++) this.#bytes[at] = patternByte(seed, at);
  }

  move(bytes: Uint8Array, at: number, length: number, access: MapAccess): number {
    const count = Math.min(length, this.#bytes.length - this.moved);
    if (this.moved + count > this.#faultAt) return -1;
    const user = this.#bytes.subarray(this.moved, this.moved + count);
    if (access === 'read') user.set(bytes.subarray(at, at + count));
    else bytes.set(user, at);
    this.moved += count;
    return count;
  }

  summary(): { readonly crc: number; readonly head: string } {
    const got = this.#bytes.subarray(0, this.moved);
    return { crc: crc32(got), head: Buffer.from(got.subarray(0, HEAD_BYTES)).toString('hex') };
  }
}

function accessOf(rw: 'r' | 'w'): MapAccess {
  return rw === 'w' ? 'write' : 'read';
}

function numberOf(error: unknown): number {
  const { code } = error as { readonly code?: string };
  const known = ERROR_NUMBER[code ?? ''];
  if (known === undefined || !(error instanceof StoreFailure || code === 'EFAULT')) throw error;
  return known;
}

const SYNC_FLAG: Readonly<Record<string, keyof SyncFlags>> = {
  WRITE: 'write',
  ASYNC: 'async',
  INVAL: 'invalidate',
  DESTROY: 'destroy',
  FREE: 'free',
  DONTNEED: 'dontNeed',
};

function flagsOf(names: readonly string[]): SyncFlags {
  return Object.fromEntries(names.map((name) => [SYNC_FLAG[name], true]));
}

function namesOf(flags: PutFlags): string[] {
  const names: [keyof PutFlags, string][] = [
    ['async', 'ASYNC'],
    ['invalidate', 'INVAL'],
    ['truncate', 'TRUNC'],
    ['free', 'FREE'],
    ['dontNeed', 'DONTNEED'],
  ];
  return names.filter(([flag]) => flags[flag] === true).map(([, name]) => name);
}

/** Compares those fields of a line that were computed. */
function compareFields(line: VpmLine, got: Readonly<Record<string, unknown>>): Difference | null {
  const expected = Object.fromEntries(Object.keys(got).map((field) => [field, line[field]]));
  return compare(expected, got);
}
