/**
 * A naive model of an arena: plain arrays, linear searches, arithmetic on BigInt. Slow and obviously right; the shipped
 * arena must agree with it in every address and every list.
 */

/** One tag of the model. */
export interface ModelTag {
  kind: 'static' | 'span' | 'free' | 'busy' | 'quarantined';
  start: number;
  size: number;
}

/** How a free segment is chosen. */
export type ModelStrategy = 'instant' | 'best' | 'exact' | 'next';

/** What a request asks for; all fields given. */
export interface ModelRequest {
  readonly size: number;
  readonly strategy: ModelStrategy;
  readonly align: number;
  readonly phase: number;
  readonly nocross: number;
  readonly min: number;
  readonly max: number;
}

/** A request without constraints. */
export function plainRequest(size: number, strategy: ModelStrategy): ModelRequest {
  return { size, strategy, align: 0, phase: 0, nocross: 0, min: 0, max: Number.MAX_SAFE_INTEGER };
}

/** See the file's header. */
export class ArenaModel {
  readonly quantum: number;
  readonly source: ArenaModel | null;
  readonly large: boolean;
  readonly roundTo: number;
  readonly segments: ModelTag[] = [];
  /** Later frees that a freed range waits for; 0 none. */
  quarantineFrees = 0;
  /** Milliseconds that a freed range waits for; 0 none. */
  quarantineMs = 0;
  /** What waits is given to requests that would fail otherwise. */
  early = false;
  /** The time. */
  now = 0;
  readonly #freedAt = new Map<ModelTag, number>();
  /** Most that all spans may be. */
  limit = Number.POSITIVE_INFINITY;
  /** Freed ranges that wait, in the order of their frees. */
  readonly quarantined: ModelTag[] = [];
  /** Lists of free tags, newest first. */
  readonly lists: ModelTag[][] = Array.from({ length: 53 }, () => []);
  /** End of the last allocation by next fit. */
  cursor = 0;

  constructor(quantum: number, source: ArenaModel | null = null, large = false, roundTo = 0) {
    this.quantum = quantum;
    this.source = source;
    this.large = large;
    this.roundTo = roundTo;
  }

  round(size: number): number {
    const quantum = BigInt(this.quantum);
    return Number(((BigInt(size) + quantum - 1n) / quantum) * quantum);
  }

  add(start: number, size: number, kind: 'static' | 'span' = 'static'): void {
    const free: ModelTag = { kind: 'free', start, size };
    this.segments.push({ kind, start, size }, free);
    this.#list(size).unshift(free);
  }

  overlaps(start: number, size: number): boolean {
    return this.segments.some(
      (tag) =>
        (tag.kind === 'static' || tag.kind === 'span') && tag.start < start + size && start < tag.start + tag.size,
    );
  }

  alloc(request: ModelRequest): number {
    const rounded = { ...request, size: this.round(request.size), align: request.align || this.quantum };
    let { strategy } = request;
    for (;;) {
      const found = this.#find(rounded, strategy);
      if (found !== null) {
        const start = strategy === 'next' ? this.#nextPlace(found, rounded) : ArenaModel.fit(found, rounded);
        if (strategy === 'next') this.cursor = start + rounded.size;
        return this.#carve(found, start, rounded.size);
      }
      if (strategy === 'instant') strategy = 'best';
      if (this.#releaseDue(Number.POSITIVE_INFINITY) > 0 || this.makeSpace(rounded)) continue;
      if (!this.early || !this.#releaseEarly(rounded)) return -1;
    }
  }

  free(start: number): void {
    const tag = this.segments.find((candidate) => candidate.kind === 'busy' && candidate.start === start) as ModelTag;
    if (!this.#quarantines) this.#settle(tag);
    else this.#quarantine(tag);
  }

  /** Everything in quarantine is free again. Returns how many ranges that were. */
  releaseQuarantine(): number {
    const count = this.quarantined.length;
    for (const tag of this.quarantined.splice(0)) this.#settle(tag);
    return count;
  }

  /** What waits in a span is free again. */
  releaseSpan(span: ModelTag): void {
    this.#releaseFrom(span.start, span.size);
  }

  #releaseFrom(start: number, size: number): void {
    const within = this.quarantined.filter((tag) => tag.start < start + size && tag.start >= start);
    for (const tag of within.sort((a, b) => a.start - b.start)) this.#release(tag);
  }

  #release(tag: ModelTag): void {
    this.quarantined.splice(this.quarantined.indexOf(tag), 1);
    this.#settle(tag);
  }

  #quarantine(tag: ModelTag): void {
    tag.kind = 'quarantined';
    this.quarantined.push(tag);
    this.#freedAt.set(tag, this.now);
    this.#releaseDue(2);
  }

  get #quarantines(): boolean {
    return this.quarantineFrees !== 0 || this.quarantineMs !== 0;
  }

  /** Lets up to so many go that were freed long enough ago, the first ones first. */
  #releaseDue(most: number): number {
    let count = 0;
    for (; count < most; count++) {
      const [head] = this.quarantined;
      if (head === undefined || this.quarantined.length <= this.quarantineFrees) break;
      if (this.now - (this.#freedAt.get(head) as number) < this.quarantineMs) break;
      this.quarantined.shift();
      this.#settle(head);
    }
    return count;
  }

  /**
   * What is free or waits, side by side, is an extent. Of those that have a place for a request the one with the range that
   * waits longest lets its ranges go, the oldest first, until the request fits. False when there is none.
   */
  #releaseEarly(request: ModelRequest): boolean {
    const extents: ModelTag[][] = [[]];
    for (const tag of this.segments) {
      if (tag.kind === 'free' || tag.kind === 'quarantined') extents.at(-1)?.push(tag);
      else extents.push([]);
    }
    const serving = extents.filter((tags) => {
      const size = tags.reduce((sum, tag) => sum + tag.size, 0);
      return (
        size >= request.size && ArenaModel.fit({ kind: 'free', start: tags[0]?.start as number, size }, request) >= 0
      );
    });
    const oldest = this.quarantined.find((tag) => serving.some((tags) => tags.includes(tag)));
    if (oldest === undefined) return false;
    const extent = serving.find((tags) => tags.includes(oldest)) as ModelTag[];
    for (const tag of this.quarantined.filter((waiting) => extent.includes(waiting))) {
      this.#release(tag);
      if (this.#best(request) !== null) break;
    }
    return true;
  }

  /** Size of what is free or waits behind an allocation. */
  #idleBehind(tag: ModelTag): number {
    let size = 0;
    for (const next of this.segments.slice(this.segments.indexOf(tag) + 1)) {
      if (next.kind !== 'free' && next.kind !== 'quarantined') break;
      size += next.size;
    }
    return size;
  }

  /** True while a span has allocations. */
  hasBusy(span: ModelTag): boolean {
    return this.#idleBehind(span) !== span.size;
  }

  /** In place; false when what follows is not free or too small. */
  resize(start: number, newSize: number): boolean {
    const tag = this.segments.find((candidate) => candidate.kind === 'busy' && candidate.start === start) as ModelTag;
    const more = this.round(newSize) - tag.size;
    if (more === 0) return true;
    const behind = this.segments[this.segments.indexOf(tag) + 1];
    const room = behind?.kind === 'free' ? behind.size : 0;
    if (this.early && more > room && this.#idleBehind(tag) >= more) this.#releaseFrom(tag.start + tag.size, more);
    const index = this.segments.indexOf(tag);
    const next = this.segments[index + 1];
    if (more > 0 && (next?.kind !== 'free' || next.size < more)) return false;
    tag.size += more;
    if (more < 0 && (next?.kind !== 'free' || this.#quarantines)) {
      const rest: ModelTag = { kind: 'free', start: tag.start + tag.size, size: -more };
      this.segments.splice(index + 1, 0, rest);
      if (this.#quarantines) this.#quarantine(rest);
      else this.#list(rest.size).unshift(rest);
      return true;
    }
    const follower = next as ModelTag;
    this.#unlist(follower);
    follower.start += more;
    follower.size -= more;
    if (follower.size === 0) this.segments.splice(index + 1, 1);
    else this.#list(follower.size).unshift(follower);
    return true;
  }

  /** Static spans that touch become one, in ascending order. */
  mergeSpans(): number {
    let merged = 0;
    const spans = this.segments.filter((tag) => tag.kind === 'static').sort((a, b) => a.start - b.start);
    let first = spans[0];
    for (const second of spans.slice(1)) {
      if (first === undefined || first.start + first.size !== second.start) {
        first = second;
        continue;
      }
      const from = this.segments.indexOf(second);
      const moved = this.segments.splice(from, this.#segmentsOf(second) + 1).slice(1);
      const at = this.segments.indexOf(first) + this.#segmentsOf(first);
      this.segments.splice(at + 1, 0, ...moved);
      first.size += second.size;
      const [front, rear] = [this.segments[at] as ModelTag, moved[0] as ModelTag];
      if (front.kind === 'free' && rear.kind === 'free') {
        this.#unlist(rear);
        this.#unlist(front);
        this.segments.splice(at + 1, 1);
        front.size += rear.size;
        this.#list(front.size).unshift(front);
      }
      merged++;
    }
    return merged;
  }

  /** Takes a span away that is all free. */
  remove(span: ModelTag): void {
    const at = this.segments.indexOf(span);
    this.#unlist(this.segments[at + 1] as ModelTag);
    this.segments.splice(at, 2);
  }

  #segmentsOf(span: ModelTag): number {
    const from = this.segments.indexOf(span) + 1;
    let count = 0;
    while (/free|busy|quarantined/.test(this.segments[from + count]?.kind ?? '')) count++;
    return count;
  }

  /** A tag that was allocated or in quarantine is free, and joined with its neighbours. */
  #settle(tag: ModelTag): void {
    const index = this.segments.indexOf(tag);
    tag.kind = 'free';
    const next = this.segments[index + 1];
    if (next?.kind === 'free') {
      this.#unlist(next);
      this.segments.splice(index + 1, 1);
      tag.size += next.size;
    }
    const previous = this.segments[index - 1] as ModelTag;
    if (previous.kind === 'free') {
      this.#unlist(previous);
      this.segments.splice(index - 1, 1);
      tag.size += previous.size;
      tag.start = previous.start;
    }
    const at = this.segments.indexOf(tag);
    const span = this.segments[at - 1] as ModelTag;
    this.#list(tag.size).unshift(tag);
    if (span.kind === 'span' && span.size === tag.size) this.emptied(span);
  }

  /** An imported span is all free: it goes back. */
  protected emptied(span: ModelTag): void {
    this.giveBack(span);
  }

  /** An imported span that is all free leaves, and is free in the source. */
  protected giveBack(span: ModelTag): void {
    this.remove(span);
    this.source?.free(span.start);
  }

  freeAll(): void {
    this.releaseQuarantine();
    for (;;) {
      const busy = this.segments.find((tag) => tag.kind === 'busy');
      if (busy === undefined) return;
      this.#settle(busy);
    }
  }

  /** Allocations: first address to size. */
  busy(): ModelTag[] {
    return this.segments.filter((tag) => tag.kind === 'busy');
  }

  /** Lowest place for a request in a segment by the definition, or -1. */
  static fit(tag: ModelTag, request: ModelRequest): number {
    const size = BigInt(request.size);
    const last = BigInt(tag.start + tag.size - 1);
    const high = last < BigInt(request.max) ? last : BigInt(request.max);
    const low = BigInt(Math.max(tag.start, request.min));
    const align = BigInt(request.align);
    const nocross = BigInt(request.nocross);
    let at = low + ((((BigInt(request.phase) - low) % align) + align) % align);
    for (; at + size - 1n <= high; at += align) {
      if (nocross === 0n || at / nocross === (at + size - 1n) / nocross) return Number(at);
      // Every place before the boundary crosses it.
      const boundary = ((at + size - 1n) / nocross) * nocross;
      const next = boundary + ((((BigInt(request.phase) - boundary) % align) + align) % align);
      at = next - align > at ? next - align : at;
    }
    return -1;
  }

  #find(request: ModelRequest, strategy: ModelStrategy): ModelTag | null {
    switch (strategy) {
      case 'instant':
        return this.#instant(request) ?? this.#best(request);
      case 'best':
        return this.#best(request);
      case 'exact':
        return this.#exact(request);
      case 'next':
        return this.#next(request);
    }
  }

  #byAddress(): ModelTag[] {
    return this.segments.filter((tag) => tag.kind === 'free').sort((a, b) => a.start - b.start);
  }

  #exact(request: ModelRequest): ModelTag | null {
    const fitting = this.#byAddress().filter((tag) => tag.size >= request.size && ArenaModel.fit(tag, request) >= 0);
    const smallest = Math.min(...fitting.map((tag) => tag.size));
    return fitting.find((tag) => tag.size === smallest) ?? null;
  }

  /** Place in the part of a segment from the cursor on, or -1. */
  #behindCursor(tag: ModelTag, request: ModelRequest): number {
    const start = Math.max(tag.start, this.cursor);
    const size = tag.start + tag.size - start;
    return size < request.size ? -1 : ArenaModel.fit({ kind: 'free', start, size }, request);
  }

  #nextPlace(tag: ModelTag, request: ModelRequest): number {
    const behind = this.#behindCursor(tag, request);
    return behind >= 0 ? behind : ArenaModel.fit(tag, request);
  }

  #next(request: ModelRequest): ModelTag | null {
    const free = this.#byAddress();
    const behind = free.find((tag) => this.#behindCursor(tag, request) >= 0);
    return behind ?? free.find((tag) => tag.size >= request.size && ArenaModel.fit(tag, request) >= 0) ?? null;
  }

  #instant(request: ModelRequest): ModelTag | null {
    const quanta = request.size / this.quantum;
    const floor = this.#order(request.size);
    for (let order = 2 ** floor === quanta ? floor : floor + 1; order < this.lists.length; order++) {
      const head = this.lists[order]?.[0];
      if (head !== undefined && ArenaModel.fit(head, request) >= 0) return head;
    }
    return null;
  }

  #best(request: ModelRequest): ModelTag | null {
    for (let order = this.#order(request.size); order < this.lists.length; order++) {
      for (const tag of this.lists[order] as ModelTag[]) {
        if (tag.size >= request.size && ArenaModel.fit(tag, request) >= 0) return tag;
      }
    }
    return null;
  }

  #carve(tag: ModelTag, start: number, size: number): number {
    const front = start - tag.start;
    const rear = tag.size - front - size;
    this.#unlist(tag);
    const parts: ModelTag[] = [];
    if (front > 0) parts.push({ kind: 'free', start: tag.start, size: front });
    parts.push({ kind: 'busy', start, size });
    if (rear > 0) parts.push({ kind: 'free', start: start + size, size: rear });
    for (const part of parts) if (part.kind === 'free') this.#list(part.size).unshift(part);
    this.segments.splice(this.segments.indexOf(tag), 1, ...parts);
    return start;
  }

  /** Imports a span. False: there is no more to be had. */
  protected makeSpace(request: ModelRequest): boolean {
    if (this.source === null) return false;
    if (request.align !== this.quantum || request.phase !== 0 || request.nocross !== 0) return false;
    let wanted = this.large ? request.size * 16 : request.size;
    if (this.roundTo !== 0) wanted = Math.ceil(wanted / this.roundTo) * this.roundTo;
    if (this.total() + wanted > this.limit) return false;
    // The sources of the model's importers choose instantly when exact or next fit is asked for.
    const best = this.roundTo === 0 && request.strategy === 'best';
    const start = this.source.alloc(plainRequest(wanted, best ? 'best' : 'instant'));
    if (start < 0) return false;
    this.add(start, wanted, 'span');
    return true;
  }

  /** Size of all spans. */
  total(): number {
    const spans = this.segments.filter(({ kind }) => kind === 'static' || kind === 'span');
    return spans.reduce((sum, { size }) => sum + size, 0);
  }

  #order(size: number): number {
    let order = 0;
    for (let quanta = BigInt(size) / BigInt(this.quantum); quanta > 1n; quanta >>= 1n) order++;
    return order;
  }

  #list(size: number): ModelTag[] {
    return this.lists[this.#order(size)] as ModelTag[];
  }

  #unlist(tag: ModelTag): void {
    const list = this.#list(tag.size);
    list.splice(list.indexOf(tag), 1);
  }
}
