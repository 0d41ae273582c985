/** Accesses through a thread's own translations, under every schedule beside forks and unmappings; deaths at every step. */

import { describe, it } from 'vitest';
import { expose, LARGE, prove, scenarioClass } from './prove.ts';
import type { SectionsOptions } from './scenarios/sections.ts';
import type { Mutation } from './sources.ts';

/** Fewer words that say the same, and nobody looks again after a while, so that a wake-up that is lost is seen. */
const SMALLER: readonly Mutation[] = [
  { file: 'src/seg/soft-tlb.ts', find: 'const ENTRIES = 4096;', replace: 'const ENTRIES = 4;' },
  { file: 'src/layout/space-tables.ts', find: 'TRANSLATION_LANES = 32;', replace: 'TRANSLATION_LANES = 2;' },
  {
    file: 'src/seg/write-sections.ts',
    find: 'const PATIENCE_MS = 10;',
    replace: 'const PATIENCE_MS = Number.POSITIVE_INFINITY;',
  },
  // Plain copies are not seen by the explorer: the one word that the scenario reads so is loaded.
  {
    file: 'src/seg/space-access.ts',
    find: 'target.set(from.subarray(offset, offset + bytes), at + done);',
    replace: `const wordsHere = this.bankWords[tlb.bank[entry] as number] as Int32Array;
        const wordHere = load(wordsHere, offset / WORD);
        new Int32Array(target.buffer)[0] = from.length > 0 ? wordHere : 0;`,
  },
];

const World = scenarioClass<SectionsOptions>('sections.ts', 'SectionsWorld', SMALLER);
const world = (programs: readonly string[], mortal: readonly number[] = []) => new World({ programs, mortal });
/** What a thread keeps in its table is not seen in its variables: states are told apart by all that a thread has observed. */
const wholeHistories = true;

describe('write sections', () => {
  it('let a fork show one instant, and lose no store', () => {
    prove('a fork beside a writer', world(['aw', 'f']), { wholeHistories, preemptions: LARGE ? 4 : 2 });
    prove('a fork beside two writers', world(['aa', 'w', 'f']), { wholeHistories, preemptions: LARGE ? 2 : 1 });
  });

  it('let nobody read or store where nothing is mapped any more', () => {
    prove(
      'an unmapping beside a reader',
      world(['rr', 'u']),
      LARGE ? { wholeHistories } : { wholeHistories, preemptions: 3 },
    );
    prove('an unmapping beside a writer', world(['aa', 'u']), { wholeHistories, preemptions: LARGE ? 4 : 2 });
    prove('an unmapping of a page that stays', world(['ra', 'k']), { wholeHistories, preemptions: LARGE ? 4 : 2 });
  });

  it.each(['r', 'b', 'c'])('leave nothing to a reader that a fork has stored: %s', (read) => {
    // The first store behind the fork leaves the frame that the reader knows to the fork, which stores into it in place.
    const bounds = { wholeHistories, preemptions: LARGE ? 4 : 2 };
    prove(`a reader beside a fork that stores: ${read}`, world([read.repeat(2), 'fao']), bounds);
    if (LARGE) prove(`with a thread for each: ${read}`, world([read, 'fo', 'a']), { ...bounds, preemptions: 2 });
  });

  it('wait for no thread that has died', () => {
    const bounds = { wholeHistories, deaths: 1, preemptions: LARGE ? 3 : 1 };
    prove('a writer dies beside a fork', world(['aw', 'f'], [0]), bounds);
    prove('who forks dies', world(['aw', 'fa'], [1]), { ...bounds, preemptions: LARGE ? 3 : 1 });
  });
});

/** Bugs that are in the code behind a name: one compilation for all of them. */
const seeded = (name: string) => `(globalThis as unknown as { seeded: string }).seeded === '${name}'`;

const COMPARE = 'if (load(this.words, tlb.countAt[entry] as number) === tlb.count[entry]) {';
const HOLD = 'if (!isPage || this.known.hold(frame, vnode, tlb.index[entry] as number)) {';
const RELEASE = 'if ((tlb.vnode[entry] as number) >= 0) this.known.release(tlb.frame[entry] as number);\n    else';
const LET_GO = 'if (isPage) this.known.release(frame);';
const AGAIN = 'return load(this.words, this.tlb.countAt[entry] as number) === this.tlb.count[entry];';
const COUNTS = 'if (!counts) continue;';
const IS_HERE = 'isHere = load(this.words, this.countAt[at] as number) === this.count[at];';
const COUNT = 'add(this.words, this.counts.address(space, lane), 1);\n    if (VERIFY)';
const AWAIT = 'this.awaitSlot(space, slot);\n  }';

const BUGS: readonly (readonly [file: string, find: string, replace: string])[] = [
  [
    'space-access.ts',
    COMPARE,
    `const fits = load(this.words, tlb.countAt[entry] as number) === tlb.count[entry];
     if (fits || (write && ${seeded('store')}) || (!write && ${seeded('read')})) {
        if (section && ${seeded('late section')}) this.sections.enter(this.space);`,
  ],
  [
    'space-access.ts',
    '    if (section) this.sections.enter(this.space);\n',
    `    if (section && !(${seeded('late section')})) this.sections.enter(this.space);\n`,
  ],
  ['space-access.ts', HOLD, HOLD.replace('!isPage ||', `!isPage || (!write && ${seeded('unheld')}) ||`)],
  ['space-access.ts', LET_GO, LET_GO.replace('isPage', `isPage && (write || !(${seeded('unheld')}))`)],
  [
    'space-access.ts',
    AGAIN,
    `if (${seeded('read')} || ${seeded('unheld')} || ${seeded('overtaken')}) return true;\n    ${AGAIN}`,
  ],
  ['space-access.ts', COUNTS, `if (!counts && !(${seeded('overtaken bytes')})) continue;`],
  ['space-cursor.ts', IS_HERE, `${IS_HERE}\n      if (${seeded('overtaken cursor')}) isHere = true;`],
  ['space-access.ts', RELEASE, `if (${seeded('unheld')}) return;\n    ${RELEASE}`],
  ['write-sections.ts', COUNT, COUNT.replace('add(', `if (!(${seeded('late count')})) add(`)],
  [
    'write-sections.ts',
    AWAIT,
    `if (!(${seeded('no wait')})) this.awaitSlot(space, slot);
    if (${seeded('late count')}) {
      for (let lane = 0; lane < TRANSLATION_LANES; lane++) add(this.words, this.counts.address(space, lane), 1);
    }
  }`,
  ],
  [
    'write-sections.ts',
    'if ((word & SECTION_AWAITED) !== 0) notify',
    `if ((word & SECTION_AWAITED) !== 0 && !(${seeded('silent')})) notify`,
  ],
  [
    'write-sections.ts',
    'exchange(this.words, address, 0);\n',
    `if (!(${seeded('dead section')})) exchange(this.words, address, 0);\n`,
  ],
];

describe('seeded bugs in accesses', () => {
  const Buggy = scenarioClass<SectionsOptions>('sections.ts', 'SectionsWorld', [
    ...SMALLER,
    ...BUGS.map(([file, find, replace]) => ({ file: `src/seg/${file}`, find, replace })),
  ]);
  const cases: readonly (readonly [name: string, programs: readonly string[], message: RegExp])[] = [
    ['store', ['aw', 'f'], /fork has changed|holds/],
    ['read', ['rr', 'k'], /after the unmapping/],
    ['late section', ['aw', 'f'], /fork has changed|holds|torn/],
    ['no wait', ['aw', 'f'], /fork has changed|holds|torn/],
    ['late count', ['aw', 'f'], /fork has changed|holds|torn/],
    ['silent', ['aw', 'f'], /sleep for ever/],
    ['dead section', ['aw', 'f'], /sleep for ever|section/],
    ['unheld', ['rr', 'u'], /dropped page was read/],
    ['overtaken', ['rr', 'fao'], /fork has stored was read/],
    ['overtaken bytes', ['bb', 'fao'], /fork has stored was read/],
    ['overtaken cursor', ['cc', 'fao'], /fork has stored was read/],
  ];

  it.each(cases)('finds the one called: %s', (name, programs, message) => {
    (globalThis as unknown as { seeded: string }).seeded = name;
    const mortal = name === 'dead section' ? [0] : [];
    const bounds = { wholeHistories, preemptions: name === 'late count' ? 3 : 2, deaths: mortal.length };
    expose(name, () => new Buggy({ programs, mortal }), bounds, message);
  });
});
