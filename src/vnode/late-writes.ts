/**
 * Writes that were given up when their time was over, and that their store has not answered: while a vnode has some, nobody who
 * is short of frames, or has modified too much, waits for it.
 */

import type { Region } from '../layout/region.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import { add, compareExchange, load, store } from '../sync/atomics.ts';

/** Counts a write as late until it is answered: for the remote I/O worker. */
export function noteLate({ tables, words }: Region, vnode: VnodeIndex, answer: Promise<void>): void {
  const generation = tables.vnode.generation.get(vnode);
  const address = tables.vnode.lateWrites.address(vnode);
  add(words, address, 1);
  const settle = () => {
    for (;;) {
      const late = load(words, address);
      // The row may have another vnode by now, which began with none.
      if (late === 0 || tables.vnode.generation.get(vnode) !== generation) return;
      if (compareExchange(words, address, late, late - 1) === late) return;
    }
  };
  answer.then(settle, settle);
}

/** True while a vnode has such writes. */
export function hasLate({ tables, words }: Region, vnode: VnodeIndex): boolean {
  return load(words, tables.vnode.lateWrites.address(vnode)) !== 0;
}

/** Nobody will answer any more: the remote I/O worker has ended. */
export function forgetLate({ tables, words }: Region): void {
  for (let row = 0; row < tables.vnode.rowCount; row++) store(words, tables.vnode.lateWrites.address(row), 0);
}
