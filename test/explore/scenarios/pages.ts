/** Threads that read pages of one vnode through two frames: hits, misses, evictions, drops, deaths. */

import { VmError } from '../../../src/base/errors.ts';
import { GEOMETRY_KEYS, type Geometry } from '../../../src/layout/geometry.ts';
import { pageGeometry } from '../../../src/layout/page-tables.ts';
import { physGeometry } from '../../../src/layout/phys-tables.ts';
import { Region } from '../../../src/layout/region.ts';
import { checkPages } from '../../../src/page/check.ts';
import type { PageStore } from '../../../src/page/page-store.ts';
import { Pages } from '../../../src/page/pages.ts';
import { recoverPages } from '../../../src/page/recovery.ts';
import type { FrameBytes } from '../../../src/phys/banks.ts';
import { FRAME_USE, Frames } from '../../../src/phys/frames.ts';
import { FOREVER, load, store } from '../../../src/sync/atomics.ts';
import { claimSlot } from '../../../src/sync/slots.ts';
import { takeOver } from '../../../src/sync/takeover.ts';
import { Thread } from '../../../src/sync/thread.ts';
import { digestThreads, type Scenario } from '../scenario.ts';

const SMALL: Partial<Geometry> = {
  slots: 4,
  slotLanes: 1,
  lockLanes: 2,
  heldLanes: 17,
  journalLanes: 257,
  tagBuckets: 8,
  pageSize: 4096,
  pageBuckets: 2,
  pageStripes: 1,
  vnodes: 1,
  physSegments: 1,
  frameClasses: 1,
  frameColours: 1,
  frameLists: 1,
};

/** What a frame holds while it is being filled. */
const HALF = 99;
/** A word beside the frames' that is never written: a place to be preempted at. */
const IDLE = 7;

/** What the threads do. */
export interface PagesOptions {
  /**
   * What each thread does, in order: `a` to `d` read page 0 to 3, `A` to `D` read it if that is a hit, `x` drop the vnode's
   * pages.
   */
  readonly programs: readonly string[];
  readonly mortal?: readonly number[];
  readonly frames?: number;
}

/** See the file's header. */
export class PagesWorld implements Scenario, PageStore, FrameBytes {
  readonly threads: number;
  readonly mortal: readonly number[];
  readonly options: PagesOptions;
  readonly members: Thread[] = [];
  region!: Region;
  words!: Int32Array;

  constructor(options: PagesOptions) {
    this.options = options;
    this.threads = options.programs.length;
    this.mortal = options.mortal ?? [];
  }

  setUp(): void {
    const frames = this.options.frames ?? 2;
    const zeros = Object.fromEntries(GEOMETRY_KEYS.map((key) => [key, 0]));
    const chosen = { ...zeros, ...SMALL, frames, bankFrames: frames } as Geometry;
    const geometry = { ...chosen, ...pageGeometry(frames, 60), ...physGeometry(frames, false) };
    this.region = Region.create(geometry, { spinLimit: 1, virtualClock: true });
    this.words = this.region.words;
    for (let thread = 0; thread <= this.threads; thread++) {
      this.members.push(new Thread(this.region, claimSlot(this.region, thread + 1), FOREVER));
    }
    new Frames(this.member(0)).addSegment({ start: 0, end: frames });
  }

  /** Brings one page, as the vnodes do it: in steps that others can see, if they should look. */
  fill(_vnode: number, index: number, frames: Int32Array, at: number, count: number): number {
    for (let page = 0; page < count; page++) {
      store(this.words, this.contents(frames[at + page] as number), HALF);
      store(this.words, this.contents(frames[at + page] as number), index + 1);
    }
    return count;
  }

  /** Takes the bytes of modified pages. */
  write(_vnode: number, index: number, frames: Int32Array, at: number, count: number): void {
    for (let page = 0; page < count; page++) {
      const found = load(this.words, this.contents(frames[at + page] as number));
      if (found !== index + page + 1) throw new Error(`page ${index + page} is written as ${found}`);
    }
  }

  copyFrame(from: number, to: number): void {
    store(this.words, this.contents(to), HALF);
    store(this.words, this.contents(to), load(this.words, this.contents(from)));
  }

  zeroFrame(frame: number): void {
    store(this.words, this.contents(frame), 0);
  }

  run(thread: number): void {
    // Made here, since a rebuilt thread must find its private counts as they were when it started.
    const pages = new Pages(this.member(thread), new Frames(this.member(thread)), this);
    const program = this.options.programs[thread] as string;
    const out = new Int32Array(1);
    for (let step = 0; step < program.length; step++) {
      const letter = program.charCodeAt(step);
      if (letter === 120) {
        pages.drop(0, 4);
        continue;
      }
      const index = (letter | 32) - 97;
      let frame = pages.hold(0, index);
      if (frame < 0 && letter >= 97) {
        frame = this.fetch(pages, index, out);
      }
      if (frame < 0) continue;
      this.look(frame, index);
      load(this.words, this.contents(IDLE));
      this.look(frame, index);
      pages.release(frame);
    }
  }

  /** With one frame, being refused after a time limit is right. */
  fetch(pages: Pages, index: number, out: Int32Array): number {
    try {
      pages.fetch(0, index, 1, out, 0, this, true);
      return out[0] as number;
    } catch (error) {
      if (this.options.frames === 1 && error instanceof VmError && error.code === 'ENOMEM') return -1;
      throw error;
    }
  }

  look(frame: number, index: number): void {
    const found = load(this.words, this.contents(frame));
    if (found !== index + 1) throw new Error(`frame ${frame} holds ${found} instead of page ${index}`);
  }

  recover(dead: number): void {
    takeOver(this.member(this.threads), dead, [recoverPages]);
  }

  passTime(): void {
    this.region.tables.header.virtualTime.put(0, 1e9);
  }

  digest(into: number[]): void {
    const { frame, frameMap, frameGroup, framePool, page, pageBucket, pageStripe, pageClock, bucket } =
      this.region.tables;
    for (let row = 0; row < frame.rowCount; row++) {
      into.push(frame.use.get(row), bucket.head.get(row));
      into.push(page.lock.at(row, 0), page.lock.at(row, 1), page.vnode.get(row), page.index.get(row));
      into.push(page.next.get(row), page.state.get(row), page.referenced.get(row), page.modified.get(row));
    }
    into.push(frameMap.free.get(0), frameGroup.free.get(0), framePool.lock.get(0), framePool.lowestGroup.get(0));
    for (let lane = 0; lane < 8; lane++) into.push(framePool.counts.at(0, lane));
    into.push(pageBucket.head.get(0), pageBucket.head.get(1), pageStripe.lock.get(0));
    into.push(pageClock.hand.get(0), pageClock.shortage.get(0));
    digestThreads(this.members, into);
  }

  verdict(dead: number): string | null {
    const problems = [...checkPages(this.member(this.threads)).problems];
    problems.push(...this.uses());
    const { page, slot, pageStripe, pageClock, framePool } = this.region.tables;
    for (let frame = 0; frame < page.rowCount; frame++) {
      if (page.lock.at(frame, 0) !== 0 || page.lock.at(frame, 1) !== 0) problems.push(`frame ${frame} is locked`);
    }
    for (const lock of [pageStripe.lock, pageClock.shortage, framePool.lock]) {
      if (lock.get(0) !== 0) problems.push(`${lock.label} is held`);
    }
    if (dead >= 0 && slot.claim.get(dead) !== 0) problems.push(`slot ${dead} cannot be claimed again`);
    return problems.length === 0 ? null : problems.join('; ');
  }

  /** What is wrong with the uses of the frames: `Frames.check` takes their lock. */
  uses(): string[] {
    const { core } = new Frames(this.member(this.threads));
    const problems: string[] = [];
    let free = 0;
    for (let frame = 0; frame < this.region.geometry.frames; frame++) {
      const isFree = core.useOf(frame) === FRAME_USE.free;
      if (isFree) free++;
      if (isFree !== core.map.has(frame)) problems.push(`frame ${frame} has use ${core.useOf(frame)}`);
    }
    const counts = core.counts();
    if (counts.free !== free || counts.page !== counts.total - free) problems.push(`counts ${JSON.stringify(counts)}`);
    return problems;
  }

  contents(frame: number): number {
    return this.region.tables.bucket.head.address(frame);
  }

  member(thread: number): Thread {
    return this.members[thread] as Thread;
  }
}
