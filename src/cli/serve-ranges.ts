/** Ranges of bytes as requests name them, and how an answer carries several. RFC 9110, section 14. */

/** Bytes `from` to `end - 1`. */
export interface ByteRange {
  readonly from: number;
  readonly end: number;
}

/** More ranges than this are no reader's need: the whole file is sent. */
const RANGES_MAX = 32;

/**
 * The ranges of a `Range` header, clipped, in the order given; null when none of them has a byte of the file, `'ignore'` for
 * what is not a set of byte ranges, or asks for more than the file holds.
 */
export function rangesOf(header: string, size: number): readonly ByteRange[] | null | 'ignore' {
  const list = /^bytes\s*=(.*)$/i.exec(header)?.[1];
  if (list === undefined) return 'ignore';
  const parts = list
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
  if (parts.length === 0 || parts.length > RANGES_MAX) return 'ignore';
  const ranges: ByteRange[] = [];
  for (const part of parts) {
    const range = rangeOf(part, size);
    if (range === 'ignore') return 'ignore';
    if (range !== null) ranges.push(range);
  }
  if (ranges.length === 0) return null;
  // Ranges that overlap so much that they are more than the file would only make work.
  return ranges.length > 1 && bytesOf(ranges) > size ? 'ignore' : ranges;
}

/** One range, `first-last`, `first-` or `-count`; null when no byte of it exists. */
function rangeOf(text: string, size: number): ByteRange | null | 'ignore' {
  const parts = /^(\d*)-(\d*)$/.exec(text);
  if (parts === null || text === '-') return 'ignore';
  if (parts[1] === '') {
    const count = Number(parts[2]);
    return count === 0 || size === 0 ? null : { from: Math.max(0, size - count), end: size };
  }
  const from = Number(parts[1]);
  const last = parts[2] === '' ? size - 1 : Number(parts[2]);
  if (parts[2] !== '' && last < from) return 'ignore';
  return from >= size ? null : { from, end: Math.min(size, last + 1) };
}

/** Bytes of ranges together. */
export function bytesOf(ranges: readonly ByteRange[]): number {
  return ranges.reduce((sum, { from, end }) => sum + end - from, 0);
}

/** A range, and the text that goes before it. */
export interface BodyPart {
  readonly prefix: string;
  readonly range: ByteRange;
}

/** What an answer with several ranges consists of. */
export interface Multipart {
  readonly type: string;
  readonly length: number;
  readonly parts: readonly BodyPart[];
  /** Behind the last part. */
  readonly suffix: string;
}

/** The parts of a `multipart/byteranges`; the boundary must not occur in the file. */
export function multipartOf(ranges: readonly ByteRange[], size: number, type: string, boundary: string): Multipart {
  const parts = ranges.map((range): BodyPart => {
    const lines = [`--${boundary}`, `Content-Type: ${type}`, `Content-Range: ${contentRange(range, size)}`];
    return { range, prefix: `\r\n${lines.join('\r\n')}\r\n\r\n` };
  });
  const suffix = `\r\n--${boundary}--\r\n`;
  // Media types are ASCII: characters are bytes.
  const length = parts.reduce((sum, { prefix }) => sum + prefix.length, bytesOf(ranges) + suffix.length);
  return { type: `multipart/byteranges; boundary=${boundary}`, length, parts, suffix };
}

/** The value of `Content-Range`. */
export function contentRange({ from, end }: ByteRange, size: number): string {
  return `bytes ${from}-${end - 1}/${size}`;
}
