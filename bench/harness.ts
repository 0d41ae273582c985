/**
 * The harness of all benches: options, timing, reporting.
 *
 * A bench is a program with a seed and a checksum: the same seed gives the same operations on every subject, so that
 * subjects are compared on one workload, in one run. What counts is the ratio, since machines and their moods differ.
 *
 * Timing: operations run in batches; the batch grows until it takes a measurable time, a warm-up lets the compiler
 * settle, and the median of the repeats is the result. One thread is measured in processor time, several in time on the
 * wall. A peer has a deadline on the wall, beyond which its result is null.
 */

import { parseArgs } from 'node:util';

/** What every bench is given. */
export interface BenchOptions {
  /** One object a line instead of a table. */
  readonly json: boolean;
  readonly seed: number;
  /** Only cases whose name contains this. */
  readonly filter: string;
  /** Milliseconds that a peer has for one case, its preparation included. */
  readonly peerLimitMs: number;
}

/** A bench: a name, what it measures, and the program. */
export interface Bench {
  readonly name: string;
  readonly about: string;
  /** Its cases and peers, for `--help`. */
  readonly details?: string;
  run(harness: Harness): Promise<void>;
}

/** What a peer did in a case: null when it ran out of time. */
export interface PeerResult {
  readonly peer: string;
  readonly ns: number | null;
  /** How many times faster than this peer the case shall be. */
  readonly goal?: number | undefined;
}

/** What a figure shall reach. */
export type Goal = { readonly atMost: number } | { readonly atLeast: number };

/** Whether a figure reaches its goal, and how people read that. */
function judge(value: number, goal: Goal, unit: string): { met: boolean; text: string } {
  const [limit, met, sign] =
    'atMost' in goal ? [goal.atMost, value <= goal.atMost, '<='] : [goal.atLeast, value >= goal.atLeast, '>='];
  return { met, text: `   goal ${sign} ${limit}${unit}: ${met ? 'met' : 'missed'}` };
}

/** One line of `--json`. */
export interface BenchLine {
  readonly bench: string;
  readonly case: string;
  readonly ns: number;
  readonly peer: string | null;
  readonly peerNs: number | null;
  /** peerNs / ns: how many times faster than the peer. */
  readonly ratio: number | null;
  /** What `ns` shall reach, or `ratio` where the peer is the measure, and whether it does: only in cases that have a goal. */
  readonly goal?: Goal;
  readonly met?: boolean;
}

/** Does `count` operations and returns a checksum, so that no operation can be left out by the compiler. */
export type Operations = (count: number) => number;

const BATCH_MS = 20;
// Long enough for what is compiled again after a rare path was met for the first time: with 120 ms the same cached pair took 91 or
// 160 ns from run to run, with 600 it takes 82 to 99.
const WARM_UP_MS = 600;
const REPEAT_MS = 25;
const REPEATS = 15;

/** Runs and reports the cases of one bench. */
export class Harness {
  readonly options: BenchOptions;
  readonly #bench: string;
  #matched = false;

  constructor(bench: string, options: BenchOptions) {
    this.#bench = bench;
    this.options = options;
  }

  /** False for a case that the filter leaves out. */
  wants(name: string): boolean {
    const wanted = name.includes(this.options.filter);
    this.#matched ||= wanted;
    return wanted;
  }

  /** True when the filter has let a case through. */
  get matched(): boolean {
    return this.#matched;
  }

  /** Prints a case: one line for each peer, or one line without. */
  report(name: string, ns: number, peers: readonly PeerResult[] = [], goal?: Goal): void {
    if (peers.length === 0) this.#print({ name, ns, peer: null, peerNs: null, goal, ratioGoal: undefined });
    for (const { peer, ns: peerNs, goal: ratioGoal } of peers) {
      this.#print({ name, ns, peer, peerNs, goal, ratioGoal });
    }
  }

  /** Prints something other than a time: a count, or a ratio between two cases of this bench. */
  reportValue(name: string, value: number, unit: string, goal?: Goal): void {
    const rounded = round(value);
    const judged = goal === undefined ? null : judge(value, goal, '');
    if (this.options.json) {
      const line = { bench: this.#bench, case: name, value: rounded, unit };
      console.log(JSON.stringify(judged === null ? line : { ...line, goal, met: judged.met }));
    } else {
      console.log(`${name.padEnd(52)} ${String(rounded).padStart(9)} ${unit}${judged?.text ?? ''}`);
    }
  }

  /** A remark for people; not printed with `--json`. */
  note(text: string): void {
    if (!this.options.json) console.log(text);
  }

  #print(result: {
    name: string;
    ns: number;
    peer: string | null;
    peerNs: number | null;
    goal: Goal | undefined;
    ratioGoal: number | undefined;
  }): void {
    const { name, peer, peerNs, ratioGoal } = result;
    const ns = round(result.ns);
    const goal = ratioGoal === undefined ? result.goal : { atLeast: ratioGoal };
    const value = ratioGoal === undefined ? result.ns : (peerNs ?? 0) / result.ns;
    const judged = goal === undefined ? null : judge(value, goal, ratioGoal === undefined ? ' ns' : 'x');
    const line: BenchLine = {
      bench: this.#bench,
      case: name,
      ns,
      peer,
      peerNs: peerNs === null ? null : round(peerNs),
      ratio: peerNs === null ? null : round(peerNs / result.ns),
      ...(goal === undefined || judged === null ? {} : { goal, met: judged.met }),
    };
    if (this.options.json) {
      console.log(JSON.stringify(line));
      return;
    }
    const against =
      peer === null
        ? ''
        : `${peer.padEnd(16)} ${peerNs === null ? 'out of time' : `${showNs(peerNs)}   ${line.ratio}x`}`;
    console.log(`${`${name.padEnd(52)} ${showNs(ns)}   ${against}`.trimEnd()}${judged?.text ?? ''}`);
  }
}

function round(value: number): number {
  if (Math.abs(value) < 1) return Math.round(value * 10_000) / 10_000;
  return value >= 100 ? Math.round(value) : Math.round(value * 100) / 100;
}

function showNs(ns: number): string {
  return `${ns >= 100 ? Math.round(ns) : ns.toFixed(1)} ns`.padStart(12);
}

/** The middle value, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] as number;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] as number) + upper) / 2;
}

/**
 * Nanoseconds an operation takes: the median of the repeats. Null when `deadline` (on the scale of `performance.now`)
 * passes before three repeats are done.
 */
export function measure(operations: Operations, deadline = Number.POSITIVE_INFINITY): number | null {
  let batch = 1;
  let tookMs = timed(operations, batch);
  while (tookMs < BATCH_MS / 4 && performance.now() < deadline) {
    batch = Math.min(batch * 4, Math.max(batch + 1, Math.floor((batch * BATCH_MS) / Math.max(tookMs, 0.001))));
    tookMs = timed(operations, batch);
  }
  const warmUntil = performance.now() + WARM_UP_MS;
  while (performance.now() < Math.min(warmUntil, deadline)) tookMs = timed(operations, batch);
  const count = Math.max(1, Math.round((batch * REPEAT_MS) / Math.max(tookMs, 0.001)));
  const times: number[] = [];
  while (times.length < REPEATS) {
    const time = timed(operations, count);
    // Operations stop at the deadline, so that a repeat that reached it says nothing.
    if (performance.now() >= deadline) break;
    times.push(time);
  }
  return times.length < 3 ? null : (median(times) * 1e6) / count;
}

/**
 * Milliseconds that `count` operations take: processor time of this process, in which nothing else is busy. On a machine
 * that others use too, the time on the wall says how busy those are.
 */
function timed(operations: Operations, count: number): number {
  const start = process.cpuUsage();
  const sum = operations(count);
  const { user, system } = process.cpuUsage(start);
  // The sum is looked at, so that the compiler has to compute it.
  if (Number.isNaN(sum)) throw new Error('an operation returned no number');
  return (user + system) / 1000;
}

const HELP = `npm run bench -- NAME... [options]

Runs benches. Each prints its cases with the time of one operation, beside named peers in the same run, and the goal
where there is one: met or missed on this machine, as busy as it is now. Trust ratios within one run more than figures.

  npm run bench -- vmem --filter 'instant, 1 to 64'   pairs of alloc and free, 10^2 to 10^6 live; two workers on one arena
  npm run bench -- vmem --filter scaling              two workers against one, and that against a loop of arithmetic
  npm run bench -- vmem --json > before.jsonl         to compare with another build

Options
  --json          one object a line: bench, case, ns, peer, peerNs, ratio (peerNs / ns); or bench, case, value, unit;
                  goal and met where there is a goal
  --seed N        seed of all workloads (default 1)
  --filter TEXT   only cases whose name contains TEXT
  --peer-ms N     milliseconds that a peer has for one case; null beyond (default 2000)
  --help          this text; with names, also their cases and peers

Benches
`;

/** What the command line asks for, or a text to print and an exit code. */
export type Parsed =
  | { readonly names: readonly string[]; readonly options: BenchOptions }
  | { text: string; code: number };

/** Reads the command line. */
export function parseBenchArguments(args: readonly string[], benches: readonly Bench[]): Parsed {
  const help = `${HELP}${benches.map((bench) => `  ${bench.name.padEnd(14)}  ${bench.about}`).join('\n')}\n`;
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        json: { type: 'boolean', default: false },
        seed: { type: 'string', default: '1' },
        filter: { type: 'string', default: '' },
        'peer-ms': { type: 'string', default: '2000' },
        help: { type: 'boolean', default: false },
      },
    });
    if (values.help || positionals.length === 0) {
      const named = benches.filter(({ name }) => positionals.includes(name));
      const details = named.map((bench) => (bench.details === undefined ? '' : `\n${bench.details}`)).join('');
      return { text: `${help}${details}`, code: values.help ? 0 : 2 };
    }
    const seed = Number(values.seed);
    const peerLimitMs = Number(values['peer-ms']);
    if (!Number.isSafeInteger(seed)) return { text: `bench: --seed must be an integer, not ${values.seed}\n`, code: 2 };
    if (!(peerLimitMs > 0)) return { text: `bench: --peer-ms must be above 0, not ${values['peer-ms']}\n`, code: 2 };
    const unknown = positionals.find((name) => benches.every((bench) => bench.name !== name));
    if (unknown !== undefined) {
      const known = benches.map((bench) => bench.name).join(', ');
      return { text: `bench: there is no bench ${unknown}; there are: ${known}\n`, code: 2 };
    }
    return { names: positionals, options: { json: values.json, seed, filter: values.filter, peerLimitMs } };
  } catch (error) {
    return { text: `bench: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}\n`, code: 2 };
  }
}
