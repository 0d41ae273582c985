/** What rows of the table of vnodes stand for, and what they are made from. */

import type { VnodeIndex } from '../page/page-hash.ts';
import type { FileFacts } from './file-facts.ts';

/** States of a row. */
export const VNODE_STATE = {
  free: 0,
  hashed: 1,
  /** The file was found changed: only those who have it open still see it. */
  stale: 2,
} as const;

/** Kinds of vnodes. Rooms above bring the stores of theirs with `vnodes.setStore`. */
export const VNODE_KIND = {
  none: 0,
  /** A regular file. */
  file: 1,
  /** Pages that have no store: they leave memory only when the vnode goes. */
  memory: 2,
  /** Slots of pages in a file. */
  swap: 3,
  /** Something behind HTTP. */
  remote: 4,
  /** A user's own: a module and an export. */
  user: 5,
  /** Anonymous memory of address spaces. */
  anon: 6,
  /** A name that stands for a common vnode, whose pages are its own; the first words of its stamp say which. */
  block: 7,
} as const;

/** How often a thread has a vnode open. */
export interface Opens {
  all: number;
  writers: number;
}

/** What a new row starts with. */
export interface VnodeFacts extends FileFacts {
  /** A value of `VNODE_KIND`. */
  readonly kind: number;
  /** What the kind keeps in the row. */
  readonly detail: number;
  /** A row of this identity is the same vnode, whatever its size and stamp are. */
  readonly joins: boolean;
  /** A page has 1 << pageShift frames; null: as the row has it, or one. */
  readonly pageShift: number | null;
  /** How long an asynchronous store may take; null or nothing: as the row has it, or for ever. */
  readonly timeoutMs?: number | null;
}

/** What is known about an open vnode. */
export interface VnodeStat {
  readonly vnode: VnodeIndex;
  readonly generation: number;
  readonly path: string;
  readonly size: number;
  /** Bytes of a page: all openers see the same. */
  readonly pageSize: number;
}
