/** What page lists need from whoever frees frames: declared here, implemented by the pagedaemon and by tests. */

/** Frees frames for those who wait. Runs with no lock of `phys/` held but the marking lock. */
export interface PageListPressure {
  /** True while there is something that could be freed. */
  reclaimable(): boolean;
  /** Frees some frames, or waits until somebody has. */
  reclaim(): void;
  /** Says that frames are getting scarce; does not wait. */
  kick(): void;
}
