/** Numbers about a server, in the text format of Prometheus. */

import type { VirtualMemory } from '../system/index.ts';

/** What the server counts. */
export interface ServeCounts {
  /** Answers by status. */
  readonly answers: Map<number, number>;
  bytes: number;
  /** Answers that broke off. */
  broken: number;
  inFlight: number;
  /** Seconds from request to the last byte, added up. */
  seconds: number;
}

/** Labels and a value. */
type Line = [string, number];

/** The text of `/-/metrics`. */
export function metricsText(vm: VirtualMemory, counts: ServeCounts, workers: number, restarts: number): string {
  const { pages, frames, slots } = vm.statistics();
  let text = '';
  const one = (name: string, type: string, help: string, lines: readonly Line[]): void => {
    text += `# HELP pagewright_${name} ${help}\n# TYPE pagewright_${name} ${type}\n`;
    for (const [labels, value] of lines) text += `pagewright_${name}${labels} ${value}\n`;
  };
  const answers = [...counts.answers].sort(([a], [b]) => a - b);
  one(
    'http_answers_total',
    'counter',
    'Answers by status.',
    answers.map(([status, n]): Line => [`{status="${status}"}`, n]),
  );
  one('http_sent_bytes_total', 'counter', 'Bytes of files that were sent.', [['', counts.bytes]]);
  one('http_broken_total', 'counter', 'Answers that broke off.', [['', counts.broken]]);
  one('http_in_flight', 'gauge', 'Requests that are being answered.', [['', counts.inFlight]]);
  one('http_seconds_total', 'counter', 'Seconds from request to last byte, added up.', [['', counts.seconds]]);
  one(
    'pages_total',
    'counter',
    'What happened to pages.',
    Object.entries(pages).map(([name, n]): Line => [`{event="${name}"}`, n]),
  );
  const uses = Object.entries(frames).filter((entry): entry is [string, number] => typeof entry[1] === 'number');
  one(
    'frames',
    'gauge',
    'Frames by use.',
    uses.map(([use, n]): Line => [`{use="${use}"}`, n]),
  );
  one('modified_pages', 'gauge', 'Pages that differ from their files.', [['', vm.pages.modified]]);
  one('slots', 'gauge', 'Threads that are attached.', [['', slots.length]]);
  one('workers', 'gauge', 'Workers that run.', [['', workers]]);
  one('worker_restarts_total', 'counter', 'Workers that ended and were replaced.', [['', restarts]]);
  return text;
}
