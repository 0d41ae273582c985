/** What is stored through mappings behind the end of a file, in its last page, is not the file's, also when it grows. */

import { readFileSync } from 'node:fs';
import { boot, type VirtualMemory } from 'pagewright';
import type { AddressSpace } from 'pagewright/seg';
import type { File } from 'pagewright/vpm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { shutDownBalanced } from './support/balance.ts';
import { Scratch } from './support/scratch.ts';

const SIZE = 5000;
const AREA = 8192;

let scratch: Scratch;
let vm: VirtualMemory;

beforeEach(() => {
  scratch = new Scratch();
  vm = boot({ memory: '4 MiB', slots: 6 });
});

afterEach(async () => {
  await shutDownBalanced(vm);
  scratch.remove();
});

const STORES: Readonly<Record<string, (space: AddressSpace, at: number) => void>> = {
  'a write': (space, at) => space.write(at + SIZE - 10, new Uint8Array(100).fill(8)),
  'a word': (space, at) => space.store(at + SIZE, 0x08080808),
  'a pin': (space, at) => {
    const pin = space.pin(at + 4096, 4096, 'write');
    pin.views[0]?.fill(8);
    pin.release();
  },
  'a write that is synchronised': (space, at) => {
    space.write(at + SIZE, new Uint8Array(100).fill(8));
    space.sync(at, AREA);
  },
};

const GROWTHS: Readonly<Record<string, (file: File) => void>> = {
  'a truncation': (file) => file.truncate(20_000),
  'an append': (file) => file.append(new Uint8Array(3).fill(4)),
  'a write further behind': (file) => file.write(6000, new Uint8Array(3).fill(4)),
  'a write far behind': (file) => file.write(30_000, new Uint8Array(3).fill(4)),
};

describe.each([4096, 16_384])('files of pages of %i bytes', (pageSize) => {
  for (const [what, keep] of Object.entries(STORES)) {
    for (const [how, grow] of Object.entries(GROWTHS)) {
      it(`keep ${what} behind their end out of what ${how} adds`, () => {
        const path = scratch.file('a', 0);
        const file = vm.open(path, { mode: 'rw', pageSize });
        file.write(0, new Uint8Array(SIZE).fill(3));
        const space = vm.addressSpace();
        const at = space.map({ size: AREA, file, shared: true });
        keep(space, at);
        grow(file);
        const wanted = new Uint8Array(file.size);
        wanted.set(file.read(0, SIZE));
        if (how === 'an append') wanted.fill(4, SIZE);
        else if (how.startsWith('a write')) wanted.fill(4, wanted.length - 3);
        expect(Buffer.compare(file.read(0, file.size), wanted)).toBe(0);
        file.sync();
        expect(Buffer.compare(readFileSync(path), wanted)).toBe(0);
        space.destroy();
        file.close();
        expect(vm.check().flatMap(({ problems }) => problems)).toEqual([]);
      });
    }
  }
});
