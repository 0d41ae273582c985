/** What `pagewright replay` starts in the checked build: replays files one after another and says how each went. */

import { type ReplayResult, replayFile, TraceError } from '../inspect/index.ts';
import { EXIT, firstLine } from './usage.ts';

/** The lines about one file. */
function render({ name, operations, mismatches, first, summary }: ReplayResult): string {
  let text = `${name}: ${operations} operations, ${mismatches} mismatches${summary === '' ? '' : `; ${summary}`}\n`;
  if (first !== null) {
    const { line, operation, expected, got, dump } = first;
    const indented = dump.trimEnd().replaceAll('\n', '\n    ');
    text += `  line ${line}: ${operation}\n  expected: ${expected}\n  got:      ${got}\n  state after it:\n    ${indented}\n`;
  }
  return text;
}

/** Replays the files; returns the exit code. */
function replayAll(files: readonly string[]): number {
  let code: number = EXIT.ok;
  for (const file of files) {
    try {
      const result = replayFile(file);
      process.stdout.write(render(result));
      if (result.mismatches > 0 && code === EXIT.ok) code = EXIT.failed;
    } catch (error) {
      const cannot = error instanceof TraceError;
      process.stderr.write(`pagewright replay: ${cannot ? '' : `${file}: `}${firstLine(error)}\n`);
      code = Math.max(code, cannot ? EXIT.usage : EXIT.failed);
    }
  }
  return code;
}

// Whoever reads our output may have gone away: then nobody is left to tell.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit();
});
process.exitCode = replayAll(process.argv.slice(2));
