/** Threads that wait for units of a counted resource, through the queue and the waiting of arenas. */

import { GEOMETRY_KEYS, type Geometry } from '../../../src/layout/geometry.ts';
import { Region } from '../../../src/layout/region.ts';
import { FOREVER } from '../../../src/sync/atomics.ts';
import type { Journal } from '../../../src/sync/journal.ts';
import { mutexEnter, mutexExit } from '../../../src/sync/mutex.ts';
import { RANK } from '../../../src/sync/ranks.ts';
import { claimSlot } from '../../../src/sync/slots.ts';
import { takeOver } from '../../../src/sync/takeover.ts';
import { Thread } from '../../../src/sync/thread.ts';
import type { ArenaCore } from '../../../src/vmem/arena-core.ts';
import {
  announceSpace,
  checkQueue,
  joinQueue,
  NO_WAITER,
  passWaiters,
  recoverQueue,
  type WaiterIndex,
} from '../../../src/vmem/space-queue.ts';
import { allocateAsync, allocateWait, type SpaceRequest } from '../../../src/vmem/waiting.ts';
import { digestThreads, type Scenario } from '../scenario.ts';

const SMALL: Partial<Geometry> = {
  slots: 5,
  slotLanes: 1,
  lockLanes: 2,
  heldLanes: 17,
  journalLanes: 65,
  tagBuckets: 8,
  arenas: 1,
  spaceWaiters: 3,
};

/** Words of the resource: its lock, what is free, and what each thread has. */
const WORD = { lock: 0, free: 1, held: 2, counted: 7 } as const;

/** What the threads do. */
export interface SpaceOptions {
  /**
   * What each thread does, in order: `1` and `2` wait for so many units, `!` waits for one with a time limit, `a` waits for
   * one in an event loop, `n` tries for one without waiting, `f` gives back the newest that it has.
   */
  readonly programs: readonly string[];
  /** Units there are in all. */
  readonly units: number;
  /** Units that the first thread has from the start. */
  readonly taken?: number;
  readonly mortal?: readonly number[];
  /** Units that an event loop waits for, from the start, which is busy with something else and never tries. */
  readonly stuck?: number;
}

/** What the queue and the waiting need of an arena; the rest of an arena is not used here. */
class Resource {
  readonly thread: Thread;
  readonly journal: Journal;
  readonly tables: Region['tables'];
  readonly words: Int32Array;
  readonly waitersAt: number;
  readonly row = 0;
  readonly name = 'resource';
  readonly quantum = 1;
  readonly inverseQuantum = 1;
  readonly flags = 0;
  readonly asyncImports = false;
  readonly importArena = -1;
  readonly generation = 0;
  held = false;

  constructor(thread: Thread) {
    this.thread = thread;
    this.journal = thread.journal;
    this.tables = thread.region.tables;
    this.words = thread.words;
    this.waitersAt = thread.region.tables.spaceQueue.count.address(0);
  }

  get core(): ArenaCore {
    return this as unknown as ArenaCore;
  }

  enter(): void {
    mutexEnter(this.thread, this.tables.bucket.head.address(WORD.lock), RANK.arena);
  }

  exit(): void {
    mutexExit(this.thread, this.tables.bucket.head.address(WORD.lock));
  }

  /** Stores, as the one of arenas does. */
  count(): void {
    this.tables.bucket.head.put(WORD.counted, 1);
  }

  move(size: number): void {
    const { head } = this.tables.bucket;
    this.journal.set(head, WORD.free, head.get(WORD.free) - size);
    this.journal.set(head, WORD.held + this.thread.slot, head.get(WORD.held + this.thread.slot) + size);
  }

  take(size: number, row: WaiterIndex): number {
    this.enter();
    const free = this.tables.bucket.head.get(WORD.free);
    const found = free >= size;
    const allowed = found && (this.words[this.waitersAt] === 0 || this.mayPass(size, row, free));
    if (allowed) this.move(size);
    this.held = found && !allowed;
    this.exit();
    return allowed ? 0 : -1;
  }

  mayPass(size: number, row: WaiterIndex, free: number): boolean {
    const { spaceWaiter: rows } = this.tables;
    const deprived = (other: WaiterIndex) => rows.size.get(other) <= free && rows.size.get(other) > free - size;
    return passWaiters(this.core, size, row, (ahead) => ahead.filter(deprived));
  }

  give(size: number): void {
    this.enter();
    this.move(-size);
    this.exit();
    announceSpace(this.core);
  }
}

/** A request for units. */
class Request implements SpaceRequest {
  readonly call = 'wait';
  readonly constraints = null;
  readonly cached = false;
  readonly size: number;
  readonly resource: Resource;

  constructor(resource: Resource, size: number) {
    this.resource = resource;
    this.size = size;
  }

  get core(): ArenaCore {
    return this.resource.core;
  }

  attempt(row: WaiterIndex): number {
    return this.resource.take(this.size, row);
  }

  press(): void {}

  seek(): void {}

  failures(): number {
    return 0;
  }

  failIfImportFailed(): void {}

  failIfNeverAllowed(): void {}

  limits(): string {
    return '';
  }

  quietMs(): number {
    return FOREVER;
  }
}

/** See the file's header. */
export class SpaceWorld implements Scenario {
  readonly threads: number;
  readonly mortal: readonly number[];
  readonly options: SpaceOptions;
  readonly members: Thread[] = [];
  readonly resources: Resource[] = [];
  stuckRow = -1;
  region!: Region;
  words!: Int32Array;

  constructor(options: SpaceOptions) {
    this.options = options;
    this.threads = options.programs.length;
    this.mortal = options.mortal ?? [];
  }

  setUp(): void {
    const zeros = Object.fromEntries(GEOMETRY_KEYS.map((key) => [key, 0]));
    this.region = Region.create({ ...zeros, ...SMALL } as Geometry, { spinLimit: 1, virtualClock: true });
    this.words = this.region.words;
    for (let thread = 0; thread <= this.threads; thread++) {
      const member = new Thread(this.region, claimSlot(this.region, thread + 1), FOREVER);
      this.members.push(member);
      this.resources.push(new Resource(member));
    }
    const { head } = this.region.tables.bucket;
    const { units, taken = 0 } = this.options;
    head.put(WORD.free, units - taken);
    head.put(WORD.held, taken);
    const { stuck: size } = this.options;
    const busy = this.resources[this.threads] as Resource;
    if (size !== undefined) this.stuckRow = joinQueue(busy.core, { size, constraints: null, cached: false });
  }

  async run(thread: number): Promise<void> {
    const resource = this.resources[thread] as Resource;
    const mine: number[] = [];
    const program = this.options.programs[thread] as string;
    for (let unit = 0; unit < this.held(thread); unit++) mine.push(1);
    for (let step = 0; step < program.length; step++) {
      const letter = program[step];
      if (letter === 'f') {
        const size = mine.pop();
        if (size !== undefined) resource.give(size);
      } else if (letter === 'n') {
        if (resource.take(1, NO_WAITER) >= 0) mine.push(1);
      } else if (letter === 'a') {
        await allocateAsync(new Request(resource, 1), {});
        mine.push(1);
      } else if (letter === '!') {
        if (this.waitAWhile(resource)) mine.push(1);
      } else {
        const size = Number(letter);
        allocateWait(new Request(resource, size), {});
        mine.push(size);
      }
    }
  }

  waitAWhile(resource: Resource): boolean {
    try {
      allocateWait(new Request(resource, 1), { timeoutMs: 10 });
      return true;
    } catch (error) {
      if (!/ETIMEDOUT/.test(String(error))) throw error;
      return false;
    }
  }

  /** What the dead thread had goes back as well, as a program does that knows that nobody uses it. */
  recover(dead: number): void {
    const self = this.members[this.threads] as Thread;
    takeOver(self, dead, [(_self, slot) => recoverQueue(self, slot)]);
    const { head } = this.region.tables.bucket;
    const resource = this.resources[this.threads] as Resource;
    resource.enter();
    const left = head.get(WORD.held + dead);
    self.journal.set(head, WORD.held + dead, 0);
    self.journal.set(head, WORD.free, head.get(WORD.free) + left);
    resource.exit();
    if (left > 0) announceSpace(resource.core);
  }

  passTime(): void {
    this.region.tables.header.virtualTime.put(0, 1e9);
  }

  digest(into: number[]): void {
    const { bucket, spaceWaiter: rows, spaceQueue: queue, header } = this.region.tables;
    into.push(header.poison.get(0), header.virtualTime.get(0));
    for (let row = 0; row < bucket.rowCount; row++) into.push(bucket.head.get(row));
    into.push(queue.lock.get(0), queue.count.get(0), queue.ticketNext.get(0));
    for (let row = 0; row < rows.rowCount; row++) {
      into.push(
        rows.state.get(row),
        rows.slot.get(row),
        rows.order.get(row),
        rows.overtaken.get(row),
        rows.ticket.get(row),
      );
    }
    digestThreads(this.members, into);
  }

  verdict(dead: number): string | null {
    const { head } = this.region.tables.bucket;
    const { spaceWaiter: rows, slot, journal } = this.region.tables;
    const problems = checkQueue(this.members[this.threads] as Thread);
    if (problems.length > 0) return problems.join('; ');
    if (head.get(WORD.lock) !== 0) return 'the lock of the resource is still held';
    let held = 0;
    for (let thread = 0; thread < this.threads; thread++) held += this.held(thread);
    if (head.get(WORD.free) + held !== this.options.units) return `${head.get(WORD.free)} free and ${held} held`;
    for (let row = 0; row < rows.rowCount; row++) {
      if (rows.slot.get(row) !== 0 && row !== this.stuckRow) return `row ${row} still waits`;
    }
    for (let thread = 0; thread < this.threads; thread++) {
      if (slot.held.at(thread, 0) !== 0) return `slot ${thread} has held-lock records left`;
      if (journal.entries.at(thread, 0) !== 0) return `slot ${thread} has journal entries left`;
    }
    if (dead >= 0 && slot.claim.get(dead) !== 0) return `slot ${dead} cannot be claimed again`;
    return null;
  }

  held(thread: number): number {
    return this.region.tables.bucket.head.get(WORD.held + thread);
  }
}
