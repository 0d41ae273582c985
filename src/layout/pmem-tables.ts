/** Tables of `pmem/`: cookies, their chains of runs, large pages and the pool of their residual pages, device maps. */

import type { GeometryKey } from './geometry.ts';
import { f64, i32, table } from './table.ts';

/** The capacities that follow from frames and the size of a large page. */
export function pmemGeometry(frames: number, largeFrames: number): Record<DerivedKey, number> {
  return {
    largePages: Math.ceil(frames / largeFrames),
    largeWords: Math.ceil(largeFrames / 32),
    fullnessRows: largeFrames + 1,
    fullnessWords: Math.ceil((largeFrames + 1) / 32),
  };
}

type DerivedKey = Extract<GeometryKey, 'largePages' | 'largeWords' | 'fullnessRows' | 'fullnessWords'>;

/** The pool and everything's lock: one row. */
export const pmemPoolTable = table('pmemPool', 1, 'columns', {
  lock: i32('A', 'mutex', { padded: true }),
  largeFrames: i32('c', 'frames in a large page, a power of two; 1: there are none'),
  seed: i32('c', '1: ordered and accounted as the seed does'),
  keepLarge: i32('c', 'wholly free large pages that the pool keeps'),
  reserveLimit: f64('c', 'most frames that may be reserved'),
  reserved: f64('L', 'frames reserved; below 0 only in the seed way'),
  poolFrames: i32('L', 'frames in the pool'),
  poolHead: i32('L', 'the seed pool: first run, run + 1'),
  poolTail: i32('L', 'last run, run + 1'),
  wholeFree: i32('L', 'large pages whose frames are all in the pool'),
  recordHead: i32('L', 'the seed order of large pages: first, large page + 1'),
  recordTail: i32('L', 'last, large page + 1'),
  recordCount: i32('L', 'large pages in use'),
  runFree: i32('L', 'first run row given back, run + 1'),
  runFresh: i32('L', 'run rows from here on were never used'),
  cookieFree: i32('L', 'first cookie row given back, cookie + 1'),
  cookieFresh: i32('L', 'cookie rows from here on were never used'),
  cookieCount: i32('L', 'cookies in use'),
});

/** One row per cookie. */
export const pmemCookieTable = table('pmemCookie', 'pmemCookies', 'columns', {
  state: i32('L', 'COOKIE_STATE'),
  generation: i32('L', 'times that the row was given back'),
  frames: i32('L', 'frames asked for'),
  owner: i32('L', 'owner that is charged for locked frames'),
  charged: i32('L', 'locked frames charged to the owner'),
  reserved: i32('L', 'the seed way: frames reserved while the cookie is being built'),
  head: i32('L', 'first run of its frames, run + 1; next free row'),
  tail: i32('L', 'last run, run + 1'),
  maker: i32('L', 'attachment of the thread that made it'),
  mover: i32('L', 'callback + 1 that lets its frames move, 0: they are locked'),
  moving: i32('L', 'slot + 1 that moves a frame of it'),
  contiguous: i32('L', '1: its frames lie side by side, and move together'),
  framesCharged: i32('L', 'frames charged to the owner'),
});

/** One row per run of frames in a chain. */
export const pmemRunTable = table('pmemRun', 'pmemRuns', 'records', {
  first: i32('L', 'frame that comes first'),
  count: i32('L', 'frames; below 0: the run descends'),
  next: i32('L', 'run + 1'),
  previous: i32('L', 'run + 1'),
});

/** One row per large page of memory, in use by pmem or not. */
export const largePageTable = table('largePage', 'largePages', 'columns', {
  state: i32('L', 'LARGE_STATE'),
  free: i32('L', 'frames of it in the pool'),
  next: i32('L', 'seed order, or list of equal fullness; large page + 1'),
  previous: i32('L', 'large page + 1'),
  pooled: i32('L', 'bit set: the frame is in the pool', { lanes: 'largeWords' }),
});

/** Large pages by the number of their frames in the pool. */
export const fullnessTable = table('fullness', 'fullnessRows', 'columns', {
  head: i32('L', 'first large page with so many, large page + 1'),
});

/** Which lists of `fullness` are not empty. */
export const fullnessMapTable = table('fullnessMap', 'fullnessWords', 'columns', {
  lists: i32('L', 'bit set: the list has a large page'),
});

/** What a slot is doing with a cookie. */
export const pmemSlotTable = table('pmemSlot', 'slots', 'columns', {
  cookie: i32('L', 'cookie + 1 that is being built or freed', { padded: true }),
  returning: i32('L', 'first frame + 1 of a run that has left pmem and is not yet free'),
  returningCount: i32('L', 'its frames'),
  moveStage: i32('L', 'MOVE_STAGE'),
  moveCookie: i32('L', 'cookie of which a frame is being moved'),
  moveIndex: i32('L', 'which of its frames'),
  moveFrom: i32('L', 'the frame'),
  moveTo: i32('L', 'frame + 1 that it moves to, 0 none yet'),
  moveCount: i32('L', 'frames from both on that move together'),
  moveAsked: i32('L', 'which of them was asked for'),
});

/** One row per device map. */
export const deviceMapTable = table('deviceMap', 'deviceMaps', 'columns', {
  lock: i32('A', 'mutex', { padded: true }),
  claim: i32('A', '0 free, slot + 1, -(slot + 1) being made for a segment, or of segments'),
  flags: i32('L', 'DEVICE_MAP_FLAG bits and others that are left alone'),
  protection: i32('L', 'protection bits in use'),
  originalMaxProtection: i32('L', 'protection bits that the mapping was made with'),
  maxProtection: i32('L', 'protection bits allowed'),
  attributes: i32('L', 'how accesses are cached'),
  isPmem: i32('L', '1 once set up'),
  cookie: i32('L', 'cookie + 1'),
  cookieGeneration: i32('L', 'its generation'),
  callbackRevision: i32('L', 'revision of the callbacks, 0 none'),
  offset: f64('L', 'byte offset in the cookie'),
  length: f64('L', 'bytes'),
});
