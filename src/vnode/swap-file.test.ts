import { statSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { testRooms } from '../../test/support/rooms.ts';
import { Scratch } from '../../test/support/scratch.ts';
import { testSeed } from '../../test/support/seed.ts';
import { Prng } from '../base/index.ts';
import { Callbacks } from '../sync/index.ts';
import { Arenas } from '../vmem/index.ts';
import { SwapFile } from './swap-file.ts';

it('keeps every byte of every slot, in runs and alone, and gives all slots back', () => {
  const scratch = new Scratch();
  const random = new Prng(testSeed('swap against a model', 21));
  const rooms = testRooms({ frames: 64, bankFrames: 16 });
  const arenas = new Arenas(rooms.thread, new Callbacks(rooms.region));
  const path = join(scratch.directory, 'swap');
  SwapFile.make(path, 100 * 4096);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  // A span may begin at 0: slots are addresses.
  const arena = arenas.create('swap', { base: 0, size: 100, quantum: 1 });
  const swap = new SwapFile(rooms.banks, arena, path, 100);
  const frames = Int32Array.from({ length: 8 }, () => rooms.frames.tryTake(1));
  const view = (frame: number) => rooms.banks.view(frame * 4096, 4096);
  const live: { slot: number; count: number; fills: number[] }[] = [];
  for (let step = 0; step < 2000; step++) {
    const known = live[random.below(Math.max(1, live.length))];
    if (known === undefined || random.chance(0.5)) {
      const count = random.between(1, 8);
      let slot: number;
      try {
        slot = swap.take(count);
      } catch (error) {
        expect(String(error)).toMatch(/ENOSPC/);
        for (const { slot: old, count: pages } of live.splice(0, 5)) swap.free(old, pages);
        continue;
      }
      const fills = Array.from({ length: count }, () => random.below(256));
      const order = random.shuffle([...frames]);
      for (const [page, fill] of fills.entries()) view(order[page] as number).fill(fill);
      if (count === 1) swap.write(slot, order[0] as number);
      else swap.writeSeveral(slot, Int32Array.from(order), 0, count);
      live.push({ slot, count, fills });
    } else {
      for (const frame of frames) view(frame).fill(0xa5);
      const order = random.shuffle([...frames]);
      swap.readSeveral(known.slot, Int32Array.from(order), 0, known.count);
      for (const [page, fill] of known.fills.entries()) {
        expect(view(order[page] as number).every((byte) => byte === fill)).toBe(true);
      }
    }
  }
  const fresh = new SwapFile(rooms.banks, arena, path, 100);
  for (const { slot, count, fills } of live) {
    fresh.read(slot, frames[0] as number);
    expect(view(frames[0] as number)[0]).toBe(fills[0]);
    swap.free(slot, count);
  }
  expect(() => swap.read(100, frames[0] as number)).toThrow(/EFAULT/);
  expect(arena.size('allocated')).toBe(0);
  expect(swap.take(100)).toBe(0);
  swap.sync();
  swap.close();
  fresh.close();
  scratch.remove();
});
