/**
 * The reading side of a recording: turns what an arena wrote into a trace that `pagewright replay` runs.
 *
 * STRUCTURE   1 the arena as it is: its spans as `add`s, every segment as an `xalloc` of exactly its place, then the free ones
 *             as `free`s, the one that was freed longest ago first, so that every free list comes out in its order
 *             2 the entries of the ring   3 the state at the end, to compare with; or how many operations were missed
 *             4 how many lines there were: without that one a recording was cut, and is not replayed
 * LOCKING     The arena's lock: for step 1, for each read of the ring, and for the end.
 * COSTS       Starting is linear in the number of tags, under the lock.
 * FAILURE     `EBUSY` for an arena that is recorded already, `ENOMEM` without a free recording. A recording whose thread ends
 *             is given up.
 * REFERENCES  recording.ts; test/golden/vmem/README.md.
 */

import { ADDRESS_MAX, fail, failMisuse, rejectUnknownOptions } from '../base/index.ts';
import { ARENA_SEGMENT_HEAD, TAG_KIND_AT, TAG_SEGMENT_NEXT, TAG_SHIFT, TAG_STAMP } from '../layout/index.ts';
import { compareExchange, load, mutexEnter, RANK, type SlotIndex, store } from '../sync/index.ts';
import type { ArenaCore } from './arena-core.ts';
import type { ArenaCores } from './arena-cores.ts';
import { KIND_FREE, STRATEGY_NAME, type TagIndex } from './kinds.ts';
import { entryRow, RECORD_KIND, ringSize } from './recording.ts';
import { type ArenaSnapshot, describeTag, snapshotUnderLock } from './snapshot.ts';

/** How an arena is recorded. */
export interface RecordOptions {
  /** Name of the trace, in its header. Default: the arena's. */
  readonly name?: string;
}

/** Where a recording stands. */
export interface RecordingReport {
  readonly arena: string;
  /** Slot of the thread that reads it. */
  readonly slot: SlotIndex;
  /** Entries that wait to be read, and how many there is room for. */
  readonly pending: number;
  readonly room: number;
  /** Operations that found no room: 0, or the recording has ended with the first of them. */
  readonly missed: number;
}

/** One recording, in the thread that started it. */
export class ArenaRecording {
  readonly #core: ArenaCore;
  readonly #recording: number;
  #text = '';
  /** Lines of the trace so far behind the header. */
  #lines = -1;
  #stopped = false;

  /** For `Arena.record`. */
  constructor(core: ArenaCore, options: RecordOptions) {
    if (typeof options !== 'object' || options === null) failMisuse(CALL, { options }, 'options must be an object');
    rejectUnknownOptions(CALL, options, ['name']);
    const { name = core.name } = options;
    if (typeof name !== 'string') failMisuse(CALL, { name }, 'name must be a text');
    this.#core = core;
    this.#recording = claimRow(core);
    core.enter();
    if (core.words[core.recordingAt] !== 0) {
      core.exit();
      releaseRow(core, this.#recording);
      fail('EBUSY', CALL, { arena: core.name }, 'it is recorded already');
    }
    const { arenaLife: life } = core.tables;
    core.journal.set(life.recording, core.row, this.#recording + 1);
    this.#add(begin(core, name));
    core.exit();
  }

  /** What was recorded since the last call, as lines of JSON: the first call begins with the header. */
  drain(): string {
    if (!this.#stopped) {
      this.#enter();
      this.#read();
      this.#core.exit();
    }
    const text = this.#text;
    this.#text = '';
    return text;
  }

  /** Operations that found no room in the ring: read more often, or boot with more `recordEntries`. */
  get missed(): number {
    return this.#stopped ? 0 : this.#core.tables.recording.missed.get(this.#recording);
  }

  /**
   * Ends the recording; returns what `drain` would, with the last lines: how the arena is now, which one that was destroyed
   * does not have, and the end. Called again it returns nothing.
   */
  stop(): string {
    if (this.#stopped) return '';
    const core = this.#core;
    const { recording: rows, arenaLife: life } = core.tables;
    try {
      const exists = this.#enter();
      this.#read();
      const missed = rows.missed.get(this.#recording);
      if (missed === 0 && exists) this.#add(stateLine(core));
      else if (missed !== 0) this.#add(line({ op: 'missed', arena: core.name, operations: missed, reason: RING_FULL }));
      this.#add(line({ op: 'end', arena: core.name, operations: this.#lines }));
      // The row may serve another arena by now, with a recording of its own.
      if (life.recording.get(core.row) === this.#recording + 1) core.journal.set(life.recording, core.row, 0);
      core.exit();
    } finally {
      this.#stopped = true;
      releaseRow(core, this.#recording);
    }
    return this.drain();
  }

  /** Same as `stop`, for `using`. */
  [Symbol.dispose](): void {
    this.stop();
  }

  /** Adds lines. */
  #add(lines: string): void {
    for (let at = lines.indexOf('\n'); at >= 0; at = lines.indexOf('\n', at + 1)) this.#lines++;
    this.#text += lines;
  }

  /** Takes the lock, also when the arena was destroyed: what it did until then is in the ring. True while it exists. */
  #enter(): boolean {
    const core = this.#core;
    if (core.thread.ended) core.thread.failEnded();
    mutexEnter(core.thread, core.lockAddress, RANK.arena);
    return core.current;
  }

  /** Moves the entries of the ring into the text. Under the lock. */
  #read(): void {
    const core = this.#core;
    const { recording: rows } = core.tables;
    const written = rows.written.get(this.#recording);
    const parts: string[] = [];
    for (let number = rows.read.get(this.#recording); number < written; number++) {
      parts.push(entryLine(core, this.#recording, number));
    }
    this.#add(parts.join(''));
    core.journal.setDouble(rows.read, this.#recording, written);
  }
}

const CALL = 'arena.record';

const RING_FULL = 'the ring was full: read it more often, or boot with more `recordEntries`';

function line(value: Readonly<Record<string, unknown>>): string {
  return `${JSON.stringify(value)}\n`;
}

function claimRow(core: ArenaCore): number {
  const { recording: rows } = core.tables;
  for (let row = 0; row < rows.rowCount; row++) {
    if (compareExchange(core.words, rows.slot.address(row), 0, core.thread.tag) !== 0) continue;
    // Nobody writes to it before an arena names it.
    rows.arena.put(row, core.row + 1);
    rows.closed.put(row, 0);
    rows.written.put(row, 0);
    rows.read.put(row, 0);
    rows.missed.put(row, 0);
    return row;
  }
  return fail('ENOMEM', CALL, { arena: core.name }, `all ${rows.rowCount} recordings are under way`);
}

function releaseRow(core: ArenaCore, row: number): void {
  store(core.words, core.tables.recording.slot.address(row), 0);
}

/** Header, and operations that make an arena which is like this one now. Under the lock. */
function begin(core: ArenaCore, name: string): string {
  const { words, base, quantum } = core;
  const arena = core.name;
  const first: string[] = [line({ trace: 'vmem', version: 1, source: 'pagewright', name, end: true })];
  first.push(line({ op: 'create', arena, base: 0, size: 0, quantum, import: null, rc: 0 }));
  const free: TagIndex[] = [];
  for (let tag = words[base + ARENA_SEGMENT_HEAD] as number; tag !== 0; ) {
    const { kind, start: addr, size } = describeTag(core, tag);
    if (kind === 'static' || kind === 'span') {
      first.push(line({ op: 'add', arena, addr, size, rc: 0 }));
    } else {
      const max = addr + size - 1;
      const place = { align: 0, phase: 0, nocross: 0, min: addr, max };
      first.push(line({ op: 'xalloc', arena, size, ...place, strat: 'best', rc: 0, addr }));
      if (words[(tag << TAG_SHIFT) + TAG_KIND_AT] === KIND_FREE) free.push(tag);
    }
    tag = words[(tag << TAG_SHIFT) + TAG_SEGMENT_NEXT] as number;
  }
  const stampOf = (tag: TagIndex) => words[(tag << TAG_SHIFT) + TAG_STAMP] as number;
  for (const tag of free.sort((a, b) => (stampOf(a) - stampOf(b)) | 0)) {
    const { start: addr, size } = describeTag(core, tag);
    first.push(line({ op: 'xfree', arena, addr, size }));
  }
  return first.join('');
}

/** One entry as a line; none for a continuation. Under the lock. */
function entryLine(core: ArenaCore, recording: number, number: number): string {
  const { recordEntry: entries } = core.tables;
  const row = entryRow(core, recording, number);
  const kind = entries.kind.get(row);
  const arena = core.name;
  const addr = entries.address.get(row);
  const size = entries.size.get(row);
  const outcome = addr < 0 ? { rc: 'ENOMEM', addr: null } : { rc: 0, addr };
  const strat = STRATEGY_NAME[entries.strategy.get(row)];
  const thread = entries.slot.get(row);
  switch (kind) {
    case RECORD_KIND.alloc:
      return line({ op: 'alloc', arena, size, strat, ...outcome, thread });
    case RECORD_KIND.xalloc: {
      const more = entryRow(core, recording, number + 1);
      const max = entries.second.get(more);
      const place = { align: entries.first.get(row), phase: entries.second.get(row), nocross: entries.size.get(more) };
      const window = { min: entries.first.get(more), max: max === ADDRESS_MAX ? null : max };
      return line({ op: 'xalloc', arena, size, ...place, ...window, strat, ...outcome, thread });
    }
    case RECORD_KIND.free:
      return line({ op: 'xfree', arena, addr, size, thread });
    case RECORD_KIND.add:
      return line({ op: 'add', arena, addr, size, rc: 0, thread });
    case RECORD_KIND.remove:
      return line({ op: 'remove', arena, addr, thread });
    case RECORD_KIND.resize:
      return line({ op: 'resize', arena, addr, size, to: entries.first.get(row), thread });
    case RECORD_KIND.split:
      return line({ op: 'split', arena, addr, size, to: entries.first.get(row), thread });
    case RECORD_KIND.merge:
      return line({ op: 'merge', arena, addr, thread });
    default:
      return '';
  }
}

/** The state as the replayed arena must have it: its spans are all static, and what is in quarantine was never freed. */
function stateLine(core: ArenaCore): string {
  const snapshot: ArenaSnapshot = snapshotUnderLock(core);
  const segs = snapshot.segments.map(({ kind, start, size }) => {
    const known = kind === 'span' ? 'static' : kind === 'quarantined' ? 'busy' : kind;
    return [known, start, size];
  });
  const busy = segs.filter(([kind]) => kind === 'busy');
  const inuse = busy.reduce((sum, [, , size]) => sum + (size as number), 0);
  const free: Record<string, number[][]> = {};
  for (const [order, list] of snapshot.freeLists) free[order] = list.map(({ start, size }) => [start, size]);
  return line({ op: 'state', arena: core.name, size: snapshot.size, inuse, busytags: busy.length, segs, free });
}

/** Recordings that are under way. */
export function listRecordings(cores: ArenaCores): RecordingReport[] {
  const { recording: rows, arena } = cores.thread.region.tables;
  const list: RecordingReport[] = [];
  for (let row = 0; row < rows.rowCount; row++) {
    const slot = load(cores.thread.words, rows.slot.address(row)) - 1;
    if (slot < 0) continue;
    const name = arena.name.text(rows.arena.get(row) - 1);
    const pending = rows.written.get(row) - rows.read.get(row);
    list.push({
      arena: name,
      slot,
      pending,
      room: ringSize(cores.at(rows.arena.get(row) - 1)),
      missed: rows.missed.get(row),
    });
  }
  return list;
}

/** Gives up the recordings of a dead slot. Called without a lock. */
export function recoverRecordings(cores: ArenaCores, dead: SlotIndex): void {
  const { recording: rows, arenaLife: life } = cores.thread.region.tables;
  for (let row = 0; row < rows.rowCount; row++) {
    if (rows.slot.get(row) !== dead + 1) continue;
    const core = cores.at(rows.arena.get(row) - 1);
    core.enterAnyway();
    if (life.recording.get(core.row) === row + 1) core.journal.set(life.recording, core.row, 0);
    core.exit();
    releaseRow(core, row);
  }
}
