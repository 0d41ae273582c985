/** Pages whose contents follow from a number and a version, so that anything else is noticed. */

const WORDS = 1024;

/** Words that are looked at by `isStamped`. */
const HEAD = 2;

/** Fills a page of 4 KiB. */
export function stampPage(bytes: Uint8Array, index: number, version: number): void {
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, WORDS);
  words[0] = ~index;
  words[1] = version;
  let value = Math.imul(index + 1, 0x9e3779b1) ^ version;
  for (let word = HEAD; word < WORDS; word++) {
    value = (value + 0x6d2b79f5) | 0;
    words[word] = value;
  }
}

/** The version of a page that holds nothing but what belongs there, else -1. A page of zeros has version 0. */
export function versionOf(bytes: Uint8Array, index: number): number {
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, WORDS);
  const version = words[1] as number;
  if (words[0] === 0) return words.every((word) => word === 0) ? 0 : -1;
  if (words[0] !== ~index) return -1;
  let value = Math.imul(index + 1, 0x9e3779b1) ^ version;
  for (let word = HEAD; word < WORDS; word++) {
    value = (value + 0x6d2b79f5) | 0;
    if (words[word] !== value) return -1;
  }
  return version;
}

/** True when a page that may be changing belongs to a number, or is new. */
export function isStamped(bytes: Uint8Array, index: number): boolean {
  const head = new Int32Array(bytes.buffer, bytes.byteOffset, HEAD)[0];
  return head === ~index || head === 0;
}
