/** `pagewright serve` as clients meet it: a process, sockets, node's own client and curl. */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { type IncomingHttpHeaders, request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Prng } from '../src/base/index.ts';
import { pathOf, rangeOf } from '../src/cli/serve-request.ts';
import { matches, pattern } from './support/scratch.ts';
import { testSeed } from './support/seed.ts';

const PROGRAM = fileURLToPath(new URL('../dist/release/cli/main.js', import.meta.url));
const BIG_BYTES = 9_000_000;

let folder = '';
let child: ChildProcess;
let port = 0;

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly bytes: Buffer;
}

function ask(path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request({ port, path, headers, method, host: '127.0.0.1' }, (incoming) => {
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

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'pagewright-serve-'));
  const root = join(folder, 'root');
  mkdirSync(join(root, 'sub'), { recursive: true });
  writeFileSync(join(folder, 'secret.txt'), 'secret');
  writeFileSync(join(root, 'big.mp4'), pattern(1, 0, BIG_BYTES));
  writeFileSync(join(root, 'hello.txt'), 'hello, world\n');
  writeFileSync(join(root, 'empty'), '');
  writeFileSync(join(root, 'with space & ü.txt'), 'odd');
  writeFileSync(join(root, 'sub', 'index.html'), '<p>index');
  symlinkSync(join(folder, 'secret.txt'), join(root, 'escape.txt'));
  symlinkSync(folder, join(root, 'out'));
  symlinkSync('hello.txt', join(root, 'inside.txt'));
  // Far less memory than the big file.
  const args = ['serve', root, '--port', '0', '--memory', '1MiB', '--workers', '2'];
  child = spawn(process.execPath, [PROGRAM, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = await once(child.stdout?.setEncoding('utf8') as NodeJS.ReadableStream, 'data');
  port = Number(/http:\/\/127\.0\.0\.1:(\d+)\//.exec(line)?.[1]);
  expect(port).toBeGreaterThan(0);
});

afterAll(() => {
  child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

describe('serve', () => {
  it('sends files whole and in ranges, with tags and conditions', async () => {
    const whole = await ask('/hello.txt');
    expect(whole.status).toBe(200);
    expect(whole.bytes.toString()).toBe('hello, world\n');
    expect(whole.headers).toMatchObject({ 'content-length': '13', 'accept-ranges': 'bytes' });
    expect(whole.headers['content-type']).toBe('text/plain; charset=utf-8');
    const tag = whole.headers.etag as string;
    expect(tag).toMatch(/^"[0-9a-f]+-d"$/);
    for (const [headers, status, text, range] of [
      [{ range: 'bytes=0-4' }, 206, 'hello', 'bytes 0-4/13'],
      [{ range: 'bytes=7-' }, 206, 'world\n', 'bytes 7-12/13'],
      [{ range: 'bytes=-6' }, 206, 'world\n', 'bytes 7-12/13'],
      [{ range: 'bytes=99-' }, 416, '', 'bytes */13'],
      [{ range: 'lines=1-2' }, 200, 'hello, world\n', undefined],
      [{ range: 'bytes=0-4', 'if-range': tag }, 206, 'hello', 'bytes 0-4/13'],
      [{ range: 'bytes=0-4', 'if-range': '"other"' }, 200, 'hello, world\n', undefined],
      [{ 'if-none-match': tag }, 304, '', undefined],
      [{ 'if-none-match': `"x", W/${tag}` }, 304, '', undefined],
      [{ 'if-none-match': '"x"' }, 200, 'hello, world\n', undefined],
      [{ 'if-modified-since': whole.headers['last-modified'] as string }, 304, '', undefined],
      [{ 'if-match': '"x"' }, 412, '', undefined],
      [{ 'if-match': tag }, 200, 'hello, world\n', undefined],
      [{ 'if-unmodified-since': 'Thu, 01 Jan 1970 00:00:00 GMT' }, 412, '', undefined],
    ] as [Record<string, string>, number, string, string | undefined][]) {
      const answer = await ask('/hello.txt', headers);
      expect([headers, answer.status, answer.bytes.toString()]).toEqual([headers, status, text]);
      expect(answer.headers['content-range']).toBe(range);
    }
    const head = await ask('/big.mp4', {}, 'HEAD');
    expect([head.status, head.bytes.length, head.headers['content-length']]).toEqual([200, 0, String(BIG_BYTES)]);
    expect((await ask('/empty')).headers['content-length']).toBe('0');
    expect((await ask('/with%20space%20%26%20%C3%BC.txt')).bytes.toString()).toBe('odd');
    expect((await ask('/sub/')).bytes.toString()).toBe('<p>index');
    expect((await ask('/inside.txt')).bytes.toString()).toBe('hello, world\n');
  });

  it('refuses what leads out of the folder, and what is not there', async () => {
    for (const [path, status] of [
      ['/../secret.txt', 403],
      ['/%2e%2e/secret.txt', 403],
      ['/sub/..%2f..%2fsecret.txt', 403],
      ['/sub/%2e%2e/%2e%2e/secret.txt', 403],
      ['/..\\secret.txt', 403],
      ['/escape.txt', 403],
      ['/out/secret.txt', 403],
      ['/none', 404],
      ['/', 404],
      ['/%00', 400],
      ['/%zz', 400],
    ] as const) {
      const answer = await ask(path);
      expect([path, answer.status]).toEqual([path, status]);
      expect(answer.bytes.toString()).not.toContain('secret');
    }
    expect((await ask('/hello.txt', {}, 'POST')).status).toBe(405);
    expect(pathOf('/a//b/./c?x=/..')).toEqual(['a', 'b', 'c']);
    expect(rangeOf('bytes=5-2', 10)).toBe('ignore');
    expect(rangeOf('bytes=-0', 10)).toBe(null);
  });

  it('answers many clients at once, right in every byte, nine times the memory', async () => {
    const random = new Prng(testSeed('ranges of many clients', 3));
    const asks = Array.from({ length: 60 }, async () => {
      const from = random.below(BIG_BYTES);
      const last = Math.min(BIG_BYTES - 1, from + random.below(700_000));
      const { status, bytes } = await ask('/big.mp4', { range: `bytes=${from}-${last}` });
      expect([status, bytes.length]).toEqual([206, last - from + 1]);
      expect(matches(bytes, 1, from)).toBe(true);
    });
    await Promise.all(asks);
    const whole = await ask('/big.mp4');
    expect(matches(whole.bytes, 1, 0)).toBe(true);
    expect(whole.bytes.length).toBe(BIG_BYTES);
  });

  it('lets clients go that break off or take nothing, and goes on', async () => {
    for (let i = 0; i < 12; i++) {
      const socket = connect(port, '127.0.0.1');
      socket.write('GET /big.mp4 HTTP/1.1\r\nHost: x\r\n\r\n');
      socket.pause();
      await new Promise((resolve) => setTimeout(resolve, 10));
      if (i % 2 === 0) socket.destroy();
      else setTimeout(() => socket.destroy(), 300);
    }
    const { bytes } = await ask('/big.mp4', { range: 'bytes=1000000-1999999' });
    expect(matches(bytes, 1, 1_000_000)).toBe(true);
    await new Promise((resolve) => setTimeout(resolve, 500));
    const text = (await ask('/-/metrics')).bytes.toString();
    expect(text).toMatch(/^pagewright_http_in_flight 1$/m);
    expect(text).toMatch(/^pagewright_http_answers_total\{status="206"\} \d+$/m);
    expect(text).toMatch(/^pagewright_pages_total\{event="evictions"\} [1-9]\d*$/m);
    expect(text).toMatch(/^pagewright_workers 2$/m);
  });

  it('sees a file that was changed', async () => {
    const path = join(folder, 'root', 'growing.txt');
    writeFileSync(path, 'one');
    const before = await ask('/growing.txt');
    appendFileSync(path, ' two');
    const after = await ask('/growing.txt', { 'if-none-match': before.headers.etag as string });
    expect([after.status, after.bytes.toString()]).toEqual([200, 'one two']);
  });

  it('is right under curl', () => {
    const url = `http://127.0.0.1:${port}`;
    const curl = (...args: string[]) => execFileSync('curl', ['-s', '--max-time', '20', ...args]);
    expect(curl(`${url}/hello.txt`).toString()).toBe('hello, world\n');
    expect(curl('-r', '3-6', `${url}/hello.txt`).toString()).toBe('lo, ');
    const target = join(folder, 'half');
    writeFileSync(target, pattern(1, 0, 4_000_000));
    curl('-C', '-', '-o', target, `${url}/big.mp4`);
    expect(curl('-o', '/dev/null', '-w', '%{http_code}', '--path-as-is', `${url}/../secret.txt`).toString()).toBe(
      '403',
    );
    expect(matches(execFileSync('cat', [target], { maxBuffer: 1e8 }), 1, 0)).toBe(true);
  });

  it('says what is wrong with its arguments', () => {
    for (const [args, text] of [
      [['serve', '/none/such'], /there is no such folder/],
      [['serve', PROGRAM], /it is no folder/],
      [['serve', '--port', '-1'], /--port must be a whole number from 0 to 65535, not "-1"/],
      [['serve', '--memory', 'much'], /--memory much/],
      [['run', '--seconds', '-1'], /--seconds must be a number of seconds from 0 to 1000000, not "-1"/],
    ] as [string[], RegExp][]) {
      let failure: { status?: number; stderr?: Buffer } = {};
      try {
        execFileSync(process.execPath, [PROGRAM, ...args], { stdio: 'pipe' });
      } catch (error) {
        failure = error as typeof failure;
      }
      expect([args, failure.status]).toEqual([args, 2]);
      expect(String(failure.stderr)).toMatch(text);
    }
  });
});
