/**
 * The file descriptors of one thread.
 *
 * A descriptor never enters shared memory: it ends with the thread that opened it, and its number is given out again.
 * Every thread opens its own for the vnodes that it brings pages of, and keeps the most recently used ones.
 */

import { closeSync } from 'node:fs';
import type { VnodeIndex } from '../page/page-hash.ts';

/** Descriptors that a thread keeps. */
export const DESCRIPTORS_MAX = 256;

/** Descriptors by vnode, least recently used first. */
export class Descriptors {
  readonly #open = new Map<VnodeIndex, number>();
  readonly #max: number;
  /** The one used last, which is where it belongs already. */
  #lastVnode: VnodeIndex = -1;
  #lastDescriptor = -1;

  constructor(max: number = DESCRIPTORS_MAX) {
    this.#max = max;
  }

  /** Descriptors that are open. */
  get count(): number {
    return this.#open.size;
  }

  /** The descriptor of a vnode, or -1. */
  get(vnode: VnodeIndex): number {
    if (vnode === this.#lastVnode) return this.#lastDescriptor;
    const descriptor = this.#open.get(vnode);
    if (descriptor === undefined) return -1;
    this.#open.delete(vnode);
    this.#open.set(vnode, descriptor);
    this.#lastVnode = vnode;
    this.#lastDescriptor = descriptor;
    return descriptor;
  }

  /** Keeps a descriptor; the one that it replaces, or the least recently used one, is closed. */
  keep(vnode: VnodeIndex, descriptor: number): void {
    this.close(vnode);
    this.#open.set(vnode, descriptor);
    this.#lastVnode = -1;
    if (this.#open.size > this.#max) this.shrink(this.#max);
  }

  /** Hands the descriptor of one vnode to another that has none. */
  move(from: VnodeIndex, to: VnodeIndex): void {
    const descriptor = this.#open.get(from);
    if (descriptor === undefined || this.#open.has(to)) return;
    this.#lastVnode = -1;
    this.#open.delete(from);
    this.#open.set(to, descriptor);
  }

  /** Closes the descriptor of a vnode, if there is one. */
  close(vnode: VnodeIndex): void {
    const descriptor = this.#open.get(vnode);
    if (descriptor === undefined) return;
    this.#open.delete(vnode);
    this.#lastVnode = -1;
    closeSync(descriptor);
  }

  /** Closes the least recently used descriptors until at most `count` are open. */
  shrink(count: number): void {
    for (const vnode of this.#open.keys()) {
      if (this.#open.size <= count) return;
      this.close(vnode);
    }
  }
}
