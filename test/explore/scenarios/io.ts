/**
 * Threads that ask an I/O worker for the bytes of frames, the worker that serves them, and their deaths. The last thread is
 * the worker; the monitor's slot is the keeper's too.
 */

import { VmError } from '../../../src/base/errors.ts';
import { GEOMETRY_KEYS, type Geometry } from '../../../src/layout/geometry.ts';
import { Region } from '../../../src/layout/region.ts';
import { add, FOREVER, load, notify, store } from '../../../src/sync/atomics.ts';
import { sleepOn } from '../../../src/sync/sleep.ts';
import { claimSlot } from '../../../src/sync/slots.ts';
import { takeOver } from '../../../src/sync/takeover.ts';
import { Thread } from '../../../src/sync/thread.ts';
import { IO_OPERATION, IO_ROLE, IO_STATE, IoRequests, recoverIo, setIoKeeper } from '../../../src/vnode/io-requests.ts';
import { digestThreads, type Scenario } from '../scenario.ts';

/** Words of `bucket.head`, one of each for every asker. */
const CONTENTS = 0;
/** The asker + 1 that holds the frame, or what has become of it. */
const HOLDER = 8;
/** 1 for each asker that is through. */
const OVER = 16;
/** Never written: a place to be preempted at. */
const IDLE = 24;
const WORDS = 25;

/** Somebody else has the frame by now. */
const TAKEN_BACK = 99;

const SMALL: Partial<Geometry> = {
  slots: 5,
  slotLanes: 1,
  lockLanes: 2,
  heldLanes: 17,
  journalLanes: 13,
  tagBuckets: WORDS,
};

/** What happens. */
export interface IoOptions {
  /** Questions of each asker, one after another. */
  readonly questions: readonly number[];
  /** Rows for requests. */
  readonly rows: number;
  readonly mortal?: readonly number[];
  /** Answers that are failures. */
  readonly fails?: boolean;
}

/** See the file's header. */
export class IoWorld implements Scenario {
  readonly threads: number;
  readonly mortal: readonly number[];
  readonly options: IoOptions;
  readonly members: Thread[] = [];
  region!: Region;
  words!: Int32Array;

  constructor(options: IoOptions) {
    this.options = options;
    this.threads = options.questions.length + 1;
    this.mortal = options.mortal ?? [];
  }

  setUp(): void {
    const zeros = Object.fromEntries(GEOMETRY_KEYS.map((key) => [key, 0]));
    const geometry = { ...zeros, ...SMALL, vnodes: 1, ioRequests: this.options.rows } as Geometry;
    this.region = Region.create(geometry, { spinLimit: 1, virtualClock: true });
    this.words = this.region.words;
    for (let thread = 0; thread <= this.threads; thread++) {
      this.members.push(new Thread(this.region, claimSlot(this.region, thread + 1), FOREVER));
    }
    setIoKeeper(this.region, this.member(this.threads).slot);
  }

  run(thread: number): void {
    const io = new IoRequests(this.member(thread));
    if (thread === this.threads - 1) this.serve(io);
    else this.askAll(io, thread);
  }

  /** Holds its frame, asks for the bytes, looks at them, gives the frame away. */
  askAll(io: IoRequests, asker: number): void {
    const frames = new Int32Array([asker]);
    for (let n = 1; n <= (this.options.questions[asker] as number); n++) {
      store(this.words, this.address(HOLDER + asker), asker + 1);
      const question = { role: IO_ROLE.remote, operation: IO_OPERATION.fill, vnode: -1, first: n, count: 1 };
      let answer = -1;
      try {
        answer = io.ask(question, frames)[0] as number;
      } catch (error) {
        if (!this.mayFail(error)) throw error;
      }
      // The text of a failure is bytes, which exploration does not follow: the lane is then the one that was asked with.
      const hasFailed = answer === asker && (this.options.fails === true || this.mortal.includes(this.threads - 1));
      if (answer >= 0 && !hasFailed) {
        const expected = 10 * asker + n;
        if (answer !== expected) throw new Error(`asker ${asker} was answered ${answer} instead of ${expected}`);
        if (this.word(CONTENTS + asker) !== expected)
          throw new Error(`asker ${asker} was given ${this.word(CONTENTS + asker)}`);
      }
      store(this.words, this.address(HOLDER + asker), 0);
      store(this.words, this.address(CONTENTS + asker), 0);
    }
    this.finish(asker);
  }

  /** Failures that are right: the answer is one, the worker has ended, or all rows are taken. */
  mayFail(error: unknown): boolean {
    if (!(error instanceof VmError)) return false;
    if (error.code === 'ENOMEM') return this.options.rows < this.threads - 1;
    return error.code === 'EIO' || (error.code === 'ENOTSUP' && this.mortal.includes(this.threads - 1));
  }

  /** Takes requests until all askers are through. */
  serve(io: IoRequests): void {
    for (;;) {
      const { address, rings } = io.bell(IO_ROLE.remote);
      const row = io.next(IO_ROLE.remote);
      if (row >= 0) this.serveOne(io, row);
      else if (this.areAllOver()) return;
      else {
        sleepOn(this.member(this.threads - 1), address, rings, FOREVER);
        this.member(this.threads - 1).clearWait();
      }
    }
  }

  serveOne(io: IoRequests, row: number): void {
    const { ioRequest } = this.region.tables;
    const asker = ioRequest.lanes.at(row, 0);
    const value = 10 * asker + ioRequest.first.get(row);
    io.copying(row, () => {
      this.requireHeld(asker);
      load(this.words, this.address(IDLE));
      store(this.words, this.address(CONTENTS + asker), value);
      this.requireHeld(asker);
    });
    if (this.options.fails) {
      io.answer(row, new VmError('EIO', 'no'));
      return;
    }
    ioRequest.lanes.putAt(row, 0, value);
    io.answer(row);
  }

  /** What the worker stores into must be held by who asked. */
  requireHeld(asker: number): void {
    const holder = this.word(HOLDER + asker);
    if (holder !== asker + 1) throw new Error(`a copy goes into frame ${asker}, which ${holder} has`);
  }

  areAllOver(): boolean {
    for (let asker = 0; asker < this.threads - 1; asker++) {
      if (load(this.words, this.address(OVER + asker)) === 0) return false;
    }
    return true;
  }

  /** One asker fewer: the worker looks. */
  finish(asker: number): void {
    const { bell } = this.region.tables.ioService;
    store(this.words, this.address(OVER + asker), 1);
    add(this.words, bell.address(0, IO_ROLE.remote), 1);
    notify(this.words, bell.address(0, IO_ROLE.remote), FOREVER);
  }

  recover(dead: number): void {
    const self = this.member(this.threads);
    takeOver(self, dead, [recoverIo]);
    if (dead === this.threads - 1) {
      new IoRequests(self).failAll(IO_ROLE.remote, 'the worker has ended');
      setIoKeeper(this.region, -1);
      return;
    }
    // As the recovery of pages does it: the frame goes to somebody else.
    store(this.words, this.address(HOLDER + dead), TAKEN_BACK);
    store(this.words, this.address(CONTENTS + dead), TAKEN_BACK);
    this.finish(dead);
  }

  passTime(): void {
    this.region.tables.header.virtualTime.put(0, 1e9);
  }

  digest(into: number[]): void {
    const { bucket, ioRequest, ioService } = this.region.tables;
    for (let row = 0; row < WORDS; row++) into.push(bucket.head.get(row));
    for (let row = 0; row < ioRequest.rowCount; row++) {
      into.push(ioRequest.state.get(row), ioRequest.slot.get(row), ioRequest.server.get(row), ioRequest.first.get(row));
      into.push(ioRequest.role.get(row), ioRequest.lanes.at(row, 0));
    }
    into.push(ioService.bell.at(0, IO_ROLE.remote), ioService.keeper.get(0));
    digestThreads(this.members, into);
  }

  verdict(dead: number): string | null {
    const { ioRequest, slot } = this.region.tables;
    for (let row = 0; row < ioRequest.rowCount; row++) {
      const state = ioRequest.state.get(row);
      // What was asked and never taken when the worker ended is freed by whoever asked.
      if (state !== IO_STATE.free) return `row ${row} is left in state ${state}`;
    }
    if (dead >= 0 && dead < this.threads - 1 && this.word(CONTENTS + dead) !== TAKEN_BACK) {
      return `the frame of the dead asker holds ${this.word(CONTENTS + dead)}`;
    }
    if (dead >= 0 && slot.claim.get(dead) !== 0) return `slot ${dead} cannot be claimed again`;
    return null;
  }

  address(row: number): number {
    return this.region.tables.bucket.head.address(row);
  }

  word(row: number): number {
    return this.region.tables.bucket.head.get(row);
  }

  member(thread: number): Thread {
    return this.members[thread] as Thread;
  }
}
