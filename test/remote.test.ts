/** Resources behind HTTP and HTTPS when things go wrong: askers that end, versions that change, answers that are no good. */

import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { awaitRequests, expectAllFree } from './support/all-free.ts';
import { TEST_CERTIFICATE } from './support/certificate.ts';
import { kill, nextMessage, start, until } from './support/chaos.ts';
import { Origin } from './support/origin.ts';
import { matches, Scratch } from './support/scratch.ts';
import type { OriginSettings } from './workers/http-origin.ts';
import type { RemoteReaderData } from './workers/remote-reader.ts';

const build = (name: string) => new URL(`../build/test/workers/${name}.js`, import.meta.url);

let vm: VirtualMemory;
let origin: Origin;
let address = '';

beforeAll(async () => {
  origin = await Origin.start();
  address = `http://127.0.0.1:${origin.port}`;
});

afterAll(() => origin.end());

beforeEach(() => {
  vm = boot({ memory: '1 MiB', bankSize: '256 KiB', slots: 12 });
});

/** No request is left, nothing is open, every frame is free. */
afterEach(async () => {
  try {
    await awaitRequests(vm);
    expectAllFree(vm);
  } finally {
    await shutDown(vm);
  }
});

const set = (settings: Partial<OriginSettings>) => origin.set(settings);

describe('a thread that ends while the I/O worker brings its pages', () => {
  it('leaves them to others, who bring them again', async () => {
    const data: Omit<RemoteReaderData, 'vm'> = { url: `${address}/a`, seed: 6, offset: 8192, length: 40_000 };
    for (const pauseMs of [0, 30, 80, 100, 130]) {
      await set({ size: 200_000, seed: 6, delayMs: 100 });
      // The second one waits for the pages that the first one has asked for.
      const reader = await start(vm, build('remote-reader'), { ...data });
      const opened = nextMessage(reader.worker);
      const waiter = await start(vm, build('remote-reader'), { ...data });
      const answered = new Promise((resolve) => {
        waiter.worker.on('message', (message) => 'isRight' in message && resolve(message));
      });
      await opened;
      // Opening takes one request at least, and both readers share those for the range.
      await until(() => origin.requests > 1, 'a range was asked for');
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      await kill(vm, reader);
      expect(await answered).toEqual({ isRight: true });
      await waiter.worker.terminate();
      await until(() => vm.statistics().slots.length <= 5, 'all slots are free');
      await awaitRequests(vm);
      await until(() => vm.vnodes.dropUnused() === 0, 'nobody has it open');
    }
  });

  it('while it opens, leaves nothing', async () => {
    await set({ size: 200_000, seed: 6, delayMs: 150 });
    const reader = await start(vm, build('remote-reader'), { url: `${address}/b`, seed: 6, offset: 0, length: 1 });
    await kill(vm, reader);
    const file = vm.openRemote(`${address}/b`);
    expect(matches(file.read(0, 5000), 6, 0)).toBe(true);
    file.close();
  });
});

describe('a resource', () => {
  it('that changes between two ranges of one read is an error for this read, and for all later ones', async () => {
    await set({ size: 400_000, seed: 2 });
    const file = vm.openRemote(`${address}/c`);
    await set({ size: 400_000, seed: 2, changesAfter: 1 });
    // 98 pages in ranges of at most 32; the bytes in memory stay those of one version.
    expect(() => file.read(0, 400_000)).toThrow(/ESTALE.*changed/);
    const early = file.tryRead(0, 4096);
    if (early !== null) expect(matches(early, 2, 0)).toBe(true);
    expect(() => file.read(399_000, 100)).toThrow(/ESTALE/);
    file.close();
  });

  it('whose server sends other ranges than asked for, or breaks off again and again, is an error and no page', async () => {
    await set({ size: 100_000, seed: 3 });
    const file = vm.openRemote(`${address}/d`);
    await set({ size: 100_000, seed: 3, shortRanges: true });
    expect(() => file.read(0, 5000)).toThrow(/EIO.*another range/);
    await set({ size: 100_000, seed: 3, breaks: 100 });
    expect(() => file.read(0, 5000)).toThrow(/EIO.*4 times/);
    await set({ size: 100_000, seed: 3, failures: 100 });
    await expect(file.readAsync(50_000, 5000)).rejects.toThrow(/EIO.*503.*4 times/);
    expect(vm.pages.held).toBe(0);
    await set({ size: 100_000, seed: 3, breaks: 1, failures: 2 });
    expect(matches(file.read(0, 100_000), 3, 0)).toBe(true);
    file.close();
  });
});

describe('HTTPS', () => {
  let scratch: Scratch;
  let secure: Origin;
  let url = '';

  beforeAll(async () => {
    scratch = new Scratch();
    secure = await Origin.start(true);
    url = `https://localhost:${secure.port}/e`;
    await secure.set({ size: 300_000, seed: 4 });
  });

  afterAll(async () => {
    await secure.end();
    scratch.remove();
  });

  /** What a program says that reads all of the resource. */
  async function read(environment: Record<string, string>): Promise<string> {
    const args = ['--conditions=verify', fileURLToPath(build('remote-reader')), url];
    return new Promise((resolve, reject) => {
      execFile(process.execPath, args, { env: { ...process.env, ...environment } }, (error, stdout) =>
        error === null ? resolve(stdout) : reject(error),
      );
    });
  }

  it('with a certificate that nobody trusts is refused', async () => {
    expect(() => vm.openRemote(url)).toThrow(/EIO.*certificate/);
  });

  it('with one that the program was told to trust is read', async () => {
    const path = join(scratch.directory, 'certificate.pem');
    writeFileSync(path, TEST_CERTIFICATE);
    expect(await read({ NODE_EXTRA_CA_CERTS: path })).toBe('300000 true\n');
  });
});
