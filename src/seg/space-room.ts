/**
 * Free room of a space: an arena of addresses.
 *
 * PROBLEM     A mapping without an address needs room that is aligned, inside limits, and away from its neighbours by their guard
 *             gaps; forks must not pay for it.
 * STRUCTURE   An arena in which every segment's room is an allocation. The segments are the truth: the arena is made when room
 *             is first asked for, and made again from the segments when it cannot be trusted, because a thread died while it
 *             changed both.
 *
 *               segments    |  room  |     |   room   | room |
 *               arena       |  busy  |free |   busy   | busy | free
 *
 * INVARIANTS  I1 while `arena` of the space names it and no slot but the holder of the space is `changing` it, its allocations
 *                are the rooms of the segments.
 * LOCKING     The space is held exclusively; the arena is made before, since the list of arenas comes first in the lock order.
 * COSTS       Those of the arena; making it anew is linear in the segments.
 * FAILURE     -1 and false when there is no room.
 * REJECTED    A search of the tree for gaps: linear, or one more value in every segment. Copying the arena at a fork.
 * REFERENCES  illumos as_gap; vmem of kernel address space (heap_arena).
 */

import { fail, type VmError } from '../base/errors.ts';
import type { Arena, Arenas } from '../vmem/index.ts';
import type { SegmentTree } from './segment-tree.ts';
import type { SpaceCore } from './space-core.ts';
import { SPACE_FLAG, type SpaceIndex } from './space-kinds.ts';

/** Where new room must lie. */
export interface RoomRequest {
  readonly size: number;
  /** Bytes kept free on both sides. */
  readonly guard: number;
  readonly align: number;
  /** Lowest address. */
  readonly min: number;
  /** Highest address. */
  readonly max: number;
}

/** Room as one thread asks for it. */
export class SpaceRoom {
  private readonly core: SpaceCore;
  private readonly tree: SegmentTree;
  private readonly arenas: Arenas;

  constructor(core: SpaceCore, tree: SegmentTree, arenas: Arenas) {
    this.core = core;
    this.tree = tree;
    this.arenas = arenas;
  }

  /** The arena of a live space, made if there is none. Called without locks. Throws `ESTALE`. */
  open(call: string, space: SpaceIndex, generation: number): Arena {
    const name = nameOf(space, generation);
    for (;;) {
      try {
        return this.arenas.open(name);
      } catch (error) {
        if ((error as VmError).code !== 'ENOENT') throw error;
      }
      if (!this.core.isLive(space, generation)) {
        fail('ESTALE', call, { space, generation }, 'the address space was destroyed');
      }
      try {
        const arena = this.arenas.createForSystem(name, { quantum: this.core.pageSize });
        if (this.core.isLive(space, generation)) return arena;
        // It was taken apart between the two looks, and may not have seen the arena.
        this.drop(name);
      } catch (error) {
        // Another thread was faster.
        if ((error as VmError).code !== 'EEXIST') throw error;
      }
    }
  }

  /** Begins a change of segments and arena. The space is held exclusively. */
  begin(space: SpaceIndex, arena: Arena): void {
    const { slots, spaces, thread } = this.core;
    const isTrusted =
      spaces.arena.get(space) === arena.index + 1 &&
      spaces.arenaGeneration.get(space) === arena.generation &&
      !this.isChangedByDead(space);
    slots.changing.put(thread.slot, space + 1);
    if (isTrusted) return;
    arena.xfreeAll();
    if (arena.size('all') === 0) this.addSpans(space, arena);
    const { roomStart, roomEnd } = this.core.segments;
    for (const segment of this.tree.list(space)) {
      // A segment that was attached outside the limits takes no room.
      this.reserve(arena, roomStart.get(segment), roomEnd.get(segment));
    }
    thread.journal.set(spaces.arenaGeneration, space, arena.generation);
    thread.journal.set(spaces.arena, space, arena.index + 1);
    thread.commit();
  }

  /** Says that segments were cut in two without the arena: it is made anew when it is needed. */
  forget(space: SpaceIndex): void {
    const { spaces, thread } = this.core;
    thread.journal.set(spaces.arena, space, 0);
    thread.commit();
  }

  /** Ends a change: segments and arena agree. */
  end(): void {
    this.core.slots.changing.put(this.core.thread.slot, 0);
  }

  /** First address of a segment in new room, or -1. */
  take(arena: Arena, request: RoomRequest): number {
    const { size, guard, align, min, max } = request;
    const room = arena.tryXalloc(size + 2 * guard, {
      ...(align > this.core.pageSize ? { align, phase: (align - (guard % align)) % align } : {}),
      ...(min > 0 ? { min: Math.max(0, min - guard) } : {}),
      ...(max < Number.MAX_SAFE_INTEGER ? { max: Math.min(Number.MAX_SAFE_INTEGER, max + guard) } : {}),
    });
    return room < 0 ? -1 : room + guard;
  }

  /** Takes certain room; false when some of it is taken. */
  reserve(arena: Arena, start: number, end: number): boolean {
    return arena.tryReserve(start, end - start);
  }

  /** Gives the room of a segment back, but for what is left of the segment. */
  giveBack(space: SpaceIndex, arena: Arena, start: number, end: number): void {
    arena.xfree(start, end - start);
    const { roomStart, roomEnd } = this.core.segments;
    for (let segment = this.tree.firstIn(space, start, end); segment >= 0; ) {
      this.reserve(arena, roomStart.get(segment), roomEnd.get(segment));
      segment = this.tree.firstIn(space, roomEnd.get(segment), end);
    }
  }

  /** Ends the arena of a space that is going. Called without locks, when no segment is left. */
  destroy(space: SpaceIndex): void {
    this.drop(nameOf(space, this.core.spaces.generation.get(space)));
  }

  /** Ends arenas that a thread has made for spaces that were gone, and died. */
  sweep(): void {
    const { generation, rowCount } = this.core.spaces;
    for (const { name } of this.arenas.list()) {
      const [, space, made] = NAME.exec(name) ?? [];
      if (space === undefined || Number(space) >= rowCount) continue;
      if (generation.get(Number(space)) !== Number(made)) this.drop(name);
    }
  }

  private drop(name: string): void {
    try {
      if (!this.arenas.has(name)) return;
      const arena = this.arenas.open(name);
      arena.xfreeAll();
      arena.destroy();
    } catch (error) {
      // Another thread was faster.
      if (!['ENOENT', 'ESTALE'].includes((error as VmError).code)) throw error;
    }
  }

  /** Throws the error for room that cannot be had. */
  failNoRoom(call: string, request: RoomRequest): never {
    return fail('ENOMEM', call, { ...request }, 'there is no such room in the address space');
  }

  /** The addresses of the space as spans: those of its hole are in none. */
  private addSpans(space: SpaceIndex, arena: Arena): void {
    const { spaces } = this.core;
    const isKernel = (spaces.flags.get(space) & SPACE_FLAG.kernel) !== 0;
    const base = spaces.base.get(space);
    const end = isKernel ? spaces.limit.get(space) : Math.min(spaces.limit.get(space), spaces.userLimit.get(space));
    const holeStart = Math.min(Math.max(base, spaces.holeStart.get(space)), end);
    const holeEnd = Math.max(holeStart, Math.min(spaces.holeEnd.get(space), end));
    if (holeStart === holeEnd) {
      arena.add(base, end - base);
      return;
    }
    if (holeStart > base) arena.add(base, holeStart - base);
    if (holeEnd < end) arena.add(holeEnd, end - holeEnd);
  }

  /** True when a dead thread left the arena in the middle of a change: nobody alive changes it beside the caller. */
  private isChangedByDead(space: SpaceIndex): boolean {
    const { slots, thread } = this.core;
    const { slots: count } = thread.region.geometry;
    for (let slot = 0; slot < count; slot++) {
      if (slot !== thread.slot && slots.changing.get(slot) === space + 1) return true;
    }
    return slots.changing.get(thread.slot) === space + 1;
  }
}

const NAME = /^vm\.space (\d+)\.(\d+)$/;

function nameOf(space: SpaceIndex, generation: number): string {
  return `vm.space ${space}.${generation}`;
}
