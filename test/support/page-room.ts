/** The page layer over a store in memory, for tests in one thread with several slots. */

import { VmError } from '../../src/base/index.ts';
import type { Geometry, Region } from '../../src/layout/index.ts';
import { type PageStore, Pages } from '../../src/page/index.ts';
import { Banks, FRAME_USE, Frames } from '../../src/phys/index.ts';
import type { Thread } from '../../src/sync/index.ts';
import { testRegion, testThread } from './region.ts';

/** Keeps the first byte of every page, and fills whole pages with it. */
export class MemoryStore implements PageStore {
  readonly kept = new Map<string, number>();
  /** Calls of `write`: vnode, first index, pages. */
  readonly writes: [number, number, number][] = [];
  /** Calls of `write` to refuse. */
  refusals = 0;
  readonly #banks: Banks;

  constructor(banks: Banks) {
    this.#banks = banks;
  }

  fill(vnode: number, index: number, frames: Int32Array, at: number, count: number): number {
    for (let page = 0; page < count; page++) {
      this.#bytes(frames[at + page] as number).fill(this.kept.get(`${vnode}:${index + page}`) ?? 0);
    }
    return count * this.#banks.pageSize;
  }

  write(vnode: number, index: number, frames: Int32Array, at: number, count: number): void {
    if (this.refusals > 0) {
      this.refusals--;
      throw new VmError('EIO', 'the store is full');
    }
    this.writes.push([vnode, index, count]);
    for (let page = 0; page < count; page++) {
      this.kept.set(`${vnode}:${index + page}`, this.#bytes(frames[at + page] as number)[0] as number);
    }
  }

  #bytes(frame: number): Uint8Array {
    return this.#banks.view(frame * this.#banks.pageSize, this.#banks.pageSize);
  }
}

/** One slot's page layer. */
export interface PageRoom {
  readonly region: Region;
  readonly thread: Thread;
  readonly banks: Banks;
  readonly frames: Frames;
  readonly pages: Pages;
  readonly out: Int32Array;
}

/** Boots a small memory with its page layer. */
export function pageRooms(frames: number, bankFrames = frames, overrides: Partial<Geometry> = {}): PageRoom {
  const { region, thread } = testRegion({ frames, bankFrames, ...overrides });
  const room = roomOf(region, thread, Banks.create(frames, bankFrames, 4096));
  room.frames.online(0, frames);
  return room;
}

/** One more slot in the same JavaScript thread. */
export function pageRoom(first: PageRoom): PageRoom {
  return roomOf(first.region, testThread(first.region), first.banks);
}

function roomOf(region: Region, thread: Thread, banks: Banks): PageRoom {
  const frames = new Frames(thread);
  return { region, thread, banks, frames, pages: new Pages(thread, frames, banks), out: new Int32Array(32) };
}

/** Brings a page, stores a byte into all of it as a writer does, and lets go of it. */
export function writePage(room: PageRoom, store: PageStore, vnode: number, index: number, value: number): void {
  room.pages.fetch(vnode, index, 1, room.out, 0, store, true);
  const frame = room.out[0] as number;
  room.pages.setModified(frame);
  room.banks.view(frame * 4096, 4096).fill(value);
  room.pages.setModified(frame);
  room.pages.release(frame);
}

/** Moves what is in a frame elsewhere, as a thread that makes room does: its hand says that it is about to have the frame. */
export function moveAway({ region, thread, pages }: PageRoom, frame: number): boolean {
  const hand = region.tables.frameHand;
  hand.first.put(thread.slot, frame);
  hand.count.put(thread.slot, 1);
  hand.stage.put(thread.slot, 1);
  return pages.relocate(frame, FRAME_USE.run);
}

/** Brings a page and returns its first byte; throws when the page is not filled with it. */
export function readPage(room: PageRoom, store: PageStore, vnode: number, index: number): number {
  room.pages.fetch(vnode, index, 1, room.out, 0, store, true);
  const frame = room.out[0] as number;
  const bytes = room.banks.view(frame * 4096, 4096);
  const value = bytes[0] as number;
  if (bytes[2048] !== value || bytes[4095] !== value) throw new Error(`page ${vnode}:${index} is torn`);
  room.pages.release(frame);
  return value;
}
