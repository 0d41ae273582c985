/**
 * The geometry: every capacity that the layout depends on, chosen at boot and stored in the region's header, so that
 * a thread that attaches computes the same offsets from nothing but the buffer.
 */

/** Names of the capacities, in the order in which the header stores them. New ones go at the end. */
export const GEOMETRY_KEYS = [
  'slots',
  'slotLanes',
  'lockLanes',
  'heldLanes',
  'journalLanes',
  'owners',
  'callbacks',
  'arenas',
  'tags',
  'tagBuckets',
  'frames',
  'bankFrames',
  'pageSize',
  'pageBuckets',
  'pageStripes',
  'vnodes',
  'vnodeBuckets',
  'pathBytes',
  'quantumCaches',
  'magazines',
  'slabs',
  'slabBuckets',
  'frameWords',
  'frameGroups',
  'pathCells',
  'physSegments',
  'frameClasses',
  'frameColours',
  'frameLists',
  'linkFrames',
  'runNodes',
  'runDirtyWords',
  'runDirtyGroups',
  'pagelockBuckets',
  'pagelockEntries',
  'pagelockOwners',
  'pagelockPins',
  'pmemCookies',
  'pmemRuns',
  'largePages',
  'largeWords',
  'fullnessRows',
  'fullnessWords',
  'deviceMaps',
  'spaceWaiters',
  'recordings',
  'recordEntries',
  'mappingLists',
  'mappingEntries',
  'mappingFrames',
  'frameWaiters',
  'policyNodes',
  'policyQueues',
  'policyGhosts',
  'ioRequests',
] as const;

/** Name of one capacity. */
export type GeometryKey = (typeof GEOMETRY_KEYS)[number];

/** All capacities: integers from 0 to 2^31 - 1. */
export type Geometry = Readonly<Record<GeometryKey, number>>;
