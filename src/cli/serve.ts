/** `pagewright serve`: files over HTTP, out of one page cache that all workers share. */

import { randomUUID } from 'node:crypto';
import { realpath, stat } from 'node:fs/promises';
import {
  createServer,
  type IncomingMessage,
  type OutgoingHttpHeaders,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import { availableParallelism } from 'node:os';
import { join, sep } from 'node:path';
import { VmError } from '../base/index.ts';
import { boot, shutDown, type VirtualMemory } from '../system/index.ts';
import type { ServeArguments } from './arguments.ts';
import type { ServedFile } from './serve-messages.ts';
import { metricsText, type ServeCounts } from './serve-metrics.ts';
import { type Answer, type ServeError, ServePool } from './serve-pool.ts';
import { type BodyPart, type ByteRange, contentRange, multipartOf } from './serve-ranges.ts';
import { judge, pathOf, targetOf, typeOf, type Verdict } from './serve-request.ts';
import { EXIT, firstLine, UsageError } from './usage.ts';

/** Slots beside the workers'. */
const OTHER_SLOTS = 8;

/** A client that takes nothing for so long is let go. */
const STALL_MS = 30_000;

/** Attempts to find a file that stays the same until its first bytes are sent. */
const ATTEMPTS = 5;

const METRICS = '/-/metrics';

/** Answers requests for the files under one folder. */
export class FileServer {
  readonly #root: string;
  readonly #vm: VirtualMemory;
  readonly #pool: ServePool;
  readonly #counts: ServeCounts = { answers: new Map(), bytes: 0, broken: 0, inFlight: 0, seconds: 0 };
  readonly server: Server;

  /** @param root real path of the folder. */
  constructor(root: string, vm: VirtualMemory, pool: ServePool) {
    this.#root = root;
    this.#vm = vm;
    this.#pool = pool;
    this.server = createServer((request, response) => void this.#answer(request, response));
  }

  /** The text of `/-/metrics`. */
  metrics(): string {
    return metricsText(this.#vm, this.#counts, this.#pool.size, this.#pool.restarts);
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const start = performance.now();
    this.#counts.inFlight++;
    response.setTimeout(STALL_MS, () => response.destroy());
    try {
      await this.#serve(request, response);
    } catch (error) {
      this.#counts.broken++;
      if (response.headersSent) response.destroy();
      else refuse(response, statusOf(error as ServeError));
    } finally {
      const { answers } = this.#counts;
      answers.set(response.statusCode, (answers.get(response.statusCode) ?? 0) + 1);
      this.#counts.inFlight--;
      this.#counts.seconds += (performance.now() - start) / 1000;
    }
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = 'GET', url = '/' } = request;
    if (method !== 'GET' && method !== 'HEAD') {
      response.setHeader('allow', 'GET, HEAD');
      return refuse(response, 405);
    }
    const target = targetOf(url);
    if (target === METRICS) {
      response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' });
      response.end(method === 'HEAD' ? undefined : this.metrics());
      return;
    }
    const segments = pathOf(target);
    if (typeof segments === 'number') return refuse(response, segments);
    const found = await this.#resolve(segments, target.endsWith('/'));
    if (typeof found === 'number') return refuse(response, found);
    if (found.isFolder) {
      // Links on a page count from its folder: its address must end in a slash.
      response.setHeader('location', `/${segments.map((segment) => `${encodeURIComponent(segment)}/`).join('')}`);
      return refuse(response, 301);
    }
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#serveFile(request, response, found.path);
      } catch (error) {
        // The file was changed before the first byte of it was sent.
        if ((error as ServeError).code !== 'ESTALE' || response.headersSent || attempt === ATTEMPTS) throw error;
      }
    }
  }

  async #serveFile(
    { method = 'GET', headers }: IncomingMessage,
    response: ServerResponse,
    path: string,
  ): Promise<void> {
    const { answer, file } = await this.#pool.open(path);
    try {
      const plan = planOf(path, file, judge(method, headers, file));
      if (method === 'HEAD') response.writeHead(plan.status, plan.headers);
      else await this.#send(response, answer, plan);
      response.end(method === 'HEAD' ? undefined : plan.suffix);
    } finally {
      answer.close();
    }
  }

  /** The real path of a regular file under the root, or a status. What links lead out of the root is not there. */
  async #resolve(
    segments: readonly string[],
    endsInSlash: boolean,
  ): Promise<{ path: string; isFolder: boolean } | 403 | 404> {
    let path: string;
    try {
      path = await realpath(join(this.#root, ...segments));
      if (!this.#isInside(path)) return 403;
      const isFolder = (await stat(path)).isDirectory();
      if (isFolder !== endsInSlash) return isFolder ? { path, isFolder } : 404;
      if (isFolder) path = await realpath(join(path, 'index.html'));
    } catch {
      return 404;
    }
    if (!this.#isInside(path)) return 403;
    return { path, isFolder: false };
  }

  #isInside(path: string): boolean {
    const folder = this.#root.endsWith(sep) ? this.#root : this.#root + sep;
    return path === this.#root || path.startsWith(folder);
  }

  /**
   * Sends ranges out of the banks; each piece stays pinned until the socket has taken it. The head goes out when the first
   * pages are there.
   */
  async #send(response: ServerResponse, answer: Answer, { status, headers, parts }: Plan): Promise<void> {
    for (const { prefix, range } of parts) {
      let before = prefix;
      for (let at = range.from; at < range.end; before = '') {
        const views = await answer.pin(at, range.end);
        if (!response.headersSent) response.writeHead(status, headers);
        const last = views.at(-1) as Uint8Array;
        response.cork();
        if (before !== '') response.write(before);
        for (const view of views) if (view !== last && !response.destroyed) response.write(view);
        // Writes are taken in order: when the last one is, all are.
        const taken = written(response, last);
        response.uncork();
        try {
          await taken;
        } finally {
          answer.unpin();
        }
        const bytes = views.reduce((sum, view) => sum + view.length, 0);
        this.#counts.bytes += bytes;
        at += bytes;
      }
    }
    if (!response.headersSent) response.writeHead(status, headers);
  }
}

/** What an answer consists of. */
interface Plan {
  readonly status: number;
  readonly headers: OutgoingHttpHeaders;
  readonly parts: readonly BodyPart[];
  readonly suffix: string | undefined;
}

function written(response: ServerResponse, view: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    if (response.destroyed) {
      reject(new Error('the client has gone'));
      return;
    }
    // A connection that closes settles what was written to it, one way or the other.
    const onClose = () => reject(new Error('the client has gone'));
    response.once('close', onClose);
    response.write(view, (error) => {
      response.off('close', onClose);
      if (error) reject(error);
      else resolve();
    });
  });
}

function planOf(path: string, file: ServedFile, { status, ranges }: Verdict): Plan {
  const headers: OutgoingHttpHeaders = {
    etag: file.tag,
    'last-modified': new Date(file.modified).toUTCString(),
    'accept-ranges': 'bytes',
    'x-content-type-options': 'nosniff',
  };
  const type = typeOf(path);
  if (ranges.length > 1) {
    const { length, parts, suffix, type: whole } = multipartOf(ranges, file.size, type, randomUUID());
    return { status, headers: { ...headers, 'content-type': whole, 'content-length': length }, parts, suffix };
  }
  const range = ranges[0] as ByteRange;
  const hasBody = status === 200 || status === 206;
  if (status !== 304) {
    headers['content-type'] = type;
    headers['content-length'] = hasBody ? range.end - range.from : 0;
  }
  if (status === 206) headers['content-range'] = contentRange(range, file.size);
  if (status === 416) headers['content-range'] = `bytes */${file.size}`;
  return { status, headers, parts: hasBody ? [{ prefix: '', range }] : [], suffix: undefined };
}

function refuse(response: ServerResponse, status: number): void {
  const text = `${status}\n`;
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', 'content-length': text.length });
  response.end(text);
}

function statusOf({ code }: ServeError): number {
  if (code === 'ENOENT' || code === 'EINVAL') return 404;
  if (code === 'EACCES') return 403;
  return code === 'ENOMEM' || code === 'EBUSY' || code === 'ESTALE' ? 503 : 500;
}

/** Serves until the process ends; rejects when it cannot begin. */
export async function serveCommand(args: ServeArguments): Promise<number> {
  const root = await rootOf(args.folder);
  const workers = args.workers > 0 ? args.workers : Math.min(48, Math.max(2, availableParallelism()));
  const vm = bootFor(args.memory, workers);
  const pool = new ServePool(vm, new URL('./serve-worker.js', import.meta.url));
  await pool.start(workers);
  const { server } = new FileServer(root, vm, pool);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(new UsageError(`pagewright serve: ${firstLine(error)}`)));
    server.listen(args.port, args.host, resolve);
  });
  const { address, port, family } = server.address() as AddressInfo;
  const host = family === 'IPv6' ? `[${address}]` : address;
  process.stdout.write(`serving ${root} on http://${host}:${port}/ with ${workers} workers; Ctrl-C ends it\n`);
  await new Promise((resolve) => server.once('close', resolve));
  await pool.end();
  await shutDown(vm);
  return EXIT.ok;
}

async function rootOf(folder: string): Promise<string> {
  try {
    const root = await realpath(folder);
    if ((await stat(root)).isDirectory()) return root;
  } catch {
    throw new UsageError(`pagewright serve: ${folder}: there is no such folder`);
  }
  throw new UsageError(`pagewright serve: ${folder}: it is no folder`);
}

function bootFor(memory: string, workers: number): VirtualMemory {
  try {
    return boot({ memory, slots: Math.min(64, workers + OTHER_SLOTS) });
  } catch (error) {
    if (!(error instanceof VmError)) throw error;
    throw new UsageError(`pagewright serve: --memory ${memory}: ${error.message.replace(/^[A-Z]+: /, '')}`);
  }
}
