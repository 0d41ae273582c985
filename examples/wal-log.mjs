// The log of wal.mjs, and what becomes of pages on their way to the file and back. Whichever thread writes pages back, or
// reads them, loads this module.
import { closeSync, fsyncSync, openSync } from 'node:fs';
import { crc32 } from 'node:zlib';

/** Bytes of a page: a log sequence number in front, a checksum behind. */
export const PAGE = 16_384;

function sumOf(page) {
  return new DataView(page.buffer, page.byteOffset + page.length - 4).getUint32(0, true);
}

export const hooks = {
  // Records are appended before pages are changed: when the log is synced, it is durable up to any page.
  beforeWriteBack({ path, lsn }) {
    const log = openSync(`${path}.log`, 'r+');
    fsyncSync(log);
    closeSync(log);
    return lsn;
  },
  seal(_path, _index, page) {
    new DataView(page.buffer, page.byteOffset).setUint32(page.length - 4, crc32(page.subarray(0, -4)), true);
  },
  test(_path, index, page) {
    if (sumOf(page) !== crc32(page.subarray(0, -4))) throw new Error(`page ${index} is damaged`);
  },
};
