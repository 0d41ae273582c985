/**
 * What transformed code calls: the run-time half of the exploration.
 *
 * PROBLEM     A thread must be stopped in front of each shared operation, rebuilt from what it observed, and recognised
 *             when it comes to the same local state by another path.
 * STRUCTURE   A run holds a log of everything that the thread observed (results of operations, plain reads of the
 *             region) and a stack of hashes, one per live generator frame:
 *
 *               frame hash = function, observations since entry, return values of the calls it made
 *
 *             A deterministic function's local state depends on its arguments and observations only, and its arguments
 *             on the caller's state, so the stack of hashes identifies the state. A loop head replaces the history of its
 *             frame by the values of the variables in scope: iterations that change nothing come to the same state.
 * INVARIANTS  I1 a rebuilt run yields the same operations: the explorer compares.
 * LOCKING     None: one run at a time.
 * COSTS       About 100 ns an operation and frame.
 * FAILURE     A run that does not follow its log throws.
 * REJECTED    Snapshots of generators: the language has none.
 * REFERENCES  Godefroid, VeriSoft; loom and shuttle for Rust; stateless search with state hashing.
 */

/** Kinds of operations that a thread stops at. */
export const OP = {
  load: 1,
  store: 2,
  add: 3,
  or: 4,
  and: 5,
  exchange: 6,
  compareExchange: 7,
  wait: 8,
  notify: 9,
  waitAsync: 10,
  /** The suspended half of an asynchronous wait. */
  await: 11,
  /** A plain store: a point where the thread may die, but no other runs. */
  write: 12,
} as const;

/** One operation that a thread is about to perform. */
export interface Op {
  readonly kind: number;
  readonly view: Int32Array | Float64Array;
  readonly address: number;
  readonly a: number;
  readonly b: number;
}

/** Results of waits as the log stores them. */
export const WAIT_CODE = { ok: 0, 'not-equal': 1, 'timed-out': 2, pending: 3 } as const;

const WAIT_RESULT = ['ok', 'not-equal', 'timed-out'] as const;
const PENDING = { pending: true } as const;
const FRAMES_MAX = 24;
const NO_WORDS = new Int32Array(1);

const doubles = new Float64Array(1);
const halves = new Int32Array(doubles.buffer);

/** Mixes a 32-bit value into a hash. */
export function mixInt(hash: number, value: number): number {
  const mixed = Math.imul(hash ^ value, 0x9e3779b1);
  return mixed ^ (mixed >>> 15);
}

function mixValue(hash: number, value: unknown): number {
  if (typeof value === 'number') {
    if ((value | 0) === value) return mixInt(hash, value);
    doubles[0] = value;
    return mixInt(mixInt(hash, halves[0] as number), halves[1] as number);
  }
  if (typeof value === 'boolean') return mixInt(hash, value ? 0x5bd1 : 0x7f4a);
  if (typeof value !== 'string') return mixInt(hash, value === undefined ? 0x1234567 : 0x7654321);
  let mixed = hash;
  for (let i = 0; i < value.length; i++) mixed = mixInt(mixed, value.charCodeAt(i));
  return mixed;
}

/** One execution of a thread's program. */
export class Run {
  readonly log: unknown[];
  /** Entries of the log that were consumed; reads are taken from the log below its length. */
  position = 0;
  depth = 0;
  readonly low = new Int32Array(FRAMES_MAX);
  readonly high = new Int32Array(FRAMES_MAX);
  /** Hash of the frame that was left last: stands for the object that it returned. */
  leftLow = 0;
  leftHigh = 0;
  /** Hash of the whole log. */
  historyLow = 1;
  historyHigh = 2;
  readonly identities = new Map<object, number>();

  constructor(log: unknown[]) {
    this.log = log;
  }

  /** Takes a value from the log, or appends one. */
  observe(value: unknown): unknown {
    let seen = value;
    if (this.position < this.log.length) seen = this.log[this.position];
    else this.log.push(value);
    this.position++;
    this.historyLow = mixValue(this.historyLow, seen);
    this.historyHigh = mixValue(this.historyHigh ^ 0x3c6ef372, seen);
    this.mix(seen);
    return seen;
  }

  /** Mixes an observation into the frame that makes it. */
  mix(value: unknown): void {
    const { depth } = this;
    this.low[depth] = mixValue(this.low[depth] as number, value);
    this.high[depth] = mixValue((this.high[depth] as number) ^ 0x3c6ef372, value);
  }

  /** Identity of an object: what the run had seen when it met the object first. */
  identity(value: object, history: number): number {
    let identity = this.identities.get(value);
    if (identity === undefined) {
      identity = mixInt(history, this.identities.size);
      this.identities.set(value, identity);
    }
    return identity;
  }
}

/** The run whose code is executing; null while worlds are built and checked. */
let current: Run | null = null;

/** The buffer whose reads are observations: the region's. */
let explored: ArrayBufferLike | null = null;

/** Says which buffer is shared between the threads. */
export function setExplored(buffer: ArrayBufferLike): void {
  explored = buffer;
}

/** Makes a run the executing one. */
export function setRun(run: Run | null): void {
  current = run;
}

/** Decodes a logged result for the program. */
export function decodeResult(kind: number, result: unknown): unknown {
  if (kind === OP.wait || kind === OP.waitAsync || kind === OP.await) {
    return result === WAIT_CODE.pending ? PENDING : WAIT_RESULT[result as number];
  }
  return result;
}

/** The functions that transformed code finds as `$`. */
export const hooks = {
  /** Entry of a generator function. */
  enter(id: number): number {
    if (current === null) return 0;
    const depth = ++current.depth;
    current.low[depth] = mixInt(id, 0x2545f491);
    current.high[depth] = mixInt(id, 0x6c62272e);
    return depth;
  },
  /** Exit of a generator function by an error: the caller may catch it. */
  fail(depth: number, error: unknown): void {
    if (current === null) return;
    current.depth = depth - 1;
    current.mix(error instanceof Error ? error.message : String(error));
    current.depth = depth;
  },
  /** Exit of a generator function. */
  leave(depth: number): void {
    if (current === null) return;
    current.leftLow = current.low[depth] as number;
    current.leftHigh = current.high[depth] as number;
    current.depth = depth - 1;
  },
  /** What a call came back with. */
  ret<Value>(value: Value): Value {
    if (current === null) return value;
    if (typeof value === 'object' && value !== null) {
      current.mix(current.leftLow);
      current.mix(current.leftHigh);
    } else {
      current.mix(value);
    }
    return value;
  },
  /** Head of a loop's body: the frame's history becomes the values in scope. */
  loop(id: number, values: readonly unknown[]): void {
    if (current === null) return;
    const { depth } = current;
    const before = current.low[depth] as number;
    current.low[depth] = mixInt(id, 0x1b873593);
    current.high[depth] = mixInt(id, 0x52dce729);
    for (let i = 0; i < values.length; i++) {
      const value = values[i];
      const isObject = (typeof value === 'object' && value !== null) || typeof value === 'function';
      current.mix(isObject ? current.identity(value, before) : value);
    }
  },
  /** A plain read of a view: an observation when the view lies in the region. */
  read(view: Int32Array | Float64Array, index: number): unknown {
    if (current === null || view.buffer !== explored) return view[index];
    return current.observe(view[index]);
  },
  /** An operation to stop at. */
  op(kind: number, view: Int32Array | Float64Array, address: number, a = 0, b = 0): Op {
    return { kind, view, address, a, b };
  },
  /** A run of plain stores in one step, as the built-in does it. */
  *copyWithin(view: Int32Array, target: number, start: number, end: number): Generator<Op, void> {
    const values: number[] = [];
    for (let index = start; index < end; index++) values.push(hooks.read(view, index) as number);
    for (let i = 0; i < values.length; i++) yield hooks.op(OP.write, view, target + i, values[i]);
  },
  /** A call of a function that may or may not be a generator. */
  *maybe(value: unknown): Generator<Op, unknown> {
    if (typeof value === 'object' && value !== null && Symbol.iterator in value && 'next' in value) {
      return yield* value as Generator<Op, unknown>;
    }
    return value;
  },
  /** `await` of something that is no call of a transformed function. */
  *await(value: unknown): Generator<Op, unknown> {
    if (value !== PENDING) return value;
    return yield hooks.op(OP.await, NO_WORDS, 0, 0, Number.POSITIVE_INFINITY);
  },
};
