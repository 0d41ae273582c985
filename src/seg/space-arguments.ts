/**
 * Checks of what programs give to address spaces: before anything is changed, with an error that names the call, the value and
 * the rule. TypeScript says most of it; programs in JavaScript, and values of type `any`, are told here.
 */

import { fail, failMisuse, rejectUnknownOptions, requireInteger } from '../base/index.ts';
import type { Cookie, Pmem } from '../pmem/index.ts';
import { type CallbackReference, CancelToken, requireTimeout } from '../sync/index.ts';

/** Throws unless these are options, all of them known. */
export function requireOptions(call: string, options: object, known: readonly string[]): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    failMisuse(call, { options }, `options are an object with any of ${known.join(', ')}`);
  }
  rejectUnknownOptions(call, options, known);
}

/** How long a call may wait for pins. */
export interface PinWaitGiven {
  readonly timeoutMs: number;
  readonly cancel?: CancelToken | undefined;
}

/** What was given of that; without a time limit it does not wait. */
export function pinWaitOf(call: string, options: Partial<PinWaitGiven>): PinWaitGiven {
  requireOptions(call, options, ['timeoutMs', 'cancel']);
  const { timeoutMs = 0, cancel } = options;
  requireTimeout(call, timeoutMs);
  requireToken(call, cancel);
  return { timeoutMs, cancel };
}

/** Throws unless it is a token, or none. */
export function requireToken(call: string, cancel: unknown): void {
  if (cancel === undefined || cancel instanceof CancelToken) return;
  failMisuse(call, { cancel }, 'cancel must be a CancelToken');
}

/** Throws for arguments behind the last one: options that the call does not have would be ignored in silence. */
export function rejectMore(call: string, more: readonly unknown[]): void {
  if (more.length > 0) failMisuse(call, { more }, 'it takes no further argument');
}

/** Throws unless these are integers that lie between 0 and 2^53, with what is behind the range. */
export function requireRange(call: string, address: number, length: number): void {
  const areNumbers = Number.isSafeInteger(address) && Number.isSafeInteger(length);
  if (areNumbers && address >= 0 && length >= 0 && Number.isSafeInteger(address + length)) return;
  failMisuse(call, { address, length }, 'a range is integers that lie between 0 and 2^53');
}

/** Throws unless this can be pinned as far as its numbers go. */
export function requirePin(call: string, address: number, length: number, access: string): void {
  requireRange(call, address, length);
  if (length > 0 && (access === 'read' || access === 'write')) return;
  failMisuse(call, { length, access }, "at least a byte, for 'read' or 'write'");
}

/** Throws unless these are bytes. */
export function requireBytes(call: string, name: string, bytes: Uint8Array): void {
  if (bytes instanceof Uint8Array) return;
  failMisuse(
    call,
    { [name]: kindOf(bytes) },
    `${name} is a Uint8Array, for example one over the bytes of another array`,
  );
}

/** New bytes. Throws `ENOMEM` when the engine has not so many. */
export function newBytes(call: string, length: number): Uint8Array {
  try {
    return new Uint8Array(length);
  } catch {
    return fail('ENOMEM', call, { length }, 'an array of this length cannot be had');
  }
}

/** Throws unless the value fits into a 32-bit word, signed or not. */
export function requireWord(call: string, value: number): void {
  if (typeof value === 'number' && (value === (value | 0) || value === value >>> 0)) return;
  failMisuse(call, { value }, 'a word is an integer from -2^31 to 2^32 - 1');
}

/** Throws for an address that is no number, or no multiple of 4. */
export function failWord(call: string, address: number): never {
  failMisuse(call, { address }, 'a word lies at a multiple of 4');
}

/** Throws unless the value is a boolean or left out; then it is `otherwise`. */
export function booleanOf(call: string, name: string, value: boolean | undefined, otherwise: boolean): boolean {
  if (value === undefined) return otherwise;
  if (typeof value !== 'boolean') failMisuse(call, { [name]: value }, `${name} is true or false`);
  return value;
}

/** The integer that was given, or `otherwise` when none was. */
export function integerOf(
  call: string,
  name: string,
  value: number | undefined,
  otherwise: number,
  min: number,
  max: number,
): number {
  return value === undefined ? otherwise : requireInteger(call, name, value, min, max);
}

/** Throws unless this names a callback. */
export function requireReference(call: string, driver: CallbackReference): void {
  const { module, export: name } = typeof driver === 'object' && driver !== null ? driver : { export: '' };
  const isModule = module === undefined || typeof module === 'string' || module instanceof URL;
  if (isModule && typeof name === 'string' && name !== '') return;
  failMisuse(call, { driver }, 'a driver is named by `export`, and by `module` if it is in one');
}

/** Throws `EINVAL` for what is no cookie of pmem, `ESTALE` for one that was freed. */
export function requireCookie(call: string, pmem: Pmem, cookie: Cookie): void {
  const fields = typeof cookie === 'object' && cookie !== null ? [cookie.cookie, cookie.generation, cookie.frames] : [];
  if (fields.length === 0 || !fields.every((field) => Number.isInteger(field))) {
    failMisuse(call, { cookie }, 'a cookie is what `pmem.alloc` returned');
  }
  const found = pmem.cookies().find((live) => live.cookie === cookie.cookie && live.generation === cookie.generation);
  if (found === undefined) fail('ESTALE', call, { cookie: cookie.cookie }, 'the cookie was freed, or there was none');
  if (found.frames !== cookie.frames) {
    failMisuse(call, { cookie, frames: found.frames }, 'a cookie is what `pmem.alloc` returned');
  }
}

function kindOf(value: unknown): string {
  if (value === null || typeof value !== 'object') return String(value);
  return Object.prototype.toString.call(value).slice('[object '.length, -1);
}
