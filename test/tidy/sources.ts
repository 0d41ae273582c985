/** The repository's TypeScript files, parsed once, for the rules of tidy. */

import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

/** Where the repository starts. */
export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');

/** Folders that hold our own TypeScript. */
const FOLDERS = ['src', 'test', 'bench', 'scripts', 'examples'];

/** One file as the rules see it. */
export interface SourceFile {
  /** Path from the repository's root, with forward slashes. */
  readonly path: string;
  readonly text: string;
  readonly ast: ts.SourceFile;
  /** Room under src/, or null for files elsewhere and for src/index.ts. */
  readonly room: string | null;
  readonly isTest: boolean;
}

/** A breach of a rule: where, and what is wrong there. */
export interface Breach {
  readonly path: string;
  /** Line, from 1. */
  readonly line: number;
  readonly message: string;
}

/** Parses one file; tests use it to make sources that break a rule. */
export function parseSource(path: string, text: string): SourceFile {
  const ast = ts.createSourceFile(path, text, ts.ScriptTarget.ES2023, true);
  const parts = path.split('/');
  const room = parts[0] === 'src' && parts.length > 2 ? (parts[1] as string) : null;
  return { path, text, ast, room, isTest: /\.test\.ts$/.test(path) || parts[0] === 'test' };
}

/** All files of ours, in order of their paths. */
export function readSources(): SourceFile[] {
  const paths: string[] = [];
  for (const folder of FOLDERS) collect(join(ROOT, folder), paths);
  return paths.sort().map((path) => parseSource(path, readFileSync(join(ROOT, path), 'utf8')));
}

function collect(folder: string, paths: string[]): void {
  let entries: import('node:fs').Dirent[];
  try {
    entries = readdirSync(folder, { withFileTypes: true });
  } catch {
    return; // a folder that does not exist holds no files
  }
  for (const entry of entries) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) collect(path, paths);
    else if (entry.name.endsWith('.ts')) paths.push(relative(ROOT, path).split(sep).join('/'));
  }
}

/** Visits every node of a file. */
export function visit(node: ts.Node, see: (node: ts.Node) => void): void {
  see(node);
  ts.forEachChild(node, (child) => visit(child, see));
}

/** Makes a breach at a node. */
export function breachAt(file: SourceFile, node: ts.Node, message: string): Breach {
  const { line } = file.ast.getLineAndCharacterOfPosition(node.getStart(file.ast));
  return { path: file.path, line: line + 1, message };
}

/** Lines of a file, without the empty one after the last newline. */
export function lineCount(file: SourceFile): number {
  const lines = file.text.split('\n').length;
  return file.text.endsWith('\n') ? lines - 1 : lines;
}

/** Module names that a file imports or re-exports, and files that it names by URL for workers. */
export function importsOf(file: SourceFile): { readonly target: string; readonly node: ts.Node }[] {
  const found: { target: string; node: ts.Node }[] = [];
  visit(file.ast, (node) => {
    if ((ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) && node.moduleSpecifier) {
      found.push({ target: (node.moduleSpecifier as ts.StringLiteral).text, node });
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      const [argument] = node.arguments;
      if (argument && ts.isStringLiteral(argument)) found.push({ target: argument.text, node });
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      found.push({ target: (node.argument.literal as ts.StringLiteral).text, node });
    } else if (ts.isNewExpression(node) && node.expression.getText(file.ast) === 'URL') {
      const argument = node.arguments?.[0];
      if (argument && ts.isStringLiteral(argument) && argument.text.startsWith('.')) {
        found.push({ target: argument.text, node });
      }
    }
  });
  return found;
}

/** Path from the root of a relative import, with the extension of the source. */
export function resolveImport(file: SourceFile, target: string): string | null {
  if (!target.startsWith('.')) return null;
  const path = relative(ROOT, resolve(ROOT, dirname(file.path), target));
  return path.split(sep).join('/').replace(/\.js$/, '.ts');
}
