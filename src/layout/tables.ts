/** All tables of a region, in the order in which they lie there. New tables go at the end. */

import {
  frameGroupTable,
  frameHandTable,
  frameMapTable,
  framePoolTable,
  frameTable,
  mapSlotTable,
  pageBucketTable,
  pageClockTable,
  pageSlotTable,
  pageStripeTable,
  pageTable,
  pathCellTable,
  vnodeBucketTable,
  vnodePoolTable,
  vnodeTable,
} from './page-tables.ts';
import {
  magazineSlotTable,
  magazineTable,
  quantumCacheTable,
  slabBucketTable,
  slabPoolTable,
  slabTable,
} from './quantum-tables.ts';
import { callbackTable, cancelTable, headerTable, journalTable, ownerTable, slotTable } from './system-tables.ts';
import { arenaStateTable, arenaTable, bucketTable, tagPoolTable, tagTable, transferTable } from './vmem-tables.ts';

/** Name of a table to its declaration. */
export const TABLES = {
  header: headerTable,
  slot: slotTable,
  journal: journalTable,
  owner: ownerTable,
  callback: callbackTable,
  arena: arenaTable,
  arenaState: arenaStateTable,
  tag: tagTable,
  bucket: bucketTable,
  tagPool: tagPoolTable,
  transfer: transferTable,
  quantumCache: quantumCacheTable,
  magazineSlot: magazineSlotTable,
  magazine: magazineTable,
  slab: slabTable,
  slabBucket: slabBucketTable,
  slabPool: slabPoolTable,
  cancel: cancelTable,
  frame: frameTable,
  frameMap: frameMapTable,
  frameGroup: frameGroupTable,
  framePool: framePoolTable,
  frameHand: frameHandTable,
  page: pageTable,
  pageBucket: pageBucketTable,
  pageStripe: pageStripeTable,
  pageClock: pageClockTable,
  pageSlot: pageSlotTable,
  vnode: vnodeTable,
  vnodeBucket: vnodeBucketTable,
  vnodePool: vnodePoolTable,
  pathCell: pathCellTable,
  mapSlot: mapSlotTable,
} as const;

/** The type of `TABLES`. */
export type Tables = typeof TABLES;
