/** Live progress on standard error: one line that is redrawn on a terminal, a plain line now and then elsewhere. */

const REDRAW_MS = 200;
const PLAIN_MS = 5000;

/** Where progress goes: a terminal, a file or pipe, or nowhere. */
export type ProgressMode = 'terminal' | 'plain' | 'none';

/** Shows a line of text again and again until it is ended. */
export class Progress {
  readonly #mode: ProgressMode;
  readonly #text: () => string;
  readonly #timer: NodeJS.Timeout | null;

  constructor(mode: ProgressMode, text: () => string) {
    this.#mode = mode;
    this.#text = text;
    const everyMs = mode === 'terminal' ? REDRAW_MS : PLAIN_MS;
    this.#timer = mode === 'none' ? null : setInterval(() => this.#show(), everyMs);
  }

  /** Stops, and leaves a clean line behind. */
  end(): void {
    if (this.#timer === null) return;
    clearInterval(this.#timer);
    if (this.#mode === 'terminal') process.stderr.write('\r\u001b[K');
  }

  #show(): void {
    const text = this.#text();
    if (this.#mode === 'plain') {
      process.stderr.write(`${text}\n`);
      return;
    }
    const width = process.stderr.columns ?? 80;
    process.stderr.write(`\r\u001b[K${text.slice(0, width - 1)}`);
  }
}

/** How progress is to be shown. */
export function progressMode(json: boolean): ProgressMode {
  if (json) return 'none';
  return process.stderr.isTTY ? 'terminal' : 'plain';
}
