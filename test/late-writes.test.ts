/** Providers that do not take pages in time: what a sync says, who is held up, and in which order late answers come. */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { boot, shutDown, type VirtualMemory } from 'pagewright';
import type { File } from 'pagewright/vpm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { awaitRequests, expectAllFree } from './support/all-free.ts';
import { until } from './support/chaos.ts';
import { matches, pattern, Scratch } from './support/scratch.ts';

const module = new URL('../build/test/workers/page-provider.js', import.meta.url);

/** Of answers that never come; others have as long as they need. */
const SHORT_MS = 100;
const LONG_MS = 600_000;

let vm: VirtualMemory;
let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
  // No limit of modified pages: frames are had by writing some back.
  vm = boot({ memory: '256 KiB', bankSize: '64 KiB', slots: 10, dirtyLimit: 0 });
});

afterEach(async () => {
  await shutDown(vm);
  scratch.remove();
});

const open = (exported: string, name: string, timeoutMs: number) =>
  vm.openProvided({ provider: { module, export: exported }, name, mode: 'rw', timeoutMs });

async function expectNothingLeft(): Promise<void> {
  vm.vnodes.closeAll();
  await awaitRequests(vm);
  expect(vm.pages.held).toBe(0);
  expectAllFree(vm);
}

/** Gives up what a provider never takes. */
async function giveUp(file: File, bytes: number): Promise<void> {
  expect(file.discard()).toBe(bytes);
  await expectNothingLeft();
}

describe('a provider that never takes a page', () => {
  it('is an error of every sync and close, of every opener, and the page stays modified', async () => {
    const [file, other] = [open('mute', 'm', SHORT_MS), open('mute', 'm', SHORT_MS)];
    file.write(0, new Uint8Array(9000).fill(1));
    const message =
      /^ETIMEDOUT: file\.sync\(path="user#1 m"\): io\.write\(name="m", offset=0, length=9000, timeoutMs=100\)/;
    expect(() => file.sync()).toThrow(message);
    expect(() => file.datasync()).toThrow(/ETIMEDOUT/);
    await expect(file.syncAsync()).rejects.toThrow(/ETIMEDOUT: file\.syncAsync/);
    expect(() => other.close()).toThrow(/ETIMEDOUT: file\.close/);
    expect(vm.pages.modifiedOf(file.vnode)).toBe(3);
    expect([...file.read(8999, 1)]).toEqual([1]);
    await giveUp(file, 9000);
  });

  it('lets its opener close, and the system end', async () => {
    const file = open('mute', 'm', SHORT_MS);
    file.write(0, new Uint8Array(100).fill(1));
    expect(() => file.close()).toThrow(/ETIMEDOUT/);
    open('mute', 'n', SHORT_MS).write(0, new Uint8Array(100).fill(1));
    await expect(shutDown(vm)).rejects.toThrow(/ETIMEDOUT/);
  });

  it('holds up nobody who needs its frames for something else', async () => {
    const name = join(scratch.directory, 's');
    const mute = open('gated', name, SHORT_MS);
    mute.write(0, new Uint8Array(40 * 4096).fill(1));
    expect(() => mute.sync()).toThrow(/ETIMEDOUT/);
    const file = vm.open(join(scratch.directory, 'a'), { mode: 'rw', create: true });
    for (let at = 0; at < 700_000; at += 7000) file.write(at, pattern(1, at, 7000));
    expect(vm.pages.modifiedOf(mute.vnode)).toBe(40);
    // Its own writers are not held up, and others read.
    mute.write(40_000, new Uint8Array(9000).fill(2));
    for (let at = 699_000; at >= 0; at -= 9000) expect(matches(file.read(at, 1000), 1, at)).toBe(true);
    file.sync();
    expect(matches(readFileSync(join(scratch.directory, 'a')), 1, 0)).toBe(true);
    // Nobody has asked it again.
    expect(readFileSync(`${name}.log`, 'utf8')).toBe('begins 0 1\n');
    await giveUp(mute, 40 * 4096);
  });

  it('is asked again when the I/O worker has ended', async () => {
    const file = open('mute', 'exit', SHORT_MS);
    file.write(4096, new Uint8Array(10).fill(1));
    expect(() => file.sync()).toThrow(/ETIMEDOUT/);
    expect(vm.vnodes.isLate(file.vnode)).toBe(true);
    expect(() => file.read(0, 10)).toThrow(/EIO.*exit code 7/);
    expect(vm.vnodes.isLate(file.vnode)).toBe(false);
    await giveUp(file, 10);
  });
});

describe('a provider that takes pages late', () => {
  it('gets no bytes before it has answered for the older ones, and ends with the newest', async () => {
    const name = join(scratch.directory, 'p');
    const log = () => readFileSync(`${name}.log`, 'utf8').trim().split('\n');
    const file = open('gated', name, SHORT_MS);
    file.write(0, new Uint8Array(5000).fill(1));
    expect(() => file.sync()).toThrow(/ETIMEDOUT/);
    expect(vm.vnodes.isLate(file.vnode)).toBe(true);
    file.write(0, new Uint8Array(5000).fill(2));
    expect(() => file.sync()).toThrow(/ETIMEDOUT/);
    expect(log()).toEqual(['begins 0 1']);
    const patient = open('gated', name, LONG_MS);
    const synced = patient.syncAsync();
    writeFileSync(`${name}.go`, '');
    await synced;
    expect(log()).toEqual(['begins 0 1', 'ends 0 1', 'begins 0 2', 'ends 0 2']);
    await until(() => !vm.vnodes.isLate(file.vnode), 'the late answer was noticed');
    file.sync();
    expect(vm.pages.drop(file.vnode, 2)).toBe(0);
    expect(file.read(0, 5000)).toEqual(new Uint8Array(5000).fill(2));
    await expectNothingLeft();
  });

  it('gets other pages of the vnode meanwhile, and no cut', async () => {
    const name = join(scratch.directory, 'q');
    const log = () => readFileSync(`${name}.log`, 'utf8').trim().split('\n');
    const file = open('gated', name, SHORT_MS);
    file.write(4096, new Uint8Array(10).fill(1));
    expect(() => file.sync()).toThrow(/ETIMEDOUT/);
    expect(file.discard(4096)).toBe(10);
    expect(() => file.truncate(100)).toThrow(/^ETIMEDOUT: file\.truncate\(.*an earlier write/);
    expect(file.size).toBe(4106);
    file.write(0, new Uint8Array(10).fill(3));
    expect(() => file.sync()).toThrow(/ETIMEDOUT/);
    expect(log()).toEqual(['begins 4096 1', 'begins 0 3']);
    writeFileSync(`${name}.go`, '');
    await until(() => !vm.vnodes.isLate(file.vnode), 'both answered');
    open('gated', name, LONG_MS);
    await file.truncateAsync(100);
    expect(log().at(-1)).toBe('cuts 100');
    file.sync();
    await expectNothingLeft();
  });

  it('may say that it will not store them any more: then the next ones are given at once', async () => {
    const name = join(scratch.directory, 'r');
    const file = open('retracting', name, SHORT_MS);
    file.write(0, new Uint8Array(10).fill(1));
    expect(() => file.sync()).toThrow(/ETIMEDOUT/);
    await until(() => !vm.vnodes.isLate(file.vnode), 'it has settled');
    writeFileSync(`${name}.go`, '');
    open('retracting', name, LONG_MS);
    file.sync();
    expect(vm.pages.modified).toBe(0);
    await expectNothingLeft();
  });
});

describe('a provider that never says that its pages are durable', () => {
  it('is an error of the sync, and its pages are modified again', async () => {
    const name = join(scratch.directory, 'unsynced');
    writeFileSync(`${name}.go`, '');
    const file = open('gated', name, LONG_MS);
    file.write(0, new Uint8Array(10).fill(1));
    file.close();
    const again = open('gated', name, SHORT_MS);
    again.write(0, new Uint8Array(10).fill(2));
    vm.openProvided({ provider: { module, export: 'gated' }, name, timeoutMs: SHORT_MS });
    expect(() => again.sync()).toThrow(/ETIMEDOUT/);
    expect(vm.pages.modifiedOf(again.vnode)).toBe(1);
    expect(again.discard()).toBe(10);
    await expectNothingLeft();
  });
});
