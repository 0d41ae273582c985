/**
 * The command line, read with Node's own parser.
 *
 * A package for arguments would be the only run-time dependency of the whole; what is needed here is small, and errors
 * are worded so that one line says what to do.
 */

import { parseArgs } from 'node:util';
import { firstLine, UsageError } from './usage.ts';

/** What `pagewright run` was asked for. */
export interface RunArguments {
  readonly paths: readonly string[];
  /** Size as text, checked by boot. */
  readonly memory: string;
  /** 0 for the default. */
  readonly workers: number;
  readonly seconds: number;
  readonly seed: number;
  readonly check: boolean;
  /** Update a scratch copy too. */
  readonly write: boolean;
  readonly json: boolean;
  readonly help: boolean;
}

/** What `pagewright replay` was asked for. */
export interface ReplayArguments {
  readonly files: readonly string[];
  readonly help: boolean;
}

/** What `pagewright serve` was asked for. */
export interface ServeArguments {
  readonly folder: string;
  readonly host: string;
  readonly port: number;
  /** Size as text, checked by boot. */
  readonly memory: string;
  /** 0 for the default. */
  readonly workers: number;
  readonly help: boolean;
}

/** Reads the arguments after `run`. Throws `UsageError`. */
export function parseRunArguments(args: readonly string[]): RunArguments {
  const { values, positionals } = parse('run', args, {
    memory: { type: 'string', default: '64MiB' },
    workers: { type: 'string' },
    seconds: { type: 'string', default: '20' },
    seed: { type: 'string', default: '1' },
    check: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  });
  return {
    paths: positionals.length > 0 ? positionals : ['.'],
    memory: values.memory,
    workers: values.workers === undefined ? 0 : wholeNumber('run', '--workers', values.workers, 1, 48),
    seconds: duration('run', '--seconds', values.seconds),
    seed: wholeNumber('run', '--seed', values.seed, 0, Number.MAX_SAFE_INTEGER),
    check: values.check,
    write: values.write,
    json: values.json,
    help: values.help,
  };
}

/** Reads the arguments after `replay`. Throws `UsageError`. */
export function parseReplayArguments(args: readonly string[]): ReplayArguments {
  const { values, positionals } = parse('replay', args, { help: { type: 'boolean', short: 'h', default: false } });
  if (positionals.length === 0 && !values.help) {
    throw new UsageError('pagewright replay: name at least one trace file; see pagewright replay --help');
  }
  return { files: positionals, help: values.help };
}

/** Reads the arguments after `serve`. Throws `UsageError`. */
export function parseServeArguments(args: readonly string[]): ServeArguments {
  const { values, positionals } = parse('serve', args, {
    port: { type: 'string', default: '8080' },
    host: { type: 'string', default: '127.0.0.1' },
    memory: { type: 'string', default: '256MiB' },
    workers: { type: 'string' },
    help: { type: 'boolean', short: 'h', default: false },
  });
  if (positionals.length > 1) throw new UsageError('pagewright serve: name one folder; see pagewright serve --help');
  return {
    folder: positionals[0] ?? '.',
    host: values.host,
    port: wholeNumber('serve', '--port', values.port, 0, 65535),
    memory: values.memory,
    workers: values.workers === undefined ? 0 : wholeNumber('serve', '--workers', values.workers, 1, 48),
    help: values.help,
  };
}

type Options = NonNullable<NonNullable<Parameters<typeof parseArgs>[0]>['options']>;

function parse<const Given extends Options>(command: string, args: readonly string[], options: Given) {
  try {
    return parseArgs<{ args: string[]; options: Given; allowPositionals: true; strict: true }>({
      args: withNegatives(args),
      options,
      allowPositionals: true,
      strict: true,
    });
  } catch (error) {
    // Node appends advice about `--`, which helps nobody who misspelt an option.
    const text = firstLine(error).replace(/\. To specify a positional argument.*$/, '');
    throw new UsageError(`pagewright ${command}: ${text}; see pagewright ${command} --help`);
  }
}

/** `--seconds -1` is a value that is wrong, not an option that is missing its value. */
function withNegatives(args: readonly string[]): string[] {
  const joined: string[] = [];
  for (const arg of args) {
    const before = joined.at(-1);
    if (/^-\d/.test(arg) && before?.startsWith('--') && !before.includes('='))
      joined[joined.length - 1] = `${before}=${arg}`;
    else joined.push(arg);
  }
  return joined;
}

function wholeNumber(command: string, name: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isSafeInteger(value) || value < min || value > max) {
    throw new UsageError(`pagewright ${command}: ${name} must be a whole number from ${min} to ${max}, not "${text}"`);
  }
  return value;
}

function duration(command: string, name: string, text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= 0 && value <= 1e6)) {
    throw new UsageError(`pagewright ${command}: ${name} must be a number of seconds from 0 to 1000000, not "${text}"`);
  }
  return value;
}
