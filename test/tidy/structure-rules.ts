/** Rules of tidy about how the house is built: rooms, Atomics, offsets, reachability. */

import ts from 'typescript';
import { type Breach, breachAt, importsOf, resolveImport, type SourceFile, visit } from './sources.ts';

/** Rooms in the order in which they may import: each only from those before it and from itself. */
export const ROOMS = [
  'base',
  'layout',
  'sync',
  'vmem',
  'phys',
  'page',
  'pmem',
  'vnode',
  'vpm',
  'seg',
  'system',
  'inspect',
  'cli',
] as const;

/** A room imports only from rooms before it. Tests beside the code may use any room. */
export function importDirection(files: readonly SourceFile[]): Breach[] {
  const breaches: Breach[] = [];
  const order = ROOMS as readonly string[];
  for (const file of files) {
    if (file.room === null || file.isTest) continue;
    if (!order.includes(file.room)) {
      breaches.push({ path: file.path, line: 1, message: `room ${file.room} has no place in the order of rooms` });
      continue;
    }
    for (const { target, node } of importsOf(file)) {
      if (target.startsWith('pagewright')) {
        breaches.push(breachAt(file, node, `a room names other rooms by path, not by ${target}`));
      }
      const path = resolveImport(file, target);
      if (path === null || !path.endsWith('.ts')) continue; // data is no code
      const room = path.startsWith('src/') && path.split('/').length > 2 ? (path.split('/')[1] as string) : null;
      if (room === null) {
        breaches.push(breachAt(file, node, `a room imports from rooms only, not ${target}`));
      } else if (order.indexOf(room) > order.indexOf(file.room)) {
        breaches.push(breachAt(file, node, `${file.room} may not import from ${room}, which comes after it`));
      }
    }
  }
  return breaches;
}

/** Run-time imports of the library are Node's own modules and files of the package: no dependency. */
export function noDependencies(files: readonly SourceFile[]): Breach[] {
  const breaches: Breach[] = [];
  for (const file of files) {
    if (!file.path.startsWith('src/') || file.isTest) continue;
    for (const { target, node } of importsOf(file)) {
      if (target.startsWith('.') || target.startsWith('node:')) continue;
      breaches.push(breachAt(file, node, `the package has no run-time dependency, but imports ${target}`));
    }
  }
  return breaches;
}

/** Only sync/ names Atomics. */
export function atomicsOutsideSync(files: readonly SourceFile[]): Breach[] {
  const breaches: Breach[] = [];
  for (const file of files) {
    if (!file.path.startsWith('src/') || file.room === 'sync' || file.isTest) continue;
    visit(file.ast, (node) => {
      if (ts.isIdentifier(node) && node.text === 'Atomics') {
        breaches.push(breachAt(file, node, 'Atomics is named outside src/sync/'));
      }
    });
  }
  return breaches;
}

const VIEWS =
  /^(Int8|Uint8|Uint8Clamped|Int16|Uint16|Int32|Uint32|Float32|Float64|BigInt64|BigUint64)Array$|^DataView$/;

/**
 * Places in shared memory are computed in layout/ alone. Elsewhere there is no view onto the region's buffer, no view that
 * starts at a written-out number, no index into the region's words that is a written-out number, and no arithmetic
 * on `byteOffset`.
 */
export function literalOffsets(files: readonly SourceFile[]): Breach[] {
  const breaches: Breach[] = [];
  for (const file of files) {
    if (!file.path.startsWith('src/') || file.room === 'layout' || file.isTest) continue;
    visit(file.ast, (node) => {
      const message = offsetBreach(node, file.ast);
      if (message !== null) breaches.push(breachAt(file, node, message));
    });
  }
  return breaches;
}

function offsetBreach(node: ts.Node, ast: ts.SourceFile): string | null {
  if (ts.isNewExpression(node) && VIEWS.test(node.expression.getText(ast))) {
    const [buffer, offset] = node.arguments ?? [];
    if (buffer && /\bregion\.buffer$/.test(buffer.getText(ast))) return "a view onto the region's buffer";
    if (offset && hasLiteral(offset)) return `a view at a written-out offset: ${offset.getText(ast)}`;
  }
  if (ts.isElementAccessExpression(node) && /(^|\.)(words|doubles)$/.test(node.expression.getText(ast))) {
    if (hasLiteral(node.argumentExpression)) return `a written-out index: ${node.getText(ast)}`;
  }
  if (ts.isPropertyAccessExpression(node) && node.name.text === 'byteOffset') {
    if (ts.isBinaryExpression(node.parent)) return 'arithmetic on byteOffset';
  }
  return null;
}

/** True when the expression holds a number other than 0 and 1, which are "none" and "plus one". */
function hasLiteral(expression: ts.Node): boolean {
  let found = false;
  visit(expression, (node) => {
    if (ts.isNumericLiteral(node) && Number(node.text) > 1) found = true;
  });
  return found;
}

/** What starts a program or a test: everything else must be reachable from one of these. */
function isEntry(path: string, entries: ReadonlySet<string>): boolean {
  if (entries.has(path)) return true;
  if (path.endsWith('.d.ts')) return true; // ambient declarations
  if (path === 'test/support/wait-limit.ts') return true; // vitest.config.ts names it
  return path.endsWith('.test.ts') || /^(test\/workers|examples)\//.test(path) || path === 'bench/main.ts';
}

/** Files that no entry reaches. Library files must be reachable without the help of tests. */
export function deadFiles(files: readonly SourceFile[], libraryEntries: readonly string[]): Breach[] {
  const byPath = new Map(files.map((file) => [file.path, file]));
  const entries = new Set(libraryEntries);
  const reached = new Set<string>();
  const queue = files.map((file) => file.path).filter((path) => isEntry(path, entries));
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    const file = byPath.get(path);
    if (reached.has(path) || !file) continue;
    reached.add(path);
    for (const { target } of importsOf(file)) {
      const next = resolveImport(file, target);
      // A test that imports a library file does not make it part of the library.
      if (next !== null && !(file.isTest && next.startsWith('src/'))) queue.push(next);
    }
  }
  return files
    .filter((file) => !reached.has(file.path))
    .map((file) => ({ path: file.path, line: 1, message: 'no entry reaches this file' }));
}
