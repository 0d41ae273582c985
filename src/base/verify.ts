/**
 * The build flavour.
 *
 * Two flavours are built from the same sources. `release` carries the asserts that cost about a nanosecond.
 * `verify` adds rank checks, fault points, the scheduling seam and whole-structure checks at the end of critical
 * sections. The bundler replaces `__VERIFY__` by a literal, so that a release build holds no trace of the rest.
 */

declare const __VERIFY__: boolean;

/** True in checked builds: guards everything that a release build must not pay for. */
export const VERIFY: boolean = __VERIFY__;

/** Name of this build's flavour, recorded in every region so that a differently built thread cannot attach. */
export const FLAVOUR: 'release' | 'verify' = __VERIFY__ ? 'verify' : 'release';
