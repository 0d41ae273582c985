/**
 * `pagewright replay`: starts the checked build of itself on the files and passes on what it says.
 *
 * Replays run in the build that asserts locks, ranks and invariants. They compute without a pause, so that they get a
 * process of their own: this one stays free to hear signals.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { ReplayArguments } from './arguments.ts';
import { EXIT } from './usage.ts';

/** Replays the files; resolves to the exit code. `started` is given the process, to end it on a signal. */
export function replayCommand(args: ReplayArguments, started: (child: ChildProcess) => void): Promise<number> {
  const program = fileURLToPath(new URL('./replay-program.js', import.meta.url)).replace(
    /([\\/])release([\\/]cli[\\/])/,
    '$1verify$2',
  );
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--conditions=verify', program, ...args.files], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    started(child);
    child.stdout.pipe(process.stdout);
    child.once('error', reject);
    child.once('close', (code) => resolve(code ?? EXIT.failed));
  });
}
