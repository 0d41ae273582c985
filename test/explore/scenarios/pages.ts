/**
 * Threads that read and write pages of one vnode through two frames: hits, misses, evictions, writing back, relocations, the
 * cache list, drops, deaths.
 */

import { VmError } from '../../../src/base/errors.ts';
import { GEOMETRY_KEYS, type Geometry } from '../../../src/layout/geometry.ts';
import { pageGeometry } from '../../../src/layout/page-tables.ts';
import { physGeometry } from '../../../src/layout/phys-tables.ts';
import { Region } from '../../../src/layout/region.ts';
import { checkPages } from '../../../src/page/check.ts';
import { PAGE_STATE } from '../../../src/page/page-hash.ts';
import type { PageStore } from '../../../src/page/page-store.ts';
import { Pages } from '../../../src/page/pages.ts';
import { recoverPages } from '../../../src/page/recovery.ts';
import type { FrameBytes } from '../../../src/phys/banks.ts';
import { FRAME_USE, Frames } from '../../../src/phys/frames.ts';
import { FOREVER, load, store } from '../../../src/sync/atomics.ts';
import { LOCK_OWNER } from '../../../src/sync/mutex.ts';
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
  tagBuckets: 16,
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
/** Words of `bucket.head`: contents of the frames, of pages in the store, the last version of each that was acknowledged. */
const STORED = 4;
const ACKNOWLEDGED = 8;
/** One that is never written: a place to be preempted at. */
const IDLE = 15;
/** A content is the page's index + 1 with a version above it. */
const VERSION_SHIFT = 8;

/** What the threads do. */
export interface PagesOptions {
  /**
   * What each thread does, in order: `a` to `d` read page 0 to 3, `A` to `D` read it if that is a hit, `0` to `3` write it
   * (one thread for each page), `s` write back, `m` move a page to another frame, `n` give page 0 the name of page 3,
   * `r` put pages on the cache list, `x` drop the clean ones, `p` read pages 0 and 1 together, `q` read page 1 and bring page 2 along.
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
      const stored = load(this.words, this.contents(STORED + index + page));
      store(this.words, this.contents(frames[at + page] as number), stored === 0 ? index + page + 1 : stored);
    }
    return count;
  }

  /** Takes the bytes of modified pages. */
  write(_vnode: number, index: number, frames: Int32Array, at: number, count: number): void {
    for (let page = 0; page < count; page++) {
      const found = load(this.words, this.contents(frames[at + page] as number));
      if ((found & 0xff) !== index + page + 1) throw new Error(`page ${index + page} is written as ${found}`);
      store(this.words, this.contents(STORED + index + page), found);
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
    const frames = new Frames(this.member(thread));
    const pages = new Pages(this.member(thread), frames, this);
    const written = [0, 0, 0, 0];
    const program = this.options.programs[thread] as string;
    const out = new Int32Array(1);
    for (let step = 0; step < program.length; step++) {
      const letter = program.charCodeAt(step);
      // A place to be preempted at: plain reads belong to the step before them.
      if (letter < 97 || letter > 108) load(this.words, this.contents(IDLE));
      if (letter < 52) {
        this.writePage(pages, letter - 48, out, written);
        continue;
      }
      if (letter > 108) {
        this.manage(pages, frames, letter, written);
        continue;
      }
      const index = (letter | 32) - 97;
      let frame = pages.hold(0, index);
      if (frame < 0 && letter >= 97) {
        frame = this.fetch(pages, index, out);
      }
      if (frame < 0) continue;
      const version = load(this.words, this.contents(ACKNOWLEDGED + index));
      this.look(frame, index, version);
      load(this.words, this.contents(IDLE));
      this.look(frame, index, version);
      pages.release(frame);
    }
  }

  /** Stores a new version, as writers do it. */
  writePage(pages: Pages, index: number, out: Int32Array, written: number[]): void {
    const held = pages.hold(0, index);
    const frame = held < 0 ? this.fetch(pages, index, out) : held;
    if (frame < 0) return;
    pages.setModified(frame);
    const version = (load(this.words, this.contents(frame)) >> VERSION_SHIFT) + 1;
    store(this.words, this.contents(frame), (version << VERSION_SHIFT) | (index + 1));
    pages.setModified(frame);
    pages.release(frame);
    written[index] = version;
    store(this.words, this.contents(ACKNOWLEDGED + index), version);
  }

  /** What `s`, `m`, `n`, `p`, `q`, `r` and `x` do. */
  manage(pages: Pages, frames: Frames, letter: number, written: readonly number[]): void {
    if (letter === 115) {
      pages.writeBack(0, 0, 4, this);
      for (let index = 0; index < 4; index++) {
        const stored = load(this.words, this.contents(STORED + index)) >> VERSION_SHIFT;
        if (stored < (written[index] as number)) throw new Error(`page ${index} was not written back`);
      }
    } else if (letter === 109) {
      for (let frame = 0; frame < this.region.geometry.frames; frame++) {
        if (!pages.relocate(frame, FRAME_USE.list)) continue;
        frames.give(frame, FRAME_USE.list);
        break;
      }
    } else if (letter === 110) {
      this.rename(pages, 0, 3);
    } else if (letter === 112) {
      this.fetchRun(pages, 0, 2, 0);
    } else if (letter === 113) {
      this.fetchRun(pages, 1, 1, 1);
    } else if (letter === 114) {
      pages.retire(0, 0, 4);
    } else {
      pages.drop(0, 4);
    }
  }

  /** A clean page becomes another one, if that is not in memory, and gets its bytes. */
  rename(pages: Pages, index: number, to: number): void {
    const frame = pages.holdExclusive(0, index);
    if (frame < 0) return;
    this.look(frame, index, 0);
    if (pages.isClean(frame) && pages.rename(frame, 0, to)) {
      store(this.words, this.contents(frame), HALF);
      const stored = load(this.words, this.contents(STORED + to));
      store(this.words, this.contents(frame), stored === 0 ? to + 1 : stored);
    }
    pages.holds.releaseExclusive(frame);
  }

  /** Pages side by side in one fetch. */
  fetchRun(pages: Pages, index: number, count: number, ahead: number): void {
    const out = new Int32Array(2);
    const held = pages.fetch(0, index, count, out, 0, this, false, ahead);
    if (held < 1 || held > count) throw new Error(`${held} pages are held instead of ${count}`);
    for (let lane = 0; lane < held; lane++) this.look(out[lane] as number, index + lane, 0);
    load(this.words, this.contents(IDLE));
    for (let lane = 0; lane < held; lane++) {
      this.look(out[lane] as number, index + lane, 0);
      pages.release(out[lane] as number);
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

  look(frame: number, index: number, version: number): void {
    const found = load(this.words, this.contents(frame));
    if ((found & 0xff) !== index + 1) throw new Error(`frame ${frame} holds ${found} instead of page ${index}`);
    if (found >> VERSION_SHIFT < version) throw new Error(`page ${index} has lost version ${version}`);
  }

  recover(dead: number): void {
    takeOver(this.member(this.threads), dead, [
      () => this.recoverRenamed(dead),
      recoverPages,
      (self) => this.recoverMoved(self, dead),
    ]);
  }

  /** Stores the bytes of a page that the dead thread has renamed and still holds: a rename leaves it those of its old name. */
  recoverRenamed(dead: number): void {
    const { page } = this.region.tables;
    for (let frame = 0; frame < page.rowCount; frame++) {
      if ((page.lock.at(frame, 0) & LOCK_OWNER) !== dead + 1 || page.vnode.get(frame) === 0) continue;
      const index = page.index.get(frame);
      const found = load(this.words, this.contents(frame));
      if (page.state.get(frame) !== PAGE_STATE.valid || (found & 0xff) === index + 1) continue;
      const stored = load(this.words, this.contents(STORED + index));
      store(this.words, this.contents(frame), stored === 0 ? index + 1 : stored);
    }
  }

  /** Frees what the dead thread had a page moved out of: phys does that for real uses. */
  recoverMoved(self: Thread, dead: number): void {
    const frames = new Frames(self);
    for (let frame = 0; frame < this.region.geometry.frames; frame++) {
      if (frames.useOf(frame) === FRAME_USE.list && frames.takerOf(frame) === dead) frames.give(frame, FRAME_USE.list);
    }
  }

  passTime(): void {
    this.region.tables.header.virtualTime.put(0, 1e9);
  }

  digest(into: number[]): void {
    const { frame, frameMap, frameGroup, framePool, page, pageBucket, pageStripe, pageClock, bucket } =
      this.region.tables;
    const { pageLink, pageDirty, pageDirtyStripe, pageCacheList } = this.region.tables;
    for (let row = 0; row < bucket.rowCount; row++) into.push(bucket.head.get(row));
    for (const list of [pageDirty, pageCacheList]) into.push(list.head.get(0), list.tail.get(0), list.count.get(0));
    into.push(
      pageDirtyStripe.lock.get(0),
      pageDirtyStripe.count.get(0),
      pageCacheList.lock.get(0),
      pageClock.moves.get(0),
    );
    for (let row = 0; row < frame.rowCount; row++) {
      into.push(frame.use.get(row), pageLink.next.get(row), pageLink.previous.get(row));
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
    problems.push(...this.uses(), ...this.losses());
    const { page, slot, pageStripe, pageClock, framePool, pageDirtyStripe, pageCacheList } = this.region.tables;
    for (let frame = 0; frame < page.rowCount; frame++) {
      if (page.lock.at(frame, 0) !== 0 || page.lock.at(frame, 1) !== 0) problems.push(`frame ${frame} is locked`);
    }
    const locks = [pageStripe.lock, pageClock.shortage, framePool.lock, pageDirtyStripe.lock, pageCacheList.lock];
    for (const lock of locks) {
      if (lock.get(0) !== 0) problems.push(`${lock.label} is held`);
    }
    if (dead >= 0 && slot.claim.get(dead) !== 0) problems.push(`slot ${dead} cannot be claimed again`);
    return problems.length === 0 ? null : problems.join('; ');
  }

  /** Versions that are lost, and pages that are taken for clean but differ from the store. */
  losses(): string[] {
    const { page, bucket } = this.region.tables;
    const problems: string[] = [];
    const latest = [0, 1, 2, 3].map((index) => bucket.head.get(STORED + index) >> VERSION_SHIFT);
    for (let frame = 0; frame < page.rowCount; frame++) {
      if (page.vnode.get(frame) === 0) continue;
      const index = page.index.get(frame);
      const found = bucket.head.get(frame);
      const stored = bucket.head.get(STORED + index);
      latest[index] = found >> VERSION_SHIFT;
      if (page.modified.get(frame) === 0 && found !== (stored === 0 ? index + 1 : stored)) {
        problems.push(`page ${index} is clean with ${found}, stored ${stored}`);
      }
    }
    for (let index = 0; index < 4; index++) {
      if ((latest[index] as number) < bucket.head.get(ACKNOWLEDGED + index))
        problems.push(`page ${index} lost a version`);
    }
    return problems;
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
