/** Replays traces of arenas, recorded of the original source or by `Arena.record`: see test/golden/vmem/README.md for the format. */

import { boot } from '../../system/boot.ts';
import type { Arena, ArenaSnapshot, ConstraintOptions, Strategy } from '../../vmem/index.ts';
import type { Difference, Replay, Replayer } from './replay.ts';

/** One line of a trace; which fields are there depends on `op`. */
interface VmemLine {
  readonly op: string;
  readonly arena: string;
  readonly base: number;
  readonly quantum: number;
  readonly import: null | { readonly from: string; readonly large: boolean; readonly x: number | null };
  readonly rc: 0 | string;
  readonly addr: number | null;
  readonly size: number;
  readonly strat: Strategy;
  readonly align: number;
  readonly phase: number;
  readonly nocross: number;
  readonly min: number;
  readonly max: number | null;
  /** New size of a `resize`, size of the first part of a `split`. */
  readonly to: number;
  /** How many a `missed` stands for. */
  readonly operations: number;
  /** Why a recording ended early. */
  readonly reason?: string;
  readonly inuse: number;
  readonly busytags: number;
  readonly segs: readonly (readonly [string, number, number])[];
  readonly free: Readonly<Record<string, readonly (readonly [number, number])[]>>;
}

/** Operations that a line may name. */
const OPERATIONS: readonly string[] = [
  'create',
  'add',
  'alloc',
  'xalloc',
  'free',
  'xfree',
  'xfreeall',
  'rehash',
  'remove',
  'resize',
  'split',
  'merge',
  'missed',
  'state',
];

/** See the file's header. */
export const vmemReplayer: Replayer = {
  kind: 'vmem',
  version: 1,
  start: () => new VmemReplay(),
};

class VmemReplay implements Replay {
  readonly #vm = boot({ memory: '1 MiB', tags: 2 ** 18, services: 'manual', clock: 'virtual' });
  #missed = 0;
  #reason = '';
  readonly #byName = new Map<string, Arena>();

  step(value: unknown): Difference | null {
    const line = value as VmemLine;
    if (!OPERATIONS.includes(line.op)) {
      return {
        expected: `an operation: ${OPERATIONS.join(', ')}`,
        got: `unknown operation ${JSON.stringify(line.op)}`,
      };
    }
    if (line.op === 'create') return this.#create(line);
    const arena = this.#byName.get(line.arena);
    if (arena === undefined) return { expected: `arena ${line.arena}`, got: 'no such arena in the trace' };
    switch (line.op) {
      case 'add':
        arena.add(line.addr ?? 0, line.size);
        return compare(line.rc, 0);
      case 'alloc':
        return compareAddress(line, arena.tryAlloc(line.size, line.strat));
      case 'xalloc':
        return compareAddress(line, arena.tryXalloc(line.size, constraintsOf(line)));
      case 'free':
        arena.free(line.addr ?? -1, line.size);
        return null;
      case 'xfree':
        arena.xfree(line.addr ?? -1, line.size);
        return null;
      case 'xfreeall':
        arena.xfreeAll();
        return null;
      case 'rehash':
        arena.rehash(line.size);
        return null;
      case 'remove':
        arena.remove(line.addr ?? -1);
        return null;
      case 'resize':
        return compare(true, arena.tryResize(line.addr ?? -1, line.size, line.to));
      case 'split':
        arena.split(line.addr ?? -1, line.size, line.to);
        return null;
      case 'merge':
        return compare(1, arena.mergeSpans(line.addr ?? -1));
      case 'missed':
        this.#missed += line.operations;
        if (line.reason !== undefined) this.#reason = `; ${line.reason}`;
        return null;
      default:
        return compareState(line, arena.snapshot()) ?? checkSound(arena);
    }
  }

  summary(): string {
    return this.#missed === 0
      ? ''
      : `the recording ended early: ${this.#missed} operations are not in it${this.#reason}`;
  }

  dump(): string {
    return [...this.#byName.values()].map((arena) => arena.dump()).join('\n');
  }

  close(): void {
    this.#vm.detach();
  }

  #create(line: VmemLine): Difference | null {
    const { base, size, quantum } = line;
    const source = line.import === null ? undefined : this.#byName.get(line.import.from);
    if (line.import !== null && source === undefined) {
      throw new Error(`the trace has made no arena ${JSON.stringify(line.import.from)} to import from`);
    }
    const options = { base, size, quantum, compat: 'seed' as const };
    const arena =
      line.import === null || source === undefined
        ? this.#vm.createArena(line.arena, options)
        : this.#vm.createArena(line.arena, {
            ...options,
            import: { from: source, large: line.import.large, roundTo: line.import.x ?? 0 },
          });
    this.#byName.set(line.arena, arena);
    return compare(line.rc, 0);
  }
}

function constraintsOf(line: VmemLine): ConstraintOptions {
  const { align, phase, nocross, min, max, strat } = line;
  const options = { align, phase, nocross, min, strategy: strat };
  return max === null ? options : { ...options, max };
}

function compareAddress(line: VmemLine, address: number): Difference | null {
  return compare(line.addr ?? line.rc, address === -1 ? 'ENOMEM' : address);
}

function compareState(line: VmemLine, snapshot: ArenaSnapshot): Difference | null {
  const free: Record<string, (readonly [number, number])[]> = {};
  for (const [order, list] of snapshot.freeLists) free[order] = list.map(({ start, size }) => [start, size]);
  const { size, inUse, allocations } = snapshot;
  const segments = snapshot.segments.map(({ kind, start, size: length }) => [kind, start, length]);
  return (
    compare([line.size, line.inuse, line.busytags], [size, inUse, allocations]) ??
    compare(line.segs, segments) ??
    compare(line.free, free)
  );
}

function checkSound(arena: Arena): Difference | null {
  const { problems } = arena.check();
  return problems.length === 0 ? null : { expected: 'a sound arena', got: problems.join('; ') };
}

function compare(expected: unknown, got: unknown): Difference | null {
  const [expectedText, gotText] = [JSON.stringify(expected), JSON.stringify(got)];
  return expectedText === gotText ? null : { expected: expectedText, got: gotText };
}
