/** `pagewright serve` under load: many clients, slow ones, ones that leave, files that change, workers that end. */

import { appendFileSync, mkdirSync, renameSync, truncateSync, writeFileSync } from 'node:fs';
import { Agent, type IncomingHttpHeaders, request } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Worker } from 'node:worker_threads';
import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { Prng } from 'pagewright/base';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FileServer } from '../src/cli/serve.ts';
import { ServePool } from '../src/cli/serve-pool.ts';
import { expectAllFree } from './support/all-free.ts';
import { until } from './support/chaos.ts';
import { matches, pattern, Scratch } from './support/scratch.ts';
import { testSeed } from './support/seed.ts';

const WORKER = new URL('../dist/verify/cli/serve-worker.js', import.meta.url);
const BIG_BYTES = 3_000_000;
/** More than the buffers of a local connection. */
const HUGE_BYTES = 24_000_000;
const SMALL_FILES = 150;

let scratch: Scratch;
let root: string;
let vm: VirtualMemory;
let pool: ServePool;
let workers: Worker[];
let server: FileServer;
let port = 0;
const agent = new Agent({ keepAlive: true, maxSockets: 24 });

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly bytes: Buffer;
}

/** Asks; rejects when the answer breaks off. */
function ask(path: string, headers: Record<string, string> = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request({ port, path, headers, agent, host: '127.0.0.1' }, (incoming) => {
      const parts: Buffer[] = [];
      incoming.on('data', (part) => parts.push(part));
      incoming.on('error', reject);
      incoming.on('end', () =>
        resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, bytes: Buffer.concat(parts) }),
      );
    });
    sent.on('error', reject);
    sent.end();
  });
}

/** A client that asks for a file that is larger than what sockets take on their own, and takes nothing. */
async function idleClient(): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  socket.pause();
  await new Promise<void>((resolve) => socket.once('connect', resolve));
  socket.write('GET /huge HTTP/1.1\r\nHost: x\r\n\r\n');
  return socket;
}

/** Every answer has come to its end. */
function noneInFlight(): Promise<void> {
  return until(() => /^pagewright_http_in_flight 0$/m.test(server.metrics()), 'no answer is under way');
}

beforeEach(async () => {
  scratch = new Scratch();
  root = join(scratch.directory, 'root');
  mkdirSync(root);
  writeFileSync(join(root, 'big.webm'), pattern(1, 0, BIG_BYTES));
  writeFileSync(join(root, 'huge'), '');
  truncateSync(join(root, 'huge'), HUGE_BYTES);
  for (let i = 0; i < SMALL_FILES; i++) writeFileSync(join(root, `small-${i}`), pattern(i, 0, 100 + 37 * i));
  workers = [];
  // A third of the big file; fewer rows than there are small files.
  vm = boot({ memory: '1 MiB', bankSize: '256 KiB', slots: 12, vnodes: 40 });
  const spawn = vm.spawn.bind(vm);
  vm.spawn = (...given) => {
    const worker = spawn(...given);
    workers.push(worker);
    return worker;
  };
  pool = new ServePool(vm, WORKER);
  await pool.start(2);
  server = new FileServer(root, vm, pool);
  await new Promise<void>((resolve) => server.server.listen(0, '127.0.0.1', resolve));
  port = (server.server.address() as AddressInfo).port;
});

/** Everybody has left: nothing is pinned or open, and every frame is free. */
afterEach(async () => {
  agent.destroy();
  server.server.closeAllConnections();
  await new Promise((resolve) => server.server.close(resolve));
  await pool.end();
  try {
    await until(() => vm.statistics().slots.length <= 3, 'all slots are free');
    expectAllFree(vm);
  } finally {
    await shutDown(vm);
    scratch.remove();
  }
});

/** One request whose answer is known; how many bytes came. */
async function askAnything(random: Prng): Promise<number> {
  if (random.chance(0.6)) {
    const n = random.below(SMALL_FILES);
    const { status, bytes } = await ask(`/small-${n}`);
    expect([status, bytes.length, matches(bytes, n, 0)]).toEqual([200, 100 + 37 * n, true]);
    return bytes.length;
  }
  const from = random.below(BIG_BYTES);
  const last = Math.min(BIG_BYTES - 1, from + random.below(random.chance(0.1) ? 1_000_000 : 60_000));
  const { status, bytes } = await ask('/big.webm', { range: `bytes=${from}-${last}` });
  expect([status, bytes.length, matches(bytes, 1, from)]).toEqual([206, last - from + 1, true]);
  return bytes.length;
}

describe('serve', () => {
  it('is right in every byte for many clients that never pause', async () => {
    const random = new Prng(testSeed('many clients', 11));
    const start = performance.now();
    let [answers, sum] = [0, 0];
    const clients = Array.from({ length: 24 }, async () => {
      for (let i = 0; i < 30; i++, answers++) {
        const bytes = await askAnything(random);
        sum += bytes;
      }
    });
    await Promise.all(clients);
    const seconds = (performance.now() - start) / 1000;
    console.log(`${answers} answers, ${Math.round(sum / 1e6)} MB, ${Math.round(answers / seconds)} a second`);
    expect(vm.statistics().pages.evictions).toBeGreaterThan(1000);
  });

  it('goes on for others while clients take nothing at all', async () => {
    // Each could pin 32 of 256 pages; half of the pages may be pinned.
    const idle = await Promise.all(Array.from({ length: 12 }, idleClient));
    await until(() => /^pagewright_http_in_flight 12$/m.test(server.metrics()), 'all have asked');
    await new Promise((resolve) => setTimeout(resolve, 300));
    const { bytes } = await ask('/big.webm');
    expect(bytes.length).toBe(BIG_BYTES);
    expect(matches(bytes, 1, 0)).toBe(true);
    const text = (await ask('/-/metrics')).bytes.toString();
    expect(text).toMatch(/^pagewright_http_in_flight 13$/m);
    // Those who wake up get all of it.
    const late = idle[0] as Socket;
    let got = 0;
    late.on('data', (part: Buffer) => {
      got += part.length;
    });
    late.resume();
    await until(() => got > HUGE_BYTES, 'the client that slept has everything');
    for (const socket of idle) socket.destroy();
    await until(
      () => /in_flight 1$/m.test(server.metrics()) || /in_flight 0$/m.test(server.metrics()),
      'all are let go',
    );
  });

  it('never mixes two versions of a file in one answer', async () => {
    const path = join(root, 'changing');
    const size = 900_000;
    let version = 0;
    const change = () => {
      const next = join(scratch.directory, 'next');
      writeFileSync(next, pattern(++version, 0, size));
      // In place, or by a new file under the same name.
      if (version % 2 === 0) renameSync(next, path);
      else writeFileSync(path, pattern(version, 0, size));
    };
    change();
    let [whole, broken] = [0, 0];
    const random = new Prng(testSeed('a file that changes', 3));
    let isOver = false;
    const client = async () => {
      while (!isOver) {
        try {
          const { status, bytes } = await ask('/changing');
          if (status === 503) continue;
          expect(status).toBe(200);
          const found = Array.from({ length: version + 1 }, (_, n) => n).filter((n) => matches(bytes, n, 0));
          // What is written in place is shorter for a moment, and then has a hole.
          const isWhole = bytes.length < size || bytes.includes(0) || found.length === 1;
          expect([bytes.length, isWhole]).toEqual([bytes.length, true]);
          whole++;
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'ECONNRESET') throw error;
          broken++;
        }
      }
    };
    const clients = [client(), client(), client()];
    for (let i = 0; i < 25 || whole < 5; i++) {
      await new Promise((resolve) => setTimeout(resolve, random.below(40)));
      change();
    }
    isOver = true;
    await Promise.all(clients);
    console.log(`${whole} answers were whole, ${broken} broke off because the file was changed`);
    appendFileSync(path, 'x');
    expect((await ask('/changing')).bytes.length).toBe(size + 1);
  });

  it('goes on when workers end, and what they held is given back', async () => {
    const random = new Prng(testSeed('workers that end', 5));
    let [right, broken, isOver] = [0, 0, false];
    const clients = Array.from({ length: 8 }, async () => {
      while (!isOver) {
        try {
          const { status, bytes } = await ask('/big.webm');
          if (status >= 500) {
            broken++;
            continue;
          }
          expect([status, bytes.length, matches(bytes, 1, 0)]).toEqual([200, BIG_BYTES, true]);
          right++;
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'ECONNRESET') throw error;
          broken++;
        }
      }
    });
    let kills = 0;
    while (kills < 4 || (broken === 0 && kills < 100)) {
      kills++;
      await new Promise((resolve) => setTimeout(resolve, 20 + random.below(100)));
      await workers.at(-1)?.terminate();
      await until(() => pool.restarts === kills && pool.size === 2, 'a worker has taken its place');
    }
    isOver = true;
    await Promise.all(clients);
    console.log(`${right} answers were right, ${broken} broke off with ${kills} workers`);
    expect(broken).toBeGreaterThan(0);
    expect((await ask('/small-3')).status).toBe(200);
    await noneInFlight();
    expect(server.metrics()).toContain(`pagewright_worker_restarts_total ${kills}\n`);
  });
});
