/** What a request for a file asks for: its path, its conditions, its range. Nothing here touches files. */

import type { IncomingHttpHeaders } from 'node:http';
import type { ServedFile } from './serve-messages.ts';
import { type ByteRange, rangesOf } from './serve-ranges.ts';

/** A request's target without host, query and fragment; proxies may send all of an address. */
export function targetOf(url: string): string {
  const target = url.replace(/^https?:\/\/[^/?#]*/i, '').split(/[?#]/, 1)[0] as string;
  return target === '' ? '/' : target;
}

/** The segments of a target's path, decoded; or the status that refuses it. */
export function pathOf(target: string): string[] | 400 | 403 {
  const raw = target.split(/[?#]/, 1)[0] as string;
  if (!raw.startsWith('/')) return 400;
  const segments: string[] = [];
  for (const part of raw.split('/')) {
    let segment: string;
    try {
      segment = decodeURIComponent(part);
    } catch {
      return 400;
    }
    if (segment.includes('\0')) return 400;
    // A decoded slash would make two segments of one.
    if (segment === '..' || segment.includes('/') || segment.includes('\\')) return 403;
    if (segment !== '' && segment !== '.') segments.push(segment);
  }
  return segments;
}

/** What to answer: a status, and the bytes: of more than one range only for 206. */
export interface Verdict {
  readonly status: 200 | 206 | 304 | 412 | 416;
  readonly ranges: readonly ByteRange[];
}

/** Weighs conditions and range in the order of RFC 9110, section 13.2.2. */
export function judge(method: string, headers: IncomingHttpHeaders, file: ServedFile): Verdict {
  const all = [{ from: 0, end: file.size }];
  const isSafe = method === 'GET' || method === 'HEAD';
  const match = headers['if-match'];
  const unmodifiedSince = seconds(headers['if-unmodified-since']);
  const modified = Math.floor(file.modified / 1000);
  if (match !== undefined) {
    if (!lists(match, file.tag, false)) return { status: 412, ranges: all };
  } else if (unmodifiedSince !== null && modified > unmodifiedSince) {
    return { status: 412, ranges: all };
  }
  const noneMatch = headers['if-none-match'];
  const modifiedSince = seconds(headers['if-modified-since']);
  if (noneMatch !== undefined) {
    if (lists(noneMatch, file.tag, true)) return { status: isSafe ? 304 : 412, ranges: all };
  } else if (modifiedSince !== null && modified <= modifiedSince) {
    return { status: 304, ranges: all };
  }
  if (headers.range === undefined || method !== 'GET' || !rangeHolds(headers['if-range'], file)) {
    return { status: 200, ranges: all };
  }
  const ranges = rangesOf(headers.range, file.size);
  if (ranges === 'ignore') return { status: 200, ranges: all };
  return ranges === null ? { status: 416, ranges: all } : { status: 206, ranges };
}

function rangeHolds(ifRange: string | string[] | undefined, file: ServedFile): boolean {
  if (ifRange === undefined) return true;
  const text = String(ifRange);
  if (text.startsWith('"')) return text === file.tag;
  return seconds(text) === Math.floor(file.modified / 1000);
}

function lists(header: string, tag: string, weakly: boolean): boolean {
  if (header.trim() === '*') return true;
  return header.split(',').some((part) => {
    const one = part.trim();
    return one === tag || (weakly && one === `W/${tag}`);
  });
}

function seconds(date: string | undefined): number | null {
  if (date === undefined) return null;
  const ms = Date.parse(date);
  return Number.isNaN(ms) ? null : Math.floor(ms / 1000);
}

const TYPES: Readonly<Record<string, string>> = {
  avif: 'image/avif',
  css: 'text/css; charset=utf-8',
  csv: 'text/csv; charset=utf-8',
  gif: 'image/gif',
  htm: 'text/html; charset=utf-8',
  html: 'text/html; charset=utf-8',
  ico: 'image/x-icon',
  jpeg: 'image/jpeg',
  jpg: 'image/jpeg',
  js: 'text/javascript; charset=utf-8',
  json: 'application/json',
  m4a: 'audio/mp4',
  md: 'text/markdown; charset=utf-8',
  mjs: 'text/javascript; charset=utf-8',
  mov: 'video/quicktime',
  mp3: 'audio/mpeg',
  mp4: 'video/mp4',
  ogg: 'audio/ogg',
  pdf: 'application/pdf',
  png: 'image/png',
  svg: 'image/svg+xml',
  txt: 'text/plain; charset=utf-8',
  wasm: 'application/wasm',
  wav: 'audio/wav',
  webm: 'video/webm',
  webp: 'image/webp',
  woff2: 'font/woff2',
  xml: 'application/xml',
};

/** The media type of a file by its name. */
export function typeOf(path: string): string {
  const extension = /\.([^./]+)$/.exec(path)?.[1]?.toLowerCase() ?? '';
  return TYPES[extension] ?? 'application/octet-stream';
}
