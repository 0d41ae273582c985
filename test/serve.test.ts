/** `pagewright serve` as clients meet it: a process, sockets, node's own client and curl. */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { type IncomingHttpHeaders, request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Prng } from '../src/base/index.ts';
import { rangesOf } from '../src/cli/serve-ranges.ts';
import { pathOf } from '../src/cli/serve-request.ts';
import { matches, pattern } from './support/scratch.ts';
import { testSeed } from './support/seed.ts';
import { PATIENCE_MS } from './support/until.ts';

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

const sleep = (ms: number) => new Promise<undefined>((resolve) => setTimeout(resolve, ms));

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

/** What is wrong with a text of metrics: each has help and type once, before its samples, and no sample comes twice. */
function metricProblems(text: string): string[] {
  const problems: string[] = text.endsWith('\n') ? [] : ['no line feed at the end'];
  const types = new Map<string, string>();
  const seen = new Set<string>();
  for (const line of text.split('\n').slice(0, -1)) {
    const [, kind, name, rest] = /^# (HELP|TYPE) ([a-z_:][a-z0-9_:]*) (.+)$/.exec(line) ?? [];
    const [, metric, labels = ''] =
      /^([a-z_:][a-z0-9_:]*)(\{[a-zA-Z_]\w*="[^"\\]*"(?:,[a-zA-Z_]\w*="[^"\\]*")*\})? \d+(?:\.\d+)?(?:e[+-]?\d+)?$/.exec(
        line,
      ) ?? [];
    if (kind === 'TYPE') {
      if (types.has(name as string) || !/^(counter|gauge)$/.test(rest as string)) problems.push(line);
      types.set(name as string, rest as string);
    } else if (metric !== undefined) {
      const type = types.get(metric);
      if (type === undefined || (type === 'counter') !== metric.endsWith('_total')) problems.push(line);
      if (seen.has(metric + labels)) problems.push(`twice: ${line}`);
      seen.add(metric + labels);
    } else if (kind === undefined) {
      problems.push(line);
    }
  }
  return problems;
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
  writeFileSync(join(root, '.hidden'), 'seen');
  execFileSync('mkfifo', [join(root, 'pipe')]);
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

  it('sends several ranges in parts, and all of the file where they are no readers need', async () => {
    const { headers, status, bytes } = await ask('/hello.txt', { range: 'bytes=0-1, 4-4 ,-3,,99-' });
    const boundary = /^multipart\/byteranges; boundary=([\w-]+)$/.exec(headers['content-type'] as string)?.[1];
    const part = (range: string, text: string) =>
      `\r\n--${boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes ${range}/13\r\n\r\n${text}`;
    const expected = `${part('0-1', 'he')}${part('4-4', 'o')}${part('10-12', 'ld\n')}\r\n--${boundary}--\r\n`;
    expect([status, bytes.toString()]).toEqual([206, expected]);
    expect(headers['content-length']).toBe(String(expected.length));
    expect(headers['content-range']).toBe(undefined);
    // One that is left is an answer with one range.
    const one = await ask('/hello.txt', { range: 'bytes=99-,0-4' });
    expect([one.status, one.bytes.toString(), one.headers['content-range']]).toEqual([206, 'hello', 'bytes 0-4/13']);
    for (const range of ['bytes=0-8,2-9', 'bytes=0-1,x', `bytes=${'0-0,'.repeat(40)}`, 'bytes=', 'bytes=,']) {
      const whole = await ask('/hello.txt', { range });
      expect([range, whole.status, whole.bytes.length]).toEqual([range, 200, 13]);
    }
    expect((await ask('/hello.txt', { range: 'bytes=13-,99-100,-0' })).status).toBe(416);
    expect((await ask('/empty', { range: 'bytes=-5' })).status).toBe(416);
    const far = await ask('/big.mp4', { range: 'bytes=100-400099,5000000-8999999' });
    const ends = [far.bytes.indexOf('\r\n\r\n') + 4, far.bytes.indexOf('/9000000\r\n\r\n', 400_100) + 12] as const;
    expect(matches(far.bytes.subarray(ends[0], ends[0] + 400_000), 1, 100)).toBe(true);
    expect(matches(far.bytes.subarray(ends[1], ends[1] + 4_000_000), 1, 5_000_000)).toBe(true);
  });

  it('leads to folders with a slash, and takes whole addresses from proxies', async () => {
    const answer = await ask('/sub?x=1');
    expect([answer.status, answer.headers.location]).toEqual([301, '/sub/']);
    expect((await ask('//example.org/%2e/sub')).status).toBe(404);
    expect((await ask('/hello.txt/')).status).toBe(404);
    expect((await ask(`http://127.0.0.1:${port}/hello.txt?x=/`)).bytes.toString()).toBe('hello, world\n');
    expect((await ask('/out')).status).toBe(403);
  });

  it('shows numbers in the text format of Prometheus', async () => {
    const { headers, bytes } = await ask('/-/metrics');
    expect(headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect(metricProblems(bytes.toString())).toEqual([]);
    expect(metricProblems('# TYPE a_total counter\na_total 1\na_total 1\n')).not.toEqual([]);
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
      ['/%2e%2e%2fsecret.txt', 403],
      ['//x/../secret.txt', 403],
      ['http:///../../secret.txt', 403],
      ['/%252e%252e/secret.txt', 404],
      ['/..;/secret.txt', 404],
      ['/hello.txt/', 404],
      ['/pipe', 404],
      [`/${'a'.repeat(9000)}`, 404],
      ['/%00', 400],
      ['/hello.txt%00', 400],
      ['/%zz', 400],
      ['/%ff', 400],
      ['*', 400],
    ] as const) {
      const answer = await ask(path);
      expect([path, answer.status]).toEqual([path, status]);
      expect(answer.bytes.toString()).not.toContain('secret');
    }
    expect((await ask('/hello.txt', {}, 'POST')).status).toBe(405);
    // Names that begin with a dot are like others.
    expect((await ask('/.hidden')).bytes.toString()).toBe('seen');
    expect(pathOf('/a//b/./c?x=/..')).toEqual(['a', 'b', 'c']);
    expect(rangesOf('bytes=5-2', 10)).toBe('ignore');
    expect(rangesOf('bytes=-0', 10)).toBe(null);
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
    let text = '';
    for (const end = performance.now() + PATIENCE_MS; performance.now() < end; await sleep(20)) {
      text = (await ask('/-/metrics')).bytes.toString();
      if (/^pagewright_http_in_flight 1$/m.test(text)) break;
    }
    expect(text).toMatch(/^pagewright_http_in_flight 1$/m);
    expect(text).toMatch(/^pagewright_http_answers_total\{status="206"\} \d+$/m);
    expect(text).toMatch(/^pagewright_pages_total\{event="evictions"\} [1-9]\d*$/m);
    expect(text).toMatch(/^pagewright_workers 2$/m);
  });

  it('breaks off when a file is cut while it is sent, and sends what is left of it afterwards', async () => {
    const path = join(folder, 'root', 'cut.bin');
    writeFileSync(path, pattern(3, 0, BIG_BYTES));
    const answers = Array.from({ length: 12 }, () => ask('/cut.bin').catch(() => null));
    await Promise.race(answers.map((answer) => answer.then(() => undefined)).concat(sleep(20)));
    truncateSync(path, 1_000_000);
    for (const answer of await Promise.all(answers)) {
      if (answer === null) continue;
      expect(answer.bytes.length).toBe(Number(answer.headers['content-length']));
      expect(matches(answer.bytes, 3, 0)).toBe(true);
    }
    const after = await ask('/cut.bin');
    expect([after.status, after.bytes.length, matches(after.bytes, 3, 0)]).toEqual([200, 1_000_000, true]);
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
    const curl = (...args: string[]) => execFileSync('curl', ['-s', '--max-time', '100', ...args]);
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
