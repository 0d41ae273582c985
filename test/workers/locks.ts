/**
 * Uses a mutex, a condition variable and a readers/writer lock of known names at random until told to stop, makes and removes
 * others, and looks at every turn whether the words that the locks guard agree. They are changed through the journal, so
 * that those of a thread that has died agree again: whoever is told to repair them finds nothing to do.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { Prng, VmError } from 'pagewright/base';
import { add, load } from 'pagewright/sync';

const { seed, stop, done, turns } = workerData as {
  seed: number;
  stop: Int32Array;
  done: Int32Array;
  turns: readonly Turn[];
};
type Turn = keyof typeof TURNS;

/** So many items at most, so that takers wait often. */
const ITEMS_MAX = 3;

const vm = attach(workerData.vm);
const { thread } = vm;
const { arena, arenaState } = vm.region.tables;
// Words of rows that no arena uses.
const row = arena.rowCount - 2;
const rwRow = arena.rowCount - 3;
const mutex = vm.locks.mutex('mutex', { repair: () => requireAgreement(row) });
const condition = vm.locks.condition('condition');
const rwlock = vm.locks.rwlock('rwlock', { repair: () => requireAgreement(rwRow) });
const random = new Prng(seed);
const { journal } = thread;

function requireAgreement(at: number): void {
  add(done, 1, 1);
  if (arenaState.busyTags.get(at) !== arenaState.busyTagsPeak.get(at)) throw new Error(`row ${at}: half changed`);
}

function change(at: number): void {
  const value = arenaState.busyTags.get(at);
  if (value !== arenaState.busyTagsPeak.get(at)) throw new Error(`row ${at}: the words disagree`);
  journal.set(arenaState.busyTags, at, value + 1);
  for (let i = random.below(20); i > 0; i--) load(vm.region.words, 0);
  journal.set(arenaState.busyTagsPeak, at, value + 1);
}

function look(at: number): void {
  for (let i = 0; i < 3; i++) {
    if (arenaState.busyTags.get(at) !== arenaState.busyTagsPeak.get(at)) throw new Error(`row ${at}: words in motion`);
    load(vm.region.words, 0);
  }
}

function exclude(): void {
  const way = random.below(8);
  if (way === 0 && !mutex.enterWithin(random.below(3))) return;
  if (way === 1 && !mutex.tryEnter()) return;
  if (way > 1) mutex.enter();
  change(row);
  mutex.exit();
}

function give(): void {
  mutex.enter();
  change(row);
  journal.set(arenaState.spareCount, row, Math.min(arenaState.spareCount.get(row) + 1, ITEMS_MAX));
  if (random.chance(0.2)) condition.broadcast();
  else condition.signal();
  mutex.exit();
}

function take(): void {
  mutex.enter();
  while (arenaState.spareCount.get(row) === 0 && load(stop, 0) === 0) {
    if (random.chance(0.2)) condition.wait(mutex, 1);
    else condition.wait(mutex);
  }
  if (arenaState.spareCount.get(row) > 0) {
    change(row);
    journal.set(arenaState.spareCount, row, arenaState.spareCount.get(row) - 1);
  }
  mutex.exit();
}

function read(): void {
  if (random.chance(0.2)) {
    if (!rwlock.enterShared(random.below(2))) return;
  } else {
    rwlock.enterShared();
  }
  look(rwRow);
  if (random.chance(0.2) && rwlock.tryUpgrade()) {
    change(rwRow);
    rwlock.exitExclusive();
    return;
  }
  rwlock.exitShared();
}

function write(): void {
  if (random.chance(0.2)) {
    if (!rwlock.enterExclusive(random.below(2))) return;
  } else {
    rwlock.enterExclusive();
  }
  change(rwRow);
  if (random.chance(0.3)) {
    rwlock.downgrade();
    look(rwRow);
    rwlock.exitShared();
    return;
  }
  rwlock.exitExclusive();
}

/** Makes, uses and removes a lock of one of two names. */
function name(): void {
  const which = random.chance(0.5) ? 'come' : 'go';
  try {
    const passing = vm.locks.mutex(which, { repair: () => void add(done, 1, 1) });
    if (passing.enterWithin(random.below(3))) passing.exit();
    if (random.chance(0.5)) vm.locks.remove(which);
  } catch (error) {
    // Somebody else has removed it, or is in.
    if (!(error instanceof VmError) || !['ESTALE', 'EBUSY', 'ENOENT'].includes(error.code)) throw error;
  }
}

async function excludeAsync(): Promise<void> {
  if (!(await mutex.enterAsync(random.chance(0.2) ? { timeoutMs: random.below(3) } : {}))) return;
  change(row);
  mutex.exit();
}

/** What a taker does under the mutex; undefined while there is nothing to take. */
function tryTake(): boolean | undefined {
  const items = arenaState.spareCount.get(row);
  if (items === 0) return load(stop, 0) === 0 ? undefined : false;
  change(row);
  journal.set(arenaState.spareCount, row, items - 1);
  return true;
}

async function takeAsync(): Promise<void> {
  await condition.untilAsync(mutex, tryTake);
}

async function readAsync(): Promise<void> {
  if (!(await rwlock.enterSharedAsync(random.chance(0.2) ? { timeoutMs: random.below(3) } : {}))) return;
  look(rwRow);
  rwlock.exitShared();
}

async function writeAsync(): Promise<void> {
  if (!(await rwlock.enterExclusiveAsync(random.chance(0.2) ? { timeoutMs: random.below(3) } : {}))) return;
  change(rwRow);
  rwlock.exitExclusive();
}

const TURNS = { exclude, name, give, take, read, write, excludeAsync, takeAsync, readAsync, writeAsync };
parentPort?.postMessage({ slot: vm.slot });
while (load(stop, 0) === 0) {
  const turn = TURNS[random.pick(turns)]();
  if (turn !== undefined) await turn;
  add(done, 0, 1);
}
const { contended, slept } = vm.region.tables.slot;
const result = { contended: contended.get(vm.slot), slept: slept.get(vm.slot), heldCount: thread.heldCount };
vm.detach();
parentPort?.postMessage(result);
