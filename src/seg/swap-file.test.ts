import { statSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { Scratch } from '../../test/support/scratch.ts';
import { testSeed } from '../../test/support/seed.ts';
import { Prng } from '../base/index.ts';
import { boot } from '../system/index.ts';
import { SpaceCore } from './space-core.ts';
import { SwapFile } from './swap-file.ts';

const PAGE = 4096;
const SLOTS = 70;

it('keeps every byte of every page, in runs and alone, for any thread, and gives all pages back', () => {
  const scratch = new Scratch();
  const random = new Prng(testSeed('swap against a model', 21));
  const vm = boot({ memory: '1 MiB', services: 'manual', anonymousPages: 200 });
  const core = new SpaceCore(vm.thread);
  const swap = new SwapFile(core, vm.banks);
  const path = join(scratch.directory, 'swap');
  const frames = Int32Array.from({ length: 8 }, () => vm.frames.tryTake(1));
  const view = (frame: number) => vm.banks.view(frame * PAGE, PAGE);
  expect(() => swap.write(0, frames, 0, 1)).toThrow(/ENOSPC.*swap.add/);
  expect(() => swap.add(join(scratch.directory, 'no', 'folder'), SLOTS * PAGE)).toThrow(/swap.add/);
  expect(() => swap.add(path, '1 TiB')).toThrow(/EINVAL/);
  swap.add(path, SLOTS * PAGE);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(() => swap.add(path, PAGE)).toThrow(/EEXIST/);
  const model = new Map<number, number>();
  for (let step = 0; step < 1500; step++) {
    const anon = random.below(100);
    if (random.chance(0.5)) {
      const count = random.between(1, 8);
      const order = Int32Array.from(random.shuffle([...frames]));
      const fills = Array.from({ length: count }, () => random.below(256));
      for (const [page, fill] of fills.entries()) view(order[page] as number).fill(fill);
      const missing = fills.filter((_, page) => !model.has(anon + page)).length;
      if (model.size + missing > SLOTS) {
        // What there was room for is noted in its anons all the same.
        expect(() => swap.write(anon, order, 0, count)).toThrow(/ENOSPC/);
        for (let one = 0; one < 108; one++) {
          swap.free(one);
          model.delete(one);
        }
        continue;
      }
      swap.write(anon, order, 0, count);
      for (const [page, fill] of fills.entries()) model.set(anon + page, fill);
    } else if (random.chance(0.3)) {
      swap.free(anon);
      model.delete(anon);
    } else {
      let count = 0;
      const first = core.anons.swap.get(anon) - 1;
      while (count < 8 && model.has(anon + count) && core.anons.swap.get(anon + count) - 1 === first + count) count++;
      if (count === 0) continue;
      for (const frame of frames) view(frame).fill(0xa5);
      swap.read(first, frames, 0, count);
      for (let page = 0; page < count; page++) {
        expect(view(frames[page] as number).every((byte) => byte === model.get(anon + page))).toBe(true);
      }
    }
    expect(swap.use.used).toBe(model.size);
  }
  // Another thread opens the file for itself.
  const fresh = new SwapFile(core, vm.banks);
  for (const [anon, fill] of model) {
    fresh.read(core.anons.swap.get(anon) - 1, frames, 0, 1);
    expect(view(frames[0] as number)[PAGE - 1]).toBe(fill);
    fresh.free(anon);
  }
  expect(swap.use).toEqual({ pages: SLOTS, used: 0 });
  for (let anon = 0; anon < SLOTS; anon++) swap.write(anon, frames, 0, 1);
  expect(Array.from({ length: SLOTS }, (_, anon) => core.anons.swap.get(anon) - 1).sort((a, b) => a - b)).toEqual([
    ...Array(SLOTS).keys(),
  ]);
  for (let anon = 0; anon < SLOTS; anon++) swap.free(anon);
  fresh.close();
  swap.close();
  for (const frame of frames) vm.frames.give(frame, 1);
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  vm.detach();
  scratch.remove();
});
