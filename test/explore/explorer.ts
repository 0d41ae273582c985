/**
 * The scheduler: explores every interleaving of a scenario.
 *
 * PROBLEM     Show that a protocol holds under every schedule, with a death or a time-out at any step.
 * STRUCTURE   Depth-first search over states. A state is the shared memory, the queue of sleepers, and for each thread
 *             what it observed, the operation in front of it, and a hash of its local state. A step performs one thread's
 *             operation and runs that thread to its next one. States are told apart by
 *
 *               hash(memory, sleepers in order, threads' status and local state, who died, preemptions left)
 *
 *             Other steps: a sleeper with a time limit times out; a mortal thread dies, in front of an operation or
 *             of a plain store; the clock passes all deadlines. After a death the monitor's program starts.
 * INVARIANTS  I1 a sleeper is in the queue once.  I2 a rebuilt thread stands before the operation that was recorded.
 * LOCKING     None: one state at a time is in the memory of the scenario.
 * COSTS       About 100,000 steps a second; 16 bytes a visited state, the pending path beside.
 * FAILURE     A `Violation` with the schedule, which `replay` runs again.
 * REJECTED    Partial-order reduction: the state spaces are small enough, and the argument would need its own proof.
 * REFERENCES  Musuvathi and Qadeer, Iterative context bounding, 2007.
 */

import { decodeResult, mixInt, OP, type Op, Run, setExplored, setRun, WAIT_CODE } from './runtime.ts';
import type { Scenario } from './scenario.ts';

/** How far to look. */
export interface Bounds {
  /** Threads that may die; 0 none. */
  readonly deaths?: number;
  /** Switches away from a thread that could go on; no limit when left out. */
  readonly preemptions?: number;
  /** Let finite deadlines pass at any step. */
  readonly passTime?: boolean;
  /** Let others run in front of plain stores too: for protocols that do without atomic operations in places. */
  readonly plainStores?: boolean;
  /** Tell states apart by all that a thread ever observed: checks that merging by local state loses nothing. */
  readonly wholeHistories?: boolean;
  /** Stop as unfinished after so many states. */
  readonly statesMax?: number;
}

/** A schedule that breaks a property. */
export interface Violation {
  readonly message: string;
  /** Steps: `0` thread 0 goes on, `t0` its sleep times out, `k0` it dies, `c` the clock passes all deadlines. */
  readonly schedule: string;
}

/** What was explored. */
export interface Exploration {
  readonly states: number;
  readonly steps: number;
  /** Different final states. */
  readonly ends: number;
  readonly violation: Violation | null;
  readonly complete: boolean;
}

/** No result yet. */
const SLEEPS = Number.NaN;

const STATUS = { idle: 0, ready: 1, sleeping: 2, woken: 3, finished: 4, dead: 5 } as const;

type Program = Generator<Op, unknown, unknown>;

interface Live {
  readonly program: Program;
  readonly run: Run;
}

interface ThreadState {
  readonly status: number;
  readonly op: Op | null;
  readonly log: unknown[];
  readonly length: number;
  readonly low: number;
  readonly high: number;
  /** Result of the wait that ended, for a woken thread. */
  readonly result: number;
  /** The program itself, if nobody has taken it further. */
  live: Live | null;
}

interface Sleeper {
  readonly thread: number;
  readonly address: number;
}

interface State {
  readonly memory: Int32Array;
  readonly threads: readonly ThreadState[];
  readonly sleepers: readonly Sleeper[];
  readonly dead: number;
  readonly deathsLeft: number;
  readonly preemptionsLeft: number;
  readonly last: number;
  readonly timePassed: boolean;
  readonly path: Path | null;
}

interface Path {
  readonly step: string;
  readonly before: Path | null;
}

const IDLE: ThreadState = {
  status: STATUS.idle,
  op: null,
  log: [],
  length: 0,
  low: 0,
  high: 0,
  result: 0,
  live: null,
};

class Broken extends Error {}

/** Explores a scenario. `make` builds its world anew; it must do so in the same way each time. */
export class Explorer {
  readonly #scenario: Scenario;
  readonly #bounds: Bounds;
  readonly #initial: Int32Array;
  /** Changed by the operations that `#perform` carries out. */
  #sleepers: Sleeper[] = [];
  #threads: ThreadState[] = [];
  #dead = -1;
  readonly #digested: number[] = [];
  readonly #parts: number[] = [];
  /** Memories of states that were left behind. */
  readonly #spare: Int32Array[] = [];
  #deathsLeft = 0;
  #steps = 0;

  constructor(scenario: Scenario, bounds: Bounds = {}) {
    this.#scenario = scenario;
    this.#bounds = bounds;
    complete(scenario.setUp());
    this.#initial = scenario.words.slice();
    setExplored(scenario.words.buffer);
  }

  /** Explores everything within the bounds, or up to the first violation. */
  explore(): Exploration {
    const seen = new Set<number>();
    const pending: State[] = [];
    const statesMax = this.#bounds.statesMax ?? Number.POSITIVE_INFINITY;
    const ends = new Set<number>();
    let violation: Violation | null = null;
    let path: Path | null = null;
    try {
      pending.push(this.#keep(this.#start()));
      for (let state = pending.pop(); state !== undefined && seen.size < statesMax; state = pending.pop()) {
        const steps = this.#enabled(state);
        if (!steps.some((step) => step[0] !== 'k' && step !== 'c')) {
          this.#scenario.words.set(state.memory);
          ends.add(this.#memoryKey(state.dead));
          this.#finish(state);
        }
        for (const step of steps) {
          path = { step, before: state.path };
          const next = this.#step(state, step);
          const key = this.#key(next);
          if (seen.has(key)) continue;
          seen.add(key);
          pending.push(this.#keep(next));
        }
        this.#spare.push(state.memory);
      }
    } catch (error) {
      if (!(error instanceof Broken)) throw error;
      violation = { message: error.message, schedule: showPath(path) };
    }
    const complete = violation === null && pending.length === 0;
    return { states: seen.size, steps: this.#steps, ends: ends.size, violation, complete };
  }

  /** Runs one schedule; returns what it breaks, or null. */
  replay(schedule: string): string | null {
    try {
      let state = this.#keep(this.#start());
      for (const step of schedule.split(' ').filter((text) => text !== '')) {
        state = this.#keep(this.#step(state, step));
      }
      if (!this.#enabled(state).some((step) => step[0] !== 'k' && step !== 'c')) this.#finish(state);
      return null;
    } catch (error) {
      if (error instanceof Broken) return error.message;
      throw error;
    }
  }

  #start(): State {
    const { words, threads } = this.#scenario;
    words.set(this.#initial);
    this.#sleepers = [];
    this.#dead = -1;
    this.#deathsLeft = this.#bounds.deaths ?? 0;
    this.#threads = Array.from({ length: threads + 1 }, () => IDLE);
    for (let thread = 0; thread < threads; thread++) this.#threads[thread] = this.#launch(thread);
    const { deaths = 0, preemptions = Number.POSITIVE_INFINITY } = this.#bounds;
    return this.#capture({ deathsLeft: deaths, preemptionsLeft: preemptions, last: -1, timePassed: false, path: null });
  }

  /** The state as it is now, but for the memory: whoever keeps the state copies it. */
  #capture(rest: Pick<State, 'deathsLeft' | 'preemptionsLeft' | 'last' | 'timePassed' | 'path'>): State {
    return { memory: this.#initial, threads: this.#threads, sleepers: this.#sleepers, dead: this.#dead, ...rest };
  }

  #keep(state: State): State {
    const { words } = this.#scenario;
    const memory = this.#spare.pop() ?? new Int32Array(words.length);
    memory.set(words);
    return { ...state, memory };
  }

  /** Steps that may come next. */
  #enabled(state: State): string[] {
    const { threads, last } = state;
    const monitor = this.#scenario.threads;
    const steps: string[] = [];
    const writing = last >= 0 && threads[last]?.status === STATUS.ready && threads[last]?.op?.kind === OP.write;
    if (writing && !this.#bounds.plainStores) return this.#mayDie(state, last) ? [`k${last}`, `${last}`] : [`${last}`];
    const canGoOn = last >= 0 && isRunnable(threads[last] as ThreadState);
    for (let thread = 0; thread <= monitor; thread++) {
      const { status, op } = threads[thread] as ThreadState;
      if (this.#mayDie(state, thread)) steps.push(`k${thread}`);
      if (status === STATUS.sleeping && op !== null && op.b !== Number.POSITIVE_INFINITY) steps.push(`t${thread}`);
      if (!isRunnable(threads[thread] as ThreadState)) continue;
      if (canGoOn && thread !== last && state.preemptionsLeft === 0) continue;
      steps.push(`${thread}`);
    }
    if (this.#bounds.passTime && !state.timePassed && steps.length > 0) steps.push('c');
    return steps;
  }

  #mayDie(state: State, thread: number): boolean {
    const { status } = state.threads[thread] as ThreadState;
    const lives = status === STATUS.ready || status === STATUS.sleeping || status === STATUS.woken;
    return lives && state.deathsLeft > 0 && this.#scenario.mortal.includes(thread);
  }

  #step(state: State, step: string): State {
    this.#steps++;
    const { words, threads: count } = this.#scenario;
    words.set(state.memory);
    this.#threads = [...state.threads];
    this.#sleepers = [...state.sleepers];
    this.#dead = state.dead;
    this.#deathsLeft = state.deathsLeft;
    let { deathsLeft, preemptionsLeft, last, timePassed } = state;
    if (step === 'c') {
      complete(this.#scenario.passTime());
      timePassed = true;
    } else if (step[0] === 'k') {
      const thread = Number(step.slice(1));
      this.#threads[thread] = { ...IDLE, status: STATUS.dead };
      this.#sleepers = this.#sleepers.filter((sleeper) => sleeper.thread !== thread);
      this.#dead = thread;
      deathsLeft--;
      this.#deathsLeft = deathsLeft;
      this.#threads[count] = this.#launch(count);
      if (last === thread) last = -1;
    } else if (step[0] === 't') {
      const thread = Number(step.slice(1));
      this.#sleepers = this.#sleepers.filter((sleeper) => sleeper.thread !== thread);
      this.#advance(thread, WAIT_CODE['timed-out']);
      last = thread;
    } else {
      const thread = Number(step);
      if (last >= 0 && thread !== last && isRunnable(state.threads[last] as ThreadState)) preemptionsLeft--;
      this.#perform(thread);
      last = thread;
    }
    return this.#capture({
      deathsLeft,
      preemptionsLeft,
      last,
      timePassed,
      path: { step, before: state.path },
    });
  }

  /** Carries out the operation that a thread stands before, and runs the thread to its next one. */
  #perform(thread: number): void {
    const state = this.#threads[thread] as ThreadState;
    const result = state.status === STATUS.woken ? state.result : this.#result(thread, state.op as Op);
    if (Number.isNaN(result)) this.#change(thread, STATUS.sleeping, 0);
    else this.#advance(thread, result);
  }

  /** What an operation comes back with, or `SLEEPS`. */
  #result(thread: number, op: Op): number {
    const { kind, address, a } = op;
    if (kind === OP.notify) return this.#notify(address, a);
    if (kind === OP.await) {
      // Woken between the call and the `await`: the promise is settled already.
      return this.#sleepers.some((sleeper) => sleeper.thread === thread) ? SLEEPS : WAIT_CODE.ok;
    }
    if (kind !== OP.wait && kind !== OP.waitAsync) return performPlain(op);
    if (op.view[address] !== (a | 0)) return WAIT_CODE['not-equal'];
    this.#sleepers.push({ thread, address });
    return kind === OP.wait ? SLEEPS : WAIT_CODE.pending;
  }

  /** Puts a thread to sleep or wakes it. The program goes with it: two states must not drive one program. */
  #change(thread: number, status: number, result: number): void {
    const state = this.#threads[thread] as ThreadState;
    this.#threads[thread] = { ...state, status, result };
    state.live = null;
  }

  #notify(address: number, count: number): number {
    let woken = 0;
    const still: Sleeper[] = [];
    for (const sleeper of this.#sleepers) {
      if (sleeper.address !== address || woken >= count) {
        still.push(sleeper);
        continue;
      }
      woken++;
      const state = this.#threads[sleeper.thread] as ThreadState;
      // An asynchronous wait that is not yet awaited has left the queue: its thread is told when it awaits.
      if (state.status !== STATUS.sleeping) continue;
      this.#change(sleeper.thread, STATUS.woken, WAIT_CODE.ok);
    }
    this.#sleepers = still;
    return woken;
  }

  #program(thread: number): Program {
    const { threads } = this.#scenario;
    const started: unknown = thread < threads ? this.#scenario.run(thread) : this.#scenario.recover(this.#dead);
    return started as Program;
  }

  #launch(thread: number): ThreadState {
    const run = new Run([]);
    return this.#settle(thread, { program: this.#program(thread), run }, undefined);
  }

  /** Gives a thread the result of its operation and runs it to the next. */
  #advance(thread: number, result: number): void {
    const state = this.#threads[thread] as ThreadState;
    const live = state.live ?? this.#rebuild(thread, state);
    state.live = null;
    const kind = (state.op as Op).kind;
    setRun(live.run);
    live.run.observe(result);
    this.#threads[thread] = this.#settle(thread, live, decodeResult(kind, result));
  }

  #settle(thread: number, live: Live, input: unknown): ThreadState {
    const { run, program } = live;
    setRun(run);
    try {
      let { done, value } = program.next(input);
      // A plain store is a stop only where the thread may die, or others may see it.
      const mortal = this.#bounds.plainStores || (this.#deathsLeft > 0 && this.#scenario.mortal.includes(thread));
      while (!done && (value as Op).kind === OP.write && (!mortal || this.#isPrivate(value as Op))) {
        const { view, address, a } = value as Op;
        view[address] = a;
        run.observe(0);
        ({ done, value } = program.next(0));
      }
      let low = 0x811c9dc5;
      let high = 0x01000193;
      for (let depth = 0; depth <= run.depth; depth++) {
        low = mixInt(low, run.low[depth] as number);
        high = mixInt(high, run.high[depth] as number);
      }
      if (this.#bounds.wholeHistories) {
        low = run.historyLow;
        high = run.historyHigh;
      }
      const status = done ? STATUS.finished : STATUS.ready;
      const op = done ? null : (value as Op);
      if (done) return { ...IDLE, status };
      return { status, op, log: run.log, length: run.log.length, low, high, result: 0, live };
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      throw new Broken(`thread ${thread === this.#scenario.threads ? 'monitor' : thread}: ${text}`);
    } finally {
      setRun(null);
    }
  }

  /** A store into an array of the thread's own. */
  #isPrivate({ view }: Op): boolean {
    return view.buffer !== this.#scenario.words.buffer;
  }

  /** Runs a thread's program again along its log. */
  #rebuild(thread: number, state: ThreadState): Live {
    const run = new Run(state.log.slice(0, state.length));
    const program = this.#program(thread);
    setRun(run);
    let next = program.next(undefined);
    while (run.position < state.length) {
      if (next.done) throw new Error('exploration: a program ended before its log');
      const { kind, view, address, a } = next.value;
      // What is private to the thread was not restored with the shared memory.
      if (kind === OP.write && this.#isPrivate(next.value)) view[address] = a;
      next = program.next(decodeResult(kind, run.observe(undefined)));
    }
    setRun(null);
    const op = next.done ? null : next.value;
    if (op?.kind !== state.op?.kind || op?.address !== state.op?.address) {
      throw new Error('exploration: a rebuilt program stands elsewhere');
    }
    return { program, run };
  }

  #finish(state: State): void {
    this.#scenario.words.set(state.memory);
    const asleep = state.threads.flatMap(({ status }, thread) => (status === STATUS.sleeping ? [thread] : []));
    if (asleep.length > 0) throw new Broken(`threads ${asleep.join(', ')} sleep for ever`);
    setRun(null);
    const wrong = complete(this.#scenario.verdict(state.dead));
    if (wrong !== null && typeof wrong !== 'string') throw new Error('exploration: a verdict is a text or null');
    if (wrong !== null) throw new Broken(wrong);
  }

  #digest(): readonly number[] {
    this.#digested.length = 0;
    const started: unknown = this.#scenario.digest(this.#digested);
    if (started !== undefined) throw new Error('exploration: a digest must not stop');
    return this.#digested;
  }

  #memoryKey(dead: number): number {
    let key = mixInt(0x9747b28c, dead);
    for (const value of this.#digest()) key = mixInt(key, value);
    return key;
  }

  /** 53 bits that stand for a state. */
  #key(state: State): number {
    let low = mixInt(0x9747b28c, state.dead + 1);
    let high = mixInt(0x5bd1e995, state.deathsLeft);
    const parts = this.#parts;
    parts.length = 0;
    parts.push(state.timePassed ? 1 : 0);
    if (this.#bounds.preemptions !== undefined) parts.push(state.preemptionsLeft, state.last);
    const { last, threads, sleepers } = state;
    parts.push(last >= 0 && threads[last]?.op?.kind === OP.write ? last + 1 : 0);
    for (const { status, low: threadLow, high: threadHigh, result } of threads) {
      parts.push(status * 8 + result, threadLow, threadHigh);
    }
    for (const { thread, address } of sleepers) parts.push(thread, address);
    for (const list of [parts, this.#digest()]) {
      for (let i = 0; i < list.length; i++) {
        low = mixInt(low, list[i] as number);
        high = mixInt(high ^ 0x2f0b4a27, list[i] as number);
      }
    }
    return (low >>> 0) + (high & 0x1fffff) * 4294967296;
  }
}

/** Carries out an operation that neither sleeps nor wakes; returns what it came back with. */
function performPlain({ kind, view, address, a, b }: Op): number {
  const before = view[address] as number;
  switch (kind) {
    case OP.load:
      return before;
    case OP.store:
    case OP.write:
      view[address] = a;
      return 0;
    case OP.add:
      view[address] = before + a;
      return before;
    case OP.or:
      view[address] = before | a;
      return before;
    case OP.and:
      view[address] = before & a;
      return before;
    case OP.exchange:
      view[address] = a;
      return before;
    case OP.compareExchange:
      if (before === (a | 0)) view[address] = b;
      return before;
    default:
      throw new Error(`exploration: unknown operation ${kind}`);
  }
}

/** Runs a generator to its end with nobody in between: for set-up and verdict. What is no generator is a result itself. */
function complete(started: unknown): unknown {
  if (typeof started !== 'object' || started === null) return started;
  const program = started as Program;
  let next = program.next(undefined);
  // Nobody sleeps, so a wake-up reaches nobody.
  while (!next.done) next = program.next(next.value.kind === OP.notify ? 0 : performPlain(next.value));
  return next.value;
}

function isRunnable({ status }: ThreadState): boolean {
  return status === STATUS.ready || status === STATUS.woken;
}

function showPath(path: Path | null): string {
  const steps: string[] = [];
  for (let at = path; at !== null; at = at.before) steps.push(at.step);
  return steps.reverse().join(' ');
}
