/**
 * Swap files: slots of a page each, for pages that have no file of their own.
 *
 * PROBLEM     Anonymous pages must be able to leave memory, to whichever slot is free, and come back byte for byte.
 * STRUCTURE   slots of the file  <-  an arena of the same name whose addresses are slots: base 0, a unit for each page
 *
 * INVARIANTS  I1 a slot that is taken is the taker's alone until it is freed.
 * LOCKING     The arena's. Descriptors are private to the thread.
 * COSTS       A pair of the arena; one system call for a run of slots and frames that lie side by side.
 * FAILURE     `ENOSPC` when no slot is free, `EIO` with the cause; a slot that was never written reads as zeros.
 * REJECTED    A map of bits for slots: arenas find runs, tell owners, and survive deaths already.
 * REFERENCES  SunOS swapfs; the arenas' paper names swap as their first use (Bonwick and Adams 2001, section 4).
 */

import { closeSync, constants, fsyncSync, ftruncateSync, openSync } from 'node:fs';
import { fail, VmError } from '../base/errors.ts';
import type { Banks, FrameIndex } from '../phys/banks.ts';
import type { Arena } from '../vmem/arena.ts';
import { systemError } from './file-facts.ts';
import { framePieces, piecesBehind, readPieces, writePieces, zeroFrames } from './frame-io.ts';

/** Number of a slot. */
export type SwapSlot = number & { readonly __unit?: 'swap slot' };

/** A swap file as one thread uses it. */
export class SwapFile {
  /** Slots in the file. */
  readonly slots: number;
  readonly #banks: Banks;
  readonly #arena: Arena;
  readonly #path: string;
  readonly #one = new Int32Array(1);
  #descriptor = -1;

  /** @param arena addresses are slots: quantum 1, and a span from 0 to `slots`. */
  constructor(banks: Banks, arena: Arena, path: string, slots: number) {
    this.#banks = banks;
    this.#arena = arena;
    this.#path = path;
    this.slots = slots;
  }

  /** Makes the file at its full size, without any content, readable by its owner alone. Throws `EIO` and others. */
  static make(path: string, sizeBytes: number): void {
    let descriptor = -1;
    try {
      descriptor = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC, 0o600);
      ftruncateSync(descriptor, sizeBytes);
    } catch (cause) {
      throw systemError(cause, 'swap.make', { path, sizeBytes });
    } finally {
      if (descriptor >= 0) closeSync(descriptor);
    }
  }

  /** Takes `count` slots that lie side by side; throws `ENOSPC`. */
  take(count = 1): SwapSlot {
    const slot = this.#arena.tryAlloc(count);
    return slot >= 0
      ? slot
      : fail('ENOSPC', 'swap.take', { path: this.#path, count }, 'no slots of the swap file are free');
  }

  /** Frees slots. */
  free(slot: SwapSlot, count = 1): void {
    this.#arena.free(slot, count);
  }

  /** Reads a slot into a frame. */
  read(slot: SwapSlot, frame: FrameIndex): void {
    this.#one[0] = frame;
    this.readSeveral(slot, this.#one, 0, 1);
  }

  /** Writes a frame into a slot. */
  write(slot: SwapSlot, frame: FrameIndex): void {
    this.#one[0] = frame;
    this.writeSeveral(slot, this.#one, 0, 1);
  }

  /** Reads slots from `slot` on into the frames in lanes `at` to `at + count - 1`. */
  readSeveral(slot: SwapSlot, frames: Int32Array, at: number, count: number): void {
    const wanted = this.#range('swap.read', slot, count);
    const done = this.#transfer('swap.read', framePieces(this.#banks, frames, at, wanted), slot, readPieces);
    if (done < wanted) zeroFrames(this.#banks, frames, at, count, done);
  }

  /** Writes frames in lanes `at` to `at + count - 1` into slots from `slot` on. */
  writeSeveral(slot: SwapSlot, frames: Int32Array, at: number, count: number): void {
    const wanted = this.#range('swap.write', slot, count);
    const done = this.#transfer('swap.write', framePieces(this.#banks, frames, at, wanted), slot, writePieces);
    if (done < wanted) throw new VmError('ENOSPC', `swap.write(${this.#path}, slot=${slot}): nothing more was written`);
  }

  /** Makes durable what was written: only a program that keeps the slots across its runs needs it. */
  sync(): void {
    fsyncSync(this.#open());
  }

  /** Closes this thread's descriptor; the next call opens another. */
  close(): void {
    if (this.#descriptor >= 0) closeSync(this.#descriptor);
    this.#descriptor = -1;
  }

  #range(call: string, slot: SwapSlot, count: number): number {
    if (!(slot >= 0 && count > 0 && slot + count <= this.slots)) {
      fail('EFAULT', call, { slot, count, slots: this.slots }, 'the slots must lie inside the swap file');
    }
    return count * this.#banks.pageSize;
  }

  /** Calls until all is done, or a call does nothing. */
  #transfer(
    call: string,
    pieces: Uint8Array[],
    slot: SwapSlot,
    move: (descriptor: number, pieces: Uint8Array[], position: number) => number,
  ): number {
    const start = slot * this.#banks.pageSize;
    let done = 0;
    try {
      for (let rest = pieces; rest.length > 0; rest = piecesBehind(pieces, done)) {
        const moved = move(this.#open(), rest, start + done);
        if (moved === 0) break;
        done += moved;
      }
    } catch (cause) {
      throw systemError(cause, call, { path: this.#path, slot });
    }
    return done;
  }

  #open(): number {
    if (this.#descriptor < 0) this.#descriptor = openSync(this.#path, constants.O_RDWR);
    return this.#descriptor;
  }
}
