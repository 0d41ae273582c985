/** Hooks of pages for tests: a checksum in the last four bytes, and a log that is forced when a page is ahead of it. */

import { crc32 } from 'node:zlib';
import type { PageHooks } from 'pagewright/vnode';

/** Seals pages with a checksum and tests it. */
export const checksums: PageHooks = {
  seal(_path, _index, bytes) {
    new DataView(bytes.buffer, bytes.byteOffset).setUint32(bytes.length - 4, crc32(bytes.subarray(0, -4)), true);
  },
  test(_path, index, bytes) {
    const sum = new DataView(bytes.buffer, bytes.byteOffset).getUint32(bytes.length - 4, true);
    if (bytes.some((byte) => byte !== 0) && sum !== crc32(bytes.subarray(0, -4)))
      throw new Error(`page ${index}: checksum`);
  },
};

/** What the log was asked for. */
export const asked: number[] = [];

/** Forces the log as far as it is asked. */
export const log: PageHooks = {
  beforeWriteBack({ lsn }) {
    asked.push(lsn);
    return lsn;
  },
};
