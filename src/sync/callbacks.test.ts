import { describe, expect, it } from 'vitest';
import { testRegion } from '../../test/support/region.ts';
import { Callbacks } from './callbacks.ts';

describe('callbacks', () => {
  it('store a pair once, for every thread', () => {
    const { region, callbacks } = testRegion();
    const first = callbacks.intern({ module: 'node:path', export: 'basename' });
    expect(new Callbacks(region).intern({ module: 'node:path', export: 'basename' })).toBe(first);
    expect(callbacks.intern({ module: 'node:path', export: 'dirname' })).not.toBe(first);
    expect(callbacks.intern({ export: 'basename' })).not.toBe(first);
  });

  it('load the module on first use', () => {
    const { callbacks } = testRegion();
    const basename = callbacks.resolve<(path: string) => string>(
      callbacks.intern({ module: 'node:path', export: 'basename' }),
    );
    expect(basename('/a/b')).toBe('b');
  });

  it('say which thread lacks what', () => {
    const { region, callbacks } = testRegion();
    const name = callbacks.intern({ export: 'release' });
    expect(() => callbacks.resolve(name)).toThrow(/ENOENT: callback "release" was not registered in this thread/);
    callbacks.register('release', () => 1);
    expect(callbacks.resolve<() => number>(name)()).toBe(1);
    expect(() => new Callbacks(region).resolve(name)).toThrow(/ENOENT/);
    const missing = callbacks.intern({ module: 'node:path', export: 'nothing' });
    expect(() => callbacks.resolve(missing)).toThrow(/ENOENT: callback "nothing" is not exported by node:path/);
    const lost = callbacks.intern({ module: 'file:///no/such/module.js', export: 'x' });
    expect(() => callbacks.resolve(lost)).toThrow(/ENOENT: .*module file:.* cannot be loaded/);
  });

  it('refuse names that do not fit, and a full table', () => {
    const { callbacks } = testRegion({ callbacks: 1 });
    expect(() => callbacks.intern({ export: 'x'.repeat(200) })).toThrow(/EINVAL: callbacks.intern.*too long/);
    callbacks.intern({ export: 'a' });
    expect(() => callbacks.intern({ export: 'b' })).toThrow(/ENOMEM: callbacks.intern.*`callbacks`/);
  });

  it('pass by a row whose writer died', () => {
    const { region, callbacks } = testRegion();
    region.tables.callback.state.put(0, 1);
    const index = callbacks.intern({ export: 'a' });
    expect(index).toBe(1);
    expect(callbacks.intern({ export: 'a' })).toBe(1);
  });
});
