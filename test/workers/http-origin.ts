/** A small HTTP server in a thread of its own: ranges, tags, failures on demand. Posts its port. */

import { createServer, type RequestListener } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { parentPort, workerData } from 'node:worker_threads';
import { TEST_CERTIFICATE, TEST_KEY } from '../support/certificate.ts';
import { pattern } from '../support/scratch.ts';

/** What a test tells the server. */
export interface OriginSettings {
  readonly size: number;
  readonly seed: number;
  readonly tag: string;
  /** Serve the whole resource, without ranges. */
  readonly noRanges: boolean;
  /** Answers that say 503 before the next good one. */
  readonly failures: number;
  /** Answers that break off in the middle before the next good one. */
  readonly breaks: number;
  readonly delayMs: number;
  /** Answers with a range that is shorter than the one asked for. */
  readonly shortRanges: boolean;
  /** The tag is another one after so many answers with bytes. */
  readonly changesAfter: number;
}

/** With `{ secure: true }` the server speaks HTTPS. */
export interface OriginData {
  readonly secure?: boolean;
}

/** What holds until the test says something else. */
const PLAIN: OriginSettings = {
  size: 0,
  seed: 0,
  tag: '"1"',
  noRanges: false,
  failures: 0,
  breaks: 0,
  delayMs: 0,
  shortRanges: false,
  changesAfter: Number.POSITIVE_INFINITY,
};

let settings = PLAIN;
let failures = 0;
let breaks = 0;
let requests = 0;
let answers = 0;

const answer: RequestListener = (request, response) => {
  requests++;
  parentPort?.postMessage({ requests });
  setTimeout(() => {
    if (request.url === '/missing') {
      response.writeHead(404).end();
      return;
    }
    if (failures > 0) {
      failures--;
      response.writeHead(503).end();
      return;
    }
    if (answers++ >= settings.changesAfter) settings = { ...settings, seed: settings.seed + 1, tag: '"later"' };
    const bytes = pattern(settings.seed, 0, settings.size);
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
    const wrongVersion = request.headers['if-range'] !== undefined && request.headers['if-range'] !== settings.tag;
    if (range === null || settings.noRanges || wrongVersion) {
      response.writeHead(200, { etag: settings.tag, 'content-length': bytes.length }).end(bytes);
      return;
    }
    const from = Number(range[1]);
    const whole = Math.min(bytes.length, Number(range[2]) + 1);
    const end = settings.shortRanges && whole - from > 1 ? whole - 1 : whole;
    const headers = {
      etag: settings.tag,
      'content-length': end - from,
      'content-range': `bytes ${from}-${end - 1}/${bytes.length}`,
    };
    response.writeHead(206, headers);
    if (breaks > 0 && end - from > 1) {
      breaks--;
      response.write(bytes.subarray(from, from + 1));
      setTimeout(() => response.destroy(), 5);
      return;
    }
    response.end(bytes.subarray(from, end));
  }, settings.delayMs);
};

const { secure = false } = (workerData ?? {}) as OriginData;
const server = secure ? createSecureServer({ key: TEST_KEY, cert: TEST_CERTIFICATE }, answer) : createServer(answer);

parentPort?.on('message', (message: Partial<OriginSettings>) => {
  settings = { ...settings, ...message };
  failures = settings.failures;
  breaks = settings.breaks;
  requests = 0;
  answers = 0;
  parentPort?.postMessage({ set: true });
});
server.listen(0, '127.0.0.1', () => parentPort?.postMessage({ port: (server.address() as AddressInfo).port }));
