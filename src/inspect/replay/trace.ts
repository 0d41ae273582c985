/**
 * Traces: recorded operations that can be run again.
 *
 * A trace is a text of JSON Lines, possibly compressed with gzip. The first line is the header; its `trace` field is the
 * kind, `version` the version of the kind's format. Every further line is one operation, or a state to compare with.
 */

import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';

/** A trace that cannot be replayed: not readable, not a trace, of an unknown kind or version. One line of text. */
export class TraceError extends Error {
  override readonly name = 'TraceError';
  /** Which file. */
  readonly file: string;

  constructor(file: string, reason: string, options?: ErrorOptions) {
    super(`${file}: ${reason}`, options);
    this.file = file;
  }
}

/** First line of every trace; kinds add fields. */
export interface TraceHeader {
  readonly trace: string;
  readonly version: number;
  readonly [field: string]: unknown;
}

/** A trace in memory. */
export interface Trace {
  readonly file: string;
  readonly header: TraceHeader;
  /** Calls back for every line behind the header, with its number in the file (the header is line 1). */
  forEach(callback: (value: unknown, line: number) => void): void;
}

/** Reads a trace. Throws `TraceError`. */
export function readTrace(file: string): Trace {
  const text = readText(file);
  const headerEnd = endOfLine(text, 0);
  const header = parseLine(file, text.slice(0, headerEnd), 1);
  if (typeof header !== 'object' || header === null || typeof (header as TraceHeader).trace !== 'string') {
    throw new TraceError(file, 'the first line is no trace header');
  }
  return {
    file,
    header: header as TraceHeader,
    forEach(callback) {
      let line = 1;
      for (let from = headerEnd + 1; from < text.length; ) {
        const end = endOfLine(text, from);
        line++;
        if (end > from) callback(parseLine(file, text.slice(from, end), line), line);
        from = end + 1;
      }
    },
  };
}

function readText(file: string): string {
  let data: Buffer;
  try {
    data = readFileSync(file);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? 'error';
    throw new TraceError(file, `cannot be read (${code})`, { cause });
  }
  if (data[0] !== 0x1f || data[1] !== 0x8b) return data.toString('utf8');
  try {
    return gunzipSync(data).toString('utf8');
  } catch (cause) {
    throw new TraceError(file, 'is no valid gzip file', { cause });
  }
}

function endOfLine(text: string, from: number): number {
  const end = text.indexOf('\n', from);
  return end < 0 ? text.length : end;
}

function parseLine(file: string, text: string, line: number): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new TraceError(file, `line ${line} is no JSON`, { cause });
  }
}
