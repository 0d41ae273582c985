/** Boots a system in a worker and hands it out: its end must stop everybody. */

import { parentPort, workerData } from 'node:worker_threads';
import { boot } from 'pagewright';
import { Mutex } from 'pagewright/sync';

const vm = boot({ memory: '1 MiB', slots: 8, arenas: 4, tags: 256 });
new Mutex(vm.thread, vm.region.tables.arena.lock.address(3), 900).enter();
parentPort?.postMessage(vm.handle());
parentPort?.once('message', () => process.exit(0));
if (workerData?.hang) setInterval(() => {}, 1000);
