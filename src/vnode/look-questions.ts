/** How the remote I/O worker is asked for size and version, and how it answers. */

import { IO_OPERATION, IO_ROLE, type IoQuestion, sizeWords } from './io-requests.ts';
import type { VnodeLook } from './vnode-store.ts';

/**
 * The question for size and version of what an address, or the name of a user's own vnode, stands for. The answer must come
 * within `timeoutMs`, 0 for no limit.
 */
export function lookQuestion(text: string, timeoutMs: number): IoQuestion {
  return { role: IO_ROLE.remote, operation: IO_OPERATION.look, vnode: -1, first: 0, count: timeoutMs, text };
}

/** What the answer to `lookQuestion` says. */
export function lookOfAnswer(answer: Int32Array): VnodeLook {
  return { size: (answer[0] as number) * 2 ** 30 + (answer[1] as number), stamp: answer.slice(2, 6) };
}

/** Writes what the remote worker found into the lanes of its answer: see `lookOfAnswer`. */
export function putLook({ size, stamp }: VnodeLook, put: (lane: number, word: number) => void): void {
  const { first, count } = sizeWords(size);
  put(0, first);
  put(1, count);
  for (const [lane, word] of stamp.entries()) put(2 + lane, word);
}
