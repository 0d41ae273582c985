/** `pagewright serve`: files over HTTP, out of one page cache that all workers share. */

import { realpath, stat } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { availableParallelism } from 'node:os';
import { join, sep } from 'node:path';
import { VmError } from '../base/index.ts';
import { boot, shutDown, type VirtualMemory } from '../system/index.ts';
import type { ServeArguments } from './arguments.ts';
import type { ServedFile } from './serve-messages.ts';
import { metricsText, type ServeCounts } from './serve-metrics.ts';
import { type Answer, type ServeError, ServePool } from './serve-pool.ts';
import { judge, pathOf, typeOf, type Verdict } from './serve-request.ts';
import { EXIT, firstLine, UsageError } from './usage.ts';

/** Slots beside the workers'. */
const OTHER_SLOTS = 8;

/** A client that takes nothing for so long is let go. */
const STALL_MS = 30_000;

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
    if (url === METRICS) {
      const text = metricsText(this.#vm, this.#counts, this.#pool.size, this.#pool.restarts);
      response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' });
      response.end(method === 'HEAD' ? undefined : text);
      return;
    }
    const segments = pathOf(url);
    if (typeof segments === 'number') return refuse(response, segments);
    const path = await this.#resolve(segments);
    if (typeof path === 'number') return refuse(response, path);
    const { answer, file } = await this.#pool.open(path);
    try {
      const verdict = judge(method, request.headers, file);
      writeHead(response, path, file, verdict);
      if (method === 'GET' && (verdict.status === 200 || verdict.status === 206)) {
        await this.#send(response, answer, verdict);
      }
      response.end();
    } finally {
      answer.close();
    }
  }

  /** The real path of a regular file under the root, or a status. What links lead out of the root is not there. */
  async #resolve(segments: readonly string[]): Promise<string | 403 | 404> {
    let path: string;
    try {
      path = await realpath(join(this.#root, ...segments));
      if (!this.#isInside(path)) return 403;
      if ((await stat(path)).isDirectory()) path = await realpath(join(path, 'index.html'));
    } catch {
      return 404;
    }
    if (!this.#isInside(path)) return 403;
    return path;
  }

  #isInside(path: string): boolean {
    const folder = this.#root.endsWith(sep) ? this.#root : this.#root + sep;
    return path === this.#root || path.startsWith(folder);
  }

  /** Sends a range out of the banks; each piece stays pinned until the socket has taken it. */
  async #send(response: ServerResponse, answer: Answer, { range }: Verdict): Promise<void> {
    for (let at = range.from; at < range.end; ) {
      const views = await answer.pin(at, range.end);
      const last = views.at(-1) as Uint8Array;
      response.cork();
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

function writeHead(response: ServerResponse, path: string, file: ServedFile, { status, range }: Verdict): void {
  const length = status === 200 || status === 206 ? range.end - range.from : 0;
  response.writeHead(status, {
    etag: file.tag,
    'last-modified': new Date(file.modified).toUTCString(),
    'accept-ranges': 'bytes',
    ...(status === 304 ? {} : { 'content-type': typeOf(path), 'content-length': length }),
    ...(status === 206 ? { 'content-range': `bytes ${range.from}-${range.end - 1}/${file.size}` } : {}),
    ...(status === 416 ? { 'content-range': `bytes */${file.size}` } : {}),
    'x-content-type-options': 'nosniff',
  });
}

function refuse(response: ServerResponse, status: number): void {
  const text = `${status}\n`;
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', 'content-length': text.length });
  response.end(text);
}

function statusOf({ code }: ServeError): number {
  if (code === 'ENOENT' || code === 'EINVAL') return 404;
  if (code === 'EACCES') return 403;
  return code === 'ENOMEM' || code === 'EBUSY' ? 503 : 500;
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
