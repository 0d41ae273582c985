/**
 * Requests for page lists: what a caller asks for, checked and turned into frames.
 *
 * Two readings exist. The default refuses what can never be right, takes a limit as the last byte that may be used, and
 * counts frames exactly up to 2^53. `compat: 'seed'` reads sizes and limits as `uvm_pglist.c` does; docs/differences.md
 * lists where they part.
 */

import { ADDRESS_MAX, alignUp, failMisuse, isPowerOfTwo, rejectUnknownOptions, requireInteger } from '../base/index.ts';
import type { FrameIndex } from './banks.ts';
import type { FrameWaitOptions } from './frame-waiting.ts';

/** What a page list must be. Addresses are physical byte addresses: frame times page size. */
export interface PageListRequest {
  /** Bytes; rounded up to whole frames. */
  readonly size: number;
  /** Lowest address that may be used. Default 0. */
  readonly low?: number;
  /** Highest address that may be used: a frame fits when its last byte is not above it. Default: no limit. */
  readonly high?: number;
  /** Every run starts at a multiple of this power of two. Default and least: the page size. */
  readonly alignment?: number;
  /** No run crosses a multiple of this power of two. Default 0: no such limit. */
  readonly boundary?: number;
  /** Most runs of adjacent frames. Default 1. */
  readonly segments?: number;
  /** Wait until the request can be served, while that is possible at all. Default: do not. */
  readonly wait?: boolean | FrameWaitOptions;
}

const KNOWN: ReadonlySet<string> = new Set<keyof PageListRequest>([
  'size',
  'low',
  'high',
  'alignment',
  'boundary',
  'segments',
  'wait',
]);

/** A request in frames. */
export interface FrameRequest {
  readonly count: number;
  readonly low: FrameIndex;
  /** Frame behind the last one allowed. */
  readonly high: FrameIndex;
  readonly alignment: number;
  /** 0: none. */
  readonly boundary: number;
  readonly segments: number;
  /** Null: do not wait. */
  readonly wait: FrameWaitOptions | null;
}

/** What errors of requests name that do not say which call it was. */
export const LIST_CALL = 'pageList.alloc';

function isPowerOrNone(value: number): boolean {
  return value === 0 || isPowerOfTwo(value);
}

/** Checks what both readings have in common. */
function checkCommon(request: PageListRequest, call: string): void {
  if (typeof request !== 'object' || request === null) failMisuse(call, { request }, 'a request is an object');
  // In place of `rejectUnknownOptions`, which makes a list of the keys: this is on the way of every request.
  for (const key in request) if (!KNOWN.has(key)) rejectUnknownOptions(call, request, [...KNOWN]);
  const { low = 0, high = ADDRESS_MAX, alignment = 0, boundary = 0, segments = 1 } = request;
  requireInteger(call, 'low', low, 0, ADDRESS_MAX);
  requireInteger(call, 'high', high, 0, ADDRESS_MAX);
  requireInteger(call, 'segments', segments, 0, ADDRESS_MAX);
  if (!isPowerOrNone(alignment)) failMisuse(call, { alignment }, 'alignment must be 0 or a power of two');
  if (!isPowerOrNone(boundary)) failMisuse(call, { boundary }, 'boundary must be 0 or a power of two');
}

function waitOf(request: PageListRequest, call: string): FrameWaitOptions | null {
  const { wait = false } = request;
  if (wait === false) return null;
  if (wait === true) return {};
  if (typeof wait !== 'object' || wait === null) failMisuse(call, { wait }, 'wait is true, false, or how long');
  return wait;
}

/** The default reading. Throws `EINVAL` for a request that breaks a rule, also one that no memory could serve. */
export function readRequest(
  request: PageListRequest,
  pageSize: number,
  frames: number,
  call = LIST_CALL,
): FrameRequest {
  checkCommon(request, call);
  const { size, low = 0, high = ADDRESS_MAX, alignment = 0, boundary = 0, segments = 1 } = request;
  requireInteger(call, 'size', size, 1, ADDRESS_MAX);
  requireInteger(call, 'segments', segments, 1, ADDRESS_MAX);
  const count = Math.ceil(size / pageSize);
  if (low > high) failMisuse(call, { low, high }, 'low must not be above high');
  if (boundary !== 0 && Math.ceil(size / boundary) > segments) {
    failMisuse(call, { size, boundary, segments }, 'so many bytes cannot lie in so few runs between such boundaries');
  }
  const boundaryFrames = boundary / pageSize;
  return {
    count,
    low: Math.min(frames, Math.ceil(low / pageSize)),
    high: Math.min(frames, high >= ADDRESS_MAX ? frames : Math.floor((high + 1) / pageSize)),
    alignment: Math.max(1, alignment / pageSize),
    // A boundary below the page size can stop no frame: it is one inside every frame.
    boundary: boundaryFrames < 1 ? 0 : boundaryFrames,
    segments: Math.min(segments, count),
    wait: waitOf(request, call),
  };
}

/** A request as the seed reads it; addresses stay bytes where the seed keeps them. */
export interface SeedRequest {
  readonly count: number;
  readonly lowBytes: number;
  readonly highBytes: number;
  /** In frames. */
  readonly alignment: number;
  readonly boundaryBytes: number;
  readonly contiguous: boolean;
  readonly wait: boolean;
}

/** The seed's reading. Throws `EINVAL` where the seed returns it, and for what it asserts. */
export function readSeedRequest(request: PageListRequest, pageSize: number): SeedRequest {
  checkCommon(request, LIST_CALL);
  const { size, low = 0, high = ADDRESS_MAX, alignment = 0, boundary = 0, segments = 1 } = request;
  requireInteger(LIST_CALL, 'size', size, 0, ADDRESS_MAX);
  const alignmentBytes = Math.max(alignment, pageSize);
  if (boundary !== 0 && boundary < size) failMisuse(LIST_CALL, { size, boundary }, 'boundary must not be below size');
  const count = Math.ceil(size / pageSize);
  return {
    count,
    lowBytes: alignUp(low, alignmentBytes),
    highBytes: high,
    alignment: alignmentBytes / pageSize,
    boundaryBytes: boundary,
    contiguous: segments < count || alignmentBytes !== pageSize || boundary !== 0,
    wait: waitOf(request, LIST_CALL) !== null,
  };
}

/** What a room waits for that takes frames in several steps. */
export interface ServedRequest<Found> {
  /** The most that it may take. */
  readonly given: PageListRequest;
  readonly call: string;
  /** What was asked for, for messages. */
  readonly values: object;
  /** One try; `waiter` says that it may overtake nobody. Null when it cannot be served. */
  attempt(waiter: boolean): Found | null;
}
