/**
 * A region and a thread without the rest of the system, for tests of single rooms. After every test the accounts of memory in
 * the regions that it made are added up anew: see accounts.ts.
 */

import { afterEach, expect } from 'vitest';
import {
  GEOMETRY_KEYS,
  type Geometry,
  pageGeometry,
  physGeometry,
  pmemGeometry,
  Region,
  tagGeometry,
} from '../../src/layout/index.ts';
import { Callbacks, claimSlot, newWatchId, poisonReason, Thread } from '../../src/sync/index.ts';
import { accountProblems } from './accounts.ts';

/** Regions of a test that are looked at after it: no more, because some tests make thousands. */
const KEPT = 8;
const made: Region[] = [];

afterEach(() => {
  const problems = made.splice(0).flatMap((region) => (poisonReason(region) === null ? accountProblems(region) : []));
  expect(problems).toEqual([]);
});

/** Says that a test leaves the accounts of its regions wrong on purpose. */
export function leaveUnbalanced(): void {
  made.length = 0;
}

const SMALL: Partial<Geometry> = {
  slots: 8,
  slotLanes: 1,
  lockLanes: 2,
  heldLanes: 65,
  journalLanes: 4096,
  owners: 4,
  callbacks: 16,
  arenas: 32,
  tags: 65536,
  tagBuckets: 131072,
  frames: 256,
  bankFrames: 256,
  pageSize: 4096,
  pageBuckets: 256,
  pageStripes: 8,
  vnodes: 64,
  vnodeBuckets: 64,
  pathBytes: 65536,
  spaceWaiters: 32,
  recordings: 2,
  recordEntries: 512,
  frameWaiters: 32,
  frameCacheLanes: 32,
  quantumCaches: 16,
  magazines: 256,
  slabs: 256,
  slabBuckets: 64,
  physSegments: 16,
  frameClasses: 1,
  frameColours: 1,
  frameLists: 1,
  pagelockBuckets: 1024 + 64,
  pagelockEntries: 4096,
  pagelockOwners: 256,
  pagelockPins: 4096,
  pmemCookies: 64,
  pmemRuns: 256,
  deviceMaps: 8,
  ioRequests: 8,
  addressSpaces: 16,
  segments: 256,
  anonMaps: 64,
  anonNodes: 256,
  anons: 2048,
  shadowLists: 256,
  swapWords: 64,
  namedLocks: 16,
};

/** What a room needs to run in one thread. */
export interface TestRegion {
  readonly region: Region;
  readonly thread: Thread;
  readonly callbacks: Callbacks;
}

/** Makes a small region; `overrides` changes capacities. Capacities without a value are 0. */
export function testRegion(overrides: Partial<Geometry> = {}, virtualClock = false, largeFrames = 32): TestRegion {
  const zeros = Object.fromEntries(GEOMETRY_KEYS.map((key) => [key, 0])) as Record<string, number>;
  const asked = { ...zeros, ...SMALL, ...overrides } as Geometry;
  // The last is that of boundary tags.
  const chosen = { ...asked, arenas: asked.arenas + 1 };
  const geometry = {
    ...chosen,
    ...pageGeometry(chosen.frames, chosen.pathBytes),
    ...physGeometry(chosen.frames, chosen.linkFrames > 0),
    ...pmemGeometry(chosen.frames, largeFrames),
    ...tagGeometry(chosen.tags),
    ...overrides,
    arenas: chosen.arenas,
  };
  const region = Region.create(geometry, { spinLimit: 100, virtualClock });
  region.tables.pmemPool.largeFrames.put(0, largeFrames);
  region.tables.pmemPool.reserveLimit.put(0, Number.MAX_SAFE_INTEGER);
  const thread = testThread(region);
  made.push(region);
  if (made.length > KEPT) made.shift();
  return { region, thread, callbacks: new Callbacks(region) };
}

/** One more attached thread of a region (in the same JavaScript thread). */
export function testThread(region: Region): Thread {
  return new Thread(region, claimSlot(region, newWatchId(region)));
}
