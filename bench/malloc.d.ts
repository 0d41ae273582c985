/** The package `malloc` has no declarations of its own: what the bench uses of it. */
declare module 'malloc' {
  /** An allocator over a buffer; 0 when there is no space. */
  class Allocator {
    constructor(buffer: ArrayBuffer);
    alloc(sizeBytes: number): number;
    free(address: number): number;
  }
  export = Allocator;
}
