/** A pool worker: waits to be adopted, then says so, answers other messages, and may start workers of its own. */

import { parentPort, workerData } from 'node:worker_threads';
import { adopted } from 'pagewright';

parentPort?.on('message', (message) => {
  if (message === 'ping') parentPort?.postMessage('pong');
});
const vm = await adopted();
parentPort?.postMessage({ slot: vm.slot });
if (workerData?.child) {
  const child = vm.spawn(new URL(workerData.child), { workerData: { rounds: 5, dieHolding: false, parties: 1 } });
  child.on('message', (message) => parentPort?.postMessage({ child: message }));
}
