/**
 * Threads that read and write two pages of one space through translations of their own, while others fork or unmap it.
 *
 * The accesses, the write sections and the locks are the shipped ones. What a page shows is a table of four words here, since
 * anon maps would make the worlds too large: a page that a fork has shared is copied before a store, as faults do.
 */

import { VmError } from '../../../src/base/errors.ts';
import { GEOMETRY_KEYS, type Geometry } from '../../../src/layout/geometry.ts';
import { Region } from '../../../src/layout/region.ts';
import type { DirtyPages } from '../../../src/page/dirty-pages.ts';
import { KnownPages } from '../../../src/page/known-pages.ts';
import { PAGE_STATE } from '../../../src/page/page-hash.ts';
import { PageHolds } from '../../../src/page/page-holds.ts';
import type { Pages } from '../../../src/page/pages.ts';
import type { Banks } from '../../../src/phys/banks.ts';
import { FAULT_KIND, type Faults } from '../../../src/seg/faults.ts';
import { SpaceAccess } from '../../../src/seg/space-access.ts';
import { SpaceCore } from '../../../src/seg/space-core.ts';
import { SpaceCursor } from '../../../src/seg/space-cursor.ts';
import { SPACE_STATE } from '../../../src/seg/space-kinds.ts';
import { WriteSections } from '../../../src/seg/write-sections.ts';
import { add, FOREVER, load, store } from '../../../src/sync/atomics.ts';
import { claimSlot } from '../../../src/sync/slots.ts';
import { takeOver } from '../../../src/sync/takeover.ts';
import { Thread } from '../../../src/sync/thread.ts';
import { digestThreads, type Scenario } from '../scenario.ts';

const PAGE = 4096;
const SPACE = 0;
const FRAMES = 6;

/** What a frame holds when its page was dropped. */
const POISON = -7777;

/** What a fork stores into its own pages. */
const FORKS = 5555;

/** Words of `bucket.head`: one for each frame, then what each page shows, and the rest. */
const ROW = {
  frame: 0,
  /** Frame + 1 of a page; 0 when it is not mapped. */
  shown: 6,
  /** 1 while a fork shows the frame too. */
  common: 8,
  /** Frame + 1 of each page as the fork has it, and what it held then. */
  copy: 10,
  held: 12,
  nextFrame: 14,
  /** 1 once a fork is done. */
  forked: 15,
  /** 1 once an unmapping has returned. */
  unmapped: 16,
  added: 17,
  /** Never written: a place to be preempted at. */
  idle: 19,
  /** 1 once the fork has stored into its page 0. */
  forksOwn: 20,
  rows: 21,
} as const;

/** What the threads do. */
export interface SectionsOptions {
  /**
   * What each thread does, in order: `w` adds 1 to page 0, then to page 1; `a` adds to page 0 only; `r` reads page 0, `b` its
   * bytes, `c` through a cursor; `f` forks; `o` stores into page 0 of the fork, in place if the space has left the frame to it;
   * `u` unmaps page 0 and drops it if nobody holds it; `k` unmaps page 0, which stays in memory, as a file's does.
   */
  readonly programs: readonly string[];
  readonly mortal?: readonly number[];
}

/** See the file's header. */
export class SectionsWorld implements Scenario {
  readonly threads: number;
  readonly mortal: readonly number[];
  readonly options: SectionsOptions;
  readonly members: Thread[] = [];
  region!: Region;
  words!: Int32Array;

  constructor(options: SectionsOptions) {
    this.options = options;
    this.threads = options.programs.length;
    this.mortal = options.mortal ?? [];
  }

  setUp(): void {
    const zeros = Object.fromEntries(GEOMETRY_KEYS.map((key) => [key, 0]));
    const small: Partial<Geometry> = {
      slots: 4,
      slotLanes: 1,
      lockLanes: 2,
      heldLanes: 17,
      journalLanes: 33,
      pageSize: PAGE,
      frames: FRAMES,
      bankFrames: FRAMES,
      tagBuckets: ROW.rows,
      addressSpaces: 1,
    };
    this.region = Region.create({ ...zeros, ...small } as Geometry, { spinLimit: 1, virtualClock: true });
    this.words = this.region.words;
    for (let thread = 0; thread <= this.threads; thread++) {
      this.members.push(new Thread(this.region, claimSlot(this.region, thread + 1), FOREVER));
    }
    const { addressSpace, bucket, page } = this.region.tables;
    addressSpace.state.put(SPACE, SPACE_STATE.live);
    for (let frame = 0; frame < FRAMES; frame++) {
      page.vnode.put(frame, 1);
      page.index.put(frame, frame);
      page.state.put(frame, PAGE_STATE.valid);
    }
    bucket.head.put(ROW.shown, 1);
    bucket.head.put(ROW.shown + 1, 2);
    bucket.head.put(ROW.nextFrame, 2);
  }

  run(thread: number): void {
    const party = new Party(this, this.members[thread] as Thread);
    for (const letter of this.options.programs[thread] as string) {
      if (letter === 'w') {
        if (party.add(0)) party.add(1);
      } else if (letter === 'a') party.add(0);
      else if (letter === 'r' || letter === 'b' || letter === 'c') party.read(letter);
      else if (letter === 'o') party.storeOfFork();
      else if (letter === 'f') party.fork();
      else party.unmap(letter === 'u');
    }
  }

  recover(dead: number): void {
    const self = this.members[this.threads] as Thread;
    const sections = new WriteSections(self);
    takeOver(self, dead, [(_self, slot) => sections.recover(slot)]);
  }

  passTime(): void {}

  digest(into: number[]): void {
    const { bucket, addressSpace, spaceSlot, page } = this.region.tables;
    for (let row = 0; row < ROW.rows; row++) into.push(bucket.head.get(row));
    for (let lane = 0; lane < 2; lane++) into.push(addressSpace.lock.at(SPACE, lane));
    into.push(addressSpace.translations.at(SPACE, 0), addressSpace.translations.at(SPACE, 1));
    for (let slot = 0; slot < 4; slot++) into.push(spaceSlot.section.get(slot));
    for (let frame = 0; frame < FRAMES; frame++) {
      into.push(page.vnode.get(frame), page.lock.at(frame, 0), page.lock.at(frame, 1));
    }
    digestThreads(this.members, into);
  }

  /** No store is lost or late: the pages hold what was added, the fork what it held at its instant, dropped frames nothing. */
  verdict(dead: number): string | null {
    const { bucket, page, spaceSlot } = this.region.tables;
    const { head } = bucket;
    const frames = [head.get(ROW.shown) - 1, head.get(ROW.shown + 1) - 1];
    for (const [at, frame] of frames.entries()) {
      const added = head.get(ROW.added + at);
      if (frame < 0) continue;
      const held = head.get(frame);
      // Who dies between storing and noting it has stored once more.
      if (held !== added && !(dead >= 0 && held === added + 1)) return `page ${at} holds ${held}, not ${added}`;
    }
    for (const at of [0, 1]) {
      const copy = head.get(ROW.copy + at) - 1;
      const ofFork = at === 0 && head.get(ROW.forksOwn) === 1 ? FORKS : head.get(ROW.held + at);
      if (head.get(ROW.forked) === 1 && head.get(copy) !== ofFork) return `page ${at} of the fork has changed`;
    }
    for (let frame = 0; frame < FRAMES; frame++) {
      if (page.vnode.get(frame) === 0 && head.get(frame) !== POISON)
        return `the dropped frame ${frame} was stored into`;
    }
    for (let slot = 0; slot < this.threads; slot++) {
      if (spaceSlot.section.get(slot) !== 0) return `slot ${slot} is still in a section`;
    }
    return null;
  }

  address(row: number): number {
    return this.region.tables.bucket.head.address(row);
  }
}

/** One thread's way into the space; made when its program starts, so that a rebuilt thread finds its tables empty. */
class Party {
  readonly world: SectionsWorld;
  readonly core: SpaceCore;
  readonly holds: PageHolds;
  readonly sections: WriteSections;
  readonly access: SpaceAccess;
  readonly cursor: SpaceCursor;

  constructor(world: SectionsWorld, thread: Thread) {
    const { words } = world;
    this.world = world;
    this.core = new SpaceCore(thread);
    this.holds = new PageHolds(thread);
    this.sections = new WriteSections(thread);
    const { core, holds, sections } = this;
    const idle = world.address(ROW.idle);
    const dirty = {
      mark(): void {
        load(words, idle);
      },
    };
    const known = new KnownPages(thread, holds, dirty as unknown as DirtyPages, 0);
    const pages = {
      known,
      release(frame: number): void {
        holds.release(frame);
      },
    };
    const banks = {
      views: [new Uint8Array(words.buffer)],
      bankOf: () => 0,
      offsetOf: (frame: number) => 4 * world.address(ROW.frame + frame),
    };
    const faults = new TableFaults(world, core, holds, sections);
    this.access = new SpaceAccess(
      core,
      SPACE,
      sections,
      faults as unknown as Faults,
      pages as unknown as Pages,
      banks as unknown as Banks,
    );
    const { access } = this;
    const parts = { access, sections, known, words, bankWords: access.bankWords, space: SPACE, pageSize: PAGE };
    this.cursor = new SpaceCursor({ ...parts, released: () => {} }, 1);
  }

  /** False when the page is not mapped. */
  add(page: number): boolean {
    const { world } = this;
    const late = load(world.words, world.address(ROW.unmapped)) === 1;
    try {
      this.access.add(page * PAGE, 1);
    } catch (error) {
      if (error instanceof VmError && error.code === 'EFAULT') return false;
      throw error;
    }
    if (late && page === 0) throw new Error('a store after the unmapping did not fail');
    add(world.words, world.address(ROW.added + page), 1);
    return true;
  }

  read(letter: string): void {
    const { world } = this;
    const late = load(world.words, world.address(ROW.unmapped)) === 1;
    let value: number;
    try {
      if (letter === 'r') value = this.access.load(0);
      else if (letter === 'c') value = this.cursor.load(0);
      else {
        const found = new Int32Array(1);
        this.access.read(0, new Uint8Array(found.buffer), 0, 4);
        value = found[0] as number;
      }
    } catch (error) {
      if (error instanceof VmError && error.code === 'EFAULT') return;
      throw error;
    }
    if (value === POISON) throw new Error('a dropped page was read');
    if (value === FORKS) throw new Error('what the fork has stored was read through the space');
    if (late) throw new Error('a read after the unmapping did not fail');
  }

  fork(): void {
    const { world, core, sections } = this;
    const { words } = world;
    const lock = core.lockOf(SPACE);
    lock.enterExclusive();
    sections.changeAll(SPACE);
    for (const page of [0, 1]) {
      const shown = load(words, world.address(ROW.shown + page));
      store(words, world.address(ROW.copy + page), shown);
      store(words, world.address(ROW.common + page), 1);
      const held = load(words, world.address(ROW.frame + shown - 1));
      store(words, world.address(ROW.held + page), held);
    }
    lock.exitExclusive();
    store(words, world.address(ROW.forked), 1);
    const first = load(words, world.address(ROW.held));
    const second = load(words, world.address(ROW.held + 1));
    // Every `a` adds to the first page alone, and every thread may be between its two pages.
    const single = [...world.options.programs.join('')].filter((letter) => letter === 'a').length;
    const ahead = first - second;
    if (ahead < 0 || ahead > single + world.threads - 1) throw new Error(`the fork is torn: ${first}, ${second}`);
  }

  /** As a fault does, which copies a frame that both still show. */
  storeOfFork(): void {
    const { world, core } = this;
    const { words } = world;
    core.lock.enter();
    let frame = load(words, world.address(ROW.copy)) - 1;
    if (load(words, world.address(ROW.shown)) === frame + 1) {
      frame = add(words, world.address(ROW.nextFrame), 1);
      store(words, world.address(ROW.copy), frame + 1);
      store(words, world.address(ROW.common), 0);
    }
    core.lock.exit();
    store(words, world.address(ROW.frame + frame), FORKS);
    store(words, world.address(ROW.forksOwn), 1);
  }

  unmap(drops: boolean): void {
    const { world, core, sections, holds } = this;
    const { words } = world;
    const lock = core.lockOf(SPACE);
    lock.enterExclusive();
    sections.changeAll(SPACE);
    const frame = load(words, world.address(ROW.shown)) - 1;
    store(words, world.address(ROW.shown), 0);
    lock.exitExclusive();
    store(words, world.address(ROW.unmapped), 1);
    if (!drops || !holds.tryExclusive(frame)) return;
    world.region.tables.page.vnode.put(frame, 0);
    store(words, world.address(ROW.frame + frame), POISON);
    holds.releaseExclusive(frame);
  }
}

/** Faults by the table of the world. */
class TableFaults {
  kind: number = FAULT_KIND.page;
  frame = -1;
  vnode = 0;
  index = -1;
  writable = false;
  readonly world: SectionsWorld;
  readonly core: SpaceCore;
  readonly holds: PageHolds;
  readonly sections: WriteSections;

  constructor(world: SectionsWorld, core: SpaceCore, holds: PageHolds, sections: WriteSections) {
    this.world = world;
    this.core = core;
    this.holds = holds;
    this.sections = sections;
  }

  resolve(_space: number, address: number, write: boolean): boolean {
    const { world, core } = this;
    const { words } = world;
    const page = address / PAGE;
    core.lock.enter();
    const shown = load(words, world.address(ROW.shown + page));
    let isCommon = shown !== 0 && load(words, world.address(ROW.common + page)) === 1;
    let frame = shown - 1;
    if (isCommon && write) {
      // Nobody stores into a frame that a fork shows.
      frame = add(words, world.address(ROW.nextFrame), 1);
      store(words, world.address(ROW.frame + frame), load(words, world.address(ROW.frame + shown - 1)));
      this.sections.changePage(SPACE, page);
      store(words, world.address(ROW.shown + page), frame + 1);
      store(words, world.address(ROW.common + page), 0);
      isCommon = false;
    }
    core.lock.exit();
    if (shown === 0) throw new VmError('EFAULT', 'nothing is mapped');
    this.holds.shared(frame);
    this.frame = frame;
    this.index = frame;
    this.writable = !isCommon;
    return true;
  }
}
