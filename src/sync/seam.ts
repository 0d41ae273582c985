/**
 * The seam: one hook before every shared operation of a verify build.
 *
 * Schedulers, chaos tests and replays put a function here to see, delay or interleave what this thread does. A release
 * build contains neither the calls nor the hook's checks.
 */

/** Called before each operation with its name and the word address it is about to touch. */
export type SeamHook = (operation: string, address: number) => void;

let hook: SeamHook | undefined;

/** Installs the hook of this thread, or removes it; returns the one that was there. */
export function setSeam(next: SeamHook | undefined): SeamHook | undefined {
  const previous = hook;
  hook = next;
  return previous;
}

/** Runs the hook. Callers guard it with `if (VERIFY)`. */
export function seam(operation: string, address: number): void {
  if (hook !== undefined) hook(operation, address);
}
