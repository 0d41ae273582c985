/** The ground for databases: pages that wait for their log, barriers, checksums. */

import { closeSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { crc32 } from 'node:zlib';
import { boot, type VirtualMemory } from 'pagewright';
import { Prng } from 'pagewright/base';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { shutDownBalanced } from './support/balance.ts';
import { Scratch } from './support/scratch.ts';
import { testSeed } from './support/seed.ts';

const module = new URL('../build/test/workers/page-hooks.js', import.meta.url);
const PAGE = 4096;

let scratch: Scratch;
let vm: VirtualMemory;

beforeEach(() => {
  scratch = new Scratch();
  vm = boot({ memory: '256 KiB', bankSize: '64 KiB', services: 'manual' });
});

afterEach(async () => {
  await shutDownBalanced(vm);
  scratch.remove();
});

/** A page with an LSN in front. */
function page(lsn: number, fill: number): Uint8Array {
  const bytes = new Uint8Array(PAGE).fill(fill);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(lsn), true);
  return bytes;
}

describe('pages with a log', () => {
  it('stay in memory until the log is durable; then they go, and nobody is told of a failure', () => {
    const path = scratch.file('a', 4 * PAGE, 1);
    const file = vm.open(path, { mode: 'rw', lsnOffset: 0 });
    const before = readFileSync(path);
    file.write(0, page(10, 1));
    file.write(PAGE, page(20, 2));
    expect(() => file.sync()).toThrow(/EBUSY.*ahead of the log/);
    expect(readFileSync(path).equals(before)).toBe(true);
    file.logged(10);
    expect(() => file.sync()).toThrow(/EBUSY/);
    file.logged(20);
    file.logged(15);
    file.barrier();
    expect(readFileSync(path).readBigUInt64LE(PAGE)).toBe(20n);
    file.sync();
    expect(() => vm.open(path, { lsnOffset: 8 })).toThrow(/EINVAL.*other hooks or another lsnOffset/);
    expect(() => vm.open(path, { lsnOffset: 4090 })).toThrow(/EINVAL.*lsnOffset/);
    vm.open(path).close();
    file.close();
    expect(vm.vnodes.dropUnused()).toBe(0);
  });

  it('force the log before they leave, also when frames are short, and never overtake it', () => {
    // The same copy of the module that the hooks are taken from.
    const { asked } = createRequire(import.meta.url)(fileURLToPath(module)) as { asked: number[] };
    const random = new Prng(testSeed('pages ahead of their log', 12));
    const path = scratch.file('a', 200 * PAGE, 0);
    const file = vm.open(path, { mode: 'rw', lsnOffset: 0, hooks: { module, export: 'log' } });
    file.write(0, new Uint8Array(200 * PAGE));
    const durable = () => vm.region.tables.vnode.lsnDurable.get(file.vnode);
    const descriptor = openSync(path, 'r');
    const header = Buffer.alloc(8);
    for (let lsn = 1; lsn <= 2000; lsn++) {
      file.write(random.below(200) * PAGE, page(lsn, lsn & 255));
      if (lsn % 50 !== 0) continue;
      for (let index = 0; index < 200; index++) {
        readSync(descriptor, header, 0, 8, index * PAGE);
        const written = header[7] === 0 ? Number(header.readBigUInt64LE()) : 0;
        if (written <= 1e6) expect(written).toBeLessThanOrEqual(durable());
      }
    }
    expect(asked.length).toBeGreaterThan(50);
    expect(vm.statistics().pages.writtenPages).toBeGreaterThan(500);
    file.sync();
    closeSync(descriptor);
    file.close();
    expect(vm.vnodes.dropUnused()).toBe(0);
  });
});

describe('checksums', () => {
  it('are put into the file, not into the pages in memory, and are tested when pages come back', () => {
    const path = scratch.file('a', 0);
    const options = { mode: 'rw', hooks: { module, export: 'checksums' } } as const;
    const file = vm.open(path, options);
    for (let index = 0; index < 40; index++) file.write(index * PAGE, page(0, index + 1));
    file.sync();
    expect(file.read(PAGE - 4, 4)).toEqual(Uint8Array.of(1, 1, 1, 1));
    file.close();
    expect(vm.vnodes.dropUnused()).toBe(0);
    expect(readFileSync(path).subarray(PAGE - 4, PAGE)).not.toEqual(Buffer.of(1, 1, 1, 1));
    const descriptor = openSync(path, 'r+');
    writeSync(descriptor, Buffer.of(99), 0, 1, 7 * PAGE + 100);
    closeSync(descriptor);
    const again = vm.open(path, options);
    expect(again.read(5 * PAGE + 8, 10)).toEqual(new Uint8Array(10).fill(6));
    vm.pages.drop(again.vnode, 40);
    expect(() => again.read(7 * PAGE, 10)).toThrow(/EIO.*page 7: checksum/);
    expect(() => again.read(7 * PAGE + 50, 10)).toThrow(/EIO/);
    expect(again.read(8 * PAGE + 8, 10)).toEqual(new Uint8Array(10).fill(9));
    again.close();
    expect(vm.vnodes.dropUnused()).toBe(0);
  });

  it('are those of whole pages of 16 KiB, and scans come through them too', () => {
    const large = 16_384;
    const path = scratch.file('a', 0);
    const options = { mode: 'rw', hooks: { module, export: 'checksums' }, pageSize: large } as const;
    const file = vm.open(path, options);
    for (let index = 0; index < 20; index++) file.write(index * large, new Uint8Array(large).fill(index + 1));
    file.write(3 * large + 9000, Uint8Array.of(77));
    file.sync();
    file.close();
    expect(vm.vnodes.dropUnused()).toBe(0);
    // One sum for each page, in its last bytes, and none inside.
    const bytes = readFileSync(path);
    expect(bytes.length).toBe(20 * large);
    for (let index = 0; index < 20; index++) {
      expect(bytes[index * large + PAGE - 1]).toBe(index + 1);
      const page = bytes.subarray(index * large, (index + 1) * large);
      expect(page.readUInt32LE(large - 4)).toBe(crc32(page.subarray(0, -4)));
    }
    const descriptor = openSync(path, 'r+');
    writeSync(descriptor, Buffer.of(99), 0, 1, 7 * large + 5000);
    closeSync(descriptor);
    const again = vm.open(path, { ...options, mode: 'r' });
    const target = new Uint8Array(4 * large);
    expect(again.read(0, target)).toBe(4 * large);
    expect(target[3 * large + 9000]).toBe(77);
    expect(() => again.read(4 * large, target)).toThrow(/EIO.*page=7.*checksum/);
    scratch.file('a', 5 * large, 3);
    expect(again.revalidate()).toBe(true);
    // What was chosen at the open holds for the new contents as well.
    expect(() => again.read(0, 10)).toThrow(/EIO.*page=0.*checksum/);
    again.close();
    expect(vm.vnodes.dropUnused()).toBe(0);
  });

  it('wait for the log of whole pages, with an LSN behind the first frame', () => {
    const path = scratch.file('a', 4 * 65_536);
    expect(() => vm.open(path, { pageSize: 8192, lsnOffset: 8185 })).toThrow(/EINVAL.*lsnOffset.*inside each page/);
    const file = vm.open(path, { mode: 'rw', pageSize: 65_536, lsnOffset: 40_000 });
    const lsn = Buffer.alloc(8);
    lsn.writeBigUInt64LE(50n);
    file.write(65_536 + 40_000, lsn);
    file.write(65_536, Uint8Array.of(1));
    expect(() => file.sync()).toThrow(/EBUSY.*index=1.*lsn=50/);
    file.logged(50);
    file.sync();
    expect(readFileSync(path)[65_536]).toBe(1);
    file.close();
    expect(vm.vnodes.dropUnused()).toBe(0);
  });
});
