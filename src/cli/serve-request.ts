/** What a request for a file asks for: its path, its conditions, its range. Nothing here touches files. */

import type { IncomingHttpHeaders } from 'node:http';
import type { ServedFile } from './serve-messages.ts';

/** The segments of a request's path, decoded; or the status that refuses it. */
export function pathOf(url: string): string[] | 400 | 403 {
  const raw = url.split(/[?#]/, 1)[0] as string;
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

/** Bytes `from` to `end - 1`. */
export interface ByteRange {
  readonly from: number;
  readonly end: number;
}

/** What to answer: a status, and the bytes for 200 and 206. */
export interface Verdict {
  readonly status: 200 | 206 | 304 | 412 | 416;
  readonly range: ByteRange;
}

/** Weighs conditions and range in the order of RFC 9110, section 13.2.2. */
export function judge(method: string, headers: IncomingHttpHeaders, file: ServedFile): Verdict {
  const all = { from: 0, end: file.size };
  const isSafe = method === 'GET' || method === 'HEAD';
  const match = headers['if-match'];
  const unmodifiedSince = seconds(headers['if-unmodified-since']);
  const modified = Math.floor(file.modified / 1000);
  if (match !== undefined) {
    if (!lists(match, file.tag, false)) return { status: 412, range: all };
  } else if (unmodifiedSince !== null && modified > unmodifiedSince) {
    return { status: 412, range: all };
  }
  const noneMatch = headers['if-none-match'];
  const modifiedSince = seconds(headers['if-modified-since']);
  if (noneMatch !== undefined) {
    if (lists(noneMatch, file.tag, true)) return { status: isSafe ? 304 : 412, range: all };
  } else if (modifiedSince !== null && modified <= modifiedSince) {
    return { status: 304, range: all };
  }
  if (headers.range === undefined || method !== 'GET' || !rangeHolds(headers['if-range'], file)) {
    return { status: 200, range: all };
  }
  const range = rangeOf(headers.range, file.size);
  if (range === 'ignore') return { status: 200, range: all };
  if (range === null) return { status: 416, range: all };
  return { status: 206, range };
}

/** One range of a `Range` header; null when no byte of it exists, `'ignore'` for what is not one range of bytes. */
export function rangeOf(header: string, size: number): ByteRange | null | 'ignore' {
  const parts = /^bytes=\s*(\d*)-(\d*)\s*$/.exec(header);
  if (parts === null || (parts[1] === '' && parts[2] === '')) return 'ignore';
  if (parts[1] === '') {
    const count = Number(parts[2]);
    return count === 0 || size === 0 ? null : { from: Math.max(0, size - count), end: size };
  }
  const from = Number(parts[1]);
  const last = parts[2] === '' ? size - 1 : Number(parts[2]);
  if (parts[2] !== '' && last < from) return 'ignore';
  if (from >= size) return null;
  return { from, end: Math.min(size, last + 1) };
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
