/**
 * Uses one address space, and forks of it, in every way at once until told to stop: maps, unmaps, protects, writes, swaps words,
 * gives pages up, pins, forks, and looks at everything.
 *
 * Every page says whose it is, which version it has, and has contents that follow from both. Each worker writes pages of its own,
 * which all others read, and says in `control` what it has acknowledged. It also counts in two cells of far pages, first in A
 * and then in B: a snapshot in which A - B is neither 0 nor 1 was torn.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng, VmError } from 'pagewright/base';
import type { AddressSpace, AddressSpaceId, SharedMemoryId, SpacePin } from 'pagewright/seg';
import { add, compareExchange, load, store } from 'pagewright/sync';
import { AT, CELL_PAGES, FORK_WORDS, OWN_PAGES, PAGE, PLACES, WORD, WORKERS_MAX } from '../support/space-plan.ts';
import { isStamped, stampPage, versionOf } from '../support/stamps.ts';

/** What the test tells a worker. */
export interface SpaceChurnData {
  readonly space: AddressSpaceId;
  readonly memory: SharedMemoryId;
  readonly wired: SharedMemoryId;
  readonly path: string;
  readonly number: number;
  readonly seed: number;
  readonly control: Int32Array;
  /** Pages of a mapping of its own at most. */
  readonly sizeMax: number;
}

/** What it says when it has stopped. */
export interface SpaceChurnResult {
  readonly steps: number;
  readonly wrong: readonly string[];
  readonly contended: number;
  readonly done: Readonly<Record<string, number>>;
}

/** Errors that another worker, or a lack of memory, may cause. */
const ALLOWED = ['ENOMEM', 'EBUSY', 'EFAULT', 'EEXIST', 'ESTALE', 'ETIMEDOUT', 'EIO', 'ENOSPC'];

/** Pins that a worker holds at a time. */
const PINS_MAX = 3;

/** A mapping of the worker's own: its pages have version `version`, unless unmapped. */
interface OwnMapping {
  readonly at: number;
  readonly pages: number;
  /** Number of the first page's stamp. */
  readonly index: number;
  readonly version: number;
  readonly mapped: boolean[];
}

class Churn {
  readonly vm = attach(workerData.vm);
  readonly data: SpaceChurnData;
  readonly random: Prng;
  readonly as: AddressSpace;
  readonly control: Int32Array;
  readonly bytes = new Uint8Array(PAGE);
  readonly wrong: string[] = [];
  readonly done: Record<string, number> = {};
  readonly mappings: OwnMapping[] = [];
  readonly pins: { readonly pin: SpacePin; readonly page: number; readonly write: boolean }[] = [];
  steps = 0;

  constructor(data: SpaceChurnData) {
    this.data = data;
    this.control = data.control;
    this.random = new Prng(data.seed, data.number);
    this.as = this.vm.addressSpace(data.space);
    this.resume();
  }

  /** What a worker that died before left: pages whose last write was not acknowledged, and a cell A that is ahead of B. */
  resume(): void {
    for (let page = 0; page < OWN_PAGES; page++) {
      const index = this.own(page);
      const version = this.look(AT.own + index * PAGE, index);
      const known = load(this.control, WORD.versions + index);
      if (version !== known && version !== known + 1) this.say(`page ${index} has version ${version}, not ${known}`);
      store(this.control, WORD.versions + index, version);
    }
    const [a, b] = [this.as.load(this.cell(0)), this.as.load(this.cell(1))];
    if (a !== b && a !== b + 1) this.say(`the cells hold ${a} and ${b}`);
    this.as.store(this.cell(1), a);
  }

  say(what: string): void {
    if (this.wrong.length < 10) this.wrong.push(`seed ${this.data.seed}, step ${this.steps}: ${what}`);
  }

  own(page: number): number {
    return this.data.number * OWN_PAGES + page;
  }

  cell(which: 0 | 1, number = this.data.number): number {
    return AT.cells + (number * CELL_PAGES + which * (CELL_PAGES - 1)) * PAGE;
  }

  /** The version of a page that is wholly as it must be, else -1. */
  look(address: number, index: number, as = this.as): number {
    as.read(address, this.bytes);
    return versionOf(this.bytes, index);
  }

  write(): void {
    const index = this.own(this.random.below(OWN_PAGES));
    const version = load(this.control, WORD.versions + index) + 1;
    stampPage(this.bytes, index, version);
    this.as.write(AT.own + index * PAGE, this.bytes);
    store(this.control, WORD.versions + index, version);
  }

  read(): void {
    const index = this.own(this.random.below(OWN_PAGES));
    const version = this.look(AT.own + index * PAGE, index);
    const known = load(this.control, WORD.versions + index);
    if (version !== known) this.say(`page ${index} has version ${version}, not ${known}`);
  }

  /** Pages of others may be written meanwhile, but are always theirs. */
  readOthers(): void {
    const index = this.random.below(WORKERS_MAX * OWN_PAGES);
    this.as.read(AT.own + index * PAGE, this.bytes);
    if (!isStamped(this.bytes, index)) this.say(`page ${index} holds something else`);
  }

  count(): void {
    this.as.add(this.cell(0), 1);
    this.as.add(this.cell(1), 1);
  }

  swapWords(): void {
    for (;;) {
      const found = this.as.load(AT.shared);
      add(this.control, WORD.swapsTried, 1);
      if (this.as.compareAndSwap(AT.shared, found, found + 1) === found) break;
    }
    add(this.control, WORD.swapsDone, 1);
    const slow = AT.file + this.data.number * 64;
    this.as.add(slow, 1);
  }

  map(): void {
    if (this.mappings.length >= 3) {
      this.unmap();
      return;
    }
    const { random, as, vm, data } = this;
    const pages = random.between(1, data.sizeMax);
    const size = pages * PAGE;
    const guard = random.below(2) * PAGE;
    const min = AT.free;
    const choice = random.below(6);
    // Two mappings may show the same shared page.
    const version = choice === 1 ? 1 : this.steps;
    let at: number;
    if (choice === 0) {
      const file = vm.open(data.path);
      try {
        at = as.map({ size: Math.min(pages, 8) * PAGE, guard, min, file, reserve: false, offset: 8 * PAGE });
      } finally {
        file.close();
      }
    } else if (choice === 1) {
      const memory = vm.sharedMemory(random.chance(0.5) ? data.memory : data.wired);
      at = as.map({ size: PAGE, guard, min, memory, offset: (1 + data.number) * PAGE });
    } else {
      at = as.map({ size, guard, min, align: 2 ** random.between(12, 16), reserve: random.chance(0.5) });
    }
    const mapped = choice === 0 ? Math.min(pages, 8) : choice === 1 ? 1 : pages;
    const index = choice === 1 ? data.number : at / PAGE;
    const mapping = { at, pages: mapped, index, version, mapped: new Array<boolean>(mapped).fill(true) };
    try {
      for (let page = 0; page < mapped; page++) {
        stampPage(this.bytes, index + page, version);
        as.write(at + page * PAGE, this.bytes);
      }
    } catch (error) {
      as.unmap(at, mapped * PAGE);
      throw error;
    }
    this.mappings.push(mapping);
  }

  /** Unmaps a part, looks at the rest; an empty mapping goes. */
  unmap(): void {
    const { random, as } = this;
    if (this.mappings.length === 0) return;
    const mapping = random.pick(this.mappings);
    const first = random.below(mapping.pages);
    // What was unmapped before may be somebody else's by now.
    const next = mapping.mapped.indexOf(false, first);
    if (next === first) return;
    const count = random.between(1, (next < 0 ? mapping.pages : next) - first);
    as.unmap(mapping.at + first * PAGE, count * PAGE, { timeoutMs: 50 });
    mapping.mapped.fill(false, first, first + count);
    for (let page = 0; page < mapping.pages; page++) this.lookAtOwn(mapping, page);
    if (!mapping.mapped.includes(true)) this.mappings.splice(this.mappings.indexOf(mapping), 1);
  }

  lookAtOwn(mapping: OwnMapping, page: number): void {
    const address = mapping.at + page * PAGE;
    if (!mapping.mapped[page]) return;
    const version = this.look(address, mapping.index + page);
    if (version !== mapping.version) this.say(`the own mapping at ${address} has ${version}, not ${mapping.version}`);
  }

  protect(): void {
    const { random, as } = this;
    if (this.mappings.length === 0) return;
    const mapping = random.pick(this.mappings);
    const page = random.below(mapping.pages);
    if (!mapping.mapped[page]) return;
    const address = mapping.at + page * PAGE;
    as.protect(address, PAGE, 'read', { timeoutMs: 50 });
    this.lookAtOwn(mapping, page);
    this.mustFail(() => as.write(address, this.bytes), 'a protected page was written');
    as.protect(address, PAGE, 'none');
    this.mustFail(() => as.read(address, 1), 'a page without protection was read');
    as.protect(address, PAGE, 'write');
    this.lookAtOwn(mapping, page);
  }

  mustFail(action: () => void, what: string): void {
    try {
      action();
    } catch (error) {
      if (error instanceof VmError && error.code === 'EFAULT') return;
      throw error;
    }
    this.say(what);
  }

  /** Places that all workers map and unmap: a page there is new, or stamped by whoever has mapped it. */
  contend(): void {
    const { random, as } = this;
    const place = random.below(PLACES);
    const address = AT.places + place * 4 * PAGE;
    const choice = random.below(5);
    if (choice === 0) as.map({ address, size: 2 * PAGE, replace: true, reserve: false });
    else if (choice === 1) as.unmap(address, random.between(1, 2) * PAGE);
    else if (choice === 2) as.protect(address, PAGE, random.chance(0.5) ? 'read' : 'write');
    else if (choice === 3) {
      stampPage(this.bytes, place, this.data.number);
      as.write(address, this.bytes);
    } else {
      as.read(address, this.bytes);
      if (!isStamped(this.bytes, place)) this.say(`place ${place} holds something else`);
      if (random.chance(0.3)) as.pin(address, PAGE, 'write').release();
    }
  }

  /** Pages that only this worker writes, through pins and without. */
  pin(): void {
    const { random, as } = this;
    if (this.pins.length >= PINS_MAX) {
      this.unpin();
      return;
    }
    const write = random.chance(0.5);
    const page = this.own(random.below(OWN_PAGES));
    const base = write ? AT.pinned : AT.own;
    const pin = as.pin(base + page * PAGE, PAGE, write ? 'write' : 'read');
    this.pins.push({ pin, page, write });
  }

  unpin(): void {
    const { as } = this;
    const [entry] = this.pins.splice(this.random.below(this.pins.length), 1);
    if (entry === undefined) return;
    const { pin, page, write } = entry;
    const view = pin.views[0] as Uint8Array;
    if (write) {
      stampPage(view, page, this.steps);
      const version = this.look(AT.pinned + page * PAGE, page);
      if (version !== this.steps) this.say(`what a pin has stored at ${page} reads as ${version}`);
    } else {
      this.as.read(AT.own + page * PAGE, this.bytes);
      if (Buffer.compare(this.bytes, view) !== 0) this.say(`a pin shows another page ${page}`);
    }
    let failed = '';
    try {
      as.unmap((write ? AT.pinned : AT.own) + page * PAGE, PAGE);
    } catch (error) {
      failed = (error as VmError).code;
    }
    if (failed !== 'EBUSY') this.say(`a pinned page was unmapped: ${failed}`);
    pin.release();
  }

  /** Gives a page up, which then holds zeros, and writes it again. */
  free(): void {
    const { as } = this;
    const address = AT.scratch + this.own(this.random.below(OWN_PAGES)) * PAGE;
    as.write(address, Uint8Array.of(1, 2, 3));
    as.advise(address, PAGE, 'free');
    if (as.read(address, PAGE).some((byte) => byte !== 0)) this.say('a page that was given up has contents');
  }

  fork(): void {
    const { as, random } = this;
    const before = this.allVersions();
    const copy = as.fork();
    const after = this.allVersions();
    this.lookAtFork(copy, before, after);
    if (random.chance(0.3)) {
      const second = copy.fork();
      copy.destroy();
      this.lookAtFork(second, before, after);
      this.publish(second);
    } else this.publish(copy);
  }

  allVersions(): Int32Array {
    return Int32Array.from({ length: WORKERS_MAX * OWN_PAGES }, (_, index) =>
      load(this.control, WORD.versions + index),
    );
  }

  /** A snapshot shows whole pages, of versions between those before and after, and cells of one instant. */
  lookAtFork(copy: AddressSpace, before: Int32Array, after: Int32Array): void {
    const few = this.random.below(3);
    for (let index = few; index < WORKERS_MAX * OWN_PAGES; index += 3) {
      const version = this.look(AT.own + index * PAGE, index, copy);
      const [least, most] = [before[index] as number, (after[index] as number) + 1];
      if (version < least || version > most)
        this.say(`a fork has version ${version} of ${index}, not ${least}-${most}`);
    }
    for (let number = 0; number < WORKERS_MAX; number++) {
      const [a, b] = [copy.load(this.cell(0, number)), copy.load(this.cell(1, number))];
      if (a - b !== 0 && a - b !== 1) this.say(`a fork is torn: worker ${number} has ${a} and ${b}`);
    }
  }

  /** Lets all workers see a fork, if there is room; what its cells hold never changes. */
  publish(copy: AddressSpace): void {
    const row = WORD.forks + this.random.below(4) * FORK_WORDS;
    if (compareExchange(this.control, row, 0, -1) !== 0) {
      copy.destroy();
      return;
    }
    store(this.control, row + 1, copy.id.generation);
    for (let number = 0; number < WORKERS_MAX; number++) {
      store(this.control, row + 2 + 2 * number, copy.load(this.cell(0, number)));
      store(this.control, row + 3 + 2 * number, copy.load(this.cell(1, number)));
    }
    store(this.control, row, copy.id.space + 1);
  }

  /** Looks at a fork of somebody, writes into it, or destroys it. */
  visit(): void {
    const { random, vm, control } = this;
    const row = WORD.forks + random.below(4) * FORK_WORDS;
    const link = load(control, row);
    if (link <= 0) return;
    const copy = vm.addressSpace({ space: link - 1, generation: load(control, row + 1) });
    const choice = random.below(4);
    if (choice === 0) {
      if (compareExchange(control, row, link, -1) !== link) return;
      try {
        copy.destroy({ timeoutMs: 100 });
      } finally {
        store(control, row, 0);
      }
      return;
    }
    if (choice === 1) copy.write(AT.scratch + this.own(0) * PAGE, this.bytes.subarray(0, 100));
    const number = random.below(WORKERS_MAX);
    const known = [load(control, row + 2 + 2 * number), load(control, row + 3 + 2 * number)];
    const found = [copy.load(this.cell(0, number)), copy.load(this.cell(1, number))];
    const same = load(control, row) === link && load(control, row + 1) === copy.id.generation;
    if (same && (known[0] !== found[0] || known[1] !== found[1])) this.say(`a fork has changed: ${known} and ${found}`);
    if (random.chance(0.2)) copy.pin(AT.own + this.own(1) * PAGE, PAGE, 'write').release();
  }

  step(): void {
    const choice = this.random.below(100);
    if (choice < 18) this.do('write', () => this.write());
    else if (choice < 30) this.do('read', () => this.read());
    else if (choice < 38) this.do('readOthers', () => this.readOthers());
    else if (choice < 50) this.do('count', () => this.count());
    else if (choice < 56) this.do('swap', () => this.swapWords());
    else if (choice < 61) this.do('map', () => this.map());
    else if (choice < 66) this.do('unmap', () => this.unmap());
    else if (choice < 69) this.do('protect', () => this.protect());
    else if (choice < 76) this.do('contend', () => this.contend());
    else if (choice < 81) this.do('pin', () => this.pin());
    else if (choice < 87) this.do('unpin', () => this.unpin());
    else if (choice < 91) this.do('free', () => this.free());
    else if (choice < 94) this.do('fork', () => this.fork());
    else if (choice < 97) this.do('visit', () => this.visit());
    else if (choice < 98) this.do('reap', () => this.vm.pagelock.reap());
    else if (choice < 99) this.do('daemon', () => void this.vm.pagedaemon.step());
    else this.do('sync', () => this.as.sync(AT.file, PAGE));
  }

  /** Runs one step; counts it, and what it failed with if that may be. */
  do(name: string, action: () => void): void {
    let key = name;
    try {
      action();
    } catch (error) {
      if (!(error instanceof VmError) || !ALLOWED.includes(error.code)) throw error;
      key = `${name} ${error.code}`;
    }
    this.done[key] = (this.done[key] ?? 0) + 1;
  }

  loop(): void {
    for (let turn = 0; turn < 20 && this.wrong.length === 0; turn++) {
      this.step();
      store(this.control, WORD.steps + this.data.number, ++this.steps);
    }
    if (this.wrong.length === 0 && load(this.control, WORD.stop) === 0) {
      setImmediate(() => this.loop());
      return;
    }
    this.end();
  }

  end(): void {
    while (this.pins.length > 0) this.unpin();
    for (const { at, mapped } of this.mappings) {
      for (const [page, is] of mapped.entries()) if (is) this.as.unmap(at + page * PAGE, PAGE, { timeoutMs: 1000 });
    }
    const { steps, wrong, done } = this;
    const contended = this.vm.region.tables.slot.contended.get(this.vm.slot);
    this.vm.detach();
    parentPort?.postMessage({ steps, wrong, contended, done } satisfies SpaceChurnResult);
  }
}

if (parentPort !== null && workerData?.control !== undefined) {
  const churn = new Churn(workerData as SpaceChurnData);
  parentPort.postMessage({ slot: churn.vm.slot });
  churn.loop();
}
