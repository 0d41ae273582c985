/**
 * Replays traces of the pagelock cache: see test/golden/pcache/README.md for the format.
 *
 * What the README calls the other thread is a second attachment: it holds the locks that a line names, and runs what
 * stands `between` when the first thread comes to wait for one of them, or pauses. That takes a verify build.
 */

import {
  type CacheDriver,
  type CachedRange,
  type CacheOwner,
  INSERT_REFUSED,
  PagelockCache,
  type PagelockOptions,
  PIN,
  type Pin,
  pinShift,
} from '../../seg/index.ts';
import { Mutex, RANK, type SeamHook, setSeam } from '../../sync/index.ts';
import { attach, boot } from '../../system/boot.ts';
import type { VirtualMemory } from '../../system/virtual-memory.ts';
import { compare } from './compare.ts';
import type { PcacheHeader, PcacheLine, Reclaimed } from './pcache-lines.ts';
import type { Difference, Replay, Replayer } from './replay.ts';

const DRIVER_NAME = 'trace driver';

/** See the file's header. */
export const pcacheReplayer: Replayer = {
  kind: 'pcache',
  version: 1,
  start: (header) => new PcacheReplay(header as PcacheHeader),
};

/** One thread of the replay. */
interface Party {
  readonly vm: VirtualMemory;
  readonly cache: PagelockCache;
}

class PcacheReplay implements Replay {
  readonly #header: PcacheHeader;
  readonly #first: Party;
  readonly #other: Party;
  readonly #gauges = { freePages: 0, lotsFree: 0, desiredFree: 0, neededFree: 0 };
  readonly #segments = new Map<number, { owner: CacheOwner; shift: number }>();
  readonly #maps = new Map<number, CacheOwner>();
  readonly #owners = new Map<number, CacheOwner>();
  readonly #tags = new Map<CacheOwner, number>();
  /** Pins by owner and shadow list: wired shadow lists have several owners. */
  readonly #pins = new Map<string, Pin[]>();
  /** Claims of wired shadow lists: the driver's share. */
  readonly #claims = new Map<number, number>();
  #reclaimed: Reclaimed[] = [];
  #poked = false;

  constructor(header: PcacheHeader) {
    this.#header = header;
    const vm = boot({
      memory: '1 MiB',
      services: 'manual',
      clock: 'virtual',
      pagelock: optionsOf(header),
    });
    this.#first = this.#party(vm);
    this.#other = this.#party(attach(vm.handle()));
    this.#setMemory(header);
    this.#setClock(header.lbolt);
  }

  step(value: unknown): Difference | null {
    return this.#run(this.#first, value as PcacheLine);
  }

  dump(): string {
    const { ranges, lists, ...rest } = this.#first.cache.snapshot();
    const lines = ranges.map((range) => JSON.stringify(range));
    const active = lists.map((list) => list.map((range) => range.shadow));
    return [JSON.stringify({ ...rest, windowChains: [], wiredChains: [] }), JSON.stringify(active), ...lines].join(
      '\n',
    );
  }

  close(): void {
    // A trace may end with pins, or have set their counts by hand: then nobody can give them back, and the threads stay
    // attached to a region that goes with the replay.
    for (const { vm, cache } of [this.#other, this.#first]) if (cache.pinsHeld() === 0) vm.detach();
  }

  #party(vm: VirtualMemory): Party {
    const driver: CacheDriver = {
      reclaim: (owner, address, length, shadow, write, asynchronous) => {
        const tag = this.#tags.get(owner) as number;
        this.#reclaimed.push([tag, address, length, shadow, write ? 'w' : 'r', asynchronous ? 1 : 0]);
        const claims = this.#claims.get(shadow);
        if (claims === undefined) return false;
        this.#claims.set(shadow, claims - 1);
        return claims === 1;
      },
    };
    vm.callbacks.register(DRIVER_NAME, driver);
    return { vm, cache: new PagelockCache(vm.thread, vm.callbacks, this.#gauges) };
  }

  /** Runs a line in one thread, while the other does what the line says. */
  #run(party: Party, line: PcacheLine): Difference | null {
    const outer = this.#reclaimed;
    this.#reclaimed = [];
    const meanwhile = new Meanwhile(this.#other, line, this.#owners, (inner) => this.#run(this.#other, inner));
    const hook = setSeam(meanwhile.hook);
    try {
      const difference = this.#apply(party, line, meanwhile);
      return meanwhile.difference ?? difference ?? this.#compareCounters(party, line);
    } finally {
      setSeam(hook);
      meanwhile.end();
      this.#reclaimed = outer;
    }
  }

  #apply({ cache }: Party, line: PcacheLine, meanwhile: Meanwhile): Difference | null {
    switch (line.op) {
      case 'seg':
        this.#segments.set(line.id, {
          owner: this.#createOwner(line.tag),
          shift: this.#header.pageShifts[line.szc] as number,
        });
        return null;
      case 'amp':
        this.#maps.set(line.id, this.#createOwner(line.tag));
        return null;
      case 'clock':
        this.#setClock(line.lbolt);
        return null;
      case 'memory':
        this.#setMemory(line);
        return null;
      case 'lookup': {
        const pin = cache.lookup(this.#ownerOf(line), line.addr, line.len, this.#flagsOf(line));
        return compare(line.pp, pin < 0 ? null : this.#keepPin(line, cache.shadowOf(pin), pin));
      }
      case 'insertCheck':
        return compare(line.rc, cache.insertCheck(line.len, this.#flagsOf(line)) ? 'SUCCESS' : 'FAIL');
      case 'insert':
        return this.#insert(cache, line);
      case 'inactive': {
        const shadow = line.pp as number;
        const pin = this.#pins.get(this.#pinKey(line, shadow))?.pop() ?? -1;
        cache.inactive(this.#ownerOf(line), line.addr, line.len, pin, shadow, this.#flagsOf(line));
        return this.#compareReclaimed(line);
      }
      case 'purge':
        cache.purge(this.#ownerOf(line), this.#flagsOf(line));
        return this.#compareReclaimed(line);
      case 'purgeWiredPp':
        cache.purgeShadow(line.pp as number);
        return this.#compareReclaimed(line);
      case 'reap':
        cache.reap();
        return this.#compareReclaimed(line);
      case 'disable': {
        const emptied = cache.disable();
        const got = [emptied ? 'SUCCESS' : 'FAIL', meanwhile.pauses, this.#now(), cache.disabled];
        return compare([line.rc, line.delays, line.lbolt, line.disabled], got) ?? this.#compareReclaimed(line);
      }
      case 'enable':
        cache.enable();
        return compare(line.disabled, cache.disabled);
      case 'state':
        return this.#compareState(cache, line);
      case 'poke':
        this.#poke(line);
        return null;
      case 'note':
      case 'end':
        return null;
      default:
        return { expected: 'a known operation', got: line.op };
    }
  }

  #insert(cache: PagelockCache, line: PcacheLine): Difference | null {
    const shadow = line.pp as number;
    const pin = cache.insert(this.#ownerOf(line), line.addr, line.len, shadow, this.#flagsOf(line), line.wlen);
    if (pin >= 0) this.#keepPin(line, shadow, pin);
    if (pin >= 0 && line.flags.wired) this.#claims.set(shadow, (this.#claims.get(shadow) ?? 0) + 1);
    const got = [pin === INSERT_REFUSED ? 'FAIL' : 'SUCCESS', pin >= 0];
    return compare([line.rc, line.cached], got) ?? this.#compareReclaimed(line);
  }

  #createOwner(tag: number): CacheOwner {
    const owner = this.#first.cache.createOwner({ driver: { export: DRIVER_NAME }, tag });
    this.#owners.set(tag, owner);
    this.#tags.set(owner, tag);
    return owner;
  }

  #ownerOf(line: PcacheLine): CacheOwner {
    if (line.amp !== null) return this.#maps.get(line.amp) as CacheOwner;
    return this.#segments.get(line.seg)?.owner as CacheOwner;
  }

  #flagsOf({ flags, seg, rw }: PcacheLine): number {
    const shift = flags.pshift ?? this.#segments.get(seg)?.shift ?? 0;
    return (rw === 'w' ? PIN.write : PIN.read) | (flags.wired ? PIN.wired : 0) | pinShift(shift);
  }

  #pinKey(line: PcacheLine, shadow: number): string {
    return `${this.#ownerOf(line)} ${shadow}`;
  }

  #keepPin(line: PcacheLine, shadow: number, pin: Pin): number {
    const key = this.#pinKey(line, shadow);
    const pins = this.#pins.get(key);
    if (pins === undefined) this.#pins.set(key, [pin]);
    else pins.push(pin);
    return shadow;
  }

  #setClock(lbolt: number): void {
    this.#first.vm.region.tables.header.virtualTime.put(0, (lbolt * 1000) / this.#header.hz);
  }

  #now(): number {
    return (this.#first.vm.clock.now() * this.#header.hz) / 1000;
  }

  #setMemory({ freemem, lotsfree, desfree, needfree }: PcacheLine | PcacheHeader): void {
    this.#gauges.freePages = freemem;
    this.#gauges.lotsFree = lotsfree;
    this.#gauges.desiredFree = desfree;
    this.#gauges.neededFree = needfree;
  }

  /** Sets a count of pins, as the recorder's debugger did. The pins themselves cannot follow. */
  #poke(line: PcacheLine): void {
    const { pagelockEntry: entries, pagelock } = this.#first.vm.region.tables;
    for (let entry = 0; entry < pagelock.entryFresh.get(0); entry++) {
      const found = entries.owner.get(entry) !== 0 && entries.shadow.get(entry) === line.pp;
      if (found) entries.active.put(entry, line.active);
    }
    this.#poked = true;
  }

  #compareCounters({ cache }: Party, line: PcacheLine): Difference | null {
    if (line.plocked === undefined) return null;
    return compare([line.plocked, line.plockedWindow], [cache.lockedPages, cache.windowPages]);
  }

  #compareReclaimed(line: PcacheLine): Difference | null {
    const order = (list: readonly Reclaimed[]) =>
      line.unordered === true ? list.map((item) => JSON.stringify(item)).sort() : list;
    return compare(order(line.callbacks), order(this.#reclaimed));
  }

  #compareState(cache: PagelockCache, line: PcacheLine): Difference | null {
    const snapshot = cache.snapshot();
    const sorted = snapshot.ranges.toSorted((a, b) => a.tag - b.tag || a.address - b.address || a.shadow - b.shadow);
    const shadows = (lists: readonly (readonly CachedRange[])[]) =>
      lists.map((list) => list.map(({ shadow }) => shadow));
    const wiredChains = snapshot.wiredChains.map((chain) => chain.map(({ tag, shadow }) => [tag, shadow]));
    return (
      compare(line.disabled, snapshot.disabled) ??
      compare(line.entries, sorted.map(entryOf)) ??
      compare(line.cur, snapshot.current) ??
      compare(line.ahb, shadows(snapshot.lists)) ??
      (line.chainsWin === undefined ? null : compare(nonEmpty(line.chainsWin), shadows(snapshot.windowChains))) ??
      (line.chainsWired === undefined ? null : compare(line.chainsWired, wiredChains)) ??
      this.#checkSound(cache)
    );
  }

  #checkSound(cache: PagelockCache): Difference | null {
    if (this.#poked) return null;
    const { problems } = cache.check();
    return problems.length === 0 ? null : { expected: 'a sound cache', got: problems.join('; ') };
  }
}

/** What the other thread does while a line runs: it holds locks, and acts when it is waited for. */
class Meanwhile {
  /** Pauses of the line so far. */
  pauses = 0;
  /** The first line of the other thread that came out differently. */
  difference: Difference | null = null;
  readonly hook: SeamHook;
  readonly #line: PcacheLine;
  readonly #held: Mutex[];
  readonly #runInner: (line: PcacheLine) => Difference | null;

  constructor(
    other: Party,
    line: PcacheLine,
    owners: ReadonlyMap<number, CacheOwner>,
    runInner: (line: PcacheLine) => Difference | null,
  ) {
    this.#line = line;
    this.#runInner = runInner;
    const { lock } = other.vm.region.tables.pagelockOwner;
    this.#held = (line.locked ?? []).map((tag) => {
      const mutex = new Mutex(other.vm.thread, lock.address(owners.get(tag) as CacheOwner), RANK.user);
      mutex.enter();
      return mutex;
    });
    this.hook = (operation, address) => {
      if (operation === 'pause') this.#runBetween(++this.pauses);
      // Only who waits for a lock loads its word: trying is one compare-and-swap.
      else if (operation === 'load' && this.#held.some((mutex) => mutex.address === address)) this.#giveWay();
    };
  }

  /** Gives back what is still held. */
  end(): void {
    for (const mutex of this.#held.splice(0)) mutex.exit();
  }

  #giveWay(): void {
    this.end();
    this.#runBetween(undefined);
  }

  #runBetween(atDelay: number | undefined): void {
    for (const inner of this.#line.between ?? []) {
      if (inner.atDelay === atDelay) this.difference ??= this.#runInner(inner);
    }
  }
}

function optionsOf(header: PcacheHeader): PagelockOptions {
  return {
    compat: 'seed',
    enabled: header.hashsizeWin !== 0,
    memoryPages: header.physmem,
    availablePages: header.availrmem,
    availableAtBoot: header.availrmemInitial,
    windowBuckets: header.hashsizeWin,
    wiredBuckets: header.hashsizeWired,
    maxWindow: header.maxWindow ?? Number.POSITIVE_INFINITY,
    purgePages: header.maxApurgePages,
    shrinkShift: header.shrinkShift,
    maxAgeTicks: header.maxAgeTicks,
    hertz: header.hz,
    stallThreshold: header.stallThreshold,
  };
}

function entryOf(range: CachedRange): unknown[] {
  const resting = !range.wired && range.active === 0;
  return [
    range.tag,
    range.address,
    range.lengthBytes,
    range.writableBytes,
    range.shadow,
    range.active,
    resting ? Number(range.referenced) : null,
    resting ? range.lastUse : null,
    Number(range.write),
    Number(range.wired),
  ];
}

function nonEmpty(chains: readonly (readonly number[])[]): (readonly number[])[] {
  return chains.filter((chain) => chain.length > 0);
}
