/**
 * The atomic operations: the only file that names `Atomics`.
 *
 * PROBLEM     Every interleaving of threads begins at one of these calls, so tests need to stand in front of each.
 * STRUCTURE   One function per operation, over the region's words. In verify builds each calls the seam first.
 * COSTS       Node 20, two cores: load 6 ns, store and read-modify-write 9 ns, notify 26-38 ns.
 * REFERENCES  ECMA-262, Atomics; exploration replaces these functions, see test/explore.
 */

import { VERIFY } from '../base/verify.ts';
import { seam } from './seam.ts';

/** What a wait came back with. */
export type WaitResult = 'ok' | 'not-equal' | 'timed-out';

/** Waits without a limit. */
export const FOREVER = Number.POSITIVE_INFINITY;

/** Wakes every waiter. */
export const ALL_WAITERS = Number.POSITIVE_INFINITY;

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

/** Sleeps while the word holds `expected`, at most `timeoutMs`. */
export function wait(words: Int32Array, address: number, expected: number, timeoutMs: number): WaitResult {
  if (VERIFY) seam('wait', address);
  return Atomics.wait(words, address, expected, timeoutMs);
}

/** Wakes up to `count` sleepers; returns how many. */
export function notify(words: Int32Array, address: number, count: number): number {
  if (VERIFY) seam('notify', address);
  return Atomics.notify(words, address, count);
}
