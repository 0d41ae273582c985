/**
 * Lock ranks: the order in which one thread may take locks.
 *
 * A thread that holds a lock may take only locks of a higher rank (page locks also of the same rank, in ascending page
 * order). Verify builds assert it at every entry; `tryEnter` is free of it, since it never waits. docs/locking.md has
 * the table with reasons.
 */

/** Rank of each kind of lock; gaps leave room. */
export const RANK = {
  /** Locks of user code, taken before anything of ours. */
  user: 0,
  /** The registry of named locks, looked into while others are held. */
  lockRegistry: 50,
  /** The list of arenas: create, destroy, open. */
  arenaRegistry: 100,
  /** Address spaces. */
  addressSpace: 200,
  /** Segments and anon map lists. */
  segment: 300,
  /** A bucket of the pagelock cache. */
  pagelockBucket: 320,
  /** Counters, lists of active buckets and pools of the pagelock cache. */
  pagelock: 340,
  /** The vnode table and its hash. */
  vnodeTable: 400,
  /** One vnode. */
  vnode: 500,
  /** Held by the one thread that keeps pages while it waits for more frames. */
  pageShortage: 550,
  /** Held by the one request that marks its way through memory while frames are reclaimed for it. */
  pageList: 580,
  /** One device map. */
  deviceMap: 585,
  /** Cookies, large pages and their pool. */
  pmem: 590,
  /** One page, in ascending order of pages. */
  page: 600,
  /** A stripe of the page hash. */
  pageHash: 700,
  /** A stripe of the lists of modified pages. */
  pageDirty: 720,
  /** The list of pages that are not needed any more. */
  pageCacheList: 730,
  /** The map of the swap file. */
  swap: 735,
  /** Queues of the replacement policy. */
  replacement: 740,
  /** Held by those who wait for an entry of the mapping cache; they look at its lists. */
  mappingWait: 790,
  /** Lists of the mapping cache: of entries, and of clean pages. */
  mappingList: 800,
  /** One quantum cache: its depot and slabs. */
  quantumCache: 850,
  /** One arena. */
  arena: 900,
  /** The queue of requests that wait for space in arenas. */
  spaceQueue: 950,
  /** What one owner is charged for allocations from arenas. */
  ownerLedger: 975,
  /** The arena that boundary tags come from, asked while another arena is held. */
  tagArena: 990,
  /** The pool that arenas take boundary tags and hash buckets from. */
  tagPool: 1000,
  /** The free frames that one slot keeps for itself. */
  frameCache: 1050,
  /** Physical frames. */
  frames: 1100,
  /** Counters and other leaves: nothing is taken under these. */
  leaf: 2000,
} as const;
