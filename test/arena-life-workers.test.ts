/** Workers that are terminated at every labelled place of what happens around allocations, while the arena is recorded. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { FAULT_POINTS, load, notify, store } from 'pagewright/sync';
import { afterEach, describe, expect, it } from 'vitest';
import { replayFile } from '../src/inspect/index.ts';
import { killAt, nextMessage, start, type Victim } from './support/chaos.ts';
import { testSeed } from './support/seed.ts';

/** Operations of all workers between two turns of this thread: a slow machine must not record more than it can replay. */
const PACE = 1000;

/** Operations between two deaths: what is recorded meanwhile has room. Behind them the workers become slow. */
const OPERATIONS_MAX = 100_000;

const program = new URL('../build/test/workers/life-churn.js', import.meta.url);

let vm: VirtualMemory | undefined;

afterEach(async () => {
  if (vm) await shutDown(vm);
  vm = undefined;
});

describe('the life of an arena under workers', () => {
  const seed = testSeed('arena life workers', 20261125);

  it('survives a worker terminated at every labelled place, charges and recording included', async () => {
    vm = boot({ memory: '1 MiB', slots: 8, recordEntries: 2 ** 21 });
    const system = vm;
    const arena = system.createArena('life', { size: 8192, charge: true });
    const slow = system.createArena('slow', { base: 32768, size: 4096, charge: true, quarantine: { frees: 10 } });
    const cookies = new Int32Array(new SharedArrayBuffer(4 * 65536));
    const stop = new Int32Array(new SharedArrayBuffer(4));
    const pace = new Int32Array(new SharedArrayBuffer(8));
    let started = 0;
    const join = () => start(system, program, { seed: seed + started++, cookies, stop, pace });
    let crew: Victim[] = [await join(), await join()];
    const recording = arena.record();
    const points = FAULT_POINTS.filter((point) => /^vmem\.(resize|merge|quarantine|charge|record)\./.test(point));
    expect(points).toHaveLength(6);
    let freed = 0;
    let text = '';
    let most = OPERATIONS_MAX;
    const timer = setInterval(() => {
      store(pace, 1, Math.min(load(pace, 0) + PACE, most));
      notify(pace, 1, Number.POSITIVE_INFINITY);
    }, 5);
    for (const point of points) {
      const victim = await killAt(system, point, crew);
      // Not in the timer: a worker may be parked with the arena's lock then, and only this thread can end it.
      text += recording.drain();
      most = load(pace, 0) + OPERATIONS_MAX;
      for (const owner of [arena, slow]) {
        for (const { address, size, attachment } of owner.allocations()) {
          if ((attachment & 127) - 1 !== victim.slot) continue;
          cookies.fill(0, address, address + size);
          owner.free(address, size);
          freed++;
        }
      }
      cookies.forEach((cookie, unit) => {
        if (cookie === victim.slot + 1) cookies[unit] = 0;
      });
      crew = [...crew.filter((worker) => worker !== victim), await join()];
    }
    const ended = crew.map(({ worker }) => nextMessage(worker));
    stop[0] = 1;
    await Promise.all(ended);
    clearInterval(timer);
    console.log(`${points.length} places, ${freed} allocations of dead workers freed`);
    expect(system.check().flatMap(({ problems }) => problems)).toEqual([]);
    expect(cookies.every((cookie) => cookie === 0)).toBe(true);
    expect([arena.size('allocated'), slow.size('allocated')]).toEqual([0, 0]);
    expect(system.statistics().owners[0]?.resources.arenaBytes.used).toBe(0);
    const folder = mkdtempSync(joinPath(tmpdir(), 'pagewright-life-'));
    const file = joinPath(folder, 'trace.jsonl');
    writeFileSync(file, text + recording.stop());
    const { mismatches, first, operations, summary } = replayFile(file);
    rmSync(folder, { recursive: true });
    expect(first).toBeNull();
    expect([mismatches, summary]).toEqual([0, '']);
    console.log(`${operations} operations replay exactly`);
    slow.releaseQuarantine();
    expect(slow.xalloc(4096)).toBe(32768);
    expect(arena.xalloc(8192, { max: 8191 })).toBe(0);
  });
});
