/** What the writers of `run --write` write: blocks that say by their bytes which write they are from. */

/** Bytes of a block: several of them, of several workers, lie in one page. */
export const BLOCK_BYTES = 1500;

/** Fills a block with what its write number `sequence` puts there. */
export function fillBlock(bytes: Uint8Array, seed: number, file: number, block: number, sequence: number): void {
  let state =
    Math.imul(seed ^ Math.imul(file + 1, 0x9e3779b1), 0x85ebca6b) ^ Math.imul(block + 1, 0xc2b2ae35) ^ sequence;
  for (let at = 0; at < bytes.length; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    bytes[at] = state >>> 24;
  }
}
