/**
 * One of several workers that race for one address space, in a role of its own, until it is told to stop.
 *
 * chain   copies a number from the page before to its own page, in all ways of storing: in any snapshot numbers only fall
 *         from page to page
 * device  maps the cookie that is published, pins it, stores through the pin and through the mapping, and looks at what it has
 *         stored for as long as the pin lives
 * file    pins pages of a file that others cut and lengthen, and looks whether they stay what they are
 */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng, VmError } from 'pagewright/base';
import type { AddressSpace, AddressSpaceId, SpacePin } from 'pagewright/seg';
import { add, load, store } from 'pagewright/sync';

const PAGE = 4096;

/** Words of `control`. The cookie is published by an odd number of its turn. */
export const RACE = { stop: 0, turn: 1, cookie: 2, generation: 3, frames: 4, done: 5, steps: 8 } as const;

/** What the test tells a worker. */
export interface SpaceRacerData {
  readonly role: 'chain' | 'device' | 'file';
  readonly space: AddressSpaceId;
  readonly number: number;
  readonly seed: number;
  readonly control: Int32Array;
  /** chain: addresses of all its pages. file: the first address. */
  readonly addresses: readonly number[];
}

/** What it says when it has stopped. */
export interface SpaceRacerResult {
  readonly wrong: readonly string[];
  readonly contended: number;
  readonly done: Readonly<Record<string, number>>;
}

/** Errors that the others may cause. */
const ALLOWED = ['EFAULT', 'EBUSY', 'ESTALE', 'ENOMEM', 'ETIMEDOUT'];

class Racer {
  readonly vm = attach(workerData.vm);
  readonly data = workerData as SpaceRacerData;
  readonly random = new Prng(this.data.seed, this.data.number);
  readonly as: AddressSpace = this.vm.addressSpace(this.data.space);
  readonly cursor = this.as.cursor({ pages: 4 });
  readonly wrong: string[] = [];
  readonly done: Record<string, number> = {};
  /** Goes on from those of a worker that ended before. */
  steps = load(this.data.control, RACE.steps + this.data.number);

  say(what: string): void {
    if (this.wrong.length < 10) this.wrong.push(`worker ${this.data.number}, step ${this.steps}: ${what}`);
  }

  /** One link of the chain: what the page before holds, or one more at its beginning. */
  chain(): string {
    const { as, data, random, cursor } = this;
    const { addresses, number } = data;
    const own = addresses[number] as number;
    const held = as.load(own);
    const next = number === 0 ? held + 1 : as.load(addresses[number - 1] as number);
    if (next < held) this.say(`the page before holds ${next}, the own one ${held} already`);
    const way = random.below(5);
    if (way === 0) as.store(own, next);
    else if (way === 1) cursor.store(own, next);
    else if (way === 2) as.write(own, new Uint8Array(Int32Array.of(next).buffer));
    else if (way === 3) {
      if (as.compareAndSwap(own, held, next) !== held) this.say('somebody else has stored into the own page');
    } else as.add(own, next - held);
    return 'chain';
  }

  device(): string {
    const { as, data, random } = this;
    const turn = load(data.control, RACE.turn);
    if (turn % 2 === 0) return 'none';
    const at = (name: 'cookie' | 'generation' | 'frames') => load(data.control, RACE[name]);
    const cookie = { cookie: at('cookie'), generation: at('generation'), frames: at('frames') };
    if (load(data.control, RACE.turn) !== turn) return 'none';
    const size = cookie.frames * PAGE;
    const mapped = as.map({ size, cookie });
    try {
      // Each worker has a page of its own, and stores into another one besides, which is not pinned.
      const page = mapped + data.number * PAGE;
      const pin = as.pin(page, PAGE, 'write');
      try {
        this.useDevice(pin, page + 2 * PAGE);
      } finally {
        pin.release();
      }
      if (random.chance(0.3)) as.store(page + 2 * PAGE, this.steps);
    } finally {
      as.unmap(mapped, size, { timeoutMs: 5000 });
    }
    return 'device';
  }

  useDevice(pin: SpacePin, beside: number): void {
    const { as, random } = this;
    const [view] = pin.views;
    const words = new Int32Array((view as Uint8Array).buffer, (view as Uint8Array).byteOffset, PAGE / 4);
    const stamp = (this.data.number + 1) * 1_000_000 + this.steps;
    words.fill(stamp);
    for (let look = random.below(20); look >= 0; look--) {
      if (words.some((word) => word !== stamp)) this.say('what a pin has stored was changed below it');
      as.store(beside, stamp);
      if (as.load(beside) !== stamp) this.say('the mapping of a pinned cookie shows something else');
    }
  }

  /** Pages of the file hold their number, or zeros when they were cut off and came back. */
  file(): string {
    const { as, data, random } = this;
    const page = random.below(8);
    const address = (data.addresses[0] as number) + page * PAGE;
    const pin = as.pin(address, PAGE, random.chance(0.5) ? 'write' : 'read');
    try {
      const [view] = pin.views as [Uint8Array];
      for (let look = random.below(20); look >= 0; look--) {
        const [first, last] = [view[0] as number, view[PAGE - 1] as number];
        for (const byte of [first, last]) if (byte !== 0 && byte !== page + 1) this.say(`page ${page} holds ${byte}`);
      }
    } finally {
      pin.release();
    }
    return 'file';
  }

  step(): void {
    let key: string;
    try {
      key = this[this.data.role]();
      if (key === this.data.role) add(this.data.control, RACE.done, 1);
    } catch (error) {
      if (!(error instanceof VmError && ALLOWED.includes(error.code))) throw error;
      key = error.code;
    }
    this.done[key] = (this.done[key] ?? 0) + 1;
  }

  loop(): void {
    const { control, number } = this.data;
    for (let turn = 0; turn < 20 && this.wrong.length === 0; turn++) {
      this.step();
      store(control, RACE.steps + number, ++this.steps);
    }
    if (this.wrong.length === 0 && load(control, RACE.stop) === 0) {
      setImmediate(() => this.loop());
      return;
    }
    const { wrong, done } = this;
    this.cursor.release();
    const contended = this.vm.region.tables.slot.contended.get(this.vm.slot);
    this.vm.detach();
    parentPort?.postMessage({ wrong, contended, done } satisfies SpaceRacerResult);
  }
}

if (parentPort !== null && workerData?.control !== undefined) {
  const racer = new Racer();
  parentPort.postMessage({ slot: racer.vm.slot });
  racer.loop();
}
