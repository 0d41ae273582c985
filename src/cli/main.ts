#!/usr/bin/env node
/** The `pagewright` command. */

import { readFileSync } from 'node:fs';
import { parseReplayArguments, parseRunArguments, parseServeArguments } from './arguments.ts';
import { MAIN_HELP, REPLAY_HELP, RUN_HELP, SERVE_HELP } from './help.ts';
import { replayCommand } from './replay.ts';
import { runCommand } from './run.ts';
import { serveCommand } from './serve.ts';
import { EXIT, firstLine, UsageError } from './usage.ts';

/** Ends the process on a signal: its threads end with it, whatever they are doing. */
function onSignal(code: number): void {
  if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
  process.stderr.write('pagewright: interrupted\n');
  process.exit(code);
}

/** A reader that has gone away is no error: there is nobody left to tell. */
function quietOnBrokenPipe(stream: NodeJS.WriteStream): void {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    process.exit(process.exitCode ?? EXIT.ok);
  });
}

async function main(args: readonly string[]): Promise<number> {
  const [command, ...rest] = args;
  if (command === 'run') {
    const given = parseRunArguments(rest);
    if (!given.help) return runCommand(given);
    process.stdout.write(RUN_HELP);
    return EXIT.ok;
  }
  if (command === 'serve') {
    const given = parseServeArguments(rest);
    if (!given.help) return serveCommand(given);
    process.stdout.write(SERVE_HELP);
    return EXIT.ok;
  }
  if (command === 'replay') {
    const given = parseReplayArguments(rest);
    if (!given.help) return replayCommand(given, (child) => process.once('exit', () => child.kill('SIGKILL')));
    process.stdout.write(REPLAY_HELP);
    return EXIT.ok;
  }
  if (command === '--help' || command === '-h' || command === 'help') {
    process.stdout.write(MAIN_HELP);
    return EXIT.ok;
  }
  if (command === '--version') {
    const manifest = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
    process.stdout.write(`${(JSON.parse(manifest) as { version: string }).version}\n`);
    return EXIT.ok;
  }
  const problem = command === undefined ? 'name a command' : `there is no command ${JSON.stringify(command)}`;
  throw new UsageError(`pagewright: ${problem}; there are: run, serve, replay; see pagewright --help`);
}

quietOnBrokenPipe(process.stdout);
quietOnBrokenPipe(process.stderr);
process.once('SIGINT', () => onSignal(EXIT.interrupted));
process.once('SIGTERM', () => onSignal(EXIT.terminated));
try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  const isUsage = error instanceof UsageError;
  process.stderr.write(`${isUsage ? '' : 'pagewright: '}${firstLine(error)}\n`);
  // Workers may still run: they end with the process.
  process.exit(isUsage ? EXIT.usage : EXIT.failed);
}
