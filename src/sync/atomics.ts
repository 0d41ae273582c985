/**
 * The atomic operations: the only file that names `Atomics`.
 *
 * PROBLEM     Every interleaving of threads begins at one of these calls, so tests need to stand in front of each.
 * STRUCTURE   One function per operation, over the region's words. In verify builds each calls the seam first.
 * COSTS       Node 20, two cores: load 6 ns, store and read-modify-write 9 ns, notify 26-38 ns.
 * REFERENCES  ECMA-262, Atomics; exploration replaces these functions, see test/explore.
 */

import { VmError } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import { seam } from './seam.ts';

/** What a wait came back with. */
export type WaitResult = 'ok' | 'not-equal' | 'timed-out';

/** Waits without a limit. */
export const FOREVER = Number.POSITIVE_INFINITY;

/** Wakes every waiter. */
export const ALL_WAITERS = Number.POSITIVE_INFINITY;

/** `Atomics.waitAsync` (ES2024): Node has it from version 16 on, the type library in use does not. */
interface AsyncAtomics {
  waitAsync(
    words: Int32Array,
    address: number,
    expected: number,
    timeoutMs: number,
  ): { readonly value: WaitResult | Promise<WaitResult> };
}

const asyncAtomics = Atomics as unknown as AsyncAtomics;

/** Reads a word. */
export function load(words: Int32Array, address: number): number {
  if (VERIFY) seam('load', address);
  return Atomics.load(words, address);
}

/** Writes a word. */
export function store(words: Int32Array, address: number, value: number): void {
  if (VERIFY) seam('store', address);
  Atomics.store(words, address, value);
}

/** Adds to a word; returns what was there. */
export function add(words: Int32Array, address: number, value: number): number {
  if (VERIFY) seam('add', address);
  return Atomics.add(words, address, value);
}

/** Sets bits; returns what was there. */
export function or(words: Int32Array, address: number, value: number): number {
  if (VERIFY) seam('or', address);
  return Atomics.or(words, address, value);
}

/** Keeps bits; returns what was there. */
export function and(words: Int32Array, address: number, value: number): number {
  if (VERIFY) seam('and', address);
  return Atomics.and(words, address, value);
}

/** Replaces a word; returns what was there. */
export function exchange(words: Int32Array, address: number, value: number): number {
  if (VERIFY) seam('exchange', address);
  return Atomics.exchange(words, address, value);
}

/** Replaces a word when it holds `expected`; returns what was there. */
export function compareExchange(words: Int32Array, address: number, expected: number, value: number): number {
  if (VERIFY) seam('compareExchange', address);
  return Atomics.compareExchange(words, address, expected, value);
}

/**
 * Sleeps while the word holds `expected`, at most `timeoutMs`. Throws `EWOULDBLOCK` on a thread that must not block: a
 * browser's main thread, or a worker that was told so.
 */
export function wait(words: Int32Array, address: number, expected: number, timeoutMs: number): WaitResult {
  if (VERIFY) seam('wait', address);
  try {
    return Atomics.wait(words, address, expected, timeoutMs);
  } catch (cause) {
    throw new VmError('EWOULDBLOCK', 'this thread must not block; use the asynchronous form', { cause });
  }
}

/** Like `wait`, but for the event loop: what came at once, or a promise of it. */
export function waitAsync(
  words: Int32Array,
  address: number,
  expected: number,
  timeoutMs: number,
): WaitResult | Promise<WaitResult> {
  if (VERIFY) seam('waitAsync', address);
  return asyncAtomics.waitAsync(words, address, expected, timeoutMs).value;
}

/** Wakes up to `count` sleepers; returns how many. */
export function notify(words: Int32Array, address: number, count: number): number {
  if (VERIFY) seam('notify', address);
  return Atomics.notify(words, address, count);
}
