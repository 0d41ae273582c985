/** What README and docs say, compared with what is there. */

import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { RANK } from '../src/sync/index.ts';
import { ROOT } from './tidy/sources.ts';

const run = promisify(execFile);
const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');

describe('README', () => {
  it('shows the first program as it is in examples/, and it runs', async () => {
    const program = readFileSync(join(ROOT, 'examples/first.mjs'), 'utf8');
    expect(readme).toContain(program.slice(program.indexOf('import ')));
    const { stdout, stderr } = await run(process.execPath, ['examples/first.mjs'], { cwd: ROOT });
    expect(stderr).toBe('');
    const addresses = [...stdout.matchAll(/slot \d+, address (\d+): \{\s+"name": "pagewright"/g)].map(
      (match) => match[1],
    );
    expect(addresses).toHaveLength(2);
    expect(new Set(addresses).size).toBe(2);
  });

  it('names commands that exist', () => {
    const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { scripts: object };
    const named = [...readme.matchAll(/npm (?:run )?(start|test|build|bench|check|lint|types)\b/g)].map(
      (match) => match[1],
    );
    expect(named).toContain('start');
    expect(named).toContain('test');
    for (const name of named) expect(Object.keys(scripts)).toContain(name);
  });

  it('links to files that exist, as do the documents', () => {
    const documents = ['README.md', 'CHANGELOG.md', ...readdirSync(join(ROOT, 'docs')).map((name) => `docs/${name}`)];
    for (const document of documents.filter((name) => name.endsWith('.md'))) {
      const text = readFileSync(join(ROOT, document), 'utf8');
      for (const [, target] of text.matchAll(/\]\(([^)#:]+)\)/g)) {
        const path = join(ROOT, dirname(document), target as string);
        expect(existsSync(path), `${document} links to ${target}`).toBe(true);
      }
    }
  });
});

describe.each([
  ['docs/arenas.md', 7],
  ['docs/files.md', 5],
  ['docs/memory.md', 7],
  ['docs/address-spaces.md', 6],
  ['docs/locks.md', 3],
])('%s', (file, count) => {
  const text = readFileSync(join(ROOT, file), 'utf8');
  const programs = [...text.matchAll(/^## (.*)$|^```js\n([\s\S]*?)^```$/gm)];
  let title = '';
  for (const [, heading, program] of programs) {
    title = heading ?? title;
    if (program === undefined) continue;
    it(`has a program that runs: ${title}`, async () => {
      const args = ['--input-type=module', '--eval', program];
      const { stderr } = await run(process.execPath, args, { cwd: ROOT, timeout: 120_000 });
      expect(stderr).toBe('');
    });
  }

  it('has programs', () => {
    expect(programs.filter(([, heading]) => heading === undefined)).toHaveLength(count);
  });
});

describe('docs/locking.md', () => {
  it('lists every rank with its number, in order', () => {
    const text = readFileSync(join(ROOT, 'docs/locking.md'), 'utf8');
    const rows = [...text.matchAll(/^\| (\d+) \| `(\w+)` \|/gm)].map(([, rank, name]) => [name, Number(rank)]);
    expect(rows).toEqual(Object.entries(RANK));
  });
});
