/**
 * Banks: the memory itself.
 *
 * PROBLEM     Frames must be reachable from every thread, from WebAssembly, and by byte offset without a copy.
 * STRUCTURE   Each bank is a shared `WebAssembly.Memory` of fixed length, cut into frames:
 *
 *               bank 0  |frame 0|frame 1| ... |frame bankFrames-1|
 *               bank 1  |frame bankFrames| ...
 *
 *             A physical byte address is frame * pageSize + offset; bank and offset in the bank follow from it.
 * INVARIANTS  I1 all banks have `bankFrames` frames but the last, which may have fewer.  I2 banks never grow.
 * LOCKING     None: views and constants. Who may touch a frame's bytes is the business of the rooms above.
 * COSTS       Memory that was never touched costs nothing. A view made by `view` costs 16-33 ns.
 * FAILURE     `ENOMEM` when the address space for a bank cannot be had; `EFAULT` for a range outside or across banks.
 * REJECTED    Plain shared buffers: they cannot become the memory of a WebAssembly module later.
 * REFERENCES  docs/glossary.md: bank, frame.
 */

import { fail, VmError } from '../base/errors.ts';
import { type BankCopy, bankCopy } from './bank-copy.ts';

/** Bytes of a page of WebAssembly: banks are made of these. */
export const WASM_PAGE_BYTES = 65536;

/** Largest bank. */
export const BANK_BYTES_MAX = 4 * 1024 ** 3;

/** Number of a frame, counted over all banks. */
export type FrameIndex = number & { readonly __unit?: 'frame' };

/** What may be done with the contents of whole frames. */
export interface FrameBytes {
  /** Copies the contents of one frame into another. */
  copyFrame(from: FrameIndex, to: FrameIndex): void;
  /** Fills a frame with zeros. */
  zeroFrame(frame: FrameIndex): void;
}

/** One thread's windows onto the banks. */
export class Banks implements FrameBytes {
  /** The memories, for WebAssembly modules that import a bank. */
  readonly memories: readonly WebAssembly.Memory[];
  /** All bytes of each bank. */
  readonly views: readonly Uint8Array[];
  /** Frames in every bank but the last. */
  readonly bankFrames: number;
  /** Bytes in a frame. */
  readonly pageSize: number;
  /** Frames in all banks. */
  readonly frameCount: number;
  /** Bytes of the first bank: often of the only one. */
  readonly #firstBytes: number;
  /** How to copy inside each bank, once it was needed. */
  readonly #copies: (BankCopy | undefined)[] = [];

  constructor(memories: readonly WebAssembly.Memory[], frameCount: number, bankFrames: number, pageSize: number) {
    this.memories = memories;
    this.views = memories.map((memory) => new Uint8Array(memory.buffer));
    this.bankFrames = bankFrames;
    this.pageSize = pageSize;
    this.frameCount = frameCount;
    this.#firstBytes = this.#bankBytes(0);
  }

  /** Makes the banks for a number of frames. Throws `ENOMEM`. */
  static create(frameCount: number, bankFrames: number, pageSize: number): Banks {
    const memories: WebAssembly.Memory[] = [];
    for (let first = 0; first < frameCount; first += bankFrames) {
      const sizeBytes = Math.min(bankFrames, frameCount - first) * pageSize;
      const wasmPages = Math.ceil(sizeBytes / WASM_PAGE_BYTES);
      try {
        memories.push(new WebAssembly.Memory({ initial: wasmPages, maximum: wasmPages, shared: true }));
      } catch (cause) {
        throw new VmError('ENOMEM', `boot: bank ${memories.length} of ${sizeBytes} bytes cannot be had`, { cause });
      }
    }
    return new Banks(memories, frameCount, bankFrames, pageSize);
  }

  /** The bank of a frame. */
  bankOf(frame: FrameIndex): number {
    return frame < this.bankFrames ? 0 : Math.floor(frame / this.bankFrames);
  }

  /** Byte offset of a frame in its bank. */
  offsetOf(frame: FrameIndex): number {
    return (frame < this.bankFrames ? frame : frame % this.bankFrames) * this.pageSize;
  }

  /** The bank of a physical byte address. */
  bankOfAddress(address: number): number {
    return Math.floor(address / (this.bankFrames * this.pageSize));
  }

  /** Byte offset of a physical address in its bank. */
  offsetOfAddress(address: number): number {
    return address - this.bankOfAddress(address) * this.bankFrames * this.pageSize;
  }

  /** A view of a range of physical memory. Throws `EFAULT` when it lies outside or crosses from one bank to the next. */
  view(address: number, length: number): Uint8Array {
    const bank = this.bankOfRange(address, length);
    const offset = this.offsetOfAddress(address);
    return (this.views[bank] as Uint8Array).subarray(offset, offset + length);
  }

  /** The bank of a range of physical memory. Throws `EFAULT` when it lies outside or crosses from one bank to the next. */
  bankOfRange(address: number, length: number): number {
    if (address >= 0 && length >= 0 && address + length <= this.#firstBytes) return 0;
    const bank = this.bankOfAddress(address);
    const inBank = address - bank * this.bankFrames * this.pageSize;
    if (!(address >= 0 && length >= 0 && bank < this.views.length && inBank + length <= this.#bankBytes(bank))) {
      fail('EFAULT', 'banks.view', { address, length }, 'the range must lie inside one bank');
    }
    return bank;
  }

  /** Copies bytes from one place in a bank to another. Both ranges must lie in the bank: it is not checked here. */
  copyInBank(bank: number, to: number, from: number, length: number): void {
    const copy = this.#copies[bank];
    if (copy !== undefined) copy(to, from, length);
    else this.#firstCopy(bank)(to, from, length);
  }

  /** Copies the contents of one frame into another. */
  copyFrame(from: FrameIndex, to: FrameIndex): void {
    const { pageSize } = this;
    const bank = this.bankOf(to);
    if (this.bankOf(from) === bank) {
      this.copyInBank(bank, this.offsetOf(to), this.offsetOf(from), pageSize);
      return;
    }
    const source = this.views[this.bankOf(from)] as Uint8Array;
    const start = this.offsetOf(from);
    (this.views[bank] as Uint8Array).set(source.subarray(start, start + pageSize), this.offsetOf(to));
  }

  /** Fills a frame with zeros. */
  zeroFrame(frame: FrameIndex): void {
    const start = this.offsetOf(frame);
    (this.views[this.bankOf(frame)] as Uint8Array).fill(0, start, start + this.pageSize);
  }

  #firstCopy(bank: number): BankCopy {
    const copy = bankCopy(this.memories[bank] as WebAssembly.Memory, this.views[bank] as Uint8Array);
    this.#copies[bank] = copy;
    return copy;
  }

  #bankBytes(bank: number): number {
    return Math.min(this.bankFrames, this.frameCount - bank * this.bankFrames) * this.pageSize;
  }
}
