/** `check` of the pagelock cache: every invariant of its files, over all rows. */

import type { CheckReport } from '../base/check.ts';
import { ACTIVE_LISTS } from '../layout/index.ts';
import type { PagelockCore } from './pagelock-core.ts';
import { type CacheOwner, ENTRY_FLAG, type EntryIndex, LIST_WIRED } from './pagelock-kinds.ts';
import { classBits, RangeSearch } from './range-search.ts';
import { countPages, type PageInterval } from './range-sharing.ts';

/** What was found so far. */
interface Findings {
  readonly core: PagelockCore;
  readonly problems: string[];
  /** Where each entry was found. */
  readonly places: Map<EntryIndex, string>;
  pages: number;
  windowPages: number;
  /** Chained ranges that share what they are charged, by owner and table. */
  readonly shared: Map<number, PageInterval[]>;
  readonly claims: Map<number, number>;
}

/** Checks the structure; never throws for a broken one. */
export function checkPagelock(core: PagelockCore): CheckReport {
  const findings: Findings = {
    core,
    problems: [],
    places: new Map(),
    pages: 0,
    windowPages: 0,
    shared: new Map(),
    claims: new Map(),
  };
  if (core.enabled) {
    checkChains(findings);
    checkFlight(findings);
    checkPool(findings);
    checkOwners(findings);
    checkLists(findings);
    checkPins(findings);
    checkSums(findings);
  }
  return { structure: 'seg/pagelock cache', checked: findings.places.size, problems: findings.problems };
}

/** Follows a chain, telling what ends it early. */
function follow(findings: Findings, first: number, place: string, see: (entry: EntryIndex) => void): void {
  const { entries } = findings.core;
  for (let link = first; link !== 0; link = entries.chainNext.get(link - 1)) {
    const entry = link - 1;
    if (entry < 0 || entry >= entries.rowCount) {
      findings.problems.push(`seg/pagelock-core I1: ${place} links to entry ${entry}, which does not exist`);
      return;
    }
    const before = findings.places.get(entry);
    if (before !== undefined) {
      findings.problems.push(`seg/pagelock-core I1: entry ${entry} is in ${place} and in ${before}`);
      return;
    }
    findings.places.set(entry, place);
    see(entry);
  }
}

function countEntry(findings: Findings, entry: EntryIndex, chained: boolean): void {
  const { entries, seedRules, inversePageSize } = findings.core;
  const owner = entries.owner.get(entry) - 1;
  const isWired = (entries.flags.get(entry) & ENTRY_FLAG.wired) !== 0;
  findings.claims.set(owner, (findings.claims.get(owner) ?? 0) + 1);
  if (!chained || seedRules) {
    addPages(findings, entries.charge.get(entry), isWired);
    return;
  }
  const key = 2 * owner + (isWired ? 1 : 0);
  const first = entries.address.get(entry) * inversePageSize;
  const ranges = findings.shared.get(key) ?? [];
  ranges.push([first, first + entries.pages.get(entry)]);
  findings.shared.set(key, ranges);
}

function addPages(findings: Findings, pages: number, isWired: boolean): void {
  findings.pages += pages;
  if (!isWired) findings.windowPages += pages;
}

function checkChains(findings: Findings): void {
  const { core, problems } = findings;
  const { buckets, entries } = core;
  const search = new RangeSearch(core);
  for (let bucket = 0; bucket < buckets.rowCount; bucket++) {
    if (buckets.head.get(bucket) === 0) continue;
    let previous = 0;
    follow(findings, buckets.head.get(bucket), `bucket ${bucket}`, (entry) => {
      countEntry(findings, entry, true);
      if (entries.bucket.get(entry) !== bucket || entries.chainPrevious.get(entry) !== previous) {
        problems.push(`seg/pagelock-core I1: entry ${entry} does not link back in bucket ${bucket}`);
      }
      previous = entry + 1;
      const flags = entries.flags.get(entry);
      const wired = (flags & ENTRY_FLAG.wired) !== 0;
      if (wired !== bucket >= core.windowBuckets) {
        problems.push(`seg/pagelock-core I1: entry ${entry} is in the wrong table (bucket ${bucket})`);
      }
      if (core.seedRules) return;
      const page = entries.address.get(entry) * core.inversePageSize;
      if (search.ownBucket(entries.owner.get(entry) - 1, page, entries.pages.get(entry), wired) !== bucket) {
        problems.push(`seg/range-search I1: entry ${entry} is in bucket ${bucket}`);
      }
      if ((flags & ENTRY_FLAG.doomed) !== 0 && entries.active.get(entry) === 0) {
        problems.push(`seg/range-cache I3: entry ${entry} is doomed and idle`);
      }
    });
  }
}

function checkFlight(findings: Findings): void {
  const { core, problems } = findings;
  const seen = (entry: EntryIndex) => {
    countEntry(findings, entry, false);
    if (core.entries.active.get(entry) !== 0)
      problems.push(`seg/pagelock-core I5: entry ${entry} is pending and pinned`);
  };
  for (let slot = 0; slot < core.slots.rowCount; slot++) {
    follow(findings, core.slots.pendingHead.get(slot), `pending of slot ${slot}`, seen);
    const reserved = core.slots.reserved.get(slot) - 1;
    if (reserved < 0) continue;
    if (findings.places.has(reserved)) problems.push(`seg/pagelock-core I1: reserved entry ${reserved} is linked`);
    findings.places.set(reserved, `reserved by slot ${slot}`);
    countEntry(findings, reserved, false);
  }
  follow(findings, core.control.orphanHead.get(0), 'orphans', seen);
}

function checkPool(findings: Findings): void {
  const { core, problems } = findings;
  const inUse = findings.places.size;
  if (core.control.entryCount.get(0) !== inUse) {
    problems.push(`seg/pagelock-core I1: ${core.control.entryCount.get(0)} entries in use, ${inUse} found`);
  }
  follow(findings, core.control.entryHead.get(0), 'the pool', (entry) => {
    if (core.entries.owner.get(entry) !== 0) problems.push(`seg/pagelock-core I1: pooled entry ${entry} has an owner`);
  });
  const fresh = core.control.entryFresh.get(0);
  if (findings.places.size !== fresh) {
    problems.push(`seg/pagelock-core I1: ${fresh} entries were taken, ${findings.places.size} found`);
  }
}

function checkOwners(findings: Findings): void {
  const { core, problems, claims } = findings;
  const { owners, entries } = core;
  const chained = new Map<number, number>();
  for (const [entry, place] of findings.places) {
    const owner = entries.owner.get(entry) - 1;
    if (place.startsWith('bucket') && core.isOwned(entry)) chained.set(owner, (chained.get(owner) ?? 0) + 1);
  }
  for (let owner = 0; owner < core.control.ownerFresh.get(0); owner++) {
    if (owners.state.get(owner) === 0) continue;
    const claimed = claims.get(owner) ?? 0;
    if (owners.claims.get(owner) !== claimed) {
      problems.push(`seg/pagelock-core I4: owner ${owner} claims ${owners.claims.get(owner)}, has ${claimed}`);
    }
    if (owners.state.get(owner) < 0 && claimed === 0)
      problems.push(`seg/cache-owners I3: owner ${owner} is retired without claims`);
    let count = 0;
    let previous = 0;
    for (let link = owners.head.get(owner); link !== 0 && count <= entries.rowCount; count++) {
      const entry = link - 1;
      if (entries.ownerPrevious.get(entry) !== previous || entries.owner.get(entry) !== owner + 1) {
        problems.push(`seg/pagelock-core I2: entry ${entry} does not link back to owner ${owner}`);
      }
      if (!core.seedRules && !knowsClass(core, owner, entry)) {
        problems.push(`seg/range-search I2, I3: owner ${owner} does not know the class of entry ${entry}`);
      }
      previous = link;
      link = entries.ownerNext.get(entry);
    }
    if (count !== owners.count.get(owner)) {
      problems.push(`seg/pagelock-core I2: owner ${owner} counts ${owners.count.get(owner)}, lists ${count}`);
    }
    const expected = chained.get(owner) ?? 0;
    if (count !== expected) {
      problems.push(`seg/pagelock-core I2: owner ${owner} lists ${count} entries, buckets have ${expected}`);
    }
  }
}

function knowsClass({ owners, entries, inversePageSize }: PagelockCore, owner: CacheOwner, entry: EntryIndex): boolean {
  const bits = classBits(entries.address.get(entry) * inversePageSize, entries.pages.get(entry));
  return (owners.classes.get(owner) & bits) === bits;
}

function checkLists(findings: Findings): void {
  const { core, problems } = findings;
  const { buckets, bucketLinks, lists, control } = core;
  const listed = new Map<number, number>();
  for (let list = 0; list < ACTIVE_LISTS; list++) {
    let previous = 0;
    for (const bucket of lists.buckets(list)) {
      if (listed.has(bucket)) problems.push(`seg/active-buckets I1: bucket ${bucket} is on two lists`);
      listed.set(bucket, list);
      if (bucketLinks.listed.get(bucket) !== list + 1 || bucketLinks.listPrevious.get(bucket) !== previous) {
        problems.push(`seg/active-buckets I1: bucket ${bucket} does not link back on list ${list}`);
      }
      previous = bucket + 1;
    }
    if (control.headPrevious.at(0, list) !== previous) {
      problems.push(`seg/active-buckets I1: the head of list ${list} does not link to its last bucket`);
    }
  }
  for (let bucket = 0; bucket < buckets.rowCount; bucket++) {
    const list = listed.get(bucket);
    if (list === undefined && bucketLinks.listed.get(bucket) !== 0) {
      problems.push(`seg/active-buckets I1: bucket ${bucket} says that it is listed`);
    }
    const wired = bucket >= core.windowBuckets;
    if (list !== undefined && (list === LIST_WIRED) !== wired) {
      problems.push(`seg/active-buckets I2: bucket ${bucket} is on list ${list}`);
    }
    if (list === undefined && buckets.head.get(bucket) !== 0 && !(wired && core.seedRules)) {
      problems.push(`seg/active-buckets I2: bucket ${bucket} has entries and is on no list`);
    }
  }
}

function checkPins(findings: Findings): void {
  const { core, problems } = findings;
  const counts = core.pins.countByEntry();
  for (const [entry, place] of findings.places) {
    if (place === 'the pool' || place.startsWith('reserved')) continue;
    const active = core.entries.active.get(entry) >>> 0;
    if (active !== (counts.get(entry) ?? 0)) {
      problems.push(`seg/cache-pins I1: entry ${entry} counts ${active} pins, ${counts.get(entry) ?? 0} name it`);
    }
    counts.delete(entry);
  }
  for (const lost of core.pins.lostRows()) problems.push(`seg/cache-pins I3: ${lost}`);
  for (const entry of counts.keys())
    problems.push(`seg/cache-pins I2: a pin names entry ${entry}, which is not in use`);
}

/** Ranges that overlap the one before them, by first page, must both have their marks. */
function checkMarks({ core, problems, places }: Findings): void {
  if (core.seedRules) return;
  const { entries } = core;
  const chained = [...places].filter(([, place]) => place.startsWith('bucket')).map(([entry]) => entry);
  const keyOf = (entry: EntryIndex) =>
    2 * entries.owner.get(entry) + ((entries.flags.get(entry) & ENTRY_FLAG.wired) === 0 ? 0 : 1);
  chained.sort((one, two) => keyOf(one) - keyOf(two) || entries.address.get(one) - entries.address.get(two));
  for (let at = 1; at < chained.length; at++) {
    const [one, two] = [chained[at - 1] as EntryIndex, chained[at] as EntryIndex];
    const end = entries.address.get(one) + entries.pages.get(one) * core.pageSize;
    if (keyOf(one) !== keyOf(two) || end <= entries.address.get(two)) continue;
    for (const entry of [one, two]) {
      if ((entries.flags.get(entry) & ENTRY_FLAG.shares) === 0)
        problems.push(`seg/range-sharing I2: entry ${entry} shares pages without a mark`);
    }
  }
}

function checkSums(findings: Findings): void {
  const { core, problems } = findings;
  const { control, slots } = core;
  for (const [key, ranges] of findings.shared) addPages(findings, countPages(ranges), key % 2 === 1);
  checkMarks(findings);
  let disables = 0;
  for (let slot = 0; slot < slots.rowCount; slot++) disables += slots.disables.get(slot);
  if (disables !== control.disabled.get(0)) {
    problems.push(`seg/cache-switch I2: ${control.disabled.get(0)} disables, slots have ${disables}`);
  }
  if (control.lockedPages.get(0) !== findings.pages || control.windowPages.get(0) !== findings.windowPages) {
    problems.push(
      `seg/pagelock-core I3: ${control.lockedPages.get(0)} pages locked, ${control.windowPages.get(0)} in the window; ` +
        `entries have ${findings.pages} and ${findings.windowPages}`,
    );
  }
}
