/**
 * Splitting an allocation into two, each of which is freed by itself: the owner of a range can give a part of it back from
 * the front, the middle or the end, and what is recorded of a range that shrinks into quarantine has a name.
 *
 * The new part has the same thread and the same owner. One tag; no list changes.
 */

import { fail, failMisuse, VERIFY } from '../base/index.ts';
import {
  ARENA_BUSY_TAGS,
  ARENA_BUSY_TAGS_PEAK,
  ARENA_CHANGES,
  ARENA_SPARE_COUNT,
  TAG_DOUBLE_SHIFT,
  TAG_LINK_PREVIOUS,
  TAG_OWNER,
  TAG_SHIFT,
  TAG_SIZE,
} from '../layout/index.ts';
import { faultPoint } from '../sync/index.ts';
import { careForArena } from './allocate.ts';
import { hashInsert } from './allocation-hash.ts';
import type { ArenaCore } from './arena-core.ts';
import { requireAddress } from './arguments.ts';
import { NO_TAGS } from './exhausted.ts';
import { findAllocation, roundSize } from './free.ts';
import { KIND_BUSY } from './kinds.ts';
import { recordSplit } from './recording.ts';
import { segmentInsertAfter } from './segment-list.ts';
import { freshTag, saveHeader, saveTag } from './spans.ts';

const CALL = 'arena.split';

/** See the file's header. Throws `EINVAL` for what is no allocation of `size`, `ENOMEM` without a tag; changes nothing then. */
export function splitAllocation(core: ArenaCore, address: number, size: number, firstSize: number): void {
  const whole = roundSize(core, CALL, size);
  const first = roundSize(core, CALL, firstSize, 'firstSize');
  requireAddress(core, CALL, address);
  if (first !== firstSize || first >= whole) {
    failMisuse(CALL, { size, firstSize, quantum: core.quantum }, 'firstSize must be whole quanta, and less than size');
  }
  const { words, doubles, base } = core;
  core.enter();
  careForArena(core);
  const tag = words[findAllocation(core, CALL, address, size, whole)] as number;
  if (words[base + ARENA_SPARE_COUNT] === 0) {
    core.exit();
    fail('ENOMEM', CALL, { arena: core.name, address, size }, NO_TAGS);
  }
  saveHeader(core);
  saveTag(core, tag);
  doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] = first;
  const rest = freshTag(core, address + first, whole - first, KIND_BUSY);
  segmentInsertAfter(core, rest, tag);
  words[(rest << TAG_SHIFT) + TAG_OWNER] = words[(tag << TAG_SHIFT) + TAG_OWNER] as number;
  if (core.charges) {
    words[(rest << TAG_SHIFT) + TAG_LINK_PREVIOUS] = words[(tag << TAG_SHIFT) + TAG_LINK_PREVIOUS] as number;
  }
  if (VERIFY) faultPoint(core.thread, 'vmem.split.linked');
  hashInsert(core, rest);
  const busyTags = (words[base + ARENA_BUSY_TAGS] as number) + 1;
  words[base + ARENA_BUSY_TAGS] = busyTags;
  if (busyTags > (words[base + ARENA_BUSY_TAGS_PEAK] as number)) words[base + ARENA_BUSY_TAGS_PEAK] = busyTags;
  words[base + ARENA_CHANGES]!++;
  if (words[core.recordingAt] !== 0) recordSplit(core, address, whole, first);
  core.exit();
}
