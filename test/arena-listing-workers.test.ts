/** Lists of arenas while workers make and destroy arenas: what has gone meanwhile is left out, and nobody fails for it. */

import { once } from 'node:events';
import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { load, store } from 'pagewright/sync';
import { afterEach, expect, it } from 'vitest';
import { untilContended } from './support/contention.ts';
import { until } from './support/until.ts';

const maker = new URL('../build/test/workers/arena-maker.js', import.meta.url);

let vm: VirtualMemory | undefined;

afterEach(async () => {
  if (vm) await shutDown(vm);
  vm = undefined;
});

it('lists, checks and detaches beside workers that make and destroy arenas', async () => {
  vm = boot({ memory: '1 MiB', slots: 8, arenas: 64 });
  const { arenas } = vm;
  const kept = vm.createArena('kept', { size: 100 });
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const rounds = new Int32Array(new SharedArrayBuffer(8));
  const failures: Error[] = [];
  const workers = [false, false, true].map((attaches) => {
    const worker = (vm as VirtualMemory).spawn(maker, { workerData: { stop, rounds, attaches } });
    worker.on('error', (error) => failures.push(error as Error));
    return { worker, ended: once(worker, 'exit') };
  });
  let looks = 0;
  let most = 0;
  const look = () => {
    const names = arenas.stats().arenas.map(({ name }) => name);
    expect(names).toContain('kept');
    most = Math.max(most, names.length);
    for (const { structure, problems } of arenas.check()) {
      // Quantum caches are in use without a lock: they can be checked at quiet moments only.
      expect(
        problems.filter((problem) => !problem.startsWith('vmem/quantum-cache')),
        structure,
      ).toEqual([]);
    }
    arenas.whatis(10);
    arenas.drain();
    looks++;
    return failures.length > 0 || (looks >= 200 && most > 2 && load(rounds, 0) >= 100 && load(rounds, 1) >= 100);
  };
  await until(
    look,
    `${load(rounds, 0)} rounds, ${load(rounds, 1)} attachments, ${looks} looks, at most ${most} arenas`,
  );
  const slots = Array.from(vm.statistics().slots, ({ slot }) => ({ slot }));
  await untilContended(vm, slots);
  store(stop, 0, 1);
  for (const { ended } of workers) await ended;
  expect(failures).toEqual([]);
  console.log(`${looks} looks at up to ${most} arenas, ${rounds[0]} rounds of making, ${rounds[1]} attachments`);
  kept.destroy();
  expect(arenas.list().map(({ name }) => name)).not.toContain('kept');
});
