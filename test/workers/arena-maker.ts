/** Makes arenas with quantum caches, uses and destroys them, again and again; or attaches and detaches. */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';
import { add, load } from 'pagewright/sync';

const { stop, rounds, attaches } = workerData as {
  stop: Int32Array;
  /** Rounds done by all workers of a kind. */
  rounds: Int32Array;
  attaches: boolean;
};

if (attaches) {
  while (load(stop, 0) === 0) {
    attach(workerData.vm).detach();
    add(rounds, 1, 1);
  }
} else {
  const vm = attach(workerData.vm);
  for (let round = 0; load(stop, 0) === 0; round++) {
    const arenas = Array.from({ length: 8 }, (_, number) =>
      vm.createArena(`${vm.slot} ${round} ${number}`, { size: 1000, quantumCacheMax: 8 }),
    );
    for (const arena of arenas) {
      const address = arena.alloc(4);
      arena.free(address, 4);
    }
    for (const arena of arenas) arena.destroy();
    add(rounds, 0, 1);
  }
  parentPort?.postMessage({ round: load(rounds, 0) });
  vm.detach();
}
