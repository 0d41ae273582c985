// Snapshots of live data: `fork` copies an address space as it is at one instant, while workers go on writing to it.
// In the repository: npm ci && npm run build && node examples/snapshot.mjs
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { isMainThread, workerData } from 'node:worker_threads';
import { attach, boot } from 'pagewright';

const PAGE = 4096;
const PAGES = 256; // of each worker, with a counter in each
const SNAPSHOTS = 5;

const vm = isMainThread ? boot({ memory: '64 MiB' }) : attach(workerData.vm);
if (isMainThread) {
  const space = vm.addressSpace();
  const stop = space.map({ size: (1 + 2 * PAGES) * PAGE }); // the first page has a word that tells the workers to end
  const areas = [stop + PAGE, stop + (1 + PAGES) * PAGE];
  const workers = areas.map((area) =>
    vm.spawn(new URL(import.meta.url), { workerData: { space: space.id, area, stop } }),
  );
  while (areas.some((area) => space.load(area) === 0)) await sleep(1);
  let consistent = 0;
  for (let taken = 0; taken < SNAPSHOTS; taken++) {
    const snapshot = space.fork();
    const before = areas.map((area) => snapshot.load(area));
    while (areas.some((area, index) => space.load(area) === before[index])) await sleep(1); // life goes on
    if (areas.every((area) => isOneInstant(snapshot, area))) consistent++;
    snapshot.destroy();
  }
  space.store(stop, 1);
  await Promise.all(workers.map((worker) => once(worker, 'exit')));
  space.destroy();
  console.log(`${consistent} of ${SNAPSHOTS} snapshots show one instant each, while two workers were writing`);
} else {
  const space = vm.addressSpace(workerData.space);
  for (let round = 1; space.load(workerData.stop) === 0; round++) {
    for (let page = 0; page < PAGES; page++) space.store(workerData.area + page * PAGE, round); // one page after another
  }
  vm.detach();
}

/** The counters of one worker at one instant: the first pages in one round, the rest in the round before. */
function isOneInstant(snapshot, area) {
  const rounds = Array.from({ length: PAGES }, (_, page) => snapshot.load(area + page * PAGE));
  const [first] = rounds;
  const behind = rounds.findIndex((round) => round !== first);
  return behind < 0 || rounds.every((round, page) => round === (page < behind ? first : first - 1));
}
