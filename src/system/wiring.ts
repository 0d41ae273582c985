/** What rooms need of each other and cannot import: brought to them when a thread attaches. */

import { VmError } from '../base/index.ts';
import type { FrameIndex } from '../phys/index.ts';
import { HookedPages, MemoryStore, RemoteStore, UserStore, VNODE_KIND } from '../vnode/index.ts';
import { HEAP } from './heap.ts';
import type { VirtualMemory } from './virtual-memory.ts';

/** The parts that exist when the stores are brought. */
type Parts = Pick<VirtualMemory, 'banks' | 'thread' | 'callbacks' | 'io' | 'vnodes'>;

/** Brings the stores of the kinds of vnodes that are no files. */
export function setStores({ banks, thread, callbacks, io, vnodes }: Parts): void {
  vnodes.setHooks(new HookedPages(thread, callbacks));
  vnodes.setStore(VNODE_KIND.memory, new MemoryStore(banks));
  vnodes.setStore(VNODE_KIND.remote, new RemoteStore(thread, io, false));
  vnodes.setStore(VNODE_KIND.user, new UserStore(thread, banks, callbacks, new RemoteStore(thread, io, true)));
}

/** Who gives frames back when they are short; see pagedaemon.ts. */
export function registerReclaimers(vm: VirtualMemory): void {
  const trimHeap = () => {
    if (vm.arenas.has(HEAP)) vm.heap.trim();
  };
  vm.pagedaemon.register({ name: 'heap', priority: 100, reclaim: trimHeap });
  vm.pagedaemon.register({ name: 'pmem', priority: 200, reclaim: () => void vm.pmem.trim() });
  vm.pagedaemon.register({
    name: 'pagelock',
    priority: 300,
    reclaim: (wanted) => void vm.pagelock.reclaim(wanted),
  });
  vm.frames.evacuation.setNamer((frame) => nameFrame(vm, frame));
}

/** The cookie that a frame belongs to, and the slots that have mappings of it pinned: for messages. Looks at all cookies. */
function nameFrame({ pmem, spaces }: VirtualMemory, frame: FrameIndex): Readonly<Record<string, unknown>> {
  for (const cookie of pmem.cookies()) {
    try {
      if (!pmem.getPfns(cookie, 0, cookie.frames).includes(frame)) continue;
    } catch (error) {
      // Another thread has freed it since it was listed.
      if (!(error instanceof VmError) || error.code !== 'ESTALE') throw error;
      continue;
    }
    const pinnedBySlots = [...new Set(spaces.pinnersOfCookie(cookie))].join(' ');
    return { cookie: cookie.cookie, ...(pinnedBySlots === '' ? {} : { pinnedBySlots }) };
  }
  return {};
}

/**
 * Writes the modified large pages back that lie in memory which is about to go: they do not move to other frames, and only
 * what is clean can be given up. A store that refuses leaves them where they are, and the removal says who stays.
 */
export function writeBackLargePages({ region, pages, vnodes }: VirtualMemory, first: number, count: number): void {
  const { page, vnode: row } = region.tables;
  for (let frame = first; frame < first + count; frame++) {
    const vnode = page.vnode.get(frame) - 1;
    if (vnode < 0 || row.pageShift.get(vnode) === 0 || pages.modifiedOf(vnode) === 0) continue;
    try {
      pages.writeBack(vnode, page.index.get(frame), 1, vnodes);
    } catch {
      // Noted for all openers.
    }
  }
}
