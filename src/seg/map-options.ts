/** What a new mapping is to be: options of `as.map`, checked. */

import { failMisuse, isPowerOfTwo, requireInteger } from '../base/index.ts';
import type { VnodeIndex } from '../page/index.ts';
import type { Cookie, DeviceMapIndex } from '../pmem/index.ts';
import { type CallbackReference, requireTimeout } from '../sync/index.ts';
import { SharedMemory } from './shared-memory.ts';
import { booleanOf, integerOf, requireOptions, requireReference } from './space-arguments.ts';
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

const CALL = 'as.map';

/** Options that are integers and may be left out. */
type IntegerOption = 'address' | 'offset' | 'pageSizeCode' | 'align' | 'physical' | 'min' | 'max' | 'guard';

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
  requireOptions(CALL, options, KNOWN);
  const chosen = SOURCES.filter((name) => options[name] !== undefined);
  if (chosen.length > 1) failMisuse(CALL, { sources: chosen }, 'a mapping has one source');
  requireSource(options);
  const { MAX_SAFE_INTEGER: most } = Number;
  const integer = (name: IntegerOption, otherwise: number, min: number, max: number) =>
    integerOf(CALL, name, options[name], otherwise, min, max);
  const size = Math.ceil(requireInteger(CALL, 'size', options.size, 1, 2 ** 43) / pageSize) * pageSize;
  const pages = size / pageSize;
  if (pages > MAP_PAGES_MAX) failMisuse(CALL, { size, pageSize }, `a mapping has up to ${MAP_PAGES_MAX} pages`);
  const address = integer('address', -1, 0, most - size);
  const offset = integer('offset', 0, 0, most);
  const sizeCode = integer('pageSizeCode', 0, 0, 16);
  const large = pageSize * 2 ** sizeCode;
  const asked = integer('align', pageSize, 1, 2 ** 43);
  if (!isPowerOfTwo(asked)) failMisuse(CALL, { align: asked }, 'align must be a power of two');
  const align = Math.max(asked, large);
  for (const [name, value, unit] of [
    ['address', Math.max(0, address), align],
    ['offset', offset, pageSize],
    ['physical', integer('physical', 0, 0, most), pageSize],
    ['size', sizeCode === 0 ? 0 : size, large],
  ] as const) {
    if (value % unit !== 0) failMisuse(CALL, { [name]: value }, `${name} must be a multiple of ${unit}`);
  }
  const replace = booleanOf(CALL, 'replace', options.replace, false);
  if (replace && address < 0) failMisuse(CALL, { replace }, '`replace` needs an `address`');
  const { timeoutMs = 0 } = options;
  requireTimeout(CALL, timeoutMs);
  const min = integer('min', 0, 0, most);
  const max = integer('max', most, 0, most);
  const isInside = min <= max && (address < 0 || (address >= min && address + size - 1 <= max));
  if (!isInside) failMisuse(CALL, { address, size, min, max }, 'what is mapped lies between `min` and `max`');
  return {
    ...{ size, address, replace, align, min, max, sizeCode, timeoutMs },
    guard: Math.ceil(integer('guard', 0, 0, 2 ** 43) / pageSize) * pageSize,
    reserve: booleanOf(CALL, 'reserve', options.reserve, true),
    offsetPages: offset / pageSize,
    source: options,
    ...planRights(options),
  };
}

/** What the mapping may be used for, and by whom its stores are seen. */
function planRights(options: MapOptions): Pick<MapPlan, 'protection' | 'maxProtection' | 'isShared'> {
  const { file, protection, maxProtection } = options;
  const byDefault = options.memory !== undefined || options.cookie !== undefined;
  const isShared = booleanOf(CALL, 'shared', options.shared, byDefault);
  if (byDefault && !isShared)
    failMisuse(CALL, { shared: isShared }, 'stores into `memory` and a `cookie` are always shared');
  const isReadOnly = file !== undefined && isShared && !file.isWritable;
  for (const [name, value] of Object.entries({ protection, maxProtection })) {
    if (value === undefined || (typeof value === 'string' && Object.hasOwn(PROTECTION_NAMES, value))) continue;
    failMisuse(CALL, { [name]: value }, `${name} is one of 'none', 'read', 'write'`);
  }
  const most = PROTECTION_NAMES[maxProtection ?? (isReadOnly ? 'read' : 'write')];
  const bits = PROTECTION_NAMES[protection ?? (isReadOnly ? 'read' : 'write')];
  if ((most & bits) !== bits) failMisuse(CALL, { protection, maxProtection }, 'protection goes up to maxProtection');
  if (isReadOnly && most === PROTECTION_NAMES.write)
    failMisuse(CALL, { maxProtection }, 'the file is open for reading only');
  return { protection: bits, maxProtection: most, isShared };
}

/** Throws for a source that cannot be one, and for options that need another. What it refers to is looked at later. */
function requireSource({ file, memory, driver, data, offset, physical }: MapOptions): void {
  if (file !== undefined && !(isObject(file) && Number.isInteger(file.vnode) && typeof file.isWritable === 'boolean')) {
    failMisuse(
      CALL,
      { file: isObject(file) ? 'object' : file },
      'a file is an open one, with `vnode` and `isWritable`',
    );
  }
  if (memory !== undefined && !(memory instanceof SharedMemory)) {
    failMisuse(CALL, { memory }, 'memory is what `vm.sharedMemory` returned in this thread');
  }
  if (driver !== undefined) requireReference(CALL, driver);
  if (data !== undefined && !(driver !== undefined && Number.isFinite(data)))
    failMisuse(CALL, { data }, 'data is a finite number for a `driver`');
  if (offset !== undefined && offset !== 0 && (physical !== undefined || driver !== undefined))
    failMisuse(CALL, { offset }, 'physical memory and drivers have no `offset`');
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}
