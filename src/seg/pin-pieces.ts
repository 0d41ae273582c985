/** What a program has of a pin: pieces, views, and its release. */

import { failMisuse } from '../base/errors.ts';
import type { Banks, FrameIndex } from '../phys/index.ts';

/** Adjacent bytes of a pin. */
export interface PinPiece {
  /** Where the piece begins in the space. */
  readonly address: number;
  readonly bank: number;
  /** Byte offset in the bank. */
  readonly offset: number;
  readonly length: number;
}

/** A range that stays where it is until `release`. Belongs to the thread that made it. */
export class SpacePin {
  /** The range in pieces, in order: as few as the frames allow. */
  readonly pieces: readonly PinPiece[];
  private readonly banks: Banks;
  private giveBack: (() => void) | null;

  constructor(banks: Banks, pieces: readonly PinPiece[], giveBack: () => void) {
    this.banks = banks;
    this.pieces = pieces;
    this.giveBack = giveBack;
  }

  /** A view of each piece. Made at each call; not to be used after the release. */
  get views(): Uint8Array[] {
    if (this.giveBack === null) failMisuse('pin.views', {}, 'the pin was released');
    return this.pieces.map(({ bank, offset, length }) =>
      (this.banks.views[bank] as Uint8Array).subarray(offset, offset + length),
    );
  }

  /** Lets the range go. Throws `EINVAL` when it was released already. */
  release(): void {
    const { giveBack } = this;
    if (giveBack === null) failMisuse('pin.release', {}, 'the pin was released');
    this.giveBack = null;
    giveBack();
  }

  /** Releases the pin if it was not. */
  [Symbol.dispose](): void {
    if (this.giveBack !== null) this.release();
  }
}

/** The bytes of a pin whose pages lie in these frames: adjacent frames of one bank are one piece. */
export function piecesOf(banks: Banks, frames: readonly FrameIndex[], address: number, length: number): PinPiece[] {
  const { pageSize } = banks;
  const pieces: PinPiece[] = [];
  let inPage = address % pageSize;
  let done = 0;
  for (let page = 0; page < frames.length; ) {
    const first = frames[page] as number;
    let count = 1;
    while (frames[page + count] === first + count && banks.bankOf(first + count) === banks.bankOf(first)) count++;
    const bytes = Math.min(count * pageSize - inPage, length - done);
    const offset = banks.offsetOf(first) + inPage;
    pieces.push({ address: address + done, bank: banks.bankOf(first), offset, length: bytes });
    done += bytes;
    inPage = 0;
    page += count;
  }
  return pieces;
}
