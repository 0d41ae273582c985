/** Errors that the command shows in one line, and the codes it ends with. */

/** Exit codes of the command. */
export const EXIT = {
  /** All is well. */
  ok: 0,
  /** Something that was looked at is wrong: a mismatch, a failed check, an error on the way. */
  failed: 1,
  /** The command could not start: wrong arguments, a missing file, an unknown kind of trace. */
  usage: 2,
  /** Stopped by Ctrl-C. */
  interrupted: 130,
  /** Stopped by a request to end. */
  terminated: 143,
} as const;

/** A mistake of whoever typed the command: shown as one line, without a stack. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** The first line of whatever was thrown. */
export function firstLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.split('\n', 1)[0] as string;
}
