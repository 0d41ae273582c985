/** What the main thread and the writers of `run --write` say to each other. */

/** A file and its scratch copy. */
export interface ScratchFile {
  /** Position in the list. */
  readonly file: number;
  readonly source: string;
  readonly path: string;
  readonly size: number;
}

/** What a writer is started with. */
export interface WriterData {
  readonly files: readonly ScratchFile[];
  readonly number: number;
  readonly workers: number;
  readonly seed: number;
  readonly milliseconds: number;
}

/** What a writer did. */
export interface WriterReport {
  readonly writes: number;
  readonly bytes: number;
  readonly problems: readonly string[];
}
