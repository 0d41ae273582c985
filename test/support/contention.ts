/** Threads that meet: on one processor, or on a busy one, two may work side by side for long before one finds a lock taken. */

import type { VirtualMemory } from 'pagewright';
import { until } from './until.ts';

/** Entries of these slots that found a lock taken. */
export function contendedOf(vm: VirtualMemory, slots: readonly number[]): number {
  const { contended } = vm.region.tables.slot;
  return slots.reduce((sum, slot) => sum + contended.get(slot), 0);
}

/** Lets workers go on until one of them found a lock taken. */
export async function untilContended(vm: VirtualMemory, workers: readonly { readonly slot: number }[]): Promise<void> {
  const slots = workers.map(({ slot }) => slot);
  const sound = () => vm.poisoned !== null || contendedOf(vm, slots) > 0;
  await until(sound, `no worker finds a lock taken: ${vm.poisoned ?? 'sound'}`);
}
