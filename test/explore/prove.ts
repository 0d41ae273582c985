/** What the exploration tests have in common: run, print, and demand a result. */

import { expect, vi } from 'vitest';
import { type Bounds, type Exploration, Explorer } from './explorer.ts';
import type { Scenario } from './scenario.ts';
import { loadExplored, type Mutation } from './sources.ts';

/** `PAGEWRIGHT_EXPLORE=large` explores more threads, sections and preemptions: minutes instead of seconds. */
export const LARGE = process.env.PAGEWRIGHT_EXPLORE === 'large';

// Far above what a quiet machine needs, a few seconds a test: what matters is that all of it is looked at.
vi.setConfig({ testTimeout: LARGE ? 3_600_000 : 600_000 });

type ScenarioClass<Options> = new (options: Options) => Scenario;

const loaded = new Map<string, Record<string, unknown>>();

/** The transformed class of a scenario file below `test/explore/scenarios`. */
export function scenarioClass<Options>(file: string, name: string, mutations?: readonly Mutation[]) {
  const entry = `test/explore/scenarios/${file}`;
  let module = mutations === undefined ? loaded.get(entry) : undefined;
  if (module === undefined) {
    module = loadExplored(entry, mutations);
    if (mutations === undefined) loaded.set(entry, module);
  }
  return module[name] as ScenarioClass<Options>;
}

/** Explores all of a scenario, prints how much that was, and demands that nothing breaks. */
export function prove(title: string, scenario: Scenario, bounds: Bounds): Exploration {
  const result = new Explorer(scenario, bounds).explore();
  const { deaths = 0, preemptions, passTime } = bounds;
  const death = deaths > 0 && scenario.mortal.length > 0 ? ', a death at any step' : '';
  const time = passTime ? ', time-outs at any step' : '';
  const switches = preemptions === undefined ? 'all interleavings' : `${preemptions} preemptions`;
  console.log(
    `explored ${title} (${switches}${death}${time}): ${result.states} states, ${result.steps} steps, ${result.ends} final states`,
  );
  if (result.violation !== null) console.log(`${result.violation.message}; schedule: ${result.violation.schedule}`);
  expect(result.violation).toBeNull();
  expect(result.complete).toBe(true);
  return result;
}

/** Demands that a seeded bug is found, and that its schedule alone shows it again in a new world. */
export function expose(title: string, make: () => Scenario, bounds: Bounds, message: RegExp): void {
  const { states, violation } = new Explorer(make(), bounds).explore();
  console.log(`seeded ${title}: ${violation?.message ?? 'not found'} after ${states} states`);
  console.log(`  schedule: ${violation?.schedule}`);
  expect(violation?.message).toMatch(message);
  expect(new Explorer(make(), bounds).replay(violation?.schedule ?? '')).toBe(violation?.message);
}
