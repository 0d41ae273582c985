/**
 * Replaying traces against a fresh system.
 *
 * PROBLEM     A recorded run must be repeatable against the shipped code, and a difference must be reported so that it can
 *             be understood.
 * STRUCTURE   header -> kind -> Replayer.start -> step for each line -> result
 *             A replayer drives the public classes and compares what they return with what was recorded. It holds names
 *             and handles, and no algorithm of its own.
 * INVARIANTS  I1 a replay shares nothing with another one: each has a system of its own.
 * LOCKING     None; replays run in one thread unless the trace's kind says otherwise.
 * COSTS       Those of the operations, and of parsing the lines.
 * FAILURE     `TraceError` for a file that cannot be replayed. Differences are counted, the first one is kept with a dump.
 * REFERENCES  test/golden: recorded runs of the original sources.
 */

import { InvariantError } from '../../base/index.ts';
import { fileReplayer } from './file.ts';
import { heapReplayer } from './heap.ts';
import { pcacheReplayer } from './pcache.ts';
import { pcacheInitReplayer } from './pcache-init.ts';
import { pglistReplayer } from './pglist.ts';
import { pmemReplayer } from './pmem.ts';
import { readTrace, type Trace, TraceError, type TraceHeader } from './trace.ts';
import { vmemReplayer } from './vmem.ts';
import { vpmReplayer } from './vpm.ts';

/** How one step differed. */
export interface Difference {
  readonly expected: string;
  readonly got: string;
}

/** A running replay. */
export interface Replay {
  /** Runs one line. Null when everything came out as recorded. */
  step(value: unknown): Difference | null;
  /** Runs what is left when the last line was read: for kinds that read first and run then. */
  finish?(): Difference | null;
  /** The state as text. */
  dump(): string;
  /** Numbers about the run, shown behind the counts. */
  summary?(): string;
  /** Ends the system. */
  close(): void;
}

/** Replays one kind of trace. */
export interface Replayer {
  readonly kind: string;
  readonly version: number;
  /** Makes a fresh system for a trace. Throws `TraceError`-worthy messages as plain errors. */
  start(header: TraceHeader): Replay;
}

/** The first line of a trace that came out differently. */
export interface Mismatch extends Difference {
  readonly line: number;
  /** The recorded line. */
  readonly operation: string;
  /** State after the line. */
  readonly dump: string;
}

/** What a replay came to. */
export interface ReplayResult {
  readonly file: string;
  readonly kind: string;
  readonly name: string;
  readonly operations: number;
  readonly mismatches: number;
  readonly first: Mismatch | null;
  /** Numbers that the kind reports, or an empty text. */
  readonly summary: string;
}

const REPLAYERS: readonly Replayer[] = [
  vmemReplayer,
  heapReplayer,
  pglistReplayer,
  pmemReplayer,
  pcacheReplayer,
  pcacheInitReplayer,
  vpmReplayer,
  fileReplayer,
];

/** Replays a file. Throws `TraceError` when it cannot be replayed at all. */
export function replayFile(file: string): ReplayResult {
  const trace = readTrace(file);
  const { trace: kind, version } = trace.header;
  const replayer = REPLAYERS.find((candidate) => candidate.kind === kind);
  if (replayer === undefined) {
    const known = REPLAYERS.map((candidate) => candidate.kind).join(', ');
    throw new TraceError(file, `unknown kind of trace ${JSON.stringify(kind)}; known kinds: ${known}`);
  }
  if (replayer.version !== version) {
    throw new TraceError(file, `unknown version ${String(version)} of ${kind} traces; known: ${replayer.version}`);
  }
  const replay = start(replayer, trace);
  let operations = 0;
  let mismatches = 0;
  let first: Mismatch | null = null;
  try {
    let ended: unknown;
    trace.forEach((value, line) => {
      if (isEnd(trace.header, value)) {
        ended = value.operations;
        return;
      }
      operations++;
      const difference = runStep(replay, value, trace, line);
      if (difference === null) return;
      mismatches++;
      first ??= { line, operation: JSON.stringify(value).slice(0, 500), ...difference, dump: replay.dump() };
    });
    if (operations === 0) throw new TraceError(file, 'holds a header and no operations: there is nothing to replay');
    requireWhole(trace, operations, ended);
    const last = replay.finish?.() ?? null;
    if (last !== null) {
      mismatches++;
      first ??= { line: operations + 1, operation: 'end of the trace', ...last, dump: replay.dump() };
    }
    const summary = replay.summary?.() ?? '';
    const name = nameOf(trace.header, file);
    return { file, kind, name, operations, mismatches, first, summary };
  } finally {
    replay.close();
  }
}

/** True for the line that ends a trace whose header says that there is one. */
function isEnd(header: TraceHeader, value: unknown): value is { readonly operations: unknown } {
  return header.end === true && typeof value === 'object' && value !== null && (value as { op?: unknown }).op === 'end';
}

/** Throws for a trace that has fewer lines than its header, or the line that ends it, says. */
function requireWhole({ file, header }: Trace, operations: number, ended: unknown): void {
  if (header.end === true && ended === undefined) {
    throw new TraceError(file, `was cut behind operation ${operations}: the line that ends it is missing`);
  }
  const [who, announced] = header.end === true ? ['last line', ended] : ['header', header.operations];
  if (header.end !== true && typeof announced !== 'number') return;
  if (announced === operations) return;
  const rule = `was cut or changed: its ${who} announces ${String(announced)} operations, and it holds ${operations}`;
  throw new TraceError(file, rule);
}

/** A header with fields that cannot be used fails at once. */
function start(replayer: Replayer, { file, header }: Trace): Replay {
  try {
    return replayer.start(header);
  } catch (cause) {
    if (cause instanceof InvariantError) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new TraceError(file, `its header is none of a ${replayer.kind} trace: ${why}`, { cause });
  }
}

/** An error of a step is a difference too: what was recorded went well. One that a field of the line brought is the trace's. */
function runStep(replay: Replay, value: unknown, { file, header }: Trace, line: number): Difference | null {
  try {
    return replay.step(value);
  } catch (error) {
    if (error instanceof InvariantError) throw error;
    if (error instanceof TypeError) {
      throw new TraceError(file, `line ${line} is none of a ${header.trace} trace: ${error.message}`, { cause: error });
    }
    return { expected: 'no error', got: error instanceof Error ? error.message : String(error) };
  }
}

function nameOf(header: TraceHeader, file: string): string {
  const name = header.name ?? header.program;
  const base = file.slice(Math.max(file.lastIndexOf('/'), file.lastIndexOf('\\')) + 1).replace(/\.jsonl(\.gz)?$/, '');
  if (typeof name !== 'string') return base;
  return base.includes(name) ? base : `${base} (${name})`;
}
