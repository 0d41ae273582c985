/** System calls straight into and out of frames. */

import { readSync, readvSync, writeSync, writevSync } from 'node:fs';
import type { Banks } from '../phys/banks.ts';

/** The first `length` bytes of the frames in lanes from `at` on, as few views: adjacent frames of one bank are one. */
export function framePieces(banks: Banks, frames: Int32Array, at: number, length: number): Uint8Array[] {
  const { pageSize } = banks;
  const pieces: Uint8Array[] = [];
  for (let done = 0, lane = at; done < length; ) {
    const first = frames[lane] as number;
    const bank = banks.bankOf(first);
    let pages = 1;
    while (done + pages * pageSize < length && frames[lane + pages] === first + pages) {
      if (banks.bankOf(first + pages) !== bank) break;
      pages++;
    }
    const bytes = Math.min(pages * pageSize, length - done);
    const offset = banks.offsetOf(first);
    pieces.push((banks.views[bank] as Uint8Array).subarray(offset, offset + bytes));
    done += bytes;
    lane += pages;
  }
  return pieces;
}

/** One system call that reads into an array; returns the bytes that came, 0 also for an error. */
export function readOnce(descriptor: number, target: Uint8Array, at: number, length: number, position: number): number {
  try {
    return readSync(descriptor, target, at, length, position);
  } catch {
    return 0;
  }
}

/** True when frames lie side by side in one bank. */
export function areAdjacent(banks: Banks, frames: Int32Array, at: number, count: number): boolean {
  const first = frames[at] as number;
  for (let lane = 1; lane < count; lane++) if (frames[at + lane] !== first + lane) return false;
  return banks.bankOf(first) === banks.bankOf(first + count - 1);
}

/** One system call that reads into pieces; returns the bytes that came. */
export function readPieces(descriptor: number, pieces: Uint8Array[], position: number): number {
  if (pieces.length !== 1) return readvSync(descriptor, pieces, position);
  const piece = pieces[0] as Uint8Array;
  return readSync(descriptor, piece, 0, piece.length, position);
}

/** One system call that writes pieces; returns the bytes that were taken. */
export function writePieces(descriptor: number, pieces: Uint8Array[], position: number): number {
  if (pieces.length !== 1) return writevSync(descriptor, pieces, position);
  const piece = pieces[0] as Uint8Array;
  return writeSync(descriptor, piece, 0, piece.length, position);
}

/** What is left of pieces behind their first `done` bytes. */
export function piecesBehind(pieces: readonly Uint8Array[], done: number): Uint8Array[] {
  let skip = done;
  const left: Uint8Array[] = [];
  for (const piece of pieces) {
    if (skip < piece.length) left.push(piece.subarray(skip));
    skip = Math.max(0, skip - piece.length);
  }
  return left;
}

/** Fills frames with zeros from byte `from` of the first of them on. */
export function zeroFrames(banks: Banks, frames: Int32Array, at: number, count: number, from: number): void {
  const { pageSize } = banks;
  for (let page = Math.floor(from / pageSize); page < count; page++) {
    const frame = frames[at + page] as number;
    const offset = banks.offsetOf(frame);
    const inPage = Math.max(0, from - page * pageSize);
    (banks.views[banks.bankOf(frame)] as Uint8Array).fill(0, offset + inPage, offset + pageSize);
  }
}

/** Copies bytes into frames, zeros behind them. */
export function copyToFrames(banks: Banks, bytes: Uint8Array, frames: Int32Array, at: number, count: number): void {
  let done = 0;
  for (const piece of framePieces(banks, frames, at, bytes.length)) {
    piece.set(bytes.subarray(done, done + piece.length));
    done += piece.length;
  }
  zeroFrames(banks, frames, at, count, bytes.length);
}

/** The first `length` bytes of frames, in private memory. */
export function copyFromFrames(banks: Banks, frames: Int32Array, at: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let done = 0;
  for (const piece of framePieces(banks, frames, at, length)) {
    bytes.set(piece, done);
    done += piece.length;
  }
  return bytes;
}
