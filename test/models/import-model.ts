/**
 * A naive model of arenas that import from each other in the default way: ranges in whole quanta of the source, under the
 * request's constraints; up to four spans kept idle, the largest ones; what is kept idle goes back when a source would fail.
 * The choice of segments is that of `ArenaModel`.
 */

import { ArenaModel, type ModelRequest, type ModelStrategy, type ModelTag } from './arena-model.ts';

/** A source of spans that is no arena. */
export interface ModelFunction {
  import(size: number): number;
  release(start: number, size: number): void;
}

/** What a model is made of. */
export interface ImportModelOptions {
  readonly quantum: number;
  readonly source?: ImportModel;
  readonly from?: ModelFunction;
  readonly large?: boolean;
  readonly roundTo?: number;
  readonly limit?: number;
  readonly strategy?: ModelStrategy;
}

interface Range {
  readonly wanted: number;
  /** What the source is asked to keep to. */
  readonly place: Omit<ModelRequest, 'size' | 'strategy'>;
}

const KEPT = 4;
const HIGHEST = Number.MAX_SAFE_INTEGER;

const up = (size: number, unit: number) => Math.ceil(size / unit) * unit;

/** See the file's header. */
export class ImportModel extends ArenaModel {
  readonly parent: ImportModel | null;
  readonly from: ModelFunction | null;
  readonly strategy: ModelStrategy;
  /** Arenas that import from this one, the first ones first. */
  readonly importers: ImportModel[] = [];
  imports = 0;
  releases = 0;
  /** Spans without an allocation, the last one that became so first; may hold some that are so no longer. */
  #idle: ModelTag[] = [];

  constructor(options: ImportModelOptions) {
    const { quantum, source = null, from = null, large = false, roundTo = 0, strategy = 'instant' } = options;
    super(quantum, null, large, roundTo);
    this.parent = source;
    this.from = from;
    this.strategy = strategy;
    this.limit = options.limit ?? Number.POSITIVE_INFINITY;
    source?.importers.push(this);
  }

  /** Spans without an allocation. */
  get idle(): readonly ModelTag[] {
    this.#idle = this.#idle.filter((span) => this.segments.includes(span) && !this.hasBusy(span));
    return this.#idle;
  }

  /** Gives back what is kept idle. True when there was something. */
  trim(): boolean {
    let gone = false;
    for (let [span] = this.idle; span !== undefined; [span] = this.idle) {
      this.#idle = this.idle.filter((other) => other !== span);
      this.giveBack(span);
      gone = true;
    }
    return gone;
  }

  protected override emptied(span: ModelTag): void {
    const kept = [span, ...this.idle.filter((other) => other !== span)];
    this.#idle = kept;
    if (kept.length <= KEPT) return;
    const least = Math.min(...kept.map(({ size }) => size));
    const surplus = kept.findLast(({ size }) => size === least) as ModelTag;
    this.#idle = kept.filter((other) => other !== surplus);
    this.giveBack(surplus);
  }

  protected override giveBack(span: ModelTag): void {
    this.remove(span);
    this.releases++;
    this.parent?.free(span.start);
    this.from?.release(span.start, span.size);
  }

  protected override makeSpace(request: ModelRequest): boolean {
    const before = JSON.stringify(this.segments);
    // What a source takes back on behalf of others may have come back to this arena.
    return this.#import(request) || this.#reclaim() || JSON.stringify(this.segments) !== before;
  }

  /** What this arena keeps idle, where that may help, and then what its importers do. */
  #reclaim(): boolean {
    const own = (this.from !== null || this.limit !== Number.POSITIVE_INFINITY) && this.trim();
    return this.#reclaimBelow() || own;
  }

  #reclaimBelow(): boolean {
    let gone = false;
    for (const importer of this.importers) {
      gone = importer.#reclaimBelow() || gone;
      gone = importer.trim() || gone;
    }
    return gone;
  }

  #import(request: ModelRequest): boolean {
    if (this.parent === null && this.from === null) return false;
    return this.#ranges(request).some((range) => this.#importRange(request, range));
  }

  #units(size: number): number {
    return this.roundTo === 0 ? size : up(size, this.roundTo);
  }

  #ranges(request: ModelRequest): Range[] {
    const { size, align, phase, nocross, min, max } = request;
    const anywhere = { align: 0, phase: 0, nocross: 0, min: 0, max: HIGHEST };
    const plain = align === this.quantum && phase === 0 && nocross === 0 && min === 0 && max === HIGHEST;
    const unit = this.parent?.quantum ?? 1;
    if (plain) {
      const sizes = [...(this.large ? [this.#units(16 * size)] : []), this.#units(size)];
      if (this.parent !== null) sizes.push(size);
      const whole = sizes.map((wanted) => up(wanted, unit));
      if (this.parent !== null && this.limit !== Number.POSITIVE_INFINITY) whole.push(size);
      return [...new Set(whole)].map((wanted) => ({ wanted, place: anywhere }));
    }
    // A place is aligned to the source's quantum at least: it lies equally in the first unit of each range that covers it.
    const before = phase % unit;
    const covered = up(before + size, unit);
    const behind = covered - before - size;
    const place = {
      align,
      phase: phase - before,
      nocross: nocross >= unit ? nocross : 0,
      min: Math.max(0, min - before),
      max: Math.min(HIGHEST, max + behind),
    };
    const rounded = up(this.#units(covered), unit);
    if (rounded === covered) return [{ wanted: covered, place }];
    // What is beyond the place may cross a boundary.
    const last = place.phase + rounded - 1;
    const kept = align < nocross && Math.floor(place.phase / nocross) === Math.floor(last / nocross);
    const wide = {
      ...place,
      nocross: kept && nocross >= rounded ? place.nocross : 0,
      max: Math.min(HIGHEST, place.max + rounded - covered),
    };
    return [
      { wanted: rounded, place: wide },
      { wanted: covered, place },
    ];
  }

  #importRange(request: ModelRequest, { wanted, place }: Range): boolean {
    if (this.total() + wanted > this.limit) return false;
    const asked = this.roundTo === 0 ? request.strategy : 'instant';
    const own = asked === 'exact' || asked === 'next';
    const strategy = own ? (this.parent?.strategy ?? 'instant') : asked;
    const start = this.parent?.alloc({ size: wanted, strategy, ...place }) ?? this.from?.import(wanted) ?? -1;
    if (start < 0) return false;
    if (ArenaModel.fit({ kind: 'free', start, size: wanted }, request) < 0) {
      this.parent?.free(start);
      return false;
    }
    this.add(start, wanted, 'span');
    this.imports++;
    return true;
  }
}
