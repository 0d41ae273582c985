/** Charging owners for allocations: see sync/owner-ledger.ts. Only arenas with `charge` come here. */

import { fail, VERIFY } from '../base/index.ts';
import { TAG_DOUBLE_SHIFT, TAG_LINK_PREVIOUS, TAG_SHIFT, TAG_SIZE } from '../layout/index.ts';
import {
  faultPoint,
  ledgerLimit,
  ledgerUse,
  ownerNameOf,
  ownerOf,
  pledgeBack,
  settlePledge,
  tryPledge,
} from '../sync/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { COUNT_REFUSALS, type TagIndex } from './kinds.ts';

/** Charges this thread's owner for what it is about to get, under the arena's lock with nothing logged; false at the limit. */
export function chargeAhead(core: ArenaCore, size: number): boolean {
  if (tryPledge(core.thread, ownerOf(core.thread), size)) {
    if (VERIFY) faultPoint(core.thread, 'vmem.charge.pledged');
    return true;
  }
  core.count(COUNT_REFUSALS);
  return false;
}

/** Writes into a new allocation who was charged for it: this thread's owner, or nobody. */
export function noteCharge(core: ArenaCore, tag: TagIndex, charged: boolean): void {
  const at = (tag << TAG_SHIFT) + TAG_LINK_PREVIOUS;
  core.journal.log1(at);
  core.words[at] = charged ? ownerOf(core.thread) + 1 : 0;
  if (charged) settlePledge(core.thread);
}

/** The owner that was charged for an allocation, or -1. In arenas with `charge` an allocation's `linkPrevious` says so. */
export function chargedOwner(core: ArenaCore, tag: TagIndex): number {
  return (core.words[(tag << TAG_SHIFT) + TAG_LINK_PREVIOUS] as number) - 1;
}

/** Announces that the charge of an allocation that is being freed goes back: `redeemPledge` does it behind the section. */
export function dropCharge(core: ArenaCore, tag: TagIndex): void {
  const owner = chargedOwner(core, tag);
  if (owner >= 0) pledgeBack(core.thread, owner, core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number);
}

/**
 * Throws `EDQUOT` when an owner's limit, this thread's if none is given, is why so much cannot be had; `refused`: it was, though
 * others may have freed since.
 */
export function failIfOverQuota(
  core: ArenaCore,
  call: string,
  size: number,
  owner = ownerOf(core.thread),
  values: Readonly<Record<string, unknown>> = { arena: core.name, size },
  refused = false,
): void {
  const { region } = core.thread;
  const limit = ledgerLimit(region, owner);
  const { used } = ledgerUse(region, owner);
  const fits = used + Math.ceil(size * core.inverseQuantum) * core.quantum <= limit;
  if (fits && !refused) return;
  const charged = { ...values, owner: ownerNameOf(region, owner), used };
  const since = fits ? ', and there is room again' : '';
  fail('EDQUOT', call, charged, `the owner's limit of arena bytes is ${limit}${since}`);
}

/** What limits keep a request of this size from being served at present, as the end of a sentence; '' for none. */
export function quotaInTheWay(core: ArenaCore, size: number): string {
  const { region } = core.thread;
  const owner = ownerOf(core.thread);
  if (!core.charges || ledgerUse(region, owner).used + size <= ledgerLimit(region, owner)) return '';
  const name = JSON.stringify(ownerNameOf(region, owner));
  return `; the owner ${name} has ${ledgerUse(region, owner).used} of its limit of ${ledgerLimit(region, owner)}`;
}

/** Throws `EDQUOT` when a limit, of the owner or of the arena, is below the size: then it can never be served. */
export function failIfNeverAllowed(core: ArenaCore, call: string, size: number): void {
  if (core.charges && size > ledgerLimit(core.thread.region, ownerOf(core.thread))) failIfOverQuota(core, call, size);
  if (size <= core.limit) return;
  fail('EDQUOT', call, { arena: core.name, size }, `the limit of all spans is ${core.limit}`);
}
