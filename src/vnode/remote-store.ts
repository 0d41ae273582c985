/**
 * The store of resources behind HTTP: what the remote I/O worker brings, and what it says when it looks at a resource again.
 */

import type { BoundTables } from '../layout/region.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import type { Thread } from '../sync/thread.ts';
import { AsyncStore } from './async-store.ts';
import { IO_OPERATION, IO_ROLE, type IoQuestion, type IoRequests, sizeWords } from './io-requests.ts';
import { PathHeap } from './path-heap.ts';
import { hashWords } from './remote-client.ts';
import type { VnodeLook } from './vnode-store.ts';

/** The question for size and version of what an address, or the name of a user's own vnode, stands for. */
export function lookQuestion(url: string): IoQuestion {
  return { role: IO_ROLE.remote, operation: IO_OPERATION.look, vnode: -1, first: 0, count: 0, text: url };
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

/** The store of vnodes that the remote worker knows by their names. */
export class RemoteStore extends AsyncStore {
  readonly #asks: IoRequests;
  readonly #paths: PathHeap;
  readonly #vnode: BoundTables['vnode'];

  constructor(thread: Thread, requests: IoRequests, writable: boolean) {
    super(requests, writable);
    this.#asks = requests;
    this.#paths = new PathHeap(thread);
    this.#vnode = thread.region.tables.vnode;
  }

  /** Size and version now. Throws `EIO`, `ENOENT`, `EACCES`. */
  look(vnode: VnodeIndex): VnodeLook | null {
    return lookOfAnswer(this.#asks.ask(lookQuestion(this.lookName(vnode))));
  }

  /** Stands for the server: resources of one do not keep those of others waiting. */
  farSource(vnode: VnodeIndex): number {
    return hashWords(new URL(this.lookName(vnode)).origin)[0] as number;
  }

  lookName(vnode: VnodeIndex): string {
    return this.#paths.read(this.#vnode.path.get(vnode) - 1, this.#vnode.pathLength.get(vnode));
  }
}
