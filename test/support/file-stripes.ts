/** What the writers of `test/workers/file-writer.ts` put into a file. */

/** Bytes of a stripe. */
export const STRIPE_BYTES = 1500;

/** What lies behind the stripes holds this, or zeros. */
export const BEHIND = 0xee;
