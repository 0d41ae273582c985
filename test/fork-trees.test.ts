/**
 * Forks of forks, in every order: each sequence of forks and destructions with up to four spaces, with writes in between. After
 * each event every space that is left is compared with a plain copy, and at the end of each sequence nothing is left.
 *
 * `PAGEWRIGHT_FORKS=5` goes through all sequences with five spaces: 8227 instead of 291.
 */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { AddressSpace, SharedMemory } from '../src/seg/index.ts';
import { type BootOptions, boot, type VirtualMemory } from '../src/system/index.ts';
import { Scratch } from './support/scratch.ts';

const PAGE = 4096;
const SPACES = Number(process.env.PAGEWRIGHT_FORKS ?? 4);
/** Pages of the anonymous mapping that are used: neighbours, both sides of a border of chunks, and one far away. */
const USED = [0, 1, 63, 64, 200];
const ANON_PAGES = 256;
const FILE_PAGES = 3;

/** Forks a space, or destroys it, by the order in which spaces were made. */
interface Event {
  readonly what: 'fork' | 'destroy';
  readonly space: number;
}

/** Every sequence of events from one space on until none is left, with at most so many in all. */
function sequences(most: number): Event[][] {
  const found: Event[][] = [];
  const go = (live: readonly number[], made: number, events: readonly Event[]) => {
    if (live.length === 0) found.push([...events]);
    for (const space of live) {
      if (made < most) go([...live, made], made + 1, [...events, { what: 'fork', space }]);
      go(
        live.filter((other) => other !== space),
        made,
        [...events, { what: 'destroy', space }],
      );
    }
  };
  go([0], 1, []);
  return found;
}

/** What is written before each event: by each space another page, by all of them the same one, or nothing. */
type Writes = 'own' | 'same' | 'none';

interface Member {
  readonly as: AddressSpace;
  /** The first word of each page that is used, of the anonymous mapping and then of the file. */
  readonly words: number[];
}

class Forest {
  readonly vm: VirtualMemory;
  readonly memory: SharedMemory;
  readonly path: string;
  readonly members = new Map<number, Member>();
  private anonAt = 0;
  private fileAt = 0;
  private sharedAt = 0;
  private sharedWord = 0;
  private version = 0;
  /** Most pages of swap that were in use after an event. */
  swapped = 0;

  constructor(vm: VirtualMemory, directory: string) {
    this.vm = vm;
    this.memory = vm.sharedMemory({ size: PAGE });
    this.path = join(directory, 'mapped');
    const words = new Int32Array((FILE_PAGES * PAGE) / 4);
    for (let page = 0; page < FILE_PAGES; page++) words[(page * PAGE) / 4] = -1 - page;
    writeFileSync(this.path, words);
  }

  plant(): void {
    const { vm, memory } = this;
    const as = vm.addressSpace({ limit: 2 ** 30 });
    this.anonAt = as.map({ size: ANON_PAGES * PAGE, reserve: false });
    const file = vm.open(this.path);
    this.fileAt = as.map({ size: FILE_PAGES * PAGE, file, reserve: false });
    file.close();
    this.sharedAt = as.map({ size: PAGE, memory });
    const words = [...USED.map(() => 0), ...Array.from({ length: FILE_PAGES }, (_, page) => -1 - page)];
    this.members.set(0, { as, words });
    // The far page and one of the file stay untouched: the first to write them makes them.
    for (const place of [0, 1, 2, 3]) this.write(0, place);
  }

  addressOf(place: number): number {
    if (place < USED.length) return this.anonAt + (USED[place] as number) * PAGE;
    return this.fileAt + (place - USED.length) * PAGE;
  }

  write(space: number, place: number): void {
    const { as, words } = this.members.get(space) as Member;
    words[place] = ++this.version;
    as.store(this.addressOf(place), this.version);
    // The end of the page goes with its beginning.
    as.store(this.addressOf(place) + PAGE - 4, ~this.version);
  }

  writeBefore(step: number, writes: Writes): void {
    if (writes === 'none') return;
    const places = USED.length + FILE_PAGES;
    for (const space of this.members.keys()) {
      this.write(space, (writes === 'own' ? step + space : step) % places);
      (this.members.get(space) as Member).as.store(this.sharedAt, ++this.sharedWord);
    }
  }

  happen({ what, space }: Event, made: number, isPinned: boolean): void {
    const { as, words } = this.members.get(space) as Member;
    if (what === 'destroy') {
      as.destroy();
      this.members.delete(space);
      return;
    }
    const pins = isPinned
      ? [as.pin(this.addressOf(0), 2 * PAGE, 'write'), as.pin(this.addressOf(5), PAGE, 'read')]
      : [];
    const copy = { as: as.fork(), words: [...words] };
    this.members.set(made, copy);
    if (!isPinned) return;
    // What is stored through a pin is the space's own, from the fork on.
    words[0] = ++this.version;
    const view = (pins[0] as (typeof pins)[0]).views[0] as Uint8Array;
    new Int32Array(view.buffer, view.byteOffset, 1)[0] = this.version;
    const last = new Int32Array(view.buffer, view.byteOffset + PAGE - 4, 1);
    last[0] = ~this.version;
    for (const pin of pins) pin.release();
  }

  compare(): void {
    this.swapped = Math.max(this.swapped, this.vm.spaces.swap.use.used);
    for (const [space, { as, words }] of this.members) {
      const found = words.map((_, place) => as.load(this.addressOf(place)));
      if (found.some((word, place) => word !== words[place])) {
        throw new Error(`space ${space} shows ${found}, not ${words}`);
      }
      const ends = words.map((word, place) => (word > 0 ? ~as.load(this.addressOf(place) + PAGE - 4) : word));
      if (ends.some((word, place) => word !== words[place])) throw new Error(`space ${space}: pages end in ${ends}`);
      if (as.load(this.sharedAt) !== this.sharedWord) throw new Error(`space ${space}: shared memory is wrong`);
    }
  }

  /** Nothing is left but the shared memory, which belongs to nobody's space. */
  oracle(): void {
    const { vm } = this;
    const { spaces, segments, maps, anons, pins, shadowLists, reserved } = vm.spaces.statistics();
    const used = vm.spaces.swap.use.used;
    const left = { spaces, segments, maps, anons, pins, shadowLists, reserved };
    // Its map, its page and its reservation.
    expect({ ...left, used: used <= 1 }).toEqual({
      ...{ spaces: 0, segments: 0, maps: 1, pins: 0, shadowLists: 0, used: true },
      ...{ anons: this.sharedWord === 0 ? anons : 1, reserved: 1 },
    });
  }
}

let vm: VirtualMemory;
let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => {
  vm.detach();
  scratch.remove();
});

/** Plants, grows and fells a tree for each sequence. */
function all(options: Partial<BootOptions>, writes: Writes, isPinned: boolean, swap = 0): void {
  vm = boot({ memory: '1 MiB', services: 'manual', slots: 4, addressSpaces: 8, ...options });
  if (swap > 0) vm.spaces.swap.add(join(scratch.directory, 'swap'), swap * PAGE);
  const forest = new Forest(vm, scratch.directory);
  const list = sequences(SPACES);
  for (const [number, events] of list.entries()) {
    const past: Event[] = [];
    try {
      forest.plant();
      let made = 1;
      for (const [step, event] of events.entries()) {
        past.push(event);
        forest.writeBefore(step, writes);
        forest.happen(event, made, isPinned);
        if (event.what === 'fork') made++;
        forest.compare();
      }
      forest.oracle();
      if (number % 50 === 0) expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
    } catch (error) {
      const text = past.map(({ what, space }) => `${what} ${space}`).join(', ');
      throw new Error(`after ${text}: ${(error as Error).stack}`);
    }
  }
  if (swap > 0) expect(forest.swapped).toBeGreaterThan(8);
  forest.memory.release();
  vm.spaces.reap();
  vm.vnodes.dropUnused();
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  expect(vm.spaces.statistics()).toMatchObject({ maps: 0, nodes: 0, anons: 0, reserved: 0 });
  expect(vm.spaces.swap.use.used).toBe(0);
  const { free, total } = vm.frames.counts();
  expect(free).toBe(total);
  expect(vm.frames.takeRun(total)).toBe(0);
  vm.frames.giveRun(0, total);
  console.log(`${list.length} sequences of up to ${SPACES} spaces`);
}

describe('forks of forks, in every order of forks and destructions', () => {
  const timeout = 600_000;

  it('show what they did when each space writes its own pages', { timeout }, () => all({}, 'own', false));

  it('show what they did when all write the same page', { timeout }, () => all({}, 'same', false));

  it('show what they did when nobody writes', { timeout }, () => all({}, 'none', false));

  it('show what they did when pages are pinned at each fork', { timeout }, () => all({}, 'own', true));

  it('show what they did when their pages are swapped out', { timeout }, () =>
    all({ memory: '64 KiB', anonymousPages: 256 }, 'own', false, 128),
  );
});
