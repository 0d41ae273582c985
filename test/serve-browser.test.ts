/**
 * `pagewright serve` under a browser's media element: it seeks forwards and backwards, plays, and comes to the end of a file that
 * is much larger than the memory. Needs a Chromium, which PAGEWRIGHT_CHROMIUM names: it takes long to start on a busy machine.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { boot, shutDown } from 'pagewright';
import { describe, expect, it } from 'vitest';
import { FileServer } from '../src/cli/serve.ts';
import { ServePool } from '../src/cli/serve-pool.ts';
import { expectAllFree } from './support/all-free.ts';
import { until } from './support/chaos.ts';
import { Scratch } from './support/scratch.ts';

const WORKER = new URL('../dist/verify/cli/serve-worker.js', import.meta.url);
const SECONDS = 60;
const RATE = 44_100;

/** What the page says when it has done everything, or could not. */
interface PageReport {
  readonly duration: number;
  readonly seeks: readonly number[];
  readonly ended: boolean;
  readonly error: string;
}

/** A minute of sound: 16 bits, two channels. */
function wav(): Buffer {
  const data = SECONDS * RATE * 4;
  const bytes = Buffer.alloc(44 + data);
  bytes.write('RIFF', 0);
  bytes.writeUInt32LE(36 + data, 4);
  bytes.write('WAVEfmt ', 8);
  bytes.writeUInt32LE(16, 16);
  bytes.writeUInt16LE(1, 20);
  bytes.writeUInt16LE(2, 22);
  bytes.writeUInt32LE(RATE, 24);
  bytes.writeUInt32LE(RATE * 4, 28);
  bytes.writeUInt16LE(4, 32);
  bytes.writeUInt16LE(16, 34);
  bytes.write('data', 36);
  bytes.writeUInt32LE(data, 40);
  for (let at = 44; at < bytes.length; at += 2) bytes.writeInt16LE(((at * 37) & 4095) - 2048, at);
  return bytes;
}

/** Goes to a few places, then plays the last half second. */
const page = (
  reports: string,
) => `<!doctype html><video id="v" muted preload="metadata" src="sound.wav"></video><script>
const v = document.getElementById('v');
const once = (name) => new Promise((resolve, reject) => {
  v.addEventListener(name, resolve, { once: true });
  v.addEventListener('error', () => reject(new Error(v.error.message)), { once: true });
});
const report = { duration: 0, seeks: [], ended: false, error: '' };
(async () => {
  try {
    if (v.readyState < 1) await once('loadedmetadata');
    report.duration = v.duration;
    for (const at of [50, 5, 30, 12, 58, 0, 59.5]) {
      const seeked = once('seeked');
      v.currentTime = at;
      await seeked;
      report.seeks.push(v.currentTime);
    }
    const ended = once('ended');
    await v.play();
    await ended;
    report.ended = v.ended;
  } catch (error) {
    report.error = String(error);
  }
  await fetch('${reports}', { method: 'POST', mode: 'no-cors', body: JSON.stringify(report) });
})();
</script>`;

/** Takes the one report that comes. */
async function reporting(): Promise<{ server: Server; address: string; reported: Promise<PageReport> }> {
  let take: (report: PageReport) => void = () => undefined;
  const reported = new Promise<PageReport>((resolve) => {
    take = resolve;
  });
  const server = createServer(async (incoming, answer) => {
    let text = '';
    for await (const part of incoming) text += part;
    answer.end();
    if (text !== '') take(JSON.parse(text));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, address: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, reported };
}

function browse(program: string, address: string, profile: string): ChildProcess {
  const flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--mute-audio'];
  const quiet = ['--no-first-run', '--autoplay-policy=no-user-gesture-required', `--user-data-dir=${profile}`];
  return spawn(program, [...flags, ...quiet, address], { stdio: 'ignore', detached: true });
}

describe('a browser', () => {
  it('plays what is served, from wherever it wants', async () => {
    const program = process.env.PAGEWRIGHT_CHROMIUM ?? '';
    if (program === '') {
      console.log('not run: PAGEWRIGHT_CHROMIUM names no Chromium');
      return;
    }
    const scratch = new Scratch();
    const root = join(scratch.directory, 'root');
    mkdirSync(root);
    writeFileSync(join(root, 'sound.wav'), wav());
    const vm = boot({ memory: '1 MiB', bankSize: '256 KiB', slots: 12 });
    const pool = new ServePool(vm, WORKER);
    await pool.start(2);
    const { server } = new FileServer(root, vm, pool);
    const reports = await reporting();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    writeFileSync(join(root, 'index.html'), page(reports.address));
    const { port } = server.address() as AddressInfo;
    const browser = browse(program, `http://127.0.0.1:${port}/`, join(scratch.directory, 'profile'));
    const left = once(browser, 'exit');
    try {
      const gone = left.then(([code]) => Promise.reject(new Error(`the browser has ended: ${code}`)));
      const report = await Promise.race([reports.reported, gone]);
      expect(report).toMatchObject({ error: '', ended: true });
      expect(report.duration).toBeCloseTo(SECONDS, 1);
      expect(report.seeks.map((at) => Math.round(2 * at) / 2)).toEqual([50, 5, 30, 12, 58, 0, 59.5]);
      expect(vm.statistics().pages.misses).toBeGreaterThan(0);
    } finally {
      // With the processes that it has started.
      if (browser.exitCode === null) process.kill(-(browser.pid as number), 'SIGKILL');
      await left;
      server.closeAllConnections();
      server.close();
      reports.server.closeAllConnections();
      reports.server.close();
      await pool.end();
      try {
        await until(() => vm.statistics().slots.length <= 3, 'all slots are free');
        expectAllFree(vm);
      } finally {
        await shutDown(vm);
        scratch.remove();
      }
    }
  });
});
