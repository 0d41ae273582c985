/**
 * Reading resources over HTTP and HTTPS by ranges, for the remote I/O worker.
 *
 * A resource has a version: its entity tag, or its time of modification where it has no strong tag. Each range asks for
 * that version with If-Range, and the answer's own headers are compared: a resource that has changed is `ESTALE`, never a
 * mix of two versions. What fails on the way, or with a status that says "later", is tried again, a little later each time.
 * A signal ends it all: connections are closed.
 */

import { createHash } from 'node:crypto';
import { get as getPlain, type IncomingMessage } from 'node:http';
import { get as getSecure } from 'node:https';
import { fail, VmError } from '../base/errors.ts';

/** Attempts at one request. */
const ATTEMPTS = 4;

/** Pause before the second attempt; it doubles with each further one. */
const PAUSE_MS = 50;

/** Silence after which an attempt counts as failed. */
const SILENCE_MS = 10_000;

const REDIRECTS_MAX = 5;

/** What is known about a resource. */
export interface RemoteFacts {
  readonly size: number;
  /** Strong entity tag or time of modification; empty when the server names neither. */
  readonly validator: string;
}

/** An answer, with all of its bytes unless only the headers were asked for. */
interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly bytes: Uint8Array;
}

/** The version of a resource as a vnode's row stores it: four words. */
export function versionOf(url: string, facts: RemoteFacts): Int32Array {
  return hashWords(`${url}\n${facts.size}\n${facts.validator}`);
}

/** Four words that stand for a text. */
export function hashWords(text: string): Int32Array {
  const digest = createHash('sha256').update(text).digest();
  return Int32Array.from([0, 1, 2, 3], (word) => digest.readInt32LE(4 * word));
}

/** Size and version of a resource. Throws `ENOENT`, `EACCES`, `EIO`, `ENOTSUP` when the server does not tell the size. */
export async function lookAt(url: string, signal?: AbortSignal): Promise<RemoteFacts> {
  // A range of one byte shows the size and whether there are ranges, also where HEAD is not served.
  const answer = await request(url, { range: 'bytes=0-0' }, signal);
  const validator = validatorOf(answer);
  const total = /\/(\d+)$/.exec(answer.headers['content-range'] ?? '')?.[1];
  if (answer.status === 206 && total !== undefined) return { size: Number(total), validator };
  if (answer.status === 416) return { size: Number(total ?? 0), validator };
  if (answer.status === 200) return { size: answer.bytes.length, validator };
  return failStatus(url, answer.status);
}

/** Bytes `from` to `end - 1` of a resource that must still be what `facts` say. Throws `ESTALE` when it is not, `EIO`. */
export async function readRange(
  url: string,
  facts: RemoteFacts,
  from: number,
  end: number,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const headers: Record<string, string> = { range: `bytes=${from}-${end - 1}` };
  if (facts.validator !== '') headers['if-range'] = facts.validator;
  const answer = await request(url, headers, signal);
  if (answer.status === 416 || (answer.status < 300 && validatorOf(answer) !== facts.validator))
    return failChanged(url);
  if (answer.status === 206) {
    const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(answer.headers['content-range'] ?? '');
    if (range === null || Number(range[1]) !== from || answer.bytes.length !== end - from) {
      return fail('EIO', 'http.readRange', { url, from, end, got: answer.bytes.length }, 'the answer is another range');
    }
    return answer.bytes;
  }
  if (answer.status === 200) {
    // A server without ranges sends all of it, and so does one whose resource has changed.
    if (answer.bytes.length !== facts.size) return failChanged(url);
    return answer.bytes.subarray(from, end);
  }
  return failStatus(url, answer.status);
}

function validatorOf({ headers }: Answer): string {
  const tag = headers.etag ?? '';
  if (tag !== '' && !tag.startsWith('W/')) return tag;
  return headers['last-modified'] ?? '';
}

async function request(url: string, headers: Record<string, string>, signal?: AbortSignal): Promise<Answer> {
  let failure: unknown;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    if (attempt > 0) await new Promise((resolve) => setTimeout(resolve, PAUSE_MS * 2 ** attempt));
    signal?.throwIfAborted();
    try {
      const answer = await follow(url, headers, signal);
      if (answer.status !== 429 && answer.status < 500) return answer;
      failure = new Error(`the server said ${answer.status}`);
    } catch (error) {
      failure = error;
    }
  }
  const text = failure instanceof Error ? failure.message : String(failure);
  throw new VmError('EIO', `http.request(${url}): ${text}, ${ATTEMPTS} times`, { cause: failure });
}

async function follow(url: string, headers: Record<string, string>, signal?: AbortSignal): Promise<Answer> {
  let at = url;
  for (let redirects = 0; redirects <= REDIRECTS_MAX; redirects++) {
    const answer = await once(at, headers, signal);
    const { location } = answer.headers;
    if (answer.status < 300 || answer.status >= 400 || location === undefined) return answer;
    at = new URL(location, at).href;
  }
  throw new Error('too many redirections');
}

function once(url: string, headers: Record<string, string>, signal?: AbortSignal): Promise<Answer> {
  const get = url.startsWith('https:') ? getSecure : getPlain;
  return new Promise((resolve, reject) => {
    const sent = get(
      url,
      { headers: { ...headers, 'accept-encoding': 'identity' }, timeout: SILENCE_MS, ...(signal && { signal }) },
      (incoming) => {
        const parts: Uint8Array[] = [];
        incoming.on('data', (part: Uint8Array) => parts.push(part));
        incoming.on('error', reject);
        incoming.on('aborted', () => reject(new Error('the answer broke off')));
        incoming.on('end', () => {
          resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, bytes: Buffer.concat(parts) });
        });
      },
    );
    sent.on('timeout', () => sent.destroy(new Error(`no answer within ${SILENCE_MS} ms`)));
    sent.on('error', reject);
  });
}

function failStatus(url: string, status: number): never {
  const code = status === 404 || status === 410 ? 'ENOENT' : status === 401 || status === 403 ? 'EACCES' : 'EIO';
  fail(code, 'http.request', { url, status }, 'the server does not give it');
}

function failChanged(url: string): never {
  fail('ESTALE', 'http.readRange', { url }, 'the resource has changed: open it again');
}
