import { closeSync, fstatSync, openSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Prng } from '../base/index.ts';
import { Descriptors } from './descriptors.ts';

const open = () => openSync(process.execPath, 'r');

describe('descriptors', () => {
  it('keeps the most recently used ones, against a naive model', () => {
    const random = new Prng(5);
    const descriptors = new Descriptors(4);
    let model: { vnode: number; descriptor: number }[] = [];
    const touch = (vnode: number) => {
      const found = model.find((entry) => entry.vnode === vnode);
      if (found !== undefined) model = [...model.filter((entry) => entry !== found), found];
      return found?.descriptor ?? -1;
    };
    const remove = (vnode: number) => {
      model = model.filter((entry) => entry.vnode !== vnode);
    };
    for (let step = 0; step < 2000; step++) {
      const vnode = random.below(7);
      const choice = random.below(10);
      if (choice < 5) {
        expect(descriptors.get(vnode)).toBe(touch(vnode));
      } else if (choice < 8) {
        const descriptor = open();
        remove(vnode);
        model.push({ vnode, descriptor });
        if (model.length > 4) model.shift();
        descriptors.keep(vnode, descriptor);
      } else if (choice === 8) {
        remove(vnode);
        descriptors.close(vnode);
      } else {
        const to = random.below(7);
        const found = model.find((entry) => entry.vnode === vnode);
        if (found !== undefined && !model.some((entry) => entry.vnode === to)) {
          remove(vnode);
          model.push({ vnode: to, descriptor: found.descriptor });
        }
        descriptors.move(vnode, to);
      }
      expect(descriptors.count).toBe(model.length);
    }
    const kept = model.map((entry) => entry.descriptor);
    for (const descriptor of kept) expect(fstatSync(descriptor).isFile()).toBe(true);
    descriptors.shrink(0);
    for (const descriptor of kept) expect(() => closeSync(descriptor)).toThrow(/EBADF/);
  });
});
