/** Replays traces of pmem: see test/golden/pmem/README.md for the format. */

import {
  CACHING,
  type Cookie,
  DEVICE_MAP_FLAG,
  type DeviceMapState,
  type OrderedRun,
  type PmemFailure,
} from '../../pmem/index.ts';
import { OWNER_RESOURCE, ownerUsage, unchargeUnderLock } from '../../sync/index.ts';
import { boot } from '../../system/boot.ts';
import type { Difference, Replay, Replayer } from './replay.ts';
import type { TraceHeader } from './trace.ts';

type Runs = readonly (readonly [number, number])[];

/** A device map as traces write it. */
interface Handle {
  readonly flags: number;
  readonly prot: number;
  readonly origMaxprot: number;
  readonly maxprot: number;
  readonly roff: number;
  readonly len: number;
  readonly hatAttr: number;
  readonly isPmem: boolean;
  readonly pcookie: number | null;
  readonly callbackRev: number;
}

/** One line of a trace; which fields are there depends on `op`. */
interface PmemLine {
  readonly op: string;
  readonly proc: number;
  readonly size: number;
  readonly flags: number;
  readonly largeFail: number | null;
  readonly kmemFail?: number;
  readonly rc: 'SUCCESS' | 'FAILURE';
  readonly cookie: number | null;
  readonly npages: number;
  readonly start: number;
  readonly pfns: Runs | null;
  readonly off: number;
  readonly len: number;
  readonly maxprot: number;
  readonly callbacks: boolean;
  readonly in: Handle;
  readonly out: Handle;
  readonly delta: number;
  readonly resv: number;
  readonly leaked: number;
  readonly live: number;
  readonly tried: number;
  readonly succeeded: number;
  readonly [field: string]: unknown;
}

const FAILURE: Readonly<Record<PmemFailure, string>> = {
  args: 'args',
  tables: 'kmem',
  locked: 'locked',
  // The seed knows no limit of frames.
  quota: 'locked',
  reservation: 'resv',
  frames: 'pages',
};

/** Flags of a request: exactly one of sleeping and not sleeping is asked for, and not sleeping wins. */
const SLEEP = 1;
const NO_SLEEP = 2;

/** See the file's header. */
export const pmemReplayer: Replayer = {
  kind: 'pmem',
  version: 1,
  start: (header) => new PmemReplay(header),
};

class PmemReplay implements Replay {
  readonly #vm;
  readonly #largeFrames: number;
  readonly #frames: number;
  readonly #procs: number;
  readonly #owners: number[] = [];
  readonly #cookies = new Map<number, Cookie>();
  #nextCookie = 1;
  #unloads = 0;

  constructor(header: TraceHeader) {
    const { totalPages, pageSize, pagesPerLarge, lockedLimit, resvLimit, procs, busy } = header as unknown as {
      readonly [field: string]: number;
    } & { readonly busy: Runs };
    this.#frames = totalPages as number;
    this.#largeFrames = pagesPerLarge as number;
    this.#procs = procs as number;
    this.#vm = boot({
      memory: this.#frames * (pageSize as number),
      physical: { segments: segmentsBetween(busy, this.#frames) },
      pmem: {
        largeFrames: this.#largeFrames,
        reserveLimit: resvLimit as number,
        cookies: 4096,
        runs: this.#frames,
        compat: 'seed',
      },
      owners: 1 + this.#procs,
      services: 'manual',
      clock: 'virtual',
    });
    for (let proc = 0; proc < this.#procs; proc++) {
      this.#owners.push(this.#vm.createOwner(`process ${proc}`, { lockedFrames: lockedLimit as number }));
    }
    this.#vm.pmem.setUnload(({ count }) => {
      this.#unloads += Math.abs(count);
    });
  }

  step(value: unknown): Difference | null {
    const line = value as PmemLine;
    switch (line.op) {
      case 'alloc':
        return this.#alloc(line);
      case 'free':
        return this.#free(line);
      case 'getpfns':
        return this.#getPfns(line);
      case 'setup':
      case 'remap':
        return this.#map(line);
      case 'remapSweep':
        return compare([line.tried, line.succeeded], this.#sweep());
      case 'state':
        return this.#compareState(line);
      case 'extResv':
        this.#vm.pmem.reserveOther(line.delta);
        return compare(line.resv, this.#vm.pmem.statistics().reserved);
      case 'exit':
        unchargeUnderLock(this.#vm.thread, this.#owners[line.proc] as number, OWNER_RESOURCE.lockedFrames, line.leaked);
        this.#vm.thread.commit();
        return compare(0, this.#locked(line.proc) - this.#liveLocked(line.proc));
      case 'end':
        return compare(
          [0, 0, 0],
          [this.#cookies.size, this.#vm.pmem.statistics().poolFrames, this.#vm.pageLists.outstanding],
        );
      default:
        return { expected: 'a known operation', got: line.op };
    }
  }

  dump(): string {
    return JSON.stringify(this.#vm.pmem.snapshot());
  }

  close(): void {
    this.#vm.detach();
  }

  #alloc(line: PmemLine): Difference | null {
    const { pmem } = this.#vm;
    this.#become(line.proc);
    pmem.setFaults({
      largePage: (number) => line.largeFail === null || number < line.largeFail,
      tableRow: (number) => number !== line.kmemFail,
    });
    const valid = (line.flags & (SLEEP | NO_SLEEP)) !== 0;
    // The flags are one boolean here: a request without either cannot be made, and is one that is refused.
    const cookie = pmem.tryAlloc({ size: valid ? line.size : 0, wait: line.flags === SLEEP });
    const { failure, fromPool, newLarge, newSmall, freedLarge } = pmem.lastReport;
    const after = this.#after(line.proc);
    if (cookie === null) {
      const got = {
        rc: 'FAILURE',
        why: FAILURE[failure ?? 'frames'],
        cookie: null,
        newLarge,
        freedLarge: freedLarge.length,
      };
      return compareFields(line, { ...got, ...after });
    }
    const number = this.#nextCookie++;
    this.#cookies.set(number, cookie);
    const pfns = toRuns(pmem.getPfns(cookie, 0, cookie.frames));
    const got = { rc: 'SUCCESS', cookie: number, npages: cookie.frames, fromPool, newLarge, newSmall, pfns };
    return compareFields(line, { ...got, ...after });
  }

  #free(line: PmemLine): Difference | null {
    const { pmem } = this.#vm;
    this.#become(line.proc);
    const cookie = this.#cookies.get(line.cookie ?? 0);
    if (cookie === undefined) return { expected: `cookie ${line.cookie}`, got: 'no such cookie in the trace' };
    const owner = this.#owners.indexOf(pmem.ownerOf(cookie));
    this.#unloads = 0;
    pmem.free(cookie);
    this.#cookies.delete(line.cookie ?? 0);
    const { freedLarge, freedSmall } = pmem.lastReport;
    const got = { owner, npages: cookie.frames, freedLarge, freedSmall, unloads: this.#unloads };
    return compareFields(line, { ...got, ...this.#after(owner) });
  }

  #getPfns(line: PmemLine): Difference | null {
    const cookie = this.#cookies.get(line.cookie ?? 0);
    if (cookie === undefined || line.start + line.npages > cookie.frames) return compare(line.rc, 'FAILURE');
    const pfns = toRuns(this.#vm.pmem.getPfns(cookie, line.start, line.npages));
    return compare([line.rc, line.pfns], ['SUCCESS', pfns]);
  }

  #map(line: PmemLine): Difference | null {
    const maps = this.#vm.deviceMaps;
    const map = maps.create(this.#toState(line.in));
    const request = {
      cookie: this.#cookies.get(line.cookie ?? 0) ?? null,
      offset: line.off,
      length: line.len,
      maxProtection: line.maxprot,
      flags: line.flags,
      ...(line.callbacks ? { callbackRevision: 1 } : {}),
    };
    let unloads = 0;
    const done =
      line.op === 'setup'
        ? maps.setup(map, request)
        : maps.remap(map, request, () => {
            unloads++;
          });
    const out = this.#toHandle(maps.state(map));
    maps.destroy(map);
    const recorded = line.op === 'remap' ? line.unloads : 0;
    return compare([line.rc, line.out, recorded], [done ? 'SUCCESS' : 'FAILURE', out, unloads]);
  }

  /** Every combination of setup flags and caching that a remap could be asked for. */
  #sweep(): [tried: number, succeeded: number] {
    const maps = this.#vm.deviceMaps;
    const cookie = [...this.#cookies.values()][0] as Cookie;
    const map = maps.create();
    const request = { cookie, offset: 0, length: 4096, maxProtection: 0 };
    maps.setup(map, { ...request, flags: CACHING.uncached | DEVICE_MAP_FLAG.allowRemap });
    let succeeded = 0;
    for (let bits = 0; bits < 4096; bits++) {
      const flags = (bits & 0xff) | ((bits >> 8) << 16);
      if (maps.remap(map, { ...request, flags }, () => {})) succeeded++;
    }
    maps.destroy(map);
    return [4096, succeeded];
  }

  #compareState(line: PmemLine): Difference | null {
    const { pmem, frames } = this.#vm;
    const { pool, large, reserved, cookies, largePages } = pmem.snapshot();
    const got = {
      pool: joinRuns(pool),
      lpgs: large,
      locked: this.#owners.map((_, proc) => this.#locked(proc)),
      resv: reserved,
      free: frames.counts().free,
      largeFree: this.#largeFree(),
      live: cookies,
      kmem: 3 * cookies + 2 * largePages,
    };
    const problems = this.#vm.check().flatMap((report) => report.problems);
    return compareFields(line, got) ?? compare([], problems);
  }

  /** Aligned groups of frames that are all free. */
  #largeFree(): number {
    if (this.#largeFrames === 1) return this.#vm.frames.counts().free;
    let groups = 0;
    for (const { first, count } of this.#vm.pageLists.snapshot().freeRuns) {
      const low = Math.ceil(first / this.#largeFrames);
      groups += Math.max(0, Math.floor((first + count) / this.#largeFrames) - low);
    }
    return groups;
  }

  #after(proc: number) {
    const { poolFrames, largePages, reserved } = this.#vm.pmem.statistics();
    const { free } = this.#vm.frames.counts();
    return { pool: poolFrames, largeInUse: largePages, resv: reserved, locked: this.#locked(proc), free };
  }

  #locked(proc: number): number {
    return ownerUsage(this.#vm.region)[1 + proc]?.resources.lockedFrames.used ?? -1;
  }

  #liveLocked(proc: number): number {
    const owner = this.#owners[proc];
    const live = [...this.#cookies.values()].filter((cookie) => this.#vm.pmem.ownerOf(cookie) === owner);
    return live.reduce((sum, { frames }) => sum + frames, 0);
  }

  #become(proc: number): void {
    this.#vm.region.tables.slot.owner.put(this.#vm.slot, this.#owners[proc] as number);
  }

  #toState(handle: Handle): DeviceMapState {
    return {
      flags: handle.flags,
      protection: handle.prot,
      originalMaxProtection: handle.origMaxprot,
      maxProtection: handle.maxprot,
      attributes: handle.hatAttr,
      isPmem: handle.isPmem,
      cookie: this.#cookies.get(handle.pcookie ?? 0) ?? null,
      callbackRevision: handle.callbackRev,
      offset: handle.roff,
      length: handle.len,
    };
  }

  #toHandle(state: DeviceMapState): Handle {
    const row = state.cookie?.cookie;
    const pcookie = [...this.#cookies].find(([, cookie]) => cookie.cookie === row)?.[0] ?? null;
    return {
      flags: state.flags,
      prot: state.protection,
      origMaxprot: state.originalMaxProtection,
      maxprot: state.maxProtection,
      roff: state.offset,
      len: state.length,
      hatAttr: state.attributes,
      isPmem: state.isPmem,
      pcookie,
      callbackRev: state.callbackRevision,
    };
  }
}

/** The segments that are left between runs of pages that are never free. */
function segmentsBetween(busy: Runs, frames: number): { start: number; end: number }[] {
  const segments: { start: number; end: number }[] = [];
  let at = 0;
  for (const [first, count] of [...busy].sort((a, b) => a[0] - b[0])) {
    if (first > at) segments.push({ start: at, end: first });
    at = first + count;
  }
  if (at < frames) segments.push({ start: at, end: frames });
  return segments;
}

/** Frames as runs: upward with a count above 0, downward below. */
function toRuns(frames: readonly number[]): [number, number][] {
  return joinRuns(frames.map((first) => ({ first, count: 1 })));
}

/** Joins runs as traces do: each as long as it can be. */
function joinRuns(runs: readonly OrderedRun[]): [number, number][] {
  const joined: [number, number][] = [];
  for (const { first, count } of runs) {
    for (let at = 0; at < Math.abs(count); at++) {
      const frame = first + Math.sign(count) * at;
      const last = joined[joined.length - 1];
      if (last === undefined) joined.push([frame, 1]);
      else if (frame === last[0] + last[1] && last[1] > 0) last[1]++;
      else if (frame === last[0] - 1 && last[1] === 1) last[1] = -2;
      else if (frame === last[0] + last[1] && last[1] < 0) last[1]--;
      else joined.push([frame, 1]);
    }
  }
  return joined;
}

/** Compares those fields of a line that were computed. */
function compareFields(line: PmemLine, got: Readonly<Record<string, unknown>>): Difference | null {
  const expected = Object.fromEntries(Object.keys(got).map((field) => [field, line[field]]));
  return compare(expected, got);
}

function compare(expected: unknown, got: unknown): Difference | null {
  const [expectedText, gotText] = [JSON.stringify(expected), JSON.stringify(got)];
  return expectedText === gotText ? null : { expected: expectedText, got: gotText };
}
