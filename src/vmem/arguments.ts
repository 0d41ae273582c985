/**
 * Checks of arguments that are no sizes: before any lock is taken, so that a refused call has changed nothing.
 *
 * Hot code makes the comparison itself and calls `failAddress` in the branch that is never taken.
 */

import { ADDRESS_MAX, failMisuse, requireObject } from '../base/index.ts';
import { type Attachment, slotOfAttachment } from '../sync/index.ts';
import type { ArenaCore } from './arena-core.ts';

/** Throws `EINVAL` for what is no address. */
export function requireAddress(core: ArenaCore, call: string, address: number): void {
  if (!Number.isSafeInteger(address) || address < 0) failAddress(core.name, call, address);
}

/** Throws the error of `requireAddress`. */
export function failAddress(arena: string, call: string, address: number): never {
  failMisuse(call, { arena, address }, `address must be an integer from 0 to ${ADDRESS_MAX}`);
}

/** Throws `EINVAL` for what no thread bears as its attachment. */
export function requireAttachment(core: ArenaCore, call: string, attachment: Attachment): void {
  if (Number.isSafeInteger(attachment) && attachment > 0 && slotOfAttachment(attachment) >= 0) return;
  failMisuse(call, { arena: core.name, attachment }, 'pass the `attachment` of a thread');
}

/** Throws `EINVAL` for what is no object of options. */
export function requireOptions(call: string, options: object): void {
  requireObject(call, 'options', options);
}

/** Throws `EINVAL` for what cannot be called. */
export function requireFunction(call: string, name: string, value: unknown): void {
  if (typeof value !== 'function') failMisuse(call, { [name]: value }, `${name} must be a function`);
}
