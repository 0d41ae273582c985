/**
 * Loads the shipped sources, transformed, as modules of this process.
 *
 * A `Mutation` replaces one piece of a source before it is transformed: a seeded bug. It must occur exactly once, so a
 * test whose mutation no longer fits the code fails instead of proving nothing.
 */

import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { hooks } from './runtime.ts';
import { Transformer } from './transform.ts';

/** A seeded bug: in the file, `find` becomes `replace`. */
export interface Mutation {
  /** Path below the repository, for example `src/sync/mutex.ts`. */
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const OPTIONS: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2022,
  lib: ['lib.es2023.d.ts', 'lib.esnext.disposable.d.ts'],
  types: [],
  module: ts.ModuleKind.CommonJS,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  strict: true,
  noEmitOnError: false,
  skipLibCheck: true,
  isolatedModules: true,
  rewriteRelativeImportExtensions: true,
  allowImportingTsExtensions: true,
  rootDir: ROOT,
  outDir: '/explored',
  noLib: false,
};

const parsed = new Map<string, ts.SourceFile>();
let previous: ts.Program | undefined;

function compile(entry: string, mutations: readonly Mutation[]): Map<string, string> {
  const host = ts.createCompilerHost(OPTIONS);
  const read = host.getSourceFile.bind(host);
  const used = new Set<Mutation>();
  host.getSourceFile = (fileName, languageVersion, onError, shouldCreate) => {
    const changes = mutations.filter((mutation) => join(ROOT, mutation.file) === fileName);
    if (changes.length === 0) {
      let file = parsed.get(fileName);
      if (file === undefined) {
        file = read(fileName, languageVersion, onError, shouldCreate);
        if (file !== undefined) parsed.set(fileName, file);
      }
      return file;
    }
    let text = host.readFile(fileName) ?? '';
    for (const change of changes) {
      if (text.split(change.find).length !== 2) {
        throw new Error(`${change.file}: a mutation must fit exactly once: ${change.find}`);
      }
      text = text.replace(change.find, () => change.replace);
      used.add(change);
    }
    return ts.createSourceFile(fileName, text, languageVersion, true);
  };
  const program = ts.createProgram([join(ROOT, entry)], OPTIONS, host, previous);
  if (mutations.length === 0) previous = program;
  for (const mutation of mutations) {
    if (!used.has(mutation)) throw new Error(`${mutation.file}: the mutated file is not part of the exploration`);
  }
  const isOurs = (file: ts.SourceFile) => !file.isDeclarationFile && file.fileName.startsWith(ROOT);
  const files = loadedFiles(program, join(ROOT, entry));
  const transformer = new Transformer(program, isOurs, files);
  const modules = new Map<string, string>();
  const keep = (fileName: string, text: string) => modules.set(fileName.replace('/explored/', ''), text);
  for (const file of files) program.emit(file, keep, undefined, false, { before: [transformer.factory()] });
  return modules;
}

/** The files that an entry loads: imports of types alone are gone when it runs. */
function loadedFiles(program: ts.Program, entry: string): ReadonlySet<ts.SourceFile> {
  const found = new Set<ts.SourceFile>();
  const pending = [entry];
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    const file = program.getSourceFile(name);
    if (file === undefined || found.has(file)) continue;
    found.add(file);
    for (const statement of file.statements) {
      const isImport = ts.isImportDeclaration(statement);
      if (!isImport && !ts.isExportDeclaration(statement)) continue;
      const { moduleSpecifier } = statement;
      if (moduleSpecifier === undefined || !ts.isStringLiteral(moduleSpecifier)) continue;
      if (isImport ? !importsValues(statement.importClause) : statement.isTypeOnly) continue;
      if (moduleSpecifier.text.startsWith('.')) pending.push(join(dirname(name), moduleSpecifier.text));
    }
  }
  return found;
}

function importsValues(clause: ts.ImportClause | undefined): boolean {
  if (clause === undefined) return true;
  if (clause.phaseModifier === ts.SyntaxKind.TypeKeyword) return false;
  const { namedBindings } = clause;
  if (clause.name !== undefined || namedBindings === undefined || ts.isNamespaceImport(namedBindings)) return true;
  return namedBindings.elements.some((element) => !element.isTypeOnly);
}

/** Compiles an entry with everything it imports and returns its exports. `mutations` seed bugs. */
export function loadExplored(entry: string, mutations: readonly Mutation[] = []): Record<string, unknown> {
  const modules = compile(entry, mutations);
  const builtin = createRequire(import.meta.url);
  const loaded = new Map<string, Record<string, unknown>>();
  const load = (name: string): Record<string, unknown> => {
    const known = loaded.get(name);
    if (known !== undefined) return known;
    const text = modules.get(name);
    if (text === undefined) throw new Error(`exploration: no module ${name}`);
    const exports: Record<string, unknown> = {};
    loaded.set(name, exports);
    const require = (target: string) => (target.startsWith('.') ? load(join(dirname(name), target)) : builtin(target));
    const timer = () => 0;
    // Nothing here is shared with another thread of the machine, and buffers that are not shared are copied faster.
    const globals = {
      $: hooks,
      $meta: { url: import.meta.url },
      __VERIFY__: false,
      setInterval: timer,
      clearInterval: timer,
      SharedArrayBuffer: ArrayBuffer,
    };
    const body = new Function('exports', 'require', ...Object.keys(globals), text.replaceAll('import.meta', '$meta'));
    body(exports, require, ...Object.values(globals));
    return exports;
  };
  return load(entry.replace(/\.ts$/, '.js'));
}
