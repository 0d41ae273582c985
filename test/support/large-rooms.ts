/** Vnodes with large pages, for tests in one thread with several slots. */

import { expect } from 'vitest';
import type { Geometry } from '../../src/layout/index.ts';
import { checkPages } from '../../src/page/check.ts';
import { MemoryStore, type PageRoom, pageRooms } from './page-room.ts';

/** Vnodes with pages of 1, 2, 4, 8 and 16 frames. */
export const SHIFTS = [0, 1, 2, 3, 4];

/** One slot's page layer, with a store. */
export type LargeRoom = PageRoom & { readonly store: MemoryStore };

/** Boots a small memory in which vnode n has pages of 2^n frames. */
export function largeRooms(frames: number, bankFrames = frames, overrides: Partial<Geometry> = {}): LargeRoom {
  const room = pageRooms(frames, bankFrames, overrides);
  for (const shift of SHIFTS) room.region.tables.vnode.pageShift.put(shift, shift);
  return { ...room, store: new MemoryStore(room.banks) };
}

/** Pages and frames keep their invariants. */
export function expectSound(room: PageRoom): void {
  expect(checkPages(room.thread).problems).toEqual([]);
  expect(room.frames.check().problems).toEqual([]);
}

/** Drops everything; then all frames are free, in one run for each bank. */
export function expectEmpties(room: PageRoom): void {
  for (const shift of SHIFTS) expect(room.pages.invalidate(shift, 0)).toBe(0);
  expectSound(room);
  const { frames, bankFrames } = room.region.geometry;
  room.frames.caches.drain();
  expect(room.frames.counts().free).toBe(frames);
  for (let low = 0; low < frames; low += bankFrames) expect(room.frames.takeRun(bankFrames)).toBe(low);
  for (let low = 0; low < frames; low += bankFrames) room.frames.giveRun(low, bankFrames);
}

/** The frames of a page, -1 for those that are not in memory. */
export function framesOf(room: PageRoom, vnode: number, page: number): number[] {
  return Array.from({ length: 1 << vnode }, (_, at) => {
    const frame = room.pages.hold(vnode, (page << vnode) + at);
    if (frame >= 0) room.pages.release(frame);
    return frame;
  });
}
