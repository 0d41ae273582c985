/** What `check()` of a structure says: how much it looked at and what it found broken. */
export interface CheckReport {
  /** Room and structure, for example `vmem/arena heap`. */
  readonly structure: string;
  /** Items looked at: tags, frames, vnodes. */
  readonly checked: number;
  /** Broken invariants, each with its id and the values; empty when the structure is sound. */
  readonly problems: readonly string[];
}
