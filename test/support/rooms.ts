/** The rooms of the page cache over a small region, for tests in one thread. */

import type { Geometry, Region } from '../../src/layout/index.ts';
import { checkPages, checkReplacement, Pages } from '../../src/page/index.ts';
import { Banks, Frames } from '../../src/phys/index.ts';
import { createOwner, type OwnerLimits, type Thread } from '../../src/sync/index.ts';
import { IoRequests, Vnodes } from '../../src/vnode/index.ts';
import { PageMappings } from '../../src/vpm/index.ts';
import { testRegion, testThread } from './region.ts';

/** One thread's rooms. */
export interface TestRooms {
  readonly region: Region;
  readonly thread: Thread;
  readonly banks: Banks;
  readonly frames: Frames;
  readonly pages: Pages;
  readonly vnodes: Vnodes;
  readonly io: IoRequests;
  readonly mappings: PageMappings;
}

/** Boots frames, pages, vnodes and mappings. */
export function testRooms(
  overrides: Partial<Geometry> = {},
  limits: OwnerLimits = {},
  descriptorsMax = 256,
): TestRooms {
  const { region, thread } = testRegion(overrides);
  const { frames, bankFrames, pageSize } = region.geometry;
  createOwner(region, 'default', limits);
  const banks = Banks.create(frames, bankFrames, pageSize);
  const rooms = attachRooms(region, thread, banks, descriptorsMax);
  rooms.frames.online(0, frames);
  return rooms;
}

/** The rooms for one more slot. */
export function attachRooms(region: Region, thread: Thread, banks: Banks, descriptorsMax = 256): TestRooms {
  const frames = new Frames(thread);
  const pages = new Pages(thread, frames, banks);
  const vnodes = new Vnodes(thread, pages, banks, descriptorsMax);
  const mappings = new PageMappings(thread, banks, pages, vnodes);
  const io = new IoRequests(thread);
  return { region, thread, banks, frames, pages, vnodes, io, mappings };
}

/** One more slot in the same JavaScript thread. */
export function moreRooms(first: TestRooms): TestRooms {
  return attachRooms(first.region, testThread(first.region), first.banks);
}

/** Every problem that the rooms' checks find. */
export function problemsOf({ thread, frames, vnodes }: TestRooms): string[] {
  return [frames.check(), checkPages(thread), checkReplacement(thread), vnodes.check()].flatMap((report) => [
    ...report.problems,
  ]);
}

/** Closes everything and throws unless all frames are free and every bank can be taken in one run. */
export function endOracle(rooms: TestRooms): void {
  rooms.mappings.close();
  rooms.vnodes.closeAll();
  const left = rooms.vnodes.dropUnused();
  if (left > 0) throw new Error(`${left} vnodes are left`);
  const problems = problemsOf(rooms);
  if (problems.length > 0) throw new Error(problems.join('\n'));
  const { frames, bankFrames } = rooms.region.geometry;
  if (rooms.frames.counts().free !== frames) throw new Error(`frames: ${JSON.stringify(rooms.frames.counts())}`);
  for (let low = 0; low < frames; low += bankFrames) {
    const count = Math.min(bankFrames, frames - low);
    if (rooms.frames.takeRun(count) !== low) throw new Error(`the bank at frame ${low} is not one run`);
  }
  for (let low = 0; low < frames; low += bankFrames) rooms.frames.giveRun(low, Math.min(bankFrames, frames - low));
}
