/** Frames promised to owners under several workers: they are there at every moment, also while others die with frames in hand. */

import { boot, type VirtualMemory } from 'pagewright';
import { Prng } from 'pagewright/base';
import { type FaultPoint, load } from 'pagewright/sync';
import { afterEach, expect, it } from 'vitest';
import { shutDownBalanced } from './support/balance.ts';
import { kill, killAt, nextMessage, until, type Victim } from './support/chaos.ts';
import { untilContended } from './support/contention.ts';
import { testSeed } from './support/seed.ts';

const program = new URL('../build/test/workers/frame-reserver.js', import.meta.url);
const PAGE = 4096;
const FRAMES = 1024;
const PROMISED = 150;

let vm: VirtualMemory;

afterEach(() => shutDownBalanced(vm));

interface Worker extends Victim {
  readonly owner: string;
  readonly attachment: number;
}

it('frames that were promised are there, whoever else wants some and dies', async () => {
  const seed = testSeed('reservations under workers', 20261125);
  const random = new Prng(seed);
  vm = boot({ memory: FRAMES * PAGE, slots: 10 });
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const refused = new Int32Array(new SharedArrayBuffer(4));
  const failures: Error[] = [];
  const owners = ['first', 'second', 'greedy'];
  for (const owner of owners) vm.createOwner(owner);
  for (const owner of ['first', 'second']) vm.frames.reserveFor(owner, PROMISED);
  const begin = async (owner: string, number: number): Promise<Worker> => {
    const promised = owner === 'greedy' ? 0 : PROMISED;
    const data = { stop, refused, owner, promised, page: PAGE, seed: seed + number };
    const worker = vm.spawn(program, { workerData: data });
    worker.on('error', (error) => failures.push(error as Error));
    const [message] = (await nextMessage(worker)) as [{ slot: number; attachment: number }];
    return { worker, owner, ...message };
  };
  const workers = await Promise.all(owners.map((owner, number) => begin(owner, number)));
  const replace = async (dead: Worker, number: number): Promise<void> => {
    // What the dead one had in lists goes back: else its successor could have so many less.
    vm.pageLists.freeOf(dead.attachment);
    workers[workers.indexOf(dead)] = await begin(dead.owner, number);
    expect(failures).toEqual([]);
  };
  const points: FaultPoint[] = ['phys.list.taken', 'phys.list.partial', 'phys.list.marked', 'phys.list.given'];
  for (const [death, point] of points.entries()) {
    await replace((await killAt(vm, point, workers, { skip: random.below(8) })) as Worker, 10 + death);
    const victim = workers[random.below(workers.length)] as Worker;
    await new Promise((resolve) => setTimeout(resolve, random.between(5, 60)));
    await kill(vm, victim);
    await replace(victim, 20 + death);
  }
  await untilContended(vm, workers);
  await until(() => load(refused, 0) > 0, 'nothing is refused');
  const results = workers.map(({ worker }) => nextMessage(worker));
  stop[0] = 1;
  const messages = (await Promise.all(results)).map(([message]) => message as Record<string, number>);
  await Promise.all(workers.map(({ worker }) => worker.terminate()));
  await until(() => vm.statistics().slots.length === 3, 'the workers leave');
  const sum = (name: string) => messages.reduce((total, message) => total + (message[name] ?? 0), 0);
  console.log(
    `${sum('served')} lists, ${refused[0]} refused, ${sum('contended')} contended, ${2 * points.length} deaths`,
  );
  expect(failures).toEqual([]);
  expect(sum('contended')).toBeGreaterThan(0);
  expect(refused[0]).toBeGreaterThan(0);
  expect(vm.statistics().reservations).toMatchObject([
    { name: 'first', frames: PROMISED, kept: PROMISED },
    { name: 'second', frames: PROMISED, kept: PROMISED },
  ]);
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  for (const owner of ['first', 'second']) vm.frames.reserveFor(owner, 0);
  vm.pageLists.free(vm.pageLists.alloc({ size: FRAMES * PAGE }));
});
