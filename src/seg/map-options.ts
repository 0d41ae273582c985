/** What a new mapping is to be: options of `as.map`, checked. */

import { failMisuse, isPowerOfTwo, rejectUnknownOptions, requireInteger } from '../base/index.ts';
import type { VnodeIndex } from '../page/index.ts';
import type { Cookie, DeviceMapIndex } from '../pmem/index.ts';
import type { CallbackReference } from '../sync/index.ts';
import type { SharedMemory } from './shared-memory.ts';
import { PROTECTION_NAMES, type Protection } from './space-kinds.ts';

/** A file as mappings need it: an open `File` is one. */
export interface MappableFile {
  readonly vnode: VnodeIndex;
  readonly isWritable: boolean;
}

/** Options of a new mapping. Sizes and addresses are bytes. Without a source it is anonymous memory, filled with zeros. */
export interface MapOptions {
  /** Bytes; rounded up to pages. */
  readonly size: number;
  /** Exactly here; a multiple of the page size. Default: wherever there is room. */
  readonly address?: number;
  /** With `address`: what is mapped there is unmapped first. Default: `EEXIST`. */
  readonly replace?: boolean;
  /** The address is a multiple of this power of two. Default: the page size. */
  readonly align?: number;
  /** Bytes that are kept free on both sides; rounded up to pages. Default 0. */
  readonly guard?: number;
  /** Lowest address. */
  readonly min?: number;
  /** No byte lies above this address. */
  readonly max?: number;
  /** Default `'write'`, which includes reading. */
  readonly protection?: Protection;
  /** What `protect` may raise it to. Default `'write'`, for a shared mapping of a file that is open for reading `'read'`. */
  readonly maxProtection?: Protection;
  /** True: what is written goes to the file, or is seen by forks. Default: false, stores are this space's own. */
  readonly shared?: boolean;
  /** False: no swap is reserved; a write may then fail for lack of memory. Default true. */
  readonly reserve?: boolean;
  /** Pages of 2^code frames: address and size are multiples of that. A hint for drivers. Default 0. */
  readonly pageSizeCode?: number;
  /** An open file; its pages from `offset` on. */
  readonly file?: MappableFile;
  /** Shared memory of `vm.sharedMemory`, from `offset` on. */
  readonly memory?: SharedMemory;
  /** A pmem cookie, from `offset` on: a device map is made for it. */
  readonly cookie?: Cookie;
  /** A device map that is set up, from `offset` on. */
  readonly deviceMap?: DeviceMapIndex;
  /** Physical memory at this address, for example of `vm.heap`. */
  readonly physical?: number;
  /** A driver of users: see segment-driver.ts. */
  readonly driver?: CallbackReference;
  /** A number for that driver. */
  readonly data?: number;
  /** Byte offset in the source; a multiple of the page size. Default 0. */
  readonly offset?: number;
  /** Milliseconds to wait for pins, with `replace`. Default 0: `EBUSY`. */
  readonly timeoutMs?: number;
}

const KNOWN: readonly (keyof MapOptions)[] = [
  'size',
  'address',
  'replace',
  'align',
  'guard',
  'min',
  'max',
  'protection',
  'maxProtection',
  'shared',
  'reserve',
  'pageSizeCode',
  'file',
  'memory',
  'cookie',
  'deviceMap',
  'physical',
  'driver',
  'data',
  'offset',
  'timeoutMs',
];

/** Most pages of a mapping: they are counted with 31 bits. */
const MAP_PAGES_MAX = 2 ** 30;

const SOURCES = ['file', 'memory', 'cookie', 'deviceMap', 'physical', 'driver'] as const;

/** Checked options. */
export interface MapPlan {
  readonly size: number;
  /** -1: anywhere. */
  readonly address: number;
  readonly replace: boolean;
  readonly align: number;
  readonly guard: number;
  readonly min: number;
  readonly max: number;
  readonly protection: number;
  readonly maxProtection: number;
  readonly isShared: boolean;
  readonly reserve: boolean;
  readonly sizeCode: number;
  readonly offsetPages: number;
  readonly timeoutMs: number;
  readonly source: MapOptions;
}

/** Checks options. Throws `EINVAL` that names the option and the rule. */
export function planMap(options: MapOptions, pageSize: number): MapPlan {
  const call = 'as.map';
  rejectUnknownOptions(call, options, KNOWN);
  const chosen = SOURCES.filter((name) => options[name] !== undefined);
  if (chosen.length > 1) failMisuse(call, { sources: chosen }, 'a mapping has one source');
  const { MAX_SAFE_INTEGER: most } = Number;
  const size = Math.ceil(requireInteger(call, 'size', options.size, 1, 2 ** 43) / pageSize) * pageSize;
  const address = options.address === undefined ? -1 : requireInteger(call, 'address', options.address, 0, most - size);
  const offset = requireInteger(call, 'offset', options.offset ?? 0, 0, most);
  const physical = requireInteger(call, 'physical', options.physical ?? 0, 0, most);
  const sizeCode = requireInteger(call, 'pageSizeCode', options.pageSizeCode ?? 0, 0, 16);
  const large = pageSize * 2 ** sizeCode;
  const align = Math.max(requireInteger(call, 'align', options.align ?? pageSize, 1, 2 ** 43), large);
  if (!isPowerOfTwo(align)) failMisuse(call, { align }, 'align must be a power of two');
  for (const [name, value, unit] of [
    ['address', Math.max(0, address), large],
    ['offset', offset, pageSize],
    ['physical', physical, pageSize],
    ['size', sizeCode === 0 ? 0 : size, large],
  ] as const) {
    if (value % unit !== 0) failMisuse(call, { [name]: value }, `${name} must be a multiple of ${unit}`);
  }
  const pages = size / pageSize;
  if (pages > MAP_PAGES_MAX) {
    failMisuse(call, { size, pageSize }, `a mapping has up to ${MAP_PAGES_MAX} pages`);
  }
  const protection = options.protection ?? 'write';
  const isFile = options.file !== undefined;
  const isShared = options.shared ?? (options.memory !== undefined || options.cookie !== undefined);
  const isReadOnly = isFile && isShared && !options.file?.isWritable;
  const maxProtection = options.maxProtection ?? (isReadOnly ? 'read' : 'write');
  for (const name of [protection, maxProtection]) {
    if (!Object.hasOwn(PROTECTION_NAMES, name))
      failMisuse(call, { protection: name }, "one of 'none', 'read', 'write'");
  }
  const max = PROTECTION_NAMES[maxProtection];
  const bits = PROTECTION_NAMES[options.protection === undefined && isReadOnly ? 'read' : protection];
  if ((max & bits) !== bits) failMisuse(call, { protection, maxProtection }, 'protection goes up to maxProtection');
  if (isReadOnly && max === PROTECTION_NAMES.write)
    failMisuse(call, { maxProtection }, 'the file is open for reading only');
  return {
    size,
    address,
    replace: options.replace ?? false,
    align,
    guard: Math.ceil(requireInteger(call, 'guard', options.guard ?? 0, 0, 2 ** 43) / pageSize) * pageSize,
    min: requireInteger(call, 'min', options.min ?? 0, 0, most),
    max: requireInteger(call, 'max', options.max ?? most, 0, most),
    protection: bits,
    maxProtection: max,
    isShared,
    reserve: options.reserve ?? true,
    sizeCode,
    offsetPages: offset / pageSize,
    timeoutMs: options.timeoutMs ?? 0,
    source: options,
  };
}
