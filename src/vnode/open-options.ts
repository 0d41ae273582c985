/** How a file is opened. */

import { constants } from 'node:fs';
import { resolve } from 'node:path';
import { failMisuse, rejectUnknownOptions, requireInteger } from '../base/errors.ts';
import { LARGE_PAGE_FRAMES_MAX } from '../page/page-shapes.ts';
import type { OpenFlags } from './file-facts.ts';
import { LSN_BYTES, type PageHookOptions } from './page-hooks.ts';
import { PATH_BYTES_MAX } from './path-heap.ts';

/** Options of `vm.open`. */
export interface OpenOptions extends PageHookOptions {
  /** `'r'` reads, `'rw'` reads and writes. Default `'r'`. */
  readonly mode?: 'r' | 'rw';
  /** Makes the file when it does not exist. Needs mode `'rw'`. */
  readonly create?: boolean;
  /** With `create`: throws `EEXIST` when the file exists. */
  readonly exclusive?: boolean;
  /** Cuts the file to nothing. Needs mode `'rw'`. */
  readonly truncate?: boolean;
  /** Permissions of a file that is made. Default 0o666, less what the process masks. */
  readonly permissions?: number;
  /**
   * Bytes of a page: a power of two from the system's page size, 4096 unless it was booted with another, to 64 KiB. A page
   * lies in adjacent frames and is read, sealed, written back and evicted as one. All openers of a file see the same; one
   * who asks for another size than it has is refused with `EINVAL`. Default: what it has, or else the system's.
   */
  readonly pageSize?: number;
  /**
   * Bytes of the file that may be modified in memory: who writes beyond that writes the oldest ones back first. Holds for all
   * openers; the last one who gives it decides. 0 for no limit but the system's. Default: what it was.
   */
  readonly dirtyLimit?: number;
  /**
   * Writes zeros into the file when a write or a truncation makes it longer, so that a full disk shows then, as `ENOSPC` and
   * with nothing changed, and not when pages are written back. Holes inside the file stay holes. Needs mode `'rw'`; holds for all
   * openers from then on. Default false: one system call less for each extension.
   */
  readonly allocate?: boolean;
  /**
   * Opens a block vnode of the given name that stands for this file, as several devices may stand for one disk: all of its
   * names share one set of pages, and the name belongs to the file as long as somebody has it open.
   */
  readonly block?: string;
}

/** Checked options. */
export interface OpenPlan extends OpenFlags {
  readonly writable: boolean;
  readonly truncate: boolean;
  /** What is done with pages on their way; null for nothing. */
  readonly tied: PageHookOptions | null;
  /** See `VnodeFacts`. */
  readonly pageShift: number | null;
  /** Frames; null: as it was. */
  readonly modifiedMax: number | null;
  readonly allocate: boolean;
}

const KNOWN = [
  'mode',
  'create',
  'exclusive',
  'truncate',
  'permissions',
  'hooks',
  'lsnOffset',
  'pageSize',
  'dirtyLimit',
  'allocate',
  'block',
] as const;

/** Most bytes of a page. */
export const PAGE_BYTES_MAX = 65_536;

/** How often the system's page size must be doubled to have the one that was asked for; null for none. Throws `EINVAL`. */
export function pageShiftOf(call: string, pageSize: number | undefined, systemPageSize: number): number | null {
  if (pageSize === undefined) return null;
  const shift = Math.log2(pageSize / systemPageSize);
  const fits = Number.isInteger(shift) && shift >= 0 && 2 ** shift <= LARGE_PAGE_FRAMES_MAX;
  if (fits && (pageSize <= PAGE_BYTES_MAX || shift === 0)) return shift;
  return failMisuse(call, { pageSize }, `a power of two from ${systemPageSize} to ${PAGE_BYTES_MAX}`);
}

/** Where a file is. */
export interface FilePlace {
  readonly absolute: string;
  /** The same as the region stores it. */
  readonly bytes: Uint8Array;
}

/** The place of a path. Throws `EINVAL`. */
export function placeOf(call: string, path: string): FilePlace {
  if (typeof path !== 'string' || path === '' || path.includes('\0')) {
    failMisuse(call, { path }, 'a path is a text that is not empty and has no zero byte');
  }
  const absolute = resolve(path);
  const bytes = new TextEncoder().encode(absolute);
  if (bytes.length > PATH_BYTES_MAX) failMisuse(call, { path }, `a path has at most ${PATH_BYTES_MAX} bytes`);
  return { absolute, bytes };
}

/** Checks the options. Throws `EINVAL` that names the option and the rule. */
export function planOpen(options: OpenOptions, call: string, systemPageSize: number): OpenPlan {
  if (typeof options !== 'object' || options === null) failMisuse(call, { options }, 'options are an object');
  rejectUnknownOptions(call, options, KNOWN);
  const { mode = 'r', create = false, exclusive = false, truncate = false, permissions = 0o666 } = options;
  if (mode !== 'r' && mode !== 'rw') failMisuse(call, { mode }, "mode is 'r' or 'rw'");
  requireInteger(call, 'permissions', permissions, 0, 0o7777);
  const { hooks, lsnOffset } = options;
  if (lsnOffset !== undefined) requireInteger(call, 'lsnOffset', lsnOffset, 0, PAGE_BYTES_MAX - LSN_BYTES);
  const tied = hooks === undefined && lsnOffset === undefined ? null : options;
  const writable = mode === 'rw';
  if (!writable && (create || truncate)) failMisuse(call, { mode, create, truncate }, "they need mode 'rw'");
  if (exclusive && !create) failMisuse(call, { exclusive, create }, 'exclusive needs create');
  const { dirtyLimit, allocate = false } = options;
  if (!writable && allocate) failMisuse(call, { mode, allocate }, "allocate needs mode 'rw'");
  if (dirtyLimit !== undefined) requireInteger(call, 'dirtyLimit', dirtyLimit, 0, Number.MAX_SAFE_INTEGER);
  let flags = writable ? constants.O_RDWR : constants.O_RDONLY;
  if (create) flags |= constants.O_CREAT;
  if (exclusive) flags |= constants.O_EXCL;
  return {
    flags,
    permissions,
    writable,
    truncate,
    tied,
    allocate,
    pageShift: pageShiftOf(call, options.pageSize, systemPageSize),
    modifiedMax: dirtyLimit === undefined ? null : Math.min(2 ** 30, Math.ceil(dirtyLimit / systemPageSize)),
  };
}
