/**
 * Checking an arena: every invariant of this room, at a quiet point or under load.
 *
 * Works on the structure as it is, bounded by the number of tags, and never throws for a broken one.
 */

import type { CheckReport } from '../base/index.ts';
import {
  ARENA_SIZE_IN_USE,
  ARENA_SIZE_TOTAL,
  ARENA_WORD,
  BIN_MASK,
  BIN_SHIFT,
  ORDER_LANES,
  TAG_DOUBLE_SHIFT,
  TAG_SHIFT,
  TAG_SIZE,
  TAG_START,
  TAG_WORD,
} from '../layout/index.ts';
import { hashFind } from './allocation-hash.ts';
import type { ArenaCore } from './arena-core.ts';
import { checkIndex } from './free-index.ts';
import { binOf, isNewer, listClass } from './free-lists.ts';
import { wholeSpanOf } from './idle-spans.ts';
import {
  KIND_BUSY,
  KIND_FREE,
  KIND_QUARANTINED,
  KIND_SPAN_IMPORTED,
  KIND_SPAN_STATIC,
  type TagIndex,
} from './kinds.ts';
import { checkMisfits } from './space-turn.ts';
import { rowOfTag } from './tag-chunks.ts';

const PROBLEMS_MAX = 20;

/** Collects what is wrong with one arena. */
class Check {
  readonly core: ArenaCore;
  readonly problems: string[] = [];
  readonly limit: number;
  readonly seen = new Set<TagIndex>();
  readonly spans: TagIndex[] = [];
  busy = 0;
  free = 0;
  quarantined = 0;
  sizeQuarantined = 0;
  sizeTotal = 0;
  sizeInUse = 0;

  constructor(core: ArenaCore) {
    this.core = core;
    this.limit = core.tables.tag.rowCount;
  }

  /** Notes a problem unless the condition holds. */
  expect(condition: boolean, invariant: string, tag: TagIndex, detail = ''): void {
    if (condition || this.problems.length >= PROBLEMS_MAX) return;
    const where = tag === 0 ? '' : `, tag ${rowOfTag(this.core.tables, tag)} at ${this.start(tag)} +${this.size(tag)}`;
    this.problems.push(`vmem/${invariant}${where}${detail === '' ? '' : `: ${detail}`}`);
  }

  /** A field of a tag. */
  word(tag: TagIndex, field: keyof typeof TAG_WORD): number {
    return this.core.words[(tag << TAG_SHIFT) + TAG_WORD[field]] ?? 0;
  }

  /** A field of the arena. */
  arena(field: keyof typeof ARENA_WORD, lane = 0): number {
    return this.core.words[this.core.base + ARENA_WORD[field] + lane] as number;
  }

  start(tag: TagIndex): number {
    return this.core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_START] ?? -1;
  }

  size(tag: TagIndex): number {
    return this.core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] ?? -1;
  }
}

/** Checks one arena under its lock. */
export function checkArena(core: ArenaCore): CheckReport {
  const check = new Check(core);
  core.enter();
  try {
    checkSegments(check);
    checkSpanTree(check);
    checkFreeLists(check);
    for (const problem of checkIndex(core)) check.expect(false, problem, 0);
    for (const problem of checkMisfits(core)) check.expect(false, problem, 0);
    checkHash(check);
    checkIdleSpans(check);
    checkQuarantine(check);
    checkReserve(check);
    checkTotals(check);
  } finally {
    core.exit();
  }
  return { structure: `vmem/arena ${core.name}`, checked: check.seen.size, problems: check.problems };
}

function checkSegments(check: Check): void {
  const { core } = check;
  let previous = 0;
  let covered = 0;
  let spanEnd = 0;
  for (let tag = check.arena('segmentHead'); tag !== 0; tag = check.word(tag, 'segmentNext')) {
    if (check.seen.has(tag) || check.seen.size > check.limit) {
      check.expect(false, 'segment-list I2: the list has no circle', tag);
      return;
    }
    check.seen.add(tag);
    const kind = check.word(tag, 'kind');
    const start = check.start(tag);
    const size = check.size(tag);
    check.expect(check.word(tag, 'segmentPrevious') === previous, 'segment-list I2: links go both ways', tag);
    check.expect(check.word(tag, 'arena') === core.row + 1, 'tag-pool I1: a tag is in use by one arena', tag);
    check.expect(
      Number.isSafeInteger(start) && Number.isSafeInteger(size) && size > 0 && size % core.quantum === 0,
      'segment-list: start and size are whole quanta',
      tag,
    );
    if (kind === KIND_SPAN_STATIC || kind === KIND_SPAN_IMPORTED) {
      check.expect(previous === 0 || covered === spanEnd, 'segment-list I1: segments cover the span', previous);
      check.spans.push(tag);
      check.sizeTotal += size;
      covered = start;
      spanEnd = start + size;
    } else {
      check.expect(start === covered && start + size <= spanEnd, 'segment-list I1: segments cover the span', tag);
      covered = start + size;
      if (kind === KIND_FREE) {
        check.free++;
        check.expect(check.word(previous, 'kind') !== KIND_FREE, 'segment-list I3: no two free neighbours', tag);
      } else if (kind === KIND_QUARANTINED) {
        check.quarantined++;
        check.sizeQuarantined += size;
      } else {
        check.expect(kind === KIND_BUSY, 'segment-list: a segment is free, busy or in quarantine', tag, `kind ${kind}`);
        check.busy++;
        check.sizeInUse += size;
      }
    }
    previous = tag;
  }
  check.expect(covered === spanEnd, 'segment-list I1: segments cover the span', previous);
  check.expect(check.arena('segmentTail') === previous, 'segment-list I2: the tail is the last tag', previous);
}

function checkSpanTree(check: Check): void {
  const ordered: TagIndex[] = [];
  const stack: TagIndex[] = [];
  let tag = check.arena('spanRoot');
  while ((tag !== 0 || stack.length !== 0) && ordered.length <= check.spans.length) {
    for (; tag !== 0 && stack.length <= check.spans.length; tag = check.word(tag, 'linkPrevious')) stack.push(tag);
    tag = stack.pop() ?? 0;
    ordered.push(tag);
    for (const child of [check.word(tag, 'linkPrevious'), check.word(tag, 'linkNext')]) {
      const heap = child === 0 || check.word(child, 'stamp') <= check.word(tag, 'stamp');
      check.expect(heap, 'span-tree I2: no child has a higher priority', child);
    }
    tag = check.word(tag, 'linkNext');
  }
  const sorted = check.spans.toSorted((a, b) => check.start(a) - check.start(b));
  const same = ordered.length === sorted.length && sorted.every((span, index) => span === ordered[index]);
  check.expect(same, 'span-tree I1: the tree holds every span in address order', 0);
  for (let index = 1; index < sorted.length; index++) {
    const [before, span] = [sorted[index - 1] as TagIndex, sorted[index] as TagIndex];
    const apart = check.start(before) + check.size(before) <= check.start(span);
    check.expect(apart, 'span-tree I1: spans do not overlap', span);
  }
}

function checkFreeLists(check: Check): void {
  let listed = 0;
  for (let order = 0; order < ORDER_LANES; order++) {
    const bins = check.arena('binMap', order);
    const newest = check.arena('newest', order);
    const known = newest === 0 || listClass(check.core, order)[0] === newest;
    check.expect(known, 'free-lists I6: the newest of its class', newest);
    const bit = (check.arena(order < 32 ? 'freeMap' : 'freeMapHigh') >>> (order & 31)) & 1;
    check.expect((bit === 1) === (bins !== 0), `free-lists I1: bit ${order} says whether the class is empty`, 0);
    for (let bin = order << BIN_SHIFT; bin <= (order << BIN_SHIFT) + BIN_MASK; bin++) {
      const head = check.arena('freeHead', bin);
      const binBit = (bins >>> (bin & BIN_MASK)) & 1;
      check.expect(
        (binBit === 1) === (head !== 0),
        `free-lists I1: the bit of bin ${bin} says whether it is empty`,
        head,
      );
      listed += checkBin(check, bin, head);
    }
  }
  check.expect(listed === check.free, 'free-lists: every free segment is listed', 0, `${listed} of ${check.free}`);
}

function checkBin(check: Check, bin: number, head: TagIndex): number {
  let listed = 0;
  let previous = 0;
  for (let tag = head; tag !== 0 && listed <= check.limit; tag = check.word(tag, 'linkNext')) {
    listed++;
    check.expect(check.word(tag, 'kind') === KIND_FREE, 'free-lists I2: every listed tag is free', tag);
    check.expect(check.seen.has(tag), 'free-lists I2: every listed tag is a segment', tag);
    check.expect(binOf(check.core, check.size(tag)) === bin, 'free-lists I3: the bin of its size', tag);
    check.expect(check.word(tag, 'linkPrevious') === previous, 'free-lists I4: links go both ways', tag);
    const descends = previous === 0 || isNewer(check.word(previous, 'stamp'), check.word(tag, 'stamp'));
    check.expect(descends, 'free-lists I5: stamps descend in a bin', tag);
    previous = tag;
  }
  return listed;
}

function checkHash(check: Check): void {
  const { core } = check;
  for (const tag of check.seen) {
    if (check.word(tag, 'kind') !== KIND_BUSY) continue;
    const at = hashFind(core, check.start(tag));
    check.expect(at >= 0 && core.words[at] === tag, 'allocation-hash I1: every busy tag is found', tag);
  }
  let chained = 0;
  for (const [field, count] of [
    ['bucketBase', check.arena('bucketCount')],
    ['oldBucketBase', check.arena('oldBucketCount')],
  ] as const) {
    const first = core.bucketsAt + check.arena(field);
    for (let bucket = 0; bucket < count; bucket++) {
      for (let tag = core.words[first + bucket] as number; tag !== 0 && chained <= check.limit; chained++) {
        check.expect(check.word(tag, 'kind') === KIND_BUSY, 'allocation-hash: a chained tag is busy', tag);
        tag = check.word(tag, 'linkNext');
      }
    }
  }
  const counted = `${chained} chained, ${check.busy} busy`;
  check.expect(chained === check.busy, 'allocation-hash I1: in exactly one chain', 0, counted);
}

function checkIdleSpans(check: Check): void {
  let listed = 0;
  for (let span = check.arena('idleHead'); span !== 0 && listed <= check.spans.length; listed++) {
    const whole = wholeSpanOf(check.core, check.word(span, 'segmentNext')) === span;
    check.expect(whole && check.seen.has(span), 'idle-spans I1: an imported span with one free segment', span);
    span = check.word(span, 'binNext');
  }
}

function checkQuarantine(check: Check): void {
  const { core } = check;
  const { arenaLife: life } = core.tables;
  let listed = 0;
  let previous = 0;
  for (let tag = life.quarantineHead.get(core.row); tag !== 0 && listed <= check.limit; listed++) {
    const waits = check.word(tag, 'kind') === KIND_QUARANTINED && check.seen.has(tag);
    check.expect(waits, 'quarantine I1: a listed tag is in quarantine', tag);
    check.expect(check.word(tag, 'linkPrevious') === previous, 'quarantine: links go both ways', tag);
    const later = previous === 0 || ((check.word(tag, 'stamp') - check.word(previous, 'stamp')) | 0) >= 0;
    check.expect(later, 'quarantine I2: stamps ascend', tag);
    previous = tag;
    tag = check.word(tag, 'linkNext');
  }
  const counted = `${listed} listed, ${check.quarantined} in quarantine, count ${life.quarantineCount.get(core.row)}`;
  const same = listed === check.quarantined && listed === life.quarantineCount.get(core.row);
  check.expect(same, 'quarantine I1: the list holds all tags in quarantine', 0, counted);
  check.expect(life.quarantineTail.get(core.row) === previous, 'quarantine: the tail is the last tag', previous);
  check.expect(life.quarantineSize.get(core.row) === check.sizeQuarantined, 'quarantine I1: size', 0);
  check.expect(check.sizeTotal <= core.limit, 'arena: spans are within the limit', 0);
}

function checkReserve(check: Check): void {
  let spare = 0;
  for (let tag = check.arena('spareHead'); tag !== 0 && spare <= check.limit; tag = check.word(tag, 'spareNext')) {
    check.expect(!check.seen.has(tag), 'tag-pool I1: a spare tag is not in use', tag);
    spare++;
  }
  check.expect(spare === check.arena('spareCount'), 'tag-pool I2: the reserve is as long as it says', 0);
}

function checkTotals(check: Check): void {
  const { doubles, baseDouble } = check.core;
  const totals = [
    ['sizeTotal', check.sizeTotal, doubles[baseDouble + ARENA_SIZE_TOTAL]],
    ['sizeInUse', check.sizeInUse, doubles[baseDouble + ARENA_SIZE_IN_USE]],
    ['busyTags', check.busy, check.arena('busyTags')],
    ['spanCount', check.spans.length, check.arena('spanCount')],
  ] as const;
  for (const [name, counted, stored] of totals) {
    check.expect(counted === stored, `arena: ${name}`, 0, `counted ${counted}, stored ${stored}`);
  }
}
