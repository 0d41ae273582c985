/** What the main thread and the workers of `serve` say to each other: places of bytes, never the bytes. */

/** To a worker. */
export type ServeRequest =
  /** Open a file, whose path has no links in it. */
  | { readonly kind: 'open'; readonly id: number; readonly path: string }
  /** Pin a range of an open file. */
  | { readonly kind: 'pin'; readonly id: number; readonly offset: number; readonly length: number }
  /** The range that was pinned last is sent. */
  | { readonly kind: 'unpin'; readonly id: number }
  /** The request is over. */
  | { readonly kind: 'close'; readonly id: number };

/** A version of a file: what its pages hold is what these facts say. */
export interface ServedFile {
  readonly size: number;
  /** Milliseconds. */
  readonly modified: number;
  /** A strong entity tag. */
  readonly tag: string;
}

/** From a worker. */
export type ServeReply =
  | { readonly kind: 'ready' }
  | { readonly kind: 'opened'; readonly id: number; readonly file: ServedFile }
  /** Bank, byte offset and bytes of each piece. */
  | { readonly kind: 'pinned'; readonly id: number; readonly pieces: Float64Array }
  | { readonly kind: 'failed'; readonly id: number; readonly code: string; readonly text: string };
