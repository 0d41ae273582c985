/**
 * Errors by kind.
 *
 * Misuse and exhaustion are a `VmError` with a code; a broken invariant is an `InvariantError`. Messages name the
 * function, the values that it was given, and the rule that they broke. The functions here are cold: hot code calls
 * them in the branch that is never taken, so that no message is built on the way.
 */

/** The codes of `VmError`: the classic names, each with one meaning throughout the system. */
export type VmErrorCode =
  /** No space, memory, tag or slot is left. */
  | 'ENOMEM'
  /** An argument breaks a rule of the function. */
  | 'EINVAL'
  /** The object is in use: it has allocations, mappings or pins. */
  | 'EBUSY'
  /** This slot already holds what it asks for. */
  | 'EDEADLK'
  /** The address or range is not mapped or lies outside. */
  | 'EFAULT'
  /** Reading or writing the backing store failed. */
  | 'EIO'
  /** The backing store has no room left, or its quota is used up. */
  | 'ENOSPC'
  /** The file system does not permit it. */
  | 'EACCES'
  /** The feature is off or not offered by this kind of object. */
  | 'ENOTSUP'
  /** The object no longer exists: destroyed, closed, detached. */
  | 'ESTALE'
  /** The named thing already exists. */
  | 'EEXIST'
  /** The named thing does not exist. */
  | 'ENOENT'
  /** A limit of the owner was reached. */
  | 'EDQUOT'
  /** The wait ran into its timeout. */
  | 'ETIMEDOUT'
  /** The wait was cancelled. */
  | 'ECANCELED'
  /** The thread that held the lock has died inside, and nobody has repaired what it left. */
  | 'EOWNERDEAD'
  /** Waiting is not allowed on this thread. */
  | 'EWOULDBLOCK'
  /** The region was poisoned by a broken invariant in some thread. */
  | 'EPOISONED';

/** Misuse or exhaustion: nothing was changed by the call that threw it. */
export class VmError extends Error {
  override readonly name = 'VmError';
  /** What went wrong, for programs. */
  readonly code: VmErrorCode;

  constructor(code: VmErrorCode, message: string, options?: ErrorOptions) {
    super(`${code}: ${message}`, options);
    this.code = code;
  }
}

/** A broken invariant: a fault of this library or of whoever wrote into its memory. The region is poisoned. */
export class InvariantError extends Error {
  override readonly name = 'InvariantError';
  /** The invariant as its file's header numbers it, for example `vmem/free-lists I2`. */
  readonly invariant: string;

  constructor(invariant: string, detail: string) {
    super(`invariant broken: ${invariant}: ${detail}`);
    this.invariant = invariant;
    this.announceBroken();
  }

  private announceBroken(): void {
    for (const listener of invariantListeners) listener(this);
  }
}

const invariantListeners = new Set<(error: InvariantError) => void>();

/**
 * Calls back for every invariant that this thread finds broken, before the error is thrown: the region it belongs to must
 * stop, whoever catches the error. Returns a function that ends it.
 */
export function onInvariantBroken(listener: (error: InvariantError) => void): () => void {
  invariantListeners.add(listener);
  return () => invariantListeners.delete(listener);
}

/** Characters of a value, and elements of a list, that a message shows. */
const SHOWN_CHARACTERS = 300;
const SHOWN_ELEMENTS = 40;

/** One value of an error message: strings quoted, objects by their fields, long lists by their length, the rest as it is. */
function show(value: unknown): string {
  if (typeof value === 'string') return shorten(JSON.stringify(value.slice(0, SHOWN_CHARACTERS + 1)));
  if (typeof value !== 'object' || value === null) return shorten(String(value));
  const length = ArrayBuffer.isView(value) ? value.byteLength : Array.isArray(value) ? value.length : 0;
  if (length > SHOWN_ELEMENTS)
    return `${value.constructor.name} of ${length} ${Array.isArray(value) ? 'elements' : 'bytes'}`;
  try {
    return shorten(JSON.stringify(value) ?? String(value));
  } catch {
    return shorten(String(value));
  }
}

function shorten(text: string): string {
  return text.length <= SHOWN_CHARACTERS ? text : `${text.slice(0, SHOWN_CHARACTERS)}...`;
}

/** `alloc(size=0, quantum=16)`: the call as an error message shows it. */
export function showCall(call: string, values: Readonly<Record<string, unknown>>): string {
  const parts = Object.entries(values).map(([name, value]) => `${name}=${show(value)}`);
  return `${call}(${parts.join(', ')})`;
}

/** Throws the error for an argument that breaks a rule: names the function, the values and the rule. */
export function failMisuse(call: string, values: Readonly<Record<string, unknown>>, rule: string): never {
  throw new VmError('EINVAL', `${showCall(call, values)}: ${rule}`);
}

/** Throws a `VmError` of any code in the same form as `failMisuse`. */
export function fail(code: VmErrorCode, call: string, values: Readonly<Record<string, unknown>>, rule: string): never {
  throw new VmError(code, `${showCall(call, values)}: ${rule}`);
}

/** Throws when `options` has a key that is not in `known`: a misspelt option must not be ignored in silence. */
export function rejectUnknownOptions(call: string, options: object, known: readonly string[]): void {
  if (Array.isArray(options)) failMisuse(call, { options }, 'options must be an object');
  for (const key of Object.keys(options)) {
    if (!known.includes(key)) {
      throw new VmError('EINVAL', `${call}: unknown option ${JSON.stringify(key)}; known options: ${known.join(', ')}`);
    }
  }
}

/** Throws unless `value` is an object, and no array, naming the call and the argument. */
export function requireObject(call: string, name: string, value: unknown): void {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    failMisuse(call, { [name]: value }, `${name} must be an object`);
}

/** Throws unless `value` is a function, naming the call and the argument. */
export function requireFunction(call: string, name: string, value: unknown): void {
  if (typeof value !== 'function') failMisuse(call, { [name]: value }, `${name} must be a function`);
}

/** Throws unless `value` is an integer from `min` to `max`, naming the call and the argument. */
export function requireInteger(call: string, name: string, value: unknown, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min || value > max) {
    failMisuse(call, { [name]: value }, `${name} must be an integer from ${min} to ${max}`);
  }
  return value;
}
