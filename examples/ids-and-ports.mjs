// Arenas give out numbers of any kind, not only memory: connection IDs and network ports, to all threads at once. What a
// thread that ended still had can be taken back. In the repository: npm ci && npm run build && node examples/ids-and-ports.mjs
import { once } from 'node:events';
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { attach, boot } from 'pagewright';

const vm = isMainThread ? boot({ memory: '16 MiB' }) : attach(workerData.vm);
if (isMainThread) {
  const ids = vm.createArena('ids', { base: 1, size: 1_000_000, strategy: 'next' }); // next fit: no ID comes again soon
  const ports = vm.createArena('ports', { base: 49152, size: 16384 });
  const workers = [1, 2, 3].map(() => vm.spawn(new URL(import.meta.url)));
  const replies = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0]));
  const given = replies.flatMap((reply) => reply.ids);
  console.log(`${given.length} IDs, ${new Set(given).size} different`);
  console.log(`pairs of ports: ${replies.map(({ pair }) => `${pair}/${pair + 1}`).join(', ')}`);
  // A worker that is terminated gives nothing back itself.
  const [victim] = workers;
  const [{ attachment }] = replies;
  await victim.terminate();
  while (replies.length > 0 && !isFreed(ports, attachment)) await new Promise((resolve) => setTimeout(resolve, 5));
  ids.freeOf(attachment);
  console.log(
    `after one worker was terminated: ${ports.size('allocated')} ports and ${ids.size('allocated')} IDs in use`,
  );
  for (const worker of workers) worker.postMessage('leave');
} else {
  const ids = vm.arena('ids');
  const mine = Array.from({ length: 1000 }, () => ids.alloc(1));
  const pair = vm.arena('ports').xalloc(2, { align: 2 }); // RTP and RTCP: an even port and the next
  parentPort.postMessage({ ids: mine, pair, attachment: vm.attachment });
  parentPort.once('message', () => vm.detach());
}

/** Takes back what a thread had, once the system has noticed its end: until then it counts as attached. */
function isFreed(arena, attachment) {
  try {
    return arena.freeOf(attachment) >= 0;
  } catch (error) {
    if (error.code === 'EBUSY') return false;
    throw error;
  }
}
