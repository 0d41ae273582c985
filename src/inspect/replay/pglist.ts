/** Replays traces of page lists: see test/golden/pglist/README.md for the format. */

import { VmError } from '../../base/index.ts';
import { type FrameRun, type PageList, type PageListPressure, PageLists } from '../../phys/index.ts';
import { boot } from '../../system/boot.ts';
import type { Difference, Replay, Replayer } from './replay.ts';
import type { TraceHeader } from './trace.ts';

/** Runs of pages: physical address of the first, count. */
type Pages = readonly (readonly [number, number])[];

/** One line of a trace; which fields are there depends on `op`. */
interface PglistLine {
  readonly op: string;
  readonly id: number;
  readonly start: number;
  readonly end: number;
  readonly availStart: number;
  readonly availEnd: number;
  readonly freelist: number;
  readonly size: number;
  readonly low: number;
  readonly high: number;
  readonly alignment: number;
  readonly boundary: number;
  readonly nsegs: number;
  readonly waitok: boolean;
  readonly rc: 0 | string;
  readonly pages: Pages;
  readonly page: number | null;
  readonly waits?: number;
  readonly reclaimed?: number;
  readonly reclaimLeft?: number;
  readonly free: number;
  readonly hints: Readonly<Record<string, number>>;
  readonly freeruns: readonly (readonly [number, number])[];
  readonly heads: readonly (readonly (readonly number[])[])[];
}

/** Frames of the memory that traces are replayed in: no trace names a higher one. */
const FRAMES = 16384;
const PAGE_SIZE = 4096;

/** See the file's header. */
export const pglistReplayer: Replayer = {
  kind: 'pglist',
  version: 1,
  start: (header) => new PglistReplay(header),
};

/** The pagedaemon of the recording: frees pages handed to it, in their order, a batch at a time. */
class RecordedPagedaemon implements PageListPressure {
  readonly #lists: PageLists;
  readonly #batch: number;
  readonly #queue: number[] = [];
  #next = 0;
  waits = 0;
  reclaimed = 0;

  constructor(lists: PageLists, batch: number) {
    this.#lists = lists;
    this.#batch = batch;
  }

  get left(): number {
    return this.#queue.length - this.#next;
  }

  push(run: FrameRun): void {
    for (let frame = run.first; frame < run.first + run.count; frame++) this.#queue.push(frame);
  }

  reclaimable(): boolean {
    return this.left > 0;
  }

  reclaim(): void {
    this.waits++;
    if (this.left === 0) throw new VmError('ENOMEM', 'the recorded pagedaemon has nothing left to free');
    for (let freed = 0; freed < this.#batch && this.left > 0; freed++) {
      this.#lists.giveFrame(this.#queue[this.#next++] as number);
      this.reclaimed++;
    }
  }

  kick(): void {}
}

class PglistReplay implements Replay {
  readonly #vm;
  readonly #lists: PageLists;
  readonly #pagedaemon: RecordedPagedaemon;

  constructor(header: TraceHeader) {
    const { strategy, nfreelist, ncolors, reservePagedaemon, reserveKernel, reclaimBatch } = header;
    this.#vm = boot({
      memory: FRAMES * PAGE_SIZE,
      physical: {
        order: 'lastIn',
        classes: nfreelist as number,
        colours: ncolors as number,
        segments: [],
        segmentOrder: strategy === 'bigfirst' ? 'bigFirst' : 'first',
      },
      services: 'manual',
      clock: 'virtual',
    });
    this.#lists = new PageLists(this.#vm.frames, { compat: 'seed' });
    this.#lists.setReserves(reservePagedaemon as number, reserveKernel as number);
    this.#pagedaemon = new RecordedPagedaemon(this.#lists, reclaimBatch as number);
    this.#lists.setPressure(this.#pagedaemon);
  }

  step(value: unknown): Difference | null {
    const line = value as PglistLine;
    switch (line.op) {
      case 'physseg':
        this.#vm.frames.addSegment({
          start: line.start,
          end: line.end,
          availableStart: line.availStart,
          availableEnd: line.availEnd,
          freeList: line.freelist,
        });
        return null;
      case 'pglistalloc':
        return this.#alloc(line);
      case 'pglistfree':
        this.#lists.free({ runs: line.pages.map(toRun), frameCount: 0 });
        return null;
      case 'pagealloc': {
        const frame = this.#lists.tryTakeFrame();
        return compare([line.rc, line.page], frame < 0 ? ['ENOMEM', null] : [0, frame * PAGE_SIZE]);
      }
      case 'pagefree':
        this.#lists.giveFrame((line.page ?? -1) / PAGE_SIZE);
        return null;
      case 'reclaimable':
        for (const run of line.pages) this.#pagedaemon.push(toRun(run));
        return null;
      case 'state':
        return this.#compareState(line);
      case 'note':
        return null;
      default:
        return { expected: 'a known operation', got: line.op };
    }
  }

  dump(): string {
    const { free, hints, freeRuns, heads } = this.#lists.snapshot();
    const runs = freeRuns.map(({ first, count }) => `${first}+${count}`).join(' ');
    return `free ${free}\nhints ${hints.join(' ')}\nfree runs ${runs}\nheads ${JSON.stringify(heads)}`;
  }

  summary(): string {
    return `${this.#lists.outstanding} frames outstanding at the end`;
  }

  close(): void {
    this.#vm.detach();
  }

  #alloc(line: PglistLine): Difference | null {
    const { size, low, high, alignment, boundary, nsegs, waitok } = line;
    const pagedaemon = this.#pagedaemon;
    pagedaemon.waits = 0;
    pagedaemon.reclaimed = 0;
    let rc: 0 | string = 0;
    let list: PageList | null = null;
    try {
      list = this.#lists.tryAlloc({ size, low, high, alignment, boundary, segments: nsegs, wait: waitok });
      if (list === null) rc = 'ENOMEM';
    } catch (error) {
      if (!(error instanceof VmError) || error.code !== 'EINVAL') throw error;
      rc = error.code;
    }
    const pages = (list?.runs ?? []).map(({ first, count }) => [first * PAGE_SIZE, count]);
    const waited = waitok ? [pagedaemon.waits, pagedaemon.reclaimed, pagedaemon.left] : [];
    const recorded = waitok ? [line.waits, line.reclaimed, line.reclaimLeft] : [];
    return compare([line.rc, line.pages, recorded], [rc, pages, waited]);
  }

  #compareState(line: PglistLine): Difference | null {
    const { free, hints, freeRuns, heads } = this.#lists.snapshot();
    const recordedHints = hints.map((_, row) => line.hints[row]);
    const recordedHeads = line.heads.map((colours) => colours.map((list) => list.map((page) => page / PAGE_SIZE)));
    const runs = freeRuns.map(({ first, count }) => [first, count]);
    const difference =
      compare([line.free, recordedHints], [free, hints]) ??
      compare(line.freeruns, runs) ??
      compare(recordedHeads, heads);
    if (difference !== null) return difference;
    const { problems } = this.#vm.frames.check();
    return problems.length === 0 ? null : { expected: 'sound frames', got: problems.join('; ') };
  }
}

function toRun([page, count]: readonly [number, number]): FrameRun {
  return { first: page / PAGE_SIZE, count };
}

function compare(expected: unknown, got: unknown): Difference | null {
  const [expectedText, gotText] = [JSON.stringify(expected), JSON.stringify(got)];
  return expectedText === gotText ? null : { expected: expectedText, got: gotText };
}
