/** Rules of tidy about how files read: headers, documentation, marks, seeds, lengths. */

import ts from 'typescript';
import { type Breach, breachAt, lineCount, type SourceFile, visit } from './sources.ts';

/** Sections that the header of a structural file must have. */
export const SECTIONS = [
  'PROBLEM',
  'STRUCTURE',
  'INVARIANTS',
  'LOCKING',
  'COSTS',
  'FAILURE',
  'REJECTED',
  'REFERENCES',
] as const;

/** A file longer than this holds more than one concept. */
export const FILE_LINES_MAX = 450;

/** A function longer than this is reported. */
export const FUNCTION_LINES_MAX = 70;

/** The first block comment of a file. */
function header(file: SourceFile): string {
  const match = /^\s*\/\*\*[\s\S]*?\*\//.exec(file.text);
  return match ? match[0] : '';
}

function sectionsOf(text: string): string[] {
  return SECTIONS.filter((section) => new RegExp(`^ \\* ${section}\\b`, 'm').test(text));
}

/** Fields of these types make a class a structure over shared memory. */
const SHARED_TYPE = /\b(Region|Thread|Bound(?:Tables)?|Int32Column|Float64Column|ByteColumn)\b/;

/** Library files shorter than this may explain themselves in a sentence. */
const SMALL_FILE_LINES = 60;

/**
 * A structural file is a library file above base/ that states INVARIANTS, or that exports a class with a field over
 * shared memory and is not a small one.
 */
export function isStructural(file: SourceFile): boolean {
  if (file.room === null || file.isTest || file.room === 'base' || file.room === 'inspect' || file.room === 'cli') {
    return false;
  }
  if (sectionsOf(header(file)).includes('INVARIANTS')) return true;
  return lineCount(file) > SMALL_FILE_LINES && file.ast.statements.some((statement) => isSharedClass(statement, file));
}

function isSharedClass(statement: ts.Statement, file: SourceFile): boolean {
  if (!ts.isClassDeclaration(statement) || !isExported(statement)) return false;
  return statement.members.some(
    (member) => ts.isPropertyDeclaration(member) && member.type && SHARED_TYPE.test(member.type.getText(file.ast)),
  );
}

/** Structural files have every section in their header. */
export function headerSections(files: readonly SourceFile[]): Breach[] {
  const breaches: Breach[] = [];
  for (const file of files) {
    if (!isStructural(file)) continue;
    const sections = sectionsOf(header(file));
    const missing = SECTIONS.filter((section) => !sections.includes(section));
    if (missing.length > 0) {
      breaches.push({ path: file.path, line: 1, message: `the header lacks ${missing.join(', ')}` });
    }
  }
  return breaches;
}

function isExported(node: ts.Node): boolean {
  if (!ts.canHaveModifiers(node)) return false;
  return ts.getModifiers(node)?.some((modifier) => modifier.kind === ts.SyntaxKind.ExportKeyword) ?? false;
}

function hasDoc(node: ts.Node): boolean {
  return ts.getJSDocCommentsAndTags(node).length > 0;
}

/** Every exported declaration has a doc comment; `index.ts` files only re-export. */
export function undocumentedExports(files: readonly SourceFile[]): Breach[] {
  const breaches: Breach[] = [];
  for (const file of files) {
    if (!file.path.startsWith('src/') || file.isTest) continue;
    const isIndex = file.path.endsWith('/index.ts');
    for (const statement of file.ast.statements) {
      if (isIndex && !ts.isExportDeclaration(statement)) {
        breaches.push(breachAt(file, statement, 'an index file only re-exports'));
      }
      if (ts.isExportAssignment(statement)) breaches.push(breachAt(file, statement, 'a default export'));
      if (!isExported(statement) || hasDoc(statement)) continue;
      const name = (statement as { name?: ts.Identifier }).name?.text ?? statement.getText(file.ast).slice(0, 40);
      breaches.push(breachAt(file, statement, `exported without a doc comment: ${name}`));
    }
  }
  return breaches;
}

const MARKS = new RegExp(`\\b(${['TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X', 'not ' + 'implemented'].join('|')})\\b`, 'i');

/** No marks of unfinished work. */
export function unfinishedMarks(files: readonly SourceFile[]): Breach[] {
  const breaches: Breach[] = [];
  for (const file of files) {
    file.text.split('\n').forEach((line, index) => {
      const match = MARKS.exec(line);
      if (match && match[0] !== match[0].toLowerCase()) {
        breaches.push({ path: file.path, line: index + 1, message: `a mark of unfinished work: ${line.trim()}` });
      }
    });
  }
  return breaches;
}

const RUNNERS = ['it', 'test', 'describe'];
const TURNED_OFF = ['skip', 'only', 'todo', 'fails', 'skipIf', 'runIf'];

/** No test is skipped, focused or expected to fail. */
export function skippedTests(files: readonly SourceFile[]): Breach[] {
  const breaches: Breach[] = [];
  for (const file of files) {
    if (!file.isTest) continue;
    visit(file.ast, (node) => {
      if (!ts.isPropertyAccessExpression(node) || !TURNED_OFF.includes(node.name.text)) return;
      const runner = node.expression.getText(file.ast).split('.')[0] as string;
      if (RUNNERS.includes(runner)) breaches.push(breachAt(file, node, `${node.getText(file.ast)} turns a test off`));
    });
  }
  return breaches;
}

/** Chance and time come from seeds and from the clock, everywhere. */
export function unseededChance(files: readonly SourceFile[]): Breach[] {
  const breaches: Breach[] = [];
  for (const file of files) {
    visit(file.ast, (node) => {
      if (!ts.isPropertyAccessExpression(node)) return;
      const name = node.getText(file.ast);
      if (name === 'Math.random' || name === 'Date.now')
        breaches.push(breachAt(file, node, `${name} cannot be repeated`));
    });
  }
  return breaches;
}

/** Files longer than the limit; data files under test/ may be any length. */
export function longFiles(files: readonly SourceFile[]): Breach[] {
  return files
    .filter((file) => file.path.startsWith('src/') && lineCount(file) > FILE_LINES_MAX)
    .map((file) => ({
      path: file.path,
      line: FILE_LINES_MAX + 1,
      message: `${lineCount(file)} lines: one concept in at most ${FILE_LINES_MAX}`,
    }));
}

/** Functions longer than the limit: reported, not refused. */
export function longFunctions(files: readonly SourceFile[]): Breach[] {
  const breaches: Breach[] = [];
  for (const file of files) {
    if (!file.path.startsWith('src/') || file.isTest) continue;
    visit(file.ast, (node) => {
      if (!ts.isFunctionLike(node) || !('body' in node) || !node.body) return;
      const first = file.ast.getLineAndCharacterOfPosition(node.getStart(file.ast)).line;
      const last = file.ast.getLineAndCharacterOfPosition(node.end).line;
      const lines = last - first + 1;
      if (lines <= FUNCTION_LINES_MAX) return;
      const name = node.name?.getText(file.ast) ?? 'a function';
      breaches.push(breachAt(file, node, `${name}: ${lines} lines`));
    });
  }
  return breaches;
}
