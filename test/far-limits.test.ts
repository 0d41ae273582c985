/** Time limits of asynchronous vnodes: what a reader gets when nobody answers in time, and what becomes of a late answer. */

import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { awaitRequests, expectAllFree } from './support/all-free.ts';
import { Origin } from './support/origin.ts';
import { matches, pattern } from './support/scratch.ts';
import { PATIENCE_MS } from './support/until.ts';
import type { OriginSettings } from './workers/http-origin.ts';
import { TARDY_MS } from './workers/page-provider.ts';

const build = (name: string) => new URL(`../build/test/workers/${name}.js`, import.meta.url);
const provider = (exported: string) => ({ module: build('page-provider'), export: exported });

/** Much less than a tardy provider takes. For what must not come; what must come has another limit. */
const SHORT_MS = 150;

let vm: VirtualMemory;
let origin: Origin;
let address = '';

beforeAll(async () => {
  origin = await Origin.start();
  address = `http://127.0.0.1:${origin.port}`;
});

afterAll(() => origin.end());

beforeEach(() => {
  vm = boot({ memory: '1 MiB', bankSize: '256 KiB', slots: 16 });
});

/** No request is left, no page is held, every frame is free. */
afterEach(async () => {
  try {
    vm.vnodes.closeAll();
    await awaitRequests(vm);
    expect(vm.pages.held).toBe(0);
    expectAllFree(vm);
  } finally {
    await shutDown(vm);
  }
});

const set = (settings: Partial<OriginSettings>) => origin.set({ size: 100_000, seed: 3, ...settings });

/** Changes the limit of a vnode that is open, as an opener would. */
const limit = ({ vnode }: { readonly vnode: number }, ms: number) => vm.region.tables.vnode.timeoutMs.put(vnode, ms);

const expected = (name: string, offset: number, length: number) =>
  Uint8Array.from({ length }, (_, i) => ((offset + i) * 3 + name.length) & 255);

describe('a provider that does not answer in time', () => {
  it('is an error that says whose page it was, and leaves no page behind', async () => {
    const file = vm.openProvided({ provider: provider('silent'), name: 'who', timeoutMs: SHORT_MS });
    expect(() => file.read(5000, 10)).toThrow(
      /^ETIMEDOUT: file\.read\(path="user#1 who"\): io\.fill\(name="who", offset=4096, length=\d+, timeoutMs=150\): no answer came in time/,
    );
    expect(vm.pages.held).toBe(0);
    await expect(file.readAsync(5000, 10)).rejects.toThrow(/^ETIMEDOUT: file\.readAsync\(.*name="who", offset=4096/);
    await expect(file.mapAsync(9000, 10)).rejects.toThrow(/^ETIMEDOUT: file\.mapAsync/);
    expect(() => file.map(9000, 10)).toThrow(/ETIMEDOUT/);
    expect(vm.pages.held).toBe(0);
    expect(file.tryRead(5000, 10)).toBe(null);
    // Many who want the same page all hear of it.
    const all = await Promise.allSettled([1, 2, 3, 4, 5].map(() => file.readAsync(5000, 10)));
    for (const one of all) expect(one.status).toBe('rejected');
  });

  it('is an error that names call and range when a space shows the file', () => {
    const file = vm.openProvided({ provider: provider('silent'), name: 'who', timeoutMs: SHORT_MS });
    const as = vm.addressSpace();
    const at = as.map({ size: 8192, file, shared: true, protection: 'read', maxProtection: 'read' });
    const message = (call: string) =>
      new RegExp(`^ETIMEDOUT: ${call}\\): io\\.fill\\(name="who", offset=\\d+, length=\\d+, .*no answer came in time`);
    expect(() => as.read(at + 10, 5000)).toThrow(message(`as\\.read\\(address=${at + 10}, length=5000`));
    expect(() => as.load(at + 4096)).toThrow(message(`as\\.load\\(address=${at + 4096}`));
    expect(() => as.pin(at + 1, 4096, 'read')).toThrow(message(`as\\.pin\\(address=${at + 1}, length=4096`));
    expect(vm.pages.held).toBe(0);
    as.destroy();
  });

  it('answers nobody when it answers late, and the next reader gets what it says then', async () => {
    const file = vm.openProvided({ provider: provider('tardy'), name: 'tardy', timeoutMs: SHORT_MS });
    expect(() => file.read(0, 5000)).toThrow(/ETIMEDOUT/);
    // Its answer is still to come, and would be junk: see the provider.
    const other = vm.openProvided({ provider: provider('tardy'), name: 'tardy', timeoutMs: PATIENCE_MS });
    expect(other.vnode).toBe(file.vnode);
    const again = file.readAsync(0, 5000);
    expect(await again).toEqual(expected('tardy', 0, 5000));
    await new Promise((resolve) => setTimeout(resolve, TARDY_MS + 100));
    expect(file.read(0, 5000)).toEqual(expected('tardy', 0, 5000));
  });

  it('may be slow when the limit is longer, or there is none; the last opener decides', async () => {
    const slow = vm.openProvided({ provider: provider('slow'), name: 'abc', timeoutMs: 60_000 });
    expect(await slow.readAsync(0, 50_000)).toEqual(expected('abc', 0, 50_000));
    const file = vm.openProvided({ provider: provider('tardy'), name: 'x', timeoutMs: SHORT_MS });
    const opened = vm.openProvided({ provider: provider('tardy'), name: 'x' });
    expect(() => opened.read(0, 10)).toThrow(/ETIMEDOUT/);
    vm.openProvided({ provider: provider('tardy'), name: 'x', timeoutMs: 0 });
    expect(file.read(0, 10)).toEqual(expected('x', 0, 10));
  });

  it('is not waited for when it looks', async () => {
    const options = { provider: provider('unseen'), name: 'looked at' };
    const message = /^ETIMEDOUT: .*io\.look\(name="looked at", timeoutMs=150\)/;
    expect(() => vm.openProvided({ ...options, timeoutMs: SHORT_MS })).toThrow(message);
    await expect(vm.openProvidedAsync({ ...options, timeoutMs: SHORT_MS })).rejects.toThrow(message);
    const file = vm.openProvided({ ...options, size: 1000, timeoutMs: SHORT_MS });
    expect(() => file.isChanged()).toThrow(message);
    expect(() => file.revalidate()).toThrow(message);
    await expect(file.revalidateAsync()).rejects.toThrow(/^ETIMEDOUT: file\.revalidateAsync.*looked at/);
    limit(file, PATIENCE_MS);
    expect(file.read(0, 10)).toEqual(expected('looked at', 0, 10));
  });

  it('is told by a signal', async () => {
    const file = vm.openProvided({ provider: provider('told'), name: 'first', timeoutMs: SHORT_MS });
    expect(() => file.read(0, 10)).toThrow(/ETIMEDOUT/);
    limit(file, PATIENCE_MS);
    // It fills the next one with the number of signals that it has seen.
    expect([...file.read(0, 2)]).toEqual([1, 1]);
  });

  it('cannot be held to a limit on the thread that asks', () => {
    const open = (timeoutMs: number, exported: string) => () =>
      vm.openProvided({ provider: provider(exported), name: 'x', timeoutMs });
    expect(open(100, 'plain')).toThrow(/EINVAL: openProvided.*timeoutMs=100.*not asynchronous/);
    for (const wrong of [-1, 0.5, Number.NaN, 2 ** 31]) {
      expect(open(wrong, 'slow')).toThrow(/EINVAL: openProvided\(timeoutMs=.*integer from 0/);
    }
  });
});

describe('a server that does not answer in time', () => {
  it('is an error that says which, when it is opened, read and looked at', async () => {
    await set({});
    const file = vm.openRemote(`${address}/a`, { timeoutMs: PATIENCE_MS });
    expect(matches(file.read(0, 10), 3, 0)).toBe(true);
    await set({ delayMs: 600_000 });
    limit(file, SHORT_MS);
    expect(() => file.read(50_000, 10)).toThrow(
      /^ETIMEDOUT: file\.read\(.*io\.fill\(name="http:.*\/a", offset=49152.*timeoutMs=150/,
    );
    await expect(file.readAsync(50_000, 10)).rejects.toThrow(/^ETIMEDOUT: file\.readAsync/);
    expect(() => file.revalidate()).toThrow(
      /^ETIMEDOUT: file\.revalidate\(.*io\.look\(name="http:.*\/a", timeoutMs=150/,
    );
    const open = { timeoutMs: SHORT_MS };
    expect(() => vm.openRemote(`${address}/b`, open)).toThrow(
      /^ETIMEDOUT: openRemote\(url=.*io\.look\(name="http:.*\/b"/,
    );
    await expect(vm.openRemoteAsync(`${address}/b`, open)).rejects.toThrow(
      /^ETIMEDOUT: openRemoteAsync\(url=.*\): io\.look/,
    );
    expect(matches(file.read(0, 10), 3, 0)).toBe(true);
    await set({});
    limit(file, PATIENCE_MS);
    expect(file.read(0, 100_000)).toEqual(pattern(3, 0, 100_000));
    // Failures that are tried again count together.
    await set({ failures: 1000 });
    expect(() => vm.openRemote(`${address}/c`, { timeoutMs: 100 })).toThrow(/^ETIMEDOUT/);
    expect(() => vm.openRemote(`${address}/c`, { timeoutMs: -1 })).toThrow(/EINVAL: openRemote\(timeoutMs=-1/);
  });
});
