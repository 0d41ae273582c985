/**
 * Boot options: what a user chooses, and the geometry that follows from it.
 *
 * Every capacity has a default that grows with the memory: `statistics().metadata` says what they come to, and for what.
 */

import {
  ceilPowerOfTwo,
  failMisuse,
  isPowerOfTwo,
  parseSize,
  rejectUnknownOptions,
  requireInteger,
  requireObject,
} from '../base/index.ts';
import {
  ANON_FANOUT,
  FRAME_ORDER,
  type Geometry,
  pageGeometry,
  physGeometry,
  pmemGeometry,
  REPLACEMENT,
  type RegionSettings,
  type ReplacementName,
  replacementGeometry,
  tagChunkShift,
  tagGeometry,
} from '../layout/index.ts';
import { BANK_BYTES_MAX, WASM_PAGE_BYTES } from '../phys/banks.ts';
import { type PhysSegmentOptions, requireSegment } from '../phys/phys-segments.ts';
import { defaultMarks, type FrameMarks } from '../phys/watermarks.ts';
import { type PagelockOptions, sizePagelock } from '../seg/pagelock-options.ts';
import type { OwnerLimits } from '../sync/owners.ts';
import { type MappingOptions, planMappings } from '../vpm/mapping-options.ts';

/** Options of `boot`. Sizes are bytes or text such as `'64 MiB'`. */
export interface BootOptions {
  /** Memory that is online at once. */
  readonly memory: number | string;
  /** Memory that can be online at all: banks and metadata are made for this much. Default: `memory`. */
  readonly memoryMax?: number | string;
  /** Bytes in a frame: a power of two from 4 KiB to 64 KiB. Default 4 KiB. */
  readonly pageSize?: number | string;
  /** Bytes in a bank: a multiple of 64 KiB and of the page size, at most 4 GiB. Default: 4 GiB, or all the memory. */
  readonly bankSize?: number | string;
  /** How frames are ordered and divided. Default: one class and colour, lowest frame first, all memory one segment. */
  readonly physical?: PhysicalOptions;
  /** How pmem is ordered and limited. */
  readonly pmem?: PmemOptions;
  /**
   * Threads that can be attached at a time, the system's own included: 4 to 63. Default 31: locks have a bit for each, in words
   * of 32, and one bit stands for pages that are locked without a thread. From 32 on every lock takes a word more.
   */
  readonly slots?: number;
  /** Arenas that can exist at a time, the system's own and one for each address space included. Default 32 more than those. */
  readonly arenas?: number;
  /**
   * Most boundary tags: about one per allocation and one per free block of all arenas, the heap's and those of address spaces
   * included. Those have one in 32 to themselves. The table takes memory as it is used, for the number that was in use at a
   * time. Default: one per 8 frames, at least 2^21.
   */
  readonly tags?: number;
  /** Files that can be known at a time, open or not. Default: one per 32 frames. */
  readonly vnodes?: number;
  /** Address spaces that can exist at a time. Default 64. */
  readonly addressSpaces?: number;
  /** Segments of all address spaces. Default: one per 128 frames, at least 1024. */
  readonly segments?: number;
  /** Pages of anonymous memory that can exist at a time, those in swap included: more with swap. Default: as many as frames. */
  readonly anonymousPages?: number;
  /** Quantum caches of all arenas, one for each group of cached sizes: 11 words a slot each. Default 256. */
  readonly quantumCaches?: number;
  /** Owners that can exist at a time, at most 63. Default 16. */
  readonly owners?: number;
  /** Callbacks that can be known at a time. Default 64. */
  readonly callbacks?: number;
  /** Sizes and tunables of the pagelock cache. */
  readonly pagelock?: PagelockOptions;
  /**
   * Which pages leave first when frames are short: `'clock'` (second chance), `'s3fifo'`, `'clockPro'`, or `'queues'`, the
   * order of the original source. Default `'clock'`.
   */
  readonly replacement?: ReplacementName;
  /** How files are mapped: `{ compat: 'seed' }` adds `vm.cachedMappings`. */
  readonly mappings?: MappingOptions;
  /**
   * Bytes of all files that may be modified in memory: who writes beyond that writes pages back first. 0 for no limit.
   * Default: half of `memory`.
   */
  readonly dirtyLimit?: number | string;
  /** Limits of the default owner. Default: none. */
  readonly limits?: OwnerLimits;
  /** Requests that can wait for space in arenas at a time. Default 512. */
  readonly spaceWaiters?: number;
  /** Named locks that can exist at a time: mutexes, readers/writer locks and condition variables. Default 256. */
  readonly locks?: number;
  /** Operations that recordings of arenas can hold between two drains, all four together: 64 bytes each. Default 8192. */
  readonly recordEntries?: number;
  /** Polls of a held mutex before its waiter sleeps. Default 100. */
  readonly spinLimit?: number;
  /** `'virtual'`: time moves only through `vm.clock.advance`. For tests and replays. Default `'real'`. */
  readonly clock?: 'real' | 'virtual';
  /** `'manual'`: no service workers; the caller calls `vm.recover`. For tests and replays. Default `'threads'`. */
  readonly services?: 'threads' | 'manual';
}

/** How frames are ordered and divided. */
export interface PhysicalOptions {
  /** Which single frame comes next: the lowest, the one given back last, or the one given back first. */
  readonly order?: 'lowest' | 'lastIn' | 'firstIn';
  /** Classes of memory: those with lower numbers are used first. 1 to 64. Default 1. */
  readonly classes?: number;
  /** Colours that single frames are spread over: a power of two up to 256. Default 1. Has no effect on `'lowest'`. */
  readonly colours?: number;
  /** Segments that are online at once, instead of one with all of `memory`. More can be added while the system runs. */
  readonly segments?: readonly PhysSegmentOptions[];
  /** Order in which segments are searched: by address, or smallest first, as the seed's big-first strategy does. */
  readonly segmentOrder?: 'first' | 'bigFirst';
  /** Single free frames that each slot may keep for itself, 0 to 256: less contention, another order. Default 0. */
  readonly slotFrames?: number;
  /** Reserves and marks of the pagedaemon. Default: no reserves, marks that follow from `memory`. */
  readonly marks?: Partial<FrameMarks>;
}

/** How pmem is ordered and limited. */
export interface PmemOptions {
  /** Frames in a large page: a power of two; 1 for none. Default 512. */
  readonly largeFrames?: number;
  /** Most frames that pmem may have. Default: no limit. */
  readonly reserveLimit?: number;
  /** Wholly free large pages that the pool keeps. Default 2. */
  readonly keepLarge?: number;
  /** Cookies that can exist at a time. Default: one per 128 frames, 256 to 65536. */
  readonly cookies?: number;
  /** Runs that all cookies together can consist of. Default: one per 32 frames, at least 1024. */
  readonly runs?: number;
  /** `'seed'`: exactly as `pmem.c`, with its queue and its accounting. */
  readonly compat?: 'seed';
}

/** What boot needs to know, checked. */
export interface BootPlan {
  readonly geometry: Geometry;
  readonly settings: RegionSettings;
  readonly onlineFrames: number;
  readonly segments: readonly PhysSegmentOptions[];
  /** A value of `FRAME_ORDER`. */
  readonly frameOrder: number;
  readonly bigFirst: boolean;
  readonly marks: FrameMarks;
  readonly pmem: PmemPlan;
  readonly limits: OwnerLimits;
  /** Frames of files that may be modified; 0 for no limit. */
  readonly modifiedMax: number;
  readonly pagelock: PagelockOptions;
  /** A value of `REPLACEMENT`. */
  readonly replacement: number;
  /** A value of `MAPPING_STATE`. */
  readonly mappingState: number;
  readonly services: 'threads' | 'manual';
}

/** Arenas that can be recorded at a time. */
const RECORDINGS = 4;

const KNOWN_OPTIONS: readonly (keyof BootOptions)[] = [
  'memory',
  'memoryMax',
  'pageSize',
  'bankSize',
  'physical',
  'pmem',
  'slots',
  'arenas',
  'tags',
  'vnodes',
  'addressSpaces',
  'segments',
  'anonymousPages',
  'owners',
  'quantumCaches',
  'callbacks',
  'pagelock',
  'replacement',
  'mappings',
  'dirtyLimit',
  'limits',
  'spaceWaiters',
  'locks',
  'recordEntries',
  'spinLimit',
  'clock',
  'services',
];

/** Tags of a system that does not say: 184 MiB of addresses with what goes with them, and no memory until they are used. */
const TAGS_DEFAULT = 2 ** 21;

const FRAMES_MAX = 2 ** 30;
const HELD_LOCKS = 32;
const JOURNAL_WORDS = 4095;

/** Checks the options and computes all capacities. Throws `EINVAL` that names the option, its value and the rule. */
export function planBoot(options: BootOptions): BootPlan {
  if (typeof options !== 'object' || options === null) {
    failMisuse('boot', { options }, "pass an object, at least { memory: '64 MiB' }");
  }
  rejectUnknownOptions('boot', options, KNOWN_OPTIONS);
  for (const name of ['limits', 'physical', 'pagelock', 'mappings', 'pmem'] as const) {
    const value: unknown = options[name];
    if (value !== undefined && (typeof value !== 'object' || value === null)) {
      failMisuse('boot', { [name]: value }, `${name} must be an object`);
    }
  }
  const { pageSize, memoryBytes, memoryMaxBytes, bankBytes } = planMemory(options);
  const integer = (name: keyof BootOptions, fallback: number, min: number, max: number): number =>
    requireInteger('boot', name, options[name] ?? fallback, min, max);
  const slots = integer('slots', 31, options.services === 'manual' ? 1 : 4, 63);
  const frames = memoryMaxBytes / pageSize;
  const usualTags = Math.max(8192, Math.ceil(frames / 8));
  const tags = wholeChunks(integer('tags', Math.max(TAGS_DEFAULT, usualTags), 256, 2 ** 26));
  // Slabs and magazines are worth a row each at any time: they follow the memory unless `tags` is given.
  const cachedTags = options.tags === undefined ? usualTags : tags;
  const vnodes = integer('vnodes', Math.min(65536, Math.max(256, Math.ceil(frames / 32))), 1, 2 ** 22);
  const addressSpaces = integer('addressSpaces', 64, 1, 16384);
  const segments = integer('segments', Math.max(1024, Math.ceil(frames / 128)), 16, 2 ** 22);
  const anonymousPages = integer('anonymousPages', frames, 16, 2 ** 30);
  const slabs = Math.max(512, Math.ceil(cachedTags / 32));
  // The bit behind the last slot stands for what belongs to no thread: it must fit into the words of bits.
  const slotLanes = Math.ceil((slots + 1) / 32);
  const pathBytes = Math.max(65536, vnodes * 96);
  const physical = planPhysical(options.physical ?? {});
  const pmem = planPmem(options.pmem ?? {}, frames);
  const policies = Object.keys(REPLACEMENT) as ReplacementName[];
  const replacement = REPLACEMENT[oneOf('replacement', options.replacement ?? 'clock', policies)];
  const pagelock = planPagelock(options.pagelock ?? {}, frames);
  const mappings = planMappings(options.mappings ?? {}, frames, pageSize, slots);
  const geometry: Geometry = {
    slots,
    slotLanes,
    lockLanes: 1 + slotLanes,
    heldLanes: 1 + 4 * HELD_LOCKS,
    journalLanes: 1 + JOURNAL_WORDS,
    owners: integer('owners', 16, 1, 63),
    callbacks: integer('callbacks', 64, 1, 4096),
    // Each address space has one for its room. The last is that of boundary tags.
    arenas: integer('arenas', 32 + addressSpaces, 4, 65536) + 1,
    tags,
    tagBuckets: 2 * ceilPowerOfTwo(tags),
    frames,
    bankFrames: bankBytes / pageSize,
    pageSize,
    pageBuckets: ceilPowerOfTwo(frames),
    pageStripes: 64,
    // One stands for anonymous memory.
    vnodes: vnodes + 1,
    vnodeBuckets: ceilPowerOfTwo(vnodes),
    pathBytes,
    quantumCaches: integer('quantumCaches', 256, 1, 4096),
    spaceWaiters: integer('spaceWaiters', 512, 1, 65536),
    recordings: RECORDINGS,
    recordEntries: integer('recordEntries', 8192, 64, 2 ** 24),
    frameWaiters: 4 * slots,
    frameCacheFrames: physical.slotFrames,
    frameCacheLanes: Math.max(1, physical.slotFrames),
    magazines: Math.max(512, Math.ceil(cachedTags / 64)),
    slabs,
    slabBuckets: 4 * ceilPowerOfTwo(slabs),
    ...pageGeometry(frames, pathBytes),
    physSegments: 64,
    ...physical.geometry,
    ...physGeometry(frames, physical.frameOrder !== FRAME_ORDER.lowest),
    ...pagelockGeometry(frames, pageSize, pagelock),
    ...pmem.geometry,
    ...pmemGeometry(frames, pmem.plan.largeFrames),
    deviceMaps: 256,
    ioRequests: 2 * slots,
    ...mappings.geometry,
    ...replacementGeometry(replacement, frames, ceilPowerOfTwo(slots)),
    ...spaceGeometry(frames, addressSpaces, segments, anonymousPages),
    namedLocks: integer('locks', 256, 1, 65536),
    ...tagGeometry(tags),
  };
  const spinLimit = integer('spinLimit', 100, 0, 1_000_000);
  const clock = oneOf('clock', options.clock ?? 'real', ['real', 'virtual']);
  const services = oneOf('services', options.services ?? 'threads', ['threads', 'manual']);
  return {
    geometry,
    settings: { spinLimit, virtualClock: clock === 'virtual' },
    onlineFrames: memoryBytes / pageSize,
    segments: physical.segments ?? [{ start: 0, end: memoryBytes / pageSize }],
    frameOrder: physical.frameOrder,
    bigFirst: physical.bigFirst,
    marks: { ...defaultMarks(memoryBytes / pageSize), ...physical.marks },
    pmem: pmem.plan,
    limits: options.limits ?? {},
    modifiedMax: Math.ceil(parseSize(options.dirtyLimit ?? memoryBytes / 2, 'boot: dirtyLimit') / pageSize),
    pagelock,
    replacement,
    mappingState: mappings.state,
    services,
  };
}

/** The number of tags rounded up to whole chunks, in which they come. */
function wholeChunks(tags: number): number {
  const rows = 2 ** tagChunkShift(tags);
  return Math.ceil(tags / rows) * rows;
}

/** Buckets that follow from how many ranges there can be: the original takes four times as many, and replays do. */
function planPagelock(options: PagelockOptions, frames: number): PagelockOptions {
  if (options.compat === 'seed') return options;
  const window = Math.max(1024, ceilPowerOfTwo(Math.ceil((options.memoryPages ?? frames) / 16)));
  return { ...options, windowBuckets: options.windowBuckets || window, wiredBuckets: options.wiredBuckets || 1024 };
}

/** Capacities of the pagelock cache: its hash tables as it sizes them, and a range per 32 pages. */
function pagelockGeometry(frames: number, pageSize: number, options: PagelockOptions) {
  const { memoryPages = frames, windowBuckets: window = 0, wiredBuckets: wired = 0 } = options;
  const chosen = { windowBuckets: window, wiredBuckets: wired, maxWindow: 0 };
  const { windowBuckets, wiredBuckets } = sizePagelock(memoryPages, memoryPages, chosen, pageSize);
  const entries = Math.max(1024, Math.ceil(memoryPages / 32));
  return {
    pagelockBuckets: windowBuckets + wiredBuckets,
    pagelockEntries: entries,
    pagelockOwners: entries,
    pagelockPins: entries,
  };
}

/** Capacities of address spaces. */
function spaceGeometry(frames: number, addressSpaces: number, segments: number, anons: number) {
  return {
    addressSpaces,
    segments,
    anonMaps: segments,
    anonNodes: Math.ceil(anons / ANON_FANOUT) + 2 * segments,
    anons,
    shadowLists: Math.max(1024, Math.ceil(frames / 64)),
    swapWords: Math.ceil(anons / 32),
  };
}

function planMemory(options: BootOptions) {
  if (options.memory === undefined) failMisuse('boot', { memory: undefined }, "say how much memory: '64 MiB'");
  const pageSize = parseSize(options.pageSize ?? 4096, 'boot: pageSize');
  if (!isPowerOfTwo(pageSize) || pageSize < 4096 || pageSize > 65536) {
    failMisuse('boot', { pageSize: options.pageSize }, 'pageSize must be a power of two from 4 KiB to 64 KiB');
  }
  const memoryBytes = parseSize(options.memory, 'boot: memory');
  const memoryMaxBytes = parseSize(options.memoryMax ?? memoryBytes, 'boot: memoryMax');
  for (const [name, value] of [
    ['memory', memoryBytes],
    ['memoryMax', memoryMaxBytes],
  ] as const) {
    if (value < 16 * pageSize || value % pageSize !== 0 || value / pageSize > FRAMES_MAX) {
      failMisuse('boot', { [name]: value, pageSize }, `${name} must be a multiple of pageSize, from 16 to 2^30 frames`);
    }
  }
  if (memoryMaxBytes < memoryBytes) {
    failMisuse('boot', { memory: memoryBytes, memoryMax: memoryMaxBytes }, 'memoryMax must not be less than memory');
  }
  const wholeBytes = Math.ceil(memoryMaxBytes / WASM_PAGE_BYTES) * WASM_PAGE_BYTES;
  const bankBytes = parseSize(options.bankSize ?? Math.min(BANK_BYTES_MAX, wholeBytes), 'boot: bankSize');
  if (bankBytes < WASM_PAGE_BYTES || bankBytes > BANK_BYTES_MAX || bankBytes % WASM_PAGE_BYTES !== 0) {
    failMisuse('boot', { bankSize: options.bankSize }, 'bankSize must be a multiple of 64 KiB up to 4 GiB');
  }
  return { pageSize, memoryBytes, memoryMaxBytes, bankBytes };
}

function planPhysical(options: PhysicalOptions) {
  const known = ['order', 'classes', 'colours', 'segments', 'segmentOrder', 'marks', 'slotFrames'] as const;
  rejectUnknownOptions('boot: physical', options, known);
  const {
    order = 'lowest',
    classes = 1,
    colours = 1,
    segments,
    segmentOrder = 'first',
    marks = {},
    slotFrames = 0,
  } = options;
  requireInteger('boot: physical', 'slotFrames', slotFrames, 0, 256);
  requireInteger('boot: physical', 'classes', classes, 1, 64);
  requireInteger('boot: physical', 'colours', colours, 1, 256);
  if (segments !== undefined && !Array.isArray(segments)) {
    failMisuse('boot: physical', { segments }, 'segments must be an array');
  }
  for (const [at, segment] of (segments ?? []).entries()) requireSegment(`boot: physical.segments[${at}]`, segment);
  requireObject('boot: physical', 'marks', marks);
  if (!isPowerOfTwo(colours)) failMisuse('boot: physical', { colours }, 'colours must be a power of two');
  return {
    geometry: { frameClasses: classes, frameColours: colours, frameLists: classes * colours },
    frameOrder: FRAME_ORDER[oneOf('physical.order', order, ['lowest', 'lastIn', 'firstIn'])],
    bigFirst: oneOf('physical.segmentOrder', segmentOrder, ['first', 'bigFirst']) === 'bigFirst',
    segments,
    marks,
    slotFrames,
  };
}

/** Constants of pmem. */
export interface PmemPlan {
  readonly largeFrames: number;
  readonly reserveLimit: number;
  readonly keepLarge: number;
  readonly seed: boolean;
}

function planPmem(options: PmemOptions, frames: number) {
  const known = ['largeFrames', 'reserveLimit', 'keepLarge', 'cookies', 'runs', 'compat'] as const;
  rejectUnknownOptions('boot: pmem', options, known);
  const { largeFrames = 512, reserveLimit = Number.MAX_SAFE_INTEGER, keepLarge = 2, compat } = options;
  if (!isPowerOfTwo(largeFrames) || largeFrames > 65536) {
    failMisuse('boot: pmem', { largeFrames }, 'largeFrames must be a power of two up to 65536');
  }
  requireInteger('boot: pmem', 'reserveLimit', reserveLimit, 0, Number.MAX_SAFE_INTEGER);
  requireInteger('boot: pmem', 'keepLarge', keepLarge, 0, FRAMES_MAX);
  if (compat !== undefined) oneOf('pmem.compat', compat, ['seed']);
  const cookies = options.cookies ?? Math.min(65536, Math.max(256, Math.ceil(frames / 128)));
  const runs = options.runs ?? Math.max(1024, Math.ceil(frames / 32));
  return {
    geometry: {
      pmemCookies: requireInteger('boot: pmem', 'cookies', cookies, 1, 2 ** 24),
      pmemRuns: requireInteger('boot: pmem', 'runs', runs, 16, FRAMES_MAX),
    },
    plan: { largeFrames, reserveLimit, keepLarge, seed: compat === 'seed' },
  };
}

function oneOf<Choice extends string>(name: string, value: unknown, choices: readonly Choice[]): Choice {
  if (choices.includes(value as Choice)) return value as Choice;
  return failMisuse('boot', { [name]: value }, `${name} must be one of ${choices.join(', ')}`);
}
