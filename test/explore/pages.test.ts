/** The page cache under every schedule: hits without a lock beside fills, evictions, drops and deaths. */

import { describe, it } from 'vitest';
import { expose, LARGE, prove, scenarioClass } from './prove.ts';
import type { PagesOptions } from './scenarios/pages.ts';

const world = (options: PagesOptions) => new (scenarioClass<PagesOptions>('pages.ts', 'PagesWorld'))(options);

const BOTH = [0, 1];

describe('page cache', () => {
  it('fills a page once for two threads, under all interleavings', () => {
    prove('pages, a | a', world({ programs: ['a', 'a'] }), {});
    prove('pages, aA | aA', world({ programs: ['aA', 'aA'] }), {});
  });

  it('gives each its page while both evict', () => {
    prove('pages, abc | cba', world({ programs: ['abc', 'cba'] }), { preemptions: LARGE ? 4 : 2 });
    prove('pages, aba | Ba, one frame', world({ programs: ['aba', 'Ba'], frames: 1 }), { preemptions: LARGE ? 4 : 2 });
    prove('pages, AAA beside abcd', world({ programs: ['aAAA', 'bcd'] }), { preemptions: LARGE ? 4 : 2 });
  });

  it('tells states apart by all that was observed, with the same result', () => {
    prove('pages, ab | cA', world({ programs: ['ab', 'cA'] }), { preemptions: 2, wholeHistories: true });
  });

  it('drops pages beside readers', () => {
    prove('pages, axa | aA', world({ programs: ['axa', 'aA'] }), { preemptions: LARGE ? 4 : 2 });
    prove('pages, ax | bx', world({ programs: ['ax', 'bx'] }), { preemptions: LARGE ? 5 : 3 });
  });

  it('brings and evicts pages side by side together, beside others that want them one by one', () => {
    const preemptions = LARGE ? 3 : 2;
    prove('pages, p | p', world({ programs: ['p', 'p'] }), { preemptions });
    prove('pages, pq | bA', world({ programs: ['pq', 'bA'] }), { preemptions });
    prove('pages, cdp | aB', world({ programs: ['cdp', 'aB'] }), { preemptions });
    prove('pages, q | c0', world({ programs: ['q', 'c0'] }), { preemptions });
    const bounds = { deaths: 1, preemptions: LARGE ? 1 : 0 };
    prove('pages, cdp | b, a death', world({ programs: ['cdp', 'b'], mortal: BOTH }), bounds);
    prove('pages, dq | 0, a death', world({ programs: ['dq', '0'], mortal: BOTH }), bounds);
  });

  it('loses nothing when either thread dies at any step', () => {
    const bounds = { deaths: 1, preemptions: LARGE ? 2 : 1 };
    prove('pages, a | a, a death', world({ programs: ['a', 'a'], mortal: BOTH }), bounds);
    prove('pages, ab | c, a death', world({ programs: ['ab', 'c'], mortal: [0], frames: 1 }), bounds);
    prove('pages, ax | a, a death', world({ programs: ['ax', 'a'], mortal: [0] }), bounds);
    prove('pages, one frame, a death', world({ programs: ['a', 'b'], mortal: BOTH, frames: 1 }), bounds);
    const fewer = { programs: ['a', 'a'], mortal: [0] };
    if (LARGE) prove('pages, a | a, a death of one', world(fewer), { deaths: 1, preemptions: 2 });
  });

  it('keeps every version that was written beside evictions and writing back', () => {
    const preemptions = LARGE ? 3 : 2;
    prove('pages, 0 | s', world({ programs: ['0', 's'] }), { preemptions: LARGE ? 4 : 3 });
    prove('pages, 0a | bcs', world({ programs: ['0a', 'bcs'] }), { preemptions });
    prove('pages, 0s | sA', world({ programs: ['0s', 'sA'] }), { preemptions });
    prove('pages, 00s | 1s', world({ programs: ['00s', '1s'] }), { preemptions });
  });

  it('keeps pages that move beside hits, writers, writing back and evictions', () => {
    const preemptions = LARGE ? 3 : 2;
    prove('pages, 0A | m', world({ programs: ['0A', 'm'] }), { preemptions });
    prove('pages, 0s | mm', world({ programs: ['0s', 'mm'] }), { preemptions: preemptions - 1 });
    prove('pages, 0ma | bA', world({ programs: ['0ma', 'bA'] }), { preemptions: preemptions - 1 });
    prove('pages, amx | aA', world({ programs: ['amx', 'aA'] }), { preemptions: preemptions - 1 });
  });

  it('keeps pages on the cache list for who looks them up', () => {
    prove('pages, ar | aA', world({ programs: ['ar', 'aA'] }), { preemptions: 2 });
    prove('pages, abr | 0', world({ programs: ['abr', '0'] }), { preemptions: LARGE ? 3 : 1 });
    prove('pages, arb | cA', world({ programs: ['arb', 'cA'] }), { preemptions: LARGE ? 3 : 1 });
  });

  it('keeps pages that move on the cache list, once, beside who looks them up and evictions', () => {
    const preemptions = LARGE ? 3 : 1;
    prove('pages, arm | aA', world({ programs: ['arm', 'aA'] }), { preemptions: LARGE ? 3 : 2 });
    prove('pages, arm | bc', world({ programs: ['arm', 'bc'] }), { preemptions });
    prove('pages, ar | m, a death', world({ programs: ['ar', 'm'], mortal: [1] }), { deaths: 1, preemptions: 0 });
  });

  it('gives pages another name beside who looks up the old one, the new one, writes either, moves or evicts', () => {
    const preemptions = LARGE ? 3 : 2;
    prove('pages, an | aA', world({ programs: ['an', 'aA'] }), { preemptions });
    prove('pages, an | dD', world({ programs: ['an', 'dD'] }), { preemptions });
    prove('pages, an | n', world({ programs: ['an', 'n'] }), { preemptions });
    prove('pages, ansA | 3', world({ programs: ['ansA', '3'] }), { preemptions: preemptions - 1 });
    prove('pages, an | 0s', world({ programs: ['an', '0s'] }), { preemptions: preemptions - 1 });
    prove('pages, anD | m', world({ programs: ['anD', 'm'] }), { preemptions: preemptions - 1 });
    const bounds = { deaths: 1, preemptions: LARGE ? 1 : 0 };
    prove('pages, an | aD, a death', world({ programs: ['an', 'aD'], mortal: [0] }), bounds);
    prove('pages, n0 | an, a death', world({ programs: ['n0', 'an'], mortal: BOTH }), bounds);
  });

  it('loses nothing that was acknowledged when a writer, or who writes back or moves a page, dies', () => {
    const bounds = { deaths: 1, preemptions: LARGE ? 1 : 0 };
    prove('pages, 0 | s, a death', world({ programs: ['0', 's'], mortal: BOTH }), { deaths: 1, preemptions: 1 });
    prove('pages, 0s | bcd, a death', world({ programs: ['0s', 'bcd'], mortal: [0] }), bounds);
    prove('pages, 0m | a, a death', world({ programs: ['0m', 'a'], mortal: [0] }), bounds);
    prove('pages, ar | 0, a death', world({ programs: ['ar', '0'], mortal: BOTH }), bounds);
  });

  it('holds for three threads', () => {
    prove('pages, a | a | b', world({ programs: ['a', 'a', 'b'], frames: LARGE ? 2 : 3 }), {
      preemptions: LARGE ? 2 : 1,
    });
  });
});

describe('seeded bugs in the page cache', () => {
  const seeded = (file: string, find: string, replace: string) => {
    const Mutated = scenarioClass<PagesOptions>('pages.ts', 'PagesWorld', [{ file, find, replace }]);
    return (options: PagesOptions) => () => new Mutated(options);
  };

  it('finds a hit that does not compare the identity again', () => {
    const make = seeded(
      'src/page/page-lookup.ts',
      '    if (!this.#holds.hasPage(frame, vnode, index)) {',
      '    if (frame < 0) {',
    );
    expose('identity not compared', make({ programs: ['aA', 'bcd'] }), { preemptions: 3 }, /instead of page/);
  });

  it('finds an eviction that does not look for holders', () => {
    const look =
      '  if (!anyReader(thread, address)) return true;\n  exclusiveRelease(thread, address);\n  return false;';
    const make = seeded('src/sync/rwlock.ts', look, '  return true;');
    const options = { programs: ['aA', 'bcd'] };
    expose('holders not seen', make(options), { preemptions: 4 }, /instead of page|locked|I[123]/);
  });

  it('finds writing back that cleans a page which was modified meanwhile', () => {
    const look = '      if (stored && (word & MODIFIED.dirty) === 0) break;';
    const again = '      const next = word & MODIFIED.dirty;';
    const file = 'src/page/dirty-pages.ts';
    const Mutated = scenarioClass<PagesOptions>('pages.ts', 'PagesWorld', [
      { file, find: look, replace: '      if (stored) break;' },
      { file, find: again, replace: '      const next = 0;' },
      { file, find: '    if ((word & MODIFIED.dirty) === 0) this.#unlist', replace: '    this.#unlist' },
    ]);
    const make = () => new Mutated({ programs: ['00', 's'] });
    expose('cleaned though modified', make, { preemptions: 2 }, /clean with|lost/);
  });

  it('finds a writer that does not say again that it has written', () => {
    const file = 'src/page/dirty-pages.ts';
    const find = '      const found = compareExchange(words, address, word, word | MODIFIED.dirty);\n';
    const make = seeded(file, find, '      const found = word;\n');
    expose('not marked again', make({ programs: ['0', 's'] }), { preemptions: 3 }, /clean with|lost/);
  });

  it('finds an eviction that drops modified pages', () => {
    const find = ' && page.modified.get(frame) === 0;';
    const make = seeded('src/page/replacement.ts', find, ';');
    expose('dropped modified', make({ programs: ['0bca', 'd'] }), { preemptions: 1 }, /lost|I4|keeps its identity/);
  });

  it('finds a relocation that does not look for holders', () => {
    const find = '    if (!this.#hasBytes(frame) || !this.#holds.tryExclusive(frame)) return false;\n';
    const replace = '    if (!this.#hasBytes(frame)) return false;\n    this.#holds.tryExclusive(frame);\n';
    const make = seeded('src/page/page-moves.ts', find, replace);
    expose(
      'moved though held',
      make({ programs: ['0', 'm'] }),
      { preemptions: 2 },
      /lost|clean with|hold|locked|I[123]/,
    );
  });

  it('finds a rename that does not look whether the name is taken', () => {
    const find = '    if (this.#search(bucket, vnode, index) >= 0) return false;\n';
    const make = seeded('src/page/page-hash.ts', find, '');
    expose('renamed twice', make({ programs: ['an', 'd'] }), { preemptions: 2 }, /I[12]|locked/);
  });

  it('finds a page that moves and stays on the cache list in its old frame', () => {
    const make = seeded('src/page/page-moves.ts', '    if (cached) this.#cache.move(from, to);\n', '');
    expose('listed in the old frame', make({ programs: ['arm', 'A'] }), { preemptions: 1 }, /cache-list|page-list|I1/);
  });

  it('finds a recovery that leaves a page clean into which the dead may have stored', () => {
    const find = '    if (this.#link.previous.get(head) !== PAGE_UNLINKED.plain) this.mark(head);\n';
    const make = seeded('src/page/dirty-pages.ts', find, '');
    const bounds = { deaths: 1, preemptions: 3 };
    expose('stored and clean', make({ programs: ['00', 's'], mortal: [0] }), bounds, /clean with|lost|I1/);
  });

  it('finds an insertion that does not look for the other one', () => {
    const look = '        other = this.#search(bucket, vnode, index + done);\n';
    const make = seeded('src/page/page-hash.ts', look, '        other = -1;\n');
    expose('inserted twice', make({ programs: ['a', 'a'] }), { preemptions: 2 }, /I[12]|locked/);
  });

  it('finds a recovery that leaves a half-filled page in place', () => {
    const filling = ' && !hasBytes(page.state.get(frame))) {';
    const make = seeded('src/page/recovery.ts', filling, ' && page.state.get(frame) === 12345) {');
    const options = { programs: ['b', 'a'], mortal: [0] };
    expose('half-filled page', make(options), { deaths: 1, preemptions: 1 }, /I3/);
  });

  it('finds a recovery that takes a frame back which somebody else has taken', () => {
    const taken = '  if (state === PAGE_STATE.empty) return frames.takerOf(frame) === dead;';
    const hasLock = '  if (state === PAGE_STATE.empty) return true;';
    const make = seeded('src/page/recovery.ts', taken, hasLock);
    const options = { programs: ['ab', 'c'], mortal: [0], frames: 1 };
    expose('frame of another', make(options), { deaths: 1, preemptions: 1, statesMax: 200_000 }, /use 1|I1/);
  });

  it('finds a recovery that does not wake those whom the dead should have woken', () => {
    const make = seeded('src/page/recovery.ts', '  wakeSleepers(self);\n', '');
    const options = { programs: ['a', 'a'], mortal: [0] };
    expose('nobody woken', make(options), { deaths: 1, preemptions: 2 }, /sleep for ever/);
  });
});
