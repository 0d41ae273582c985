/** Opening vnodes that are no files: memory, resources behind HTTP, and users' own. */

import { failMisuse, rejectUnknownOptions, requireInteger, VmError } from '../base/errors.ts';
import type { Callbacks } from '../sync/callbacks.ts';
import { systemError } from '../vnode/file-facts.ts';
import { lookOfAnswer, lookQuestion } from '../vnode/look-questions.ts';
import { pageShiftOf } from '../vnode/open-options.ts';
import type { ProvidedLook, ProviderOptions, VnodeProvider } from '../vnode/provider.ts';
import { timeLimitOf } from '../vnode/time-limit.ts';
import { checkedLook, providedName } from '../vnode/user-store.ts';
import { VNODE_KIND } from '../vnode/vnode-kinds.ts';
import type { VnodeLook } from '../vnode/vnode-store.ts';
import { File, type FileRooms } from './file.ts';
import { type AsyncOptions, signalOf } from './file-async.ts';
import { namedError } from './named-errors.ts';

const NO_STAMP = new Int32Array(4);

/** What opening needs beside the rooms of a file. */
export interface KindRooms extends FileRooms {
  readonly callbacks: Callbacks;
}

/** How a memory vnode is opened. */
export interface MemoryOptions {
  /** As for files: see `OpenOptions`. */
  readonly pageSize?: number;
}

/**
 * Opens, or makes, a memory vnode of a name: all threads that open it share its bytes, which begin as nothing and go when
 * nobody has it open any more and its row or frames are needed. Its pages stay in memory while they hold anything.
 */
export function openMemory(rooms: KindRooms, name: string, options: MemoryOptions = {}): File {
  if (typeof name !== 'string' || name === '') failMisuse('openMemory', { name }, 'a name is a text that is not empty');
  requireOptions('openMemory', options);
  rejectUnknownOptions('openMemory', options, ['pageSize']);
  const pageShift = pageShiftOf('openMemory', options.pageSize, rooms.banks.pageSize);
  const facts = { kind: VNODE_KIND.memory, size: 0, stamp: NO_STAMP, detail: 0, joins: true, pageShift };
  return new File(rooms, rooms.vnodes.openNamed(`memory ${name}`, facts, true), true);
}

/** How a resource behind HTTP is opened. */
export interface RemoteOptions {
  /** As for files: see `OpenOptions`. A miss then asks for at least so many bytes. */
  readonly pageSize?: number;
  /**
   * Milliseconds within which the server must have answered, all attempts together, 0 for ever: when it is opened, looked at,
   * and asked for bytes. Who waits gets `ETIMEDOUT` then. Holds for all openers; the last one who gives it decides. Default:
   * what it was, or no limit but that four attempts may be silent for ten seconds each.
   */
  readonly timeoutMs?: number;
}

/**
 * Opens a resource behind HTTP or HTTPS for reading; the thread waits until the I/O worker has looked at it. Its pages are
 * read by ranges of one version: a resource that changes meanwhile is `ESTALE`, and the next open sees the new one. A server
 * that names no version must not change the resource: see docs/files.md.
 */
export function openRemote(rooms: KindRooms, url: string, options: RemoteOptions = {}): File {
  const plan = remotePlan('openRemote', rooms, url, options);
  try {
    return fileOfAnswer(rooms, plan, rooms.io.ask(lookQuestion(plan.href, plan.timeoutMs ?? 0)));
  } catch (error) {
    throw namedError('openRemote', error, { url });
  }
}

/** Like `openRemote`, without blocking the thread. */
export async function openRemoteAsync(
  rooms: KindRooms,
  url: string,
  options: RemoteOptions & AsyncOptions = {},
): Promise<File> {
  requireOptions('openRemoteAsync', options);
  const { signal, ...rest } = options;
  const plan = remotePlan('openRemoteAsync', rooms, url, rest);
  const used = signalOf('openRemoteAsync', { signal });
  try {
    return fileOfAnswer(rooms, plan, await rooms.io.askAsync(lookQuestion(plan.href, plan.timeoutMs ?? 0), used));
  } catch (error) {
    throw namedError('openRemoteAsync', error, { url });
  }
}

/** Opens a vnode of a user's own kind. Throws `ENOENT` when its module cannot be loaded, and what the provider throws. */
export function openProvided(rooms: KindRooms, options: ProviderOptions): File {
  const plan = providedPlan('openProvided', rooms, options);
  try {
    if (!plan.looks || !plan.provider.isAsync) return openProvidedHere(rooms, plan, options.name);
    return fileOfProvider(rooms, plan, lookOfAnswer(rooms.io.ask(lookQuestion(plan.text, plan.timeoutMs ?? 0))));
  } catch (error) {
    throw namedError('openProvided', error, { name: options.name });
  }
}

/** Like `openProvided`, without waiting for a provider that is asynchronous. */
export async function openProvidedAsync(rooms: KindRooms, options: ProviderOptions & AsyncOptions): Promise<File> {
  requireOptions('openProvidedAsync', options);
  const { signal, ...rest } = options;
  const used = signalOf('openProvidedAsync', { signal });
  const plan = providedPlan('openProvidedAsync', rooms, rest);
  try {
    if (!plan.looks || !plan.provider.isAsync) return openProvidedHere(rooms, plan, options.name);
    const question = lookQuestion(plan.text, plan.timeoutMs ?? 0);
    return fileOfProvider(rooms, plan, lookOfAnswer(await rooms.io.askAsync(question, used)));
  } catch (error) {
    throw namedError('openProvidedAsync', error, { name: options.name });
  }
}

/** Opens a vnode whose provider need not be asked, or is asked on this thread. */
function openProvidedHere(rooms: KindRooms, plan: ProvidedPlan, name: string): File {
  if (!plan.looks) return fileOfProvider(rooms, plan, null);
  const look = asked(plan.call, plan.whose, () => plan.provider.look?.(name));
  if (look instanceof Promise) {
    look.catch(() => undefined);
    failMisuse(plan.call, plan.whose, 'a provider that returns promises says so with isAsync');
  }
  return fileOfProvider(rooms, plan, checkedLook(look as ProvidedLook));
}

/** Checked options of a user's own vnode. */
interface ProvidedPlan {
  readonly call: string;
  /** What errors say of it. */
  readonly whose: Readonly<Record<string, unknown>>;
  readonly provider: VnodeProvider;
  /** What the vnode is called. */
  readonly text: string;
  /** True when the provider is to be asked for size and version. */
  readonly looks: boolean;
  readonly size: number;
  readonly detail: number;
  readonly writable: boolean;
  readonly pageShift: number | null;
  readonly timeoutMs: number | null;
}

function providedPlan(call: string, rooms: KindRooms, options: ProviderOptions): ProvidedPlan {
  requireOptions(call, options);
  rejectUnknownOptions(call, options, ['provider', 'name', 'mode', 'size', 'pageSize', 'timeoutMs']);
  const { provider: reference, name, mode = 'r' } = options;
  if (typeof name !== 'string') failMisuse(call, { name }, 'a name is a text');
  if (typeof reference?.export !== 'string') {
    failMisuse(call, { provider: reference, name }, 'a provider is named by a module and an export');
  }
  const detail = rooms.callbacks.intern(reference);
  const provider = rooms.callbacks.resolve<VnodeProvider>(detail);
  const looks = provider.look !== undefined && options.size === undefined;
  const { module, export: exported } = reference;
  const whose = { module: module === undefined ? '' : String(module), export: exported, name };
  const isAsked = !looks && options.size === undefined;
  if (typeof provider.getPage !== 'function' || (isAsked && typeof provider.size !== 'function')) {
    failMisuse(call, whose, 'the export is no provider: it has no getPage, or no size');
  }
  const told = options.size ?? (looks ? 0 : asked(call, whose, () => provider.size(name)));
  const size = requireInteger(call, 'size', told, 0, Number.MAX_SAFE_INTEGER);
  const writable = mode === 'rw';
  if (writable && provider.putPage === undefined) failMisuse(call, { mode }, 'the provider has no putPage');
  const pageShift = pageShiftOf(call, options.pageSize, rooms.banks.pageSize);
  const timeoutMs = timeLimitOf(call, options.timeoutMs);
  if (timeoutMs !== null && !provider.isAsync) {
    failMisuse(
      call,
      { ...whose, timeoutMs },
      'a provider that is not asynchronous answers on the thread that asks: no limit',
    );
  }
  return {
    call,
    whose,
    provider,
    text: providedName(detail, name),
    looks,
    size,
    detail,
    writable,
    pageShift,
    timeoutMs,
  };
}

/** What a provider says when it is opened; what it throws instead says whose it is. */
function asked<Result>(call: string, whose: Readonly<Record<string, unknown>>, action: () => Result): Result {
  try {
    return action();
  } catch (cause) {
    if (cause instanceof VmError) throw cause;
    throw systemError(cause, call, whose);
  }
}

function requireOptions(call: string, options: unknown): void {
  if (typeof options !== 'object' || options === null) failMisuse(call, { options }, 'options are an object');
}

function fileOfProvider(rooms: KindRooms, plan: ProvidedPlan, look: VnodeLook | null): File {
  const { text, size, detail, writable, pageShift, timeoutMs } = plan;
  const facts = {
    kind: VNODE_KIND.user,
    detail,
    pageShift,
    timeoutMs,
    ...(look ?? { size, stamp: NO_STAMP }),
    joins: look === null,
  };
  return new File(rooms, rooms.vnodes.openNamed(text, facts, writable), writable);
}

/** Checked options of a resource. */
interface RemotePlan {
  readonly href: string;
  readonly pageShift: number | null;
  readonly timeoutMs: number | null;
}

function remotePlan(call: string, rooms: KindRooms, url: string, options: RemoteOptions): RemotePlan {
  requireOptions(call, options);
  rejectUnknownOptions(call, options, ['pageSize', 'timeoutMs']);
  const pageShift = pageShiftOf(call, options.pageSize, rooms.banks.pageSize);
  return { href: checkedUrl(call, url).href, pageShift, timeoutMs: timeLimitOf(call, options.timeoutMs) };
}

function checkedUrl(call: string, url: string): URL {
  const parsed = URL.canParse(url) ? new URL(url) : null;
  if (parsed !== null && /^https?:$/.test(parsed.protocol)) {
    parsed.hash = '';
    return parsed;
  }
  return failMisuse(call, { url }, 'give an address that begins with http: or https:');
}

function fileOfAnswer(rooms: KindRooms, plan: RemotePlan, answer: Int32Array): File {
  const { href, pageShift, timeoutMs } = plan;
  const facts = { kind: VNODE_KIND.remote, ...lookOfAnswer(answer), detail: 0, joins: false, pageShift, timeoutMs };
  return new File(rooms, rooms.vnodes.openNamed(href, facts, false), false);
}
