/** What the main thread and the workers of `run` say to each other: small descriptors, never file data. */

/** Name of the arena from which workers take their buffers. */
export const BUFFER_ARENA = 'buffers';

/** What a worker is told when it starts. */
export interface RunWorkerData {
  /** Largest piece that it will be asked to read. */
  readonly pieceBytes: number;
}

/** A piece of a file to read in both ways and compare. */
export interface Piece {
  /** Position of the file in the list. */
  readonly file: number;
  readonly path: string;
  /** Size and modification time when the file was listed. */
  readonly size: number;
  readonly modified: number;
  readonly offset: number;
  readonly length: number;
}

/** To a worker. */
export type Request =
  /** Read these, plain fs first for every other one, starting with the first or not. */
  | { readonly kind: 'read'; readonly pieces: readonly Piece[]; readonly fsFirst: boolean }
  /** Check every structure; the other workers are at rest. The last time they have ended, and this one closes its files. */
  | { readonly kind: 'check'; readonly last: boolean }
  /** Close everything, leave the system and end. */
  | { readonly kind: 'end' };

/** Why a piece could not be compared, or did not compare equal. */
export interface Trouble {
  readonly file: number;
  readonly offset: number;
  readonly length: number;
  /** `changed` and `unreadable` are facts about the file; the other two are failures of the run. */
  readonly kind: 'changed' | 'unreadable' | 'mismatch' | 'error';
  readonly text: string;
}

/** What a worker did with one request to read. */
export interface ReadReport {
  readonly kind: 'read';
  /** Bytes that matched. */
  readonly bytes: number;
  readonly pieces: number;
  /** Milliseconds spent opening files and reading through the page cache. */
  readonly cacheMs: number;
  /** Milliseconds spent in plain fs for the same bytes. */
  readonly fsMs: number;
  /** Milliseconds spent taking buffers from their arena and giving them back. */
  readonly bufferMs: number;
  readonly troubles: readonly Trouble[];
}

/** One structure's check, as a worker saw it. */
export interface CheckResult {
  readonly structure: string;
  readonly checked: number;
  readonly problems: readonly string[];
}

/** From a worker. */
export type Reply =
  | { readonly kind: 'ready' }
  | ReadReport
  /** The last message: how often this worker met another at a lock, and how often it slept. */
  | { readonly kind: 'left'; readonly contended: number; readonly slept: number }
  | { readonly kind: 'check'; readonly results: readonly CheckResult[] };
