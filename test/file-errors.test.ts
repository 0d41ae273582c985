/** What errors of files say: the call that was made, the file, and what was wrong with it. */

import { statSync } from 'node:fs';
import { join } from 'node:path';
import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { armFault, disarmFault, type FaultPoint } from 'pagewright/sync';
import type { File } from 'pagewright/vpm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Scratch } from './support/scratch.ts';

const build = (name: string) => new URL(`../build/test/workers/${name}.js`, import.meta.url);

let scratch: Scratch;
let vm: VirtualMemory;

beforeEach(() => {
  scratch = new Scratch();
  vm = boot({ memory: '1 MiB', slots: 8 });
});

afterEach(async () => {
  disarmFault(vm.region);
  await shutDown(vm);
  scratch.remove();
});

const bytes = new Uint8Array(10);

/** A call, how it is made, how with wrong arguments, and what may fail in it. */
interface Row {
  readonly run: (file: File) => unknown;
  readonly misuse?: readonly ((file: File) => unknown)[];
  /** What fails below, and the code. */
  readonly fails?: FaultPoint;
  /** True when it needs a file that is open for writing. */
  readonly writes?: boolean;
}

/** Offset 50,001 lies in a page that is not in memory. */
const FAR = 50_001;
const wrong = 5 as never;

const CALLS: Readonly<Record<string, Row>> = {
  read: {
    run: (f) => f.read(FAR, 10),
    misuse: [(f) => f.read(-1, 5), (f) => f.read(0, wrong - 7)],
    fails: 'vnode.read.error',
  },
  readv: {
    run: (f) => f.readv(FAR, [bytes]),
    misuse: [(f) => f.readv(-1, []), (f) => f.readv(0, [wrong])],
    fails: 'vnode.read.error',
  },
  readTo: {
    run: (f) => f.readTo(FAR, vm.heap.alloc(16), 16),
    misuse: [(f) => f.readTo(0.5, 0, 1)],
    fails: 'vnode.read.error',
  },
  tryRead: { run: (f) => f.tryRead(FAR, 10), misuse: [(f) => f.tryRead(Number.NaN, 5)] },
  write: {
    run: (f) => f.write(FAR, bytes),
    misuse: [(f) => f.write(-1, bytes), (f) => f.write(2 ** 52, bytes), (f) => f.write(0, wrong)],
    fails: 'vnode.read.error',
    writes: true,
  },
  writev: {
    run: (f) => f.writev(FAR, [bytes]),
    misuse: [(f) => f.writev(-1, []), (f) => f.writev(2 ** 52, [bytes])],
    fails: 'vnode.read.error',
    writes: true,
  },
  writeFrom: {
    run: (f) => f.writeFrom(FAR, vm.heap.alloc(16), 16),
    misuse: [(f) => f.writeFrom(-1, 0, 1)],
    fails: 'vnode.read.error',
    writes: true,
  },
  append: { run: (f) => f.append(bytes), misuse: [(f) => f.append(wrong)], fails: 'vnode.read.error', writes: true },
  map: {
    run: (f) => f.map(FAR, 10),
    misuse: [(f) => f.map(0, 5, wrong), (f) => f.map(0, 0), (f) => f.map(-1, 5)],
    fails: 'vnode.read.error',
  },
  truncate: {
    run: (f) => f.truncate(FAR),
    misuse: [(f) => f.truncate(-1)],
    fails: 'vnode.truncate.error',
    writes: true,
  },
  sync: { run: (f) => f.sync(), fails: 'vnode.sync.error', writes: true },
  datasync: { run: (f) => f.datasync(), fails: 'vnode.sync.error', writes: true },
  barrier: { run: (f) => f.barrier(), fails: 'vnode.sync.error', writes: true },
  discard: { run: (f) => f.discard(), misuse: [(f) => f.discard(-1)], writes: true },
  logged: { run: (f) => f.logged(1), misuse: [(f) => f.logged(-1)] },
  stat: { run: (f) => f.stat() },
  isChanged: { run: (f) => f.isChanged() },
  revalidate: { run: (f) => f.revalidate() },
  readable: { run: (f) => f.readable(), misuse: [(f) => f.readable(wrong), (f) => f.readable({ end: -1 })] },
  writable: { run: (f) => f.writable(), misuse: [(f) => f.writable({ start: -1 })], writes: true },
  chunks: { run: (f) => f.chunks(), misuse: [(f) => f.chunks({ chunkBytes: 0 }), (f) => f.chunks(wrong)] },
  readAsync: {
    run: (f) => f.readAsync(FAR, 10),
    misuse: [(f) => f.readAsync(-1, 5), (f) => f.readAsync(0, 5, wrong)],
    fails: 'vnode.read.error',
  },
  readvAsync: {
    run: (f) => f.readvAsync(FAR, [bytes]),
    misuse: [(f) => f.readvAsync(0, [wrong]), (f) => f.readvAsync(-1, [])],
    fails: 'vnode.read.error',
  },
  writeAsync: {
    run: (f) => f.writeAsync(FAR, bytes),
    misuse: [(f) => f.writeAsync(-1, bytes), (f) => f.writeAsync(2 ** 52, bytes)],
    fails: 'vnode.read.error',
    writes: true,
  },
  writevAsync: {
    run: (f) => f.writevAsync(FAR, [bytes]),
    misuse: [(f) => f.writevAsync(0, [wrong])],
    fails: 'vnode.read.error',
    writes: true,
  },
  appendAsync: {
    run: (f) => f.appendAsync(bytes),
    misuse: [(f) => f.appendAsync(wrong)],
    fails: 'vnode.read.error',
    writes: true,
  },
  mapAsync: {
    run: (f) => f.mapAsync(FAR, 10),
    misuse: [(f) => f.mapAsync(0, 0), (f) => f.mapAsync(90_000, 20_000), (f) => f.mapAsync(0, 5, wrong)],
    fails: 'vnode.read.error',
  },
  truncateAsync: {
    run: (f) => f.truncateAsync(FAR),
    misuse: [(f) => f.truncateAsync(-1)],
    fails: 'vnode.truncate.error',
    writes: true,
  },
  syncAsync: { run: (f) => f.syncAsync(), fails: 'vnode.sync.error', writes: true },
  datasyncAsync: { run: (f) => f.datasyncAsync(), fails: 'vnode.sync.error', writes: true },
  barrierAsync: { run: (f) => f.barrierAsync(), fails: 'vnode.sync.error', writes: true },
  revalidateAsync: { run: (f) => f.revalidateAsync() },
};

/** The message of what a call throws, or rejects with; empty when it does neither. */
async function messageOf(action: () => unknown): Promise<string> {
  try {
    await action();
    return '';
  } catch (error) {
    return (error as Error).message;
  }
}

describe('errors of files', () => {
  it('name the call and the values that it was given', async () => {
    const file = vm.open(scratch.file('a', 100_000, 1), { mode: 'rw' });
    for (const [name, { misuse = [] }] of Object.entries(CALLS)) {
      for (const action of misuse) {
        const message = await messageOf(() => action(file));
        expect(message, name).toMatch(new RegExp(`^(EINVAL|EFAULT): file\\.${name}[(:]`));
      }
    }
    file.close();
  });

  it('name the call when the file was closed', async () => {
    const file = vm.open(scratch.file('a', 100_000, 1), { mode: 'rw' });
    file.close();
    for (const [name, { run }] of Object.entries(CALLS)) {
      expect(await messageOf(() => run(file)), name).toMatch(new RegExp(`^ESTALE: file\\.${name}\\(`));
    }
    for (const name of ['size', 'vnode', 'block'] as const) {
      expect(await messageOf(() => file[name])).toMatch(new RegExp(`^ESTALE: file\\.${name}\\(`));
    }
  });

  it('name the call and the file when it is open for reading only', async () => {
    const path = scratch.file('a', 100_000, 1);
    const file = vm.open(path);
    for (const [name, { run, writes }] of Object.entries(CALLS)) {
      if (writes !== true) continue;
      const message = await messageOf(() => run(file));
      expect(message, name).toBe(
        `EACCES: file.${name}(path=${JSON.stringify(path)}): the file is open for reading only; open it with mode 'rw'`,
      );
    }
    expect(await messageOf(() => file.map(0, 5, 'write'))).toMatch(/^EACCES: file\.map\(path=/);
    expect(await messageOf(() => file.mapAsync(0, 5, 'write'))).toMatch(/^EACCES: file\.mapAsync\(path=/);
    file.close();
  });

  it('name the call and the file when the disk fails', async () => {
    for (const [name, { run, fails }] of Object.entries(CALLS)) {
      if (fails === undefined) continue;
      const path = scratch.file(`for ${name}`, 100_000, 1);
      const file = vm.open(path, { mode: 'rw' });
      armFault(vm.region, fails, 'failAlways');
      const message = await messageOf(() => run(file));
      expect(disarmFault(vm.region), name).toBeGreaterThan(0);
      expect(message, name).toMatch(new RegExp(`^EIO: file\\.${name}\\(path="[^"]*/for ${name}"`));
      expect(message, name).toMatch(/injected/);
      await messageOf(() => file.sync());
      file.close();
    }
  });

  it('name the call and the file when pages were not taken', async () => {
    for (const name of ['sync', 'syncAsync', 'close', 'closeAsync', 'barrierAsync', 'revalidate'] as const) {
      const path = scratch.file(`for ${name}`, 100_000, 1);
      const file = vm.open(path, { mode: 'rw' });
      const other = vm.open(path, { mode: 'rw' });
      file.write(0, bytes);
      armFault(vm.region, 'vnode.write.error', 'failAlways');
      if (name.startsWith('close')) await messageOf(() => other.close());
      const message = await messageOf(() => file[name]());
      disarmFault(vm.region);
      expect(message, name).toMatch(new RegExp(`^EIO: file\\.${name}\\(path="[^"]*/for ${name}"`));
      for (const opener of [file, other]) await messageOf(() => opener.sync());
      for (const opener of [file, other]) opener.close();
    }
  });
});

describe('errors of opening', () => {
  it('name the call, its values and the rule, waiting or not', async () => {
    const missing = join(scratch.directory, 'missing');
    const path = scratch.file('a', 9000, 1);
    const kept = vm.open(path, { pageSize: 8192 });
    const cases: [object, string, RegExp][] = [
      [{}, missing, /^ENOENT: CALL\(path=".*missing"\): ENOENT/],
      [{}, '', /^EINVAL: CALL\(path=""\): a path is/],
      [{}, scratch.directory, /^EINVAL: CALL\(path=".*"\): only regular/],
      [{ mode: 'w' }, path, /^EINVAL: CALL\(path=".*a", mode="w"\): mode is/],
      [{ depth: 3 }, path, /^EINVAL: CALL: unknown option "depth"/],
      [{ pageSize: 5000 }, path, /^EINVAL: CALL\(path=".*a", pageSize=5000\): a power of two/],
      [{ pageSize: 4096 }, path, /^EINVAL: CALL\(path=".*a", pageSize=8192\)/],
      [{ truncate: true }, path, /^EINVAL: CALL\(.*truncate=true.*\): they need mode/],
      [{ block: missing }, 'name', /^ENOENT: CALL\(path=".*missing"\)/],
    ];
    for (const [options, at, rule] of cases) {
      const ruleOf = (call: string) => new RegExp(rule.source.replace('CALL', call));
      expect(await messageOf(() => vm.open(at, options))).toMatch(ruleOf('open'));
      expect(await messageOf(() => vm.openAsync(at, options))).toMatch(ruleOf('openAsync'));
    }
    kept.close();
    armFault(vm.region, 'vnode.truncate.error', 'failAlways');
    const cut = { mode: 'rw', truncate: true } as const;
    expect(await messageOf(() => vm.open(path, cut))).toMatch(/^EIO: open\(path=".*a", size=0\)/);
    expect(await messageOf(() => vm.openAsync(path, cut))).toMatch(/^EIO: openAsync\(path=".*a", size=0\)/);
    expect(statSync(path).size).toBe(9000);
    const provider = { module: build('page-provider'), export: 'plain' };
    expect(await messageOf(() => vm.openProvided({ provider, name: 'x', mode: 'rw' }))).toMatch(
      /^EINVAL: openProvided\(/,
    );
    expect(await messageOf(() => vm.openProvidedAsync({ provider, name: 'x', mode: 'rw' }))).toMatch(
      /^EINVAL: openProvidedAsync\(/,
    );
    expect(await messageOf(() => vm.openRemote('ftp://x'))).toMatch(/^EINVAL: openRemote\(url="ftp:/);
    expect(await messageOf(() => vm.openRemoteAsync('ftp://x'))).toMatch(/^EINVAL: openRemoteAsync\(url="ftp:/);
  });
});
