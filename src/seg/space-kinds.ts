/** Constants and small types of address spaces. */

/** Number of an address space's row. */
export type SpaceIndex = number & { readonly __unit?: 'address space' };

/** Number of a segment's row. */
export type SegmentIndex = number & { readonly __unit?: 'segment' };

/** Number of an anon map's row. */
export type AnonMapIndex = number & { readonly __unit?: 'anon map' };

/** Number of a node of anon maps. */
export type AnonNodeIndex = number & { readonly __unit?: 'anon node' };

/** Number of an anonymous page: the index of its page identity. */
export type AnonIndex = number & { readonly __unit?: 'anon' };

/** Number of a shadow list's row. */
export type ShadowIndex = number & { readonly __unit?: 'shadow list' };

/** States of an address space. */
export const SPACE_STATE = {
  free: 0,
  live: 1,
  /** Being made or taken apart, by the slot that names it: nobody else touches it. */
  unsettled: 2,
} as const;

/** Flags of an address space. */
export const SPACE_FLAG = {
  /** Segments need not end below the user limit. */
  kernel: 1,
} as const;

/** Who resolves the faults of a segment. */
export const SEGMENT_DRIVER = {
  /** None yet. */
  none: 0,
  /** A vnode, anonymous memory, or a vnode whose changed pages are anonymous memory. */
  vnode: 1,
  /** Wired shared memory: all pages are there, locked by one shadow list. */
  wired: 2,
  /** Frames of a pmem cookie, through a device map. */
  device: 3,
  /** Physical memory at a fixed distance: the heap. */
  kernel: 4,
  /** A driver of users. */
  user: 5,
} as const;

/** Names of the drivers, by number. */
export const DRIVER_NAMES = ['none', 'vnode', 'wired', 'device', 'kernel', 'user'] as const;

/** Values of `segment.gone` in rows that say what a driver was asked for the copy of a segment. */
export const FORK_ROW = {
  /** It has answered: `backing` is what it said. */
  answered: -1,
  /** It is answering. */
  asked: -2,
} as const;

/** What a segment may be used for. */
export const PROTECTION = { none: 0, read: 1, write: 2 } as const;

/** Names of protections as users give them; what may be written may be read. */
export const PROTECTION_NAMES = { none: 0, read: 1, write: 3 } as const;

/** Name of a protection. */
export type Protection = keyof typeof PROTECTION_NAMES;

/** Flags of a segment. */
export const SEGMENT_FLAG = {
  /** Writes are seen by everybody who maps the same; else they are this space's own. */
  shared: 1,
  /** Pages are not reserved before they are used. */
  noReserve: 2,
  /** The device map was made for this mapping and goes with it. */
  ownDeviceMap: 4,
  /** Attached outside the room of the space. */
  noRoom: 8,
} as const;

/** Flags of an anon map. */
export const ANON_MAP_FLAG = {
  shared: 1,
  wired: 2,
  /** Shared memory whose maker has let go of it. */
  released: 4,
  /** Made by `sharedMemory`: its maker has a reference until it lets go. */
  named: 8,
} as const;

/** States of an anon map. */
export const ANON_MAP_STATE = {
  free: 0,
  live: 1,
  /** Nobody names it any more; it goes with its last shadow list. */
  dying: 2,
} as const;

/** States of a shadow list. */
export const SHADOW_STATE = {
  free: 0,
  /** Its slot is locking its pages. */
  building: 1,
  /** The pagelock cache has it. */
  cached: 2,
  /** Its slot has it, and gives it back by itself. */
  held: 3,
  /** It belongs to a wired anon map and goes with it. */
  wired: 4,
} as const;

/** Advice about a range: how it will be used, or what is to be done with it. */
export const ADVICE = {
  normal: 0,
  random: 1,
  sequential: 2,
  willNeed: 3,
  dontNeed: 4,
  free: 5,
} as const;

/** Name of an advice. */
export type Advice = keyof typeof ADVICE;

/** Lanes of `spaceControl.advice`. */
export const ADVICE_COUNTER = {
  /** Pages given up by advice `free`. */
  freeHit: 0,
  /** Pages that advice `free` could not give up, because they were locked. */
  freeMiss: 1,
  willNeed: 2,
  dontNeed: 3,
} as const;

/** Bit of `spaceSlot.section`: somebody sleeps until the section ends. */
export const SECTION_AWAITED = 0x40000000;
