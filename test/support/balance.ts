/** The end of a system in a test: its accounts are added up before it is shut down. */

import { shutDown, type VirtualMemory } from 'pagewright';
import { accountProblems } from './accounts.ts';

/** How long service workers may take to come to rest. */
const REST_MS = 60_000;

/** Shuts a system down after its accounts were added up, and throws when they were wrong. A poisoned one has none. */
export async function shutDownBalanced(vm: VirtualMemory): Promise<void> {
  const { region } = vm;
  const end = performance.now() + REST_MS;
  let problems = accountProblems(region);
  // The pagedaemon and other threads may be at work for a moment.
  while (problems.length > 0 && vm.poisoned === null && performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    problems = accountProblems(region);
  }
  const poisoned = vm.poisoned !== null;
  await shutDown(vm);
  if (problems.length > 0 && !poisoned) throw new Error(problems.join('\n'));
}
