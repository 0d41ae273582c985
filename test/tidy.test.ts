/** Tidy: the rules of the house, checked over every file, and each rule checked against a file that breaks it. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type Breach, parseSource, ROOT, readSources } from './tidy/sources.ts';
import {
  atomicsOutsideSync,
  deadFiles,
  importDirection,
  literalOffsets,
  noDependencies,
} from './tidy/structure-rules.ts';
import {
  headerSections,
  isStructural,
  longFiles,
  longFunctions,
  skippedTests,
  undocumentedExports,
  unfinishedMarks,
  unseededChance,
} from './tidy/text-rules.ts';

const files = readSources();
const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  exports: Record<string, string | { default: string }>;
  bin: Record<string, string>;
  dependencies?: Record<string, string>;
};

/** Sources behind what the package offers: its exports and its commands. */
function libraryEntries(): string[] {
  const targets = Object.values(manifest.exports).map((entry) => (typeof entry === 'string' ? entry : entry.default));
  return [...targets, ...Object.values(manifest.bin)]
    .filter((target) => target.endsWith('.js'))
    .map((target) => target.replace('./dist/release/', 'src/').replace(/\.js$/, '.ts'));
}

function show(breaches: readonly Breach[]): string[] {
  return breaches.map(({ path, line, message }) => `${path}:${line}: ${message}`);
}

/** Breaches of a rule in one made-up file. */
function breachesIn(rule: (files: ReturnType<typeof readSources>) => Breach[], path: string, text: string): number {
  return rule([parseSource(path, text)]).length;
}

describe('tidy', () => {
  it('finds the files', () => {
    expect(files.length).toBeGreaterThan(40);
    expect(files.filter(isStructural).length).toBeGreaterThan(10);
  });

  it('lets a room import only from rooms before it', () => {
    expect(show(importDirection(files))).toEqual([]);
    expect(breachesIn(importDirection, 'src/vmem/a.ts', "import { x } from '../page/b.ts';")).toBe(1);
    expect(breachesIn(importDirection, 'src/vmem/a.ts', "import type { x } from 'pagewright/base';")).toBe(1);
    expect(breachesIn(importDirection, 'src/vmem/a.ts', "import { x } from '../sync/b.ts';")).toBe(0);
    expect(breachesIn(importDirection, 'src/attic/a.ts', '')).toBe(1);
  });

  it('has no run-time dependency', () => {
    expect(manifest.dependencies ?? {}).toEqual({});
    expect(show(noDependencies(files))).toEqual([]);
    expect(breachesIn(noDependencies, 'src/cli/a.ts', "import { x } from 'left-pad';")).toBe(1);
  });

  it('names Atomics in sync/ only', () => {
    expect(show(atomicsOutsideSync(files))).toEqual([]);
    expect(breachesIn(atomicsOutsideSync, 'src/vmem/a.ts', 'Atomics.load(words, 1);')).toBe(1);
    expect(breachesIn(atomicsOutsideSync, 'src/vmem/a.ts', 'const { load } = Atomics; // Atomics')).toBe(1);
    expect(breachesIn(atomicsOutsideSync, 'src/vmem/a.ts', '// Atomics')).toBe(0);
  });

  it('computes places in shared memory in layout/ only', () => {
    expect(show(literalOffsets(files))).toEqual([]);
    expect(breachesIn(literalOffsets, 'src/vmem/a.ts', 'new Int32Array(buffer, 4096, 8);')).toBe(1);
    expect(breachesIn(literalOffsets, 'src/vmem/a.ts', 'new Uint8Array(bank, frame * 4096, size);')).toBe(1);
    expect(breachesIn(literalOffsets, 'src/vmem/a.ts', 'new Int32Array(this.region.buffer);')).toBe(1);
    expect(breachesIn(literalOffsets, 'src/vmem/a.ts', 'region.words[17] = 1;')).toBe(1);
    expect(breachesIn(literalOffsets, 'src/vmem/a.ts', 'const at = view.byteOffset + 8;')).toBe(1);
    expect(breachesIn(literalOffsets, 'src/phys/a.ts', 'new Uint8Array(bank, frame * pageSize, pageSize);')).toBe(0);
  });

  it('reaches every file from an entry', () => {
    expect(show(deadFiles(files, libraryEntries()))).toEqual([]);
    const orphan = [parseSource('src/base/a.ts', ''), parseSource('src/base/a.test.ts', "import './a.ts';")];
    expect(deadFiles(orphan, []).map((breach) => breach.path)).toEqual(['src/base/a.ts']);
  });

  it('explains structural files in all sections of a header', () => {
    expect(show(headerSections(files))).toEqual([]);
    expect(breachesIn(headerSections, 'src/vmem/a.ts', '/**\n * A.\n *\n * INVARIANTS  I1 a list\n */\n')).toBe(1);
    const plain = `/** A. */\nexport class A {\n  readonly region: Region;\n}\n${'//\n'.repeat(80)}`;
    expect(breachesIn(headerSections, 'src/vmem/a.ts', plain)).toBe(1);
  });

  it('documents every exported symbol', () => {
    expect(show(undocumentedExports(files))).toEqual([]);
    expect(breachesIn(undocumentedExports, 'src/vmem/a.ts', 'export const a = 1;')).toBe(1);
    expect(breachesIn(undocumentedExports, 'src/vmem/a.ts', '/** One. */\nexport const a = 1;')).toBe(0);
    expect(breachesIn(undocumentedExports, 'src/vmem/index.ts', '/** One. */\nexport const a = 1;')).toBe(1);
  });

  it('has no marks of unfinished work', () => {
    expect(show(unfinishedMarks(files))).toEqual([]);
    expect(breachesIn(unfinishedMarks, 'src/vmem/a.ts', `// ${'TO'}${'DO'}: more`)).toBe(1);
  });

  it('turns no test off', () => {
    expect(show(skippedTests(files))).toEqual([]);
    expect(breachesIn(skippedTests, 'test/a.test.ts', `it.${'skip'}('a', () => {});`)).toBe(1);
    expect(breachesIn(skippedTests, 'test/a.test.ts', `describe.${'only'}('a', () => {});`)).toBe(1);
  });

  it('uses seeds and the clock instead of chance and the time of day', () => {
    expect(show(unseededChance(files))).toEqual([]);
    expect(breachesIn(unseededChance, 'src/vmem/a.ts', 'const x = Math.random();')).toBe(1);
  });

  it('keeps files short', () => {
    expect(show(longFiles(files))).toEqual([]);
    expect(breachesIn(longFiles, 'src/vmem/a.ts', '//\n'.repeat(451))).toBe(1);
  });

  it('reports long functions', () => {
    const long = longFunctions(files);
    if (long.length > 0) console.log(`functions over 70 lines:\n  ${show(long).join('\n  ')}`);
    expect(breachesIn(longFunctions, 'src/vmem/a.ts', `function f() {\n${'x();\n'.repeat(80)}}`)).toBe(1);
  });

  it('exports every room but the command', () => {
    const rooms = files.filter((file) => /^src\/\w+\/index\.ts$/.test(file.path)).map((file) => `./${file.room}`);
    expect(Object.keys(manifest.exports).sort()).toEqual(['.', './package.json', ...rooms].sort());
  });

  it('records no download address in the lock file', () => {
    const lock = readFileSync(join(ROOT, 'package-lock.json'), 'utf8');
    expect(lock).not.toMatch(/"resolved": *"http/);
  });
});
