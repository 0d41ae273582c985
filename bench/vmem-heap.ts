/** The allocations of a real program, run on an arena or a peer in a thread of its own. See traces/heap/README.md. */

import { readFileSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { gunzipSync } from 'node:zlib';
import { boot } from 'pagewright';
import { requireSound } from './vmem-shape.ts';
import { ArenaSubject, PEERS, QUANTUM, type Subject } from './vmem-subjects.ts';

/** The recorded programs. */
export const HEAP_TRACES = [
  'cc1-mdb',
  'cc1plus-regex',
  'git-log-p',
  'perl-text',
  'python-json-re-ast',
  'sqlite-build-query',
] as const;

/** What the thread is told. */
export interface HeapData {
  readonly trace: string;
  /** Name of a peer, or null for an arena. */
  readonly peer: string | null;
  readonly limitMs: number;
}

/** A trace as numbers: three for each operation. A size of 0 frees. */
interface Operations {
  readonly ids: Int32Array;
  readonly sizes: Int32Array;
  readonly blocks: number;
  readonly peakBytes: number;
  readonly peakCount: number;
}

const REPEATS = 3;
const STEP = 1024;

function load(trace: string): Operations {
  const path = new URL(`../../bench/traces/heap/${trace}.jsonl.gz`, import.meta.url);
  const [head, ...lines] = gunzipSync(readFileSync(path)).toString().trimEnd().split('\n');
  const header = JSON.parse(head as string) as { peakLiveBytes: number; peakLiveCount: number };
  const ids = new Int32Array(lines.length);
  const sizes = new Int32Array(lines.length);
  let blocks = 0;
  lines.forEach((line, index) => {
    const [letter, id, size] = JSON.parse(line) as [string, number, number?];
    ids[index] = id;
    // An alignment of more than 16 is left out for all subjects alike: the peers cannot honour it.
    sizes[index] = letter === 'f' ? 0 : (size as number);
    blocks = Math.max(blocks, id + 1);
  });
  return { ids, sizes, blocks, peakBytes: header.peakLiveBytes, peakCount: header.peakLiveCount };
}

/** Runs the trace once; a resize allocates the new block before the old one is freed. Null when time runs out. */
function runOnce(subject: Subject, { ids, sizes, blocks }: Operations, deadline: number): number | null {
  const addresses = new Float64Array(blocks).fill(-1);
  const lengths = new Int32Array(blocks);
  const start = process.cpuUsage();
  for (let at = 0; at < ids.length; at++) {
    if (at % STEP === 0 && performance.now() > deadline) return null;
    const id = ids[at] as number;
    const size = sizes[at] as number;
    const old = addresses[id] as number;
    const address = size === 0 ? -1 : subject.alloc(size);
    if (size !== 0 && !(address >= 0)) throw new Error(`operation ${at}: no space for ${size} bytes`);
    if (old >= 0) subject.free(old, lengths[id] as number);
    addresses[id] = address;
    lengths[id] = size;
  }
  const { user, system } = process.cpuUsage(start);
  addresses.forEach((address, id) => {
    if (address >= 0) subject.free(address, lengths[id] as number);
  });
  return ((user + system) * 1000) / ids.length;
}

function best(subject: Subject, operations: Operations, deadline: number): number | null {
  let found: number | null = null;
  for (let repeat = 0; repeat < REPEATS; repeat++) {
    const ns = runOnce(subject, operations, deadline);
    if (ns !== null) found = Math.min(ns, found ?? ns);
  }
  return found;
}

function measure({ trace, peer, limitMs }: HeapData): number | null {
  const operations = load(trace);
  const sizeBytes = Math.ceil((4 * operations.peakBytes) / 65536) * 65536 + 64 * operations.peakCount;
  if (peer !== null) {
    const found = PEERS.find((candidate) => candidate.name === peer);
    if (found === undefined) throw new Error(`no peer ${peer}`);
    const deadline = performance.now() + limitMs;
    return best(found.make(sizeBytes), operations, deadline);
  }
  const vm = boot({ memory: '1 MiB', tags: 4 * operations.peakCount + 65536, services: 'manual' });
  const size = Math.ceil(sizeBytes / QUANTUM) * QUANTUM;
  const arena = vm.createArena('heap', { base: 0, size, quantum: QUANTUM, quantumCacheMax: 16 * QUANTUM });
  const ns = best(new ArenaSubject(arena), operations, Number.POSITIVE_INFINITY);
  arena.drain();
  requireSound(vm, arena);
  vm.detach();
  return ns;
}

if (parentPort !== null) parentPort.postMessage(measure(workerData as HeapData));
