/**
 * The store of resources behind HTTP: what the remote I/O worker brings, and what it says when it looks at a resource again.
 */

import type { BoundTables } from '../layout/region.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import type { Thread } from '../sync/thread.ts';
import { AsyncStore } from './async-store.ts';
import type { IoQuestion, IoRequests } from './io-requests.ts';
import { lookOfAnswer, lookQuestion } from './look-questions.ts';
import { PathHeap } from './path-heap.ts';
import { hashWords } from './remote-client.ts';
import type { VnodeLook } from './vnode-store.ts';

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

  /** Size and version now. Throws `EIO`, `ENOENT`, `EACCES`, `ETIMEDOUT`. */
  look(vnode: VnodeIndex): VnodeLook | null {
    return lookOfAnswer(this.#asks.ask(this.lookQuestion(vnode)));
  }

  /** Stands for the server: resources of one do not keep those of others waiting. */
  farSource(vnode: VnodeIndex): number {
    return hashWords(new URL(this.#name(vnode)).origin)[0] as number;
  }

  lookQuestion(vnode: VnodeIndex): IoQuestion {
    return lookQuestion(this.#name(vnode), this.#vnode.timeoutMs.get(vnode));
  }

  #name(vnode: VnodeIndex): string {
    return this.#paths.read(this.#vnode.path.get(vnode) - 1, this.#vnode.pathLength.get(vnode));
  }
}
